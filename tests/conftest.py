"""Shapes and dtypes of public arrays are checked in every test."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest

hook = jaxtyping.install_import_hook("wamlab", "shapes.shapes_only")


@pytest.fixture
def as_shipped() -> Iterator[None]:
    """Without the checker, as users run it: for tests of what the library itself says."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
