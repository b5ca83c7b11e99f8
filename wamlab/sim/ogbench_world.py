"""OGBench's scene (ogbench 1.2.2 on mujoco 3.3.0), with what combinations need added to it.

The package's scene has a drawer, a window, two buttons that lock them, and a red cube. Added here
are a blue cube, a yellow and a green mat that lie somewhere else at every start, and a camera at
the wrist. A start leaves every task of the scene undone.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float
from ogbench.manipspace import lie
from ogbench.manipspace.envs.scene_env import SceneEnv

from wamlab.sim import physics
from wamlab.sim.ogbench_tasks import CUBES, MATS, Facts
from wamlab.sim.scene import thin_out

CUBE_BODIES = dict(zip(CUBES, ("object_0", "object_1"), strict=True))
CUBE_JOINTS = dict(zip(CUBES, ("object_joint_0", "object_joint_1"), strict=True))
MAT_BODIES = {mat: f"{mat}_mat" for mat in MATS}
COLOURS = {"blue": (0.1, 0.25, 0.95, 1), "yellow": (0.95, 0.8, 0.1, 1), "green": (0.1, 0.6, 0.2, 1)}
WRIST = {"pos": (-0.09, 0.0, 0.03), "xyaxes": (0, 1, 0, 0.87, 0, -0.5), "fovy": 75.0}

COARSE = 0.005  # metres: a third of a pixel of the front view at 64 pixels
UNPRESSED = 1  # the package's number for a button that leaves its lock open

HAND = np.array([[0.32, -0.08, 0.24], [0.48, 0.08, 0.32]])
HAND_YAW = CUBE_YAW = 0.4
DRAWER, WINDOW = (0.08, 0.12), (0.07, 0.13)  # metres open: neither counts as open nor as closed
CUBES_LIE = np.array([[0.32, -0.02], [0.43, 0.13]])  # where fingers along x can reach them
MATS_LIE = np.array([[0.28, -0.02], [0.48, 0.13]])
APART = 0.085  # metres between the middles of cubes and mats: room for the fingers


class World(SceneEnv):
    """The simulation, its starts and its facts; the package's own tasks and views are not used."""

    def __init__(self) -> None:
        super().__init__(
            "scene",
            ob_type="states",
            mode="data_collection",
            visualize_info=False,
            terminate_at_goal=False,
        )
        self.reset(seed=0)
        thin_out(self._model, cell=COARSE)

    def add_objects(self, arena_mjcf: Any) -> None:
        super().add_objects(arena_mjcf)
        world = arena_mjcf.worldbody
        cube = world.add("body", name=CUBE_BODIES["blue"], pos=(0.4, 0.1, 0.02))
        cube.add("freejoint", name=CUBE_JOINTS["blue"])
        red = arena_mjcf.find("geom", "object_0").dclass
        cube.add("geom", name="object_1", dclass=red, rgba=COLOURS["blue"])
        for mat, name in MAT_BODIES.items():
            body = world.add("body", name=name, mocap=True)
            flat = {"size": (0.03, 0.03, 0.001), "contype": 0, "conaffinity": 0, "group": 1}
            body.add("geom", name=name, type="box", rgba=COLOURS[mat], **flat)
        wrist = arena_mjcf.find("body", "ur5e/robotiq/base")
        wrist.add("camera", name="wrist", **WRIST)

    @property
    def pressed(self) -> tuple[bool, bool]:
        left, right = self._cur_button_states != UNPRESSED
        return bool(left), bool(right)

    @pressed.setter
    def pressed(self, pressed: tuple[bool, bool]) -> None:
        """Also locks or unlocks what the buttons lock, and colours it."""
        self._cur_button_states = np.where(pressed, 1 - UNPRESSED, UNPRESSED)
        self._apply_button_states()

    def scale_motion(self, gain: float) -> None:
        """Scale how far an action of one moves the hand; relative to the package's five cm."""
        reach = np.array([0.05, 0.05, 0.05, 0.3, 1.0]) * np.array([gain] * 4 + [1.0])
        self.action_low, self.action_high = -reach, reach

    def begin(self, rng: np.random.Generator) -> None:
        """Go to a start drawn from ``rng``."""
        model, data = self._model, self._data
        mujoco.mj_resetData(model, data)
        data.qpos[self._arm_joint_ids] = self._home_qpos
        mujoco.mj_kinematics(model, data)
        data.qpos[self._arm_joint_ids] = self._arm_at(rng.uniform(*HAND), _yaw(rng, HAND_YAW))
        data.joint("drawer_slide").qpos[0] = -rng.uniform(*DRAWER)
        data.joint("window_slide").qpos[0] = rng.uniform(*WINDOW)
        cubes, mats = _places(rng)
        for joint, place in zip(CUBE_JOINTS.values(), cubes, strict=True):
            turned = lie.SO3.from_z_radians(_yaw(rng, CUBE_YAW)).wxyz
            data.joint(joint).qpos[:] = [*place, 0.02, *turned]
        for name, place in zip(MAT_BODIES.values(), mats, strict=True):
            data.mocap_pos[model.body(name).mocapid[0]] = [*place, 0.001]
        self.pressed = (False, False)
        self.settle()

    def act(self, action: Float[np.ndarray, " 5"]) -> None:
        """Execute one action, at the package's own 20 Hz."""
        self.step(action)
        self.settle()

    def state(self) -> Float[np.ndarray, " q"]:
        """The simulation and the buttons, for `put_back`."""
        return np.concatenate([physics.snapshot(self._model, self._data), self.pressed])

    def put_back(self, state: Float[np.ndarray, " q"]) -> None:
        self.pressed = bool(state[-2]), bool(state[-1])
        physics.restore(self._model, self._data, state[:-2])
        mujoco.mj_rnePostConstraint(self._model, self._data)  # the grasp's force, for the expert

    def settle(self) -> None:
        """Compute all that follows from the state from it alone: the same as after `put_back`."""
        self.put_back(self.state())

    def facts(self, touched: frozenset[str]) -> Facts:
        data = self._data
        return Facts(
            drawer=-float(data.joint("drawer_slide").qpos[0]),
            window=float(data.joint("window_slide").qpos[0]),
            handle=data.site("drawer_handle_center").xpos.copy(),
            pressed=self.pressed,
            cubes={cube: data.body(body).xpos.copy() for cube, body in CUBE_BODIES.items()},
            mats={mat: data.body(body).xpos.copy() for mat, body in MAT_BODIES.items()},
            touched=touched,
        )

    def hand(self) -> tuple[Float[np.ndarray, " 3"], float, float]:
        """Place between the fingertips (metres), yaw (radians), opening (0 closed, 1 open)."""
        site = self._data.site("ur5e/robotiq/pinch")
        yaw = lie.SO3.from_matrix(site.xmat.reshape(3, 3)).compute_yaw_radians()
        closed = self._data.qpos[self._gripper_opening_joint_id] / 0.8
        return site.xpos.copy(), float(yaw), 1.0 - float(np.clip(closed, 0.0, 1.0))

    @property
    def workspace(self) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
        low, high = self._workspace_bounds
        return low.copy(), high.copy()

    def _arm_at(self, place: Float[np.ndarray, " 3"], yaw: float) -> Float[np.ndarray, " 6"]:
        """The arm's joints with the open hand at this place, pointing down."""
        turned = lie.SO3.from_z_radians(yaw) @ self._effector_down_rotation
        pinch = lie.SE3.from_rotation_and_translation(turned, place)
        wrist = pinch @ self._T_pa
        return self._ik.solve(wrist.translation(), wrist.rotation().wxyz, self._home_qpos)


def _yaw(rng: np.random.Generator, most: float) -> float:
    return float(rng.uniform(-most, most))


def _places(
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "cubes 2"], Float[np.ndarray, "mats 2"]]:
    """Places of cubes and mats that keep their distance, drawn together until they do."""
    pairs = np.triu_indices(len(CUBES) + len(MATS), 1)
    while True:
        cubes = rng.uniform(CUBES_LIE[0], CUBES_LIE[1], (len(CUBES), 2))
        mats = rng.uniform(MATS_LIE[0], MATS_LIE[1], (len(MATS), 2))
        places = np.concatenate([cubes, mats])
        away = np.linalg.norm(places[:, None] - places[None], axis=-1)
        if away[pairs].min() >= APART:
            return cubes, mats
