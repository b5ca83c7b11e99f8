"""Reactive policy: ``p(action | observation, instruction)``, the VLA objective, and the baseline.

It imagines nothing. The action chunk is denoised by flow matching (as in pi0, arXiv 2410.24164) on
the same observation encoder, trunk and action losses as `uwm`. Two things separate the two in a
table: the future, and which rows are served. Every row here may teach the policy; `uwm` is served
all of them and gives those that may not (bursts and failures, on `mw-6` about a third) to forward
and inverse dynamics. So in the same number of steps fewer rows teach its policy than this one.

Shape legend: B rows, H actions of size A, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
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
    action_chunk,
    checked_sampler,
)
from wamlab.nn.regression import ChunkRegression
from wamlab.nn.transformer import Trunk, mlp, sinusoids
from wamlab.nn.vision import ObservationEncoder
from wamlab.types import (
    ACTION,
    POLICY,
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


class Network(nn.Module):
    """The denoiser: ``[actions | registers]`` under full attention."""

    def __init__(self, config: Reactive.Config) -> None:
        super().__init__()
        width = config.width
        self.embed_action = nn.Linear(config.action_dim, width)
        self.action_position = nn.Parameter(0.02 * torch.randn(config.chunk, width))
        self.registers = nn.Parameter(0.02 * torch.randn(config.registers, width))
        self.tell_registers = nn.Linear(config.condition, config.registers * width)
        self.level_width = config.level_width
        self.condition = mlp(
            config.condition + config.level_width, config.condition, config.condition
        )
        self.trunk = Trunk(width, config.depth, config.heads, config.condition)
        self.read_action = nn.Linear(width, config.action_dim)
        nn.init.zeros_(self.read_action.weight)
        nn.init.zeros_(self.read_action.bias)

    def forward(
        self,
        action_BHA: Float[Tensor, "b h a"],
        context_BC: Float[Tensor, "b c"],
        *,
        sigma_action: Float[Tensor, " b"],
    ) -> Float[Tensor, "b h a"]:
        """The velocity of the actions."""
        chunk = action_BHA.shape[1]
        action_BHD = self.embed_action(action_BHA) + self.action_position
        told_BRD = self.tell_registers(context_BC).unflatten(1, self.registers.shape)
        x_BLD = torch.cat([action_BHD, self.registers + told_BRD], dim=1)
        level = sinusoids(sigma_action, self.level_width)
        x_BLD = self.trunk(x_BLD, self.condition(torch.cat([context_BC, level], -1)))
        return self.read_action(x_BLD[:, :chunk]).float()


class Reactive(WorldActionModel):
    card = {
        "paper": "baseline",
        "family": "reactive policy",
        "carrier": "none",
        "extractor": "none",
        "coupling": "none",
        "generation": "flow",
        "action labels": "needed",
    }
    stepped = (ACTION,)

    @dataclass(frozen=True, kw_only=True)
    class Config(ModelConfig):
        """Sizes as in `uwm`; no future is imagined, so there are no ``offsets``."""

        offsets: tuple[int, ...] = ()
        width: int = 192
        depth: int = 6
        heads: int = 3
        registers: int = 8
        condition: int = 256
        level_width: int = 64
        stem_width: int = 32
        regression_weight: float = 4.0
        steps: int = 4

        @classmethod
        def small(cls) -> Reactive.Config:
            return cls()

        @classmethod
        def tiny(cls) -> Reactive.Config:
            return cls(
                image_size=32, width=32, depth=2, heads=2, registers=2, condition=32,
                level_width=16, stem_width=8, chunk=8, steps=2,
            )  # fmt: skip

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.encoder = ObservationEncoder(
            config.views,
            image_size=config.image_size,
            state_dim=config.state_dim,
            text_dim=config.text_dim,
            width=config.condition,
            stem_width=config.stem_width,
        )
        self.network = Network(config)
        self.regression = ChunkRegression(config.condition, config.chunk, config.action_dim)

    @property
    def queries(self) -> dict[Query, Answer]:
        return {POLICY: Answer(stochastic=True, calls=self.config.steps)}

    def stages(self) -> list[Stage]:
        c = self.config
        streams = {**dict.fromkeys(c.image_streams, (0,)), "state": (0,)}
        window = Window({**streams, ACTION: tuple(range(c.chunk))}, rate_hz=c.rate_hz)
        return [Stage("policy", window, roles=("policy",))]

    def loss(
        self, batch: Batch, *, stage: str, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        context = self.encoder(batch)
        stream = batch[ACTION].at(*range(self.config.chunk))
        taught = stream.present & batch.may("policy")[:, None]
        action = fill_absent(stream.values, taught)

        noise = noise_like(action, generator)
        sigma = flow.draw_levels(len(batch), generator=generator).to(action.device)
        noisy = fill_absent(flow.interpolate(action, noise, sigma), taught, noise)
        velocity = self.network(noisy, context, sigma_action=sigma)
        action_loss = flow.masked_mean((velocity - flow.velocity(action, noise)).square(), taught)
        regression = self.regression.loss(context, action, taught)
        loss = action_loss + self.config.regression_weight * regression
        return {"loss": loss, "action": action_loss, "regression": regression}

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
        how = checked_sampler(self, sampler).get(ACTION, Sampling(c.steps))
        context = self.encoder(observation)
        noise = normal((c.chunk, c.action_dim), generator, self.device)

        def field(x: Tensor, sigma: float) -> Tensor:
            x = flow.commit(x, prefix, noise, sigma)
            return self.network(x, context, sigma_action=x.new_full((len(x),), sigma))

        x = flow.euler(field, noise, flow.levels(how.steps, how.stop))
        x = flow.commit(x, prefix, noise, how.stop)
        return Prediction(action=action_chunk(x), cost=Cost(calls=how.steps))

    def likelihood(
        self,
        batch: Batch,
        query: Query,
        *,
        levels: Float[Tensor, " l"],
        generator: Sequence[torch.Generator],
    ) -> Denoised:
        self.answer(query)
        c, context = self.config, self.encoder(batch)
        stream = batch[ACTION].at(*range(c.chunk))
        action = fill_absent(stream.values, stream.present)

        def clean(noisy: Tensor, sigma: Tensor) -> Tensor:
            velocity = self.network(noisy, context, sigma_action=sigma)
            return flow.clean_from_velocity(noisy, velocity, sigma)

        shown = flow.recoveries(clean, action, stream.present, levels=levels, generator=generator)
        return flow.recovered(levels, shown, action, stream.present)

    def flows(self, query: Query) -> list[Flow]:
        self.answer(query)
        sources = (*self.config.image_streams, "state", "text")
        routes: tuple[Route, ...] = ("adaln", "attention")
        return [Flow(source, ACTION, route) for route in routes for source in sources]
