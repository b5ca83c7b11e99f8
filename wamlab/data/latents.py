"""A dataset's frames as a frozen codec sees them: encoded once, mapped into memory when read.

A training stage that reads frames through a codec reads the same code of the same frame in every
epoch. The folder lies among the caches and is bounded with them; its key is made of the frames'
cache (dataset, views, size) and of the codec's digest, so that no code outlives what made it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from tqdm import tqdm

from wamlab.data import manifest
from wamlab.data.cache import Cache, begin_array, built, make_room
from wamlab.nn.codec import Codec
from wamlab.nn.vision import to_pixels

SCHEMA = 1
CHUNK = 256
"""Frames that are encoded together."""


def open_latents(
    cache: Cache, codec: Codec, *, limit_gb: float | None = None, progress: bool = True
) -> dict[str, Shaped[np.ndarray, "r *shape"]]:
    """The codes of all frames by view, in the rows of the cache; encoded now where they are not.

    Raises:
        DataError: they need more than the cache's limit, or could not be written.
    """
    folder = cache.path.parent
    path = folder / _key(cache, codec)
    if path.exists() and manifest.verify_manifest(path):
        shutil.rmtree(path)
    if not path.exists():
        os.utime(cache.path)  # the frames themselves are the last to make room
        make_room(folder, _needed(cache, codec), limit_gb)
        with built(path) as temporary:
            _encode(temporary, cache, codec, progress)
    os.utime(path)
    mapped = lambda name: np.load(path / name, mmap_mode="r", allow_pickle=False)  # noqa: E731
    return {view: mapped(f"{view}.npy") for view in cache.views}


def stand_in_latents(cache: Cache, codec: Codec) -> dict[str, Shaped[np.ndarray, "r *shape"]]:
    """In the place of every code that of the view's first frame: nothing is encoded or written.

    A step on them costs what it costs on the real ones.
    """
    first = {view: _codes(codec, frames[:1]) for view, frames in cache.frames.items()}
    rows = {view: len(frames) for view, frames in cache.frames.items()}
    return {view: np.broadcast_to(c, (rows[view], *c.shape[1:])) for view, c in first.items()}


def _key(cache: Cache, codec: Codec) -> str:
    parts = [SCHEMA, "latents", cache.path.name, codec.digest]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _needed(cache: Cache, codec: Codec) -> int:
    rows = sum(len(frames) for frames in cache.frames.values())
    return rows * _codes(codec, next(iter(cache.frames.values()))[:1]).nbytes


def _encode(path: Path, cache: Cache, codec: Codec, progress: bool) -> None:
    total = sum(len(frames) for frames in cache.frames.values())
    hidden = {"disable": not progress, "delay": 1.0}
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=total, desc=f"encoding with {codec.name}", **hidden))
        for view, frames in cache.frames.items():
            file = stack.enter_context((path / f"{view}.npy").open("wb"))
            for start in range(0, len(frames), CHUNK):
                codes = _codes(codec, frames[start : start + CHUNK])
                if start == 0:
                    begin_array(file, (len(frames), *codes.shape[1:]), codes.dtype)
                file.write(codes.tobytes())
                bar.update(len(codes))


@torch.inference_mode()
def _codes(codec: Codec, frames: UInt8[np.ndarray, "n h w 3"]) -> Shaped[np.ndarray, "n *shape"]:
    own = torch.from_numpy(np.array(frames)).to(next(codec.parameters()).device)
    return codec.encode(to_pixels(own)).cpu().numpy()
