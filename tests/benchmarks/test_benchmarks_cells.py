"""What is counted and timed of a cell is the step that its training takes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cells import gflops, learners

from wamlab.models.uwm import UWM
from wamlab.recipes.own_data import run as own_data
from wamlab.recipes.run import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from fixture import make_dataset

SIZES = {"codec": "kl", "image_size": 32, "text_dim": 3, "rate_hz": 20.0, "views": ("corner",)}


class Sentences:
    """Stands for the sentence encoder, which takes seconds to load."""

    def __call__(self, sentences):
        rows = len(sentences)
        return torch.ones(rows, 3), torch.ones(rows, 2, 3), torch.ones(rows, 2).bool()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WAMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("wamlab.nn.text.SentenceEncoder", Sentences)
    make_dataset(tmp_path / "data")
    return tmp_path / "data"


def run_of(shift: int) -> Run:
    run = own_data("uwm")
    model = dataclasses.replace(UWM.Config.tiny(), state_dim=3, action_dim=3, **SIZES)
    train = dataclasses.replace(run.train, batch_size=4, augment_shift=shift)
    return dataclasses.replace(run, model=model, train=train)


def test_a_step_on_kept_codes_is_counted_without_the_codec(data: Path, tmp_path: Path) -> None:
    """Only the frame of now is encoded in the step, if at all; shifted frames all are."""
    kept, shifted = gflops(run_of(0), data), gflops(run_of(2), data)
    assert kept["codec"] == shifted["codec"]
    assert kept["joint"] < shifted["joint"]
    assert len([*(tmp_path / "cache").iterdir()]) == 1


def test_a_step_is_timed_on_the_codes_that_training_reads(data: Path) -> None:
    for learner, batches in learners(run_of(0), data):
        batch = batches.batch(0, learner.stage.name)
        assert ("latent/corner" in batch) == (learner.stage.name == "joint")
    now = torch.from_numpy(batch["image/corner"].values).movedim(-1, -3).float() / 127.5 - 1
    with torch.no_grad():
        codes = learner.model.get_submodule("codec").encode(now).numpy()
    np.testing.assert_allclose(batch["latent/corner"].values[:, :1], codes, atol=1e-4)
