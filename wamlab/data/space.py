"""Whether actions and states of several datasets mean the same, and the space that holds all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from wamlab.data.cache import Cache
from wamlab.data.lerobot import Dataset
from wamlab.data.manifest import DataError
from wamlab.data.window import stride_of
from wamlab.types import ActionSpace


def common_space(
    sources: Sequence[Dataset | Cache], rate_hz: float | None = None
) -> ActionSpace | None:
    """The action space of all these datasets at a rate, or None where none of them has one.

    Declared bounds are one and the same. Bounds that are only what was seen are united: that one
    dataset moves less far than another does not make them different.

    Raises:
        DataError: they differ in names, modes, units or declared bounds, or the rate does not
            divide one of theirs.
    """
    known = [
        (source.path, at_rate(source.space, source.fps, rate_hz or source.fps))
        for source in sources
        if source.space is not None
    ]
    if not known:
        return None
    (first, space), *others = known
    for path, other in others:
        differ = difference(space, other)
        if not differ and space.declared:
            differ = difference(space, other, ("low", "high"))
        if differ:
            raise DataError(f"{first} and {path} differ in the {differ} of their actions")
    if space.declared:
        return space
    low = np.min([space.low for _, space in known], axis=0)
    high = np.max([space.high for _, space in known], axis=0)
    return dataclasses.replace(space, low=tuple(low.tolist()), high=tuple(high.tolist()))


def common_state_names(sources: Sequence[Dataset | Cache]) -> tuple[str, ...]:
    """The names of the state in all these datasets; those without a state do not count.

    Raises:
        DataError: they differ.
    """
    known = [(source.path, source.state_names) for source in sources if source.state_names]
    for path, names in known[1:]:
        if names != known[0][1]:
            both = f"{list(known[0][1])} and {list(names)}"
            raise DataError(f"{known[0][0]} and {path} differ in the names of their states: {both}")
    return known[0][1] if known else ()


def at_rate(space: ActionSpace, fps: float, rate_hz: float) -> ActionSpace:
    """The space of what is done in one tick of a lower rate: deltas add up, so their bounds do.

    Raises:
        DataError: the rate does not divide that of the dataset, ``fps``.
    """
    stride = stride_of(fps, rate_hz)
    if stride == 1:
        return space
    times = [stride if mode == "delta" else 1 for mode in space.mode]
    low, high = (
        tuple(n * bound for n, bound in zip(times, bounds, strict=True))
        for bounds in (space.low, space.high)
    )
    return dataclasses.replace(space, low=low, high=high, rate_hz=rate_hz)


def difference(
    one: ActionSpace, other: ActionSpace, fields: Sequence[str] = ("names", "mode", "unit")
) -> str:
    """The first of these fields in which two spaces differ, with both values; empty for none."""
    for name in fields:
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine != theirs:
            return f"{name} ({mine} and {theirs})"
    return ""
