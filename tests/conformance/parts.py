"""What the fakes share: sizes, an eye, frames, actions and windows.

Shape legend: B rows, T instants, V views, H actions of size A, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wamlab.generative.flow import masked_mean
from wamlab.generative.noise import fill_absent, normal
from wamlab.models.base import Flow, ModelConfig, action_chunk
from wamlab.types import (
    ACTION,
    Batch,
    Future,
    Query,
    Stream,
    Window,
)

Losses = dict[str, Float[Tensor, ""]]


@dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """The sizes that all fakes share."""

    chunk: int = 4
    offsets: tuple[int, ...] = (4,)
    width: int = 32

    @classmethod
    def small(cls) -> Config:
        return cls()

    @classmethod
    def tiny(cls) -> Config:
        return cls(image_size=16, text_dim=8, width=16)


def card(*entries: str) -> dict[str, str]:
    names = ("carrier", "extractor", "coupling", "generation", "action labels")
    return dict(zip(names, entries, strict=True))


class Eye(nn.Module):
    """The observation at one offset as one vector; what is absent counts as zero."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.views = config.image_streams
        self.frames = nn.Linear(len(self.views) * 3 * config.image_size**2, config.width)
        self.state = nn.Linear(config.state_dim, config.width)
        self.text = nn.Linear(config.text_dim, config.width)

    def forward(self, batch: Batch, offset: int = 0) -> Float[Tensor, "b d"]:
        frames, _ = images(batch, self.views, (offset,))
        state = batch["state"].at(offset)
        told = self.state(fill_absent(state.values, state.present)[:, 0])
        return torch.tanh(self.frames(frames.flatten(1)) + told + self.text(batch.text.pooled))


def images(
    batch: Batch, views: Sequence[str], offsets: Sequence[int]
) -> tuple[Float[Tensor, "b t v 3 h w"], Bool[Tensor, "b t v"]]:
    """Frames of all views at these offsets, zero where they are absent."""
    return stacked([batch[view].at(*offsets) for view in views])


def stacked(
    streams: Sequence[Stream],
) -> tuple[Float[Tensor, "b t v 3 h w"], Bool[Tensor, "b t v"]]:
    present = torch.stack([s.present for s in streams], dim=2)
    values = torch.stack([s.values for s in streams], dim=2)
    return fill_absent(values, present), present


def picture(config: Config, flat: Float[Tensor, "b pixels"], ticks: Sequence[int] | None) -> Future:
    """A future in pixels out of a flat vector (T, V, 3, H, W) per row; unclocked without ticks."""
    frames = rearrange(
        flat, "b (t v c h w) -> v b t c h w",
        v=len(config.views), c=3, h=config.image_size, w=config.image_size,
    )  # fmt: skip
    values = dict(zip(config.image_streams, frames, strict=True))
    clock = None if ticks is None else torch.tensor(ticks).expand(len(flat), -1)
    return Future("pixels", "pixels", values, clock)


def film_loss(
    shown: Float[Tensor, "b pixels"], real: Tensor, taught: Bool[Tensor, "b t v"]
) -> Float[Tensor, ""]:
    error = (shown.reshape(real.shape) - real).square()
    return masked_mean(error.flatten(1, 2), taught.flatten(1, 2))


def actions(batch: Batch, chunk: int) -> tuple[Float[Tensor, "b h a"], Bool[Tensor, "b h"]]:
    """The chunk, and where it is recorded and may teach the policy."""
    stream = batch[ACTION].at(*range(chunk))
    taught = stream.present & batch.may("policy")[:, None]
    return fill_absent(stream.values, taught), taught


def jitter(mean: Float[Tensor, "b h a"], generator: Sequence[torch.Generator]) -> Stream:
    """A draw around the mean."""
    return action_chunk(mean + 0.1 * normal(mean.shape[1:], generator, mean.device))


def between(sources: Sequence[str], targets: Sequence[str], **how: Any) -> list[Flow]:
    return [Flow(s, t, how.get("route", "channel"), how.get("gradient", True))
            for s in sources for t in targets]  # fmt: skip


def window(config: Config, *frames: int, acts: bool = True) -> Window:
    """All views at these offsets, the state now, and the chunk of actions."""
    streams = {**dict.fromkeys(config.image_streams, frames), "state": (0,)}
    return Window({**streams, ACTION: tuple(range(config.chunk))} if acts else streams)


def asked(flows: Sequence[Flow], query: Query) -> list[Flow]:
    return [flow for flow in flows if flow.target in query.sampled]
