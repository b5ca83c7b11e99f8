"""The what-if viewer: pick a state, impose an action, see what was imagined beside what happened.

One self-contained page, made from probes alone. It shows every branch that was executed from a
state, beside what was imagined for its action where the model answers FORWARD, and says how near
the two are for each entity (`wamlab.metrics.branches`). Frames are sprite sheets inside the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from wamlab.data.logs import read_probes, write_atomic
from wamlab.metrics.base import state_name
from wamlab.metrics.branches import BACKGROUND, Score, Sight, entities, sights
from wamlab.metrics.visual import named, unit
from wamlab.report.pictures import as_bytes, picture, png, sheet
from wamlab.types import Branch, Frames, Probe

NAME = "whatif.html"
MOST = 24
OWN = 3
Row = dict[str, Any]

SAYING = {
    "unchanged": "as it was planned, given to the model",
    "zero": "nothing moves",
    "mirrored": "left and right exchanged",
    "truncated": "the first half, then rest",
    "half-speed": "the first half in twice the time",
    "gripper-flipped": "open where it would close",
    "late": "the same, a quarter later",
    "other-instruction": "what it does when told something else",
}


def write_page(folder: Path, wanted: Sequence[str], template: Any, script: str) -> Path | None:
    """Write the viewer beside a report; None where no probe of the folder holds a branch.

    ``wanted`` states are shown first, then others evenly over the logs, `MOST` in all.
    """
    found = {state_name(probe): probe for probe in read_probes(folder) if probe.branches}
    if not found:
        return None
    shown = chosen([*found], wanted)
    probes = [probe for name, probe in found.items() if name in shown]
    page = template.render(
        title=" and ".join(sorted({probe.policy for probe in probes} - {""})) or "The policy",
        script=script,
        data=embedded({"states": [state(probe) for probe in probes]}),
        states=len(probes),
        of=len(found),
        silent=refusals(probes),
    )
    return write_atomic(folder / NAME, lambda file: file.write(page.encode()))


def chosen(names: Sequence[str], wanted: Sequence[str]) -> set[str]:
    """Which states are shown: the wanted ones, then others evenly, `MOST` at most."""
    first = [name for name in wanted if name in names][:MOST]
    rest = [name for name in names if name not in first]
    room = min(MOST - len(first), len(rest))
    places = np.linspace(0, len(rest) - 1, room).round().astype(int)
    return {*first, *(rest[place] for place in places)}


def refusals(probes: Iterable[Probe]) -> list[str]:
    """Why imposed actions have no imagination, where none of them has one."""
    imposed = [branch for probe in probes for branch in probe.of("imposed")]
    if any(branch.imagined for branch in imposed):
        return []
    return sorted({branch.why_not for branch in imposed if branch.why_not})


def state(probe: Probe) -> Row:
    """All that the page shows of one state, as JSON values."""
    views = list(probe.now)
    kept = [*probe.of("own")[:OWN], *(one for one in probe.asked() if one.kind != "own")]
    return {
        "name": state_name(probe),
        "env": probe.env,
        "start": probe.seed,
        "step": probe.step,
        "stratum": probe.stratum,
        "instruction": probe.instruction,
        "views": views,
        "size": {view: list(probe.now[view].shape[1:3]) for view in views},
        "entities": entities(probe),
        "now": {view: picture(probe.now[view][0]) for view in views},
        "marks": {view: png(marks(probe, view, probe.masks, 0)) for view in views},
        "branches": [branch_row(probe, branch) for branch in kept],
    }


def branch_row(probe: Probe, branch: Branch) -> Row:
    """One action: what was imagined, what happened, and every score by view, offset and entity."""
    seen = list(sights(probe, branch))
    at = range(len(branch.offsets))
    imagined = branch.imagined or {}
    return {
        "label": _title(branch),
        "saying": branch.instruction or SAYING.get(branch.label, ""),
        "kind": branch.kind,
        "steps": len(branch.action),
        "offsets": branch.offsets.tolist(),
        "why_not": branch.why_not,
        "solved": bool(branch.success),
        "imagined": _sheets(probe, imagined, "imagined frames"),
        "happened": _sheets(probe, branch.happened, "executed frames"),
        "marks": {
            view: png(np.concatenate([marks(probe, view, branch.masks, t) for t in at], axis=1))
            for view in branch.happened
            if branch.masks and len(at)
        },
        "scores": {
            view: [
                [_score(one) for one in seen if (one.view, one.offset) == (view, k)]
                for k in branch.offsets
            ]
            for view in branch.happened
        },
    }


def marks(
    probe: Probe, view: str, masks: Mapping[str, Bool[np.ndarray, "t h w"]], t: int
) -> UInt8[np.ndarray, "h w"]:
    """Which entity each pixel is of, counted from 1; 0 is the background."""
    found = np.zeros(probe.now[view].shape[1:3], np.uint8)
    for number, name in enumerate(entities(probe), start=1):
        if name != BACKGROUND and f"{view}/{name}" in masks:
            found[masks[f"{view}/{name}"][t]] = number
    return found


def embedded(value: Any) -> str:
    """JSON that can stand inside a script element: no text of a log can end it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _title(branch: Branch) -> str:
    """``sample 0`` is the own action that the imposed ones were made of."""
    if branch.kind != "own":
        return branch.label.replace("-", " ")
    number = branch.label.rpartition(" ")[2]
    return "own" if number == "0" else f"own, sample {number}"


def _sheets(probe: Probe, frames: Frames, what: str) -> dict[str, str]:
    """By view the frames from left to right, as one picture; ValueError names what holds NaN."""
    return {
        view: sheet(as_bytes(unit(shots, named(state_name(probe), view, what))))
        for view, shots in frames.items()
        if len(shots)
    }


def _score(one: Sight) -> Row:
    millimetres = None if one.moved is None else round(1000 * one.moved, 1)
    return {
        "moved": millimetres,
        "still": _value(one.over_still),
        "others": _value(one.over_others),
    }


def _value(score: Score) -> float | str:
    return score.why_not if score.value is None else round(score.value, 3)
