"""What can be asked in the scene: the tasks, when each is done, their sentences, and chains.

All tasks share one start distribution and one look, so that nothing but the instruction tells them
apart. Cubes and places are combined; some combinations are held out: each of their words is
trained, but no suite for training shows them together. No simulator is imported here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from wamlab.config import nearest
from wamlab.sim.instructions import Sentence, pick_sentence

JOIN = "+"
"""Between the tasks of a chain: ``scene/open-drawer+press-left-button``."""

DRAWER_TRAVEL, WINDOW_TRAVEL = 0.16, 0.2
ARRIVED = 0.02  # metres from the end of its travel at which a drawer or window counts as there
ON_MAT = 0.03  # horizontal metres from the middle of a mat, which is 6 cm wide
ON_FLOOR = 0.03  # metres: the middle of a cube that lies on the floor is 2 cm high
DRAWER_X = 0.33
DRAWER_INSIDE = (-0.26, -0.07)  # metres from the handle to the back and to the front, along y
BELOW_RIM = 0.11  # metres: the middle of a cube that lies in the drawer is about 7 cm high


@dataclass(frozen=True)
class Facts:
    """What a judge sees of one instant; places in metres, in the frame of the world.

    ``drawer`` and ``window`` are how far they stand open, ``pressed`` which of the left and right
    button was pressed (twice is not pressed), ``touched`` the cubes that the robot touches.
    """

    drawer: float
    window: float
    handle: Float[np.ndarray, " 3"]
    pressed: tuple[bool, bool]
    cubes: Mapping[str, Float[np.ndarray, " 3"]]
    mats: Mapping[str, Float[np.ndarray, " 3"]]
    touched: frozenset[str]


@dataclass(frozen=True)
class Slide:
    """Open or close the drawer or the window, to the end of its travel."""

    thing: Literal["drawer", "window"]
    opened: bool

    def done(self, facts: Facts) -> bool:
        at = facts.drawer if self.thing == "drawer" else facts.window
        end = DRAWER_TRAVEL if self.thing == "drawer" else WINDOW_TRAVEL
        return at >= end - ARRIVED if self.opened else at <= ARRIVED


@dataclass(frozen=True)
class Press:
    """Press the left (0) or the right (1) button."""

    button: Literal[0, 1]

    def done(self, facts: Facts) -> bool:
        return facts.pressed[self.button]


@dataclass(frozen=True)
class Put:
    """Put a cube into the drawer or on a mat, and let go of it."""

    cube: str
    place: str

    def done(self, facts: Facts) -> bool:
        at = facts.cubes[self.cube]
        if self.cube in facts.touched:
            return False
        if self.place == "drawer":
            back, front = DRAWER_INSIDE
            inside = back < at[1] - facts.handle[1] < front and abs(at[0] - DRAWER_X) < 0.1
            return bool(inside and at[2] < BELOW_RIM)
        away = np.linalg.norm(at[:2] - facts.mats[self.place][:2])
        return bool(away < ON_MAT and at[2] < ON_FLOOR)


Task = Slide | Press | Put

CUBES = ("red", "blue")
MATS = ("yellow", "green")
SHOWN = (("red", "drawer"), ("red", "yellow"), ("blue", "yellow"), ("blue", "green"))
"""The combinations of cube and place that training may show; the others are held out."""


def _put_name(cube: str, place: str) -> str:
    return f"{cube}-cube-to-{place}" + ("" if place == "drawer" else "-mat")


_COMBINED = {pair: Put(*pair) for pair in itertools.product(CUBES, ("drawer", *MATS))}
TASKS: dict[str, Task] = {
    "open-drawer": Slide("drawer", True),
    "close-drawer": Slide("drawer", False),
    "open-window": Slide("window", True),
    "close-window": Slide("window", False),
    "press-left-button": Press(0),
    "press-right-button": Press(1),
    **{_put_name(*pair): task for pair, task in _COMBINED.items()},
}
HELD_OUT = tuple(_put_name(*pair) for pair in _COMBINED if pair not in SHOWN)
TRAINING = tuple(task for task in TASKS if task not in HELD_OUT)

# A pressed button locks the drawer (left) or the window (right), and nothing fits into a closed
# drawer: so a chain never asks for what an earlier task of it has made impossible.
CHAINS_OF_TWO = (
    ("open-drawer", "press-left-button"),
    ("blue-cube-to-green-mat", "close-drawer"),
    ("close-window", "red-cube-to-yellow-mat"),
    ("press-right-button", "open-drawer"),
)
CHAINS_OF_THREE = (
    ("red-cube-to-drawer", "close-drawer", "press-left-button"),
    ("open-window", "blue-cube-to-yellow-mat", "open-drawer"),
    ("press-right-button", "close-drawer", "blue-cube-to-green-mat"),
    ("close-window", "press-right-button", "red-cube-to-drawer"),
)

_SENTENCES: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("ogbench_instructions.json").read_text(encoding="utf-8")
)
INSTRUCTIONS = {task: sentences[0] for task, sentences in _SENTENCES.items()}
SAID_OF = {said: task for task, sentences in _SENTENCES.items() for said in sentences}
"""The task of every sentence; no sentence is said of two."""


def names() -> list[str]:
    """Every task, then every chain, without ``scene/``."""
    return [*TASKS, *(JOIN.join(chain) for chain in (*CHAINS_OF_TWO, *CHAINS_OF_THREE))]


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks of a name, in order: one, or those of a chain.

    Raises:
        KeyError: a task that there is not, with the nearest that there is.
    """
    tasks = tuple(name.split(JOIN))
    for task in tasks:
        if task not in TASKS:
            raise KeyError(f"no task {task!r} in the scene{nearest(task, TASKS)}")
    return tasks


def said_for(task: str, sentence: Sentence, rng: np.random.Generator) -> str:
    """What is said where ``task`` is asked.

    ``"swapped"`` is the training sentence of another task, drawn from ``rng``; the rest is
    `wamlab.sim.instructions.pick_sentence`.

    Raises:
        ValueError: the task has no such sentence.
    """
    if sentence == "swapped":
        others = [other for other in TRAINING if other != task]
        return INSTRUCTIONS[others[int(rng.integers(len(others)))]]
    return pick_sentence(task, _SENTENCES[task], sentence)
