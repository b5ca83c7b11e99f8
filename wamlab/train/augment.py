"""Image augmentation of normalised batches, drawn from a generator."""

from __future__ import annotations

import dataclasses

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from wamlab.types import IMAGE, Batch


def random_shift(batch: Batch, pixels: int, generator: torch.Generator) -> Batch:
    """Shift every image by up to ``pixels`` in each direction (Yarats et al., arXiv 2107.09645).

    One shift per row and view, the same for all its instants, so that motion is left as it is; the
    edge is repeated into what the shift uncovers. Without pixels the batch comes back unchanged.
    """
    if pixels < 0:
        raise ValueError(f"expected a shift of 0 pixels or more, got {pixels}")
    if pixels == 0:
        return batch
    streams = dict(batch.streams)
    for name in sorted(streams):
        if name.startswith(IMAGE):
            image = streams[name].values
            shape, place = (len(batch), 2), generator.device
            shift = torch.randint(-pixels, pixels + 1, shape, generator=generator, device=place)
            moved = shift_images(image, shift.to(image.device))
            streams[name] = dataclasses.replace(streams[name], values=moved)
    return dataclasses.replace(batch, streams=streams)


def shift_images(
    image: Float[Tensor, "b t c h w"], shift: Int[Tensor, "b 2"]
) -> Float[Tensor, "b t c h w"]:
    """Pixel (y, x) of the result is pixel (y + dy, x + dx) of ``image``, edges repeated."""
    height, width = image.shape[-2:]
    y = (torch.arange(height, device=image.device) + shift[:, :1]).clamp(0, height - 1)
    x = (torch.arange(width, device=image.device) + shift[:, 1:]).clamp(0, width - 1)
    rows = image.gather(3, rearrange(y, "b h -> b 1 1 h 1").expand_as(image))
    return rows.gather(4, rearrange(x, "b w -> b 1 1 1 w").expand_as(image))
