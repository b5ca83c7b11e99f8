"""Flow matching with a linear path (Lipman et al., arXiv 2210.02747; Liu et al., 2209.03003).

Convention of the whole library: sigma = 1 is noise, sigma = 0 is clean,
``x_sigma = (1 - sigma) x + sigma noise`` and the velocity is ``dx_sigma / dsigma = noise - x``.
A sampler walks sigma down from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wamlab.generative.noise import fill_absent, normal
from wamlab.types import Denoised, Stream


def like(sigma: Float[Tensor, " b"], x: Float[Tensor, "b *rest"]) -> Float[Tensor, "b *ones"]:
    """One level per row, shaped to broadcast over ``x``."""
    return sigma.reshape(-1, *[1] * (x.ndim - 1))


def interpolate(
    x: Float[Tensor, "b *rest"], noise: Float[Tensor, "b *rest"], sigma: Float[Tensor, " b"]
) -> Float[Tensor, "b *rest"]:
    """The point of the path at level ``sigma``; at 1 it does not depend on ``x`` at all."""
    level = like(sigma, x)
    return (1 - level) * x + level * noise


def velocity(
    x: Float[Tensor, "b *rest"], noise: Float[Tensor, "b *rest"]
) -> Float[Tensor, "b *rest"]:
    return noise - x


def clean_from_velocity(
    x_sigma: Float[Tensor, "b *rest"], v: Float[Tensor, "b *rest"], sigma: Float[Tensor, " b"]
) -> Float[Tensor, "b *rest"]:
    return x_sigma - like(sigma, x_sigma) * v


def velocity_from_clean(
    x_sigma: Float[Tensor, "b *rest"], x: Float[Tensor, "b *rest"], sigma: Float[Tensor, " b"]
) -> Float[Tensor, "b *rest"]:
    """The velocity that a clean-data prediction implies; sigma must be above 0."""
    return (x_sigma - x) / like(sigma, x_sigma)


def guide(
    unconditional: Float[Tensor, "*any"], conditional: Float[Tensor, "*any"], scale: float
) -> Float[Tensor, "*any"]:
    """Classifier-free guidance ``u + scale (c - u)``: 0 ignores the condition, 1 is no guidance."""
    return unconditional + scale * (conditional - unconditional)


def levels(steps: int, stop: float = 0.0) -> list[float]:
    """``steps + 1`` levels from 1 down to ``stop``, evenly spaced.

    Raises:
        ValueError: fewer than one step, or a stop level outside [0, 1).
    """
    if steps < 1 or not 0 <= stop < 1:
        raise ValueError(f"expected steps >= 1 and 0 <= stop < 1, got {steps} and {stop}")
    return [1 - (1 - stop) * i / steps for i in range(steps + 1)]


def euler(
    field: Callable[[Float[Tensor, "b *rest"], float], Float[Tensor, "b *rest"]],
    x: Float[Tensor, "b *rest"],
    sigmas: Sequence[float],
) -> Float[Tensor, "b *rest"]:
    """Integrate ``dx/dsigma = field(x, sigma)`` along ``sigmas``: exact for a constant velocity."""
    for here, there in pairwise(sigmas):
        x = x + (there - here) * field(x, here)
    return x


def commit(
    x_sigma: Float[Tensor, "b h a"],
    prefix: Stream | None,
    noise: Float[Tensor, "b h a"],
    sigma: float,
) -> Float[Tensor, "b h a"]:
    """Put actions that are already decided, at this level, in place of the first of the chunk."""
    if prefix is None:
        return x_sigma
    k = prefix.values.shape[1]
    decided = (1 - sigma) * prefix.values + sigma * noise[:, :k]
    return torch.cat([decided, x_sigma[:, k:]], dim=1)


def gaussian_velocity(
    x_sigma: Float[Tensor, "*any"], sigma: float, mean: float, std: float
) -> Float[Tensor, "*any"]:
    """The exact velocity field of data N(mean, std^2): ``E[noise - x | x_sigma]``."""
    keep = 1 - sigma
    variance = (keep * std) ** 2 + sigma**2
    gain = (sigma - keep * std**2) / variance
    return -mean + gain * (x_sigma - keep * mean)


def draw_levels(
    rows: int, *, generator: torch.Generator, marginal: float = 0.0, clean: float = 0.0
) -> Float[Tensor, " rows"]:
    """Training levels: 1 with probability ``marginal``, 0 with ``clean``, else uniform.

    The two atoms are the labels at which a sampler holds a stream (marginalised, given), so that
    training has seen them exactly.
    """
    u, kind = torch.rand(2, rows, generator=generator, device=generator.device)
    sigma = torch.where(kind < marginal, torch.ones_like(u), u)
    return torch.where(kind > 1 - clean, torch.zeros_like(u), sigma)


def masked_mean(values: Float[Tensor, "b t *rest"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Mean over the entries whose (row, instant) is in ``mask``; exactly 0 where there is none."""
    weight = mask.reshape(*mask.shape, *[1] * (values.ndim - 2)).to(values.dtype)
    per_entry = values[0, 0].numel()
    kept = torch.where(weight > 0, values, torch.zeros_like(values))
    return kept.sum() / (weight.sum() * per_entry).clamp(min=1)


def recoveries(
    denoise: Callable[[Float[Tensor, "b *rest"], Float[Tensor, " b"]], Float[Tensor, "b *rest"]],
    x: Float[Tensor, "b *rest"],
    present: Bool[Tensor, "b *some"],
    *,
    levels: Float[Tensor, " l"],
    generator: Sequence[torch.Generator],
) -> list[Float[Tensor, "b *rest"]]:
    """What ``denoise`` makes of ``x`` at each level, with fresh noise from each row's own.

    An absent entry is noise at every level.
    """
    found = []
    for level in levels.tolist():
        noise, sigma = normal(x.shape[1:], generator, x.device), x.new_full((len(x),), level)
        found.append(denoise(fill_absent(interpolate(x, noise, sigma), present, noise), sigma))
    return found


def recovered(
    levels: Float[Tensor, " l"],
    shown: Sequence[Float[Tensor, "b *rest"]],
    true: Float[Tensor, "b *rest"],
    present: Bool[Tensor, "b *some"],
) -> Denoised:
    """How far the clean values ``shown`` at each level are from the ``true`` ones that are present.

    What is absent is not read.
    """
    there = present.reshape(*present.shape, *[1] * (true.ndim - present.ndim)).expand(true.shape)
    total = lambda values: torch.where(there, values, 0.0).flatten(1).sum(1)  # noqa: E731
    errors = torch.stack([total((clean - true).square()) for clean in shown], dim=1)
    return Denoised(levels, errors, total(true.square()), there.flatten(1).sum(1))
