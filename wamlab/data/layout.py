"""The files of LeRobotDataset v2.1 and v3.0: where they lie and what their metadata says.

The layout is found by looking at the files, not by the version that the metadata claims.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped

from wamlab.data.manifest import DataError

VERSION = "v3.0"
SCHEMA = 1
PER_CHUNK = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
VIEW = "observation.images."
SCALARS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
ALIGNMENT = "n_plus_1"
OWN = "wamlab"
CHUNK_V2 = "chunk-{episode_chunk:03d}"
DATA_TEMPLATES = (
    DATA_PATH,
    "data/chunk-{chunk_index:03d}/file_{file_index:03d}.parquet",
    f"data/{CHUNK_V2}/episode_{{episode_index:06d}}.parquet",
)
VIDEO_TEMPLATES = (
    VIDEO_PATH,
    "videos/{video_key}/chunk-{chunk_index:03d}/file_{file_index:03d}.mp4",
    f"videos/{CHUNK_V2}/{{video_key}}/episode_{{episode_index:06d}}.mp4",
)


@dataclass(frozen=True)
class Clip:
    """Where an episode's frames of one view lie: a video file and the first frame's time in it."""

    file: str
    start_s: float


@dataclass(frozen=True)
class Entry:
    """What the metadata says of one episode."""

    index: int
    length: int
    tasks: tuple[str, ...]
    data: str
    clips: dict[str, Clip]
    extras: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """A dataset's metadata, whichever version it is in."""

    version: str
    info: dict[str, Any]
    tasks: list[str]
    entries: list[Entry]
    stats: dict[str, Any]
    notes: list[str]


def read_layout(path: Path) -> Layout:
    """Read all metadata of a dataset.

    Raises:
        DataError: there is no dataset, or its metadata is damaged.
    """
    if not path.exists():
        raise DataError(f"there is no folder {path}")
    if not (path / "meta/info.json").is_file():
        raise DataError(f"{path} is no LeRobot dataset: there is no meta/info.json")
    try:
        info = _read_json(path / "meta/info.json")
        if not info["fps"] > 0:
            raise DataError(f"{path}/meta/info.json has fps {info['fps']!r}, expected more than 0")
        keys = [k for k, v in info["features"].items() if v.get("dtype") in ("video", "image")]
        if (path / "meta/episodes.jsonl").is_file():
            return _read_v2(path, info, keys)
        if (path / "meta/episodes").is_dir():
            return _read_v3(path, info, keys)
    except (KeyError, TypeError, AttributeError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"the metadata of {path} is damaged: {error!r}") from error
    raise DataError(f"{path}/meta has neither episodes.jsonl (v2.1) nor episodes/ (v3.0)")


def _read_v3(path: Path, info: dict[str, Any], keys: Sequence[str]) -> Layout:
    shards = sorted((path / "meta/episodes").rglob("*.parquet"))
    rows = [row for shard in shards for row in _rows_without_stats(shard)]
    rows.sort(key=lambda row: row["episode_index"])
    entries = [_entry_v3(path, info, keys, row) for row in rows]
    stats_path = path / "meta/stats.json"
    stats = _read_json(stats_path) if stats_path.is_file() else {}
    tasks = read_tasks(path / "meta/tasks.parquet")
    return Layout("v3.0", info, tasks, entries, stats, _notes("v3.0", info, entries))


def _rows_without_stats(shard: Path) -> list[dict[str, Any]]:
    with _named(shard):
        file = pq.ParquetFile(shard)
        names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        return file.read(columns=names).to_pylist()


def _entry_v3(path: Path, info: dict[str, Any], keys: Sequence[str], row: dict[str, Any]) -> Entry:
    index = int(row["episode_index"])
    place = lambda what: {  # noqa: E731
        "chunk_index": int(row[f"{what}/chunk_index"]),
        "file_index": int(row[f"{what}/file_index"]),
        "episode_index": index,
    }
    videos = [key for key in keys if row.get(f"videos/{key}/file_index") is not None]
    clips = {
        key: Clip(
            _locate(path, info.get("video_path"), VIDEO_TEMPLATES, place(f"videos/{key}"), key),
            float(row[f"videos/{key}/from_timestamp"]),
        )
        for key in videos
    }
    data = _locate(path, info.get("data_path"), DATA_TEMPLATES, place("data"))
    known = ("data/", "videos/", "meta/", "dataset_")
    extras = {name: value for name, value in row.items() if not name.startswith(known)}
    for name in ("episode_index", "length", "tasks"):
        extras.pop(name)
    return Entry(index, int(row["length"]), tuple(row["tasks"] or ()), data, clips, extras)


