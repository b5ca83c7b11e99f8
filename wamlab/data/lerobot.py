"""Reading LeRobotDataset v3.0 and v2.1 into canonical episodes.

Whatever the source's own alignment, an episode read here has N + 1 observations and N actions.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int, Shaped, UInt8

from wamlab.config import from_dict, nearest
from wamlab.data import commit, manifest, video
from wamlab.data.layout import ALIGNMENT, OWN, SCALARS, SCHEMA, Entry, Layout, read_layout
from wamlab.data.manifest import DataError
from wamlab.types import ActionSpace, Episode, Frames

Alignment = Literal["n_plus_1", "o_before", "o_after"]
"""How a source's rows pair observations and actions.

``n_plus_1``: our own; the last row's action is padding. ``o_before``: row t holds o_t and a_t, so
the last action leads to nothing that was seen and is dropped. ``o_after``: row t holds a_t and the
observation after it, so the first action starts from nothing that was seen and is dropped.
"""

STATE_COLUMN, ACTION_COLUMN = "observation.state", "action"
CONTENT = ("meta/", "data/", "videos/")
EXTREMES = ("min", "max")
KEPT_TABLES = 4


@dataclass(frozen=True)
class EpisodeInfo:
    """What is known of an episode before it is read; ``length`` counts rows (observations).

    ``seed``, ``success`` and ``variant`` are None or empty where the source does not tell.
    """

    index: int
    length: int
    task: str
    seed: int | None = None
    success: bool | None = None
    variant: Mapping[str, float | str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def env(self) -> str:
        """What episodes are grouped by: the environment, or the task where none is named."""
        return str(self.extras.get("env", self.task))


class Dataset:
    """A LeRobot dataset on disk, opened for reading.

    Metadata and parquet files are checked against the manifest where there is one, and a video
    when it is first read. A dataset that another process extends is opened as it was between two
    episodes.

    Args:
        path: the dataset's folder.
        alignment: how rows pair observations and actions; default: what the dataset itself
            declares, else ``o_before``.

    Raises:
        DataError: no dataset, or a file that is missing or damaged.
    """

    def __init__(self, path: str | Path, *, alignment: Alignment | None = None) -> None:
        self.path = Path(path)
        self._files: manifest.Files | None = None
        layout = commit.steady(self.path, self._read)
        self.version, self.info, self.notes = layout.version, layout.info, list(layout.notes)
        self._stats, self._entries, self._tasks = layout.stats, layout.entries, layout.tasks
        own = self._own_part()
        self.alignment: Alignment = alignment or own.get("alignment", "o_before")
        self.fps = float(self.info["fps"])
        self.features: dict[str, dict[str, Any]] = self.info["features"]
        self.embodiment = str(self.info.get("robot_type") or "unknown")
        self._keys = {_view_name(k): k for k, v in self.features.items() if _is_view(v)}
        self.views = tuple(self._keys)
        self.state_names = tuple(own.get("state_names") or _names(self.features, STATE_COLUMN))
        self.space = self._read_space(own)
        self.episodes = [self._episode_info(entry) for entry in self._entries]
        self._tables: OrderedDict[str, pa.Table] = OrderedDict()
        self._verified: set[str] = set()

    def __len__(self) -> int:
        return len(self.episodes)

    @cached_property
    def digest(self) -> str:
        """One digest of all the content; without a manifest every file is read for it.

        Notes that lie beside the data of other software are no content.
        """
        if self._files:
            return manifest.digest(self._files)
        names = [n for n in manifest.file_names(self.path) if n.startswith(CONTENT)]
        return manifest.digest(manifest.entries(self.path, names))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numeric columns, without views and book-keeping."""
        numbers = ("float", "int", "uint", "bool")
        return tuple(
            name
            for name, feature in self.features.items()
            if str(feature.get("dtype")).startswith(numbers) and name not in SCALARS
        )

    def column(self, name: str, episode: int) -> Shaped[np.ndarray, "t *d"]:
        """One column of one episode, a row per stored row, (T, d) or (T,).

        A feature of several dimensions is flattened: the last index runs fastest along d.

        Raises:
            KeyError: no such column. IndexError: no such episode.
            DataError: the file is damaged, lacks a column that the metadata declares, or holds
                rows that are not what the metadata says.
        """
        entry = self._entry(episode)
        rows = self._rows(entry)
        if len(rows) != entry.length:
            raise DataError(
                f"{self.path}/{entry.data}: episode {entry.index} has {len(rows)} rows, "
                f"expected {entry.length}"
            )
        return self._whole_column(entry, name)[rows]

    def frames(self, view: str, episode: int) -> UInt8[np.ndarray, "t h w 3"]:
        """All frames of one view of an episode, a frame per stored row.

        Raises:
            KeyError: no such view. DataError: the video is damaged or has no frame at some instant.
        """
        if view not in self._keys:
            raise KeyError(f"{self.path} has no view {view!r}{nearest(view, self.views)}")
        entry, key = self._entry(episode), self._keys[view]
        if self.features[key]["dtype"] == "image":
            return self._stored_images(key, entry)
        if key not in entry.clips:
            raise DataError(f"{self.path}: episode {entry.index} has no video of view {view!r}")
        clip = entry.clips[key]
        self._verify_once(clip.file)
        if not (self.path / clip.file).is_file():
            raise DataError(f"{self.path}/{clip.file} is missing")
        seconds = clip.start_s + self.column("timestamp", episode).astype(np.float64).reshape(-1)
        return video.read_video(self.path / clip.file, seconds, self.fps)[0]

    def clip_file(self, view: str, episode: int) -> str | None:
        """The video file of a view of an episode, relative to the dataset; None without one."""
        clip = self._entry(episode).clips.get(self._keys[view])
        return None if clip is None else clip.file

    def sole_user(self, file: str) -> bool:
        """Whether one episode alone has its frames in this video file."""
        return self._users[file] == 1

    @cached_property
    def _users(self) -> Counter[str]:
        return Counter(clip.file for entry in self._entries for clip in entry.clips.values())

    def episode(self, index: int) -> Episode:
        """The canonical episode; its frames are decoded when they are first asked for.

        Raises:
            IndexError: no such episode. DataError: it has no rows, or its files are damaged.
        """
        self._entry(index)
        found = self.episodes[index]
        if found.length == 0:
            raise DataError(f"{self.path}: episode {index} has no rows")
        read = {name: self.column(name, index) for name in self.columns}
        action = read.get(ACTION_COLUMN, np.zeros((found.length, 0), np.float32))
        action = self.actions(_matrix(action))
        state = _matrix(read.get(STATE_COLUMN, np.zeros((found.length, 0), np.float32)))
        success = read.get("next.success", np.zeros(found.length, bool)).reshape(-1)
        known = (ACTION_COLUMN, STATE_COLUMN, "next.success", "next.done", "action_is_pad")
        return Episode(
            env=str(found.extras.get("env", self.embodiment)),
            instruction=found.task,
            seed=-1 if found.seed is None else found.seed,
            frames=cast(Frames, LazyFrames(self, index)),
            state=state,
            action=action,
            success=self.actions(success).astype(bool),
            success_at_reset=bool(found.extras.get("success_at_reset", False)),
            columns={
                name: values if name.startswith("observation.") else self.actions(values)
                for name, values in read.items()
                if name not in known
            },
            policy=str(found.extras.get("policy", "")),
            variant=dict(found.variant),
        )

    def actions(self, rows: Shaped[np.ndarray, "t *d"]) -> Shaped[np.ndarray, "n *d"]:
        """Of an action-like column, the entries between two observations: one fewer than rows."""
        return rows[1:] if self.alignment == "o_after" else rows[:-1]

    def _read(self) -> Layout:
        """The metadata; they and the parquet files are checked against the manifest first."""
        self._files = manifest.read_manifest(self.path) if self.path.is_dir() else None
        if self._files is not None:
            self._verify([n for n in self._files if n.startswith(("meta/", "data/"))])
        return read_layout(self.path)

    def _own_part(self) -> dict[str, Any]:
        own = self.info.get(OWN)
        if own is None:
            return {}
        if own.get("schema") != SCHEMA:
            raise DataError(f"{self.path} has schema {own.get('schema')!r}, expected {SCHEMA}")
        if own.get("alignment") != ALIGNMENT:
            raise DataError(f"{self.path} has alignment {own.get('alignment')!r}")
        if self._files is None and self._entries:
            raise DataError(f"{self.path}/{manifest.MANIFEST} is missing")
        return own

    def _read_space(self, own: dict[str, Any]) -> ActionSpace | None:
        """The declared space; else, for a foreign dataset, bounds as observed (and a note)."""
        if space := own.get("space"):
            return from_dict(ActionSpace, space)
        if ACTION_COLUMN not in self.features:
            return None
        names = _names(self.features, ACTION_COLUMN)
        if (ends := self._extremes(ACTION_COLUMN, len(names))) is None:
            return None
        self.notes.append("no action space is declared: its bounds are the extremes of the data")
        (low, high), unknown = ends, ("unknown",) * len(names)
        return ActionSpace(names, low, high, unknown, unknown, self.fps)

    def _extremes(self, name: str, size: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Minima and maxima of a column, as the statistics say; None where they say neither.

        Raises:
            DataError: one of the two alone, or no ``size`` numbers.
        """
        files = ("meta/stats.json", "meta/episodes_stats.jsonl")
        there = [file for file in files if (self.path / file).is_file()]
        where = f"{self.path}/{there[0] if there else files[0]}"
        if not isinstance(self._stats, dict):
            raise DataError(f"{where} holds no statistics by column")
        stats = self._stats.get(name) or {}
        if not isinstance(stats, dict):
            raise DataError(f"{where}: {name} holds no statistics by name")
        if "min" not in stats and "max" not in stats:
            return None
        low, high = (_numbers(stats.get(e), size, f"{where}: {name}.{e}") for e in EXTREMES)
        return low, high

    def _episode_info(self, entry: Entry) -> EpisodeInfo:
        extras = dict(entry.extras)
        variant = extras.pop("variant", None) or {}
        return EpisodeInfo(
            index=entry.index,
            length=entry.length,
            task=entry.tasks[0] if entry.tasks else "",
            seed=extras.pop("seed", None),
            success=extras.pop("success", None),
            variant=json.loads(variant) if isinstance(variant, str) else variant,
            extras=extras,
        )

    def _entry(self, index: int) -> Entry:
        if not 0 <= index < len(self._entries):
            raise IndexError(f"{self.path} has no episode {index}: it holds {len(self._entries)}")
        return self._entries[index]

    def _table(self, name: str) -> pa.Table:
        if name not in self._tables:
            self._tables[name] = read_table(self.path / name)
            if len(self._tables) > KEPT_TABLES:
                self._tables.popitem(last=False)
        return self._tables[name]

    def _whole_column(self, entry: Entry, name: str) -> Shaped[np.ndarray, "rows *d"]:
        """A column of the file that an episode lies in, over all its rows."""
        table, file = self._table(entry.data), f"{self.path}/{entry.data}"
        if name in table.column_names:
            return _numpy(table.column(name), f"{file}: {name}")
        if name in self.features or name in SCALARS:
            raise DataError(f"{file} has no column {name!r}, which the dataset declares")
        raise KeyError(f"{self.path} has no column {name!r}{nearest(name, table.column_names)}")

    def _rows(self, entry: Entry) -> Int[np.ndarray, " t"]:
        """Where an episode's rows lie in its file, in their order in time."""
        rows = np.flatnonzero(self._whole_column(entry, "episode_index") == entry.index)
        return rows[np.argsort(self._whole_column(entry, "frame_index")[rows], kind="stable")]

    def _stored_images(self, key: str, entry: Entry) -> UInt8[np.ndarray, "t h w 3"]:
        """Frames kept as encoded images inside the parquet file."""
        import io

        from PIL import Image

        table = self._table(entry.data)
        if key not in table.column_names:
            raise DataError(f"{self.path}/{entry.data} has no column {key!r}")
        cells = table.column(key).take(pa.array(self._rows(entry))).to_pylist()
        try:
            images = [Image.open(io.BytesIO(cell["bytes"])).convert("RGB") for cell in cells]
            return np.stack([np.asarray(image) for image in images])
        except (OSError, TypeError, ValueError) as error:
            raise DataError(f"{self.path}/{entry.data}: {key} cannot be decoded") from error

    def _verify_once(self, name: str) -> None:
        if self._files is not None and name not in self._verified:
            self._verify([name])
            self._verified.add(name)

    def _verify(self, names: Sequence[str]) -> None:
        if problems := manifest.verify_manifest(self.path, names):
            listed = "; ".join(f"{p.where} {p.what}" for p in problems[:3])
            raise DataError(f"{self.path} is damaged: {listed}")


class LazyFrames(Mapping[str, UInt8[np.ndarray, "t h w 3"]]):
    """An episode's frames by view, decoded when asked for and kept."""

    def __init__(self, dataset: Dataset, episode: int) -> None:
        self._dataset, self._episode = dataset, episode
        self._frames: dict[str, UInt8[np.ndarray, "t h w 3"]] = {}

    def __getitem__(self, view: str) -> UInt8[np.ndarray, "t h w 3"]:
        if view not in self._frames:
            self._frames[view] = self._dataset.frames(view, self._episode)
        return self._frames[view]

    def __iter__(self) -> Iterator[str]:
        return iter(self._dataset.views)

    def __len__(self) -> int:
        return len(self._dataset.views)


def verify(path: str | Path) -> list[manifest.Problem]:
    """Every file of a dataset with a wrong byte, missing or extra."""
    return commit.steady(Path(path), lambda: manifest.verify_manifest(path))


def read_table(path: Path) -> pa.Table:
    """A whole parquet file.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _numpy(column: pa.ChunkedArray, where: str) -> np.ndarray:
    if column.null_count:
        raise DataError(f"{where} has {column.null_count} missing values")
    if not _is_list(column.type):
        values = column.to_numpy()
    else:
        kind, parts = column.type, column.chunks
        while _is_list(kind):
            sizes = {n for part in parts for n in pc.list_value_length(part).unique().to_pylist()}
            if len(sizes) != 1:
                raise DataError(f"{where} has rows of different sizes")
            kind, parts = kind.value_type, [part.flatten() for part in parts]
        flat = np.concatenate([part.to_numpy(zero_copy_only=False) for part in parts])
        values = flat.reshape(len(column), -1)
    if values.dtype.hasobject:
        raise DataError(f"{where} holds {column.type}, expected numbers")
    return values


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _matrix(values: np.ndarray) -> np.ndarray:
    return (values if values.ndim == 2 else values.reshape(len(values), -1)).astype(np.float32)


def _is_view(feature: dict[str, Any]) -> bool:
    details = {**(feature.get("video_info") or {}), **(feature.get("info") or {})}
    depth = details.get("video.is_depth_map") or details.get("is_depth_map")
    return feature.get("dtype") in ("video", "image") and not depth


def _view_name(key: str) -> str:
    return key.removeprefix("observation.images.").removeprefix("observation.")


def _numbers(value: Any, size: int, where: str) -> tuple[float, ...]:
    """Raises DataError for anything but so many finite numbers."""
    try:
        numbers = np.ravel(np.asarray(value, np.float64))
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if len(numbers) != size or not np.isfinite(numbers).all():
        raise DataError(f"{where} is {value!r}, expected {size} numbers")
    return tuple(numbers.tolist())


def _names(features: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The declared names of a vector's entries, or ``<key>_<i>`` where there are none that fit."""
    if key not in features:
        return ()
    size = int(np.prod(features[key].get("shape") or [0]))
    names = features[key].get("names")
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    if isinstance(names, list) and len(names) == size:
        return tuple(map(str, names))
    return tuple(f"{key.rpartition('.')[2]}_{i}" for i in range(size))
