"""One branch of one state, entity by entity and offset by offset: what a what-if viewer lights.

The distances of `wamlab.metrics.joint`, before any average. Over the region of one entity in one
view after one offset, ``x^`` is what was imagined for the branch's action and ``x*`` what happened
when it was executed:

    over_still    1 - d(x^, x*) / d(x_now, x*)
    over_others   1 - d(x^, x*) / mean_k d(x^, x*_k)      k: the state's other branches

1 is exact, 0 no better than a still picture or than the outcome of another action, below 0 worse.
The gates are those of the joint measures; the background has no pose, so only pixels close it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from wamlab.metrics.joint import FEWEST_PIXELS, ROBOT, Look, distance, gate_metres, pixel_gate
from wamlab.types import Branch, Probe

BACKGROUND = "background"


@dataclass(frozen=True)
class Score:
    """A value, or the reason why there is none."""

    value: float | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Sight:
    """One entity in one view after one offset; ``moved`` in metres, None without a pose."""

    entity: str
    view: str
    offset: int
    moved: float | None
    over_still: Score
    over_others: Score


def entities(probe: Probe) -> list[str]:
    """The robot, what else has a mask in the frame now, by name, and the background."""
    seen = {key.split("/", 1)[1] for key in probe.masks} - {ROBOT}
    robot = [ROBOT] if any(key.endswith(f"/{ROBOT}") for key in probe.masks) else []
    return [*robot, *sorted(seen), BACKGROUND]


def sights(probe: Probe, branch: Branch) -> Iterator[Sight]:
    """Every entity of a branch in every view after every offset.

    Branches of the same action, or whose frames lie at other offsets, are none of the others.
    """
    others = [
        one
        for one in probe.asked()
        if not np.array_equal(one.action, branch.action)
        and np.array_equal(one.offsets, branch.offsets)
    ]
    for view in branch.happened:
        for t in range(len(branch.offsets)):
            for entity in entities(probe):
                yield _sight(Look(probe, entity, view, t, [branch], others))


def _sight(look: Look) -> Sight:
    (branch,) = look.own
    posed = look.entity in branch.entities
    moved = look.motion() if posed else None
    sight = lambda still, others: Sight(  # noqa: E731
        look.entity, look.view, look.offset, moved, still, others
    )
    region = _region(look, look.entity)
    if region.sum() < FEWEST_PIXELS:
        return sight(*[Score(why_not="not to be seen")] * 2)
    if not branch.imagined or look.view not in branch.imagined:
        return sight(*[Score(why_not="nothing was imagined")] * 2)
    return sight(_over_still(look, region, moved), _over_others(look, region, posed))


def _over_still(look: Look, region: Bool[np.ndarray, "h w"], moved: float | None) -> Score:
    if moved is not None and moved <= gate_metres(look.entity):
        return Score(why_not=f"moved {1000 * gate_metres(look.entity):.0f} mm or less")
    happened = look.executed(look.own)
    return _score(look, region, distance(look.now(), happened, region), "the frames do not differ")


def _over_others(look: Look, region: Bool[np.ndarray, "h w"], posed: bool) -> Score:
    if not look.other:
        return Score(why_not="no other action was executed")
    gate = gate_metres(look.entity)
    if posed and look.spread().mean() <= gate:
        return Score(why_not=f"ends within {1000 * gate:.0f} mm whatever the action")
    happened, others = look.executed(look.own), look.executed(look.other)
    why = "looks the same whatever the action"
    if distance(happened[:, None], others[None], region).mean() <= pixel_gate(look.probe):
        return Score(why_not=why)
    return _score(look, region, distance(look.imagined()[:, None], others[None], region), why)


def _score(
    look: Look, region: Bool[np.ndarray, "h w"], rival: Float[np.ndarray, "..."], why: str
) -> Score:
    """One less the own distance over a rival's, where the rival's is above the pixel gate."""
    if rival.mean() <= pixel_gate(look.probe):
        return Score(why_not=why)
    own = distance(look.imagined(), look.executed(look.own), region)
    return Score(float(1 - own.mean() / rival.mean()))


def _region(look: Look, entity: str) -> Bool[np.ndarray, "h w"]:
    """The entity's pixels now and in every execution; the background is no entity's."""
    if entity == BACKGROUND:
        there = [_region(look, name) for name in entities(look.probe)[:-1]]
        whole = np.zeros(look.now().shape[:2], bool)
        return ~np.logical_or.reduce([whole, *there])
    key = f"{look.view}/{entity}"
    seen = [branch.masks[key][look.t] for branch in (*look.own, *look.other) if key in branch.masks]
    if key in look.probe.masks:
        seen.append(look.probe.masks[key][0])
    return np.logical_or.reduce([np.zeros(look.now().shape[:2], bool), *seen])