def _read_v2(path: Path, info: dict[str, Any], keys: Sequence[str]) -> Layout:
    rows = sorted(read_lines(path / "meta/episodes.jsonl"), key=lambda row: row["episode_index"])
    tasks = {row["task_index"]: row["task"] for row in read_lines(path / "meta/tasks.jsonl")}
    texts = [str(tasks.get(i, "")) for i in range(max(tasks, default=-1) + 1)]
    entries = [_entry_v2(path, info, keys, row) for row in rows]
    return Layout("v2.1", info, texts, entries, _stats_v2(path), _notes("v2.1", info, entries))


def _entry_v2(path: Path, info: dict[str, Any], keys: Sequence[str], row: dict[str, Any]) -> Entry:
    index = int(row["episode_index"])
    chunk = index // int(info.get("chunks_size", PER_CHUNK))
    place = {"episode_chunk": chunk, "chunk_index": chunk, "episode_index": index}
    videos = [key for key in keys if info["features"][key]["dtype"] == "video"]
    clips = {
        key: Clip(_locate(path, info.get("video_path"), VIDEO_TEMPLATES, place, key), 0.0)
        for key in videos
    }
    data = _locate(path, info.get("data_path"), DATA_TEMPLATES, place)
    extras = {k: v for k, v in row.items() if k not in ("episode_index", "length", "tasks")}
    return Entry(index, int(row["length"]), tuple(row.get("tasks", ())), data, clips, extras)


def _stats_v2(path: Path) -> dict[str, Any]:
    from wamlab.data.statistics import merge_stats

    if (path / "meta/stats.json").is_file():
        return _read_json(path / "meta/stats.json")
    if not (path / "meta/episodes_stats.jsonl").is_file():
        return {}
    rows = [row["stats"] for row in read_lines(path / "meta/episodes_stats.jsonl")]
    names = set.intersection(*(set(row) for row in rows)) if rows else set()
    return {name: merge_stats([row[name] for row in rows]) for name in sorted(names)}


def _locate(
    path: Path, own: str | None, templates: Iterable[str], fields: dict[str, int], key: str = ""
) -> str:
    """The file that exists: by the dataset's own template first, then by the known dialects."""
    tried = []
    for template in (own, *templates):
        try:
            name = (template or "").format(video_key=key, **fields)
        except (KeyError, IndexError, ValueError):
            continue
        if name and ".." not in Path(name).parts and not name.startswith("/"):
            tried.append(name)
            if (path / name).is_file():
                return name
    if not tried:
        raise DataError(f"{path}: no path template fits {sorted(fields)}; info.json says {own!r}")
    return tried[0]


def _notes(version: str, info: dict[str, Any], entries: Sequence[Entry]) -> list[str]:
    notes = []
    claimed = str(info.get("codebase_version"))
    if claimed.split(".")[0] != version.split(".")[0]:
        notes.append(f"info.json claims version {claimed}, but the files are those of {version}")
    total, found = info.get("total_frames"), sum(entry.length for entry in entries)
    if total != found:
        notes.append(f"info.json claims {total} frames, but the episodes hold {found}")
    if (episodes := info.get("total_episodes")) != len(entries):
        notes.append(f"info.json claims {episodes} episodes, but {len(entries)} are listed")
    return notes


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file.

    Raises:
        DataError: it cannot be read.
    """
    with _named(path):
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def _read_json(path: Path) -> Any:
    with _named(path):
        return json.loads(path.read_text())


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say of a file that cannot be read which one it is."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error!r}") from error


def column_array(values: Shaped[np.ndarray, "t *d"]) -> pa.Array:
    """A column of numbers, or of lists of equal length."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def write_table(path: Path, table: pa.Table) -> None:
    """Write a parquet file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """``tasks.parquet`` as pandas would write it: the text is the index."""
    index = {
        "name": "task",
        "field_name": "task",
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": None,
    }
    column = {
        "name": "task_index",
        "field_name": "task_index",
        "pandas_type": "int64",
        "numpy_type": "int64",
        "metadata": None,
    }
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [column, index],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    table = pa.table({"task_index": np.arange(len(tasks)), "task": list(tasks)})
    write_table(path, table.replace_schema_metadata({b"pandas": json.dumps(pandas).encode()}))


def read_tasks(path: Path) -> list[str]:
    """The tasks' texts in the order of their index.

    Raises:
        DataError: it cannot be read, or has no texts.
    """
    with _named(path):
        table = pq.ParquetFile(path).read()
    index = table.column("task_index").to_numpy()
    name = next(
        (n for n in ("task", "__index_level_0__", "tasks") if n in table.column_names), None
    )
    if name is None:
        raise DataError(f"{path} has no task texts: its columns are {table.column_names}")
    texts = table.column(name).to_pylist()
    by_index = dict(zip(index.tolist(), texts, strict=True))
    return [str(by_index.get(i, "")) for i in range(max(by_index, default=-1) + 1)]
