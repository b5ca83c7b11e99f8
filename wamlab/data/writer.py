"""Writing a LeRobotDataset v3.0, episode by episode, so that nothing finished is ever lost.

An episode of N actions becomes N + 1 rows: the last action is repeated under ``action_is_pad``.
Each episode has its own parquet file and one video file per view, and enters the dataset in one
instant (see `wamlab.data.commit`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped

from wamlab.config import nearest
from wamlab.data import commit, manifest, video
from wamlab.data.layout import (
    ALIGNMENT,
    DATA_PATH,
    EPISODES_PATH,
    OWN,
    PER_CHUNK,
    SCALARS,
    SCHEMA,
    VERSION,
    VIDEO_PATH,
    VIEW,
    column_array,
    read_tasks,
    write_table,
    write_tasks,
)
from wamlab.data.manifest import DataError
from wamlab.data.statistics import FeatureStats, image_stats, merge_stats, numeric_stats
from wamlab.sim.env import Env
from wamlab.types import ActionSpace, Episode


class DatasetWriter:
    """Appends episodes to a new or an existing dataset; use as a context manager.

    Raises:
        DataError: another process writes this dataset, it is damaged, or it holds other views,
            another image size, action space, state or rate than those given here.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        robot_type: str,
        views: Sequence[str],
        image_size: int,
        space: ActionSpace,
        state_names: Sequence[str],
        fps: int,
    ) -> None:
        if fps != int(fps) or fps <= 0:
            raise ValueError(f"fps is {fps}; the format holds whole frames per second only")
        self.path = Path(path)
        self.views, self.image_size = tuple(views), image_size
        self.space, self.fps = space, int(fps)
        self._lock = commit.acquire_lock(self.path)
        try:
            commit.recover_locked(self.path)
            self._check_whole()
            self._own: dict[str, Any] = {
                "schema": SCHEMA,
                "alignment": ALIGNMENT,
                "image_size": image_size,
                "state_names": list(state_names),
                "space": dataclasses.asdict(space),
            }
            self._own = json.loads(json.dumps(self._own))
            self._open(robot_type)
        except BaseException:
            self._lock.close()
            raise

    @classmethod
    def for_env(cls, path: str | Path, env: Env) -> DatasetWriter:
        """A writer for what ``env`` shows and takes, at its own rate."""
        return cls(
            path,
            robot_type=env.name.partition("/")[0],
            views=env.views,
            image_size=env.image_size,
            space=env.space,
            state_names=env.state_names,
            fps=round(env.space.rate_hz),
        )

    def __len__(self) -> int:
        """How many finished episodes the dataset holds."""
        return int(self._info["total_episodes"])

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes write. Every added episode is on the disk already."""
        self._lock.close()

    def add(self, episode: Episode) -> int:
        """Store one finished episode; returns its index.

        Raises:
            ValueError: frames, states or actions that are not what this dataset holds.
            DataError: the disk is full (or another failure to write); nothing is lost.
        """
        if self._lock.closed:
            raise DataError(f"the writer of {self.path} is closed")
        columns = self._columns(episode)
        self._refresh()
        index = len(self)
        staging = commit.begin(self.path)
        try:
            self._stage(staging, episode, columns, index)
            commit.commit(self.path)
        except OSError as error:
            commit.abort(self.path)
            with contextlib.suppress(OSError):
                self._refresh()
            if len(self) > index:
                return index
            why = "the disk is full" if error.errno == errno.ENOSPC else str(error)
            raise DataError(
                f"episode {index} could not be written to {self.path}: {why}; "
                f"the {index} finished episodes are intact"
            ) from error
        except BaseException:
            commit.abort(self.path)
            raise
        self._refresh()
        return index

    def _refresh(self) -> None:
        commit.recover_locked(self.path)
        self._open(self._info["robot_type"])

    def _check_whole(self) -> None:
        """Nothing is added to a dataset of which a file was changed or lost."""
        files = manifest.read_manifest(self.path) or {}
        small = [name for name in files if name.startswith(("meta/", "data/"))]
        if problems := manifest.verify_manifest(self.path, small) if small else []:
            first = f"{problems[0].where} {problems[0].what}"
            raise DataError(f"{self.path} is damaged and cannot be extended: {first}")

    def _open(self, robot_type: str) -> None:
        """Take up what is on the disk, or begin with an empty dataset."""
        info_path = self.path / "meta/info.json"
        if not info_path.exists():
            if names := manifest.file_names(self.path):
                raise DataError(f"{self.path} is no dataset but not empty: it holds {names[:3]}")
            self._info = self._empty_info(robot_type)
            self._files: manifest.Files = {}
            self._tasks: list[str] = []
            self._stats: dict[str, FeatureStats] = {}
            return
        files = manifest.read_manifest(self.path)
        if files is None:
            raise DataError(f"{self.path}/{manifest.MANIFEST} is missing: it cannot be extended")
        self._files = files
        self._info = json.loads(info_path.read_text())
        self._stats = json.loads((self.path / "meta/stats.json").read_text())
        self._tasks = read_tasks(self.path / "meta/tasks.parquet")
        self._check_same(self._info)

    def _check_same(self, info: dict[str, Any]) -> None:
        own = info.get(OWN)
        if own is None:
            raise DataError(f"{self.path} was not written by this library: it cannot be extended")
        for name, value in self._own.items():
            if own.get(name) != value:
                raise DataError(f"{self.path} has {name} {own.get(name)!r}, got {value!r}")
        views = tuple(key.removeprefix(VIEW) for key in info["features"] if key.startswith(VIEW))
        if views != self.views or info["fps"] != self.fps:
            raise DataError(
                f"{self.path} has views {views} at {info['fps']} fps, "
                f"got {self.views} at {self.fps} fps"
            )

    def _empty_info(self, robot_type: str) -> dict[str, Any]:
        return {
            "codebase_version": VERSION,
            "robot_type": robot_type,
            "total_episodes": 0,
            "total_frames": 0,
            "total_tasks": 0,
            "chunks_size": PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": "0:0"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": {VIEW + view: self._view_feature() for view in self.views},
            OWN: self._own,
        }

    def _view_feature(self) -> dict[str, Any]:
        size = self.image_size
        return {
            "dtype": "video",
            "shape": [size, size, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": size,
                "video.width": size,
                "video.codec": "h264",
                "video.pix_fmt": video.PIXELS,
                "video.is_depth_map": False,
                "video.fps": self.fps,
                "video.channels": 3,
                "has_audio": False,
            },
        }

    def _columns(self, episode: Episode) -> dict[str, Shaped[np.ndarray, "n1 *rest"]]:
        """All stored columns of an episode, N + 1 rows each; raises ValueError on a misfit."""
        steps = len(episode)
        if steps == 0:
            raise ValueError("an episode without an action cannot be stored")
        if set(episode.frames) != set(self.views):
            missing = next(iter(set(self.views) ^ set(episode.frames)))
            raise ValueError(f"view {missing!r} does not fit{nearest(missing, self.views)}")
        shape = (steps + 1, self.image_size, self.image_size, 3)
        for view, frames in episode.frames.items():
            if frames.shape != shape or frames.dtype != np.uint8:
                raise ValueError(
                    f"frames of {view!r} are {frames.dtype} {frames.shape}, expected uint8 {shape}"
                )
        names = self._own["state_names"]
        if episode.state.shape != (steps + 1, len(names)) or not np.isfinite(episode.state).all():
            raise ValueError(
                f"state has shape {episode.state.shape} or a value that is not finite, "
                f"expected {(steps + 1, len(names))}"
            )
        self.space.check(episode.action)
        done = np.arange(steps) >= steps - 1
        own = {
            "observation.state": np.asarray(episode.state, np.float32),
            "action": np.asarray(episode.action, np.float32),
            "next.success": np.asarray(episode.success, bool),
            "next.done": done,
            "action_is_pad": np.arange(steps + 1) >= steps,
            **{name: _storable(name, values) for name, values in episode.columns.items()},
        }
        return {name: _padded(name, values, steps) for name, values in own.items()}

    def _stage(
        self, staging: Path, episode: Episode, columns: dict[str, np.ndarray], index: int
    ) -> None:
        where = {"chunk_index": index // PER_CHUNK, "file_index": index % PER_CHUNK}
        rows, fps = len(episode) + 1, self.fps
        tasks = list(dict.fromkeys([*self._tasks, episode.instruction]))
        stats = {VIEW + view: image_stats(episode.frames[view]) for view in self.views}
        stats |= {name: numeric_stats(_unpadded(name, v)) for name, v in columns.items()}
        for view in self.views:
            name = VIDEO_PATH.format(video_key=VIEW + view, **where)
            video.write_video(staging / name, episode.frames[view], fps)
        first = int(self._info["total_frames"])
        table = _data_table(columns, index, first, fps, tasks.index(episode.instruction))
        write_table(staging / DATA_PATH.format(**where), table)
        record = self._record(episode, where, index, first, rows) | {
            f"stats/{feature}/{key}": value
            for feature, found in stats.items()
            for key, value in found.items()
        }
        self._stage_meta(staging, record, stats, tasks, columns, where, rows)
        staged = manifest.entries(staging)
        files = {**self._files, **staged}
        (staging / manifest.MANIFEST).write_bytes(manifest.encode(files))

    def _record(
        self, episode: Episode, where: dict[str, int], index: int, first: int, rows: int
    ) -> dict[str, Any]:
        """The episode's row of ``meta/episodes``."""
        return {
            "episode_index": index,
            "tasks": [episode.instruction],
            "length": rows,
            "dataset_from_index": first,
            "dataset_to_index": first + rows,
            **{f"data/{key}": value for key, value in where.items()},
            **{
                f"videos/{VIEW}{v}/{key}": value for v in self.views for key, value in where.items()
            },
            **{f"videos/{VIEW}{view}/from_timestamp": 0.0 for view in self.views},
            **{f"videos/{VIEW}{view}/to_timestamp": rows / self.fps for view in self.views},
            "meta/episodes/chunk_index": where["chunk_index"],
            "meta/episodes/file_index": 0,
            "env": episode.env,
            "seed": episode.seed,
            "success": episode.success_any,
            "success_at_reset": bool(episode.success_at_reset),
            "policy": episode.policy,
            "variant": json.dumps(episode.variant, sort_keys=True),
        }

    def _stage_meta(
        self,
        staging: Path,
        record: dict[str, Any],
        stats: dict[str, FeatureStats],
        tasks: list[str],
        columns: dict[str, np.ndarray],
        where: dict[str, int],
        rows: int,
    ) -> None:
        index = record["episode_index"]
        features = self._features(columns)
        if index and features != self._info["features"]:
            changed = set(features) ^ set(self._info["features"]) or {"a column's shape"}
            raise ValueError(f"columns differ from the first episode's: {sorted(changed)}")
        info = self._info | {
            "total_episodes": index + 1,
            "total_frames": self._info["total_frames"] + rows,
            "total_tasks": len(tasks),
            "splits": {"train": f"0:{index + 1}"},
            "features": features,
        }
        merged = {
            name: merge_stats([self._stats[name], found] if name in self._stats else [found])
            for name, found in stats.items()
        }
        shard = EPISODES_PATH.format(chunk_index=where["chunk_index"], file_index=0)
        row = pa.Table.from_pylist([record])
        if where["file_index"]:
            row = pa.concat_tables([pq.ParquetFile(self.path / shard).read(), row])
        write_table(staging / shard, row)
        write_tasks(staging / "meta/tasks.parquet", tasks)
        (staging / "meta/info.json").write_text(json.dumps(info, indent=1))
        (staging / "meta/stats.json").write_text(json.dumps(merged))

    def _features(self, columns: dict[str, np.ndarray]) -> dict[str, Any]:
        names = {
            "observation.state": self._own["state_names"],
            "action": list(self.space.names),
            "action.expert": list(self.space.names),
        }
        features: dict[str, Any] = {VIEW + view: self._view_feature() for view in self.views}
        for name, values in columns.items():
            features[name] = {
                "dtype": str(values.dtype),
                "shape": list(values.shape[1:]) or [1],
                "names": names.get(name),
            }
        return features | {
            name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in SCALARS.items()
        }


