from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixture import GAIN, make_dataset, make_episode
from foreign import DEFAULT_V21, DEFAULT_V30, append, declare, rewrite, write_v21, write_v30

from wamlab.data.cache import Cache
from wamlab.data.check import alignment_of, check
from wamlab.data.inspect import inspect
from wamlab.data.lerobot import Dataset, verify
from wamlab.data.manifest import DataError
from wamlab.types import Episode

TASKS = ("push the point", "pull the point", "push the point")


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error))


def three() -> list[Episode]:
    lengths = (12, 9, 15)
    return [make_episode(i, lengths[i], task=TASKS[i]) for i in range(3)]


def recovered(path: Path, episodes: list[Episode]) -> Dataset:
    """A foreign dataset gives N - 1 actions: its last one leads to nothing that was seen."""
    dataset = Dataset(path)
    assert dataset.alignment == "o_before"
    for index, wrote in enumerate(episodes):
        read = dataset.episode(index)
        assert read.instruction == wrote.instruction
        np.testing.assert_allclose(read.state, wrote.state[:-1], atol=1e-6)
        np.testing.assert_allclose(read.action, wrote.action[:-1], atol=1e-6)
        for view in ("corner", "gripper"):
            assert psnr(read.frames[view], wrote.frames[view][:-1]) > 35
    return dataset


@pytest.mark.parametrize(
    "templates",
    [
        DEFAULT_V21,
        {
            "data_path": "data/chunk-{chunk_index:03d}/episode_{episode_index:06d}.parquet",
            "video_path": "videos/chunk-{chunk_index:03d}/{video_key}/{episode_index:06d}.mp4",
        },
    ],
)
def test_v21_is_read(tmp_path: Path, templates: dict[str, str]) -> None:
    write_v21(tmp_path / "d", three(), **templates)
    dataset = recovered(tmp_path / "d", three())
    assert dataset.version == "v2.1"
    assert dataset.space is not None
    low = np.concatenate([episode.action for episode in three()]).min(axis=0)
    np.testing.assert_allclose(dataset.space.low, low, atol=1e-6)
    assert dataset.space.names == ("x", "y", "g")
    assert any("no action space" in note for note in dataset.notes)


@pytest.mark.parametrize(
    "templates",
    [
        DEFAULT_V30,
        {
            "data_path": "data/chunk-{chunk_index:03d}/file_{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file_{file_index:03d}.mp4",
        },
    ],
)
def test_v30_with_split_cameras_and_shards_is_read(
    tmp_path: Path, templates: dict[str, str]
) -> None:
    write_v30(tmp_path / "d", three(), **templates)
    assert recovered(tmp_path / "d", three()).version == "v3.0"


def test_templates_that_fit_nothing_give_way_to_the_known_ones(tmp_path: Path) -> None:
    write_v30(tmp_path / "d", three())
    path = tmp_path / "d/meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | DEFAULT_V21))
    recovered(tmp_path / "d", three())


def test_a_wrong_version_tag_is_told(tmp_path: Path) -> None:
    write_v21(tmp_path / "d", three(), codebase_version="v3.0")
    dataset = recovered(tmp_path / "d", three())
    assert any("claims version v3.0" in note for note in dataset.notes)


def test_duplicate_task_texts_are_read(tmp_path: Path) -> None:
    texts = ["push the point", "pull the point", "push the point"]
    write_v30(tmp_path / "d", three(), texts=texts)
    recovered(tmp_path / "d", three())


def test_observations_after_actions_are_shifted_where_declared(tmp_path: Path) -> None:
    write_v30(tmp_path / "d", three(), shift=1)
    dataset = Dataset(tmp_path / "d", alignment="o_after")
    for index, wrote in enumerate(three()):
        read = dataset.episode(index)
        np.testing.assert_allclose(read.state, wrote.state[1:], atol=1e-6)
        np.testing.assert_allclose(read.action, wrote.action[1:], atol=1e-6)
        moved = np.diff(read.state[:, :2], axis=0)
        np.testing.assert_allclose(moved, GAIN * read.action[:, :2], atol=1e-6)
    assert alignment_of(dataset).ok
    assert alignment_of(Dataset(tmp_path / "d")).best == -1


