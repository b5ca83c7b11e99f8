"""Coupling in nats of denoisers that have learned planted faults, as a table with its target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from findings import MISSING, Finding, verdict
from tables import Found
from wording import command, machine, span, table

from wamlab.report.words import between, listed, number

GOOD = "oracle"
SIDES = ("action", "future")
HEADS = {
    "action": "by the action",
    "future": "by the future",
    "gap": "factorisation gap",
    "by policy": "chain gap by POLICY",
    "by video": "by VIDEO",
}
DIGITS = {"by policy": 3, "by video": 3}
RIGHT = "one mode"
"""What differs from the oracle by how it acts and not by what it imagines."""
TARGET = (
    "denoisers that have learned a planted fault are less coupled, in nats, than those of what "
    "happens: each by one side, of every training and with an interval that excludes the good "
    "value, and none more by either"
)


def finding(found: Found) -> Finding:
    """Whether each planted fault lowers the coupling by some side, and none raises it."""
    if (record := found.files.get("coupling_faults")) is None:
        return Finding("coupling", TARGET, "", MISSING)
    faults = record["faults"]
    planted = [fault for fault in faults if fault not in (GOOD, RIGHT)]
    told = [fault for fault in planted if telling(faults, fault)]
    above = [f"{fault} {HEADS[side]}" for fault in planted for side in preferring(faults, fault)]
    lower = [fault for fault in planted if any(_lower(faults, fault, side) for side in SIDES)]
    higher = [fault for fault in planted if any(_higher(faults, fault, side) for side in SIDES)]
    said = (
        f"integrated to one level {len(told)} of {len(planted)} told apart, above: "
        f"{listed(above) or 'none'}; each to where its own bounds end, as a report does, "
        f"{len(lower)} lower in every training, above in any: {listed(higher) or 'none'}"
    )
    return Finding("coupling", TARGET, said, verdict(told == planted and not above))


def telling(faults: Mapping[str, Any], fault: str) -> list[str]:
    """The sides by which the interval of a fault lies below the good value, and every training of
    it below every one of that."""
    return [
        side
        for side in SIDES
        if faults[fault][side]["interval"][1] < faults[GOOD][side]["value"]
        and max(faults[fault][side]["by_seed"]) < min(faults[GOOD][side]["by_seed"])
    ]


def preferring(faults: Mapping[str, Any], fault: str) -> list[str]:
    """The sides by which a fault has the higher value."""
    return [s for s in SIDES if faults[fault][s]["value"] > faults[GOOD][s]["value"]]


def _lower(faults: Mapping[str, Any], fault: str, side: str) -> bool:
    """Whether by its own bounds every training is below every good one."""
    own, good = (faults[one]["by_its_own_bounds"][side] for one in (fault, GOOD))
    return bool(max(own) < min(good))


def _higher(faults: Mapping[str, Any], fault: str, side: str) -> bool:
    """Whether by its own bounds any training is above the lowest good one."""
    own, good = (faults[one]["by_its_own_bounds"][side] for one in (fault, GOOD))
    return bool(max(own) > min(good))


def tables(found: Found) -> str:
    """What was trained on what, what both sides say, and what is known."""
    if (record := found.files.get("coupling_faults")) is None:
        return "Coupling in nats: not measured (`python benchmarks/coupling_faults.py`).\n"
    faults, settings, known = record["faults"], record["settings"], record["known"]
    what = "; ".join(f"*{fault}*: {said}" for fault, said in record["what"].items())
    rows = [
        [
            fault,
            *(_cell(one[name], DIGITS.get(name, 2)) for name in HEADS),
            *(
                f"{_span(one['by_its_own_bounds'][side], 2)} (of {_span(one['stops'][side])})"
                for side in SIDES
            ),
            "" if fault in (GOOD, RIGHT) else _told(faults, fault),
        ]
        for fault, one in faults.items()
    ]
    truth = {n: f"{number(one['value'], 2)}{span(one['interval'])}" for n, one in known.items()}
    own = [f"{HEADS[side]}, its own bounds (of levels)" for side in SIDES]
    head = ["planted", *HEADS.values(), *own, "told from the oracle by"]
    return (
        "Coupling in nats of learned denoisers, in a world where it is known: the pusher, whose "
        f"own action and future share {truth['both']} nats ({truth['agent']} of them by the "
        f"agent's places alone, {known['both']['n']} states). A network of two noise levels is "
        f"trained on what each planted model does and imagines ({settings['steps']} steps, "
        f"{len(settings['seeds'])} trainings each), and judged on what happens from "
        f"{settings['tested']} other states, {settings['own_actions']} own actions from each. "
        f"{what}. A cell is the mean of the trainings, with its interval over states and the "
        f"trainings' extremes; all end at the noise level {number(record['cleanest'], 3)}, where "
        "the bounds of the oracle end, but for the last two columns: there each ends where its own "
        "bounds do, as in a report. Chain gaps are nats per dimension.\n\n"
        f"{table(head, rows)}\n`{command(record)}`, {machine(record)}\n"
    )


def _told(faults: Mapping[str, Any], fault: str) -> str:
    return listed([HEADS[side] for side in telling(faults, fault)]) or "no side"


def _span(values: Sequence[float], digits: int = 0) -> str:
    """``4 to 5``, or ``6`` where all are alike."""
    low, high = number(min(values), digits), number(max(values), digits)
    return low if low == high and not digits else f"{low} to {high}"


def _cell(one: Mapping[str, Any], digits: int) -> str:
    inside = f"{between(one['interval'], digits)}; {_span(one['by_seed'], digits)}"
    return f"{number(one['value'], digits)} ({inside})"
