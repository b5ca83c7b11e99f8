"""Environments by name: ``make("metaworld/dial-turn")``, ``make("scene/open-drawer")``.

Listing names imports no simulator.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wamlab.config import nearest
from wamlab.sim import instructions, ogbench_tasks
from wamlab.sim.env import Env

PACKAGES = {"metaworld": "metaworld==3.1.1", "scene": "ogbench==1.2.2"}
RATES = {"metaworld": 80.0, "scene": 20.0}
"""How often, per second, an environment of each simulator executes an action."""

_TASKS = Path(__file__).with_name("metaworld_tasks.json")


def names() -> list[str]:
    """The environments that `make` knows.

    Of Meta-World those tasks of which the goal was seen to be visible, in a table written by
    ``benchmarks/goal_visibility.py``; of OGBench's scene every task and every chain.
    """
    table = json.loads(_TASKS.read_text(encoding="utf-8"))
    visible = [f"metaworld/{task}" for task, row in sorted(table.items()) if row["goal_visible"]]
    return [*visible, *(f"scene/{name}" for name in ogbench_tasks.names())]


def instruction_of(name: str) -> str:
    """What training says in this environment; of a chain, one sentence after the other."""
    simulator, _, rest = name.partition("/")
    if simulator == "metaworld":
        return instructions.INSTRUCTIONS[rest]
    said = [ogbench_tasks.INSTRUCTIONS[task] for task in ogbench_tasks.tasks_of(rest)]
    return instructions.THEN.join(said)


def make(name: str, *, shift: str = "", **options: Any) -> Env:
    """Build an environment; ``options`` go to its class (``image_size``, ``views``, ...).

    ``shift`` is one of `wamlab.sim.shifts` to put on it.

    Raises:
        KeyError: an unknown name or shift, with the nearest right one.
        ValueError: a shift that the environment cannot do, or one that is an option given as well.
        ImportError: the simulator is not installed, with the line that installs it.
    """
    if name not in (known := names()):
        raise KeyError(f"no environment {name!r}{nearest(name, known)}")
    if not shift:
        return _make(name, **options)
    from wamlab.sim import shifts

    given = shifts.OPTIONS.get(shift)
    if given is None:
        return shifts.shift(_make(name, **options), shift)
    if twice := options.keys() & given.keys():
        raise ValueError(f"the shift {shift!r} is {dict(given)}, but {min(twice)} is given as well")
    return _make(name, **options, **given)


def _make(name: str, **options: Any) -> Env:
    simulator, _, rest = name.partition("/")
    try:
        if simulator == "metaworld":
            from wamlab.sim.metaworld import MetaWorld

            return MetaWorld(rest, **options)
        from wamlab.sim.ogbench import OGBenchScene

        return OGBenchScene(rest, **options)
    except ModuleNotFoundError as error:
        raise ImportError(f"{name} needs `pip install {PACKAGES[simulator]}`: {error}") from error
