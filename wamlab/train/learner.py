"""One stage of training a model: what one step reads, changes and reports.

Every random number is a function of (seed, stage, step): nothing of the past has to be remembered
to continue a run, on a CPU bit for bit.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from wamlab.models.base import Stage, WorldActionModel
from wamlab.train.augment import random_shift
from wamlab.train.optim import Average, OptimConfig, learning_rate, make_optimizer
from wamlab.types import ACTION, STATE, Batch

SIZED = {ACTION: "action_dim", STATE: "state_dim"}
"""Streams of which the model's configuration holds the size."""

Precision = Literal["f32", "bf16"]
BF16_MUST_GAIN = 1.1
"""bf16 is used when its step is at least this many times as fast as that of f32."""
HOPELESS, SET_UP_MS = 6.0, 2000.0
"""A first pass in bf16 that takes so many times as long as one in f32, and longer than setting up
ever takes, ends the measurement."""


class Batches(Protocol):
    """Training data in raw units: a pure function of the stage and its step."""

    def batch(self, step: int, stage: str) -> Batch: ...


class Normalizer(Protocol):
    """The part of a processor that training needs."""

    def normalize(self, batch: Batch) -> Batch: ...


class Diverged(RuntimeError):
    """A loss or gradient is NaN or infinite; nothing was changed by the step that found it."""

    def __init__(self, what: str, batch: Batch, step: int) -> None:
        super().__init__(what)
        self.batch, self.step = batch, step


@dataclass(frozen=True)
class StepReport:
    """What one step did: the losses by name, the gradient's norm before clipping, the rate."""

    losses: dict[str, float]
    grad_norm: float
    lr: float


def seed_of(*parts: object) -> int:
    """A seed of 63 bits from anything with a plain ``repr``: the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def generator_of(device: torch.device, *parts: object) -> torch.Generator:
    """A fresh generator on ``device``, seeded by `seed_of`."""
    return torch.Generator(device).manual_seed(seed_of(*parts))


def weights_digest(weights: Mapping[str, Tensor], names: Iterable[str] | None = None) -> str:
    """SHA-256 over names, types, shapes and bytes of the tensors (default: all), in name order."""
    total = hashlib.sha256()
    for name in sorted(weights if names is None else names):
        total.update(tensor_digest(weights[name], name).encode())
    return total.hexdigest()


def tensor_digest(tensor: Tensor, name: str = "") -> str:
    """SHA-256 of a tensor's type, shape and bytes (and of its name, where given)."""
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    head = f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode()
    return hashlib.sha256(head + raw.tobytes()).hexdigest()


def check_sizes(model: WorldActionModel, sizes: Mapping[str, int]) -> None:
    """Compare the sizes of the data's streams with those that the model's configuration holds.

    Raises:
        ValueError: a stream that the model reads has another size; names the field.
    """
    read = {name for stage in model.stages() for name in stage.window.streams}
    for name in sorted(read & SIZED.keys() & sizes.keys()):
        if sizes[name] != (expected := getattr(model.config, SIZED[name])):
            raise ValueError(
                f"the data have {name} size {sizes[name]}, but {model.name} expects {expected}: "
                f"set model.{SIZED[name]}={sizes[name]}"
            )


def named_by(model: WorldActionModel, prefixes: Iterable[str]) -> list[str]:
    """The parameters whose names start with one of the prefixes.

    Raises:
        ValueError: a prefix that no parameter has.
    """
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            tops = sorted({name.split(".")[0] for name in names})
            raise ValueError(f"no parameter of {model.name} starts with {prefix!r}; it has {tops}")
    return [name for name in names if name.startswith(tuple(prefixes))]


def buffers_under(model: WorldActionModel, prefixes: Iterable[str]) -> list[str]:
    """The buffers that a checkpoint keeps and whose names start with one of the prefixes."""
    learnt = {name for name, _ in model.named_parameters()}
    found = (name for name in model.state_dict() if name not in learnt)
    return [name for name in found if name.startswith(tuple(prefixes))]


