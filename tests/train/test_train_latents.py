"""`uwm` in latents on a dataset: the codec is trained first, then the model on codes on disk."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from wamlab.data.cache import Cache
from wamlab.data.mixture import Mixture
from wamlab.data.normalize import statistics
from wamlab.data.processor import Processor, ProcessorConfig
from wamlab.data.window import Windows
from wamlab.models.uwm import UWM
from wamlab.train.checkpoint import load_checkpoint
from wamlab.train.feed import Feed
from wamlab.train.learner import weights_digest
from wamlab.train.record import read_record
from wamlab.train.trainer import TrainConfig, train
from wamlab.types import Batch

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from fixture import FPS, SIZE, STATE, VIEWS, make_dataset

CONFIG = dataclasses.replace(
    UWM.Config.tiny(), codec="kl", image_size=SIZE, state_dim=3, action_dim=3, text_dim=8,
    chunk=4, offsets=(2, 4), rate_hz=FPS,
)  # fmt: skip
HOW = TrainConfig(steps=8, batch_size=4, precision="f32", log_every=1, checkpoint_every=1)


class Spy(Feed):
    """Keeps the batches of the stage ``joint``, and may fail at one of its steps."""

    def __init__(self, cache: Cache, model: UWM, fail_at: int | None = None) -> None:
        sources = {s.name: [Windows(cache, s.window, roles=s.roles)] for s in model.stages()}
        super().__init__({n: Mixture(w, seed=0, batch_size=4) for n, w in sources.items()})
        self.fail_at, self.joint = fail_at, []

    def batch(self, step: int, stage: str) -> Batch:
        batch = super().batch(step, stage)
        if stage == "joint":
            self.joint.append(batch)
            if step == self.fail_at:
                raise OSError("the disk went away")
        return batch


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("point")
    make_dataset(folder / "data")
    return Cache.open(
        folder / "data", views=VIEWS, image_size=SIZE, folder=folder / "cache", progress=False
    )


def encode(sentences: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokens = np.array([[[len(sentence)] * 8] for sentence in sentences], np.float32) / 20
    return tokens[:, 0], tokens, np.ones(tokens.shape[:2], bool)


@pytest.fixture
def go(cache: Cache) -> Callable[..., tuple[UWM, Spy]]:
    def go(out: Path, fail_at: int | None = None, resume: bool = False, latents: bool = True):
        torch.manual_seed(0)
        model = UWM(CONFIG)
        config = ProcessorConfig(cache.views, SIZE, STATE, FPS)
        processor = Processor(config, cache.space, statistics([cache]), encoder=encode)
        with Spy(cache, model, fail_at) as feed:
            train(
                model, feed, processor, HOW, out, device="cpu", progress=False, resume=resume,
                statistics=processor.model_statistics(), action_space=cache.space,
                before_stage=feed.serve_latents if latents else None,
            )  # fmt: skip
        return model, feed

    return go


def test_the_second_stage_reads_the_frozen_codec_s_codes(go: Callable, tmp_path: Path) -> None:
    model, feed = go(tmp_path)
    assert feed.joint
    for batch in feed.joint:
        assert batch["image/corner"].offsets.tolist() == [[0]] * 4
        now = torch.from_numpy(batch["image/corner"].values).movedim(-1, -3).float() / 127.5 - 1
        with torch.no_grad():
            codes = model.codec.encode(now).numpy()
        np.testing.assert_allclose(batch["latent/corner"].values[:, :1], codes, atol=1e-4)
    first, second = read_record(tmp_path).stages
    assert (first.produces, second.produces) == ("codec", None)
    assert first.digest == second.frozen


def test_codes_that_are_kept_teach_what_encoding_in_the_step_does(
    go: Callable, tmp_path: Path
) -> None:
    (kept, _), (encoded, feed) = go(tmp_path / "kept"), go(tmp_path / "encoded", latents=False)
    assert not any("latent/corner" in batch for batch in feed.joint)
    assert kept.codec.digest == encoded.codec.digest
    for name, value in kept.state_dict().items():
        torch.testing.assert_close(value, encoded.state_dict()[name], atol=1e-4, rtol=1e-3)


def test_a_run_that_broke_in_the_second_stage_resumes_bit_for_bit(
    go: Callable, tmp_path: Path
) -> None:
    go(tmp_path / "unbroken")
    with pytest.raises(OSError, match="went away"):
        go(tmp_path / "broken", fail_at=3)
    go(tmp_path / "broken", resume=True)
    one, two = (load_checkpoint(tmp_path / name).weights for name in ("unbroken", "broken"))
    assert weights_digest(one) == weights_digest(two)
