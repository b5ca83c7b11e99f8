"""Suites of tasks by name, and what each task is worth without eyes.

A blind row is the success of replaying expert actions open loop on starts never seen: the mean
of several demonstrations, and one demonstration drawn at random. Success beside it says what a
policy's eyes add.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from wamlab.config import nearest
from wamlab.sim import ogbench_tasks
from wamlab.sim.instructions import INSTRUCTIONS

DEMO = ("door-unlock", "window-open", "button-press-topdown")
AVDC = (
    *("door-open", "door-close", "basketball", "shelf-place", "button-press"),
    *("button-press-topdown", "faucet-close", "faucet-open", "handle-press", "hammer", "assembly"),
)
METAWORLD = {
    "mw-demo": DEMO,
    "mw-6": (*DEMO, "door-lock", "lever-pull", "dial-turn"),
    "mw-avdc": AVDC,
    "mw-50": tuple(INSTRUCTIONS),
}
SCENE = {
    "scene": ogbench_tasks.TRAINING,
    "scene-held-out": ogbench_tasks.HELD_OUT,
    "scene-chains-2": tuple(map(ogbench_tasks.JOIN.join, ogbench_tasks.CHAINS_OF_TWO)),
    "scene-chains-3": tuple(map(ogbench_tasks.JOIN.join, ogbench_tasks.CHAINS_OF_THREE)),
}
SUITES: dict[str, tuple[str, ...]] = {
    name: tuple(f"{simulator}/{task}" for task in tasks)
    for simulator, group in (("metaworld", METAWORLD), ("scene", SCENE))
    for name, tasks in group.items()
}
_ROWS = Path(__file__).with_name("blind_rows.json")


@dataclass(frozen=True)
class BlindRow:
    """Successes of the mean replay, the random replay and the expert itself.

    ``starts`` unseen starts for each of the three, ``demonstrations`` behind the replays,
    ``variants`` whether experts and demonstrations had them, ``max_steps`` of an episode.
    """

    env: str
    starts: int
    demonstrations: int
    variants: bool
    max_steps: int
    mean: int
    replay: int
    expert: int

    @property
    def best(self) -> float:
        """The better of the two blind success rates."""
        return max(self.mean, self.replay) / self.starts


def suites() -> list[str]:
    """The names of all suites."""
    return sorted(SUITES)


def suite(name: str) -> tuple[str, ...]:
    """The environments of a suite.

    Raises:
        KeyError: an unknown suite, with the nearest right one.
    """
    if name not in SUITES:
        raise KeyError(f"no suite {name!r}{nearest(name, SUITES)}")
    return SUITES[name]


def blind_row(env: str, *, variants: bool = True) -> BlindRow:
    """The stored blind row of an environment with the most starts.

    The rows are measured by ``benchmarks/blind_rows.py``.

    Raises:
        KeyError: nothing measured for this environment, with the nearest that is.
    """
    rows = [BlindRow(**row) for row in json.loads(_ROWS.read_text(encoding="utf-8"))]
    rows = sorted((row for row in rows if row.variants == variants), key=lambda row: row.starts)
    measured = {row.env: row for row in rows}
    if env not in measured:
        raise KeyError(f"no blind row of {env!r}{nearest(env, measured)}")
    return measured[env]
