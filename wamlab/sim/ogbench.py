"""OGBench's scene as an `Env`: one scene, many instructions, and chains of several tasks.

All tasks share one start distribution and one look (`wamlab.sim.ogbench_tasks`), so that only the
instruction says what to do. A single task is a chain of one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from wamlab.config import nearest
from wamlab.sim import physics
from wamlab.sim.env import RawObservation, split_of, start_seed
from wamlab.sim.instructions import Sentence
from wamlab.sim.ogbench_tasks import SAID_OF, TASKS, Facts, said_for, tasks_of
from wamlab.sim.ogbench_world import CUBE_BODIES, World
from wamlab.sim.scene import Cameras, Entities, Kind, View, masks_of, stack_views
from wamlab.types import ActionSpace, Camera

VIEWS = {"front": View("front_pixels"), "wrist": View("ur5e/robotiq/wrist")}
SPACE = ActionSpace(
    names=("x", "y", "z", "yaw", "grip"),
    low=(-1.0,) * 5,
    high=(1.0,) * 5,
    mode=("delta",) * 5,
    unit=("5 cm", "5 cm", "5 cm", "0.3 rad", "opening"),
    rate_hz=20.0,
)
STATE_NAMES: tuple[str, ...] = (
    *("hand x", "hand y", "hand z", "cos of hand yaw", "sin of hand yaw", "gripper opening"),
)
FURNITURE = ("object_target_0",)
STEPS = 120  # of an episode, for each of its tasks


class OGBenchScene:
    """One task of the scene, or a chain of them; see `wamlab.sim.env.Env` for the protocol.

    ``name`` is a task (``open-drawer``) or several in the order in which they are asked
    (``open-drawer+press-left-button``): the instruction changes as soon as a task is done, and
    only when the last one is done in its turn is the episode a success. ``tasks_done`` counts them.

    The state is the hand's position in metres, its yaw, and the gripper's opening (0 closed, 1
    open). An action moves the hand's target by up to 5 cm per axis and 0.3 rad, and the fingers'
    by up to their whole opening (positive closes). An episode does not end at success: it is
    truncated after ``max_steps`` (None: 120 for each task). ``views=()`` renders nothing.
    What the robot is told is each task's own ``sentence`` 0, a paraphrase (1, 2, ...), the
    ``"swapped"`` sentence of another task that the start draws, nothing (``"empty"``), or whatever
    ``instruction`` says. Success is that of the tasks in ``name``, whatever is said; ``told_done``
    is that of the task which is said.

    Raises:
        KeyError: an unknown task or view, with the nearest right name.
        ValueError: a sentence that a task does not have.
    """

    space = SPACE
    state_names = STATE_NAMES

    def __init__(
        self,
        name: str,
        *,
        image_size: int = 64,
        views: tuple[str, ...] = ("front", "wrist"),
        max_steps: int | None = None,
        instruction: str | None = None,
        sentence: Sentence = 0,
    ) -> None:
        if unknown := [view for view in views if view not in VIEWS]:
            raise KeyError(f"no view {unknown[0]!r}{nearest(unknown[0], VIEWS)}")
        self.tasks, self.name = tasks_of(name), f"scene/{name}"
        self.views, self.image_size = tuple(views), image_size
        self.max_steps = STEPS * len(self.tasks) if max_steps is None else max_steps
        self._told, self._sentence = instruction, sentence
        self.world = World()
        self.model, self.data = self.world.model, self.world.data
        self._things = Entities(
            self.model, robot="ur5e/", hand="ur5e/robotiq/base", ignored=FURNITURE
        )
        self.cameras = Cameras(self.model, self.data, VIEWS, image_size)
        self._physics = physics.Physics(self.model, np.flatnonzero(self._things.of_body > 0))
        self._rng = np.random.default_rng(0)
        self._begin(start_seed("train", 0))

    @property
    def task(self) -> str:
        """The task that is asked now."""
        return self.tasks[self._turn]

    @property
    def instruction(self) -> str:
        return self._said[self._turn]

    @property
    def success(self) -> bool:
        return self.tasks_done == len(self.tasks)

    @property
    def tasks_done(self) -> int:
        """How many tasks were done in their turn; the last one counts while it stays done."""
        return self._turn + TASKS[self.task].done(self.facts())

    @property
    def told_done(self) -> bool | None:
        """Whether the task is done of which the robot is told, asked or not.

        None where what is said names no task, and in a chain, whose tasks `tasks_done` counts.
        """
        told = SAID_OF.get(self.instruction)
        if told is None or len(self.tasks) > 1:
            return None
        return TASKS[told].done(self.facts())

    def facts(self) -> Facts:
        """Where everything is, as the tasks judge it."""
        touching = {name for pair in self.contacts() if "robot" in pair for name in pair}
        touched = (cube for cube, body in CUBE_BODIES.items() if body in touching)
        return self.world.facts(frozenset(touched))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[RawObservation, dict[str, Any]]:
        """Go to the start that ``seed`` (from `start_seed`) determines; None takes a training one.

        ``info`` holds the ``seed``, its ``split`` and the ``success`` of the start itself, which
        is never one.
        """
        if options:
            raise ValueError(f"reset has no options, got {sorted(options)}")
        seed = int(self._rng.integers(1_000_000)) if seed is None else seed
        split = split_of(seed)
        self._begin(seed)
        return self.observe(), {"seed": seed, "split": split, "success": self.success}

    def step(
        self, action: Float[np.ndarray, " a"]
    ) -> tuple[RawObservation, float, bool, bool, dict[str, Any]]:
        """Execute one action; the reward is how many tasks are done.

        Raises:
            ValueError: an action of another size, outside the bounds, NaN or infinite.
        """
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (SPACE.size,):
            raise ValueError(f"action has shape {action.shape}, expected ({SPACE.size},)")
        SPACE.check(action)
        self.world.act(action.astype(np.float64))
        self._steps += 1
        done = self.tasks_done
        self._turn = min(done, len(self.tasks) - 1)
        info = {"success": done == len(self.tasks), "tasks_done": done}
        return self.observe(), float(done), False, self._steps >= self.max_steps, info

    def observe(self) -> RawObservation:
        images = stack_views(self.cameras, self.views)
        return {**images, "state": self._state(), "instruction": self.instruction}

    def get_state(self) -> Float[np.ndarray, " q"]:
        """Simulation, buttons, start, steps and which task is asked, in this order.

        What `vary` changed is not part of it.
        """
        return np.concatenate([self.world.state(), [self._seed, self._steps, self._turn]])

    def set_state(self, state: Float[np.ndarray, " q"]) -> None:
        """Put back a state, also one that another instance or another task of the scene gave.

        Raises:
            ValueError: a state of another size, or one in which more tasks are done than are asked.
        """
        expected = physics.snapshot_size(self.model) + 5
        if np.shape(state) != (expected,):
            raise ValueError(
                f"state has shape {np.shape(state)}, expected ({expected},) for {self.name}"
            )
        if state[-1] >= len(self.tasks):
            raise ValueError(f"{self.name} has no task number {state[-1]:g}")
        self.world.put_back(state[:-3])
        self._seed, self._steps, self._turn = (int(number) for number in state[-3:])
        self._said = self._say()

    def render_view(self, view: str, kind: Kind = "rgb") -> Shaped[np.ndarray, "h w *c"]:
        image = self.cameras.render(view, kind)
        return self._things.of_pixels(image) if kind == "segmentation" else image

    def camera(self, view: str) -> Camera:
        return self.cameras.camera(view)

    def entities(self) -> dict[str, Float[np.ndarray, " 7"]]:
        return self._things.poses(self.data)

    def masks(self, view: str) -> dict[str, Bool[np.ndarray, "h w"]]:
        return masks_of(self._things.names, self.render_view(view, "segmentation"))

    def erase_objects(self) -> None:
        """Leave the objects out of all pictures; see `wamlab.sim.erase`."""
        self._things.erase()

    def put_things(self, state: Float[np.ndarray, " q"]) -> None:
        """Put all but the robot where it is in this state; see `wamlab.sim.things`."""
        robot = self.data.qpos[self._things.robot_places].copy()
        self.set_state(state)
        physics.put_joints(self.model, self.data, self._things.robot_places, robot)

    def contacts(self) -> list[tuple[str, str]]:
        return self._things.contacts(self.data)

    def expert(self, *, variants: bool, seed: int) -> Any:
        from wamlab.sim.ogbench_experts import SceneExpert

        return SceneExpert(self, variants=variants, seed=seed)

    def vary(self, *, gain: float = 1.0, friction: float = 1.0, mass: float = 1.0) -> None:
        """Scale how far an action moves the hand and how hard the joints hold, friction, and mass.

        It holds until the next call, across resets and restored states.
        """
        self._physics.scale(gain=gain, friction=friction, mass=mass)
        self.world.scale_motion(gain)

    def close(self) -> None:
        self.cameras.close()

    def _state(self) -> Float[np.ndarray, " 6"]:
        place, yaw, opening = self.world.hand()
        return np.array([*place, np.cos(yaw), np.sin(yaw), opening], np.float32)

    def _begin(self, seed: int) -> None:
        self.world.begin(np.random.default_rng(seed))
        self._seed, self._steps, self._turn = seed, 0, 0
        self._said = self._say()

    def _say(self) -> tuple[str, ...]:
        """What is said while each of the tasks is asked."""
        if self._told is not None:
            return (self._told,) * len(self.tasks)
        rng = np.random.default_rng([self._seed, 4])
        return tuple(said_for(task, self._sentence, rng) for task in self.tasks)
