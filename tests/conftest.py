"""Shapes of public arrays are checked in every test; nothing needs a display or a hub."""

from __future__ import annotations

import os
from collections.abc import Iterator

import jaxtyping
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
hook = jaxtyping.install_import_hook("wamlab", "shapes.shapes_only")


@pytest.fixture
def as_shipped() -> Iterator[None]:
    """Without the checker, as users run it: for tests of what the library itself says."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
