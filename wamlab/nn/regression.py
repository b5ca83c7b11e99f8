"""Regression beside diffusion: a short way from the actions to what encodes the observation."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from wamlab.generative import flow
from wamlab.nn.transformer import mlp


class ChunkRegression(nn.Module):
    """The expected action chunk, straight from an encoded observation; read by training alone.

    A denoising loss teaches the encoder through noise: most of its gradient is the draw's. Plain
    regression beside it finds the small things in a frame that decide an action sooner (the role of
    the discrete action tokens in knowledge insulation, Driess et al., arXiv 2505.23705).

    Shape legend: B rows, C width of the encoding, H actions of size A.
    """

    def __init__(self, width: int, chunk: int, action_dim: int) -> None:
        super().__init__()
        self.read = nn.Sequential(
            mlp(width, width, chunk * action_dim), nn.Unflatten(1, (chunk, action_dim))
        )

    def loss(
        self,
        encoded_BC: Float[Tensor, "b c"],
        action_BHA: Float[Tensor, "b h a"],
        taught_BH: Bool[Tensor, "b h"],
    ) -> Float[Tensor, ""]:
        """The mean squared error over the actions that are ``taught``."""
        return flow.masked_mean((self.read(encoded_BC).float() - action_BHA).square(), taught_BH)
