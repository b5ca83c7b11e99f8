"""A VQ tokeniser as the one stage of a run: its codebook is produced and resumed with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_system import VIEW, TinyBatches, TinyProcessor

from wamlab.models.base import ModelConfig, Stage, WorldActionModel
from wamlab.nn.codec import VQ
from wamlab.train.checkpoint import load_checkpoint
from wamlab.train.learner import weights_digest
from wamlab.train.optim import OptimConfig
from wamlab.train.record import read_record
from wamlab.train.trainer import TrainConfig, train
from wamlab.types import Answer, Query, Window

HOW = TrainConfig(
    steps=12,
    precision="f32",
    checkpoint_every=4,
    log_every=4,
    optim=OptimConfig(lr=1e-2, warmup_steps=2, ema=0.9),
)


class Tokenizer(WorldActionModel, name="tiny-tokenizer"):
    """Nothing but the codec."""

    card = {"family": "test"}

    @dataclass(frozen=True, kw_only=True)
    class Config(ModelConfig):
        views: tuple[str, ...] = ("corner",)
        image_size: int = 8

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.codec = VQ(config.image_size, codes=16, channels=4, width=8)

    @property
    def queries(self) -> dict[Query, Answer]:
        return {}

    def stages(self) -> list[Stage]:
        return [Stage("codec", Window({VIEW: (0, 4)}), trains=("codec.",), produces="codec")]

    def loss(self, batch, *, stage, step, generator):
        return self.codec.loss(batch[VIEW].values, batch[VIEW].present, generator)


class Breaking(TinyBatches):
    """Fails when the data of step ``at`` are read."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self.at = at

    def batch(self, step: int, stage: str):
        if step == self.at:
            raise OSError("the disk went away")
        return super().batch(step, stage)


def go(out: Path, fail_at: int | None = None, resume: bool = False) -> None:
    torch.manual_seed(0)
    model, batches = Tokenizer(Tokenizer.Config()), Breaking(fail_at)
    # On a CPU: a GPU adds up in an order of its own.
    train(model, batches, TinyProcessor(), HOW, out, progress=False, resume=resume, device="cpu")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    go(out)
    return out


def test_the_codebook_is_learned_and_part_of_what_the_stage_produced(unbroken: Path) -> None:
    (stage,) = read_record(unbroken).stages
    checkpoint = load_checkpoint(unbroken)
    weights = checkpoint.weights
    assert (stage.produces, stage.digest) == ("codec", weights_digest(weights))
    for name in ("codec.codebook", "codec.usage", "codec.sums"):
        assert weights[name].any()
        assert weights_digest({**weights, name: weights[name] + 1}) != stage.digest

    codec = checkpoint.build().codec
    assert torch.equal(codec.codebook, weights["codec.codebook"])
    frames = torch.from_numpy(TinyBatches().batch(0, "codec")[VIEW].values).movedim(-1, -3)
    tokens = codec.encode(frames / 127.5 - 1)
    assert tokens.shape == (8, 2, 1, 1)
    assert len(tokens.unique()) > 1


@pytest.mark.parametrize("at", [3, 6, 11])
def test_a_tokeniser_that_broke_resumes_bit_for_bit(
    unbroken: Path, tmp_path: Path, at: int
) -> None:
    with pytest.raises(OSError, match="went away"):
        go(tmp_path, fail_at=at)
    go(tmp_path, resume=True)
    one, two = (load_checkpoint(out) for out in (unbroken, tmp_path))
    assert weights_digest(one.weights) == weights_digest(two.weights)
    assert weights_digest(one.trained()) == weights_digest(two.trained())
    assert read_record(tmp_path).stages[0].digest == read_record(unbroken).stages[0].digest
