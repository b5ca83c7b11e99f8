"""From tokens to frames: what a transformer says of a future, drawn upon the present.

Shape legend: B rows, V views, T imagined instants, CHW a frame's code, P patches (tokens), D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wamlab.nn.codec import Codec

GATE_AT_START = -4.0


class Painter(nn.Module):
    """Future tokens to clean codes: content, and a gate that says where it replaces the present.

    Each token is spread over its ``patch`` (in pixels) on a map ``grain`` times as coarse as the
    code and meets the current frame's code there, so that what is drawn crosses the borders of
    patches and keeps the edges of the present.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        grain: int,
        views: int,
        instants: int,
        patch: int,
        width: int,
        paint_width: int,
    ) -> None:
        super().__init__()
        self.grain = grain
        cells, side = patch // (codec.stride * grain), codec.image_size // patch
        channels, parts = codec.shape[0], grain**2
        self.spread = nn.Linear(width, paint_width // 2 * cells**2)
        self.mix = nn.Conv2d(paint_width // 2 + channels * parts, paint_width, 3, padding=1)
        self.draw = nn.Conv2d(paint_width, instants * (channels + 1) * parts, 3, padding=1)
        nn.init.zeros_(self.draw.weight)
        assert self.draw.bias is not None
        nn.init.zeros_(self.draw.bias)
        self.lay_out = {"v": views, "h": side, "w": side, "p": cells, "q": cells}
        self.take_apart = {"v": views, "t": instants}

    def forward(
        self, x_BPD: Float[Tensor, "b p d"], now_BVCHW: Float[Tensor, "b v c h w"]
    ) -> Float[Tensor, "b v t c h w"]:
        told = rearrange(
            self.spread(x_BPD), "b (v h w) (p q c) -> (b v) c (h p) (w q)", **self.lay_out
        )
        now = F.pixel_unshuffle(now_BVCHW.flatten(0, 1), self.grain).to(told.dtype)
        mixed = self.mix(torch.cat([told, now], 1).contiguous(memory_format=torch.channels_last))
        drawn = F.pixel_shuffle(self.draw(F.silu(mixed)), self.grain).float()
        drawn = rearrange(drawn, "(b v) (t c) h w -> b v t c h w", **self.take_apart)
        content, moved = drawn[:, :, :, :-1], drawn[:, :, :, -1:]
        now_BVTCHW = now_BVCHW[:, :, None]
        return now_BVTCHW + torch.sigmoid(moved + GATE_AT_START) * (content - now_BVTCHW)
