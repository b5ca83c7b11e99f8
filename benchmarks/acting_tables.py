"""Tables of what `acting_on_futures.py` has played: choosing between plans, noticing failure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from findings import MISSING, Finding, verdict
from pooling import Cell, Estimate, paired, pooled
from tables import Found
from wording import command, machine, span, table

from wamlab.metrics.stats import wilson
from wamlab.report.words import between, count, listed, number, percent

TITLE = "Imagined futures while acting"
ONE = "one sample"
MONITORS = {"imagined": "what it imagined", "static": "that nothing moves"}


def finding(found: Found) -> Finding:
    """Whether choosing and watching were measured, whatever came of it."""
    asked = (
        "consensus selection and the surprise monitor: paired difference in success, AUROC and "
        "lead time, ms"
    )
    if not found.acting:
        return Finding("acting", asked, "", MISSING)
    return Finding("acting", asked, "; ".join(map(_said, _systems(found))), verdict(True))


def tables(found: Found) -> str:
    """Both tables, a row for every cell and for all seeds of one, and where they come from."""
    if not found.acting:
        return "Not measured (`python benchmarks/acting_on_futures.py mw-6 --models uwm`).\n"
    choices = dict.fromkeys(name for cell in found.acting for name in cell["choosing"]["success"])
    choosing = [
        [_name(cells), str(cells[0]["samples"]), *(_chosen(cells, name) for name in choices)]
        for system in _systems(found)
        for cells in [*([cell] for cell in system), *([system] if len(system) > 1 else [])]
    ]
    watching = [
        [_name([cell]), said, *_watched(cell["watching"][name])]
        for cell in found.acting
        for name, said in MONITORS.items()
    ]
    return "\n".join(
        [
            "Success where each plan is one of several samples, chosen by what they agree on or by "
            "their value; in points what is gained over one sample on the same starts, paired, and "
            "what a plan costs (the wall clock of a call that several episodes share). Every task "
            "weighs the same; for intervals tasks, seeds and starts are drawn.\n",
            table(["model", "samples", *choices], choosing),
            " ".join(["One sample is what a choice at random is worth.", *_not_played(found)])
            + "\n",
            "A monitor compares arriving frames with what was imagined of them. AUROC tells "
            "failures from successes of the same task, over the steps that the success took: 0.5 "
            "is chance. Its alarms are calibrated on validation starts to be false in one success "
            "of ten; a failure is caught by the share of those successes that take longer than it "
            "takes to raise the alarm.\n",
            table(
                [
                    "model",
                    "the monitor expects",
                    "AUROC",
                    "failures caught",
                    "false",
                    "lead, steps",
                ],
                watching,
            ),
            *map(_origin, found.acting),
        ]
    )


def _systems(found: Found) -> list[list[Cell]]:
    """The seeds of each model that was played in the same way."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in sorted(found.acting, key=lambda one: one["seed"]):
        way = [cell[name] for name in ("protocol", "model", "attempt", "step", "samples")]
        groups.setdefault(tuple(way), []).append(cell)
    return [*groups.values()]


def _not_played(found: Found) -> list[str]:
    """The ways of choosing that a model refused, each with its reason."""
    why_not = [one for cell in found.acting for one in cell["choosing"]["why_not"].items()]
    return [f"Not played, by `{name}`: {why}." for name, why in dict.fromkeys(why_not)]


def _name(cells: Sequence[Cell]) -> str:
    first = cells[0]
    youth = "" if first["step"] is None else f", after {first['step']} steps"
    seeds = f"seed {first['seed']}" if len(cells) == 1 else count(len(cells), "seed")
    return f"`{first['model']}` on `{first['protocol']}`, {seeds}{youth}"


def _chosen(cells: Sequence[Cell], name: str) -> str:
    """How often one way of choosing succeeds, what it gains over one sample, and its price."""
    if any(name not in cell["choosing"]["success"] for cell in cells):
        return "n/a"
    played = _as_played(cells, name)
    n = sum(row["n"] for cell in played for row in cell["success"].values())
    ms = statistics.median(cell["choosing"]["plan"][name]["ms_p50"] for cell in cells)
    said = [f"{percent(pooled(played).value)} of {n}", f"{number(ms, 0)} ms"]
    gain = None if name == ONE else _gain(cells, name)
    return "; ".join(said if gain is None else [said[0], _points(gain), said[1]])


def _gain(cells: Sequence[Cell], name: str) -> Estimate | None:
    """What is gained over one sample on the same starts."""
    found = paired(_as_played(cells, name), _as_played(cells, ONE))
    return None if found is None else found.difference


def _as_played(cells: Sequence[Cell], name: str) -> list[Cell]:
    """One way of choosing, as a cell holds what was played."""
    return [{"seed": cell["seed"], "success": cell["choosing"]["success"][name]} for cell in cells]


def _points(gain: Estimate) -> str:
    return f"{number(100 * gain.value, 0, sign=True)} points{span(gain.interval, 0, 100.0)}"


def _watched(monitor: Mapping[str, Any]) -> list[str]:
    auroc, alarms = monitor["auroc"], monitor["alarms"]
    tells = auroc["why_not"]
    if auroc["value"] is not None:
        counts = auroc["details"]
        tells = (
            f"{number(auroc['value'], 2)} ({between(auroc['interval'])}) of {counts['failures']} "
            f"failures, {counts['successes']} successes"
        )
    if alarms["value"] is None:
        return [tells, alarms["why_not"], "–", "–"]
    known = alarms["details"]
    left = [f"; {n} more: {why}" for why, n in alarms["undefined"].items()]
    caught = f"{percent(alarms['value'])}{span(alarms['interval'], 0, 100.0)} of {alarms['n']}"
    caught += "".join(left)
    false = "–"
    if known["false"] is not None:
        ends = wilson(known["false"] * known["successes"], known["successes"])
        false = f"{percent(known['false'])}{span(ends, 0, 100.0)} of {known['successes']}"
    return [tells, caught, false, "–" if known["lead"] is None else number(known["lead"], 0)]


def _said(cells: Sequence[Cell]) -> str:
    """What agreement gains, with its control, and whether failures are noticed."""
    gains = {
        "futures": _gain(cells, "consensus"),
        "actions": _gain(cells, "action-consensus"),
    }
    gained = [
        f"agreement on {what} {_points(gain)}" for what, gain in gains.items() if gain is not None
    ]
    aurocs = [
        f"AUROC of a monitor that expects {said} {listed(_aurocs(cells, name))}"
        for name, said in MONITORS.items()
    ]
    return f"{_name(cells)}: {'; '.join([*gained, *aurocs])}"


def _aurocs(cells: Sequence[Cell], monitor: str) -> list[str]:
    found = [cell["watching"][monitor]["auroc"] for cell in cells]
    return [
        one["why_not"] or f"{number(one['value'])} ({between(one['interval'])})" for one in found
    ]


def _origin(cell: Cell) -> str:
    cost = cell["watching"]["ms_an_instant"]
    said = "" if cost is None else f", {number(cost, 2)} ms to compare the views of one instant"
    return f"`{command(cell)}`, {machine(cell)}{said}\n"
