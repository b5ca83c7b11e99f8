"""Recipes by name: ``recipe("mw-demo/uwm")`` is a protocol's run configuration for one model.

A protocol is one file of this folder with a function ``run(model) -> Run`` that serves every model,
a stranger's too; ``TUNED`` there holds what single models have different. One whose views and sizes
are those of the data has besides ``fit(run, datasets) -> Run``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wamlab.config import nearest

if TYPE_CHECKING:
    from wamlab.recipes.run import Run

NOT_PROTOCOLS = ("clips", "recorded", "run", "work")


def protocols() -> list[str]:
    """The protocols of this folder, such as ``mw-demo``."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in found if name not in NOT_PROTOCOLS)


def names() -> list[str]:
    """Every recipe: each protocol with each model."""
    from wamlab.models.base import WorldActionModel, available

    models = sorted({*available(), *WorldActionModel.registry})
    return [f"{protocol}/{model}" for protocol in protocols() for model in models]


def recipe(name: str, data: Sequence[str] = ()) -> Run:
    """The run configuration of ``<protocol>/<model>``, fitted to the datasets where it asks for it.

    Raises:
        KeyError: no such recipe, with the nearest name.
    """
    protocol, slash, model = name.partition("/")
    if not slash:
        raise KeyError(f"no recipe {name!r}: expected PROTOCOL/MODEL, e.g. mw-demo/uwm")
    if name not in (known := names()):
        raise KeyError(f"no recipe {name!r}{nearest(name, known)}")
    module = importlib.import_module(f"{__name__}.{protocol.replace('-', '_')}")
    run: Run = module.run(model)
    return module.fit(run, data) if data and hasattr(module, "fit") else run
