"""The 50 tasks of Meta-World v3 (metaworld 3.1.1 on mujoco 3.3.0) as one `Env`.

The package's tasks keep part of their state in Python and in the model; here a start is a function
of its seed alone, and `get_state` holds all of it.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Shaped

from wamlab.config import nearest
from wamlab.sim import physics
from wamlab.sim.env import RawObservation, split_of, start_seed
from wamlab.sim.instructions import INSTRUCTIONS, Sentence, sentence_of
from wamlab.sim.scene import BoxArrays, Cameras, Entities, Kind, View, masks_of, stack_views
from wamlab.types import ActionSpace, Camera

VIEWS = {
    "corner": View("corner2", turned=True, position=(0.75, 0.075, 0.7)),
    "gripper": View("gripperPOV"),
}
SPACE = ActionSpace(
    names=("x", "y", "z", "grip"),
    low=(-1.0,) * 4,
    high=(1.0,) * 4,
    mode=("delta", "delta", "delta", "absolute"),
    unit=("cm", "cm", "cm", "effort"),
    rate_hz=80.0,
)
STATE_NAMES: tuple[str, ...] = ("hand x", "hand y", "hand z", "gripper opening")
FURNITURE = ("tablelink", "RetainingWall", "mocap")
FOREVER = 2**31


class MetaWorld:
    """One Meta-World task; see `wamlab.sim.env.Env` for the protocol.

    The state is the hand's position in metres and the gripper's opening (0 closed, 1 open);
    where objects are is told by `entities` only. An action moves the hand's target by up to a
    centimetre per axis and sets the gripper's closing effort. An episode does not end at success:
    it is truncated after ``max_steps``. ``views=()`` renders nothing and is many times faster.
    What the robot is told is the task's own ``sentence`` 0, a paraphrase (1, 2, ...), nothing
    (``"empty"``), or whatever ``instruction`` says.

    Raises:
        KeyError: an unknown task or view, with the nearest right name.
        ValueError: a sentence that the task does not have.
    """

    space = SPACE
    state_names = STATE_NAMES

    def __init__(
        self,
        task: str,
        *,
        image_size: int = 64,
        views: tuple[str, ...] = ("corner", "gripper"),
        max_steps: int = 200,
        instruction: str | None = None,
        sentence: Sentence = 0,
    ) -> None:
        if task not in INSTRUCTIONS:
            raise KeyError(f"no Meta-World task {task!r}{nearest(task, INSTRUCTIONS)}")
        if unknown := [view for view in views if view not in VIEWS]:
            raise KeyError(f"no view {unknown[0]!r}{nearest(unknown[0], VIEWS)}")
        self.task, self.name = task, f"metaworld/{task}"
        self.views, self.image_size, self.max_steps = tuple(views), image_size, max_steps
        self.instruction = sentence_of(task, sentence) if instruction is None else instruction
        self._task, self._draw = _make_task(task)
        self.model, self.data = self._task.model, self._task.data
        self._things = Entities(self.model, robot="base", hand="hand", ignored=FURNITURE)
        self.cameras = Cameras(self.model, self.data, VIEWS, image_size)
        self._claws = [self.model.body(name).id for name in ("rightclaw", "leftclaw")]
        self._physics = physics.Physics(self.model, np.flatnonzero(self._things.of_body > 0))
        self._action_scale = float(self._task.action_scale)
        self._fields = _Fields(self._task)
        self._pristine = physics.snapshot(self.model, self.data), self._fields.read()
        self._rng = np.random.default_rng(0)
        self._steps, self._success = 0, False
        self._begin(start_seed("train", 0))

    @property
    def success(self) -> bool:
        return self._success

    @property
    def goal(self) -> Float[np.ndarray, " 3"]:
        """Where the task wants its object (or the hand) to be, metres: for measures, not models."""
        return np.array(self._task._target_pos, dtype=np.float64)

    @property
    def reach(self) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
        """The lowest and highest place that the hand's target can have, metres."""
        return self._task.mocap_low.copy(), self._task.mocap_high.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[RawObservation, dict[str, Any]]:
        """Go to the start that ``seed`` (from `start_seed`) determines; None takes a training one.

        ``info`` holds the ``seed``, its ``split`` and the ``success`` of the start itself.
        """
        if options:
            raise ValueError(f"reset has no options, got {sorted(options)}")
        seed = int(self._rng.integers(1_000_000)) if seed is None else seed
        split = split_of(seed)
        self._begin(seed)
        return self.observe(), {"seed": seed, "split": split, "success": self._success}

    def step(
        self, action: Float[np.ndarray, " a"]
    ) -> tuple[RawObservation, float, bool, bool, dict[str, Any]]:
        """Execute one action.

        Raises:
            ValueError: an action of another size, outside the bounds, NaN or infinite.
        """
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (SPACE.size,):
            raise ValueError(f"action has shape {action.shape}, expected ({SPACE.size},)")
        SPACE.check(action)
        _, reward, _, _, info = self._task.step(action.astype(np.float64))
        self._steps += 1
        self._success = bool(info["success"])
        truncated = self._steps >= self.max_steps
        return self.observe(), float(reward), False, truncated, {"success": self._success}

    def observe(self) -> RawObservation:
        images = stack_views(self.cameras, self.views)
        return {**images, "state": self._state(), "instruction": self.instruction}

    def get_state(self) -> Float[np.ndarray, " q"]:
        """Simulation, edits of the model, Python-side numbers, steps and success, in this order.

        What `vary` changed is not part of it.
        """
        own = [float(self._steps), float(self._success)]
        snapshot = physics.snapshot(self.model, self.data)
        return np.concatenate([snapshot, self._fields.read(), own])

    def set_state(self, state: Float[np.ndarray, " q"]) -> None:
        """Put back a state of this task, also one that another instance gave.

        Raises:
            ValueError: a state of another size, which is one of another task.
        """
        at = physics.snapshot_size(self.model)
        expected = at + self._fields.size + 2
        if np.shape(state) != (expected,):
            raise ValueError(
                f"state has shape {np.shape(state)}, expected ({expected},) for {self.name}"
            )
        physics.restore(self.model, self.data, state[:at])
        self._fields.write(state[at:-2])
        self._steps, self._success = int(state[-2]), bool(state[-1])

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
        self._success = self._judged()

    def contacts(self) -> list[tuple[str, str]]:
        return self._things.contacts(self.data)

    def boxes(self) -> dict[str, BoxArrays]:
        """What collides, as boxes, by entity and ``furniture``; see `Entities.boxes`."""
        return self._things.boxes(self.data)

    def expert(self, *, variants: bool, seed: int) -> Any:
        from wamlab.sim.experts import MetaWorldExpert

        return MetaWorldExpert(self, variants=variants, seed=seed)

    def vary(self, *, gain: float = 1.0, friction: float = 1.0, mass: float = 1.0) -> None:
        """Scale how far an action moves the hand and how hard it grips, friction, and mass.

        It holds until the next call, across resets and restored states.
        """
        self._physics.scale(gain=gain, friction=friction, mass=mass)
        self._task.action_scale = self._action_scale * gain

    def full_observation(self) -> Float[np.ndarray, " 39"]:
        """The package's own observation with object and goal positions, which its experts read."""
        current = self._task._get_curr_obs_combined_no_goal()
        full = np.concatenate([current, self._task._prev_obs, self._task._get_pos_goal()])
        bounds = self._task.sawyer_observation_space
        return np.clip(full, bounds.low, bounds.high)

    def close(self) -> None:
        self.cameras.close()

    def _state(self) -> Float[np.ndarray, " 4"]:
        right, left = self.data.xpos[self._claws]
        opening = min(float(np.linalg.norm(right - left)) / 0.1, 1.0)
        return np.append(self._task.get_endeff_pos(), opening).astype(np.float32)

    @property
    def start(self) -> Float[np.ndarray, " v"]:
        """The numbers that the present episode's start drew (see `start_bounds`)."""
        return np.array(self._task._last_rand_vec, dtype=np.float64)

    def start_bounds(self) -> tuple[Float[np.ndarray, " v"], Float[np.ndarray, " v"]]:
        """Lowest and highest of the numbers (metres) that a start draws: objects, then goal."""
        return self._draw.low.copy(), self._draw.high.copy()

    def start_at(self, vector: Float[np.ndarray, " v"]) -> RawObservation:
        """Go to the start with these numbers instead of drawn ones (see `start_bounds`)."""
        self._begin(0, np.array(vector, dtype=np.float64))
        return self.observe()

    def _begin(self, seed: int, vector: Float[np.ndarray, " v"] | None = None) -> None:
        """The package's reset, which prepares a task twice, from a pristine model and our seed."""
        task = self._task
        physics.restore(self.model, self.data, self._pristine[0])
        self._fields.write(self._pristine[1])
        self._draw.begin(seed, vector)
        task.reset_model()
        self._draw.begin(seed, self._draw.last)
        mujoco.mj_resetData(self.model, self.data)
        task.curr_path_length = 0
        task.reset_model()
        mujoco.mj_forward(self.model, self.data)
        task._prev_obs = task._get_curr_obs_combined_no_goal()
        self._steps, self._success = 0, self._judged()

    def _judged(self) -> bool:
        """Whether the task takes the present state for a success, with no action taken."""
        _, info = self._task.evaluate_state(self._task._get_obs(), np.zeros(SPACE.size))
        return bool(info["success"])


