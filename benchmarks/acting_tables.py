"""Tables of what `acting_on_futures.py` has played: choosing between plans, noticing failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from findings import MISSING, Finding, verdict
from pooling import Cell
from tables import Found
from wording import command, machine, table

from wamlab.report.words import between, number, percent

MONITORS = {"imagined": "what it imagined", "static": "that nothing moves"}


def finding(found: Found) -> Finding:
    """Whether choosing and watching were measured, whatever came of it."""
    asked = (
        "consensus selection and the surprise monitor: paired difference in success, AUROC and "
        "lead time, ms"
    )
    if not found.acting:
        return Finding("judge 5", asked, "", MISSING)
    return Finding("judge 5", asked, "; ".join(map(_said, found.acting)), verdict(True))


def tables(found: Found) -> str:
    """Both tables, a row for every cell, and where they come from."""
    if not found.acting:
        return "Not measured (`python benchmarks/acting_on_futures.py mw-6 --models uwm`).\n"
    choices = dict.fromkeys(name for cell in found.acting for name in cell["choosing"]["success"])
    choosing = [
        [_name(cell), str(cell["samples"]), *(_chosen(cell["choosing"], name) for name in choices)]
        for cell in found.acting
    ]
    watching = [
        [_name(cell), said, *_watched(cell["watching"][name])]
        for cell in found.acting
        for name, said in MONITORS.items()
    ]
    return "\n".join(
        [
            "Success where each plan is one of several samples, chosen by what they agree on or by "
            "their value; in points what is gained over one sample on the same starts, paired, and "
            "what a plan costs (the wall clock of a call that several episodes share).\n",
            table(["model", "samples", *choices], choosing),
            "A monitor compares arriving frames with what was imagined of them. AUROC tells "
            "failures from successes of the same task, over the steps in which half of the "
            "successes are done: 0.5 is chance. Its alarms are calibrated on validation starts to "
            "be false in one success of ten.\n",
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


def _name(cell: Cell) -> str:
    youth = "" if cell["step"] is None else f", after {cell['step']} steps"
    return f"`{cell['model']}` on `{cell['protocol']}`, seed {cell['seed']}{youth}"


def _chosen(choosing: Mapping[str, Any], name: str) -> str:
    if name not in choosing["success"]:
        return "n/a"
    solved, n = _counts(choosing, name)
    said = f"{percent(solved / n)} of {n}"
    if gain := choosing["gain"].get(name):
        said += f"; {_points(gain)}"
    return f"{said}; {number(choosing['plan'][name]['ms_p50'], 0)} ms"


def _points(gain: Mapping[str, Any]) -> str:
    held = f" ({between(gain['interval'], 0, 100.0)})" if gain["interval"] else ""
    return f"{number(100 * gain['value'], 0, sign=True)} points{held}"


def _counts(choosing: Mapping[str, Any], name: str) -> tuple[int, int]:
    rows: Sequence[Mapping[str, int]] = [*choosing["success"][name].values()]
    return sum(row["any"] for row in rows), sum(row["n"] for row in rows)


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
    caught = f"{percent(alarms['value'])} of {alarms['n']}"
    false = "–" if known["false"] is None else f"{percent(known['false'])} of {known['successes']}"
    return [tells, caught, false, "–" if known["lead"] is None else number(known["lead"], 0)]


def _said(cell: Cell) -> str:
    gained = _points(cell["choosing"]["gain"]["consensus"])
    auroc = cell["watching"]["imagined"]["auroc"]
    tells = auroc["why_not"] or f"AUROC {number(auroc['value'], 2)} ({between(auroc['interval'])})"
    return f"{_name(cell)}: {gained}; {tells}"


def _origin(cell: Cell) -> str:
    cost = cell["watching"]["ms_an_instant"]
    said = "" if cost is None else f", {number(cost, 2)} ms to compare the views of one instant"
    return f"`{command(cell)}`, {machine(cell)}{said}\n"