def faults(path: Path) -> list[str]:
    return [str(problem) for problem in check(path, progress=False)]


def test_a_good_dataset_has_no_problem(written: tuple[Path, list[Episode]]) -> None:
    assert faults(written[0]) == []


def test_a_shifted_dataset_is_caught(tmp_path: Path) -> None:
    write_v30(tmp_path / "d", three(), shift=1)
    assert any("alignment: actions are shifted by -1" in fault for fault in faults(tmp_path / "d"))


def test_nan_and_actions_outside_the_space_are_caught(tmp_path: Path) -> None:
    path = tmp_path / "d"
    write_v21(path, three())
    file = path / "data/chunk-000/episode_000001.parquet"
    rewrite(file, "observation.state", 4, np.nan)
    rewrite(file, "action", 2, 7.0)
    found = faults(path)
    assert any("episode 1: observation.state has NaN or infinity in row 4" in f for f in found)
    said = "episode 1: action goes beyond the extremes of the dataset's statistics in x"
    assert any(said in fault for fault in found)


def test_a_zero_length_episode_is_caught(tmp_path: Path) -> None:
    write_v21(tmp_path / "d", three())
    path = tmp_path / "d/meta/episodes.jsonl"
    empty = json.dumps({"episode_index": 3, "tasks": ["push the point"], "length": 0})
    path.write_text(path.read_text() + "\n" + empty)
    assert any("episode 3: has no rows" in fault for fault in faults(tmp_path / "d"))
    with pytest.raises(DataError, match="episode 3 has no rows"):
        Dataset(tmp_path / "d").episode(3)


def test_missing_rows_duplicates_and_views_are_caught(tmp_path: Path) -> None:
    path = tmp_path / "d"
    write_v21(path, [make_episode(0), make_episode(0)])
    lines = (path / "meta/episodes.jsonl").read_text().replace('"length": 12', '"length": 13', 1)
    (path / "meta/episodes.jsonl").write_text(lines)
    found = [str(problem) for problem in check(path, views=("cornr",), progress=False)]
    assert any("episode 0 has 12 rows, expected 13" in fault for fault in found)
    assert any("no 'cornr'; did you mean 'corner'" in fault for fault in found)
    (path / "meta/episodes.jsonl").write_text(lines.replace("13", "12"))
    assert any("episode 1: has the same states" in fault for fault in faults(path))


def test_a_truncated_video_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "d"
    write_v21(path, three())
    file = path / "videos/chunk-000/observation.images.gripper/episode_000002.mp4"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert any("episode 2" in f and "cannot be decoded" in f for f in faults(path))
    with pytest.raises(DataError, match=r"episode_000002.mp4 cannot be decoded"):
        Dataset(path).frames("gripper", 2)


def test_a_video_that_is_too_short_is_caught(tmp_path: Path) -> None:
    write_v21(tmp_path / "d", [make_episode(0, 12), make_episode(1, 9)])
    videos = tmp_path / "d/videos/chunk-000/observation.images.corner"
    (videos / "episode_000000.mp4").write_bytes((videos / "episode_000001.mp4").read_bytes())
    with pytest.raises(DataError, match=r"no frame at 0.5\d+ s"):
        Dataset(tmp_path / "d").frames("corner", 0)


def test_a_truncated_parquet_file_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "d"
    write_v21(path, three())
    file = path / "data/chunk-000/episode_000000.parquet"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=r"episode_000000.parquet cannot be read"):
        Dataset(path).episode(0)


V30_TABLE = "data/chunk-000/file-000.parquet"


