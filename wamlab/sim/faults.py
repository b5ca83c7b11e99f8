"""Planted faults: a recorded world shown again, breaking one law of nature that a judge must catch.

Nothing is painted. The states of an episode are restored one by one, in another order where time is
what is wrong; the thing's joint, its size or colour, or the camera is edited, and everything that
follows (pictures, segmentation, contacts, poses) is computed anew from that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float

from wamlab.config import nearest
from wamlab.sim.metaworld import MetaWorld

RAMP = 24
"""So many instants a fault takes that grows."""

EDITED = ("geom_rgba", "geom_matid", "geom_size", "mesh_vert", "cam_pos")
LEAST_LEVER = 0.05
UP = np.array([0.0, 0.0, 1.0])


class Stage:
    """One thing of an environment, to be moved, shrunk or hidden, and put right again.

    ``heading`` (radians) is where on the table a free thing goes.

    Raises:
        KeyError: an unknown entity, with the nearest name.
        ValueError: an entity that no joint moves.
    """

    def __init__(self, env: MetaWorld, thing: str, *, view: str, heading: float = 0.0) -> None:
        names = list(env.entities())
        if thing not in names:
            raise KeyError(f"{env.name} has no entity {thing!r}{nearest(thing, names)}")
        self.env, self.model, self.data = env, env.model, env.data
        index = names.index(thing)
        body = self.model.jnt_bodyid
        joints = np.flatnonzero(env._things.of_body[body] == index)
        if not joints.size:
            raise ValueError(f"no joint moves {thing!r} of {env.name}: it cannot be at fault")
        self.joint = int(joints[0])
        self.kind = mujoco.mjtJoint(self.model.jnt_type[self.joint])
        self.geoms = np.flatnonzero(env._things.of_geom == index)
        self.camera = self.model.camera(env.cameras.views[view].camera).id
        self.heading = np.array([np.cos(heading), np.sin(heading), 0.0])
        self._side = 0.0
        self._kept = {name: getattr(self.model, name).copy() for name in EDITED}

    @property
    def free(self) -> bool:
        return bool(self.kind == mujoco.mjtJoint.mjJNT_FREE)

    def move(self, metres: float, way: Float[np.ndarray, " 3"] | None = None) -> None:
        """Move a free thing along ``way`` (None: its heading), any other along its joint.

        A joint goes to the side that has more room at first, and no further.
        """
        at = self.model.jnt_qposadr[self.joint]
        if self.free:
            self.data.qpos[at : at + 3] += metres * (self.heading if way is None else way)
        else:
            limited = self.model.jnt_limited[self.joint]
            low, high = self.model.jnt_range[self.joint] if limited else (-np.inf, np.inf)
            now = self.data.qpos[at]
            self._side = self._side or (1.0 if high - now >= now - low else -1.0)
            self.data.qpos[at] = np.clip(now + self._side * metres / self._lever(), low, high)
        mujoco.mj_forward(self.model, self.data)

    def scale(self, factor: float) -> None:
        """The thing at ``factor`` of its size, about the middle of each of its parts."""
        self.model.geom_size[self.geoms] = factor * self._kept["geom_size"][self.geoms]
        for mesh in self._meshes():
            first, count = self.model.mesh_vertadr[mesh], self.model.mesh_vertnum[mesh]
            here = slice(first, first + count)
            self.model.mesh_vert[here] = factor * self._kept["mesh_vert"][here]
            self.env.cameras.reload_mesh(mesh)
        mujoco.mj_forward(self.model, self.data)

    def hide(self) -> None:
        """Nothing of the thing is drawn."""
        self.model.geom_matid[self.geoms] = -1
        self.model.geom_rgba[self.geoms, 3] = 0.0

    def slide_camera(self, metres: float) -> None:
        self.model.cam_pos[self.camera] = self._kept["cam_pos"][self.camera] + metres * UP
        mujoco.mj_forward(self.model, self.data)

    def mend(self) -> None:
        """The model as it was; the next restored state mends the rest."""
        for name, values in self._kept.items():
            getattr(self.model, name)[:] = values
        for mesh in self._meshes():
            self.env.cameras.reload_mesh(mesh)

    def _meshes(self) -> list[int]:
        geoms = self.geoms[self.model.geom_type[self.geoms] == mujoco.mjtGeom.mjGEOM_MESH]
        return sorted({int(mesh) for mesh in self.model.geom_dataid[geoms]})

    def _lever(self) -> float:
        """Metres by unit of the joint: 1 for a slide, for a hinge how far off the thing lies."""
        if self.kind == mujoco.mjtJoint.mjJNT_SLIDE:
            return 1.0
        middle = self.data.geom_xpos[self.geoms].mean(axis=0)
        off = np.linalg.norm(middle - self.data.xanchor[self.joint])
        return max(float(off), LEAST_LEVER)


def _as_it_was(t: int, begin: int) -> int:
    return t


def _back(t: int, begin: int) -> int:
    return t if t <= begin else max(2 * begin - t, 0)


def _stopped(t: int, begin: int) -> int:
    return min(t, begin)


@dataclass(frozen=True)
class Fault:
    """What goes wrong: ``edit`` gets how far it has gone, from 0 to 1 over ``ramp`` instants.

    ``when`` says which state is shown at an instant; ``free_only`` marks what only a thing can do
    that no joint holds.
    """

    what: str
    edit: Callable[[Stage, float], Any] = lambda stage, gone: None
    when: Callable[[int, int], int] = _as_it_was
    ramp: int = RAMP
    free_only: bool = False


FAULTS = {
    "teleport": Fault("it is 12 cm away at once", lambda s, gone: s.move(0.12 * gone), ramp=1),
    "vanish": Fault("it is gone", lambda s, gone: s.hide(), ramp=1),
    "float": Fault("it rises 8 cm, hangs", lambda s, gone: s.move(0.08 * gone, UP), free_only=True),
    "melt": Fault("it shrinks to 0.4 of its size", lambda s, gone: s.scale(1 - 0.6 * gone)),
    "ghost motion": Fault("it moves 8 cm by itself", lambda s, gone: s.move(0.08 * gone)),
    "reversal": Fault("time runs backwards", when=_back),
    "freeze": Fault("time stops", when=_stopped),
    "sink": Fault("it sinks by 2 cm", lambda s, gone: s.move(-0.02 * gone, UP), free_only=True),
    "drift": Fault("the camera rises by 2 cm", lambda s, gone: s.slide_camera(0.02 * gone)),
}
"""By name. Sink and drift are there so that every measure has a fault that it is meant to catch."""


def show(
    env: MetaWorld,
    states: Sequence[Float[np.ndarray, " q"]],
    fault: str | None,
    thing: str,
    *,
    begin: int,
    view: str = "corner",
    heading: float = 0.0,
) -> Iterator[int]:
    """Put ``env`` into the states one after the other, at fault after instant ``begin``.

    Yields the instant; whatever is asked of ``env`` then is of the faulted world. The environment
    is mended when the iterator ends or is closed. ``fault`` None shows what happened.

    Raises:
        KeyError: an unknown fault, entity or view, with the nearest name.
        ValueError: a fault that needs a free thing, or a beginning outside the episode.
    """
    if fault is not None and fault not in FAULTS:
        raise KeyError(f"no fault {fault!r}{nearest(fault, FAULTS)}")
    if not 0 <= begin < len(states) - 1:
        raise ValueError(f"a fault begins at 0 .. {len(states) - 2}, got {begin}")
    stage = Stage(env, thing, view=view, heading=heading)
    planted = FAULTS[fault] if fault is not None else Fault("nothing")
    if planted.free_only and not stage.free:
        raise ValueError(f"{fault} takes a free thing; a joint holds {thing!r} of {env.name}")
    try:
        for t in range(len(states)):
            env.set_state(states[planted.when(t, begin)])
            if t > begin:
                planted.edit(stage, min((t - begin) / planted.ramp, 1.0))
            yield t
    finally:
        stage.mend()
        env.set_state(states[-1])
