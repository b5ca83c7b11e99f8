"""Diffusion with preconditioned networks: EDM (Karras et al., arXiv 2206.00364).

Noise is added and the data are not scaled down: ``x_sigma = x + sigma noise``, with sigma from 0 up
to far above the deviation of the data (`wamlab.generative.flow` holds sigma in [0, 1] instead). A
network F becomes a denoiser by ``D(x) = skip x + out F(input x, noise)``; a sampler takes sigma
down by ``dx / dsigma = (x - D(x)) / sigma``, in which a level is a deviation in the data's units.
Guidance mixes denoisers as it does velocities: `wamlab.generative.flow.guide`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wamlab.generative.flow import like
from wamlab.generative.noise import fill_absent, normal
from wamlab.types import Stream

Denoiser = Callable[[Float[Tensor, "b *rest"], float], Float[Tensor, "b *rest"]]
"""``x_sigma`` and one level for all rows to the expected clean data."""


class Preconditioning(NamedTuple):
    """The four factors of ``D(x) = skip x + out F(input x, noise)``, one per level (Table 1)."""

    skip: Float[Tensor, " b"]
    out: Float[Tensor, " b"]
    input: Float[Tensor, " b"]
    noise: Float[Tensor, " b"]


def precondition(sigma: Float[Tensor, " b"], sigma_data: float) -> Preconditioning:
    """Factors that give F inputs and targets of variance one for data of deviation ``sigma_data``.

    ``skip x`` alone is the best linear denoiser, so that F has to add as little as possible.
    """
    total = sigma**2 + sigma_data**2
    return Preconditioning(
        skip=sigma_data**2 / total,
        out=sigma * sigma_data / total.sqrt(),
        input=total.rsqrt(),
        noise=sigma.log() / 4,
    )


def weight(sigma: Float[Tensor, " b"], sigma_data: float) -> Float[Tensor, " b"]:
    """The weight ``1 / out^2`` of ``(D - x)^2``: the error of F counts the same at every level."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def add_noise(
    x: Float[Tensor, "b *rest"], noise: Float[Tensor, "b *rest"], sigma: Float[Tensor, " b"]
) -> Float[Tensor, "b *rest"]:
    """``x + sigma noise``, one level per row."""
    return x + like(sigma, x) * noise


def log_normal(
    rows: int, mean: float, std: float, *, generator: torch.Generator
) -> Float[Tensor, " rows"]:
    """Training levels whose logarithm is normal (Section 5)."""
    draw = torch.randn(rows, generator=generator, device=generator.device)
    return (mean + std * draw).exp()


def log_logistic(
    rows: int, mean: float, scale: float, low: float, high: float, *, generator: torch.Generator
) -> Float[Tensor, " rows"]:
    """Training levels in [low, high] whose logarithm is logistic with this mean and scale."""
    below, above = (1 / (1 + math.exp((mean - math.log(end)) / scale)) for end in (low, high))
    # In double precision: the share above a high level is lost in single precision.
    draw = torch.rand(rows, generator=generator, device=generator.device, dtype=torch.float64)
    share = below + (above - below) * draw
    return (mean + scale * torch.logit(share)).exp().float().clamp(low, high)


def karras(
    steps: int, low: float, high: float, *, rho: float = 7.0, stop: float = 0.0
) -> list[float]:
    """``steps + 1`` levels: from ``high`` to ``low`` and then 0 (Eq. 5), denser where it is low.

    With a ``stop`` above 0 they end there instead.

    Raises:
        ValueError: fewer than one step, or not 0 < low < high with a stop below high.
    """
    ends = _ends(steps, low, high, stop)
    bent = [end ** (1 / rho) for end in ends]
    return [level**rho for level in _spread(bent, steps, stop)] + [0.0] * (stop == 0)


def exponential(steps: int, low: float, high: float, *, stop: float = 0.0) -> list[float]:
    """As `karras`, each level the same share of the one before it.

    Raises:
        ValueError: as `karras`.
    """
    bent = [math.log(end) for end in _ends(steps, low, high, stop)]
    return [math.exp(level) for level in _spread(bent, steps, stop)] + [0.0] * (stop == 0)


def euler(
    denoise: Denoiser, x: Float[Tensor, "b *rest"], sigmas: Sequence[float]
) -> Float[Tensor, "b *rest"]:
    """First-order steps along ``sigmas``, one call each; without added noise this is DDIM.

    The first call sees ``x`` at ``sigmas[0]``.
    """
    for here, there in pairwise(sigmas):
        x = toward(denoise(x, here), x, here, there)
    return x


def toward(
    clean: Float[Tensor, "b *rest"], x: Float[Tensor, "b *rest"], here: float, there: float
) -> Float[Tensor, "b *rest"]:
    """Where ``x`` at level ``here`` lies at level ``there``, if ``clean`` is what it comes from."""
    return clean + there / here * (x - clean)


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
    return torch.cat([prefix.values + sigma * noise[:, :k], x_sigma[:, k:]], dim=1)


def trained_levels(
    levels: Float[Tensor, " l"], low: float, high: float
) -> tuple[Float[Tensor, " k"], list[float]]:
    """Flow levels as those of a denoiser that was trained on sigma in [low, high].

    ``x + sigma noise`` has the signal-to-noise ratio of the flow level ``sigma / (1 + sigma)``, so
    that ``E[x | x_sigma]`` is the same on both paths. A level outside of what was trained (1 has an
    infinite sigma) becomes the nearest one inside, each of them once.

    Returns:
        the flow levels that are left, falling, and their sigmas.
    """
    exact = levels.double()
    sigmas = (exact / (1 - exact)).clamp(low, high).unique().flip(0)
    return sigmas / (1 + sigmas), sigmas.tolist()


def recoveries(
    denoise: Denoiser,
    x: Float[Tensor, "b t *rest"],
    present: Bool[Tensor, "b *some"],
    *,
    sigmas: Sequence[float],
    sigma_data: float,
    generator: Sequence[torch.Generator],
) -> list[Float[Tensor, "b t *rest"]]:
    """What ``denoise`` makes of ``x`` at each of ``sigmas``, with fresh noise from each row's own.

    An absent entry is noise of the size that is left of data of deviation ``sigma_data``.
    """
    found = []
    for sigma in sigmas:
        noise = normal(x.shape[1:], generator, x.device)
        unknown = math.hypot(sigma, sigma_data) * noise
        found.append(denoise(fill_absent(x + sigma * noise, present, unknown), sigma))
    return found


def gaussian_denoiser(
    x_sigma: Float[Tensor, "*any"], sigma: float, mean: float, std: float
) -> Float[Tensor, "*any"]:
    """The exact denoiser of data N(mean, std^2): ``E[x | x_sigma]``."""
    return mean + std**2 / (std**2 + sigma**2) * (x_sigma - mean)


def _ends(steps: int, low: float, high: float, stop: float) -> tuple[float, float]:
    if steps < 1 or not 0 < low < high or not 0 <= stop < high:
        raise ValueError(
            f"expected steps >= 1 and 0 < low < high with 0 <= stop < high, "
            f"got {steps}, {low}, {high} and {stop}"
        )
    return high, stop or low


def _spread(ends: Sequence[float], steps: int, stop: float) -> list[float]:
    """Evenly from one end to the other: one level for each step, and the last where it stops."""
    first, last = ends
    gaps = steps if stop else steps - 1
    return [first + (last - first) * i / max(gaps, 1) for i in range(gaps + 1)]
