"""A short run that breaks off inside every stage and is resumed, beside one that does not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from wamlab.models.base import ModelConfig, Stage, WorldActionModel
from wamlab.train.optim import OptimConfig
from wamlab.train.record import StageRecord, read_record
from wamlab.train.synthetic import mixed_batch
from wamlab.train.trainer import TrainConfig, train
from wamlab.types import Batch

LEAST = 2
"""Steps of the shortest stage: one before it breaks off and one after."""


class BrokenOff(RuntimeError):
    """What ends a run in the midst of a stage."""


@dataclass
class Synthetic:
    """Batches by stage and step; in a stage of ``breaks`` the second is once not to be had."""

    config: ModelConfig
    stages: Mapping[str, Stage]
    rows: int
    breaks: set[str]

    def batch(self, step: int, stage: str) -> Batch:
        if step == 1 and stage in self.breaks:
            self.breaks.remove(stage)
            raise BrokenOff(stage)
        return mixed_batch(self.config, self.stages[stage], step, self.rows)


class AsItIs:
    """A processor for batches that are normalised already."""

    def normalize(self, batch: Batch) -> Batch:
        return batch

    def save(self, folder: Path) -> None:
        """There is nothing to keep."""


def stages_of_a_run(
    build: Callable[[int], WorldActionModel],
    statistics: Mapping[str, Any],
    out: Path,
    *,
    rows: int,
    breaks: bool,
) -> list[StageRecord]:
    """What a finished run records of its stages; with ``breaks`` each broke off and was resumed.

    Every attempt has a model of its own (``build`` takes a seed) with other initial weights, so
    that whatever a checkpoint does not hold is lost.
    """
    model = build(0)
    stages = {stage.name: stage for stage in model.stages()}
    steps = steps_for(stages.values())
    config = TrainConfig(
        steps=steps,
        batch_size=rows,
        precision="f32",
        checkpoint_every=1 if breaks else steps,
        optim=OptimConfig(lr=3e-3, ema=0.5),
    )
    batches = Synthetic(model.config, stages, rows, {*stages} if breaks else set())
    for attempt in range(len(stages) + 1):
        with suppress(BrokenOff):
            train(
                build(attempt),
                batches,
                AsItIs(),
                config,
                out,
                resume=attempt > 0,
                device="cpu",
                progress=False,
                statistics=statistics,
            )
            break
    return read_record(out).stages


def steps_for(stages: Collection[Stage]) -> int:
    """The fewest steps of a run in which every stage, by its share, has at least `LEAST`."""
    total = sum(stage.share for stage in stages)
    return ceil(max(LEAST * total / stage.share for stage in stages))
