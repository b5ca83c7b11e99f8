"""MobileNetV2 (Sandler et al., arXiv 1801.04381, table 2), for its frozen ImageNet features.

Modules are named as torchvision names them, so that its published weights load strictly.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wamlab.nn.weights import load, read_state

STAGES = (
    # expansion, channels, blocks, stride of the first block
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in [0, 1]: what the published weights expect to be taken away."""


def convolution(
    fan_in: int, fan_out: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(fan_in, fan_out, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(fan_out),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow without a nonlinearity; a shortcut where shapes agree."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = fan_in * expansion
        widen = [convolution(fan_in, inner, 1)] if expansion > 1 else []
        self.shortcut = stride == 1 and fan_in == fan_out
        self.conv = nn.Sequential(
            *widen,
            convolution(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, fan_out, 1, bias=False),
            nn.BatchNorm2d(fan_out),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """The classifier of 1000 classes; frames in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(3, 32, 3, stride=2)]
        width = 32
        for expansion, channels, blocks, stride in STAGES:
            for index in range(blocks):
                step = stride if index == 0 else 1
                layers.append(InvertedResidual(width, channels, step, expansion))
                width = channels
        self.features = nn.Sequential(*layers, convolution(width, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, frames: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1000"]:
        return self.classifier(self.features(as_imagenet(frames)).mean((2, 3)))


def as_imagenet(frames: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Frames in [-1, 1] on the scale of the published weights."""
    mean, std = (torch.tensor(value).to(frames)[:, None, None] for value in (MEAN, STD))
    return (frames / 2 + 0.5 - mean) / std


def pretrained(weights: str | Path | None = None) -> MobileNetV2:
    """The published network, in evaluation mode.

    Args:
        weights: a torchvision state dict, or the same as safetensors; the published one when None.

    Raises:
        MissingWeights: no file is given and none was converted; the message says how.
        ValueError: the file holds something else.
    """
    net = MobileNetV2()
    state = load("mobilenet-v2") if weights is None else read_state(weights)
    if missing := net.state_dict().keys() ^ state.keys():
        raise ValueError(f"{weights} holds no MobileNetV2: {min(missing)!r} is on one side alone")
    net.load_state_dict(state)
    return net.eval()
