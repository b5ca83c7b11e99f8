"""The command line on the point environment: fixtures for `tests/cli` and `tests/bad_input`."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))

import point_env
from point_model import PointConfig, PointModel

from wamlab.cli import main
from wamlab.types import ACTION, STATE


@dataclass(frozen=True, kw_only=True)
class PupilConfig(PointConfig):
    """The sizes that recipes ask for."""

    @classmethod
    def tiny(cls) -> PupilConfig:
        return cls()

    @classmethod
    def small(cls) -> PupilConfig:
        return cls()


class Pupil(PointModel, name="pupil"):
    """The point model with something to learn."""

    Config = PupilConfig

    def loss(self, batch, *, stage, step, generator):
        wanted = batch[ACTION].values
        action = self.network(batch[STATE].at(0).values[:, 0]).view(len(batch), -1, 4)
        loss = (action - wanted).square()[batch[ACTION].present].mean()
        return {"loss": loss, "action": loss.detach()}


class Sentences:
    """Stands for the sentence encoder, which takes seconds to load."""

    def __call__(self, sentences):
        rows = len(sentences)
        return torch.ones(rows, 3), torch.ones(rows, 2, 3), torch.ones(rows, 2, dtype=torch.bool)


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it printed where."""

    code: int
    out: str
    err: str

    def refused(self, *parts: str) -> None:
        """The command could not be done, and one line says why."""
        assert self.code == 2, self
        said = [line for line in self.err.splitlines() if line.startswith("wam")]
        assert len(said) == 1, self.err
        assert "Traceback" not in self.err
        for part in parts:
            assert part in said[0], f"{part!r} is not in {said[0]!r}"


Wam = Callable[..., Said]


@contextmanager
def in_point_world(cache: Path) -> Iterator[None]:
    """The command line on the point environment, in this process, with a cache of its own."""
    from wamlab.recipes import work

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAMLAB_CACHE", str(cache))
        patch.setattr("wamlab.sim.registry.names", lambda: list(point_env.NAMES))
        patch.setattr("wamlab.sim.registry.make", point_env.make)
        patch.setattr("wamlab.nn.text.SentenceEncoder", Sentences)
        for name, workers in (("collect_data", 1), ("roll_out", 0)):
            here = functools.partial(getattr(work, name), workers=workers)
            patch.setattr(f"wamlab.recipes.work.{name}", here)
        yield


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def point_world(cache: Path) -> Iterator[None]:
    with in_point_world(cache):
        yield


@pytest.fixture
def wam(point_world: None, capfd: pytest.CaptureFixture[str], as_shipped: None) -> Wam:
    """Run a command as a user does."""

    def run(*words: object) -> Said:
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def made(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data`` and ``run``: three demonstrations, and two steps of training on them."""
    folder = tmp_path_factory.mktemp("made")
    data, run = folder / "data", folder / "run"
    words = ["collect", "--env", "point/push", "--episodes", "3", "--out", str(data)]
    with in_point_world(cache):
        assert main(words) == 0
        words = ["train", "mw-demo/pupil", "--data", str(data), "--out", str(run), "--steps", "2"]
        assert main([*words, "--set", "train.augment_shift=0", "--device", "cpu"]) == 0
    return folder


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A dataset of one's own."""
    return shutil.copytree(made / "data", tmp_path / "data")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run folder of one's own."""
    return shutil.copytree(made / "run", tmp_path / "run")
