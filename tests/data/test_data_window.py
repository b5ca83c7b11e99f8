from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fixture import SIZE, make_dataset, make_episode

from wamlab.data.cache import Cache
from wamlab.data.manifest import DataError
from wamlab.data.mixture import Loader, Mixture, concatenate
from wamlab.data.window import Windows
from wamlab.types import ROLES, Batch, Episode, Window

CHUNK = tuple(range(4))
FIXED = Window({"image/corner": (-1, 0, 4), "state": (0,), "action": CHUNK})


@pytest.fixture
def cache(written: tuple[Path, list[Episode]]) -> Cache:
    return make_cache(written[0])


def make_cache(path: Path) -> Cache:
    folder = path.parent / "cache"
    return Cache.open(
        path, views=("corner", "gripper"), image_size=SIZE, folder=folder, progress=False
    )


def row_of(windows: Windows, episode: int, now: int) -> np.ndarray:
    return np.flatnonzero((windows.anchors == (episode, now)).all(axis=1))


def test_a_window_reads_the_right_rows(cache: Cache, written: tuple[Path, list[Episode]]) -> None:
    windows = Windows(cache, FIXED)
    assert len(windows) == 12 + 9 + 15
    batch = windows.batch(row_of(windows, 1, 3))
    episode, start = written[1][1], cache.starts[1]
    np.testing.assert_allclose(batch["state"].values[0, 0], episode.state[3])
    np.testing.assert_allclose(batch["action"].values[0], episode.action[3:7])
    image = batch["image/corner"]
    assert image.values.dtype == np.uint8
    np.testing.assert_array_equal(
        image.values[0], cache.frames["corner"][start + np.array([2, 3, 7])]
    )
    assert image.offsets.tolist() == [[-1, 0, 4]]
    assert image.present.all()
    assert batch.text.sentences == ["pull the point"]
    assert batch.rate.tolist() == [20]


def test_beyond_the_episode_is_absent(cache: Cache) -> None:
    windows = Windows(cache, FIXED)
    first = windows.batch(row_of(windows, 1, 0))
    assert first["image/corner"].present.tolist() == [[False, True, True]]
    last = windows.batch(row_of(windows, 1, 7))
    assert last["image/corner"].present.tolist() == [[True, True, False]]
    assert last["action"].present.tolist() == [[True, True, False, False]]


def test_bursts_failures_and_missing_actions_lose_roles(cache: Cache) -> None:
    windows = Windows(cache, FIXED, action_free=[0])
    bits = {
        tuple(a): dict(zip(ROLES, r, strict=True))
        for a, r in zip(windows.anchors.tolist(), windows.role.tolist(), strict=True)
    }
    every = dict.fromkeys(ROLES, True)
    assert bits[0, 5] == dict.fromkeys(ROLES, False) | {"video": True}
    given_alone = every | {"policy": False, "video": False}
    assert bits[2, 5] == given_alone
    for now in range(9):
        touches = now <= 3
        assert bits[1, now] == (given_alone if touches else every)
    hidden = windows.batch(row_of(windows, 0, 2))
    assert not hidden["action"].present.any()


def test_an_episode_can_be_left_out(cache: Cache) -> None:
    every, rest = Windows(cache, FIXED), Windows(cache, FIXED, without=[1])
    assert set(every.anchors[:, 0]) == {0, 1, 2}
    assert set(rest.anchors[:, 0]) == {0, 2}
    with pytest.raises(DataError, match="no window"):
        Windows(cache, FIXED, without=[0, 1, 2])


def test_only_rows_for_the_wanted_roles_are_served(cache: Cache) -> None:
    windows = Windows(cache, FIXED, roles=("policy",))
    assert len(windows) == 12 + 5
    assert windows.role[:, ROLES.index("policy")].all()
    with pytest.raises(DataError, match="no window"):
        Windows(cache, FIXED, roles=("policy",), action_free=[0, 1, 2])


def test_a_planner_is_served_what_the_policy_does_and_video_without_actions(cache: Cache) -> None:
    seen, done = (Windows(cache, FIXED, roles=(role,)) for role in ("video", "policy"))
    np.testing.assert_array_equal(seen.anchors, done.anchors)
    hidden = Windows(cache, FIXED, roles=("video",), action_free=[1, 2])
    assert len(hidden) == 12 + 9 + 15


def test_to_end_spreads_positions_to_the_last_observation(cache: Cache) -> None:
    windows = Windows(cache, Window({"image/corner": (0, 1, 2)}, anchor="to_end"))
    batch = windows.batch(row_of(windows, 0, 4))
    assert batch["image/corner"].offsets.tolist() == [[0, 4, 8]]
    np.testing.assert_array_equal(
        batch["image/corner"].values[0], cache.frames["corner"][[4, 8, 12]]
    )


