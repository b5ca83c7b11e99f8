"""The smallest model, data and processor that training can be held to."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wamlab.models.base import ModelConfig, Stage, WorldActionModel
from wamlab.types import ACTION, STATE, Answer, Batch, Query, Stream, Text, Window

VIEW = "image/corner"


class TinyModel(WorldActionModel, name="tiny"):
    """A vision part and an action part, with noise from the generator and from dropout."""

    card = {"family": "test"}

    @dataclass(frozen=True, kw_only=True)
    class Config(ModelConfig):
        views: tuple[str, ...] = ("corner",)
        image_size: int = 8
        width: int = 16
        staged: bool = False
        poison_at: int = -1

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pixels = 3 * config.image_size**2
            self.world = nn.Sequential(
                nn.Linear(pixels, config.width), nn.GELU(), nn.LayerNorm(config.width)
            )
            self.actor = nn.Sequential(nn.Dropout(0.1), nn.Linear(config.width + 4, 4))
        for part in (self.world, self.actor):
            part.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.learning = "world"
        self.register_buffer("center", torch.zeros(()))

    @property
    def queries(self) -> dict[Query, Answer]:
        return {}

    def stages(self) -> list[Stage]:
        window = Window({VIEW: (0, 4), STATE: (0,), ACTION: tuple(range(4))})
        if not self.config.staged:
            return [Stage("joint", window)]
        return [
            Stage("world", window, trains=("world.",), share=1.0, produces="features"),
            Stage("actor", window, trains=("actor.",), share=3.0),
        ]

    def fit(self, statistics):
        self.center.fill_(statistics.get("center", 0.0))

    def after_step(self) -> None:
        getattr(self, self.learning).seen += 1

    def loss(self, batch, *, stage, step, generator):
        self.learning = "actor" if stage == "actor" else "world"
        image = batch[VIEW].values.flatten(2)
        features = self.world(image)
        if stage == "world":
            loss = (features[:, 1] - features[:, 0]).square().mean() + features.square().mean()
        else:
            action = batch[ACTION].values[:, 0]
            noise = torch.randn(action.shape, generator=generator, device=action.device)
            output = self.actor(torch.cat([features[:, 0], 0.1 * noise], -1))
            loss = (output.float() - action - self.center).square().mean()
        if step == self.config.poison_at:
            loss = loss * float("nan")
        return {"loss": loss, "action": loss.detach()}


class TinyBatches:
    """Rows that are a function of (seed, stage, step)."""

    def __init__(self, rows: int = 8, seconds: float = 0.0) -> None:
        self.rows, self.seconds, self.asked = rows, seconds, []

    def batch(self, step: int, stage: str) -> Batch:
        time.sleep(self.seconds)
        self.asked.append((stage, step))
        rng = np.random.default_rng([step, len(stage)])
        images = rng.integers(0, 256, (self.rows, 2, 8, 8, 3), dtype=np.uint8)
        action = rng.normal(0.5, 0.1, (self.rows, 4, 4)).astype(np.float32)
        return Batch(
            {
                VIEW: self._stream(images, (0, 4)),
                ACTION: self._stream(action, range(4)),
            },
            Text(["press the button"] * self.rows),
            np.ones((self.rows, 4), bool),
            np.full(self.rows, 80.0, np.float32),
            ["sawyer"] * self.rows,
        )

    def _stream(self, values, offsets) -> Stream:
        offsets = np.tile(np.asarray(offsets), (self.rows, 1))
        return Stream(values, offsets, np.ones(offsets.shape, bool))


class TinyProcessor:
    def normalize(self, batch: Batch) -> Batch:
        image = batch[VIEW]
        values = image.values.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
        image = Stream(values, image.offsets, image.present)
        return Batch(
            {**batch.streams, VIEW: image}, batch.text, batch.role, batch.rate, batch.embodiment
        )

    def save(self, folder: Path) -> None:
        (folder / "processor.json").write_text(json.dumps({"low": 0, "high": 255}))


def make(**config) -> TinyModel:
    return TinyModel(TinyModel.Config(**config))


def setup(seed: int = 0, batch_size: int = 8) -> dict:
    """What the benchmarks train by default."""
    return {
        "model": make(),
        "batches": TinyBatches(batch_size, seconds=0.002),
        "processor": TinyProcessor(),
    }
