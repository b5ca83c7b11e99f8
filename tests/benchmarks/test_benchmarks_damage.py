"""The tests of damage do damage, put it right, and count honestly."""

from __future__ import annotations

import random
from pathlib import Path

import bit_flips
import numpy as np
import pytest
from latency import fresh, percentiles, raw_observations
from synthetic import build

from wamlab.data.manifest import verify_manifest
from wamlab.train.trainer import TrainConfig, train
from wamlab.types import POLICY


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, batches, processor = build("reactive", "tiny", rows=2)
    config = TrainConfig(steps=1, batch_size=2, precision="f32")
    out = tmp_path_factory.mktemp("run")
    return train(model, batches, processor, config, out, device="cpu", progress=False).checkpoint


def test_a_flip_is_found_named_and_put_right(checkpoint: Path) -> None:
    chance = random.Random(0)
    flips = [bit_flips._flip("checkpoint", checkpoint, chance) for _ in range(6)]
    assert all(flip["verified"] and flip["loading"] == "opening" for flip in flips)
    assert verify_manifest(checkpoint) == []


def test_only_one_bit_is_flipped(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\x00\xff\x00")
    bit_flips.invert(file, 1, 3)
    assert file.read_bytes() == b"\x00\xf7\x00"
    bit_flips.invert(file, 1, 3)
    assert file.read_bytes() == b"\x00\xff\x00"


@pytest.mark.parametrize(
    ("folder", "file", "kind"),
    [
        ("checkpoint", "train/weights.safetensors", "checkpoint"),
        ("dataset", "videos/observation.images.corner/chunk-000/file-000.mp4", "video"),
        ("dataset", "data/chunk-000/file-000.parquet", "parquet"),
        ("dataset", "meta/episodes/chunk-000/file-000.parquet", "metadata"),
        ("dataset", "manifest.json", "metadata"),
    ],
)
def test_kinds_of_files(folder: str, file: str, kind: str) -> None:
    assert bit_flips.kind_of(folder, file) == kind


def test_a_flip_that_nobody_found_is_counted_as_such() -> None:
    flip = {"kind": "video", "verified": True, "named": True, "loading": "first use"}
    found = bit_flips.summary([flip, {**flip, "verified": False, "named": False, "loading": ""}])
    assert (found["flips"], found["found_by_verify"], found["found_by_loading"]) == (2, 1, 1)
    assert found["by_kind"]["video"]["when"] == {"first use": 1, "": 1}


def test_latency_asks_a_policy_in_raw_units() -> None:
    policy = fresh("uwm", "tiny")
    (observation,) = raw_observations(policy, 1)
    answer = policy.query(observation, POLICY)
    assert answer.action is not None
    assert np.isfinite(answer.action.values).all()
    assert percentiles([1.0, 2.0, 3.0])["p50"] == 2.0
