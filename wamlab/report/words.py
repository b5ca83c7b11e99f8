"""Numbers as people read them, and the verdict of a report in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wamlab.types import STATE

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
ACRONYMS = {
    *("ads", "auroc", "cda", "cmr", "div", "dwa", "eic", "icc", "iea", "lpips", "mae", "mmd"),
    *("ocb", "psnr", "skill", "ssim"),
}
READER_UNITS = {"success": (100.0, 1, "%"), STATE: (1.0, 2, "standard deviations")}
"""Of an error that is no distance: by how much it is multiplied, its digits, its unit."""
DEGREES = {0.6: "agrees with", 0.2: "agrees in part with", 0.0: "hardly agrees with"}
"""From which share of the way from a still picture to the truth what is said of an agreement."""


def number(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """``0.42``, with a true minus sign; an en dash where there is no number."""
    if value is None:
        return NONE
    value = round(value, digits) + 0.0  # no minus before what rounds to zero
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", MINUS)


def percent(value: float | None, *, sign: bool = False) -> str:
    """A rate as whole per cent."""
    return NONE if value is None else number(100 * value, 0, sign=sign) + "\u00a0%"


def between(interval: Sequence[float] | None, digits: int = 2, times: float = 1.0) -> str:
    """``0.31 to 0.52``; empty where there is no interval."""
    if interval is None:
        return ""
    low, high = (number(times * end, digits) for end in interval)
    return f"{low} to {high}"


def count(n: int, thing: str) -> str:
    """``1 task``, ``3 tasks``."""
    return f"{n} {thing}" + ("" if n == 1 else "s")


def listed(items: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def reader_error(error: Mapping[str, float]) -> str:
    """How exact a state reader is: ``robot 6.0 mm, success 2.0 %``; see its ``error``."""
    said = []
    for name, value in error.items():
        times, digits, unit = READER_UNITS.get(name, (1000.0, 1, "mm"))
        said.append(f"{name} {number(times * value, digits)} {unit}")
    return listed(said)


def title(name: str) -> str:
    """A measure's name as people read it: ``state EIC, robot``."""
    said = name.replace("_", " ").split(" ")
    return " ".join(word.upper() if word.rstrip(",") in ACRONYMS else word for word in said)


def verdict(found: Mapping[str, Any]) -> list[str]:
    """What a report found, as sentences: acting, imagining, and whether the two agree."""
    recorded = [on_recorded(found["recorded"])] if found["recorded"] else []
    if recorded and not any(found["starts"].values()):
        return [*recorded, "Nothing was executed, so nothing is said about success."]
    return [_on_success(found), _on_rivals(found), _on_consistency(found), *recorded]


ORIGINS = {
    "held out": "The run held these episodes out of its training.",
    "training": "The run may have been trained on these episodes: it held none out.",
    "elsewhere": (
        "The run did not read this dataset, or not as it is now; rivals are made of its other "
        "episodes, which favours them."
    ),
}


def origin(recorded: Mapping[str, Any] | None) -> str:
    """What training did with the recorded episodes."""
    return " ".join(ORIGINS[name] for name in (recorded or {"origin": []})["origin"])


def on_recorded(recorded: Mapping[str, Any]) -> str:
    """How near the model comes to recorded episodes, in a sentence or two."""
    acting, imagining = recorded["acting"], recorded["imagining"]
    place = f"{count(recorded['instants'], 'instant')} of {count(recorded['episodes'], 'episode')}"
    said = [f"Asked at {place}. {origin(recorded)}"]
    action = recorded["actions"].get(acting)
    if action and action["value"] is not None:
        over = recorded["actions_over"]["hold"]["value"]
        side = "nearer" if over >= 0 else "further away"
        said.append(
            f"Its actions ({acting}) are {number(action['value'])} normalised units away from the "
            f"recorded ones, {number(abs(over))} {side} than holding still."
        )
    future = recorded["futures"].get(imagining)
    if future and future["value"] is not None:
        over = recorded["futures_over"]["last frame"]["value"]
        side = "above" if over >= 0 else "below"
        said.append(
            f"Where something moves, its future ({imagining}) scores {number(future['value'], 1)} "
            f"dB, {number(abs(over), 1)} dB {side} the last frame."
        )
    return " ".join(said)