@pytest.mark.parametrize("kind", [pa.list_, lambda inner: pa.list_(inner, 2), pa.large_list])
def test_a_feature_of_several_dimensions_is_flattened(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "d"
    write_v30(path, [make_episode(0, 12), make_episode(1, 12)])
    poses = np.arange(24 * 4, dtype=np.float32).reshape(24, 2, 2)
    append(path / V30_TABLE, "observation.pose", pa.array(poses.tolist(), kind(kind(pa.float32()))))
    declare(path, "observation.pose", [2, 2])
    first, second = (Dataset(path).episode(i).columns["observation.pose"] for i in (0, 1))
    np.testing.assert_array_equal(np.concatenate([second, first]), poses.reshape(24, 4))
    cache = Cache.open(path, views=("corner",), image_size=32, folder=tmp_path / "cache")
    np.testing.assert_array_equal(cache.columns["observation.pose"][:12], first)
    assert not any("pose" in fault for fault in faults(path))


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ([[1.0, 2.0], [3.0]], "has rows of different sizes"),
        ([[1.0], [2.0]], "has rows of different sizes"),
        ([[1.0, 2.0]], "has rows of different sizes"),
    ],
)
def test_ragged_rows_are_named_by_file_and_column(tmp_path: Path, cell: Any, said: str) -> None:
    path = tmp_path / "d"
    write_v30(path, three())
    cells = [[[1.0, 2.0], [3.0, 4.0]]] * 35 + [cell]
    append(path / V30_TABLE, "observation.pose", pa.array(cells))
    declare(path, "observation.pose", [2, 2])
    with pytest.raises(DataError, match=rf"file-000.parquet: observation.pose {said}"):
        Dataset(path).episode(0)
    assert any(f"observation.pose {said}" in fault for fault in faults(path))


def test_a_column_of_something_else_than_numbers_is_named(tmp_path: Path) -> None:
    write_v30(tmp_path / "d", three())
    append(tmp_path / "d" / V30_TABLE, "observation.force", pa.array(["hard"] * 36))
    declare(tmp_path / "d", "observation.force", [1])
    with pytest.raises(DataError, match=r"observation.force holds string, expected numbers"):
        Dataset(tmp_path / "d").episode(0)


def test_a_declared_column_that_the_files_lack_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "d"
    write_v30(path, three())
    declare(path, "observation.force", [3])
    said = "file-000.parquet has no column 'observation.force', which the dataset declares"
    found = faults(path)
    assert [index for index in range(3) if any(f"episode {index}: " in f for f in found)] == [
        0,
        1,
        2,
    ]
    assert sum(said in fault for fault in found) == 3
    with pytest.raises(DataError, match=said):
        Dataset(path).episode(0)


@pytest.mark.parametrize("column", ["action", "episode_index", "frame_index"])
def test_a_file_without_a_column_that_every_dataset_has_is_listed(
    tmp_path: Path, column: str
) -> None:
    path = tmp_path / "d"
    write_v30(path, three())
    table = pq.ParquetFile(path / V30_TABLE).read()
    pq.write_table(table.drop_columns([column]), path / V30_TABLE)
    assert any(f"file-000.parquet has no column '{column}'" in fault for fault in faults(path))


def test_unknown_names_are_answered_with_the_nearest(written: tuple[Path, list[Episode]]) -> None:
    dataset = Dataset(written[0])
    with pytest.raises(KeyError, match="did you mean 'corner'"):
        dataset.frames("cornre", 0)
    with pytest.raises(KeyError, match=r"did you mean 'action.expert'"):
        dataset.column("action.exprt", 0)
    with pytest.raises(IndexError, match="no episode 3"):
        dataset.episode(3)
    with pytest.raises(DataError, match="no LeRobot dataset"):
        Dataset(written[0].parent)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """`verify` names the file; opening finds it in metadata and parquet, reading in a video."""
    path = tmp_path / "d"
    make_dataset(path, [make_episode(0, 4), make_episode(1, 4)])
    rng = np.random.default_rng(0)
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    for flip in range(40):
        file = files[flip % len(files)]
        good = file.read_bytes()
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(bad))
        name = file.relative_to(path).as_posix()
        assert name in " ".join(f"{problem.where}" for problem in verify(path)) or (
            name == "manifest.json" and verify(path)
        )
        with pytest.raises(DataError):
            read_all(path)
        file.write_bytes(good)
    assert verify(path) == []
    read_all(path)


