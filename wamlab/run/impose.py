"""The listed interventions: action chunks that are imposed on a model and on the world alike.

Delta dimensions are changed; absolute ones (a gripper's effort) keep the command of the own chunk
at that step, because zero would be a command too.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from wamlab.config import nearest
from wamlab.types import ActionSpace

Chunk = Float[np.ndarray, "h a"]
LATERAL = re.compile(r"(^|[\W_])(d|delta[\W_]?)?y$", re.IGNORECASE)


def zero(action: Chunk, space: ActionSpace) -> Chunk:
    """Nothing moves."""
    return np.where(_delta(space), 0, action).astype(np.float32)


def mirrored(action: Chunk, space: ActionSpace) -> Chunk:
    """Left and right exchanged: the sign of the y component is flipped.

    Raises:
        ValueError: no or several dimensions of the space are called y.
    """
    lateral = [i for i, name in enumerate(space.names) if LATERAL.search(name)]
    if len(lateral) != 1:
        raise ValueError(f"mirroring needs one dimension called y; the space has {space.names}")
    flipped = np.array(action, np.float32)
    flipped[:, lateral] *= -1
    return flipped


def truncated(action: Chunk, space: ActionSpace) -> Chunk:
    """The first half as it is, then rest: absolute dimensions keep their last command."""
    half = len(action) // 2
    rest = np.where(_delta(space), 0, action[max(half - 1, 0)])
    return np.concatenate([action[:half], np.tile(rest, (len(action) - half, 1))]).astype(
        np.float32
    )


def half_speed(action: Chunk, space: ActionSpace) -> Chunk:
    """The first half of the path in twice the time: each step taken twice at half its size."""
    slow = action[np.arange(len(action)) // 2]
    return np.where(_delta(space), slow / 2, slow).astype(np.float32)


IMPOSED: dict[str, Callable[[Chunk, ActionSpace], Chunk]] = {
    "zero": zero,
    "mirrored": mirrored,
    "truncated": truncated,
    "half-speed": half_speed,
}


def impose(name: str, action: Chunk, space: ActionSpace) -> Chunk:
    """The intervention ``name`` on an own chunk, within the space.

    Raises:
        KeyError: an unknown intervention, with the nearest one.
    """
    if name not in IMPOSED:
        raise KeyError(f"no intervention {name!r}{nearest(name, IMPOSED)}")
    return space.clip(IMPOSED[name](action, space))


def _delta(space: ActionSpace) -> np.ndarray:
    return np.array([mode == "delta" for mode in space.mode])