def policy_name(found: Mapping[str, Any]) -> str:
    """The name of what was judged."""
    return str(found["policy"] or "The policy")


def _on_success(found: Mapping[str, Any]) -> str:
    result = found["success"]["success_any"]
    if result["value"] is None:
        return "No episodes were rolled out, so nothing is said about success."
    tasks = len(result["parts"]) or 1
    sentence = (
        f"{policy_name(found)} solves {percent(result['value'])} of "
        f"{count(result['n'], 'episode')} on {count(tasks, 'task')} "
        f"(95\u00a0% interval {between(result['interval'], 0, 100.0)})"
    )
    over = found["success"]["success_over_blind"]
    if over["value"] is None:
        return sentence + "; the blind rows were not measured, so the rate stands alone."
    better = "above" if over["value"] >= 0 else "below"
    points = number(abs(100 * over["value"]), 0)
    clear = "" if _excludes_zero(over["interval"]) else ", a difference that may be chance"
    return f"{sentence}, {points} points {better} the better blind replay{clear}."


def _on_rivals(found: Mapping[str, Any]) -> str:
    model = found["fidelity"]["moving_psnr"]
    if model["value"] is None:
        return f"The imagination was not measured: {model['why_not']}."
    sentence = f"Where something moves, the imagined future scores {number(model['value'], 1)} dB"
    rivals = {n: r for n, r in found["rivals"].items() if r["value"] is not None}
    if not rivals:
        return sentence + "; no rivals were saved beside it."
    beaten = [n for n, r in rivals.items() if _excludes_zero(r["interval"]) and r["value"] > 0]
    losing = [n for n, r in rivals.items() if _excludes_zero(r["interval"]) and r["value"] < 0]
    open_ = [n for n in rivals if n not in beaten + losing]
    parts = [f"beats {_all(beaten, rivals)}"] if beaten else []
    parts += [f"loses to {_all(losing, rivals)}"] if losing else []
    parts += [f"cannot be told from {_all(open_, rivals)}"] if open_ else []
    return f"{sentence} and {listed(parts)}."


def _on_consistency(found: Mapping[str, Any]) -> str:
    for name, title in (("eic", "EIC"), ("eic_cf", "EIC_cf")):
        robot, thing = (found["joint"][entity][name] for entity in ("robot", "object"))
        if robot["value"] is not None:
            return f"{_on_robot(robot, title)}{_on_objects(thing)}."
    reason = found["joint"]["robot"]["eic_cf"]["why_not"]
    return f"Whether imagination and execution agree is undefined: {reason}."


def _on_robot(result: Mapping[str, Any], title: str) -> str:
    value, beside = result["value"], result["details"]
    room = beside["oracle"] - beside["static"]
    way = (value - beside["static"]) / room if room > 0 else 0.0
    agrees = next((said for least, said in DEGREES.items() if way > least), "does not agree with")
    clear = "" if _excludes_zero(beside["over_static_interval"]) else ", though not beyond chance"
    found = beside.get("retrieval")
    clip = "" if found is None else f", the nearest training clip {number(found)}"
    return (
        f"What it imagines of its own arm {agrees} what its actions then do: {title} is "
        f"{number(value)} where a still picture would score {number(beside['static'])}{clip} and "
        f"the truth {number(beside['oracle'])}{clear}"
    )


def _on_objects(result: Mapping[str, Any]) -> str:
    if result["value"] is None:
        return "; for the objects it is undefined"
    return (
        f"; for the objects it is {number(result['value'])} "
        f"(still picture {number(result['details']['static'])})"
    )


def _all(names: Sequence[str], every: Mapping[str, Any]) -> str:
    if len(names) == len(every) > 1:
        return f"all {len(names)} rivals"
    return listed([f"the {name}" for name in names])


def _excludes_zero(interval: Sequence[float] | None) -> bool:
    return interval is not None and not interval[0] <= 0 <= interval[1]
