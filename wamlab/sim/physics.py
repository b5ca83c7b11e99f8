"""Exact snapshots of a MuJoCo simulation, and its physics scaled and put back.

A snapshot is MuJoCo's own integration state (positions, velocities, activations, controls, mocap,
time, solver warm start ...) together with the places of bodies and sites, which tasks move
in the model at each start.
"""

from __future__ import annotations

import copy

import mujoco
import numpy as np
from jaxtyping import Float, Int

PLACES = ("body_pos", "body_quat", "site_pos")
SCALED = (
    *("actuator_gainprm", "actuator_biasprm", "geom_friction", "pair_friction"),
    *("dof_frictionloss", "body_mass", "body_inertia"),
)
DERIVED = ("body_subtreemass", "body_invweight0", "dof_invweight0")


def snapshot(model: mujoco.MjModel, data: mujoco.MjData) -> Float[np.ndarray, " q"]:
    """Everything that the next simulation step depends on, as one flat array."""
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(model, spec))
    mujoco.mj_getState(model, data, state, spec)
    return np.concatenate([state, *(getattr(model, name).ravel() for name in PLACES)])


def snapshot_size(model: mujoco.MjModel) -> int:
    size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION)
    return size + sum(getattr(model, name).size for name in PLACES)


def restore(model: mujoco.MjModel, data: mujoco.MjData, values: Float[np.ndarray, " q"]) -> None:
    """Put back a `snapshot`, with everything derived from it computed anew."""
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    at = mujoco.mj_stateSize(model, spec)
    state = np.ascontiguousarray(values[:at])
    for name in PLACES:
        array = getattr(model, name)
        array[:] = values[at : at + array.size].reshape(array.shape)
        at += array.size
    mujoco.mj_resetData(model, data)
    mujoco.mj_setState(model, data, state, spec)
    mujoco.mj_forward(model, data)
    mujoco.mj_setState(model, data, state, spec)  # the solver may have moved its warm start


def put_joints(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    places: Int[np.ndarray, " n"],
    positions: Float[np.ndarray, " n"],
) -> None:
    """Put joints (``places`` in ``qpos``) elsewhere, with everything derived computed anew."""
    data.qpos[places] = positions
    mujoco.mj_forward(model, data)


class Physics:
    """The numbers of a model that `scale` changes, kept as they were."""

    def __init__(self, model: mujoco.MjModel, things: Int[np.ndarray, " n"]) -> None:
        """``things``: the bodies whose mass is scaled, which are not the robot's."""
        self.model, self.things = model, things
        self._original = {name: getattr(model, name).copy() for name in (*SCALED, *DERIVED)}

    def scale(self, *, gain: float, friction: float, mass: float) -> None:
        """Scale actuator gain, friction (contacts and joints) and the mass of things.

        Factors are relative to the original; all ones put back exactly the original.

        Raises:
            ValueError: a factor that is not a positive finite number.
        """
        for name, factor in (("gain", gain), ("friction", friction), ("mass", mass)):
            if not (np.isfinite(factor) and factor > 0):
                raise ValueError(f"{name} is scaled by {factor}, expected a positive number")
        for name, values in self._original.items():
            getattr(self.model, name)[:] = values
        self.model.actuator_gainprm[:] *= gain
        self.model.actuator_biasprm[:] *= gain
        self.model.geom_friction[:] *= friction
        self.model.pair_friction[:] *= friction
        self.model.dof_frictionloss[:] *= friction
        if mass != 1.0:
            self._scale_mass(mass)

    def _scale_mass(self, mass: float) -> None:
        self.model.body_mass[self.things] *= mass
        self.model.body_inertia[self.things] *= mass
        # On a copy, because it would also change what rendering and actuation read.
        scratch = copy.copy(self.model)
        mujoco.mj_setConst(scratch, mujoco.MjData(scratch))
        for name in DERIVED:
            getattr(self.model, name)[:] = getattr(scratch, name)
