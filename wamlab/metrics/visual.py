"""Fidelity of imagined frames: PSNR, SSIM, and PSNR where something moves, beside rivals.

Every number is taken per frame, then averaged over the samples, views and offsets of a state, then
over states. The frame now, which the model was given, is never scored. A perfect frame counts as
`CAP` dB.

A pixel *moved* when a channel differs from the frame now by more than `move_threshold`. The moving
mask is what moved in reality **or** in the imagination, or invented motion would be forgiven. The
static region is what did not move in reality, invented motion included: so the two overlap exactly
where motion was invented, and both numbers show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy.lib.stride_tricks import sliding_window_view

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
from wamlab.types import Branch, Frames, Probe

CAP = 100.0
MOVE_FLOOR = 10 / 255
FEWEST_PIXELS = 10
WINDOW = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)

RivalFrames = Mapping[str, Mapping[str, Frames]]
"""What each rival showed, by state and rival, at the offsets of the state's own branches."""


@dataclass(frozen=True)
class Compared:
    """One frame shown (by the model or a rival) beside the real one, all in [0, 1].

    ``imagined`` is the model's, also where a rival's frame is scored: both are judged on one mask.
    """

    shown: Float[np.ndarray, "h w c"]
    real: Float[np.ndarray, "h w c"]
    imagined: Float[np.ndarray, "h w c"]
    now: Float[np.ndarray, "h w c"]
    threshold: float

    @property
    def moving(self) -> Bool[np.ndarray, "h w"]:
        """Moved in reality or in the imagination."""
        return ~self.static | moved(self.imagined, self.now, self.threshold)

    @property
    def static(self) -> Bool[np.ndarray, "h w"]:
        """Did not move in reality."""
        return ~moved(self.real, self.now, self.threshold)


Score = Callable[[Compared], "float | None"]


def psnr(
    first: Float[np.ndarray, "*shape"],
    second: Float[np.ndarray, "*shape"],
    *,
    mask: Bool[np.ndarray, "..."] | None = None,
    data_range: float = 1.0,
) -> float:
    """``10 log10(range^2 / MSE)`` in dB over all entries (those of the mask), at most `CAP`."""
    squared = (np.asarray(first, float) - np.asarray(second, float)) ** 2
    error = float(squared.mean() if mask is None else squared[mask].mean())
    return CAP if error == 0 else min(CAP, 10 * float(np.log10(data_range**2 / error)))


def ssim(
    first: Float[np.ndarray, "h w c"],
    second: Float[np.ndarray, "h w c"],
    *,
    data_range: float = 1.0,
) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of 11 with sigma 1.5.

    Population covariance, windows that lie wholly inside, mean over pixels and channels.

    Raises:
        ValueError: frames smaller than the window.
    """
    if min(first.shape[:2]) < len(WINDOW):
        raise ValueError(f"SSIM needs frames of at least 11 x 11 pixels, got {first.shape[:2]}")
    a, b = np.asarray(first, float), np.asarray(second, float)
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((light * (2 * covariance + c2) / (var_a + var_b + c2)).mean())


def unit(frames: Shaped[np.ndarray, "*shape"], what: str = "frames") -> Float[np.ndarray, "*shape"]:
    """uint8 frames, or floats already in [0, 1], as float64 in [0, 1].

    Raises:
        ValueError: NaN, infinity, or floats outside [0, 1].
    """
    if frames.dtype == np.uint8:
        return frames / 255.0
    if not np.isfinite(frames).all():
        raise ValueError(f"{what} hold NaN or infinity")
    if frames.min() < -1e-6 or frames.max() > 1 + 1e-6:
        raise ValueError(f"{what} are floats outside [0, 1]: {frames.min()} to {frames.max()}")
    return frames.astype(np.float64)


def move_threshold(probe: Probe, floor: float = MOVE_FLOOR) -> float:
    """How much a channel must change to count as motion, in [0, 1]: 3 x the pixel noise."""
    return max(3 * probe.pixel_noise / 255, floor)


def moved(
    frame: Float[np.ndarray, "h w c"], now: Float[np.ndarray, "h w c"], threshold: float
) -> Bool[np.ndarray, "h w"]:
    """Which pixels differ from the frame now."""
    return np.abs(frame - now).max(axis=-1) > threshold


@metric("psnr", needs="probes", unit="dB")
def frame_psnr(probes: Sequence[Probe]) -> Result:
    """PSNR of whole imagined frames against what happened when the own action was executed."""
    return _score("psnr", "dB", probes, lambda pair: psnr(pair.shown, pair.real))


@metric("ssim", needs="probes")
def frame_ssim(probes: Sequence[Probe]) -> Result:
    """SSIM of whole imagined frames against what happened."""
    return _score("ssim", "", probes, lambda pair: ssim(pair.shown, pair.real))


@metric("moving_psnr", needs="probes", unit="dB")
def moving_psnr(probes: Sequence[Probe]) -> Result:
    """PSNR over the pixels that moved in reality or in the imagination."""
    return _score("moving_psnr", "dB", probes, where_moving)


@metric("static_psnr", needs="probes", unit="dB")
def static_psnr(probes: Sequence[Probe]) -> Result:
    """PSNR over the pixels that did not move in reality, invented motion included."""
    return _score("static_psnr", "dB", probes, where_static)


@metric("moving_psnr_over_rival", needs="probes", unit="dB")
def moving_psnr_over_rival(
    probes: Sequence[Probe], *, rivals: RivalFrames | None = None, rival: str = "last frame"
) -> Result:
    """Moving-pixel PSNR of the model less that of a rival, on the same masks, paired by state.

    ``details`` hold both sides in dB and the share of states in which the model wins.
    """
    if not rivals:
        raise NotApplicable("no rival frames were saved beside the probes")
    model, undefined = _rows(probes, where_moving)
    theirs, _ = _rows(probes, where_moving, rivals, rival)
    differences = [
        Row(own.item, own.part, own.value - other.value)
        for own, other in zip(model, theirs, strict=True)
    ]
    ours, others = (np.array(list(item_means(rows).values())) for rows in (model, theirs))
    details: dict[str, Any] = {"rival": rival}
    if len(ours):
        details |= {"model": float(ours.mean()), "theirs": float(others.mean())}
        details |= {"wins": float((ours > others).mean())}
    return summarise("moving_psnr_over_rival", "dB", differences, undefined, details=details)


def where_moving(pair: Compared) -> float | None:
    """PSNR over the pixels that moved in reality or in the imagination; None where too few did."""
    return _masked(pair, pair.moving)


def where_static(pair: Compared) -> float | None:
    """PSNR over the pixels that did not move in reality; None where too few stood still."""
    return _masked(pair, pair.static)


def _masked(pair: Compared, mask: Bool[np.ndarray, "h w"]) -> float | None:
    return psnr(pair.shown, pair.real, mask=mask) if mask.sum() >= FEWEST_PIXELS else None


def _score(name: str, unit: str, probes: Sequence[Probe], score: Score) -> Result:
    rows, undefined = _rows(probes, score)
    thresholds = [move_threshold(probe) for probe in probes]
    noise = max(probe.pixel_noise for probe in probes) / 255
    details = {"move_threshold": max(thresholds), "pixel_noise": noise}
    return summarise(name, unit, rows, undefined, details=details)


def _rows(
    probes: Sequence[Probe], score: Score, rivals: RivalFrames | None = None, rival: str = ""
) -> tuple[list[Row], list[str]]:
    """The scores of all frames that have one, and why the others have none."""
    if not any(imagining(probe) for probe in probes):
        raise NotApplicable(why_nothing_imagined(probes))
    rows, undefined = [], []
    for probe in probes:
        shown = _shown_by(rivals, rival, probe) if rivals else None
        for part, pair in pairs(probe, shown):
            value = score(pair)
            if value is None:
                undefined.append(f"fewer than {FEWEST_PIXELS} such pixels in a frame")
            else:
                rows.append(Row(state_name(probe), part, value))
    return rows, undefined


def pairs(probe: Probe, rival: Frames | None = None) -> Iterator[tuple[str, Compared]]:
    """Every imagined frame after now beside the real one; a rival's is shown in its place."""
    threshold = move_threshold(probe)
    for branch in imagining(probe):
        for view, imagined in (branch.imagined or {}).items():
            shown = imagined if rival is None else rival[view]
            pictures = imagined, executed(probe, branch, view), shown
            check_same_shape(probe, view, *pictures)
            now = probe.now[view][0]
            state = state_name(probe)
            yield from compared(view, branch.offsets, now, *pictures, threshold, item=state)


