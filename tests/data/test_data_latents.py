"""Codes of a dataset on disk: encoded once for a codec, read in the place of frames."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from fixture import SIZE

from wamlab.data.cache import Cache
from wamlab.data.latents import open_latents
from wamlab.data.manifest import DataError
from wamlab.data.window import Windows
from wamlab.nn.codec import KL, VQ, Codec
from wamlab.types import Episode, Window

VIEWS = ("corner", "gripper")
WINDOW = Window({"image/corner": (-1, 0, 4), "image/gripper": (0,), "state": (0,), "action": (0,)})


class Counting(KL):
    """Counts the frames that it is given."""

    frames = 0

    def _encode(self, frames):
        self.frames += len(frames)
        return super()._encode(frames)


@pytest.fixture
def cache(written: tuple[Path, list[Episode]]) -> Cache:
    folder = written[0].parent / "cache"
    return Cache.open(written[0], views=VIEWS, image_size=SIZE, folder=folder, progress=False)


@pytest.fixture
def codec() -> Counting:
    torch.manual_seed(0)
    return Counting(SIZE, channels=4, width=8)


def expected(codec: Codec, frames: np.ndarray) -> np.ndarray:
    pixels = rearrange(torch.from_numpy(frames).float() / 127.5 - 1, "... h w c -> ... c h w")
    with torch.no_grad():
        return codec.encode(pixels).numpy()


def test_every_frame_is_encoded_once_for_a_codec(cache: Cache, codec: Counting) -> None:
    latents = open_latents(cache, codec, progress=False)
    first = codec.frames
    again = open_latents(cache, codec, progress=False)
    rows = len(cache.frames["corner"])
    assert 2 * rows <= first <= 2 * rows + 1
    assert codec.frames == first
    for view in VIEWS:
        assert isinstance(again[view], np.memmap)
        assert latents[view].shape == (rows, *codec.shape)
        np.testing.assert_array_equal(again[view], latents[view])
        whole = np.array(cache.frames[view])
        np.testing.assert_allclose(latents[view], expected(codec, whole), atol=1e-4)


def test_another_codec_and_another_weight_have_codes_of_their_own(
    cache: Cache, codec: Counting
) -> None:
    before = np.array(open_latents(cache, codec, progress=False)["corner"])
    with torch.no_grad():
        codec.encoder.bias[:4] -= 1.0
    after = open_latents(cache, codec, progress=False)["corner"]
    np.testing.assert_allclose(after, before - 1.0, atol=1e-4)
    tokens = open_latents(cache, VQ(SIZE, width=8), progress=False)["corner"]
    assert tokens.dtype == np.int64
    assert tokens.shape[1:] == (4, 4)


def test_damaged_codes_are_made_again(cache: Cache, codec: Counting) -> None:
    latents = open_latents(cache, codec, progress=False)
    right, path = np.array(latents["corner"]), Path(latents["corner"].filename)
    path.write_bytes(path.read_bytes()[:-8] + b"\1" * 8)
    assert not np.array_equal(np.load(path), right)
    np.testing.assert_array_equal(open_latents(cache, codec, progress=False)["corner"], right)


def test_the_limit_counts_codes_too_and_spares_the_frames(cache: Cache, codec: Counting) -> None:
    with pytest.raises(DataError, match="is limited to"):
        open_latents(cache, codec, limit_gb=1e-6, progress=False)
    size = sum(file.stat().st_size for file in cache.path.rglob("*") if file.is_file())
    old = open_latents(cache, codec, progress=False)
    os.utime(Path(old["corner"].filename).parent, (1, 1))
    os.utime(cache.path, (0, 0))
    codec.standard.mean.add_(1.0)
    open_latents(cache, codec, limit_gb=(size + 30_000) / 1e9, progress=False)
    assert cache.path.exists()
    assert not Path(old["corner"].filename).exists()


def test_a_window_serves_codes_at_the_instants_of_its_frames(cache: Cache, codec: Counting) -> None:
    windows, plain = Windows(cache, WINDOW), Windows(cache, WINDOW)
    windows.serve_latents(open_latents(cache, codec, progress=False))
    rows = np.array([0, 5, 11])
    batch, frames = windows.batch(rows), plain.batch(rows)
    assert batch["image/corner"].offsets.tolist() == [[-1, 0]] * 3
    assert batch["image/gripper"].offsets.tolist() == [[0]] * 3
    for view in VIEWS:
        latent, image = batch[f"latent/{view}"], frames[f"image/{view}"]
        np.testing.assert_array_equal(latent.offsets, image.offsets)
        np.testing.assert_array_equal(latent.present, image.present)
        np.testing.assert_allclose(latent.values, expected(codec, image.values), atol=1e-4)
    assert not batch["latent/corner"].present.all()
    np.testing.assert_array_equal(batch["state"].values, frames["state"].values)


def test_a_view_of_the_future_alone_is_served_as_codes_alone(cache: Cache, codec: KL) -> None:
    windows = Windows(cache, Window({"image/corner": (4,), "image/gripper": (0,)}))
    windows.serve_latents(open_latents(cache, codec, progress=False))
    batch = windows.batch(np.array([0, 1]))
    assert set(batch.streams) == {"latent/corner", "image/gripper", "latent/gripper"}
