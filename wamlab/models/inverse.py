"""The pure inverse dynamics model ``p(a | o', o)``: it reads the actions off frames, and no more.

Its place is that of a judge: trained once, on real data alone, it decodes what any other model
imagines, so that what separates two imagined videos is the video and never who reads it
(`wamlab.run.turing`; the inverse dynamics of 2601.04137 have this role). So it knows neither
instruction nor state: an imagined video comes with none, and what is not read cannot take the
place of the frames.

Each pair of frames that follow each other is looked at on its own, view by view; the actions of the
whole chunk are then regressed from all pairs together, since how a motion goes on tells how it
began. The futures are those at the common offsets, which every model imagines.

Shape legend: B rows, V views, T instants (now and ahead), CHW pixels, S pairs, W features of one
pair, H actions of size A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wamlab.generative import flow
from wamlab.generative.noise import fill_absent
from wamlab.models.base import (
    Flow,
    ModelConfig,
    Sampling,
    Stage,
    WorldActionModel,
    action_chunk,
    checked_sampler,
    given_codes,
)
from wamlab.nn.codec import Pixels
from wamlab.nn.transformer import mlp
from wamlab.nn.vision import Stem, stacked
from wamlab.types import (
    ACTION,
    FUTURE,
    INVERSE,
    Answer,
    Batch,
    Cost,
    Future,
    Memory,
    Observation,
    Prediction,
    Query,
    Stream,
    Window,
)

Clip = Float[Tensor, "b v t 3 height width"]


class Network(nn.Module):
    """Frames, now and ahead, to the chunk; a pair of which a frame is absent is a placeholder."""

    def __init__(self, config: Inverse.Config) -> None:
        super().__init__()
        c = config
        shape = (len(c.offsets), len(c.views) * c.width)
        self.stems = nn.ModuleList(
            Stem(c.image_size, c.stem_width, c.width, reads=6) for _ in c.views
        )
        self.no_pair = nn.Parameter(torch.zeros(len(c.views), c.width))
        self.read = nn.Sequential(
            nn.Flatten(),
            mlp(shape[0] * shape[1], 2 * c.width, c.width, c.chunk * c.action_dim),
            nn.Unflatten(1, (c.chunk, c.action_dim)),
        )

    def forward(
        self, clip_BVTCHW: Clip, present_BVT: Bool[Tensor, "b v t"]
    ) -> Float[Tensor, "b h a"]:
        """The actions from the first frame of a clip to its last."""
        pair_BVSCHW = torch.cat([clip_BVTCHW[:, :, :-1], clip_BVTCHW[:, :, 1:]], dim=3)
        seen_BVS, pairs = both(present_BVT), pair_BVSCHW.shape[2]
        views = []
        for v, stem in enumerate(self.stems):
            feature_BSW = stem(pair_BVSCHW[:, v].flatten(0, 1)).unflatten(0, (-1, pairs))
            views.append(fill_absent(feature_BSW, seen_BVS[:, v], self.no_pair[v]))
        return self.read(torch.cat(views, dim=-1)).float()


def both(present_BVT: Bool[Tensor, "b v t"]) -> Bool[Tensor, "b v s"]:
    """Which pairs of frames that follow each other are there."""
    return present_BVT[:, :, :-1] & present_BVT[:, :, 1:]


class Inverse(WorldActionModel):
    card = {
        "paper": "baseline",
        "family": "inverse dynamics",
        "carrier": "none",
        "extractor": "inverse dynamics on a clip",
        "coupling": "none",
        "generation": "regression",
        "action labels": "needed",
    }

    @dataclass(frozen=True, kw_only=True)
    class Config(ModelConfig):
        """``stem_width`` channels look at a pair, ``width`` features are kept of it per view."""

        stem_width: int = 24
        width: int = 128

        @classmethod
        def small(cls) -> Inverse.Config:
            return cls()

        @classmethod
        def tiny(cls) -> Inverse.Config:
            return cls(image_size=32, chunk=8, offsets=(4, 8), stem_width=8, width=16)

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        offsets = config.offsets
        rises = list(offsets) == sorted({*offsets})
        if not rises or min(offsets, default=0) < 1 or offsets[-1] != config.chunk:
            raise ValueError(
                f"offsets {offsets} must rise from 1 or more to {config.chunk}, the last action "
                "of the chunk: an action between no two frames cannot be read off them"
            )
        self.network = Network(config)

    @property
    def queries(self) -> dict[Query, Answer]:
        return {INVERSE: Answer(False, calls=1)}

    def stages(self) -> list[Stage]:
        c = self.config
        frames = dict.fromkeys(c.image_streams, (0, *c.offsets))
        window = Window({**frames, ACTION: tuple(range(c.chunk))}, rate_hz=c.rate_hz)
        return [Stage("inverse", window, roles=("inverse",))]

    def loss(
        self, batch: Batch, *, stage: str, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """The squared error of the actions between frames of which some view shows both."""
        c = self.config
        clip, present = stacked(batch, c.image_streams, (0, *c.offsets))
        chunk = batch[ACTION].at(*range(c.chunk))
        seen_BS = both(present).any(1)
        taught = chunk.present & seen_BS[:, self._pair_of_action()] & batch.may("inverse")[:, None]
        error = self.network(clip, present) - fill_absent(chunk.values, taught)
        loss = flow.masked_mean(error.square(), taught)
        return {"loss": loss, "action": loss}

    def sample(
        self,
        observation: Observation,
        query: Query,
        *,
        action: Stream | None = None,
        future: Future | None = None,
        memory: Memory | None = None,
        prefix: Stream | None = None,
        sampler: Mapping[str, Sampling] | None = None,
        generator: Sequence[torch.Generator],
    ) -> Prediction:
        self.answer(query)
        checked_sampler(self, sampler)
        ahead = given_codes(future, self.config, Pixels)
        now, known = stacked(observation, self.config.image_streams, (0,))
        present = torch.cat([known, known.new_ones(ahead.shape[:3])], dim=2)
        chunk = self.network(torch.cat([now, ahead], dim=2), present)
        return Prediction(action=action_chunk(chunk), cost=Cost(calls=1))

    def flows(self, query: Query) -> list[Flow]:
        self.answer(query)
        return [Flow(source, ACTION, "channel") for source in (*self.config.image_streams, FUTURE)]

    def encode(
        self, frames: Mapping[str, Float[Tensor, "b t 3 h w"]], offsets: Int[Tensor, "b t"] | None
    ) -> Future:
        return Future(Pixels.space, Pixels.name, dict(frames), offsets)

    def _pair_of_action(self) -> list[int]:
        """For each action the pair of frames between which it is executed."""
        bounds = (0, *self.config.offsets)
        return [s for s in range(len(bounds) - 1) for _ in range(bounds[s], bounds[s + 1])]
