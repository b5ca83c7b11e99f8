"""A report: one self-contained page, made from the logs of a run folder and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from wamlab.data.logs import (
    load_episode,
    load_recording,
    read_episodes,
    read_probes,
    write_atomic,
)
from wamlab.metrics.base import state_name
from wamlab.report import charts, open_loop, perceptual, whatif, words
from wamlab.report.axes import (
    ANCHORS,
    called,
    further_rows,
    least_normalised,
    over_offsets,
    without_value,
)
from wamlab.report.charts import Axis, Mark
from wamlab.report.pictures import Card, card, recorded_card, rollout
from wamlab.report.results import ENTITIES, NOT_LOSSES, write_results
from wamlab.types import Episode

Row = dict[str, Any]
RATES = Axis(0.0, 1.0, 230)
SHORT = 8
FIRST_CURVES = ("loss", "grad_norm")
MEASURES = {
    "eic": ("EIC", "own future against the other samples of the same state; 0 is no coupling"),
    "eic_cf": ("EIC\u00a0cf", "own future against imposed actions; read it against static"),
    "skill": ("SKILL", "how much nearer the truth than the frame now"),
}
CONTROLS = ("static", "retrieval", "shuffled_action", "wrong_world", "oracle")
"""What a joint measure of pixels is read against; some are `DRAWN`."""
BESIDE = (*CONTROLS, "normalised")
DRAWN = ("static", "retrieval", "oracle")


def build(folder: str | Path, features: str | None = None) -> Path:
    """Write ``results.json``, ``report.html`` and, of a folder with probes, the what-if viewer.

    Returns the report's path.

    Args, Raises: as `wamlab.report.results.results`.
    """
    folder = Path(folder)
    found = write_results(folder, features)
    viewer = build_viewer(folder, [*found["pictures"]["worst"], *found["pictures"]["random"]])
    page = render(
        found,
        _cards(folder, found["pictures"]),
        _rollouts(folder),
        _recorded_cards(folder, found["recorded"]),
        what_if="" if viewer is None else viewer.name,
    )
    return write_atomic(folder / "report.html", lambda file: file.write(page.encode()))


def build_viewer(folder: str | Path, wanted: Sequence[str] = ()) -> Path | None:
    """Write the what-if viewer of a folder's probes, these states first; None without probes."""
    template = environment().get_template("whatif.html.j2")
    return whatif.write_page(Path(folder), wanted, template, _asset("whatif.js"))


def environment() -> jinja2.Environment:
    """What pages are rendered with: the templates, the style and the words of `wamlab.report`."""
    templates = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters |= {"number": words.number, "percent": words.percent}
    templates.filters |= {"between": words.between}
    templates.globals["style"] = _asset("report.css")
    return templates


def render(
    found: Mapping[str, Any],
    cards: Mapping[str, Any],
    rollouts: Sequence[Row],
    recorded_cards: Sequence[Card],
    what_if: str = "",
) -> str:
    """The page of these results and pictures."""
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            script=_asset("report.js"),
            found=found,
            title=words.policy_name(found),
            anchors=ANCHORS,
            further={a: further_rows(rows) for a, rows in found["axes"].items()},
            inapplicable={a: without_value(rows) for a, rows in found["axes"].items()},
            verdict=words.verdict(found),
            tasks=task_rows(found),
            rate_scale=charts.scale(RATES, [0.0, 0.5, 1.0], words.percent),
            rivals=rival_rows(found),
            perceptual=perceptual.shown(found["perceptual"]),
            joint=joint_rows(found),
            readers=[(t, words.reader_error(error)) for t, error in found["readers"].items()],
            curves=curve_rows(found["loss"]),
            facts=facts(found["run"], found["starts"], found["chosen"]),
            cards=cards,
            rollouts=rollouts,
            recorded=open_loop.shown(found["recorded"]),
            origin=words.origin(found["recorded"]),
            recorded_cards=recorded_cards,
            what_if=what_if,
        )
    )


def task_rows(found: Mapping[str, Any]) -> list[Row]:
    """One row per task and, where there are several, one for all of them."""
    success, blind = found["success"]["success_any"], found["blind"]
    if success["value"] is None:
        return []
    over = found["success"]["success_over_blind"]
    rows = [
        _task_row(env, part, blind.get(env, {}), over["parts"].get(env))
        for env, part in success["parts"].items()
    ]
    if len(rows) > 1:
        pooled = {
            name: _mean_rate(blind, name) for name in ("expert", "mean replay", "random replay")
        }
        rows.append(
            _task_row("All tasks", success, pooled, over if over["value"] is not None else None)
        )
        rows[-1]["pooled"] = True
    return rows


