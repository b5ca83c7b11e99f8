"""The interventions: action chunks that are imposed on a model and on the world alike.

Delta dimensions are changed; absolute ones (a gripper's effort) keep the command of the own chunk
at that step, because zero would be a command too. `wamlab.metrics.joint.SEQUENCES` is the fixed set
between which every model's effects are taken; the others are for whoever asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from wamlab.config import nearest
from wamlab.metrics.joint import UNCHANGED
from wamlab.types import ActionSpace

Chunk = Float[np.ndarray, "h a"]
LATERAL = re.compile(r"(^|[\W_])(d|delta[\W_]?)?y$", re.IGNORECASE)
GRIPPER = re.compile(r"(^|[\W_])grip(per)?($|[\W_])", re.IGNORECASE)
OTHER_INSTRUCTION = "other-instruction"
"""The model's own action under another instruction: the only one that a chunk does not decide."""


def unchanged(action: Chunk, space: ActionSpace) -> Chunk:
    """As it was planned: what the model imagines *for* it, beside what it imagined *with* it."""
    return np.array(action, np.float32)


def zero(action: Chunk, space: ActionSpace) -> Chunk:
    """Nothing moves."""
    return np.where(_delta(space), 0, action).astype(np.float32)


def mirrored(action: Chunk, space: ActionSpace) -> Chunk:
    """Left and right exchanged: the sign of the y component is flipped.

    Raises:
        ValueError: no or several dimensions of the space are called y.
    """
    flipped = np.array(action, np.float32)
    flipped[:, _the(LATERAL, space, "mirroring needs one dimension called y")] *= -1
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


def gripper_flipped(action: Chunk, space: ActionSpace) -> Chunk:
    """Open where it would close: the gripper's command is reflected at the middle of its bounds.

    Raises:
        ValueError: no or several dimensions of the space are called grip or gripper.
    """
    grip = _the(GRIPPER, space, "flipping the gripper needs one dimension called grip")
    flipped = np.array(action, np.float32)
    flipped[:, grip] = space.low[grip] + space.high[grip] - flipped[:, grip]
    return flipped


def late(action: Chunk, space: ActionSpace) -> Chunk:
    """The same a quarter of the chunk later: rest first, and the last quarter is cut off."""
    wait = max(len(action) // 4, 1)
    rest = np.where(_delta(space), 0, action[0])
    return np.concatenate([np.tile(rest, (wait, 1)), action])[: len(action)].astype(np.float32)


IMPOSED: dict[str, Callable[[Chunk, ActionSpace], Chunk]] = {
    UNCHANGED: unchanged,
    "zero": zero,
    "mirrored": mirrored,
    "truncated": truncated,
    "half-speed": half_speed,
    "gripper-flipped": gripper_flipped,
    "late": late,
}


def impose(name: str, action: Chunk, space: ActionSpace) -> Chunk:
    """The intervention ``name`` on an own chunk, within the space.

    Raises:
        KeyError: an unknown intervention, with the nearest one.
    """
    if name not in IMPOSED:
        raise KeyError(f"no intervention {name!r}{nearest(name, IMPOSED)}")
    return space.clip(IMPOSED[name](action, space))


def check_imposed(names: Sequence[str], space: ActionSpace) -> None:
    """Raise unless all of these can be imposed in this space: see `impose`."""
    for name in names:
        if name != OTHER_INSTRUCTION:
            if name not in IMPOSED:
                known = [*IMPOSED, OTHER_INSTRUCTION]
                raise KeyError(f"no intervention {name!r}{nearest(name, known)}")
            impose(name, np.zeros((2, space.size), np.float32), space)


def _the(pattern: re.Pattern[str], space: ActionSpace, needed: str) -> int:
    """The one dimension whose name fits."""
    fitting = [i for i, name in enumerate(space.names) if pattern.search(name)]
    if len(fitting) != 1:
        raise ValueError(f"{needed}; the space has {space.names}")
    return fitting[0]


def _delta(space: ActionSpace) -> np.ndarray:
    return np.array([mode == "delta" for mode in space.mode])
