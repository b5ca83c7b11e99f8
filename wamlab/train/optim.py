"""The optimizer, its schedule and the average of weights: all functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

STATE_KEYS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with warm-up, decay, clipping and EMA.

    ``final`` is the share of ``lr`` that is left at the end. ``clip`` bounds the global norm
    of the gradient and ``ema`` is the decay of the averaged weights; 0 turns either off.
    """

    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup_steps: int = 200
    decay: Literal["cosine", "linear", "none"] = "cosine"
    final: float = 0.0
    clip: float = 1.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.weight_decay < 0 or self.clip < 0 or self.warmup_steps < 0:
            raise ValueError(f"lr must be above 0 and the rest of {self} not below it")
        if not 0 <= self.ema < 1 or not 0 <= self.final <= 1:
            raise ValueError(f"expected 0 <= ema < 1 and 0 <= final <= 1 in {self}")


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """The learning rate of step 0 <= ``step`` < ``steps``.

    It rises linearly over the warm-up (at most a fifth of all steps), reaches ``lr`` at the end of
    it, and would reach ``final * lr`` one step after the last, so that no step is without effect.
    """
    warmup = min(config.warmup_steps, steps // 5)
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    if config.decay == "none":
        return config.lr
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    left = (1 + math.cos(math.pi * progress)) / 2 if config.decay == "cosine" else 1 - progress
    return config.lr * (config.final + (1 - config.final) * left)


def undecayed(model: nn.Module) -> set[str]:
    """Names of the parameters without weight decay: biases, norms, single vectors, `nn.Embedding`.

    Learned tokens and positions that are plain parameters of two dimensions or more are decayed.
    """
    names = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim < 2 or isinstance(module, nn.Embedding) or name == "bias":
                names.add(f"{path}.{name}" if path else name)
    return names


def make_optimizer(
    model: nn.Module, names: Iterable[str], config: OptimConfig
) -> torch.optim.AdamW:
    """A fused AdamW over the named parameters, in two groups: with and without weight decay."""
    names = set(names)
    plain = undecayed(model)
    trained = [(name, p) for name, p in model.named_parameters() if name in names]
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in trained if name not in plain]},
        {"params": [p for name, p in trained if name in plain], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat named tensors, ``<key>/<parameter>``."""
    return {
        f"{key}/{name}": optimizer.state[parameter][key]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for key in STATE_KEYS
    }


def load_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`.

    Raises:
        KeyError: a tensor that belongs to no parameter of this optimizer.
    """
    parameters = dict(model.named_parameters())
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for path, tensor in tensors.items():
        key, _, name = path.partition("/")
        if name not in parameters or id(parameters[name]) not in owned or key not in STATE_KEYS:
            raise KeyError(f"optimizer state {path!r} belongs to no trained parameter")
        parameter = parameters[name]
        optimizer.state[parameter][key] = tensor.to(parameter.device).clone()


class Average:
    """An exponential moving average of the trained parameters.

    Its decay warms up as ``min(decay, (1 + t) / (10 + t))`` at update t = 0, 1, ..., so that a
    short run forgets its first weights. What is not trained (frozen weights, buffers) is not
    averaged but read from the model.
    """

    def __init__(self, model: nn.Module, names: Iterable[str], decay: float) -> None:
        names = set(names)
        self.decay = decay
        self.live = {n: p for n, p in model.named_parameters() if n in names and decay > 0}
        self.shadow = {name: p.detach().clone() for name, p in self.live.items()}

    def decay_at(self, update: int) -> float:
        return min(self.decay, (1 + update) / (10 + update))

    @torch.no_grad()
    def update(self, update: int) -> None:
        if self.live:
            shadow, live = list(self.shadow.values()), [p.detach() for p in self.live.values()]
            weight = 1 - self.decay_at(update)
            torch._foreach_lerp_(shadow, live, weight)  # pyright: ignore[reportPrivateImportUsage]

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The whole state of ``model`` with the averaged parameters in their places."""
        return {**model.state_dict(), **self.shadow}

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        for name, shadow in self.shadow.items():
            shadow.copy_(weights[name])

    @torch.no_grad()
    def adopt(self) -> None:
        """Make the averaged parameters the model's own."""
        for name, parameter in self.live.items():
            parameter.copy_(self.shadow[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model acts with the averaged parameters inside this block."""
        kept = {name: parameter.detach().clone() for name, parameter in self.live.items()}
        self.adopt()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.live.items():
                    parameter.copy_(kept[name])
