"""A point hand that pushes a block along x: the whole Env protocol in numpy, for tests.

The hand moves `STEP` metres per unit of action. Names: ``point/push`` (the expert succeeds),
``point/flaky`` (it fails on odd starts), ``point/solved`` (solved at the start).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wamlab.config import nearest
from wamlab.types import ActionSpace, Camera

STEP = 0.05
RADIUS = 0.08
SPACE = ActionSpace(
    names=("x", "y", "z", "grip"),
    low=(-1.0,) * 4,
    high=(1.0,) * 4,
    mode=("delta", "delta", "delta", "absolute"),
    unit=("5 cm", "5 cm", "5 cm", "effort"),
    rate_hz=10.0,
)
VIEWS = {"top": (0, 1), "side": (0, 2)}
NAMES = ("point/push", "point/flaky", "point/solved")
COLOURS = {"robot": (200, 40, 40), "block": (40, 40, 200)}


def make(name: str, **options: Any) -> PointEnv:
    if name not in NAMES:
        raise KeyError(f"no environment {name!r}{nearest(name, NAMES)}")
    return PointEnv(name, **options)


class PointEnv:
    space = SPACE
    state_names = ("hand x", "hand y", "hand z", "opening")
    instruction = "push the block to the right"

    def __init__(
        self, name: str = "point/push", *, views: tuple[str, ...] = ("top", "side"), max_steps=40
    ) -> None:
        self.name, self.views, self.max_steps = name, views, max_steps
        self.image_size = 16
        self.gain, self.friction = 1.0, 1.0
        self.erased = False
        self._start = 0
        self.reset(seed=0)

    @property
    def success(self) -> bool:
        return bool(self.block[0] >= self.goal)

    def reset(self, *, seed=None, options=None):
        rng = np.random.default_rng(seed)
        self._start = seed or 0
        self.hand = np.array([0.1, rng.uniform(0.3, 0.7), 0.05])
        self.grip = 0.0
        self.block = np.array([rng.uniform(0.35, 0.45), rng.uniform(0.3, 0.7), 0.05])
        self.goal = 0.0 if self.name == "point/solved" else self.block[0] + 0.2
        return self.observe(), {"success": self.success}

    def step(self, action):
        SPACE.check(action)
        delta = np.asarray(action[:3], np.float64) * STEP * self.gain
        self.hand = np.clip(self.hand + delta, 0.0, 1.0)
        self.grip = float(action[3])
        if self._touching() and delta[0] > 0:
            self.block[0] = max(self.block[0], min(self.hand[0] + RADIUS * 2 * self.friction, 1.0))
        return self.observe(), 0.0, False, False, {"success": self.success}

    def observe(self):
        images = {f"image/{view}": self.render_view(view) for view in self.views}
        state = np.append(self.hand, (1 - self.grip) / 2).astype(np.float32)
        return {**images, "state": state, "instruction": self.instruction}

    def get_state(self):
        return np.concatenate([self.hand, [self.grip], self.block, [self.goal]])

    def set_state(self, state):
        if np.shape(state) != (8,):
            raise ValueError(f"state has shape {np.shape(state)}, expected (8,)")
        self.hand, self.grip = state[:3].copy(), float(state[3])
        self.block, self.goal = state[4:7].copy(), float(state[7])

    def render_view(self, view, kind="rgb"):
        if kind == "depth":
            return np.ones((self.image_size,) * 2, np.float32)
        index = np.full((self.image_size,) * 2, -1, np.int32)
        for number, mask in enumerate(self.masks(view).values()):
            index[mask] = number
        if kind == "segmentation":
            return index
        palette = np.array([*COLOURS.values(), (128, 128, 128)], np.uint8)
        return palette[index]

    def masks(self, view):
        across, up = VIEWS[view]
        grid = (np.arange(self.image_size) + 0.5) / self.image_size
        disc = lambda at: (  # noqa: E731
            (grid[None] - at[across]) ** 2 + (grid[:, None] - at[up]) ** 2 < (1.2 * RADIUS) ** 2
        )
        robot = disc(self.hand)
        return {"robot": robot, "block": disc(self.block) & ~robot & (not self.erased)}

    def put_things(self, state):
        self.block, self.goal = state[4:7].copy(), float(state[7])

    def erase_objects(self):
        self.erased = True

    def camera(self, view):
        return Camera(np.eye(3), np.eye(4))

    def entities(self):
        upright = [1.0, 0.0, 0.0, 0.0]
        return {
            "robot": np.concatenate([self.hand, upright]),
            "block": np.concatenate([self.block, upright]),
        }

    def contacts(self):
        return [("robot", "block")] if self._touching() else []

    def expert(self, *, variants, seed):
        return PointExpert(self, variants, seed)

    def vary(self, *, gain=1.0, friction=1.0, mass=1.0):
        self.gain, self.friction = gain, friction

    def close(self):
        pass

    def _touching(self) -> bool:
        return float(np.linalg.norm(self.hand - self.block)) < 2 * RADIUS + 1e-6


class PointExpert:
    """Goes to the block's height y, then pushes; the variant is its speed."""

    def __init__(self, env: PointEnv, variants: bool, seed: int) -> None:
        self.env = env
        speed = np.random.default_rng(seed).uniform(0.5, 1.0) if variants else 1.0
        self.variant = {"speed": float(speed)}

    def __call__(self):
        env, action = self.env, np.zeros(4, np.float32)
        if env.name == "point/flaky" and env._start % 2:
            return action
        action[1] = np.clip((env.block[1] - env.hand[1]) / STEP, -1, 1)
        action[0] = 1.0 if abs(action[1]) < 0.5 else 0.0
        return action * np.float32(self.variant["speed"])
