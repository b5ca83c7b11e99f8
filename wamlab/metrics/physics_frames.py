"""Physical commonsense on frames: is what was seen still there, whole, and does the scene stay?

Pixels alone, or with the pixels of each thing (`Masks`): those that a simulator gives, those of any
segmenter, or, for imagined frames, those whose colours are the thing's in the frame now
(`look_alikes`). Every number is a violation, 0 where nothing is wrong:

    lost           share of the frames after the first in which a thing is gone, never covered
    shape change   the largest share of a thing's outline that changed
    scene change   root mean square change of the background in the worst frame, in [0, 1]

None of them asks whether what is seen moves as it should: that is `physics` on states, and
`motion` beside the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import ndimage

from wamlab.config import nearest
from wamlab.metrics.base import (
    NotApplicable,
    Result,
    Row,
    imagining,
    item_means,
    metric,
    state_name,
    summarise,
    why_nothing_imagined,
)
from wamlab.metrics.joint import OBJECT, ROBOT
from wamlab.metrics.visual import check_same_shape, executed, named, unit
from wamlab.types import Branch, Probe

FEWEST_PIXELS = 4
FEWEST_FRAMES = 3
STILL_SEEN = 0.25
"""A thing is seen while it shows this share of the pixels that it last showed."""

BINS = 16
COLOUR_BLUR = 0.7
"""Deviation, in levels, by which counts of colours are blurred."""

REACH = 1 / 16
"""Share of the picture's width around where a thing was last seen in which it is looked for."""

FIT = 2
"""So many pixels around where the middles meet are tried to lay one outline over another."""

REST = "rest"

Video = Shaped[np.ndarray, "t h w 3"]
Masks = Bool[np.ndarray, "t h w"]
Mask = Bool[np.ndarray, "h w"]


def scene_change(frames: Video, background: Mask) -> float:
    """Root mean square change of the background since the first frame, in the worst frame, [0, 1].

    ``background``: the pixels that no moving thing covers at any time in truth.

    Raises:
        NotApplicable: fewer than two frames, or fewer than `FEWEST_PIXELS` such pixels.
        ValueError: NaN, floats outside [0, 1], or a background of another size.
    """
    video = check_video(frames, 2)
    _check_size("the background", background, frames)
    if background.sum() < FEWEST_PIXELS:
        raise NotApplicable("no background: moving things cover the whole picture")
    behind = video[:, background]
    return float(np.sqrt(((behind[1:] - behind[0]) ** 2).mean(axis=(1, 2)).max()))


def lost(thing: Masks, front: Masks) -> float:
    """The share of later frames in which a thing is gone without having been covered, in [0, 1].

    The first shows the thing and does not count. It is gone when it shows less than `STILL_SEEN` of
    what it last showed. Where things that can stand before it (``front``: the robot) then cover at
    least half of the rest, or it was at the picture's edge, it is hidden and not missed until it is
    seen again: so what vanishes behind a hand is forgiven. What fades over many frames is gone at
    none: that is a change of shape.

    Raises:
        NotApplicable: fewer than two frames, or a thing that is not seen in the first.
        ValueError: masks of different shapes.
    """
    sizes = _sizes(thing, front)
    missed, last, hidden = 0, thing[0], False
    for t in range(1, len(thing)):
        if sizes[t] >= max(STILL_SEEN * last.sum(), 1):
            last, hidden = thing[t], False
            continue
        edge = _at_edge(last) or last.sum() < FEWEST_PIXELS
        covered = int((last & (thing[t] | front[t])).sum()) >= last.sum() / 2
        hidden = hidden or edge or covered
        missed += not hidden
    return missed / (len(thing) - 1)


def shape_change(thing: Masks, front: Masks) -> float:
    """The largest share of a thing's outline that changed, of its largest view's pixels.

    The largest view is laid over each other one where it fits best; pixels that only one of the two
    has count, except where things that can stand before it (``front``: the robot) cover them. A
    disc at half its size has lost 0.75. The median of three neighbouring views is taken, so that a
    single frame decides nothing. Turning and coming nearer change an outline too: how much is
    allowed depends on the thing.

    Raises:
        NotApplicable: a thing that is seen in fewer than three frames, away from the edge.
        ValueError: masks of different shapes.
    """
    sizes = _sizes(thing, front)
    views = [t for t in range(len(thing)) if sizes[t] and not _at_edge(thing[t])]
    if len(views) < 3:
        raise NotApplicable(f"a thing is seen whole in {len(views)} frames, 3 are needed")
    largest = thing[max(views, key=lambda t: sizes[t])]
    apart = np.array([_misfit(largest, thing[t], front[t]) for t in views]) / largest.sum()
    return float(np.median([apart[:-2], apart[1:-1], apart[2:]], axis=0).max())


