"""Executing a whole chunk from an exactly restored state, and looking at what happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from wamlab.sim.env import Env
from wamlab.types import Frames


@dataclass(frozen=True)
class Happened:
    """What executing a whole chunk gave: frames and masks at the offsets, poses at every step."""

    frames: Frames
    entities: dict[str, Float[np.ndarray, "h1 7"]]
    masks: dict[str, np.ndarray]
    success: bool


def execute(
    env: Env,
    state: Float[np.ndarray, " q"],
    actions: Float[np.ndarray, "h a"],
    offsets: Int[np.ndarray, " t"],
    views: Sequence[str],
    *,
    masks: bool = True,
) -> Happened:
    """Restore ``state`` and execute all ``actions``; frames at ``offsets`` (1 .. H), and ``masks``
    if wanted."""
    env.set_state(state)
    poses = [env.entities()]
    frames: dict[str, list[np.ndarray]] = {view: [] for view in views}
    seen: list[dict[str, np.ndarray]] = []
    for step, action in enumerate(actions, start=1):
        env.step(action)
        poses.append(env.entities())
        if step in offsets:
            for view in views:
                frames[view].append(env.render_view(view).copy())
            seen.extend([visible(env, views)] if masks else [])
    names = sorted({name for one in seen for name in one})
    size = env.image_size
    hidden = np.zeros((size, size), bool)
    return Happened(
        {view: _stacked(shots, (size, size, 3)) for view, shots in frames.items()},
        {name: np.stack([pose[name] for pose in poses]) for name in poses[0]},
        {name: np.stack([one.get(name, hidden) for one in seen]) for name in names},
        bool(env.success),
    )


def _stacked(shots: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(shots) if shots else np.zeros((0, *shape), np.uint8)


def visible(env: Env, views: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The pixels (H, W) of each entity now, by ``<view>/<entity>``."""
    return {
        f"{view}/{name}": mask
        for view in (env.views if views is None else views)
        for name, mask in env.masks(view).items()
    }
