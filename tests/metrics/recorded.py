"""Recordings of a spot that goes where the action points, guessed with planted faults.

The action of step t is ``(dx, dy, grip)``; the frame shows a bright square that moves by dx and dy
pixels a step. Every number is known in advance.
"""

from __future__ import annotations

import numpy as np

from wamlab.types import Denoised, Guess, Recording

SIZE, STEPS = 32, 8
OFFSETS = np.array([4, 8])
SCALE = np.array([1.0, 2.0, 0.0])
NAMES, UNITS = ("dx", "dy", "grip"), ("pixel", "pixel", "command")


def picture(x: float, y: float) -> np.ndarray:
    frame = np.full((SIZE, SIZE, 3), 40, np.uint8)
    column, row = round(x), round(y)
    frame[row : row + 8, column : column + 8] = 220
    return frame


def frames(start: tuple[int, int], action: np.ndarray) -> dict[str, np.ndarray]:
    path = np.cumsum(action[:, :2], axis=0) + start
    return {"corner": np.stack([picture(*path[k - 1]) for k in OFFSETS])}


def recording(
    episode: int, step: int, *, miss: float = 0.5, env: str = "slide", origin: str = "held out"
) -> Recording:
    """The model's action is ``miss`` too large in dx; FORWARD sees truly, JOINT follows it."""
    start = (2 + episode % 3, 4 + step % 3)
    action = np.tile(np.array([1.0, 1.0, 1.0], np.float32), (STEPS, 1))
    own = action + np.array([miss, 0, 0], np.float32)
    true = frames(start, action)
    still = {"corner": np.repeat(picture(*start)[None], 2, axis=0)}
    level = np.array([1.0, 0.5, 0.1])
    found = Denoised(level, np.array([[24.0, 8.0, 0.05]]), np.array([24.0]), np.array([24]))
    return Recording(
        env=env,
        instruction="slide the square",
        episode=episode,
        step=step,
        origin=origin,  # type: ignore[arg-type]
        now={"corner": picture(*start)[None]},
        state=np.zeros(3, np.float32),
        action=action,
        action_names=NAMES,
        action_unit=UNITS,
        action_scale=SCALE,
        offsets=OFFSETS.copy(),
        ahead=true,
        guesses={
            "POLICY": Guess(own, calls=4, ms=20.0),
            "JOINT": Guess(own, frames(start, own), OFFSETS.copy()),
            "FORWARD": Guess(None, true, OFFSETS.copy()),
            "INVERSE": Guess(why_not="it takes no frames as a given future"),
        },
        rivals={
            "hold": Guess(0 * action),
            "last frame": Guess(None, still, OFFSETS.copy()),
            "nearest clip": Guess(action, true, OFFSETS.copy()),
        },
        likelihood=dict.fromkeys(("POLICY", "JOINT", "FORWARD"), found),
        policy="slider",
    )


def recordings(episodes: int = 5, **changes: object) -> list[Recording]:
    """Two instants of each episode; the miss grows from episode to episode."""
    return [
        recording(e, s, **{"miss": 0.25 * e, "env": ("slide", "glide")[e % 2], **changes})  # type: ignore[arg-type]
        for e in range(episodes)
        for s in (1, 9)
    ]