def look_alikes(
    frames: Video, now: Mapping[str, Mask], *, reach: float = REACH
) -> dict[str, Masks]:
    """The pixels of each thing in every frame, followed by colour from its pixels in the first.

    Colours are counted in `BINS` levels a channel; a pixel goes to the thing (or the rest) among
    whose pixels its colour is most frequent (histogram backprojection, Swain and Ballard 1991), if
    it is no further from where the thing was last seen than ``reach`` of the picture's width.

    Raises:
        NotApplicable: a thing that its colours do not tell from what is around it in the first
            frame (intersection over union below a half).
        ValueError: NaN, floats outside [0, 1], masks of another size.
    """
    video = check_video(frames, 1)
    for name, mask in now.items():
        _check_size(f"the mask of {name}", mask, frames)
    masks = {**now, REST: ~np.logical_or.reduce(list(now.values()))}
    known = [name for name, mask in masks.items() if mask.any()]
    level = np.minimum((video * BINS).astype(int), BINS - 1)
    shares = np.stack([_colours(level[0][masks[name]]) for name in known])
    shares[-1] += 1e-9  # a colour that nothing had belongs to the rest
    best = shares.argmax(axis=0)[level[..., 0], level[..., 1], level[..., 2]]
    pixels = max(1, round(reach * video.shape[2]))
    found = {}
    for name in now:
        alike = best == known.index(name) if name in known else np.zeros(best.shape, bool)
        found[name] = _followed(alike, now[name], pixels)
        if iou(found[name][0], now[name]) < 0.5:
            raise NotApplicable(f"its colours do not tell {name!r} from what is around it at first")
    return found


@metric("scene_change", needs="probes")
def probe_scene_change(probes: Sequence[Probe]) -> Result:
    """How much the imagined background changes: pixels of no entity now, nor when it happened."""

    def change(imagination: Imagination) -> float:
        return scene_change(imagination.shown(), imagination.background())

    return summarise("scene_change", "", *over_imagined(probes, change))


@metric("object_permanence", needs="probes", unit="share of frames")
def probe_object_permanence(probes: Sequence[Probe], *, entity: str = OBJECT) -> Result:
    """In which share of imagined frames a thing is lost, told by its colours.

    Lost is what `lost` finds. ``entity``: the name of a thing, or ``object``: the worst of those
    that can be told apart. The floor is the same in the frames of the executions.
    """
    return _of_things("object_permanence", "share of frames", probes, entity, lost)


@metric("shape_constancy", needs="probes", unit="share of outline")
def probe_shape_constancy(probes: Sequence[Probe], *, entity: str = OBJECT) -> Result:
    """How much of an imagined thing's outline changes, told by its colours; 0 is constant.

    What `shape_change` finds, in the frame now and at two offsets or more; ``entity`` and the floor
    are those of `object_permanence`. A thing that turns in the executions raises the floor.
    """
    return _of_things("shape_constancy", "share of outline", probes, entity, shape_change)


def _of_things(
    name: str,
    unit: str,
    probes: Sequence[Probe],
    entity: str,
    measure: Callable[[Masks, Masks], float],
) -> Result:
    """What a measure finds of things that are followed by their colours: the worst of each state's.

    The floor is what it finds in the executed frames, where they show the same things.
    """

    def worst(frames: Video, now: Mapping[str, Mask]) -> float:
        found, reasons = [], set()
        for thing in _named(now, entity):
            arm = now.get(ROBOT, np.zeros_like(now[thing]))
            try:
                seen = look_alikes(frames, {thing: now[thing], ROBOT: arm})
                found.append(measure(seen[thing], seen[ROBOT]))
            except NotApplicable as reason:
                reasons.add(str(reason))
        if not found:
            raise NotApplicable("; ".join(sorted(reasons)) or "no thing is seen now")
        return max(found)

    rows, undefined = over_imagined(probes, lambda one: worst(one.shown(), one.seen_now()))
    real, _ = over_imagined(probes, lambda one: worst(one.real(), one.seen_now()))
    floor = float(np.mean([*item_means(real).values()])) if real else None
    return summarise(name, unit, rows, undefined, floor=floor)


