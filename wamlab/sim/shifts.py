"""Named shifts: what a policy meets that its training never showed, one change at a time.

A shift is put on an environment after it is built and holds until it is closed, across resets and
restored states. What is seen (camera, light, texture, distractors) changes no physics; what acts
(gain, friction, start) changes no picture of the same state. ``paraphrase`` is an option of
building the environment. An environment that cannot do a shift refuses it by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import mujoco
import numpy as np
from jaxtyping import Float

from wamlab.config import nearest
from wamlab.sim.env import Env, RawObservation
from wamlab.sim.scene import Cameras, Distractor

TURN = np.deg2rad(4.0)
MOVE = 0.03  # metres
DIMMED = 0.45
PUSH_SECONDS = 0.2

# On the table or the floor, away from everything that a task needs: place, half size, colour.
DISTRACTORS: Mapping[str, tuple[Distractor, ...]] = {
    "metaworld": (
        Distractor("sphere", (-0.35, 0.45, 0.035), 0.035, (0.9, 0.45, 0.1)),
        Distractor("box", (0.35, 0.45, 0.03), 0.03, (0.5, 0.2, 0.7)),
        Distractor("cylinder", (-0.32, 0.62, 0.04), 0.03, (0.15, 0.6, 0.6)),
    ),
    "scene": (
        Distractor("sphere", (0.55, -0.2, 0.03), 0.03, (0.9, 0.45, 0.1)),
        Distractor("box", (0.52, 0.17, 0.025), 0.025, (0.5, 0.2, 0.7)),
        Distractor("cylinder", (0.47, -0.27, 0.03), 0.025, (0.15, 0.6, 0.6)),
    ),
}


def shifts() -> list[str]:
    """The names of all shifts."""
    return sorted((*_SHIFTS, *OPTIONS))


OPTIONS: Mapping[str, Mapping[str, Any]] = {"paraphrase": {"sentence": 1}}
"""Shifts that are options of building an environment."""


def shift(env: Env, name: str) -> Env:
    """The environment with a shift put on it; use what is returned.

    Raises:
        KeyError: no such shift, with the nearest name.
        ValueError: this environment cannot do it.
    """
    if name not in shifts():
        raise KeyError(f"no shift {name!r}{nearest(name, shifts())}")
    if name in OPTIONS:
        raise ValueError(f"{name!r} is given when {env.name} is built: {dict(OPTIONS[name])}")
    try:
        return _SHIFTS[name](env)
    except AttributeError as error:
        raise ValueError(f"{env.name} cannot do the shift {name!r}: {error}") from error


class PushedStart:
    """An environment whose starts are left for a while in a drawn direction before they begin.

    The hand is then up to some ten centimetres from where any demonstration began. The push comes
    on top of the episode, which may still be as long as any other.
    """

    def __init__(self, env: Env) -> None:
        self.env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[RawObservation, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        rng = np.random.default_rng([info["seed"], 5])
        action = self._push(rng)
        for _ in range(max(round(PUSH_SECONDS * self.env.space.rate_hz), 1)):
            observation, *_ = self.env.step(action)
        return observation, {**info, "success": self.env.success}

    def _push(self, rng: np.random.Generator) -> Float[np.ndarray, " a"]:
        """One motion of full length sideways or up; all else stays as it is."""
        names, high = self.env.space.names, self.env.space.high
        direction = rng.normal(size=3)
        direction[2] = abs(direction[2])
        direction /= np.abs(direction).max()
        action = np.zeros(len(names), np.float32)
        for axis, way in zip("xyz", direction, strict=True):
            if axis not in names:
                raise AttributeError(f"its actions have no {axis!r}")
            action[names.index(axis)] = way * high[names.index(axis)]
        if "grip" in names and self.env.space.mode[names.index("grip")] == "absolute":
            action[names.index("grip")] = self.env.space.low[names.index("grip")]
        return action


def _camera(env: Env) -> Env:
    """Every camera a little aside and turned."""
    model, cameras = _model(env), _cameras(env)
    for view in cameras.views.values():
        camera = model.camera(view.camera).id
        # A camera that tracks a body goes by the places that MuJoCo keeps of the first instant.
        for place in (model.cam_pos, model.cam_pos0, model.cam_poscom0):
            place[camera] += MOVE * np.array([1.0, -1.0, 1.0]) / np.sqrt(3)
        turn, turned = np.array([np.cos(TURN / 2), 0.0, np.sin(TURN / 2), 0.0]), np.empty(4)
        mujoco.mju_mulQuat(turned, model.cam_quat[camera], turn)
        model.cam_quat[camera] = turned
        matrix = np.empty(9)
        mujoco.mju_quat2Mat(matrix, turn)
        axes = model.cam_mat0[camera].reshape(3, 3) @ matrix.reshape(3, 3)
        model.cam_mat0[camera] = axes.ravel()
    return env


def _light(env: Env) -> Env:
    """All lights dimmed, and warm."""
    model, warm = _model(env), DIMMED * np.array([1.2, 1.0, 0.7])
    for light in ("ambient", "diffuse"):
        getattr(model.vis.headlight, light)[:] *= warm
        getattr(model, f"light_{light}")[:] *= warm
    return env


def _texture(env: Env) -> Env:
    """Every texture with its colours changed round: red to green to blue to red."""
    model = _model(env)
    for texture in range(model.ntex):
        channels = model.tex_nchannel[texture]
        if channels < 3:
            continue
        start = model.tex_adr[texture]
        size = model.tex_width[texture] * model.tex_height[texture] * channels
        pixels = model.tex_data[start : start + size].reshape(-1, channels)
        pixels[:, :3] = np.roll(pixels[:, :3], 1, axis=1)
    env.close()  # a renderer has copied the textures; the next picture starts a new one
    return env


def _distractors(env: Env) -> Env:
    """Things that stand about, to be seen only: the hand passes through them."""
    simulator = env.name.partition("/")[0]
    if simulator not in DISTRACTORS:
        raise AttributeError(f"no place for distractors is known{nearest(simulator, DISTRACTORS)}")
    _cameras(env).distractors = DISTRACTORS[simulator]
    return env


def _vary(**factors: float) -> Callable[[Env], Env]:
    def put(env: Env) -> Env:
        env.vary(**factors)
        return env

    return put


_SHIFTS: Mapping[str, Callable[[Env], Env]] = {
    "camera": _camera,
    "light": _light,
    "texture": _texture,
    "distractors": _distractors,
    "start": lambda env: cast(Env, PushedStart(env)),
    "gain": _vary(gain=0.75),
    "friction": _vary(friction=0.5),
}


def _model(env: Env) -> mujoco.MjModel:
    return cast(Any, env).model


def _cameras(env: Env) -> Cameras:
    return cast(Any, env).cameras
