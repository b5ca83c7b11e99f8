"""What a run makes of several datasets of other software."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

import foreign
from fixture import make_dataset, make_episode

from wamlab.data.manifest import DataError
from wamlab.models.uwm import UWM
from wamlab.recipes import recipe
from wamlab.recipes.run import Run
from wamlab.recipes.work import (
    build_model,
    feed,
    fit_processor,
    on_data,
    open_caches,
    plan_run,
    train_run,
)
from wamlab.sim.suites import suite
from wamlab.train.plan import Plan


class Sentences:
    """Stands for the sentence encoder, which takes seconds to load."""

    def __call__(self, sentences):
        rows = len(sentences)
        return torch.ones(rows, 384), torch.ones(rows, 2, 384), torch.ones(rows, 2).bool()


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("wamlab.nn.text.SentenceEncoder", Sentences)


def write(path: Path, size: float, names: tuple[str, ...] = ("x", "y", "g")) -> Path:
    """A dataset whose actions are ``size`` times the usual, with the statistics of just these."""
    episodes = [make_episode(i, 30) for i in range(2)]
    for episode in episodes:
        episode.action *= np.float32(size)
    foreign.write_v30(path, episodes)
    actions = np.concatenate([episode.action for episode in episodes])
    ends = {"min": actions.min(axis=0).tolist(), "max": actions.max(axis=0).tolist()}
    (path / "meta/stats.json").write_text(json.dumps({"action": ends}))
    info = json.loads((path / "meta/info.json").read_text())
    info["features"]["action"]["names"] = list(names)
    (path / "meta/info.json").write_text(json.dumps(info))
    return path


def test_a_dataset_that_moves_further_than_the_first_is_trained_on(tmp_path: Path) -> None:
    data = [write(tmp_path / "near", 0.5), write(tmp_path / "far", 1.0)]
    run = recipe("own-data/reactive", [str(path) for path in data])
    caches = open_caches(run, data)
    processor = fit_processor(run, caches)
    assert processor.space is not None
    assert processor.space.high == caches[1].space.high
    with feed(run, caches, build_model(run)) as batches:
        (stage,) = build_model(run).stages()
        for step in range(3):
            raw = batches.batch(step, stage.name)
            assert np.abs(raw["action"].values[..., 2]).max() == 1.0
            assert torch.isfinite(processor.normalize(raw)["action"].values).all()


def test_datasets_are_mixed_by_their_weights(tmp_path: Path) -> None:
    data = [write(tmp_path / "near", 0.5), write(tmp_path / "far", 1.0)]
    run = recipe("own-data/reactive", [str(path) for path in data])
    run = run.vary(["data.weights=1,3", "data.held_out=1", "train.batch_size=16"])
    model, caches = build_model(run), open_caches(run, data)
    (stage,) = model.stages()

    def of_first(**options: bool) -> int:
        """How many of the rows of some batches come from the first dataset."""
        with feed(run, caches, model, **options) as batches:
            drawn = [batches.mixtures[stage.name].rows(step)[:, 0] for step in range(8)]
            assert set(batches.shares(stage.name).values()) == {1.0}
        return int((np.concatenate(drawn) == 0).sum())

    assert of_first() / 128 == pytest.approx(0.25, abs=0.1)
    assert of_first(held_out=True) / 128 == pytest.approx(0.25, abs=0.1)
    assert "rows that may teach: policy 100%" in str(plan_run(run, data, device="cpu"))
    with pytest.raises(ValueError, match=r"\[1.0, 3.0\], expected one for each of 1"):
        plan_run(run, data[:1], device="cpu")
    with pytest.raises(ValueError, match="expected numbers above 0"):
        run.vary(["data.weights=0,3"])


def test_a_run_names_the_environments_of_its_data_where_they_are_not_its_recipes(
    tmp_path: Path,
) -> None:
    make_dataset(tmp_path / "point", [make_episode(0, 12)])
    foreign.write_v30(tmp_path / "foreign", [make_episode(i, 12) for i in range(2)])
    run = recipe("mw-demo/reactive")
    assert on_data(run, [tmp_path / "foreign"]).data.envs == ()
    other = on_data(run, [tmp_path / "foreign", tmp_path / "point"])
    assert other.data.envs == ("fixture/point",)
    assert on_data(other, [tmp_path / "point"]) is other

    demo = [make_episode(i, 12) for i in range(3)]
    for episode, env in zip(demo, suite("mw-demo"), strict=True):
        episode.env = env
    make_dataset(tmp_path / "demo", demo[::-1])
    assert on_data(run, [tmp_path / "demo"]) is run  # a suite by its name, in its own order


def in_latents(data: Path, *, shift: int) -> Run:
    """`uwm` in the codes of a codec that its first stage trains."""
    run = recipe("own-data/uwm", [str(data)])
    sizes = {"codec": "kl", "image_size": 32, "text_dim": 384, "rate_hz": 20.0}
    sizes |= {"state_dim": 3, "action_dim": 3, "views": ("corner",)}
    train = dataclasses.replace(run.train, batch_size=4, augment_shift=shift, steps=4, minutes=None)
    model = dataclasses.replace(UWM.Config.tiny(), **sizes)
    return dataclasses.replace(run, model=model, train=train)


@pytest.mark.parametrize("shift", [0, 2])
def test_a_plan_measures_the_step_that_training_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    """Frames that are shifted are encoded in the step, others were encoded before."""
    data = write(tmp_path / "data", 1.0)
    run, seen = in_latents(data, shift=shift), []
    monkeypatch.setattr(
        "wamlab.recipes.work.plan",
        lambda _, batches, *__: (
            seen.append([batches.batch(0, s) for s in ("codec", "joint")])
            or Plan("uwm", 0, None, "f32", 4, 0.0, 0.0, ())
        ),
    )
    plan_run(run, [data], device="cpu")
    monkeypatch.setattr(
        "wamlab.recipes.work.train",
        lambda model, batches, *_, before_stage, **__: seen.append(
            [before_stage(s, model) or batches.batch(0, s.name) for s in model.stages()]
        ),
    )
    cached = len([*(tmp_path / "cache").iterdir()])
    train_run(run, [data], tmp_path / "out")
    for planned, trained in zip(*seen, strict=True):
        shapes = [{k: v.values.shape for k, v in b.streams.items()} for b in (planned, trained)]
        assert shapes[0] == shapes[1]
    assert ("latent/corner" in seen[0][1].streams) == (shift == 0)
    assert cached == 1


def test_swapped_dimensions_are_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    data = [write(tmp_path / "one", 1.0), write(tmp_path / "other", 1.0, ("y", "x", "g"))]
    run = recipe("own-data/reactive", [str(path) for path in data])
    with pytest.raises(DataError, match=r"one and .*other differ in the names"):
        open_caches(run, data)
    assert not (tmp_path / "cache").exists()
