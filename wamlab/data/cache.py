"""A dataset decoded once: uint8 frames, mapped into memory when read, and float32 columns.

An episode of N actions has N + 1 rows in every array; the last row of an action-like column is
never read. The folder is bounded: what was not used for longest goes first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from tqdm import tqdm

from wamlab.config import from_dict, nearest
from wamlab.data import manifest
from wamlab.data.lerobot import Dataset, EpisodeInfo
from wamlab.data.manifest import DataError
from wamlab.types import ActionSpace, Episode

SCHEMA = 1
INDEX = "index.json"
LIMIT_GB = 20.0
FOLDER_VARIABLE = "WAMLAB_CACHE"
LIMIT_VARIABLE = "WAMLAB_CACHE_GB"
KEY = re.compile(r"[0-9a-f]{32}")
UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.(\d+)\.tmp")
"""How a cache is called, and one that a process (its number) is still writing."""


def cache_folder() -> Path:
    """Where caches are kept: ``$WAMLAB_CACHE``, else ``~/.cache/wamlab``."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache/wamlab")


def cache_limit_gb() -> float:
    """How much the folder may hold: ``$WAMLAB_CACHE_GB``, else `LIMIT_GB`.

    Raises:
        DataError: the variable is no number above 0.
    """
    said = os.environ.get(LIMIT_VARIABLE) or str(LIMIT_GB)
    try:
        limit = float(said)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise DataError(f"{LIMIT_VARIABLE} is {said!r}, expected gigabytes above 0")
    return limit


@dataclass(frozen=True)
class Cache:
    """A decoded dataset, opened for reading.

    ``frames`` (R, H, W, 3) uint8 by view, ``columns`` (R, d) float32 by name (``state``,
    ``action``, ``burst`` ...) over all R rows; episode e holds the rows ``starts[e]`` to
    ``starts[e] + lengths[e]`` (observations, N + 1).
    """

    path: Path
    dataset: str
    frames: Mapping[str, UInt8[np.ndarray, "r h w 3"]]
    columns: Mapping[str, Float[np.ndarray, "r d"]]
    starts: Int[np.ndarray, " e"]
    lengths: Int[np.ndarray, " e"]
    episodes: tuple[EpisodeInfo, ...]
    fps: float
    embodiment: str
    space: ActionSpace | None
    state_names: tuple[str, ...]
    image_size: int

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(self.frames)

    @classmethod
    def open(
        cls,
        dataset: Dataset | str | Path,
        *,
        views: Sequence[str],
        image_size: int,
        action_size: int | None = None,
        resize: bool = False,
        folder: Path | None = None,
        limit_gb: float | None = None,
        progress: bool = True,
    ) -> Cache:
        """The cache of a dataset, decoded now where there is none yet.

        ``resize`` allows frames of another size, made with antialiased bilinear filtering, and
        ``limit_gb`` is what the folder may hold (None: `cache_limit_gb`).

        Raises:
            KeyError: the dataset lacks a wanted view (with the nearest that it has).
            DataError: another action size, another image size without ``resize``, damaged files,
                or a dataset that needs more than the cache's limit.
        """
        dataset = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
        _check_wanted(dataset, views, action_size)
        folder = Path(folder) if folder is not None else cache_folder()
        path = folder / _key(dataset, views, image_size, resize)
        if path.exists() and manifest.verify_manifest(path):
            shutil.rmtree(path)
        if not path.exists():
            make_room(folder, _needed(dataset, views, image_size), limit_gb)
            with built(path) as temporary:
                _decode(temporary, dataset, tuple(views), image_size, resize, progress)
        os.utime(path)
        return _load(path)


def _check_wanted(dataset: Dataset, views: Sequence[str], action_size: int | None) -> None:
    for view in views:
        if view not in dataset.views:
            known = nearest(view, dataset.views)
            raise KeyError(f"dataset {dataset.path} has no view {view!r}{known}")
    found = dataset.space.size if dataset.space is not None else 0
    if action_size is not None and found != action_size:
        raise DataError(f"dataset {dataset.path} has action size {found}, expected {action_size}")


def _key(dataset: Dataset, views: Sequence[str], image_size: int, resize: bool) -> str:
    parts = [SCHEMA, dataset.digest, dataset.alignment, list(views), image_size, resize]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _needed(dataset: Dataset, views: Sequence[str], image_size: int) -> int:
    rows = sum(info.length for info in dataset.episodes)
    return rows * (len(views) * image_size**2 * 3 + 256)