def rival_rows(found: Mapping[str, Any]) -> dict[str, Any]:
    """The model's own moving-pixel PSNR per view and offset, and each rival's beside it."""
    model = found["fidelity"]["moving_psnr"]
    rivals = {name: r for name, r in found["rivals"].items() if r["value"] is not None}
    parts = sorted(model["parts"], key=_view_and_offset)
    ends = [end for r in rivals.values() for end in (r["interval"] or [r["value"]])]
    axis = Axis(*charts.nice_range(ends, 2.0)) if ends else Axis(0.0, 1.0)
    rows = [
        {
            "name": name,
            "value": result["details"]["theirs"],
            "over": result["value"],
            "interval": result["interval"],
            "wins": result["details"]["wins"],
            "parts": [_theirs(model, result, part) for part in parts],
            "chart": charts.intervals(
                [Mark(result["value"], result["interval"])],
                axis,
                f"model less {name}: {words.number(result['value'], 1, sign=True)} dB",
            ),
        }
        for name, result in rivals.items()
    ]
    near = (axis.high - axis.low) / 4
    ticks = {0.0, *(end for end in (axis.low, axis.high) if abs(end) > near)}
    return {
        "parts": parts,
        "rows": rows,
        "scale": charts.scale(axis, sorted(ticks), lambda tick: words.number(tick, 0) + " dB"),
    }


def joint_rows(found: Mapping[str, Any]) -> dict[str, Any]:
    """Each measure for the robot and for the objects, with what it is read against.

    Then which of all joint measures is least between no coupling and its ceiling.
    """
    results = [found["joint"][entity][name] for entity in ENTITIES for name in MEASURES]
    lows = [
        min(r["value"], r["details"]["static"] or 0.0) for r in results if r["value"] is not None
    ]
    axis = Axis(max(charts.nice_range([*lows, -0.5], 0.5)[0], -2.0), 1.0, 200)
    groups = {
        entity: [_joint_row(entity, name, found["joint"][entity][name], axis) for name in MEASURES]
        for entity in ENTITIES
    }
    scale = charts.scale(axis, [axis.low, 0.0, 1.0], lambda tick: words.number(tick, 1))
    least = least_normalised(found["joint"], found["axes"]["joint coupling"])
    return {"groups": groups, "scale": scale, "least": least}


def curve_rows(curves: Mapping[str, Sequence[Sequence[float]]]) -> list[Row]:
    """A small chart for each logged number, the loss first."""
    names = [name for name in FIRST_CURVES if name in curves]
    names += [name for name in curves if name not in names and name not in NOT_LOSSES]
    return [
        {
            "name": name.replace("_", " ").replace("/", " / "),
            "first": f"{curves[name][0][1]:.3g}",
            "last": f"{curves[name][-1][1]:.3g}",
            "steps": int(curves[name][-1][0]),
            "chart": charts.lines(curves[name], f"{name} over {int(curves[name][-1][0])} steps"),
        }
        for name in names
        if len(curves[name]) > 1
    ]


def facts(
    run: Mapping[str, Any], starts: Mapping[str, Sequence[int]], chosen: Mapping[str, str]
) -> dict[str, Any]:
    """What ``run.json`` says: short things as one list, each long thing as a list of its own.

    ``starts`` are the first and the last of episodes and probes, ``chosen`` the rules by which the
    episodes' were chosen.
    """
    said = {**run.get("provenance", {}), **{k: v for k, v in run.items() if k != "provenance"}}
    flat = {name: _flat(name, value) for name, value in said.items()}
    short = [pair for pairs in flat.values() if len(pairs) <= SHORT for pair in pairs]
    short += [(f"starts of {k}", f"{v[0]} to {v[1]}") for k, v in starts.items() if v]
    short += [(f"{rule} chosen by rule", said) for rule, said in chosen.items()]
    long = {name: pairs for name, pairs in flat.items() if len(pairs) > SHORT}
    return {"short": short, "long": long}


