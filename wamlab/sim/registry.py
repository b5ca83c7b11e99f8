"""Environments by name: ``make("metaworld/dial-turn")``.

Listing names imports no simulator.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wamlab.config import nearest
from wamlab.sim.env import Env

_TASKS = Path(__file__).with_name("metaworld_tasks.json")


def names() -> list[str]:
    """The environments that `make` knows: tasks of which the goal was seen to be visible.

    The table is written by ``benchmarks/goal_visibility.py``.
    """
    table = json.loads(_TASKS.read_text(encoding="utf-8"))
    return [f"metaworld/{task}" for task, row in sorted(table.items()) if row["goal_visible"]]


def make(name: str, **options: Any) -> Env:
    """Build an environment; ``options`` go to its class (``image_size``, ``views``, ...).

    Raises:
        KeyError: an unknown name, with the nearest right one.
        ImportError: the simulator is not installed, with the line that installs it.
    """
    if name not in (known := names()):
        raise KeyError(f"no environment {name!r}{nearest(name, known)}")
    try:
        from wamlab.sim.metaworld import MetaWorld
    except ModuleNotFoundError as error:
        raise ImportError(f"{name} needs `pip install metaworld==3.1.1`: {error}") from error
    return MetaWorld(name.removeprefix("metaworld/"), **options)