@dataclass(frozen=True)
class Imagination:
    """One view of one own branch: the frame now, then the imagined or the real ones."""

    probe: Probe
    branch: Branch
    view: str

    def shown(self) -> Video:
        return self._after_now((self.branch.imagined or {})[self.view], "imagined frames")

    def real(self) -> Video:
        return self._after_now(executed(self.probe, self.branch, self.view), "executed frames")

    def seen_now(self) -> dict[str, Mask]:
        """The pixels of each entity that is seen now."""
        return {name: mask[0] for name, mask in self._of(self.probe.masks).items() if mask.any()}

    def background(self) -> Mask:
        """The pixels of no entity, now and whenever it happened."""
        masks = [*self._of(self.probe.masks).values(), *self._of(self.branch.masks).values()]
        if not masks or not self.branch.masks:
            raise NotApplicable("the probe holds no masks")
        return ~np.logical_or.reduce([mask.any(axis=0) for mask in masks])

    def _after_now(self, frames: Video, what: str) -> Shaped[np.ndarray, "t_and_now h w 3"]:
        now = self.probe.now[self.view]
        check_same_shape(self.probe, self.view, now[0], frames[0])
        ahead = self.branch.offsets > 0
        what = named(state_name(self.probe), self.view, what)
        return np.concatenate([unit(now), unit(frames[ahead], what)])

    def _of(self, masks: Mapping[str, Masks]) -> dict[str, Masks]:
        start = f"{self.view}/"
        return {
            name.removeprefix(start): mask for name, mask in masks.items() if name.startswith(start)
        }


def over_imagined(
    probes: Sequence[Probe], measure: Callable[[Imagination], float]
) -> tuple[list[Row], list[str]]:
    """The values of all imaginations that have one, and why the others have none."""
    if not any(imagining(probe) for probe in probes):
        raise NotApplicable(why_nothing_imagined(probes))
    rows, undefined = [], []
    for probe in probes:
        for branch in imagining(probe):
            for view in branch.imagined or {}:
                try:
                    value = measure(Imagination(probe, branch, view))
                except NotApplicable as reason:
                    undefined.append(str(reason))
                else:
                    rows.append(Row(state_name(probe), view, value))
    return rows, undefined


def iou(first: Bool[np.ndarray, "*shape"], second: Bool[np.ndarray, "*shape"]) -> float:
    """Intersection over union; two empty masks agree."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def check_video(frames: Video, fewest: int = FEWEST_FRAMES) -> Float[np.ndarray, "t h w 3"]:
    """The frames in [0, 1]; see the measures for what is raised."""
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"expected frames (T, H, W, 3), got {frames.shape}")
    if len(frames) < fewest:
        raise NotApplicable(f"at least {fewest} frames are needed, got {len(frames)}")
    return unit(frames)


def _named(known: Mapping[str, Mask], entity: str) -> list[str]:
    if entity == OBJECT:
        return [name for name in known if name != ROBOT]
    if entity not in known:
        raise NotApplicable(f"{entity!r} is not seen now{nearest(entity, known)}")
    return [entity]


def _sizes(thing: Masks, front: Masks) -> Int[np.ndarray, " t"]:
    """How many pixels of a thing are seen in each frame."""
    if thing.shape != front.shape:
        raise ValueError(f"masks of shape {thing.shape} beside those in front of {front.shape}")
    if len(thing) < 2:
        raise NotApplicable(f"at least 2 frames are needed, got {len(thing)}")
    sizes = thing.sum(axis=(1, 2))
    if not sizes[0]:
        raise NotApplicable("the thing is not seen in the first frame")
    return sizes


def _misfit(model: Mask, view: Mask, front: Mask) -> int:
    """How many uncovered pixels only one of two outlines has, where the first fits best.

    What would leave the picture is not counted.
    """
    pixels, seen = np.argwhere(model), np.argwhere(view)
    middle = np.rint(seen.mean(axis=0) - pixels.mean(axis=0)).astype(int)
    tries = np.arange(-FIT, FIT + 1)
    by = middle + np.stack(np.meshgrid(tries, tries), axis=-1).reshape(-1, 1, 2)
    laid = pixels + by
    inside = ((laid >= 0) & (laid < view.shape)).all(axis=-1)
    row, column = np.moveaxis(np.where(inside[..., None], laid, 0), -1, 0)
    free = ~front
    in_model = (free[row, column] & inside).sum(axis=1)
    in_both = ((free & view)[row, column] & inside).sum(axis=1)
    return int(((free & view).sum() + in_model - 2 * in_both).min())


def _followed(alike: Masks, first: Mask, pixels: int) -> Masks:
    """What looks like the thing, near to where it was last seen."""
    seen, last = np.zeros_like(alike), first
    for t in range(len(alike)):
        near = ndimage.distance_transform_cdt(~last, "chessboard") <= pixels
        seen[t] = alike[t] & near if last.any() else False
        last = seen[t] if seen[t].any() else last
    return seen


def _at_edge(mask: Mask) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _colours(levels: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, "r g b"]:
    """How frequent each colour is, a little blurred: shading moves a colour to the next level."""
    counts, _ = np.histogramdd(levels, bins=BINS, range=[(0, BINS)] * 3)
    return ndimage.gaussian_filter(counts / len(levels), COLOUR_BLUR)


def _check_size(what: str, mask: Mask, frames: Video) -> None:
    if mask.shape != frames.shape[1:3]:
        raise ValueError(f"{what} has shape {mask.shape}, the frames {frames.shape[1:3]}")