def make_room(folder: Path, needed: int, limit_gb: float | None = None) -> None:
    """Remove the caches that were not used for longest until ``needed`` bytes fit.

    Whatever else lies in the folder stays.
    """
    limit_gb = cache_limit_gb() if limit_gb is None else limit_gb
    limit = int(limit_gb * 1e9)
    if needed > limit:
        raise DataError(
            f"the dataset needs {needed / 1e9:.2f} GB, but the cache {folder} is limited to "
            f"{limit_gb:g} GB; {LIMIT_VARIABLE} sets the limit"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        writer = UNFINISHED.fullmatch(path.name)
        if writer and not Path(f"/proc/{writer[1]}").exists():
            shutil.rmtree(path, ignore_errors=True)
    kept = [path for path in folder.iterdir() if _is_cache(path)]
    kept.sort(key=lambda p: p.stat().st_mtime_ns)
    sizes = {p: sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in kept}
    while kept and sum(sizes[p] for p in kept) + needed > limit:
        shutil.rmtree(kept.pop(0), ignore_errors=True)


def _is_cache(path: Path) -> bool:
    """Whether a folder is one of ours: frames and columns with their index, or codes alone."""
    if not KEY.fullmatch(path.name) or not (path / manifest.MANIFEST).is_file():
        return False
    inside = {child.name for child in path.iterdir()} - {manifest.MANIFEST}
    return INDEX in inside or all(name.endswith(".npy") for name in inside)


@contextmanager
def built(path: Path) -> Iterator[Path]:
    """A temporary folder that is renamed at the end: a cache is whole or not there.

    Raises:
        DataError: it could not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        manifest.write_manifest(temporary)
        os.rename(temporary, path)
    except OSError as error:
        if not path.exists():
            raise DataError(f"the cache {path} could not be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _decode(
    path: Path,
    dataset: Dataset,
    views: tuple[str, ...],
    image_size: int,
    resize: bool,
    progress: bool,
) -> None:
    kept = [i for i, info in enumerate(dataset.episodes) if info.length > 1]
    lengths = [dataset.episodes[i].length for i in kept]
    if not kept:
        raise DataError(f"dataset {dataset.path} holds no episode with an action")
    starts = np.cumsum([0, *lengths[:-1]])
    shape = (sum(lengths), image_size, image_size, 3)
    columns: dict[str, list[np.ndarray]] = {}
    for part in ("frames", "columns"):
        (path / part).mkdir()
    bar = tqdm(kept, desc=f"decoding {dataset.path.name}", disable=not progress, delay=1.0)
    with ExitStack() as stack:
        opened = [stack.enter_context((path / f"frames/{v}.npy").open("wb")) for v in views]
        for file in opened:
            begin_array(file, shape, np.dtype(np.uint8))
        for index in bar:
            episode = dataset.episode(index)
            for view, file in zip(views, opened, strict=True):
                frames = _sized(episode.frames[view], image_size, resize, f"{dataset.path}: {view}")
                file.write(frames.tobytes())
            for name, values in _columns(episode, f"{dataset.path}: episode {index}").items():
                columns.setdefault(name, []).append(values)
    for name, parts in columns.items():
        np.save(path / f"columns/{name}.npy", np.concatenate(parts))
    _write_index(path, dataset, views, image_size, kept, starts.tolist(), lengths)


def begin_array(file: IO[bytes], shape: tuple[int, ...], kind: np.dtype) -> None:
    """Begin an array file whose rows follow one by one.

    They are not written through a memory map, in which a full disk would kill the process.
    """
    described = np.lib.format.dtype_to_descr(kind)
    header = {"descr": described, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _columns(episode: Episode, what: str) -> dict[str, Float[np.ndarray, "n1 d"]]:
    """State and every action-like column as (N + 1, d); the padded last row is NaN."""
    for name in ("state", "action"):
        if not np.isfinite(values := getattr(episode, name)).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise DataError(f"{what} has NaN or infinity in {name}, row {row}")
    found = {"state": episode.state, "action": episode.action, "success": episode.success}
    found |= episode.columns
    rows = len(episode.state)
    out = {}
    for name, values in found.items():
        matrix = np.asarray(values, np.float32).reshape(len(values), -1)
        if matrix.shape[1] and len(matrix):
            padding = np.full((rows - len(matrix), matrix.shape[1]), np.nan, np.float32)
            out[name] = np.concatenate([matrix, padding])
    return out


def _sized(
    frames: UInt8[np.ndarray, "t h w 3"], size: int, resize: bool, what: str
) -> UInt8[np.ndarray, "t size size 3"]:
    if frames.shape[1:3] == (size, size):
        return frames
    if not resize:
        raise DataError(
            f"{what} has frames of {frames.shape[1]} x {frames.shape[2]}, "
            f"expected {size} x {size}; frames are resized only where that is asked for"
        )
    return resize_frames(frames, size)


def resize_frames(
    frames: UInt8[np.ndarray, "t h w 3"], size: int
) -> UInt8[np.ndarray, "t size size 3"]:
    """Resize to a square by the one rule used everywhere: bilinear, antialiased, rounded."""
    import torch
    from einops import rearrange
    from torch.nn.functional import interpolate

    pixels = rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> t c h w").float()
    small = interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return rearrange(small.round().clamp(0, 255).byte(), "t c h w -> t h w c").numpy()


def _write_index(
    path: Path,
    dataset: Dataset,
    views: Sequence[str],
    image_size: int,
    kept: Sequence[int],
    starts: Sequence[int],
    lengths: Sequence[int],
) -> None:
    infos = [dataclasses.asdict(dataset.episodes[i]) for i in kept]
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "dataset": dataset.digest,
        "views": list(views),
        "image_size": image_size,
        "fps": dataset.fps,
        "embodiment": dataset.embodiment,
        "space": None if dataset.space is None else dataclasses.asdict(dataset.space),
        "state_names": list(dataset.state_names),
        "starts": list(starts),
        "lengths": list(lengths),
        "episodes": infos,
    }
    (path / INDEX).write_text(json.dumps(content, default=str))


def _load(path: Path) -> Cache:
    index = json.loads((path / INDEX).read_text())
    mapped = lambda name: np.load(path / name, mmap_mode="r", allow_pickle=False)  # noqa: E731
    columns: dict[str, Shaped[np.ndarray, "r d"]] = {
        file.stem: np.load(file, allow_pickle=False) for file in (path / "columns").glob("*.npy")
    }
    space = index["space"]
    return Cache(
        path=path,
        dataset=index["dataset"],
        frames={view: mapped(f"frames/{view}.npy") for view in index["views"]},
        columns=columns,
        starts=np.asarray(index["starts"]),
        lengths=np.asarray(index["lengths"]),
        episodes=tuple(EpisodeInfo(**info) for info in index["episodes"]),
        fps=index["fps"],
        embodiment=index["embodiment"],
        space=None if space is None else from_dict(ActionSpace, space),
        state_names=tuple(index["state_names"]),
        image_size=index["image_size"],
    )
