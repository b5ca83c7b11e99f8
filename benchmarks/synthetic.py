"""Any registered model with raw batches of the right shape: what benchmarks need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from wamlab.data.normalize import Statistics
from wamlab.data.processor import Processor, ProcessorConfig
from wamlab.models.base import ModelConfig, WorldActionModel, model_class
from wamlab.train.provenance import provenance
from wamlab.types import ACTION, IMAGE, ROLES, STATE, Batch, Stream, Text

SENTENCES = ("press the button", "open the window", "unlock the door")


class SyntheticBatches:
    """Random rows that are a function of (stage, step), with everything present."""

    def __init__(self, model: WorldActionModel, rows: int) -> None:
        self.config, self.rows = model.config, rows
        self.windows = {stage.name: stage.window for stage in model.stages()}
        rng = np.random.default_rng(0)
        self.pooled = rng.normal(size=(len(SENTENCES), self.config.text_dim)).astype(np.float32)

    def batch(self, step: int, stage: str) -> Batch:
        rng = np.random.default_rng([step, *stage.encode()])
        streams = self.windows[stage].streams.items()
        which = rng.integers(0, len(SENTENCES), self.rows)
        pooled = self.pooled[which]
        return Batch(
            {name: self._stream(name, offsets, rng) for name, offsets in streams},
            Text(
                [SENTENCES[index] for index in which],
                pooled,
                pooled[:, None],
                np.ones((self.rows, 1), bool),
            ),
            np.ones((self.rows, len(ROLES)), bool),
            np.full(self.rows, self.config.rate_hz, np.float32),
            [""] * self.rows,
        )

    def _stream(self, name: str, offsets: tuple[int, ...], rng: np.random.Generator) -> Stream:
        shape, c = (self.rows, len(offsets)), self.config
        if name.startswith(IMAGE):
            size = (c.image_size, c.image_size, 3)
            values = rng.integers(0, 256, (*shape, *size), dtype=np.uint8)
        else:
            width = {ACTION: c.action_dim, STATE: c.state_dim}.get(name, 1)
            values = rng.uniform(-1, 1, (*shape, width)).astype(np.float32)
        return Stream(values, np.tile(np.asarray(offsets), (self.rows, 1)), np.ones(shape, bool))


def build(name: str, size: str, rows: int) -> tuple[WorldActionModel, SyntheticBatches, Processor]:
    """A model of ``size`` ``tiny`` or ``small``, its batches, and a processor."""
    import torch

    kind = model_class(name)
    config: ModelConfig = getattr(kind.Config, size)()
    torch.manual_seed(0)
    model = kind(config)
    ends = {STATE: config.state_dim, ACTION: config.action_dim}
    statistics = {
        stream: Statistics.of(np.stack([-np.ones(width), np.ones(width)]))
        for stream, width in ends.items()
    }
    fits = ProcessorConfig(
        views=config.views,
        image_size=config.image_size,
        state_names=tuple(f"s{index}" for index in range(config.state_dim)),
        rate_hz=config.rate_hz,
    )
    return model, SyntheticBatches(model, rows), Processor(fits, None, statistics)


def publish(path: Path, found: dict[str, Any]) -> None:
    """Write a result with where it comes from, and show it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**found, "provenance": provenance()}, indent=1) + "\n")
    print(json.dumps(found, indent=1))