def test_goals_are_drawn_within_reach(cache: Cache) -> None:
    window = Window({"image/corner": (0, 1), "action": CHUNK}, anchor="goal_pair", reach=(2, 5))
    windows = Windows(cache, window)
    rows = np.arange(len(windows))
    offsets = windows.batch(rows)["image/corner"].offsets
    assert set(offsets[:, 1]) == {2, 3, 4, 5}
    np.testing.assert_array_equal(windows.batch(rows)["image/corner"].offsets, offsets)
    np.testing.assert_array_equal(windows.batch(rows[::-1])["image/corner"].offsets, offsets[::-1])
    drawn = windows.batch(rows, np.random.default_rng(3))["image/corner"].offsets
    assert (drawn != offsets).any()
    last = windows.batch(row_of(windows, 0, 11))
    assert last["image/corner"].present.tolist() == [[True, False]]
    assert last["action"].offsets.tolist() == [list(CHUNK)]


def test_keyframes_are_gripper_changes_and_the_end(cache: Cache) -> None:
    windows = Windows(cache, Window({"image/corner": (0, 1, 2)}, anchor="keyframes"))
    early = windows.batch(row_of(windows, 0, 2))["image/corner"]
    assert early.offsets.tolist() == [[0, 4, 10]]
    late = windows.batch(row_of(windows, 0, 6))["image/corner"]
    assert late.present.tolist() == [[True, True, False]]
    assert late.offsets[0, 1] == 6


def test_a_lower_rate_takes_every_nth_row(
    cache: Cache, written: tuple[Path, list[Episode]]
) -> None:
    windows = Windows(cache, dataclasses.replace(FIXED, rate_hz=10.0))
    batch = windows.batch(row_of(windows, 0, 2))
    rows = cache.frames["corner"][[0, 2, 10]]
    np.testing.assert_array_equal(batch["image/corner"].values[0], rows)
    action = written[1][0].action
    expected = action[2:10:2] + action[3:10:2]
    expected[:, 2] = action[3:10:2, 2]
    np.testing.assert_allclose(batch["action"].values[0], expected, atol=1e-6)
    with pytest.raises(DataError, match=r"15 Hz cannot be read from a dataset at 20 Hz"):
        Windows(cache, dataclasses.replace(FIXED, rate_hz=15.0))


def test_an_unknown_stream_is_refused(cache: Cache) -> None:
    with pytest.raises(KeyError, match="did you mean 'image/corner'"):
        Windows(cache, Window({"image/cornr": (0,)}))


def mixture(cache: Cache, **changes: object) -> Mixture:
    settings = {"seed": 1, "batch_size": 7}
    return Mixture([Windows(cache, FIXED)], **{**settings, **changes})  # type: ignore[arg-type]


def same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(a[n].values, b[n].values, equal_nan=True) for n in a.streams)


def test_an_epoch_reads_each_row_once(cache: Cache) -> None:
    source = mixture(cache, batch_size=6)
    rows = np.concatenate([source.rows(step)[:, 1] for step in range(6)])
    assert sorted(rows) == list(range(36))
    later = np.concatenate([source.rows(step)[:, 1] for step in range(6, 12)])
    assert sorted(later) == list(range(36))
    assert (rows != later).any()


def test_a_step_does_not_depend_on_where_one_started(cache: Cache) -> None:
    whole = [mixture(cache).rows(step) for step in range(12)]
    resumed = mixture(cache)
    for step in (11, 5, 6):
        np.testing.assert_array_equal(resumed.rows(step), whole[step])
    other = mixture(cache, seed=2)
    assert any((other.rows(step) != whole[step]).any() for step in range(12))


def test_weights_are_shares_of_the_rows_drawn(tmp_path: Path) -> None:
    make_dataset(tmp_path / "a", [make_episode(0, 30)])
    make_dataset(tmp_path / "b", [make_episode(1, 10, success=False)])
    sources = [Windows(make_cache(tmp_path / name), FIXED) for name in "ab"]
    mixed = Mixture(sources, [1, 3], seed=0, batch_size=10)
    rows = np.concatenate([mixed.rows(step) for step in range(4)])
    assert np.bincount(rows[:, 0]).tolist() == [10, 30]
    assert np.bincount(rows[rows[:, 0] == 1, 1]).tolist() == [3] * 10
    later = np.concatenate([mixed.rows(step) for step in range(12)])
    assert (np.bincount(later[later[:, 0] == 0, 1]) == 1).all()
    assert mixed.shares() == {"policy": 0.25, "forward": 1, "inverse": 1, "video": 0.25}
    batch = mixed.batch(0)
    assert len(batch) == 10
    assert len(batch.text.sentences) == len(batch.embodiment) == 10
    with pytest.raises(ValueError, match="2 sources need"):
        Mixture(sources, [1], seed=0, batch_size=4)


def test_batches_that_do_not_fit_are_not_joined(cache: Cache) -> None:
    windows = Windows(cache, FIXED), Windows(cache, Window({"state": (0,)}))
    with pytest.raises(ValueError, match="different streams"):
        concatenate([w.batch(np.arange(2)) for w in windows])


def test_the_loader_gives_the_mixture_in_order(cache: Cache) -> None:
    source = mixture(cache)
    with Loader(source, 3) as loader:
        for step in range(3, 9):
            assert same(next(loader), source.batch(step))
        assert loader.wait_s > 0


def test_the_loader_passes_errors_on(cache: Cache) -> None:
    def broken(_: Batch) -> Batch:
        raise RuntimeError("no")

    with Loader(mixture(cache), prepare=broken) as loader, pytest.raises(RuntimeError, match="no"):
        next(loader)
