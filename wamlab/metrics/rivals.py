"""What an imagined future has to beat: the frame now, the mean future, and the nearest clip.

A rival is built from training data once and asked for the frames of a probe; what it showed is
saved beside the probe, so that a report can be rebuilt from logs alone. Before a recorded instant
the same rivals also guess the action: holding still, the mean chunk, the chunk of the nearest clip.
There they are built from other episodes of the dataset that is judged. Where no training read it,
these are episodes that the model never saw, which favours the rivals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from einops import rearrange, reduce, repeat
from jaxtyping import Float, Int, Shaped

from wamlab.config import nearest
from wamlab.metrics.base import imagining, state_name
from wamlab.types import ActionSpace, Frames, Guess, Probe, Recording


class Seen(Protocol):
    """What a rival looks at: a probe or a recording."""

    env: str
    now: Frames


@runtime_checkable
class Rival(Protocol):
    """Something that shows a future without being a model."""

    name: str

    def frames(
        self, probe: Seen, view: str, offsets: Sequence[int]
    ) -> Shaped[np.ndarray, "t h w 3"]:
        """Frames of one view at these offsets, uint8."""
        ...


@dataclass(frozen=True)
class Clips:
    """Training windows as rivals need them, uint8.

    ``env`` names the task of each of the N windows, ``first`` holds the frame now by view
    (N, H, W, 3) and ``future`` the frames at ``offsets`` by view (N, T, H, W, 3). Where recordings
    are judged, ``action`` (N, H, A) are the chunks in raw units and ``episode`` (N,) their sources.
    """

    env: Sequence[str]
    offsets: tuple[int, ...]
    first: dict[str, Shaped[np.ndarray, "n h w 3"]]
    future: dict[str, Shaped[np.ndarray, "n t h w 3"]]
    action: Float[np.ndarray, "n h a"] | None = None
    episode: Sequence[int] = ()

    def __post_init__(self) -> None:
        for view, future in self.future.items():
            want = (len(self.env), len(self.offsets))
            if future.shape[:2] != want or self.first[view].shape[:1] != want[:1]:
                raise ValueError(f"clips of view {view!r}: expected {want[0]} x {want[1]} frames")

    def rows(self, env: str) -> Int[np.ndarray, " n"]:
        """The windows of one task; KeyError names the nearest task there is."""
        rows = np.flatnonzero(np.asarray(self.env) == env)
        if not len(rows):
            raise KeyError(f"no training clip of {env!r}{nearest(env, set(self.env))}")
        return rows

    def without(self, episode: int) -> Clips:
        """The clips of all other episodes."""
        kept = np.flatnonzero(np.asarray(self.episode) != episode).tolist()
        return Clips(
            [self.env[row] for row in kept],
            self.offsets,
            {view: frames[kept] for view, frames in self.first.items()},
            {view: frames[kept] for view, frames in self.future.items()},
            None if self.action is None else self.action[kept],
            [self.episode[row] for row in kept],
        )

    def columns(self, offsets: Sequence[int]) -> list[int]:
        """Where these offsets lie; KeyError for one that the clips lack."""
        if missing := [int(offset) for offset in offsets if offset not in self.offsets]:
            raise KeyError(f"the clips hold offsets {self.offsets}, not {missing}")
        return [self.offsets.index(offset) for offset in offsets]


@dataclass
class LastFrame:
    """The frame now, unmoved."""

    name: str = "last frame"

    def frames(
        self, probe: Seen, view: str, offsets: Sequence[int]
    ) -> Shaped[np.ndarray, "t h w 3"]:
        return repeat(probe.now[view][0], "h w c -> t h w c", t=len(offsets))


@dataclass
class DatasetMean:
    """The mean training frame of the probe's task at each offset, rounded to uint8."""

    clips: Clips
    name: str = "dataset mean"
    _means: dict[tuple[str, str], np.ndarray] = field(default_factory=dict, repr=False)

    def frames(
        self, probe: Seen, view: str, offsets: Sequence[int]
    ) -> Shaped[np.ndarray, "t h w 3"]:
        key = (probe.env, view)
        if key not in self._means:
            rows = self.clips.rows(probe.env)
            total = sum(self.clips.future[view][row].astype(np.float64) for row in rows)
            self._means[key] = np.rint(total / len(rows)).astype(np.uint8)
        return self._means[key][self.clips.columns(offsets)]


