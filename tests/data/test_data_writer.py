from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fixture import SPACE, make_dataset, make_episode, open_writer

from wamlab.data import commit, lerobot, manifest, video
from wamlab.data.lerobot import Dataset, verify
from wamlab.data.manifest import DataError
from wamlab.types import ActionSpace, Episode

HERE = Path(__file__).parent


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error))


def same(read: Episode, wrote: Episode) -> None:
    np.testing.assert_allclose(read.state, wrote.state, atol=1e-6)
    np.testing.assert_allclose(read.action, wrote.action, atol=1e-6)
    np.testing.assert_array_equal(read.success, wrote.success)
    for name, values in wrote.columns.items():
        np.testing.assert_allclose(read.columns[name], values, atol=1e-6)
    for name in ("env", "instruction", "seed", "policy", "variant"):
        assert getattr(read, name) == getattr(wrote, name)
    for view, frames in wrote.frames.items():
        assert psnr(read.frames[view], frames) > 35


def test_what_is_written_is_read_back(written: tuple[Path, list[Episode]]) -> None:
    path, episodes = written
    dataset = Dataset(path)
    assert dataset.alignment == "n_plus_1"
    assert dataset.space == SPACE
    assert dataset.notes == []
    assert [info.success for info in dataset.episodes] == [True, True, False]
    assert [info.length for info in dataset.episodes] == [13, 10, 16]
    for index, episode in enumerate(episodes):
        same(dataset.episode(index), episode)
    assert verify(path) == []