def executed(probe: Probe, branch: Branch, view: str) -> Shaped[np.ndarray, "t h w 3"]:
    """What a branch led to in a view.

    Raises:
        ValueError: no such frames were kept.
    """
    if view not in branch.happened:
        raise ValueError(
            f"{state_name(probe)}: the branch {branch.label!r} holds no executed frames of view "
            f"{view!r}, only of {sorted(branch.happened)}"
        )
    return branch.happened[view]


def compared(
    view: str,
    offsets: Int[np.ndarray, " t"],
    now: Shaped[np.ndarray, "h w c"],
    imagined: Shaped[np.ndarray, "t h w c"],
    real: Shaped[np.ndarray, "t h w c"],
    shown: Shaped[np.ndarray, "t h w c"],
    threshold: float,
    *,
    item: str = "",
) -> Iterator[tuple[str, Compared]]:
    """Every frame after now of one view beside the real one, by part (``<view>@<offset>``).

    ``item`` is the state or episode that an error names.
    """
    first, true, guess, seen = (
        unit(frames, named(item, view, what))
        for what, frames in (
            ("frames now", now),
            ("real frames", real),
            ("imagined frames", imagined),
            ("shown frames", shown),
        )
    )
    for t, offset in enumerate(offsets):
        if offset > 0:
            yield f"{view}@{offset}", Compared(seen[t], true[t], guess[t], first, threshold)


def named(item: str, view: str, what: str) -> str:
    """How an error calls frames: of which state or episode, and of which view."""
    return f"{item}: {what} of view {view!r}" if item else f"{what} of view {view!r}"


def check_same_shape(probe: Probe, view: str, *videos: Shaped[np.ndarray, "..."]) -> None:
    """Raise ValueError unless all of them have the same instants and size."""
    if len({video.shape for video in videos}) > 1:
        shapes = ", ".join(str(video.shape) for video in videos)
        raise ValueError(f"{state_name(probe)}: frames of view {view!r} differ in shape: {shapes}")


def _shown_by(rivals: RivalFrames, rival: str, probe: Probe) -> Frames:
    state = state_name(probe)
    if state not in rivals:
        raise NotApplicable(f"no rival frames were saved for {state}")
    if rival not in rivals[state]:
        raise NotApplicable(f"no rival {rival!r}{nearest(rival, rivals[state])}")
    return rivals[state][rival]


def _blur(image: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h2 w2 c"]:
    kernel = WINDOW / WINDOW.sum()
    rows = sliding_window_view(image, len(kernel), axis=0) @ kernel
    return sliding_window_view(rows, len(kernel), axis=1) @ kernel
