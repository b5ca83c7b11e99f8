"""LeRobot's statistics: per feature and episode, and their sum over a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Shaped, UInt8

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

FeatureStats = dict[str, Any]


def numeric_stats(values: Shaped[np.ndarray, "t *shape"]) -> FeatureStats:
    """Extremes, moments, quantiles and count of a column over its first axis, as nested lists."""
    values = np.asarray(values, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if len(values) == 0:
        return {"count": [0]}
    found = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
    }
    found |= {name: np.quantile(values, level, axis=0) for name, level in QUANTILES.items()}
    return {**{name: value.tolist() for name, value in found.items()}, "count": [len(values)]}


def image_stats(frames: UInt8[np.ndarray, "t h w 3"], samples: int = 16) -> FeatureStats:
    """The same per colour channel, in [0, 1] and of shape (3, 1, 1), over a few frames."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(samples, len(frames))).astype(int))
    pixels = rearrange(frames[chosen, ::2, ::2], "t h w c -> (t h w) c") / 255.0
    stats = numeric_stats(pixels)
    shaped = {
        name: np.asarray(value)[:, None, None].tolist()
        for name, value in stats.items()
        if name != "count"
    }
    return {**shaped, "count": [len(chosen)]}


def merge_stats(parts: Sequence[FeatureStats]) -> FeatureStats:
    """Statistics of several episodes together.

    Extremes and moments are exact; quantiles are the mean of the episodes' quantiles, weighted by
    count, as the format itself defines them. Training uses its own, exact ones.
    """
    parts = [part for part in parts if part["count"][0] > 0]
    if not parts:
        return {"count": [0]}
    counts = np.asarray([part["count"][0] for part in parts], np.float64)
    stacked = {name: np.asarray([part[name] for part in parts]) for name in parts[0]}
    average = lambda values: np.average(values, axis=0, weights=counts)  # noqa: E731
    mean = average(stacked["mean"])
    variance = average(stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)
    merged = {
        "min": stacked["min"].min(axis=0),
        "max": stacked["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        **{name: average(stacked[name]) for name in QUANTILES if name in stacked},
    }
    return {**{k: v.tolist() for k, v in merged.items()}, "count": [int(counts.sum())]}
