"""Clips of Meta-World experts, as they were and at fault, with all that measures read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wamlab.config import nearest
from wamlab.geometry.boxes import Boxes
from wamlab.metrics.joint import ROBOT
from wamlab.sim.env import start_seed
from wamlab.sim.faults import FAULTS, show
from wamlab.sim.metaworld import MetaWorld

VIEW = "corner"
LENGTH, EVERY, BEGIN = 48, 4, 16
"""Instants of a clip, instants between two of its frames, and after which one a fault begins."""

FIRST_START = 700
STEPS = 200
LIFTED = 0.08
FURNITURE = "furniture"
STANDING = np.array([0, 0, 0, 1, 0, 0, 0.0])


@dataclass(frozen=True)
class Clip:
    """One video with the simulator's knowledge of it.

    ``poses`` (T, 7) and ``contacts`` at every instant, ``place`` (T, 3) the middle of the thing's
    boxes (which moves also where a hinge does not), ``frames`` and ``masks`` at every `EVERY`-th.
    """

    task: str
    thing: str
    free: bool
    rate_hz: float
    poses: dict[str, np.ndarray]
    contacts: list[list[tuple[str, str]]]
    boxes: dict[str, Boxes]
    frames: np.ndarray
    masks: dict[str, np.ndarray]

    @property
    def place(self) -> np.ndarray:
        boxes, poses = self.boxes[self.thing], self.poses[self.thing]
        return boxes.at(poses)[0].mean(axis=1) if len(boxes) else poses[:, :3]

    @property
    def front(self) -> np.ndarray:
        """What can stand before the thing."""
        return self.masks[ROBOT]

    @property
    def background(self) -> np.ndarray:
        return ~np.logical_or.reduce([mask.any(axis=0) for mask in self.masks.values()])


@dataclass(frozen=True)
class Task:
    """A task, its thing that moves, and whether it is ``dropped`` once it is lifted."""

    name: str
    thing: str
    free: bool
    dropped: bool = False

    def real(self, numbers: Sequence[int], *, size: int) -> Iterator[Clip]:
        """Clips of the starts from `FIRST_START` on."""
        env = MetaWorld(self.name, views=(), image_size=size, max_steps=STEPS + 1)
        for number in numbers:
            states = self._recorded(env, FIRST_START + number, number)
            yield self._filmed(env, states, None, number)
        env.close()

    def twins(
        self, numbers: Sequence[int], *, size: int, faults: Sequence[str] = tuple(FAULTS)
    ) -> Iterator[tuple[Clip, dict[str, Clip]]]:
        """Clips of starts that `real` does not reach, and each with every fault planted."""
        env = MetaWorld(self.name, views=(), image_size=size, max_steps=STEPS + 1)
        for number in numbers:
            states = self._recorded(env, 2 * FIRST_START + number, number)
            real = self._filmed(env, states, None, number)
            possible = [name for name in faults if self.free or not FAULTS[name].free_only]
            yield real, {name: self._filmed(env, states, name, number) for name in possible}
        env.close()

    def _recorded(self, env: MetaWorld, start: int, number: int) -> list[np.ndarray]:
        """The states of a clip: half of them see the first touch late, half early (or the fall)."""
        env.reset(seed=start_seed("validation", start))
        expert = env.expert(variants=True, seed=start)
        states, touched, dropping = [env.get_state()], None, None
        height = env.entities()[self.thing][2]
        for step in range(STEPS):
            action = np.asarray(expert(), np.float32)
            if self.dropped and env.entities()[self.thing][2] > height + LIFTED:
                dropping = step if dropping is None else dropping
            if dropping is not None:
                action[:3], action[3] = 0, -1
            env.step(action)
            states.append(env.get_state())
            if touched is None and any({ROBOT, self.thing} == set(p) for p in env.contacts()):
                touched = step
        late = number % 2 == 0
        anchor = touched if late or dropping is None else dropping
        ahead = LENGTH * 2 // 3 if late else BEGIN // 2
        first = int(np.clip((anchor or 0) - ahead, 0, len(states) - LENGTH - 1))
        return states[first : first + LENGTH + 1]

    def _filmed(
        self, env: MetaWorld, states: list[np.ndarray], fault: str | None, number: int
    ) -> Clip:
        env.set_state(states[0])
        boxes = {name: Boxes(*arrays) for name, arrays in env.boxes().items()}
        poses: list[dict[str, Any]] = []
        contacts, frames, masks = [], [], []
        for t in show(env, states, fault, self.thing, begin=BEGIN, view=VIEW, heading=number):
            poses.append({**env.entities(), FURNITURE: STANDING})
            contacts.append(env.contacts())
            if t % EVERY == 0:
                frames.append(env.render_view(VIEW))
                masks.append(env.masks(VIEW))
        return Clip(
            task=self.name,
            thing=self.thing,
            free=self.free,
            rate_hz=env.space.rate_hz,
            poses={name: np.stack([pose[name] for pose in poses]) for name in poses[0]},
            contacts=contacts,
            boxes=boxes,
            frames=np.stack(frames),
            masks={name: np.stack([mask[name] for mask in masks]) for name in masks[0]},
        )


TASKS = (
    Task("push", "obj", free=True),
    Task("coffee-push", "obj", free=True),
    Task("pick-place", "obj", free=True, dropped=True),
    Task("basketball", "bsktball", free=True, dropped=True),
    Task("bin-picking", "obj", free=True, dropped=True),
    Task("drawer-open", "drawer_link", free=False),
    Task("window-open", "windowb_a", free=False),
    Task("plate-slide", "puck_channel_part", free=False),
    Task("door-open", "door_link", free=False),
)


def tasks_of(names: Sequence[str] | None) -> list[Task]:
    """The tasks of these names, or all; KeyError for another, with the nearest name."""
    known = {task.name: task for task in TASKS}
    if names and (unknown := [name for name in names if name not in known]):
        raise KeyError(f"no task {unknown[0]!r} of this benchmark{nearest(unknown[0], known)}")
    return [known[name] for name in names or known]
