"""Held-out and action-free episodes: what a run does with each, and a split that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from wamlab.data.cache import Cache
from wamlab.data.logs import load_losses
from wamlab.recipes.run import DataConfig
from wamlab.recipes.work import split_episodes


@pytest.fixture
def demonstrations(data: Path, point_world: None) -> Cache:
    """Three episodes of one environment."""
    return Cache.open(data, views=("side", "top"), image_size=16)


def test_every_episode_is_taught_or_held_out(demonstrations: Cache) -> None:
    assert split_episodes(demonstrations, DataConfig(envs=())) == ({0, 1, 2}, set(), set())
    parts = split_episodes(demonstrations, DataConfig(envs=(), held_out=1, action_free=0.5))
    assert parts == ({0, 1}, {0}, {2})


def test_nothing_left_to_teach_is_refused(demonstrations: Cache) -> None:
    with pytest.raises(ValueError, match=r"held_out is 3, but .* has 3 episodes of point/push"):
        split_episodes(demonstrations, DataConfig(envs=(), held_out=3))


def test_a_share_is_of_each_environment_and_leaves_something_to_teach(
    demonstrations: Cache,
) -> None:
    def held_out(share: float) -> set[int]:
        return split_episodes(demonstrations, DataConfig(envs=(), held_out=share)).held_out

    assert held_out(0.1) == held_out(0.5) == {2}
    assert held_out(0.7) == held_out(0.99) == {1, 2}
    with pytest.raises(ValueError, match=r"held_out is 1\.5, expected a count or a share"):
        held_out(1.5)


def test_validation_reads_what_is_held_out(wam, data, tmp_path):
    words = ["train", "mw-demo/pupil", "--data", data, "--steps", 4, "--device", "cpu"]
    words += ["--set", "train.validate_every=2"]
    wam(*words, "--out", tmp_path / "no").refused("no episode to validate on", "data.held_out")
    share = wam(*words, "--out", tmp_path / "share", "--set", "data.held_out=0.1")
    assert share.code == 0, share.err
    told = wam(*words, "--out", tmp_path / "run", "--set", "data.held_out=1")
    assert told.code == 0, told.err
    lines = load_losses(tmp_path / "run")
    assert [line["step"] for line in lines if "validation/loss" in line] == [2, 4]


def test_a_share_outside_0_to_1_is_refused(wam, data, tmp_path):
    words = ["train", "mw-demo/pupil", "--data", data, "--out", tmp_path / "run"]
    wam(*words, "--set", "data.action_free=2.0").refused("0 <= action_free <= 1")
