"""What a row has seen and done so far, as far back as its model looks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from wamlab.models.base import WorldActionModel
from wamlab.policy.raw import INSTRUCTION
from wamlab.sim.env import RawObservation
from wamlab.types import ACTION, Batch, Stream

Offsets = dict[str, tuple[int, ...]]
ToBatch = Callable[[list[RawObservation]], Batch]


class History:
    """The last ``depth`` observations before now and the actions executed at them, of one row."""

    def __init__(self, depth: int) -> None:
        self.moments: deque[tuple[RawObservation, Float[np.ndarray, " a"]]] = deque(maxlen=depth)

    def push(self, observation: RawObservation, action: Float[np.ndarray, " a"]) -> None:
        """``action`` was executed at ``observation``, which now lies one tick back."""
        self.moments.append((observation, np.asarray(action, np.float32)))

    def observation(self, offset: int) -> RawObservation | None:
        return self.moments[offset][0] if -offset <= len(self.moments) else None

    def action(self, offset: int) -> Float[np.ndarray, " a"] | None:
        return self.moments[offset][1] if -offset <= len(self.moments) else None

    def told(self, instruction: str) -> int:
        """For how many ticks back from now this instruction has stood."""
        ticks = 0
        for observation, _ in reversed(self.moments):
            if observation[INSTRUCTION] != instruction:
                break
            ticks += 1
        return ticks

    def retold(self, instruction: str) -> History:
        """The same past, as if this instruction had stood all along."""
        again = History(self.moments.maxlen or 0)
        for observation, action in self.moments:
            again.push({**observation, INSTRUCTION: instruction}, action)
        return again


def past_offsets(model: WorldActionModel) -> Offsets:
    """The negative offsets, by stream, that any stage of the model with a fixed window reads."""
    past: dict[str, set[int]] = {}
    for stage in model.stages():
        if stage.window.anchor == "fixed":
            for name, offsets in stage.window.streams.items():
                past.setdefault(name, set()).update(k for k in offsets if k < 0)
    return {name: tuple(sorted(offsets)) for name, offsets in past.items() if offsets}


def windows(
    observations: Sequence[RawObservation],
    histories: Sequence[History | None],
    past: Offsets,
    to_batch: ToBatch,
    action_dim: int,
) -> Batch:
    """A raw batch with a column for each instant of ``past`` and for now.

    An instant before the row's first observation is absent, and so is one from before the present
    instruction was given: a model is trained on episodes, each of which has one.
    """
    batch = to_batch(list(observations))
    streams = dict(batch.streams)
    known = np.array(
        [
            0 if one is None else one.told(now[INSTRUCTION])
            for one, now in zip(histories, observations, strict=True)
        ]
    )
    for offset in sorted({k for ks in past.values() for k in ks}, reverse=True):
        there = -offset <= known
        then = [
            one.observation(offset) if one is not None and seen else None
            for one, seen in zip(histories, there, strict=True)
        ]
        rows = [moment or now for moment, now in zip(then, observations, strict=True)]
        older = to_batch(rows).streams
        for name in streams.keys() & past.keys():
            if offset in past[name]:
                streams[name] = _prepend(older[name], streams[name], offset, there)
    if ACTION in past:
        done = executed(histories, past[ACTION], action_dim)
        streams[ACTION] = replace(done, present=done.present & (-done.offsets <= known[:, None]))
    return replace(batch, streams=streams)


def executed(
    histories: Sequence[History | None], offsets: Sequence[int], action_dim: int
) -> Stream:
    """The executed actions at negative ``offsets``; absent before a row's start."""
    values = np.zeros((len(histories), len(offsets), action_dim), np.float32)
    present = np.zeros(values.shape[:2], bool)
    for row, history in enumerate(histories):
        for column, offset in enumerate(offsets):
            action = history.action(offset) if history else None
            if action is not None:
                values[row, column], present[row, column] = action, True
    return Stream(values, np.tile(np.asarray(offsets), (len(histories), 1)), present)


def _prepend(older: Stream, newer: Stream, offset: int, there: np.ndarray) -> Stream:
    return Stream(
        np.concatenate([older.values, newer.values], axis=1),
        np.concatenate([np.full_like(older.offsets, offset), newer.offsets], axis=1),
        np.concatenate([older.present & there[:, None], newer.present], axis=1),
        newer.dims,
    )
