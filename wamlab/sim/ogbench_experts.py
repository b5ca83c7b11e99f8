"""Experts of the scene: the package's oracles, aimed at what is asked now, with variants.

The package's Markov oracles read where things are and where they are to go from one dict; here
the goal in it is the task's. In a chain the next oracle takes over when the task before it is
done, after the hand has let go and risen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from wamlab.sim.experts import PLAIN, FreeWay, Pace, draw_variant
from wamlab.sim.ogbench_tasks import (
    DRAWER_TRAVEL,
    DRAWER_X,
    TASKS,
    WINDOW_TRAVEL,
    Facts,
    Press,
    Put,
    Slide,
    Task,
)
from wamlab.sim.ogbench_world import CUBE_BODIES

# isort: split
# ogbench_world decides how MuJoCo renders, before anything else imports it
from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle

if TYPE_CHECKING:
    from wamlab.sim.ogbench import OGBenchScene

SCENE = Pace(gain=5.0, arrived=0.05, longest=20, pause_at=(1, 9), pause_steps=(2, 5))
REST = np.array([0.4, 0.0, 0.3])  # where an oracle goes when its task is done
RISEN = 0.27  # metres above which the hand clears everything on the table

CARRIED = 0.15  # metres: no finger is down beside a cube
ALIGNED = 0.3  # radians within which the oracle turns the rest of the way
CASE_FRONT = -0.32  # metres, along y
FRONT_WALL = 0.096  # metres from the handle to the inside of the drawer's front
IN_DRAWER = 0.075  # metres: the height at which a cube is let go in the drawer

Info = dict[str, Any]


class SceneExpert:
    """The package's oracle for the task that is asked now, on a variant that ``seed`` draws."""

    def __init__(self, env: OGBenchScene, *, variants: bool, seed: int) -> None:
        self.env, self.variants = env, variants
        self.variant = draw_variant(seed, SCENE) if variants else dict(PLAIN)
        self._task = ""
        self._begin()

    def __call__(self) -> Float[np.ndarray, " 5"]:
        """The action that it would take in the environment's present state."""
        if self._task != self.env.task:
            self._rising = True
        hand, _, opening = self.env.world.hand()
        if self._rising and (hand[2] < RISEN or opening < 0.9):
            return np.array([0.0, 0.0, float(opening > 0.3), 0.0, -1.0], np.float32)
        if self._task != self.env.task:
            self._begin()
        info = self._info()
        action = np.asarray(self._oracle.select_action(None, info), np.float32)
        self._turn_for_drawer(action, info)
        if self._way is not None:
            action[:3] = self._way(hand, action[:3])
            action[3] *= bool(action[:3].any())
        return action

    def _turn_for_drawer(self, action: Float[np.ndarray, " 5"], info: Info) -> None:
        """Turn the hand before it grasps, because its fingers only open along x in the drawer.

        A cube looks the same from four sides, and the oracle grasps it by the nearest.
        """
        task = TASKS[self._task]
        if not (isinstance(task, Put) and task.place == "drawer"):
            return
        hand, yaw, _ = self.env.world.hand()
        turned = np.mod(info["privileged/block_0_yaw"][0] + np.pi / 4, np.pi / 2) + np.pi / 4
        if abs(turned - yaw) > ALIGNED and hand[2] > CARRIED and not _held(info):
            action[2:4] = max(action[2], 0.0), np.sign(turned - yaw)

    def _begin(self) -> None:
        """Take up the task that is asked now."""
        self._task, self._rising = self.env.task, False
        self._oracle = _oracle(TASKS[self._task], self.env)
        hand, _, _ = self.env.world.hand()
        self._way = None
        if self.variants:
            first = _first_target(TASKS[self._task], self._info())
            reach = self.env.world.workspace
            self._way = FreeWay(self.variant, SCENE, hand=hand, first=first, reach=reach)

    def _info(self) -> Info:
        """What the package's oracles read, with this task's goal."""
        info = self.env.world.compute_ob_info()
        task, facts = TASKS[self._task], self.env.facts()
        if isinstance(task, Press):
            site = self.env.data.site(f"btntop_{task.button}")
            info["privileged/target_button"] = task.button
            info["privileged/target_button_state"] = 0
            info["privileged/target_button_top_pos"] = site.xpos.copy()
        elif isinstance(task, Slide):
            handle = info[f"privileged/{task.thing}_handle_pos"]
            info[f"privileged/target_{task.thing}_handle_pos"] = handle + _rest_of_way(task, facts)
        else:
            info["privileged/target_block"] = 0
            info |= _cube_info(self.env, task.cube)
            info["privileged/target_block_pos"] = _goal(task, facts)
            info["privileged/target_block_yaw"] = np.zeros(1)
        return info


def _oracle(task: Task, env: OGBenchScene) -> Any:
    kinds: Mapping[Any, Any] = {
        "drawer": DrawerMarkovOracle,
        "window": WindowMarkovOracle,
        Press: ButtonMarkovOracle,
        Put: CubeMarkovOracle,
    }
    oracle = kinds[task.thing if isinstance(task, Slide) else type(task)](env=env.world)
    # What the package's own reset draws from numpy's global generator: where to go in the end.
    oracle._step, oracle._final_pos, oracle._final_yaw = 0, REST.copy(), 0.0
    return oracle


def _first_target(task: Task, info: Info) -> Float[np.ndarray, " 3"]:
    """The place above the thing, to which each of the package's oracles goes first."""
    if isinstance(task, Press):
        return info["privileged/target_button_top_pos"] + [0.0, 0.0, 0.06]
    if isinstance(task, Put):
        return info["privileged/block_0_pos"] + [0.0, 0.0, 0.18]
    above = 0.12 if task.thing == "drawer" else 0.06
    return info[f"privileged/{task.thing}_handle_pos"] + [0.0, 0.0, above]


def _rest_of_way(task: Slide, facts: Facts) -> Float[np.ndarray, " 3"]:
    """How far the handle has to go: the drawer along y, the window along x."""
    if task.thing == "drawer":
        return np.array([0.0, task.opened * DRAWER_TRAVEL - facts.drawer, 0.0])
    return np.array([task.opened * WINDOW_TRAVEL - facts.window, 0.0, 0.0])


def _goal(task: Put, facts: Facts) -> Float[np.ndarray, " 3"]:
    if task.place == "drawer":
        middle = (CASE_FRONT + facts.handle[1] - FRONT_WALL) / 2
        return np.array([DRAWER_X, middle, IN_DRAWER])
    return np.array([*facts.mats[task.place][:2], 0.02])


def _held(info: Info) -> bool:
    return bool(info["proprio/gripper_contact"][0] > 0.5)


def _cube_info(env: OGBenchScene, cube: str) -> Info:
    """A cube in the place of the only one that the oracle knows."""
    pose = env.entities()[CUBE_BODIES[cube]]
    w, x, y, z = pose[3:]
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y**2 + z**2))
    return {"privileged/block_0_pos": pose[:3], "privileged/block_0_yaw": np.array([yaw])}
