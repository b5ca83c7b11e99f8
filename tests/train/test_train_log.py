"""What a run reports while it trains."""

from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType, SimpleNamespace

import pytest

from wamlab.data.logs import load_losses
from wamlab.train.learner import StepReport
from wamlab.train.log import RunLog, rewind_log


def reported(log: RunLog) -> None:
    """Two lines of two steps each."""
    log.begin("joint", 0, 4)
    for step, loss in enumerate((4.0, 2.0, 1.0, 0.0), start=1):
        log.add(StepReport({"loss": loss}, grad_norm=0.5, lr=0.1), samples=8, waited=0.0)
        if step % 2 == 0:
            log.line(step, "joint", step, 0.1)
    log.close()


def test_a_line_holds_the_means_since_the_last_one(tmp_path):
    reported(RunLog(tmp_path, every=2, progress=False))
    first, second = load_losses(tmp_path)
    assert (first["step"], first["loss"], first["grad_norm"]) == (2, 3.0, 0.5)
    assert (second["step"], second["loss"]) == (4, 0.5)
    assert first["samples_per_s"] > 0


def test_what_a_resumed_run_will_log_again_is_forgotten(tmp_path):
    reported(RunLog(tmp_path, every=2, progress=False))
    rewind_log(tmp_path, 2)
    assert [line["step"] for line in load_losses(tmp_path)] == [2]


@pytest.fixture
def board(monkeypatch) -> SimpleNamespace:
    """A TensorBoard that notes what it is told."""
    told = SimpleNamespace(folder="", scalars=[], closed=False)

    class SummaryWriter:
        def __init__(self, folder):
            told.folder = folder

        def add_scalar(self, name, value, step):
            told.scalars.append((name, value, step))

        def close(self):
            told.closed = True

    package, utils = ModuleType("tensorboard"), ModuleType("torch.utils.tensorboard")
    package.__spec__ = importlib.machinery.ModuleSpec("tensorboard", None)
    utils.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", utils)
    return told


def test_an_installed_tensorboard_is_told_the_same(tmp_path, board):
    reported(RunLog(tmp_path, every=2, progress=False))
    assert board.folder == str(tmp_path / "tensorboard")
    assert ("joint/loss", 3.0, 2) in board.scalars
    assert ("joint/loss", 0.5, 4) in board.scalars
    assert board.closed
