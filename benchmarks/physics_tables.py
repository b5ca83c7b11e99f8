"""The confusion of planted faults and measures of physical commonsense, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from findings import MISSING, Finding, verdict
from tables import Found
from wording import command, machine, table

from wamlab.report.words import between, count, listed, number

REAL = "real"
ASKED = ("teleport", "vanish", "float", "melt", "ghost motion", "reversal", "freeze")
TARGET = (
    "planted faults of physics (teleport, vanish, float, melt, ghost motion, reversal, freeze): "
    "each is told from real video by a measure whose interval lies above its false alarms"
)


def finding(found: Found) -> Finding:
    """Whether every fault that was asked for is told from real video by some measure."""
    if (faults := found.files.get("physics_faults")) is None:
        return Finding("physics", TARGET, "", MISSING)
    confusion, names = faults["confusion"], list(faults["reads"])
    told = [one for one in ASKED if any(tells(confusion, one, name) for name in names)]
    alone = [n for n in names if not faults["needs_truth"][n]]
    blind = [one for one in ASKED if any(tells(confusion, one, name) for name in alone)]
    worst = max((confusion[REAL][name]["alarms"] for name in names), default=0)
    clips = confusion[REAL][names[0]]["clips"]
    said = (
        f"{len(told)} of {len(ASKED)}, {len(blind)} without the true video beside it; "
        f"at most {worst} false alarms of a measure on {clips} real clips"
    )
    return Finding("physics", TARGET, said, verdict(told == list(ASKED)))


def tells(confusion: Mapping[str, Any], fault: str, name: str) -> bool:
    """Whether the interval of what is caught lies above that of the false alarms."""
    if fault not in confusion:
        return False
    return bool(confusion[fault][name]["wilson_95"][0] > confusion[REAL][name]["wilson_95"][1])


def tables(found: Found) -> str:
    """What was shown, the confusion, and what no measure can see."""
    if (faults := found.files.get("physics_faults")) is None:
        return "Not measured (`python benchmarks/physics_faults.py`).\n"
    return "\n".join([shown(faults), confusion_table(faults), limits_table(faults), origin(faults)])


def shown(faults: Mapping[str, Any]) -> str:
    """What was filmed and planted, and where the thresholds come from."""
    clips, settings = faults["clips"], faults["settings"]
    tasks = "; ".join(f"{kind}: {listed(names)}" for kind, names in faults["tasks"].items())
    planted = "; ".join(f"*{name}*: {what}" for name, what in faults["faults"].items())
    return (
        f"{count(clips['test'], 'real clip')} of {settings['instants']} instants of the expert "
        f"({tasks}), rendered at {settings['image_size']} pixels, and each again with every fault "
        f"that the thing it moves can have. {planted}. Half of the clips begin well before the "
        "first touch, half shortly before it or, where the thing was lifted, before the hand "
        f"lets it drop: real things fall, too. Thresholds come from {clips['calibration']} real "
        "clips of other episodes alone (split conformal: a further real clip exceeds one with "
        f"probability {settings['alpha']:g} at most), for things on their own and things that a "
        "joint holds apart. A cell is how many clips raise the alarm; a measure that does not "
        "apply raises none. A thing that melts loses touch with the hand that carries it: so "
        "measures of motion notice what they do not measure. A ball's box has corners that the "
        "ball has not: where it rolls they seem to sink, and the threshold of interpenetration for "
        "free things is theirs, above what sinks here.\n\n"
        "States, contacts and masks are the simulator's own, without the errors of a reader of "
        "imagined frames; *by colour* sees frames and the first frame's masks alone. *Motion "
        "against truth* compares with the very clip that was edited, so that any edit shows: it "
        "says that something differs and not what is wrong, and an imagination that is merely "
        "another lawful future differs as well.\n"
    )


def confusion_table(faults: Mapping[str, Any]) -> str:
    """A row for each measure: alarms on real clips, on every fault, and what it cannot tell."""
    confusion = faults["confusion"]
    planted = [fault for fault in confusion if fault != REAL]
    rows = [
        [
            name,
            faults["reads"].get(name, ""),
            *(cell(confusion[fault][name]) for fault in (REAL, *planted)),
            listed([fault for fault in planted if not tells(confusion, fault, name)]) or "nothing",
        ]
        for name in confusion[REAL]
    ]
    return table(["measure", "reads", "real (false alarms)", *planted, "cannot tell"], rows)


def cell(one: Mapping[str, Any]) -> str:
    if not one["applicable"]:
        return "does not apply"
    said = f"{one['alarms']}/{one['clips']} ({between(one['wilson_95'], 0, 100.0)} %)"
    return said if one["applicable"] == one["clips"] else f"{said}, applies to {one['applicable']}"


def limits_table(faults: Mapping[str, Any]) -> str:
    """The thresholds that were fixed beforehand."""
    limits = faults["thresholds"]
    rows = [
        [name, faults["units"][name], *(number(limits[kind][name], 4) for kind in limits)]
        for name in faults["reads"]
    ]
    return table(["threshold of", "unit", *limits], rows)


def origin(faults: Mapping[str, Any]) -> str:
    return f"`{command(faults)}`, {machine(faults)}\n"
