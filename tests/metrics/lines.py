"""Paths along one axis, whose measures are known by arithmetic."""

from __future__ import annotations

import numpy as np

from wamlab.metrics.paths import Paths


def line(
    imagined: list, executed: list, *, start: float = 0.0, entity: str = "robot", **changes: object
) -> Paths:
    """Paths along one axis: positions by state and K, at one offset or several."""
    places = [np.array(side, float) for side in (imagined, executed)]
    shown, real = (side[..., None, None] if side.ndim == 2 else side[..., None] for side in places)
    states = [f"state {i}" for i in range(len(real))]
    given = {"offsets": np.arange(1, real.shape[2] + 1), "start": np.full((len(real), 1), start)}
    return Paths(entity, states, imagined=shown, executed=real, **{**given, **changes})  # type: ignore[arg-type]


def beside(*places: float) -> np.ndarray:
    return np.array(places)[None, :, None, None]
