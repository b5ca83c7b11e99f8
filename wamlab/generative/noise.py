"""Noise, and what stands where an entry is absent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def generators(seeds: Sequence[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """One generator per row."""
    return [torch.Generator(device=device).manual_seed(int(seed)) for seed in seeds]


def normal(
    shape: Sequence[int], generator: Sequence[torch.Generator], device: torch.device | str = "cpu"
) -> Float[Tensor, "b *shape"]:
    """Standard normal noise (B, *shape), row i from ``generator[i]`` alone.

    Drawn where the generator lives and then moved, so that a seed means the same on every device
    as long as the generators are on the CPU.
    """
    rows = [torch.randn(tuple(shape), generator=g, device=g.device) for g in generator]
    return torch.stack(rows).to(device)


def noise_like(x: Float[Tensor, "*any"], generator: torch.Generator) -> Float[Tensor, "*any"]:
    """Standard normal noise of the shape of ``x``, drawn where the generator lives."""
    return torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)


def fill_absent(
    values: Float[Tensor, "b *rest"],
    present: Bool[Tensor, "b *some"],
    otherwise: Float[Tensor, "*default"] | float = 0.0,
) -> Float[Tensor, "b *rest"]:
    """``values`` where present, else ``otherwise``; what lies there (NaN too) is never read."""
    mask = present.reshape(*present.shape, *[1] * (values.ndim - present.ndim))
    return torch.where(mask, values, otherwise)
