"""Which training windows the rivals know."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from fixture import make_dataset, make_episode

from wamlab.data.cache import Cache
from wamlab.data.manifest import DataError
from wamlab.models.uwm import UWM
from wamlab.recipes.clips import clips_of

LENGTHS = (30, 24, 6)
CONFIG = dataclasses.replace(UWM.Config.tiny(), state_dim=3, action_dim=3, rate_hz=20.0)
TASK = "fixture/point"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("clips")
    make_dataset(folder / "point", [make_episode(i, n) for i, n in enumerate(LENGTHS)])
    return Cache.open(folder / "point", views=CONFIG.views, image_size=32, folder=folder / "cache")


def test_a_clip_is_a_window_with_its_whole_chunk_and_all_frames_ahead(cache):
    clips = clips_of([cache], CONFIG)
    whole = [length - CONFIG.chunk + 1 for length in LENGTHS[:2]]  # of N + 1 observations
    assert clips.episode == [0] * whole[0] + [1] * whole[1]
    assert set(clips.env) == {TASK}
    row = whole[0] + 3  # the fourth instant of the second episode
    start = int(cache.starts[1]) + 3
    frames = cache.frames["corner"]
    assert np.array_equal(clips.first["corner"][row], frames[start])
    for t, offset in enumerate(CONFIG.offsets):
        assert np.array_equal(clips.future["corner"][row, t], frames[start + offset])
    actions = cache.columns["action"][start : start + CONFIG.chunk]
    assert np.array_equal(clips.action[row], actions)


def test_clips_are_spread_evenly_over_a_task(cache):
    every, few = clips_of([cache], CONFIG), clips_of([cache], CONFIG, most=5)
    kept = np.linspace(0, len(every.env) - 1, 5).astype(int)
    assert len(few.env) == 5
    assert np.array_equal(few.first["gripper"], every.first["gripper"][kept])


def test_what_was_held_out_is_no_rival(cache):
    assert set(clips_of([cache], CONFIG, without=[{0}]).episode) == {1}


def test_several_datasets_are_one_pool(cache):
    once, twice = clips_of([cache], CONFIG), clips_of([cache, cache], CONFIG)
    assert twice.env == once.env * 2
    assert np.array_equal(twice.first["corner"], np.concatenate([once.first["corner"]] * 2))


def test_other_tasks_are_left_out(cache):
    assert clips_of([cache], CONFIG, envs={TASK}).env == clips_of([cache], CONFIG).env
    with pytest.raises(DataError, match="no window of fixture/other has 8 ticks"):
        clips_of([cache], CONFIG, envs={"fixture/other"})