class Learner:
    """A model, its optimizer and its average within one stage of ``steps`` steps."""

    def __init__(
        self,
        model: WorldActionModel,
        stage: Stage,
        processor: Normalizer,
        optim: OptimConfig,
        *,
        seed: int,
        augment_shift: int = 0,
        precision: Precision = "f32",
        steps: int = 1,
    ) -> None:
        self.model, self.stage, self.processor, self.optim = model, stage, processor, optim
        self.seed, self.augment_shift = seed, augment_shift
        self.precision: Precision = precision
        self.steps = steps
        within = set(named_by(model, stage.trains))
        learnable = {name for name, p in model.named_parameters() if p.requires_grad}
        self.trained = sorted(within & learnable)
        # A statistic or a codebook that follows the training decides as much as a weight.
        self.produced = sorted({*self.trained, *buffers_under(model, stage.trains)})
        self.frozen = sorted(model.state_dict().keys() - set(self.produced))
        if not self.trained:
            raise ValueError(f"stage {stage.name!r} of {model.name} has no parameter to train")
        self._held = [p for name, p in model.named_parameters() if name in learnable - within]
        self.restart()

    def restart(self) -> None:
        """A fresh optimizer and average, as before the stage's first step."""
        self.optimizer = make_optimizer(self.model, self.trained, self.optim)
        self.average = Average(self.model, self.trained, self.optim.ema)

    def __enter__(self) -> Learner:
        self._requires_grad(False)
        self.model.train()
        return self

    def __exit__(self, *_: object) -> None:
        self._requires_grad(True)

    def _requires_grad(self, on: bool) -> None:
        for parameter in self._held:
            parameter.requires_grad_(on)

    def frozen_digest(self) -> str:
        """The digest of all weights and buffers that this stage must leave as they are."""
        return weights_digest(self.model.state_dict(), self.frozen)

    def produced_digest(self) -> str:
        """The digest of what this stage trains, and of the buffers that follow it."""
        return weights_digest(self.model.state_dict(), self.produced)

    def losses(self, raw: Batch, step: int, purpose: str = "train") -> dict[str, Tensor]:
        """The model's losses on a raw batch, its noise being a function of seed, stage and step."""
        device = self.model.device
        parts = (self.seed, purpose, self.stage.name, step)
        torch.manual_seed(seed_of(*parts, "layers"))  # for layers that draw by themselves (dropout)
        generator = generator_of(device, *parts, "noise")
        batch = self.processor.normalize(raw.to(device))
        if purpose == "train":
            shift = generator_of(device, *parts, "shift")
            batch = random_shift(batch, self.augment_shift, shift)
        with autocast(device, self.precision):
            return self.model.loss(batch, stage=self.stage.name, step=step, generator=generator)

    def step(self, raw: Batch, step: int) -> StepReport:
        """One optimizer step.

        Raises:
            Diverged: the loss or a gradient is not finite; the weights are left as they were.
        """
        rate = learning_rate(self.optim, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.losses(raw, step)
        losses["loss"].backward()
        norm = self._clip()
        report = {name: float(value.detach()) for name, value in losses.items()}
        bad = next((name for name, value in report.items() if not math.isfinite(value)), None)
        if bad or not math.isfinite(norm):
            culprit = f"loss {bad!r} is {report[bad]}" if bad else f"gradient norm is {norm}"
            raise Diverged(f"{culprit} at step {step} of stage {self.stage.name!r}", raw, step)
        self.optimizer.step()
        self.model.after_step()
        self.average.update(step)
        return StepReport(report, norm, rate)

    def _clip(self) -> float:
        gradients = [p for group in self.optimizer.param_groups for p in group["params"]]
        bound = self.optim.clip or math.inf
        return float(torch.nn.utils.clip_grad_norm_(gradients, bound))

    @torch.no_grad()
    def validate(self, batches: Batches, count: int) -> dict[str, float]:
        """Mean losses of the averaged weights on ``count`` held-out batches with the same noise."""
        sums: dict[str, float] = {}
        self.model.eval()
        with self.average.applied():
            for index in range(count):
                raw = batches.batch(index, self.stage.name)
                for name, value in self.losses(raw, index, "validation").items():
                    sums[name] = sums.get(name, 0.0) + float(value) / count
        self.model.train()
        return sums


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Where matrix products run in bf16; a no-op for f32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def measure_precision(learner: Learner, raw: Batch, repeats: int = 3) -> dict[str, float | str]:
    """Time forward and backward in f32 and bf16 on a real batch, and decide which one pays.

    Returns ``{"f32_ms", "bf16_ms", "choice"}``; weights and buffers are left as they were. A
    processor that only emulates bf16 takes ten times as long: there the first pass tells enough.
    """
    best: dict[str, float] = {}
    work = partial(_forward_backward, learner, raw)
    with unchanged(learner):
        for precision in ("f32", "bf16"):
            learner.precision = precision
            first = 1000 * _seconds(learner, work)
            hopeless = first > max(HOPELESS * best.get("f32", math.inf), SET_UP_MS)
            more = (_seconds(learner, work) for _ in range(repeats))
            best[precision] = first if hopeless else 1000 * min(more)
    choice = "bf16" if best["f32"] >= BF16_MUST_GAIN * best["bf16"] else "f32"
    return {"f32_ms": best["f32"], "bf16_ms": best["bf16"], "choice": choice}


def measure_step(
    learner: Learner, batches: Batches, seconds: float, warm: int = 2, least: int = 3
) -> float:
    """Seconds of one whole step, data included, over about ``seconds`` seconds after a warm-up.

    The model is left as it was, so that what follows is a function of the step alone.
    """
    with unchanged(learner):
        count, start = -warm, time.perf_counter()
        while count < least or time.perf_counter() - start < seconds:
            if count == 0:
                _wait(learner)
                start = time.perf_counter()
            raw = batches.batch(warm + count, learner.stage.name)
            learner.step(raw, warm + count)
            count += 1
        _wait(learner)
        return (time.perf_counter() - start) / count


@contextmanager
def unchanged(learner: Learner) -> Iterator[None]:
    """Before a stage's first step: a block that leaves weights and buffers as they were."""
    state = learner.model.state_dict()
    state = {name: value.detach().clone() for name, value in state.items()}
    precision = learner.precision
    try:
        yield
    finally:
        learner.precision = precision
        learner.model.load_state_dict(state)
        learner.model.zero_grad(set_to_none=True)
        learner.restart()


def _forward_backward(learner: Learner, raw: Batch) -> None:
    learner.model.zero_grad(set_to_none=True)
    learner.losses(raw, 0)["loss"].backward()


def _seconds(learner: Learner, work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    _wait(learner)
    return time.perf_counter() - start


def _wait(learner: Learner) -> None:
    if learner.model.device.type == "cuda":
        torch.cuda.synchronize(learner.model.device)