def _storable(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind not in "fiub" or values.ndim > 2:
        raise ValueError(f"column {name!r} is {values.dtype} {values.shape}: numbers (t, d) only")
    kind = {"f": "float32", "i": "int64", "u": "int64", "b": "bool"}[values.dtype.kind]
    return values.astype(kind)


def _padded(name: str, values: np.ndarray, steps: int) -> np.ndarray:
    """Values of N + 1 instants as they are, of N actions with the last one repeated."""
    if len(values) not in (steps, steps + 1):
        raise ValueError(f"column {name!r} has {len(values)} rows, expected {steps} or {steps + 1}")
    return values if len(values) == steps + 1 else np.concatenate([values, values[-1:]])


def _unpadded(name: str, values: np.ndarray) -> np.ndarray:
    """The repeated last action is no measurement."""
    return values[:-1] if name.partition(".")[0] == "action" else values


def _data_table(
    columns: dict[str, np.ndarray], index: int, first: int, fps: int, task: int
) -> pa.Table:
    rows = len(columns["action"])
    time = np.arange(rows)
    scalars: dict[str, np.ndarray] = {
        "timestamp": (time / fps).astype(np.float32),
        "frame_index": time,
        "episode_index": np.full(rows, index),
        "index": first + time,
        "task_index": np.full(rows, task),
    }
    arrays = {name: column_array(values) for name, values in {**columns, **scalars}.items()}
    return pa.table(arrays)
