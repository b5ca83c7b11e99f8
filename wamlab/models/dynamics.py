"""The pure world model ``p(o' | o, a)``: a baseline that imagines and never acts.

Trunk, painter, flow levels and steps are those with which `uwm` answers FORWARD, and the future is
denoised in the same way; but the action is always given, so that no capacity and no row goes into a
policy or into futures of unknown actions. What `uwm` loses against this in FORWARD is the price of
answering everything.

A row without actions has nothing to say here. Such rows are served and counted (``action_free`` is
their share of a batch), and contribute nothing.

Shape legend: B rows, V views, T imagined instants, CHW pixels of a frame, P patches of X values,
H actions of size A, L tokens, R registers, D width; `vector_BC` is C wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wamlab.generative import flow
from wamlab.generative.noise import fill_absent, noise_like, normal
from wamlab.models.base import (
    Flow,
    ModelConfig,
    Route,
    Sampling,
    Stage,
    WorldActionModel,
    checked_sampler,
    imagined,
    shown_pixels,
)
from wamlab.nn.codec import Pixels
from wamlab.nn.painter import Painter
from wamlab.nn.transformer import Trunk, mlp, sinusoids
from wamlab.nn.vision import ObservationEncoder, stacked
from wamlab.types import (
    ACTION,
    FORWARD,
    FUTURE,
    Answer,
    Batch,
    Cost,
    Denoised,
    Future,
    Memory,
    Observation,
    Prediction,
    Query,
    Stream,
    Window,
)

GRAIN = 4  # pixels along a cell of the painter's map


class Given(NamedTuple):
    """What the future follows from: one vector, the current frames, and the actions."""

    vector_BC: Float[Tensor, "b c"]
    now_BVCHW: Float[Tensor, "b v 3 h w"]
    action_BHA: Float[Tensor, "b h a"]
    present_BH: Bool[Tensor, "b h"]


class Network(nn.Module):
    """The denoiser: ``[actions | future patches | registers]`` under full attention, as in `uwm`.

    Of an action after the end of an episode only its place is told.
    """

    def __init__(self, config: Dynamics.Config) -> None:
        super().__init__()
        width, instants, side = config.width, len(config.offsets), config.patch
        self.cut = {"p": side, "q": side}
        patches = len(config.views) * (config.image_size // config.patch) ** 2
        self.embed_action = nn.Linear(config.action_dim, width)
        self.embed_future = nn.Linear((instants + 1) * 3 * side**2, width)
        self.action_position = nn.Parameter(0.02 * torch.randn(config.chunk, width))
        self.future_position = nn.Parameter(0.02 * torch.randn(patches, width))
        self.registers = nn.Parameter(0.02 * torch.randn(config.registers, width))
        self.tell_registers = nn.Linear(config.condition, config.registers * width)
        self.level_width = config.level_width
        self.sum_up = nn.Linear(config.chunk * config.action_dim, config.condition)
        self.condition = mlp(
            2 * config.condition + config.level_width, config.condition, config.condition
        )
        self.trunk = Trunk(width, config.depth, config.heads, config.condition)
        self.paint_future = Painter(
            Pixels(config.image_size),
            grain=GRAIN,
            views=len(config.views),
            instants=instants,
            patch=config.patch,
            width=width,
            paint_width=config.paint_width,
        )

    @property
    def tokens(self) -> int:
        return len(self.action_position) + len(self.future_position) + len(self.registers)

    def forward(
        self,
        future_BVTCHW: Float[Tensor, "b v t 3 height width"],
        given: Given,
        *,
        sigma: Float[Tensor, " b"],
    ) -> Float[Tensor, "b v t 3 height width"]:
        """The clean future frames."""
        frames = torch.cat([future_BVTCHW, given.now_BVCHW[:, :, None]], dim=2)
        patch_BPX = rearrange(frames, "b v t c (h p) (w q) -> b (v h w) (t p q c)", **self.cut)
        action_BHD = fill_absent(self.embed_action(given.action_BHA), given.present_BH)
        future_BPD = self.embed_future(patch_BPX) + self.future_position
        told_BRD = self.tell_registers(given.vector_BC).unflatten(1, self.registers.shape)
        x_BLD = torch.cat(
            [action_BHD + self.action_position, future_BPD, self.registers + told_BRD], dim=1
        )
        level = sinusoids(sigma, self.level_width)
        known = [given.vector_BC, self.sum_up(given.action_BHA.flatten(1)), level]
        x_BLD = self.trunk(x_BLD, self.condition(torch.cat(known, dim=-1)))
        future_BPD = x_BLD[:, len(self.action_position) : -len(self.registers)]
        return self.paint_future(future_BPD, given.now_BVCHW)


class Dynamics(WorldActionModel):
    card = {
        "paper": "baseline",
        "family": "world model",
        "carrier": "pixels",
        "extractor": "none",
        "coupling": "none",
        "generation": "flow",
        "action labels": "needed",
    }
    stepped = (FUTURE,)

    @dataclass(frozen=True, kw_only=True)
    class Config(ModelConfig):
        """Sizes as in `uwm`, ``marginal`` and ``steps`` as its marginal_future and forward_steps.

        ``marginal`` is the share of rows trained at exactly level 1.
        """

        patch: int = 16
        width: int = 192
        depth: int = 6
        heads: int = 3
        registers: int = 8
        condition: int = 256
        level_width: int = 64
        stem_width: int = 32
        paint_width: int = 64
        marginal: float = 0.7
        steps: int = 1

        @classmethod
        def small(cls) -> Dynamics.Config:
            return cls()

        @classmethod
        def tiny(cls) -> Dynamics.Config:
            return cls(
                image_size=32, patch=16, width=32, depth=2, heads=2, registers=2, condition=32,
                level_width=16, stem_width=8, paint_width=16, chunk=8, offsets=(4, 8), steps=2,
            )  # fmt: skip

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.image_size % config.patch or config.patch % GRAIN:
            raise ValueError(
                f"image_size {config.image_size} must be a multiple of the patch {config.patch}, "
                f"and this one of {GRAIN}"
            )
        self.encoder = ObservationEncoder(
            config.views,
            image_size=config.image_size,
            state_dim=config.state_dim,
            text_dim=config.text_dim,
            width=config.condition,
            stem_width=config.stem_width,
        )
        self.network = Network(config)

    @property
    def queries(self) -> dict[Query, Answer]:
        return {FORWARD: Answer(True, "pixels", calls=self.config.steps)}

    @property
    def tokens(self) -> int:
        """Tokens of one row in the trunk."""
        return self.network.tokens

    def stages(self) -> list[Stage]:
        c = self.config
        streams = {
            **dict.fromkeys(c.image_streams, (0, *c.offsets)),
            "state": (0,),
            ACTION: tuple(range(c.chunk)),
        }
        window = Window(streams, rate_hz=c.rate_hz)
        return [Stage("dynamics", window, roles=("forward", "video"))]

    def loss(
        self, batch: Batch, *, stage: str, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        chunk = batch[ACTION].at(*range(self.config.chunk))
        labelled_B = chunk.present.any(1) & batch.may("forward")
        future, recorded_BVT = stacked(batch, self.config.image_streams, self.config.offsets)

        sigma = flow.draw_levels(len(batch), generator=generator, marginal=self.config.marginal).to(
            future.device
        )
        noise = noise_like(future, generator)
        noisy = fill_absent(flow.interpolate(future, noise, sigma), recorded_BVT, noise)
        clean = self.network(noisy, self.given(batch, chunk), sigma=sigma)
        # Nothing is learned at level 0: the answer stands there already.
        taught_BVT = recorded_BVT & (labelled_B & (sigma > 0))[:, None, None]
        loss = flow.masked_mean((clean - future).square().flatten(1, 2), taught_BVT.flatten(1, 2))
        action_free = 1 - labelled_B.float().mean()
        return {"loss": loss, "future": loss, "action_free": action_free}

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
        c = self.config
        if action is None:
            raise ValueError("the query gives the action, but no action was passed")
        how = checked_sampler(self, sampler).get(FUTURE, Sampling(c.steps))
        given = self.given(observation, action.at(*range(c.chunk)))
        video = (len(c.views), len(c.offsets), 3, c.image_size, c.image_size)

        def field(x: Tensor, sigma: float) -> Tensor:
            level = x.new_full((len(x),), sigma)
            return flow.velocity_from_clean(x, self.network(x, given, sigma=level), level)

        noise = normal(video, generator, self.device)
        x = flow.euler(field, noise, flow.levels(how.steps, how.stop))
        return Prediction(future=imagined(x, c, Pixels), cost=Cost(calls=how.steps))

    def likelihood(
        self,
        batch: Batch,
        query: Query,
        *,
        levels: Float[Tensor, " l"],
        generator: Sequence[torch.Generator],
    ) -> Denoised:
        """As `uwm` answers FORWARD; of a row without actions nothing is counted."""
        self.answer(query)
        chunk = batch[ACTION].at(*range(self.config.chunk))
        given = self.given(batch, chunk)
        future, recorded_BVT = stacked(batch, self.config.image_streams, self.config.offsets)
        counted_BVT = recorded_BVT & chunk.present.any(1)[:, None, None]
        shown = flow.recoveries(
            lambda noisy, sigma: self.network(noisy, given, sigma=sigma),
            future,
            recorded_BVT,
            levels=levels,
            generator=generator,
        )
        return flow.recovered(levels, shown, future, counted_BVT)

    def flows(self, query: Query) -> list[Flow]:
        self.answer(query)
        frames = self.config.image_streams
        routes: dict[Route, list[str]] = {
            "adaln": [*frames, "state", "text", ACTION],
            "attention": [*frames, "state", "text", ACTION],
            "channel": [*frames],
        }
        return [Flow(source, FUTURE, route) for route, names in routes.items() for source in names]

    def decode(self, future: Future) -> Mapping[str, Float[Tensor, "b t 3 h w"]]:
        return shown_pixels(future)

    def given(self, observation: Observation, chunk: Stream) -> Given:
        """Encode the present and the actions; what is absent is never read."""
        now, _ = stacked(observation, self.config.image_streams, (0,))
        action = fill_absent(chunk.values, chunk.present)
        return Given(self.encoder(observation), now[:, :, 0], action, chunk.present)
