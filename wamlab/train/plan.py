"""What a training run will take, before it is begun: parameters, FLOPs, memory, minutes."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from wamlab.models.base import Stage, WorldActionModel
from wamlab.train.budget import RESERVE, split_steps
from wamlab.train.learner import (
    Batches,
    Learner,
    Normalizer,
    Precision,
    autocast,
    check_sizes,
    generator_of,
    measure_precision,
    measure_step,
)
from wamlab.train.trainer import TrainConfig
from wamlab.types import Batch

MEGA = 1e6


@dataclass(frozen=True)
class StagePlan:
    """One stage: ``gflops`` are of a training step (forward and backward) per sample.

    ``roles`` are the shares of its rows that may teach each of `wamlab.types.ROLES`, where known.
    """

    name: str
    trained: int
    gflops: float
    ms_per_step: float
    samples_per_s: float
    steps: int
    minutes: float
    roles: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        shares = ", ".join(f"{role} {share:.0%}" for role, share in self.roles.items())
        return (
            f"stage {self.name}: {self.trained / MEGA:.2f} M trained, {self.gflops:.2f} GFLOP and "
            f"{1000 / self.samples_per_s:.2f} ms a sample ({self.samples_per_s:.0f} samples/s); "
            f"{self.steps} steps, {self.minutes:.1f} minutes"
            + (f"; rows that may teach: {shares}" if shares else "")
        )


@dataclass(frozen=True)
class Plan:
    """What training takes. Parameters are counted, FLOPs counted, times measured; memory in MB.

    ``state_mb`` is weights, gradients, both moments of AdamW and the average; ``step_mb`` is what
    one step was seen to need besides (activations). ``tokens`` is what the model tells, or None.
    """

    model: str
    parameters: int
    tokens: int | None
    precision: Precision
    batch_size: int
    state_mb: float
    step_mb: float
    stages: tuple[StagePlan, ...]

    @property
    def minutes(self) -> float:
        return sum(stage.minutes for stage in self.stages)

    def __str__(self) -> str:
        tokens = "" if self.tokens is None else f", {self.tokens} tokens"
        lines = [
            f"{self.model}: {self.parameters / MEGA:.2f} M parameters{tokens}, {self.precision}, "
            f"batches of {self.batch_size}",
            f"memory: {self.state_mb:.0f} MB for weights and optimizer, "
            f"{self.step_mb:.0f} MB more in a step",
        ]
        return "\n".join([*lines, *map(str, self.stages)])


def plan(
    model: WorldActionModel,
    batches: Batches,
    processor: Normalizer,
    config: TrainConfig,
) -> Plan:
    """Measure a few steps of every stage on real batches; the model is left as it was.

    Raises:
        ValueError: the data have another action or state size than the model.
    """
    stages = model.stages()
    raws = [batches.batch(0, stage.name) for stage in stages]
    for raw in raws:
        check_sizes(model, {name: s.values.shape[-1] for name, s in raw.streams.items()})
    learners = [_learner(model, stage, processor, config) for stage in stages]
    precision = _precision(learners[0], raws[0], config)
    measured = []
    for learner, raw in zip(learners, raws, strict=True):
        learner.precision = precision
        with learner:
            gflops = training_flops(learner, raw) / len(raw) / 1e9
            measured.append((gflops, *timed_step(learner, raw)))
    counts = _steps(config, stages, [seconds for _, seconds, _ in measured])
    size = {name: p.numel() for name, p in model.named_parameters()}
    trained = [sum(size[name] for name in learner.trained) for learner in learners]
    copies = 4 if config.optim.ema else 3
    tokens: Any = getattr(model, "tokens", None)
    return Plan(
        model.name,
        sum(size.values()),
        tokens if isinstance(tokens, int) else None,
        precision,
        len(raws[0]),
        state_mb=4 * (sum(size.values()) + copies * max(trained)) / MEGA,
        step_mb=max(grown for _, _, grown in measured),
        stages=tuple(
            StagePlan(stage.name, n, gflops, 1000 * s, len(raw) / s, steps, steps * s / 60)
            for stage, n, (gflops, s, _), raw, steps in zip(
                stages, trained, measured, raws, counts, strict=True
            )
        ),
    )


def training_flops(learner: Learner, raw: Batch) -> float:
    """FLOPs of one forward and backward pass over a raw batch (2 per multiply and add).

    Attention is counted in its plain form, because fused CPU kernels are not.
    """
    model, device = learner.model, learner.model.device
    batch = learner.processor.normalize(raw.to(device))
    generator = generator_of(device, learner.seed, "flops")
    counter = FlopCounterMode(display=False)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    with counter, sdpa_kernel(SDPBackend.MATH), autocast(device, learner.precision):
        losses = model.loss(batch, stage=learner.stage.name, step=0, generator=generator)
        losses["loss"].backward()
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
    return float(counter.get_total_flops())


def timed_step(learner: Learner, raw: Batch, repeats: int = 3) -> tuple[float, float]:
    """Mean seconds of some whole steps, and the MB that memory grew by in them."""

    class Same:
        def batch(self, step: int, stage: str) -> Batch:
            return raw

    device = learner.model.device
    before = _memory(device)
    seconds = measure_step(learner, Same(), 0.0, warm=1, least=repeats)
    return seconds, max(0.0, _memory(device) - before)


def _memory(device: torch.device) -> float:
    """The highest use of memory so far, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGA
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGA


def _learner(
    model: WorldActionModel, stage: Stage, processor: Normalizer, config: TrainConfig
) -> Learner:
    return Learner(
        model,
        stage,
        processor,
        config.optim,
        seed=config.seed,
        augment_shift=config.augment_shift,
    )


def _steps(config: TrainConfig, stages: list[Stage], seconds: list[float]) -> list[int]:
    if config.steps is not None:
        return split_steps(config.steps, stages)
    total = sum(stage.share for stage in stages)
    budget = 60 * (1 - RESERVE) * (config.minutes or 0.0)
    pairs = zip(stages, seconds, strict=True)
    return [max(1, int(budget * stage.share / total / each)) for stage, each in pairs]


def _precision(learner: Learner, raw: Batch, config: TrainConfig) -> Precision:
    if config.precision != "auto":
        return config.precision
    with learner:
        choice = measure_precision(learner, raw)["choice"]
    return "bf16" if choice == "bf16" else "f32"