def test_rows_follow_the_format(written: tuple[Path, list[Episode]]) -> None:
    path, episodes = written
    table = pq.ParquetFile(path / "data/chunk-000/file-001.parquet").read().to_pydict()
    steps = len(episodes[1])
    assert table["action_is_pad"] == [False] * steps + [True]
    assert table["action"][-1] == table["action"][-2]
    assert table["index"] == list(range(13, 13 + steps + 1))
    assert table["next.done"][-3:] == [False, True, True]
    assert table["next.success"][-3:] == [False, True, True]
    info = json.loads((path / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["total_frames"] == 13 + 10 + 16
    row = pq.ParquetFile(path / "meta/episodes/chunk-000/file-000.parquet").read().to_pylist()[2]
    assert (row["dataset_from_index"], row["dataset_to_index"]) == (23, 39)
    assert row["videos/observation.images.corner/file_index"] == 2
    assert json.loads(row["variant"]) == episodes[2].variant
    assert row["stats/action/count"] == [15]


def test_dataset_statistics_are_those_of_all_rows(written: tuple[Path, list[Episode]]) -> None:
    path, episodes = written
    stats = json.loads((path / "meta/stats.json").read_text())
    actions = np.concatenate([episode.action for episode in episodes]).astype(np.float64)
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(axis=0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["min"], actions.min(axis=0), atol=1e-6)
    assert np.shape(stats["observation.images.corner"]["mean"]) == (3, 1, 1)


def test_tasks_are_an_index_for_pandas(written: tuple[Path, list[Episode]]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(written[0] / "meta/tasks.parquet")
    assert list(frame.index) == ["push the point", "pull the point"]
    assert list(frame["task_index"]) == [0, 1]


def test_tasks_carry_the_metadata_that_pandas_reads(written: tuple[Path, list[Episode]]) -> None:
    table = pq.ParquetFile(written[0] / "meta/tasks.parquet").read()
    pandas = json.loads(table.schema.metadata[b"pandas"])
    assert pandas["index_columns"] == ["task"]
    assert {column["field_name"] for column in pandas["columns"]} == {"task", "task_index"}


def test_columns_of_observations_keep_all_rows(tmp_path: Path) -> None:
    episode = make_episode(0, 4)
    episode.columns["observation.force"] = np.arange(5.0)
    make_dataset(tmp_path / "d", [episode])
    assert Dataset(tmp_path / "d").episode(0).columns["observation.force"].tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_an_existing_dataset_is_extended(written: tuple[Path, list[Episode]]) -> None:
    path, episodes = written
    with open_writer(path) as writer:
        assert len(writer) == 3
        assert writer.add(make_episode(7)) == 3
    dataset = Dataset(path)
    assert len(dataset) == 4
    same(dataset.episode(3), make_episode(7))
    same(dataset.episode(0), episodes[0])
    assert verify(path) == []


def test_a_writer_for_other_data_is_refused(written: tuple[Path, list[Episode]]) -> None:
    path, _ = written
    other = ActionSpace(("a",), (-1.0,), (1.0,), ("delta",), ("m",), 20)
    for change in ({"views": ("corner",)}, {"fps": 10}, {"space": other}, {"image_size": 64}):
        with pytest.raises(DataError, match="got"):
            open_writer(path, **change)
    with open_writer(path) as writer:
        assert len(writer) == 3


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match=r"not empty.*thesis"):
        open_writer(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.frames.pop("corner"), "corner"),
        (lambda e: e.frames.update(corner=e.frames["corner"][:-1]), "expected uint8"),
        (lambda e: e.action.__setitem__((0, 0), 2.0), "outside the space in dx"),
        (lambda e: e.action.__setitem__((0, 1), np.nan), "NaN"),
        (lambda e: e.state.__setitem__((0, 1), np.inf), "not finite"),
        (lambda e: e.columns.update(burst=np.zeros(3, bool)), "'burst' has 3 rows"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(
    written: tuple[Path, list[Episode]], change: object, message: str
) -> None:
    path, _ = written
    episode = make_episode(5)
    change(episode)  # type: ignore[operator]
    with open_writer(path) as writer, pytest.raises(ValueError, match=message):
        writer.add(episode)
    assert len(Dataset(path)) == 3
    assert verify(path) == []


def test_the_second_writer_is_told(tmp_path: Path) -> None:
    with open_writer(tmp_path / "d") as first:
        with pytest.raises(DataError, match=f"another process .pid {os.getpid()}"):
            open_writer(tmp_path / "d")
        first.add(make_episode(0, 3))
    with open_writer(tmp_path / "d") as second:
        assert len(second) == 1


@pytest.mark.parametrize("moment", ["read_manifest", "verify_manifest", "read_layout"])
def test_a_reader_meets_a_commit_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """An episode is added right after the reader's first call of each function."""
    path = tmp_path / "d"
    make_dataset(path, [make_episode(0, 4)])
    module = lerobot if moment == "read_layout" else manifest
    asked, calls = getattr(module, moment), []
    with open_writer(path) as writer:

        def interrupted(*arguments: object) -> object:
            found = asked(*arguments)
            calls.append(moment)
            if len(calls) == 1:
                writer.add(make_episode(1, 4))
            return found

        monkeypatch.setattr(module, moment, interrupted)
        dataset = Dataset(path)
    assert len(dataset) == 2
    assert dataset.digest == manifest.digest(manifest.entries(path))
    dataset.frames("corner", 1)


def test_a_dataset_is_verified_beside_its_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / "d", [make_episode(0, 4)])
    asked, calls = manifest.file_digest, []
    with open_writer(tmp_path / "d") as writer:

        def interrupted(file: Path) -> str:
            calls.append(file)
            if len(calls) == 1:
                writer.add(make_episode(1, 4))
            return asked(file)

        monkeypatch.setattr(manifest, "file_digest", interrupted)
        assert verify(tmp_path / "d") == []


def test_commits_without_end_are_not_waited_for(tmp_path: Path) -> None:
    counts = iter(range(99))
    write = lambda: (tmp_path / "manifest.json").write_text(str(next(counts)))  # noqa: E731
    with pytest.raises(DataError, match="is being written all the time"):
        commit.steady(tmp_path, write, wait_s=0.0)


@pytest.mark.parametrize("where", ["video", "parquet", "journal"])
def test_a_full_disk_loses_nothing(
    written: tuple[Path, list[Episode]], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path, episodes = written

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    module, name = {
        "video": (video, "write_video"),
        "parquet": (pq, "write_table"),
        "journal": (commit, "sync"),
    }[where]
    writer = open_writer(path)
    with monkeypatch.context() as patched:
        patched.setattr(module, name, full)
        with pytest.raises(DataError, match="disk is full"):
            writer.add(make_episode(9))
    assert len(Dataset(path)) == 3
    assert verify(path) == []
    assert writer.add(make_episode(9)) == 3
    writer.close()
    same(Dataset(path).episode(3), make_episode(9))
    same(Dataset(path).episode(2), episodes[2])


def test_a_commit_that_was_cut_off_is_finished_by_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after every single rename: the episode is wholly there or not at all."""
    replace, path = os.replace, tmp_path / "d"
    make_dataset(path, [make_episode(0, 3)])
    for cut in range(8):
        left = [cut]

        def stop(source: str, target: str, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            replace(source, target)

        with monkeypatch.context() as patched, open_writer(path) as writer:
            patched.setattr(os, "replace", stop)
            with pytest.raises(KeyboardInterrupt):
                writer.add(make_episode(cut, 3))
        dataset = Dataset(path)
        assert len(dataset) == cut + 2
        same(dataset.episode(cut + 1), make_episode(cut, 3))
        assert verify(path) == []


WRITE_FOREVER = """
import sys
sys.path[:0] = [{here!r}]
from pathlib import Path
from fixture import make_episode, open_writer
writer = open_writer(Path({path!r}))
while True:
    print(writer.add(make_episode(len(writer), 4)), flush=True)
"""


def test_a_killed_writer_leaves_every_finished_episode(tmp_path: Path) -> None:
    path, rng = tmp_path / "d", random.Random(0)
    code = WRITE_FOREVER.format(here=str(HERE), path=str(path))
    finished = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        reported = [int(line) for line in process.stdout.read().split()]
        process.wait()
        finished = max([finished + 1, *(index + 1 for index in reported)])
        dataset = Dataset(path)
        assert len(dataset) >= finished
        finished = len(dataset)
        for index in range(finished):
            same(dataset.episode(index), make_episode(index, 4))
        assert verify(path) == []
