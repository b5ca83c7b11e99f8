"""LPIPS (Zhang et al., arXiv 1801.03924): how different two frames are to an ImageNet network.

    d = sum_l mean_hw sum_c w_lc (a_lchw - b_lchw)^2

a and b are the features of the two frames after the last nonlinearity of each block l, of unit
length over the channels; w are the published heads of version 0.1, fitted to judgements of people,
and never negative. Where the features are all 0 so is their direction: `EPSILON` stands inside the
root.

The networks are AlexNet (Krizhevsky 2014, the "one weird trick" variant) and VGG16 (Simonyan and
Zisserman, arXiv 1409.1556), without their classifiers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wamlab.config import nearest
from wamlab.nn.weights import load

EPSILON = 1e-8
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of ImageNet's pixels in [-1, 1], as LPIPS rounds them."""


class Block(NamedTuple):
    """Convolutions between two layers that are compared: widths, window, stride and padding.

    ``pool`` is the window of the maximum before it, of stride 2; 0 for none.
    """

    pool: int
    widths: tuple[int, ...]
    window: int
    stride: int
    padding: int


NETWORKS = {
    "alex": (
        Block(0, (64,), 11, 4, 2),
        Block(3, (192,), 5, 1, 2),
        Block(3, (384,), 3, 1, 1),
        Block(0, (256,), 3, 1, 1),
        Block(0, (256,), 3, 1, 1),
    ),
    "vgg": (
        Block(0, (64, 64), 3, 1, 1),
        Block(2, (128, 128), 3, 1, 1),
        Block(2, (256, 256, 256), 3, 1, 1),
        Block(2, (512, 512, 512), 3, 1, 1),
        Block(2, (512, 512, 512), 3, 1, 1),
    ),
}
SMALLEST = {"alex": 31, "vgg": 16}
"""Pixels along a side below which a layer has no place left."""


class LPIPS(nn.Module):
    """The distance of pairs of frames; frames in [-1, 1], at their own resolution.

    Args:
        network: ``alex`` or ``vgg``.

    Raises:
        KeyError: another network, with the nearest name.
    """

    def __init__(self, network: str = "alex") -> None:
        super().__init__()
        if network not in NETWORKS:
            raise KeyError(f"no LPIPS network {network!r}{nearest(network, NETWORKS)}")
        self.network, self.blocks = network, NETWORKS[network]
        self.layers = nn.ModuleList()
        width = 3
        for block in self.blocks:
            for channels in block.widths:
                self.layers.append(
                    nn.Conv2d(width, channels, block.window, block.stride, block.padding)
                )
                width = channels
        self.heads = nn.ParameterList(torch.ones(block.widths[-1]) for block in self.blocks)

    def features(self, frames: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c h2 w2"]]:
        """What each block makes of frames.

        Raises:
            ValueError: frames that are too small for the network.
        """
        least = SMALLEST[self.network]
        if min(frames.shape[-2:]) < least:
            size = " x ".join(map(str, frames.shape[-2:]))
            wanted = f"at least {least} x {least} pixels"
            raise ValueError(f"LPIPS-{self.network} needs frames of {wanted}, got {size}")
        shift, scale = (torch.tensor(v).to(frames)[:, None, None] for v in (SHIFT, SCALE))
        x, layers, found = (frames - shift) / scale, iter(self.layers), []
        for block in self.blocks:
            if block.pool:
                x = F.max_pool2d(x, block.pool, 2)
            for _ in block.widths:
                x = F.relu(next(layers)(x))
            found.append(x)
        return found

    def forward(
        self,
        first: Float[Tensor, "b 3 h w"],
        second: Float[Tensor, "b 3 h w"],
        masks: Bool[Tensor, "b m h w"] | None = None,
    ) -> Float[Tensor, "b *m"]:
        """The distance of each pair, or over each of M regions of its pixels.

        A region reaches a layer as the share of each place's pixels that lie in it, and the mean
        over places is weighted by it: over the whole frame this is LPIPS itself. An empty region
        has NaN. A place of a deep layer sees pixels far outside its own, so that a region is a
        matter of where the difference is felt.

        Raises:
            ValueError: frames that are too small, or not in pairs.
        """
        if first.shape != second.shape:
            raise ValueError(f"expected pairs of frames, got {first.shape} and {second.shape}")
        distances = []
        for layer, head in zip(self.features(torch.cat([first, second])), self.heads, strict=True):
            a, b = _directions(layer).chunk(2)
            apart = F.conv2d((a - b).square_(), head[None, :, None, None])
            distances.append(apart.mean((1, 2, 3)) if masks is None else _within(apart, masks))
        return torch.stack(distances).sum(0)


def pretrained(network: str = "alex") -> LPIPS:
    """LPIPS with the published weights, in evaluation mode; they learn nothing.

    Raises:
        KeyError: another network, with the nearest name.
        MissingWeights: the weights were not converted yet; the message says how.
    """
    net = LPIPS(network)
    net.load_state_dict(load(f"lpips-{network}"))
    return net.eval().requires_grad_(False)


def _directions(layer: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return layer * layer.square().sum(1, keepdim=True).add_(EPSILON).rsqrt_()


def _within(
    apart: Float[Tensor, "b 1 h2 w2"], masks: Bool[Tensor, "b m h w"]
) -> Float[Tensor, "b m"]:
    """The mean over places, weighted by the share of each that lies in a region."""
    height, width = apart.shape[-2:]
    share = F.adaptive_avg_pool2d(masks.to(apart), (height, width))
    return (apart * share).sum((2, 3)) / share.sum((2, 3))