class _Draw:
    """The numbers of a start, drawn from a seed until the task takes them, or given."""

    def __init__(self, task: Any) -> None:
        space = task._random_reset_space
        self.task, self.low, self.high = task, space.low.astype(float), space.high.astype(float)
        self.begin(0, None)

    def begin(self, seed: int, given: Float[np.ndarray, " v"] | None) -> None:
        self._rng, self._given, self._asked = np.random.default_rng(seed), given, False

    def __call__(self) -> Float[np.ndarray, " v"]:
        if self._given is None:
            self.last = self._rng.uniform(self.low, self.high)
        elif self._asked:  # a task asks again when it refuses an answer
            raise ValueError(f"the task refuses the start {self._given}")
        else:
            self.last = self._given
        self._asked = True
        self.task._last_rand_vec = self.last.copy()
        return self.last.copy()


class _Fields:
    """The numbers that a task keeps in Python, as one flat array.

    Arrays that look into the simulation's memory are left out: they follow it. One distance is
    None until the first step of a task (bin-picking); it is written as -1 then.
    """

    skipped = frozenset({"action_scale", "width", "height", "frame_skip", "_last_stable_obs"})
    unset_at_start = frozenset({"_target_to_obj_init"})

    def __init__(self, task: Any) -> None:
        self.task = task
        fields = sorted(vars(task).items(), key=lambda field: field[0])
        self.shapes = {
            name: () if name in self.unset_at_start else np.shape(value)
            for name, value in fields
            if self._is_own(name, value)
        }
        self.size = sum(int(np.prod(shape)) for shape in self.shapes.values())

    def _is_own(self, name: str, value: Any) -> bool:
        if name in self.skipped or name in self.unset_at_start:
            return name in self.unset_at_start
        if isinstance(value, np.ndarray):
            return value.dtype.kind in "fiub" and not _looks_into_simulation(value)
        return isinstance(value, (bool, int, float, np.number, np.bool_))

    def read(self) -> Float[np.ndarray, " f"]:
        fields = [getattr(self.task, name) for name in self.shapes]
        numbers = [-1.0 if field is None else field for field in fields]
        return np.concatenate([np.ravel(number).astype(np.float64) for number in numbers])

    def write(self, values: Float[np.ndarray, " f"]) -> None:
        at = 0
        for name, shape in self.shapes.items():
            size, old = int(np.prod(shape)), getattr(self.task, name)
            new = values[at : at + size].reshape(shape)
            if name in self.unset_at_start:
                put: Any = float(new) if new >= 0 else None
            else:
                put = new.astype(old.dtype) if isinstance(old, np.ndarray) else type(old)(new)
            setattr(self.task, name, put)
            at += size


def _looks_into_simulation(array: np.ndarray) -> bool:
    base = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return not isinstance(base, np.ndarray)


def _make_task(name: str) -> tuple[Any, _Draw]:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    task: Any = ALL_V3_ENVIRONMENTS[f"{name}-v3"]()
    task._partially_observable = False
    del task.sawyer_observation_space  # cached for the hidden goal
    task._set_task_called = True
    task.max_path_length = FOREVER
    task._get_state_rand_vec = draw = _Draw(task)
    task.reset_model()  # fields that a task makes at its first start exist from here on
    return task, draw
