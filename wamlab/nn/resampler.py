"""From many features to a few tokens (the Perceiver resampler, Alayrac et al., arXiv 2204.14198).

Shape legend: B rows, N features, M latents, D width, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from wamlab.nn.transformer import attention


class Resampler(nn.Module):
    """A fixed number of learned latents that read a set of features, layer by layer.

    The features have no order of their own: whoever calls gives them their places.
    """

    def __init__(self, width: int, latents: int, depth: int, heads: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.layers = nn.ModuleList(ResamplerLayer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, features_BND: Float[Tensor, "b n d"]) -> Float[Tensor, "b m d"]:
        latents_BMD = repeat(self.latents, "m d -> b m d", b=len(features_BND))
        for layer in self.layers:
            latents_BMD = layer(latents_BMD, features_BND)
        return self.norm(latents_BMD)


class ResamplerLayer(nn.Module):
    """The latents read the features and each other, then pass through a network of their own."""

    def __init__(self, width: int, heads: int, expansion: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.norm_features = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.ask = nn.Linear(width, width, bias=False)
        self.offer = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)

    def forward(
        self, latents_BMD: Float[Tensor, "b m d"], features_BND: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b m d"]:
        asking = self.norm_latents(latents_BMD)
        offered = self.offer(torch.cat([self.norm_features(features_BND), asking], dim=1))
        q = rearrange(self.ask(asking), "b m (h d) -> b h m d", h=self.heads)
        k, v = rearrange(offered, "b n (two h d) -> two b h n d", two=2, h=self.heads)
        read = rearrange(attention(q, k, v), "b h m d -> b m (h d)")
        latents_BMD = latents_BMD + self.out(read)
        return latents_BMD + self.contract(F.gelu(self.expand(self.norm_mlp(latents_BMD))))
