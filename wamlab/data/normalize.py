"""Statistics of what training reads, and the scaling between raw units and about [-1, 1]."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from wamlab.data.cache import Cache
from wamlab.data.window import Windows, stride_of
from wamlab.types import ACTION, STATE, Window


@dataclass(frozen=True)
class Statistics:
    """Per dimension of one stream, over every row that was measured; all in raw units."""

    q01: Float[np.ndarray, " d"]
    q99: Float[np.ndarray, " d"]
    min: Float[np.ndarray, " d"]
    max: Float[np.ndarray, " d"]
    mean: Float[np.ndarray, " d"]
    std: Float[np.ndarray, " d"]
    count: int

    @classmethod
    def of(cls, values: Float[np.ndarray, "rows d"]) -> Statistics:
        """Exact statistics of rows, in float64.

        Raises:
            ValueError: no row, or a value that is not finite.
        """
        values = np.asarray(values, np.float64)
        if not len(values) or not np.isfinite(values).all():
            raise ValueError(f"statistics need finite rows, got {values.shape}")
        q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
        low, high = values.min(axis=0), values.max(axis=0)
        return cls(q01, q99, low, high, values.mean(axis=0), values.std(axis=0), len(values))

    def range(self) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
        """The raw values that become -1 and 1: q01 and q99, or the extremes where these are equal.

        A constant dimension has both equal; it is scaled to 0.
        """
        flat = self.q99 - self.q01 <= 1e-8
        return np.where(flat, self.min, self.q01), np.where(flat, self.max, self.q99)

    def to_json(self) -> dict[str, Any]:
        arrays = ("q01", "q99", "min", "max", "mean", "std")
        return {**{name: getattr(self, name).tolist() for name in arrays}, "count": self.count}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Statistics:
        arrays = {k: np.asarray(v, np.float64) for k, v in content.items() if k != "count"}
        return cls(**arrays, count=int(content["count"]))


def statistics(
    caches: Sequence[Cache],
    without: Sequence[Mapping[str, Collection[int]]] = (),
    *,
    rate_hz: float | None = None,
) -> dict[str, Statistics]:
    """State and action statistics over several caches together.

    Args:
        without: per cache, by stream, the episodes that are not measured: what training may not
            see must not scale what it sees.
        rate_hz: the rate at which actions are read (None: each cache's own).

    Raises:
        ValueError: the caches have different state or action sizes, or no row is measured.
        DataError: the rate does not divide a cache's.
    """
    found = {}
    unseen = without or [{}] * len(caches)
    for name in (STATE, ACTION):
        parts = [
            _measured(cache, name, hidden.get(name, ()), rate_hz)
            for cache, hidden in zip(caches, unseen, strict=True)
            if name in cache.columns
        ]
        if len({part.shape[1] for part in parts}) > 1:
            sizes = [part.shape[1] for part in parts]
            raise ValueError(f"the datasets have different sizes of {name}: {sizes}")
        if parts:
            rows = np.concatenate(parts)
            if not len(rows):
                raise ValueError(f"no episode is left to measure {name} on")
            found[name] = Statistics.of(rows[np.isfinite(rows).all(axis=1)])
    return found


def _measured(
    cache: Cache, name: str, without: Collection[int], rate_hz: float | None
) -> Float[np.ndarray, "rows d"]:
    """A column's rows of the other episodes; of actions what each tick of the rate holds."""
    slower = stride_of(cache.fps, rate_hz or cache.fps) > 1
    # Actions of which nobody knows whether they add up are read at no lower rate.
    known = cache.space is not None and cache.space.declared
    if name != ACTION or not slower or not known:
        return cache.columns[name][_rows(cache, without)]
    windows = Windows(cache, Window({ACTION: (0,)}, rate_hz=rate_hz))
    found = windows.batch(np.arange(len(windows)))[ACTION]
    kept = found.present[:, 0] & ~np.isin(windows.anchors[:, 0], list(without))
    return found.values[kept, 0]


def _rows(cache: Cache, without: Collection[int]) -> Bool[np.ndarray, " rows"]:
    """The rows of a cache that belong to other episodes."""
    return ~np.repeat(np.isin(np.arange(len(cache.lengths)), list(without)), cache.lengths)
