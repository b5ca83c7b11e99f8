"""Shapes of public arrays are checked in every test; nothing needs a display or a hub."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# No test finds weights by chance: the fixture `published` gives those that a test asks for.
os.environ["WAMLAB_WEIGHTS"] = "/no/weights/here"
hook = jaxtyping.install_import_hook("wamlab", "shapes.shapes_only")


@pytest.fixture
def as_shipped() -> Iterator[None]:
    """Without the checker, as users run it: for tests of what the library itself says."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def few_draws() -> Iterator[None]:
    """Intervals from a hundred draws, for tests that compute dozens and look at none closely."""
    from wamlab.metrics.stats import bootstrap

    defaults = inspect.unwrap(bootstrap).__kwdefaults__
    before, defaults["draws"] = defaults["draws"], 100
    yield
    defaults["draws"] = before


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the published weights that tests convert; each once a session."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def published(converted: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Call it with the name of published weights; without their package the test is skipped."""
    from wamlab.nn import weights

    monkeypatch.setenv("WAMLAB_WEIGHTS", str(converted))

    def get(name: str) -> None:
        try:
            if not weights.path_of(name).exists():
                weights.convert(name)
        except weights.MissingWeights as reason:
            pytest.skip(str(reason))

    return get
