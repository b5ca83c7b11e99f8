from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from fixture import SIZE, make_dataset, make_episode
from foreign import rewrite, write_v21

from wamlab.data.cache import Cache, cache_folder, resize_frames
from wamlab.data.lerobot import Dataset
from wamlab.data.manifest import DataError
from wamlab.types import Episode


def open_cache(path: Path, **changes: object) -> Cache:
    settings = {"views": ("corner", "gripper"), "image_size": SIZE, "progress": False}
    folder = path.parent / "cache"
    return Cache.open(path, **{"folder": folder, **settings, **changes})  # type: ignore[arg-type]


def test_the_cache_holds_what_the_dataset_holds(written: tuple[Path, list[Episode]]) -> None:
    path, episodes = written
    cache, dataset = open_cache(path), Dataset(path)
    assert cache.lengths.tolist() == [13, 10, 16]
    for index, episode in enumerate(episodes):
        rows = slice(cache.starts[index], cache.starts[index] + cache.lengths[index])
        for view in cache.views:
            np.testing.assert_array_equal(cache.frames[view][rows], dataset.frames(view, index))
        np.testing.assert_allclose(cache.columns["state"][rows], episode.state)
        np.testing.assert_allclose(cache.columns["action"][rows][:-1], episode.action)
        assert np.isnan(cache.columns["action"][rows][-1]).all()
        assert cache.episodes[index].seed == episode.seed
    assert cache.space == dataset.space


def test_a_cache_is_decoded_once_and_again_only_when_damaged(
    written: tuple[Path, list[Episode]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(written[0])
    good = np.array(cache.frames["corner"])
    file = cache.path / "frames/corner.npy"
    with monkeypatch.context() as patched:
        patched.setattr(Dataset, "frames", None)
        assert open_cache(written[0]).path == cache.path
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))
    np.testing.assert_array_equal(open_cache(written[0]).frames["corner"], good)


def test_a_cache_belongs_to_the_content(tmp_path: Path) -> None:
    make_dataset(tmp_path / "a", [make_episode(0)])
    first = open_cache(tmp_path / "a")
    assert open_cache(tmp_path / "a", views=("corner",)).path != first.path
    make_dataset(tmp_path / "a", [make_episode(1)])
    assert len(open_cache(tmp_path / "a").episodes) == 2


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    caches = []
    limit = 2.5 * 13 * (2 * SIZE**2 * 3 + 256) / 1e9
    for index, name in enumerate("abc"):
        make_dataset(tmp_path / name, [make_episode(index)])
        caches.append(open_cache(tmp_path / name, limit_gb=limit))
        os.utime(caches[-1].path, (index + 1, index + 1))
        if index == 1:
            used = open_cache(tmp_path / "a", limit_gb=limit)
            os.utime(used.path, (9, 9))
    assert [cache.path.exists() for cache in caches] == [True, False, True]


def test_only_caches_make_room(tmp_path: Path) -> None:
    """A dataset, a run and a stranger's hidden folder stay, whatever they are called."""
    limit = 1.5 * 13 * (2 * SIZE**2 * 3 + 256) / 1e9
    make_dataset(tmp_path / "a", [make_episode(0)])
    first = open_cache(tmp_path / "a", limit_gb=limit)
    folder = first.path.parent
    dead = folder / f".{first.path.name}.999999999.tmp"
    others = [folder / "data", folder / ("a" * 32), folder / ".mine.tmp", folder / ".my.0.tmp"]
    for other in others[:2]:
        make_dataset(other, [make_episode(2)])
    for hidden in (*others[2:], dead):
        hidden.mkdir()
    make_dataset(tmp_path / "b", [make_episode(1)])
    open_cache(tmp_path / "b", limit_gb=limit)
    assert not first.path.exists()
    assert not dead.exists()
    assert all(other.is_dir() for other in others)
    assert Dataset(others[0]).frames("corner", 0).shape == (13, SIZE, SIZE, 3)


def test_the_limit_can_be_set(
    written: tuple[Path, list[Episode]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAMLAB_CACHE_GB", "1e-6")
    with pytest.raises(DataError, match=r"limited to 1e-06 GB; WAMLAB_CACHE_GB sets the limit"):
        open_cache(written[0])
    monkeypatch.setenv("WAMLAB_CACHE_GB", "much")
    with pytest.raises(DataError, match="WAMLAB_CACHE_GB is 'much', expected gigabytes above 0"):
        open_cache(written[0])
    monkeypatch.setenv("WAMLAB_CACHE_GB", "0.5")
    assert open_cache(written[0]).path.is_dir()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"views": ("corner", "griper")}, KeyError, "did you mean 'gripper'"),
        ({"action_size": 7}, DataError, "action size 3, expected 7"),
        ({"image_size": 64}, DataError, "32 x 32, expected 64 x 64"),
        ({"limit_gb": 1e-6}, DataError, "is limited to"),
    ],
)
def test_what_does_not_fit_is_refused(
    written: tuple[Path, list[Episode]], changes: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_cache(written[0], **changes)
    leftover = written[0].parent / "cache"
    assert not leftover.exists() or not list(leftover.iterdir())


def test_frames_are_resized_only_on_request(written: tuple[Path, list[Episode]]) -> None:
    cache = open_cache(written[0], image_size=16, resize=True)
    full = Dataset(written[0]).frames("corner", 0)
    np.testing.assert_array_equal(cache.frames["corner"][:13], resize_frames(full, 16))
    constant = np.full((1, 8, 8, 3), 77, np.uint8)
    assert (resize_frames(constant, 5) == 77).all()


def test_nan_never_enters_a_cache(tmp_path: Path) -> None:
    write_v21(tmp_path / "d", [make_episode(0)])
    file = tmp_path / "d/data/chunk-000/episode_000000.parquet"
    rewrite(file, "observation.state", 4, np.nan)
    with pytest.raises(DataError, match="episode 0 has NaN or infinity in state, row 4"):
        open_cache(tmp_path / "d")


def test_the_folder_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WAMLAB_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("WAMLAB_CACHE")
    assert cache_folder() == Path.home() / ".cache/wamlab"


def test_an_episode_info_survives_the_cache(written: tuple[Path, list[Episode]]) -> None:
    cached, read = open_cache(written[0]).episodes[1], Dataset(written[0]).episodes[1]
    assert dataclasses.asdict(cached) == dataclasses.asdict(read)
