"""Transformer blocks modulated by a condition (AdaLN-zero, Peebles & Xie, arXiv 2212.09748).

Shape legend: B rows, L tokens, D width, H heads, C width of the condition.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn


def sinusoids(level: Float[Tensor, " b"], width: int) -> Float[Tensor, "b width"]:
    """Sine and cosine features of a level in [0, 1], wavelengths from 1e-3 to 10 (geometric)."""
    half = width // 2
    rates = torch.exp(torch.linspace(0, math.log(1e4), half, device=level.device))
    angle = level.float()[:, None] * rates[None] * (2 * math.pi / 10)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        layers += [nn.SiLU()] * (i > 0) + [nn.Linear(fan_in, fan_out)]
    return nn.Sequential(*layers)


def attention(
    q: Float[Tensor, "b n l d"],
    k: Float[Tensor, "b n m d"],
    v: Float[Tensor, "b n m d"],
    mask: Bool[Tensor, "... #l m"] | None = None,
) -> Float[Tensor, "b n l d"]:
    """Scaled dot-product attention; True in ``mask`` may attend."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # For a hundred tokens the fused kernel's backward in bf16 takes five times as long.
        scores = q * q.shape[-1] ** -0.5 @ k.mT
        scores = scores if mask is None else scores.masked_fill(~mask, -math.inf)
        return scores.softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Block(nn.Module):
    """Attention and MLP, each scaled, shifted and gated by the condition."""

    def __init__(self, width: int, heads: int, expansion: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)

    def forward(
        self,
        x_BLD: Float[Tensor, "b l d"],
        modulation_B6D: Float[Tensor, "b 6 d"],
        mask: Bool[Tensor, "... l l"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation_B6D.unsqueeze(2).unbind(1)
        h_BLD = self.norm_attention(x_BLD) * (1 + scale1) + shift1
        x_BLD = x_BLD + gate1 * self.attend(h_BLD, mask)
        h_BLD = self.norm_mlp(x_BLD) * (1 + scale2) + shift2
        return x_BLD + gate2 * self.contract(F.gelu(self.expand(h_BLD), approximate="tanh"))

    def attend(
        self, h_BLD: Float[Tensor, "b l d"], mask: Bool[Tensor, "... l l"] | None
    ) -> Float[Tensor, "b l d"]:
        q, k, v = rearrange(self.qkv(h_BLD), "b l (n h d) -> n b h l d", n=3, h=self.heads)
        return self.out(rearrange(attention(q, k, v, mask), "b h l d -> b l (h d)"))


class Trunk(nn.Module):
    """A stack of blocks under one condition; starts as the identity (all gates are zero).

    The modulations of all blocks come from one linear layer: one fat product instead of many.
    """

    def __init__(self, width: int, depth: int, heads: int, condition: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.modulate = nn.Linear(condition, (6 * depth + 2) * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(
        self,
        x_BLD: Float[Tensor, "b l d"],
        condition_BC: Float[Tensor, "b c"],
        mask: Bool[Tensor, "... l l"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        width = x_BLD.shape[-1]
        modulation = rearrange(self.modulate(F.silu(condition_BC)), "b (n d) -> b n d", d=width)
        for i, block in enumerate(self.blocks):
            x_BLD = block(x_BLD, modulation[:, 6 * i : 6 * i + 6], mask)
        shift, scale = modulation[:, -2:].unsqueeze(2).unbind(1)
        return self.norm(x_BLD) * (1 + scale) + shift
