"""Environments by name: ``make("metaworld/dial-turn")``.

Listing names imports no simulator.
"""

from __future__ import annotations

from typing import Any

from wamlab.config import nearest
from wamlab.sim.env import Env
from wamlab.sim.instructions import INSTRUCTIONS


def names() -> list[str]:
    """The environments that `make` knows."""
    return [f"metaworld/{task}" for task in sorted(INSTRUCTIONS)]


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