def _flat(title: str, value: Any) -> list[tuple[str, str]]:
    title = title.replace("_", " ")
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        value = dict(enumerate(value, start=1))
    if isinstance(value, Mapping):
        dotted = f"{title} \N{MIDDLE DOT} "
        return [pair for name, item in value.items() for pair in _flat(f"{dotted}{name}", item)]
    said = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return [] if value is None else [(title, said)]


def _joint_row(entity: str, name: str, result: Row, axis: Axis) -> Row:
    title, meaning = MEASURES[name]
    row = {"title": title, "meaning": meaning, "chart": "", **result}
    if result["value"] is None:
        return row
    details = result["details"]
    controls = {kind: details[kind] for kind in CONTROLS if details.get(kind) is not None}
    drawn = [Mark(at, kind=kind) for kind, at in controls.items() if kind in DRAWN]
    known = {kind: details[kind] for kind in BESIDE if details.get(kind) is not None}
    beside = [(called(kind, details), words.number(at)) for kind, at in known.items()]
    beside += over_offsets(result, words.number)
    own = Mark(result["value"], result["interval"] or [result["value"]] * 2)
    label = f"{title} of the {entity}: {words.number(result['value'])}"
    return row | {"chart": charts.intervals([*drawn, own], axis, label), "beside": beside}


def _task_row(env: str, part: Row, blind: Mapping[str, Any], over: Row | None) -> Row:
    rates = {name: k / n for name, (k, n) in blind.items() if n}
    marks = [Mark(rate, kind=name.replace(" ", "-")) for name, rate in rates.items()]
    marks.append(Mark(part["value"], part["interval"]))
    ends = words.between(part["interval"], 0, 100.0)
    label = f"{env}: {words.percent(part['value'])}, interval {ends}"
    return {
        "env": env,
        "value": part["value"],
        "interval": part["interval"],
        "successes": part["details"].get("successes"),
        "n": part["n"],
        "at_reset": part["details"].get("at_reset", 0),
        "blind": rates,
        "over": over,
        "chart": charts.intervals(marks, RATES, label),
        "pooled": False,
    }


def _theirs(model: Row, over: Row, part: str) -> float | None:
    """A rival's own value in a part: the model's less the difference."""
    own, difference = model["parts"].get(part), over["parts"].get(part)
    if own is None or difference is None:
        return None
    return own["value"] - difference["value"]


def _view_and_offset(part: str) -> tuple[str, int]:
    view, offset = part.rsplit("@", 1)
    return view, int(offset)


def _mean_rate(blind: Mapping[str, Mapping[str, Sequence[int]]], name: str) -> tuple[float, float]:
    rates = [rows[name][0] / rows[name][1] for rows in blind.values() if name in rows]
    return (float(np.mean(rates)), 1.0) if rates else (0.0, 0.0)


def _cards(folder: Path, pictures: Mapping[str, Any]) -> dict[str, Any]:
    wanted = {*pictures["worst"], *pictures["random"]}
    made = {state_name(p): card(p) for p in read_probes(folder) if state_name(p) in wanted}
    return {kind: [made[state] for state in pictures[kind]] for kind in ("worst", "random")}


def _recorded_cards(folder: Path, recorded: Mapping[str, Any] | None) -> list[Card]:
    if recorded is None:
        return []
    drawn = [load_recording(folder, *place) for place in recorded["pictures"]]
    made = [recorded_card(one, recorded["imagining"]) for one in drawn if one is not None]
    return [one for one in made if one.strips]


def _rollouts(folder: Path) -> list[Row]:
    """Per task the first success and the first failure, in the order of their start seeds."""
    chosen: dict[tuple[str, bool], Episode] = {}
    for episode in read_episodes(folder, frames=False):
        chosen.setdefault((episode.env, episode.success_any), episode)
    order = sorted(chosen, key=lambda key: (key[0], not key[1]))
    whole = [load_episode(folder, chosen[key].env, chosen[key].seed) for key in order]
    return [_rollout_row(episode) for episode in whole if episode.frames]


def _rollout_row(episode: Episode) -> Row:
    moving, still = rollout(episode)
    solved = episode.success_any
    return {
        "env": episode.env,
        "seed": episode.seed,
        "instruction": episode.instruction,
        "solved": solved,
        "steps": int(episode.success.argmax()) + 1 if solved else len(episode),
        "moving": moving,
        "still": still,
        "views": words.listed(list(episode.frames)),
    }


def _asset(name: str) -> str:
    return (resources.files("wamlab.report") / "assets" / name).read_text(encoding="utf-8")
