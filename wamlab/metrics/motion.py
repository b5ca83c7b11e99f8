"""Does what is imagined move where, when and as much as the truth? Motion masks as in Physics-IQ.

Physics-IQ (Motamed et al., arXiv 2501.09038) divides the sum of its scores by what two real takes
of one scene reach. A simulator repeats itself exactly, so the other take here is the truth seen
again, through the noise of perception (`perceived`). Both forms are given: the quotient of sums,
and each score divided and clipped by itself, then averaged (arXiv 2606.18943).

Of the measures without a judge only this one sees a video that stops or runs backwards, since it
alone holds the truth beside it. It cannot say what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from wamlab.metrics.base import NotApplicable, Result, metric, summarise
from wamlab.metrics.physics_frames import (
    Imagination,
    Masks,
    Video,
    check_video,
    iou,
    over_imagined,
)
from wamlab.metrics.visual import MOVE_FLOOR, unit
from wamlab.types import Probe

SCORES = ("spatial_iou", "spatiotemporal_iou", "weighted_iou", "mse")
GREY = np.array([0.299, 0.587, 0.114])
BLUR = np.array([1, 4, 6, 4, 1]) / 16
PERCEPTION = 2 / 255
"""Deviation of the noise through which a truth that repeats exactly is seen again, in [0, 1]."""


@dataclass(frozen=True)
class Agreement:
    """How a video's motion agrees with the truth's, by score, and how two takes of the truth agree.

    ``raw`` and ``repeat`` hold `SCORES`; ``shares`` each of them relative to the repeat, in [0, 1].
    """

    raw: Mapping[str, float]
    repeat: Mapping[str, float]

    @property
    def shares(self) -> dict[str, float]:
        ious = {name: min(1.0, self.raw[name] / self.repeat[name]) for name in SCORES[:3]}
        worse = max(self.raw["mse"], self.repeat["mse"])
        return {**ious, "mse": self.repeat["mse"] / worse}

    @property
    def value(self) -> float:
        """The mean of the shares: 1 is as good as another take of the truth."""
        return float(np.mean(list(self.shares.values())))

    @property
    def original(self) -> float:
        """The benchmark's first form: one quotient of sums, in [0, 1]."""
        total = lambda scores: sum(scores[name] for name in SCORES[:3]) - scores["mse"]  # noqa: E731
        return float(np.clip(total(self.raw) / total(self.repeat), 0, 1))


def motion_masks(frames: Video, threshold: float = MOVE_FLOOR) -> Masks:
    """Which pixels of each frame differ from what was there before: 5 x 5 blurred grey levels.

    What was there before is the mean of all earlier frames; in the first nothing moves.
    ``threshold`` in [0, 1]: Physics-IQ's 10 of 255 levels.

    Raises:
        NotApplicable: fewer than `FEWEST_FRAMES` frames.
        ValueError: NaN, or floats outside [0, 1].
    """
    grey = check_video(frames) @ GREY
    for axis in (1, 2):
        grey = ndimage.convolve1d(grey, BLUR, axis=axis, mode="nearest")
    counts = np.arange(1, len(grey))[:, None, None]
    before = np.cumsum(grey, axis=0)[:-1] / counts
    moved = np.abs(grey[1:] - before) > threshold
    return np.concatenate([np.zeros_like(moved[:1]), moved])


def motion_scores(shown: Video, real: Video, threshold: float = MOVE_FLOOR) -> dict[str, float]:
    """`SCORES` of a video beside the true one.

    ``spatial_iou`` of where anything moves at any time; ``spatiotemporal_iou`` by frame, the mean
    over the frames in which something moves in either; ``weighted_iou`` of how often each pixel
    moves (sum of minima over sum of maxima); ``mse`` of the frames in [0, 1].

    Raises:
        NotApplicable: fewer than `FEWEST_FRAMES` frames.
        ValueError: videos of different shapes, NaN, or floats outside [0, 1].
    """
    if shown.shape != real.shape:
        raise ValueError(f"a video of shape {shown.shape} beside a true one of {real.shape}")
    a, b = motion_masks(shown, threshold), motion_masks(real, threshold)
    when = [t for t in range(len(a)) if a[t].any() or b[t].any()]
    often = a.mean(axis=0), b.mean(axis=0)
    most = float(np.maximum(*often).sum())
    return {
        "spatial_iou": iou(np.any(a, axis=0), np.any(b, axis=0)),
        "spatiotemporal_iou": float(np.mean([iou(a[t], b[t]) for t in when])) if when else 1.0,
        "weighted_iou": float(np.minimum(*often).sum()) / most if most else 1.0,
        "mse": float(((unit(shown) - unit(real)) ** 2).mean()),
    }


def motion_agreement(
    shown: Video, real: Video, repeat: Video | None, threshold: float = MOVE_FLOOR
) -> Agreement:
    """The scores of a video beside the true one, and of ``repeat``, another take of the truth.

    Raises:
        NotApplicable: no other take, one without any difference, or one whose motion has nothing in
            common with the truth's: there is nothing to divide by. Or too few frames.
        ValueError: see `motion_scores`.
    """
    if repeat is None:
        raise NotApplicable(
            "no other take of the truth was given: nothing says how well it repeats"
        )
    known = motion_scores(repeat, real, threshold)
    if known["mse"] == 0:
        raise NotApplicable(
            "the other take equals the truth: see it through the noise of perception"
        )
    if min(known[name] for name in SCORES[:3]) == 0:
        raise NotApplicable("the motion of the other take has nothing in common with the truth's")
    return Agreement(motion_scores(shown, real, threshold), known)


def perceived(frames: Video, noise: float, seed: int) -> Float[np.ndarray, "t h w 3"]:
    """The frames in [0, 1] with Gaussian noise of this deviation: another take of a still world."""
    if not noise > 0:
        raise ValueError(f"expected a perception noise above 0, got {noise}")
    drawn = np.random.default_rng(seed).normal(0, noise, frames.shape)
    return np.clip(unit(frames) + drawn, 0, 1)


@metric("motion_agreement", needs="probes")
def probe_motion_agreement(probes: Sequence[Probe], *, noise: float | None = None) -> Result:
    """How the imagined motion agrees with what happened, divided by how well the truth repeats.

    ``noise`` is the deviation of perception in [0, 1]; None takes the largest pixel noise of the
    probes, and at least `PERCEPTION`. The frame now stands before the offsets. ``details``: mean
    raw scores, the ``original`` form, and the ``noise``.
    """
    found: list[Agreement] = []
    seen = max(PERCEPTION, *(probe.pixel_noise / 255 for probe in probes))
    deviation = seen if noise is None else noise

    def agreement(imagination: Imagination) -> float:
        real = imagination.real()
        other = perceived(real, deviation, len(found))
        found.append(motion_agreement(imagination.shown(), real, other))
        return found[-1].value

    rows, undefined = over_imagined(probes, agreement)
    details = {name: float(np.mean([one.raw[name] for one in found])) for name in SCORES if found}
    details["noise"] = deviation
    details |= {"original": float(np.mean([one.original for one in found]))} if found else {}
    return summarise("motion_agreement", "", rows, undefined, details=details)
