"""Coupling in nats of denoisers that have learned planted faults, as a table with its target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from findings import MISSING, Finding, verdict
from tables import Found
from wording import command, machine, span, table

from wamlab.report.words import listed, number

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
TARGET = (
    "denoisers that have learned a planted fault are less coupled, in nats, than those of what "
    "happens: each by one side whose interval excludes the good value, and none more by either"
)


def finding(found: Found) -> Finding:
    """Whether each planted fault lowers the coupling by some side, and none raises it."""
    if (record := found.files.get("coupling_faults")) is None:
        return Finding("coupling", TARGET, "", MISSING)
    faults = record["faults"]
    planted = [fault for fault in faults if fault != GOOD]
    told = [fault for fault in planted if telling(faults, fault)]
    above = [f"{fault} {HEADS[side]}" for fault in planted for side in preferring(faults, fault)]
    said = f"{len(told)} of {len(planted)} told apart; above: {listed(above) or 'none'}"
    return Finding("coupling", TARGET, said, verdict(told == planted and not above))


def telling(faults: Mapping[str, Any], fault: str) -> list[str]:
    """The sides by which the interval of a fault lies below the good value."""
    return [s for s in SIDES if faults[fault][s]["interval"][1] < faults[GOOD][s]["value"]]


def preferring(faults: Mapping[str, Any], fault: str) -> list[str]:
    """The sides by which the interval of a fault lies above the good value."""
    return [s for s in SIDES if faults[fault][s]["interval"][0] > faults[GOOD][s]["value"]]


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
            ""
            if fault == GOOD
            else listed([HEADS[s] for s in telling(faults, fault)]) or "no side",
        ]
        for fault, one in faults.items()
    ]
    truth = {
        name: f"{number(one['value'], 2)}{span(one['interval'])}" for name, one in known.items()
    }
    return (
        "Coupling in nats of learned denoisers, in a world where it is known: the pusher, whose "
        f"own action and future share {truth['both']} nats ({truth['agent']} of them by the "
        f"agent's places alone, {known['both']['n']} states). A network of two noise levels is "
        f"trained on what each planted model does and imagines ({settings['steps']} steps), and "
        f"judged on what happens from {settings['tested']} other states, "
        f"{settings['own_actions']} own actions from each. {what}. Chain gaps are nats per "
        "dimension.\n\n"
        f"{table(['planted', *HEADS.values(), 'told from the oracle by'], rows)}\n"
        f"`{command(record)}`, {machine(record)}\n"
    )


def _cell(one: Mapping[str, Any], digits: int) -> str:
    return f"{number(one['value'], digits)}{span(one['interval'], digits)}"
