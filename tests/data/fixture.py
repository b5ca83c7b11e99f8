"""A point mass with a gripper: a system whose every state, action and alignment is known.

The state is (x, y, gripper); ``x' = x + GAIN * action`` and the gripper follows its command one
step later. Frames show the mass as a soft grey spot, so that video keeps them well.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wamlab.data.writer import DatasetWriter
from wamlab.types import ActionSpace, Episode

GAIN = 0.1
FPS = 20
SIZE = 32
VIEWS = ("corner", "gripper")
STATE = ("x", "y", "gripper")
SPACE = ActionSpace(
    names=("dx", "dy", "gripper"),
    low=(-1.0, -1.0, -1.0),
    high=(1.0, 1.0, 1.0),
    mode=("delta", "delta", "absolute"),
    unit=("0.1 m", "0.1 m", "command"),
    rate_hz=FPS,
)


def draw(states: np.ndarray, size: int = SIZE, mirror: bool = False) -> np.ndarray:
    """Frames (T, size, size, 3) of states (T, 3)."""
    row, column = np.mgrid[:size, :size] / (size - 1)
    x, y = (states[:, i, None, None] * 0.3 + 0.5 for i in (0, 1))
    spot = np.exp(-((column - (1 - x if mirror else x)) ** 2 + (row - y) ** 2) / 0.02)
    grey = (40 + 180 * spot).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def make_episode(
    seed: int,
    steps: int = 12,
    *,
    task: str = "push the point",
    success: bool = True,
    burst: tuple[int, int] | None = None,
    size: int = SIZE,
) -> Episode:
    """One episode of the known system; ``burst`` marks the actions of a half-open range."""
    rng = np.random.default_rng(seed)
    size_of = rng.uniform(0.1, 1.0, (steps, 1))
    angle = rng.uniform(0, 2 * np.pi) + np.linspace(0, 2, steps)[:, None]
    move = size_of * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    grip = np.where(np.arange(steps) < steps // 2, -1.0, 1.0)[:, None]
    action = np.concatenate([move, grip], axis=1).astype(np.float32)
    state = np.zeros((steps + 1, 3), np.float32)
    for t in range(steps):
        state[t + 1, :2] = state[t, :2] + GAIN * action[t, :2]
        state[t + 1, 2] = action[t, 2]
    bursts = np.zeros(steps, bool)
    bursts[slice(*burst) if burst else slice(0)] = True
    return Episode(
        env="fixture/point",
        instruction=task,
        seed=seed,
        frames={"corner": draw(state, size), "gripper": draw(state, size, mirror=True)},
        state=state,
        action=action,
        success=np.arange(steps) >= (steps - 1 if success else steps),
        columns={"action.expert": action * np.float32(0.5), "burst": bursts},
        policy="expert",
        variant={"speed": 1.0, "route": "left"},
    )


def open_writer(path: Path, **changes: object) -> DatasetWriter:
    settings = {
        "robot_type": "point",
        "views": VIEWS,
        "image_size": SIZE,
        "space": SPACE,
        "state_names": STATE,
        "fps": FPS,
    }
    return DatasetWriter(path, **{**settings, **changes})  # type: ignore[arg-type]


def make_dataset(path: Path, episodes: list[Episode] | None = None) -> list[Episode]:
    """Write three episodes (or those given) and return what was written."""
    episodes = episodes or [
        make_episode(0),
        make_episode(1, 9, task="pull the point", burst=(2, 4)),
        make_episode(2, 15, success=False),
    ]
    with open_writer(path) as writer:
        for episode in episodes:
            writer.add(episode)
    return episodes