@dataclass
class NearestClip:
    """The future of the training window whose first frames, all views together, are nearest.

    Nearest in squared difference, among windows of the probe's task.
    """

    clips: Clips
    name: str = "nearest clip"

    def frames(
        self, probe: Seen, view: str, offsets: Sequence[int]
    ) -> Shaped[np.ndarray, "t h w 3"]:
        row = self.nearest_row(probe)
        return self.clips.future[view][row][self.clips.columns(offsets)]

    def nearest_row(self, probe: Seen) -> int:
        """Which training window it is."""
        rows = self.clips.rows(probe.env)
        distance = np.zeros(len(rows))
        for view, first in self.clips.first.items():
            seen = rearrange(probe.now[view].astype(np.float32), "1 h w c -> h w c")
            for i, row in enumerate(rows):
                distance[i] += float(reduce((first[row] - seen) ** 2, "h w c -> ", "sum"))
        return int(rows[distance.argmin()])


def dataset_rivals(clips: Clips) -> list[Rival]:
    """The three rivals, the two of the data built from these clips."""
    return [LastFrame(), DatasetMean(clips), NearestClip(clips)]


def show(probe: Probe, rivals: Iterable[Rival]) -> dict[str, Frames]:
    """What each rival shows for a probe, at the offsets of its own branches.

    Raises:
        ValueError: own branches that imagine at different offsets.
    """
    branches = imagining(probe)
    if not branches:
        return {}
    offsets = [int(offset) for offset in branches[0].offsets]
    if any(list(branch.offsets) != offsets for branch in branches):
        raise ValueError(f"{state_name(probe)}: own branches imagine at different offsets")
    views = list(branches[0].imagined or {})
    return {
        rival.name: {view: rival.frames(probe, view, offsets) for view in views} for rival in rivals
    }


def hold(
    last: Float[np.ndarray, " a"], space: ActionSpace, steps: int
) -> Float[np.ndarray, "steps a"]:
    """Nothing new is done: delta dimensions are 0, all others keep the last command."""
    still = np.where(np.asarray(space.mode) == "delta", 0.0, last)
    return np.tile(still, (steps, 1)).astype(np.float32)


def guesses(
    recording: Recording, last: Float[np.ndarray, " a"], space: ActionSpace, clips: Clips
) -> dict[str, Guess]:
    """What each rival guesses at a recorded instant: actions, and frames at its offsets.

    Args:
        last: the action that was executed before the instant.
        clips: other episodes than the recording's own; where they hold none of its task, the two
            rivals of the data have no guess.
    """
    steps, offsets = len(recording.action), recording.offsets
    found: dict[str, Guess] = {"hold": Guess(hold(last, space, steps))}
    rivals: list[Rival] = [LastFrame()]
    if recording.env in clips.env:
        mean, near = DatasetMean(clips), NearestClip(clips)
        rivals += [mean, near]
        assert clips.action is not None
        chunks = clips.action[clips.rows(recording.env)]
        found[mean.name] = Guess(chunks.mean(axis=0).astype(np.float32))
        found[near.name] = Guess(clips.action[near.nearest_row(recording)])
    for rival in rivals if len(offsets) else ():
        shown = {view: rival.frames(recording, view, offsets.tolist()) for view in recording.ahead}
        guess = found.setdefault(rival.name, Guess())
        guess.imagined, guess.offsets = shown, offsets
    return found
