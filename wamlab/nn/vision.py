"""Frames of several views together, and from frames to features: a small convolutional stem.

Shape legend: B rows, V views, T instants, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from wamlab.generative.noise import fill_absent
from wamlab.nn.text import sentence_of
from wamlab.nn.transformer import mlp
from wamlab.types import Batch, Observation


def to_pixels(frames: UInt8[Tensor, "*lead h w c"]) -> Float[Tensor, "*lead c h w"]:
    """Raw frames as models take them: channels first, from -1 to 1."""
    return frames.movedim(-1, -3).to(torch.float32, copy=True).div_(127.5).sub_(1.0)


def to_frames(pixels: Float[Tensor, "*lead c h w"]) -> UInt8[Tensor, "*lead h w c"]:
    """The way back of `to_pixels`, for what a model drew: rounded, and clipped to what there is."""
    return (pixels * 127.5 + 127.5).round().clip(0, 255).to(torch.uint8).movedim(-3, -1)


def stacked(
    batch: Batch, names: Sequence[str], offsets: Sequence[int]
) -> tuple[Float[Tensor, "b v t c h w"], Bool[Tensor, "b v t"]]:
    """One stream of each view at these offsets, 0 where absent, and which entries are present."""
    streams = [batch[name].at(*offsets) for name in names]
    values = torch.stack([fill_absent(s.values, s.present) for s in streams], dim=1)
    return values, torch.stack([s.present for s in streams], dim=1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group normalisation beside a shortcut."""

    def __init__(self, fan_in: int, fan_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(8, fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(8, fan_out)
        same = stride == 1 and fan_in == fan_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(h)))


class Stem(nn.Module):
    """One frame to one vector: a residual network to a quarter of the size, then one layer.

    Few channels are kept, but each with its whole map: where a thing is matters more than what it
    is, and a linear layer over places finds it sooner than expected positions do. Several
    frames of one view are seen together, beside each other on the ``reads`` channels.
    """

    def __init__(
        self, image_size: int, width: int, size: int, channels: int = 8, reads: int = 3
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(reads, width, 5, 2, 2, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            ResidualBlock(width, 2 * width, stride=2),
            ResidualBlock(2 * width, 2 * width),
            nn.Conv2d(2 * width, channels, 1, bias=False),
            nn.GroupNorm(1, channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(channels * ceil(image_size / 4) ** 2, size),
        )

    def forward(self, frame: Float[Tensor, "b c h w"]) -> Float[Tensor, "b size"]:
        return self.layers(frame.contiguous(memory_format=torch.channels_last)).float()


class ObservationEncoder(nn.Module):
    """The current observation as one vector: a stem per view, state and pooled instruction.

    What is absent is a learned placeholder in its place; the values there are never read.
    """

    def __init__(
        self,
        views: tuple[str, ...],
        *,
        image_size: int,
        state_dim: int,
        text_dim: int,
        width: int,
        stem_width: int,
    ) -> None:
        super().__init__()
        half = width // 2
        self.stems = nn.ModuleDict({view: Stem(image_size, stem_width, half) for view in views})
        self.no_view = nn.ParameterDict({view: nn.Parameter(torch.zeros(half)) for view in views})
        self.no_state = nn.Parameter(torch.zeros(state_dim))
        self.text = nn.Linear(text_dim, half)
        self.mix = mlp(half * len(views) + state_dim + half, 2 * width, width)

    def forward(self, observation: Observation) -> Float[Tensor, "b width"]:
        """Encode what is at offset 0.

        Raises:
            KeyError: a view or the state is missing as a stream.
            ValueError: the instructions carry no pooled embedding.
        """
        said, parts = sentence_of(observation.text), []
        for view, stem in self.stems.items():
            now = observation[f"image/{view}"].at(0)
            feature = stem(fill_absent(now.values, now.present)[:, 0])
            parts.append(fill_absent(feature, now.present[:, 0], self.no_view[view]))
        state = observation["state"].at(0)
        parts.append(fill_absent(state.values, state.present, self.no_state)[:, 0])
        parts.append(self.text(said))
        return self.mix(torch.cat(parts, dim=-1))
