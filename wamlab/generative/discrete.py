"""Discrete tokens: uniform bins of continuous values, masked cross-entropy, draws row by row.

Bins follow RT-1 and OpenVLA (arXiv 2406.09246, section 3.1): uniform between two quantiles of the
data, each bin standing for its centre. There are as many centres as bins, and a value outside the
edges falls into the outermost bin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def to_bins(
    values: Float[Tensor, "*lead d"],
    low: Float[Tensor, " d"],
    high: Float[Tensor, " d"],
    bins: int,
) -> Int[Tensor, "*lead d"]:
    """The bin, 0 to ``bins - 1``, of each value; ``low`` and ``high`` are the outermost edges."""
    _check(low, high, bins)
    unit = (values - low) / (high - low)
    return (unit * bins).floor().clamp(0, bins - 1).long()


def from_bins(
    tokens: Int[Tensor, "*lead d"],
    low: Float[Tensor, " d"],
    high: Float[Tensor, " d"],
    bins: int,
) -> Float[Tensor, "*lead d"]:
    """The centres of the bins; a value within the edges comes back within half a bin."""
    _check(low, high, bins)
    return low + (tokens + 0.5) / bins * (high - low)


def masked_cross_entropy(
    logits: Float[Tensor, "*lead k"],
    tokens: Int[Tensor, "*lead"],
    mask: Bool[Tensor, "*lead"],
    weight: Float[Tensor, "*lead"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy in nats over ``mask``, exactly 0 where there is none.

    With ``weight`` it is the weighted mean ``sum(w ce) / sum(w)``. Tokens outside the mask are
    not read.
    """
    safe = torch.where(mask, tokens, 0)
    each = F.cross_entropy(logits.flatten(0, -2), safe.flatten(), reduction="none")
    w = mask.float() if weight is None else mask * weight
    each = torch.where(mask, each.reshape(mask.shape), 0.0)
    total = w.sum()
    return (each * w).sum() / torch.where(total > 0, total, 1.0)


def row_nats(
    logits: Float[Tensor, "b *lead k"],
    tokens: Int[Tensor, "b *lead"],
    mask: Bool[Tensor, "b *lead"],
) -> Float[Tensor, " b"]:
    """The exact ``-log p`` of each row's tokens in ``mask``, in nats: a sum, not a mean.

    Where every distribution was given the row's true tokens before it (teacher forcing), this is
    the likelihood of the whole row, by the chain rule.
    """
    safe = torch.where(mask, tokens, 0)
    each = -logits.log_softmax(-1).gather(-1, safe[..., None])[..., 0]
    return torch.where(mask, each, 0.0).flatten(1).sum(1)


def bin_nats(low: Float[Tensor, " d"], high: Float[Tensor, " d"], bins: int) -> Float[Tensor, " d"]:
    """What a token's nats lack of those of the value that it stands for: the log of a bin's width.

    A probability P of a bin is a density ``P / width`` within it. With this added, tokens and
    continuous values are measured alike.
    """
    _check(low, high, bins)
    return ((high - low) / bins).log()


def draw(
    logits: Float[Tensor, "b *lead k"],
    generator: Sequence[torch.Generator],
    temperature: float = 1.0,
) -> Int[Tensor, "b *lead"]:
    """One token per distribution, row i from ``generator[i]`` alone; temperature 0 is the mode.

    Drawn by adding Gumbel noise (Gumbel 1954), which is drawn where the generator lives.

    Raises:
        ValueError: a negative temperature.
    """
    if temperature < 0:
        raise ValueError(f"temperature is at least 0, got {temperature}")
    if temperature == 0:
        return logits.argmax(-1)
    uniform = torch.stack(
        [torch.rand(logits.shape[1:], generator=g, device=g.device) for g in generator]
    ).to(logits.device)
    tiny = torch.finfo(uniform.dtype).tiny
    gumbel = -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()
    return (logits / temperature + gumbel).argmax(-1)


def _check(low: Float[Tensor, " d"], high: Float[Tensor, " d"], bins: int) -> None:
    if bins < 1:
        raise ValueError(f"there is at least one bin, got {bins}")
    if not bool((high > low).all()):
        raise ValueError(f"bins need low < high, got {low.tolist()} and {high.tolist()}")
