"""Datasets as other software writes them, with the faults that are met in the wild."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fixture import FPS, SIZE

from wamlab.data.layout import column_array, write_table, write_tasks
from wamlab.data.video import write_video
from wamlab.types import Episode

KEYS = {"corner": "observation.images.corner", "gripper": "observation.images.gripper"}
DEFAULT_V21 = {
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}
DEFAULT_V30 = {
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}


def info(version: str, episodes: Sequence[Episode], **changes: Any) -> dict[str, Any]:
    view = {"dtype": "video", "shape": [SIZE, SIZE, 3], "names": ["height", "width", "channel"]}
    return {
        "codebase_version": version,
        "robot_type": "point",
        "total_episodes": len(episodes),
        "total_frames": sum(map(len, episodes)),
        "chunks_size": 1000,
        "fps": FPS,
        "features": {
            **dict.fromkeys(KEYS.values(), view),
            "observation.state": {"dtype": "float32", "shape": [3], "names": None},
            "action": {"dtype": "float32", "shape": [3], "names": {"motors": ["x", "y", "g"]}},
        },
    } | changes


def table(episode: Episode, index: int, first: int, task: int, shift: int = 0) -> pa.Table:
    """N rows: o_t beside a_t, or with ``shift`` 1 the observation after the action."""
    steps = len(episode)
    time = np.arange(steps)
    return pa.table(
        {
            "observation.state": column_array(episode.state[shift : steps + shift]),
            "action": column_array(episode.action),
            "timestamp": pa.array((time / FPS).astype(np.float32)),
            "frame_index": time,
            "episode_index": np.full(steps, index),
            "index": first + time,
            "task_index": np.full(steps, task),
        }
    )


def action_stats(episode: Episode) -> dict[str, Any]:
    low, high = episode.action.min(axis=0).tolist(), episode.action.max(axis=0).tolist()
    mean, std = episode.action.mean(axis=0).tolist(), episode.action.std(axis=0).tolist()
    return {"min": low, "max": high, "mean": mean, "std": std, "count": [len(episode)]}


def write_v21(path: Path, episodes: Sequence[Episode], **changes: Any) -> None:
    texts = list(dict.fromkeys(episode.instruction for episode in episodes))
    content = info("v2.1", episodes, **{**DEFAULT_V21, **changes})
    place = lambda i: {"episode_chunk": 0, "chunk_index": 0, "episode_index": i}  # noqa: E731
    (path / "meta").mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(content))
    lines = {"episodes": [], "tasks": [], "episodes_stats": []}
    for i, episode in enumerate(episodes):
        task = texts.index(episode.instruction)
        name = content["data_path"].format(**place(i))
        write_table(path / name, table(episode, i, 0, task))
        for view, key in KEYS.items():
            file = content["video_path"].format(video_key=key, **place(i))
            write_video(path / file, episode.frames[view][: len(episode)], FPS)
        row = {"episode_index": i, "tasks": [episode.instruction], "length": len(episode)}
        lines["episodes"].append(row)
        lines["episodes_stats"].append(
            {"episode_index": i, "stats": {"action": action_stats(episode)}}
        )
    lines["tasks"] = [{"task_index": i, "task": text} for i, text in enumerate(texts)]
    for name, rows in lines.items():
        text = "\n".join(json.dumps(row) for row in rows)
        (path / f"meta/{name}.jsonl").write_text(text)


def write_v30(
    path: Path,
    episodes: Sequence[Episode],
    *,
    shift: int = 0,
    texts: Sequence[str] | None = None,
    **changes: Any,
) -> None:
    """One data file; corner's videos in one file, gripper's in two; two metadata shards."""
    texts = texts or list(dict.fromkeys(episode.instruction for episode in episodes))
    content = info("v3.0", episodes, **{**DEFAULT_V30, **changes})
    (path / "meta").mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(content))
    write_tasks(path / "meta/tasks.parquet", list(texts))
    first = np.cumsum([0, *map(len, episodes)])
    parts = [
        table(episode, i, int(first[i]), texts.index(episode.instruction), shift)
        for i, episode in enumerate(episodes)
    ]
    name = content["data_path"].format(chunk_index=0, file_index=0)
    write_table(path / name, pa.concat_tables(parts[::-1]))
    rows: list[dict[str, Any]] = [
        {
            "episode_index": i,
            "tasks": [episode.instruction],
            "length": len(episode),
            "data/chunk_index": 0,
            "data/file_index": 0,
        }
        for i, episode in enumerate(episodes)
    ]
    groups = {"corner": [list(range(len(episodes)))], "gripper": [[0], [*range(1, len(episodes))]]}
    for view, files in groups.items():
        for file, members in enumerate(files):
            frames = [episodes[i].frames[view][shift:][: len(episodes[i])] for i in members]
            video = content["video_path"].format(
                video_key=KEYS[view], chunk_index=0, file_index=file
            )
            write_video(path / video, np.concatenate(frames), FPS)
            for i, start in zip(members, np.cumsum([0, *map(len, frames)]), strict=False):
                prefix = f"videos/{KEYS[view]}"
                rows[i] |= {
                    f"{prefix}/chunk_index": 0,
                    f"{prefix}/file_index": file,
                    f"{prefix}/from_timestamp": start / FPS,
                    f"{prefix}/to_timestamp": (start + len(episodes[i])) / FPS,
                }
    for shard, chosen in enumerate((rows[:1], rows[1:])):
        name = path / f"meta/episodes/chunk-00{shard}/file-000.parquet"
        write_table(name, pa.Table.from_pylist(chosen))


def declare(path: Path, column: str, shape: list[int]) -> None:
    """Let the metadata say that the dataset has this numeric column."""
    content = json.loads((path / "meta/info.json").read_text())
    content["features"][column] = {"dtype": "float32", "shape": shape, "names": None}
    (path / "meta/info.json").write_text(json.dumps(content))


def append(path: Path, column: str, values: pa.Array) -> None:
    """Add a column to a parquet file."""
    pq.write_table(pq.ParquetFile(path).read().append_column(column, values), path)


def rewrite(path: Path, column: str, row: int, value: float) -> None:
    """Change one entry of a vector column of a parquet file."""
    content = pq.ParquetFile(path).read()
    values = np.asarray(content.column(column).to_pylist(), np.float32)
    values[row, 0] = value
    where = content.column_names.index(column)
    pq.write_table(content.set_column(where, column, column_array(values)), path)