def read_all(path: Path) -> None:
    dataset = Dataset(path)
    for index in range(len(dataset)):
        for view in dataset.views:
            dataset.frames(view, index)


def test_missing_and_extra_files_are_found(written: tuple[Path, list[Episode]]) -> None:
    path, _ = written
    (path / "notes.txt").write_text("extra")
    (path / "data/chunk-000/file-001.parquet").unlink()
    found = {problem.where: problem.what for problem in verify(path)}
    assert found == {
        "notes.txt": "is not in the manifest",
        "data/chunk-000/file-001.parquet": "is missing",
    }


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    make_dataset(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    make_dataset(tmp_path / "c", [make_episode(4)])
    digests = [Dataset(tmp_path / name).digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("stats", "said"),
    [
        ({"action": {"min": [0, 0], "max": [1, 1, 1]}}, r"action.min is \[0, 0\], expected 3 numb"),
        ({"action": {"min": [0, 0, 0], "max": [1, 1]}}, r"action.max is \[1, 1\], expected 3 numb"),
        ({"action": {"min": None, "max": [1, 1, 1]}}, r"action.min is None, expected 3 numbers"),
        ({"action": {"min": [0, None, 0], "max": [1, 1, 1]}}, r"action.min is \[0, None, 0\], exp"),
        ({"action": {"min": ["a"] * 3, "max": [1, 1, 1]}}, r"action.min is \['a', 'a', 'a'\], exp"),
        ({"action": {"min": [0, 0, 0]}}, r"action.max is None, expected 3 numbers"),
        ({"action": {"max": [0, 0, 0]}}, r"action.min is None, expected 3 numbers"),
        ({"action": [0, 1]}, "action holds no statistics by name"),
        ([{"action": 1}], "holds no statistics by column"),
    ],
)
def test_wrong_statistics_are_named(tmp_path: Path, stats: Any, said: str) -> None:
    write_v30(tmp_path / "f", [make_episode(i, 4) for i in range(2)])
    (tmp_path / "f/meta/stats.json").write_text(json.dumps(stats))
    with pytest.raises(DataError, match=rf"f/meta/stats\.json.* {said}"):
        Dataset(tmp_path / "f")
    (problem,) = check(tmp_path / "f", progress=False)
    assert "meta/stats.json" in problem.what


def test_notes_beside_foreign_data_are_no_content(tmp_path: Path) -> None:
    write_v30(tmp_path / "f", [make_episode(i, 4) for i in range(2)])
    before = Dataset(tmp_path / "f").digest
    (tmp_path / "f/notes.txt").write_text("looked at it")
    assert Dataset(tmp_path / "f").digest == before
    stats = tmp_path / "f/meta/stats.json"
    stats.write_text("{}" if not stats.exists() else stats.read_text() + "\n")
    assert Dataset(tmp_path / "f").digest != before


def test_inspection_shows_what_is_there(
    written: tuple[Path, list[Episode]], tmp_path: Path
) -> None:
    from PIL import Image

    summary = inspect(written[0], tmp_path / "out", episodes=2, instants=4)
    assert "episodes: 3, rows 39, of 10 to 16 rows" in summary
    assert "success: 2 of 3" in summary
    assert "route: left 3" in summary
    assert "n_plus_1; as declared" in summary
    assert Image.open(tmp_path / "out/contact.png").size == (4 * 32, 2 * (2 * 32 + 4))
    assert Image.open(tmp_path / "out/alignment.png").size[0] > 100
