"""UWM, Unified World Models (Zhu et al., RSS 2025, arXiv 2504.02792): joint, unified diffusion.

One transformer denoises a chunk of actions and the frames after it, each with a noise level of its
own. A level of 1 marginalises a stream, a level of 0 conditions on it: policy, video prediction,
forward dynamics, inverse dynamics and joint generation are one network at five pairs of levels.
Rows without actions are the training case "action at level 1".

Translated here: the paper's DDPM levels are flow levels (sigma = 1 noise, 0 clean), so the marginal
label is exact: at sigma = 1 a stream is pure noise, in training and in sampling. The codec says
what a frame is to the network: pixels, or the latents of a KL autoencoder (the paper's way), which
a stage of its own trains and which is frozen afterwards. The clean code is predicted, as a change
of the current frame's fed in beside the noise: a gate per cell says where new content takes its
place (a residual alone would have to carry the current frame through a narrow token to take it
away). Actions keep a velocity, and a regression that only training reads teaches the encoder what
they depend on. Absent entries are noise at the final level and never teach anything.

Shape legend: B rows, V views, T imagined instants, CHW a frame's code, P patches of X values,
H actions of size A, L tokens, R registers, D width; `vector_BC` is C wide, with a
watched future E.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
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
    given_codes,
    imagined,
)
from wamlab.nn.codec import KL, Codec, Pixels
from wamlab.nn.painter import Painter
from wamlab.nn.regression import ChunkRegression
from wamlab.nn.transformer import Trunk, mlp, sinusoids
from wamlab.nn.vision import ObservationEncoder, Stem, stacked
from wamlab.types import (
    ACTION,
    FORWARD,
    FUTURE,
    INVERSE,
    JOINT,
    LATENT,
    POLICY,
    ROLES,
    VIDEO,
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

GRAIN = {"pixels": 4, "kl": 1}
"""How many of a codec's cells lie along a cell of the painter's map."""


class Context(NamedTuple):
    """What the network knows of the present: one vector, and the codes of the current frames."""

    vector_BC: Float[Tensor, "b c"]
    now_BVCHW: Float[Tensor, "b v c2 h w"]


class Network(nn.Module):
    """The denoiser: ``[actions | future patches | registers]`` under full attention.

    A patch spans all imagined instants, as in the paper (there two frames of a VAE's latents).
    Short cuts make a small model learn in minutes what attention alone finds late: the registers
    repeat the global vector; the chunk as a whole joins the condition, and what a stem sees of the
    future beside the present (``watch_width``) the global vector, each dimmed by its own level so
    that a marginalised stream says nothing there.
    """

    def __init__(self, config: UWM.Config, codec: Codec) -> None:
        super().__init__()
        width, instants = config.width, len(config.offsets)
        side = config.patch // codec.stride
        self.cut = {"p": side, "q": side}
        patches = len(config.views) * (config.image_size // config.patch) ** 2
        self.embed_action = nn.Linear(config.action_dim, width)
        self.embed_future = nn.Linear((instants + 1) * codec.shape[0] * side**2, width)
        self.action_position = nn.Parameter(0.02 * torch.randn(config.chunk, width))
        self.future_position = nn.Parameter(0.02 * torch.randn(patches, width))
        self.registers = nn.Parameter(0.02 * torch.randn(config.registers, width))
        self.tell_registers = nn.Linear(config.known, config.registers * width)
        self.level_width = config.level_width
        self.sum_up = nn.Linear(config.chunk * config.action_dim, config.condition)
        self.condition = mlp(
            config.known + config.condition + 2 * config.level_width,
            config.condition,
            config.condition,
        )
        self.trunk = Trunk(width, config.depth, config.heads, config.condition)
        self.read_action = nn.Linear(width, config.action_dim)
        nn.init.zeros_(self.read_action.weight)
        nn.init.zeros_(self.read_action.bias)
        self.paint_future = Painter(
            codec,
            grain=GRAIN[config.codec],
            views=len(config.views),
            instants=instants,
            patch=config.patch,
            width=width,
            paint_width=config.paint_width,
        )
        channels, seen = (instants + 1) * codec.shape[0], config.condition // 2
        self.watch = nn.ModuleList(
            Stem(codec.shape[-1], config.watch_width, seen, reads=channels)
            for _ in config.views
            if config.watch_width
        )

    @property
    def tokens(self) -> int:
        return len(self.action_position) + len(self.future_position) + len(self.registers)

    def forward(
        self,
        action_BHA: Float[Tensor, "b h a"],
        future_BVTCHW: Float[Tensor, "b v t c height width"],
        context: Context,
        *,
        sigma_action: Float[Tensor, " b"],
        sigma_future: Float[Tensor, " b"],
    ) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b e"]]:
        """The tokens after the trunk, of which `velocity` and `clean` are read; the global vector.

        The latter is the present's and, where it is watched, that of the future.
        """
        frames = torch.cat([future_BVTCHW, context.now_BVCHW[:, :, None]], dim=2)
        patch_BPX = rearrange(frames, "b v t c (h p) (w q) -> b (v h w) (t p q c)", **self.cut)
        action_BHD = self.embed_action(action_BHA) + self.action_position
        future_BPD = self.embed_future(patch_BPX) + self.future_position
        lit_B1 = (1 - sigma_future)[:, None]
        seen = [lit_B1 * stem(frames[:, v].flatten(1, 2)) for v, stem in enumerate(self.watch)]
        known_BE = torch.cat([context.vector_BC, *seen], dim=-1)
        told_BRD = self.tell_registers(known_BE).unflatten(1, self.registers.shape)
        registers_BRD = self.registers + told_BRD
        levels = [sinusoids(sigma, self.level_width) for sigma in (sigma_action, sigma_future)]
        dimmed_BHA = flow.like(1 - sigma_action, action_BHA) * action_BHA
        said = [known_BE, self.sum_up(dimmed_BHA.flatten(1)), *levels]

        x_BLD = torch.cat([action_BHD, future_BPD, registers_BRD], dim=1)
        return self.trunk(x_BLD, self.condition(torch.cat(said, dim=-1))), known_BE

    def velocity(self, x_BLD: Float[Tensor, "b l d"]) -> Float[Tensor, "b h a"]:
        """The velocity of the actions."""
        return self.read_action(x_BLD[:, : len(self.action_position)]).float()

    def clean(
        self, x_BLD: Float[Tensor, "b l d"], context: Context
    ) -> Float[Tensor, "b v t c h w"]:
        """The clean codes of the future frames."""
        future_BPD = x_BLD[:, len(self.action_position) : -len(self.registers)]
        return self.paint_future(future_BPD, context.now_BVCHW)


class UWM(WorldActionModel):
    card = {
        "paper": "arXiv 2504.02792",
        "family": "joint, diffusion, unified stream",
        "carrier": "pixels, or latents",
        "extractor": "none: actions are denoised beside the future",
        "coupling": "one draw",
        "generation": "flow, independent levels",
        "action labels": "optional per row",
    }
    stepped = (ACTION, FUTURE)

    @dataclass(frozen=True, kw_only=True)
    class Config(ModelConfig):
        """``codec``: what the future is made of, with the size of the one that is trained.

        ``marginal_*`` and ``clean_*``: shares of rows trained at exactly level 1 and level 0. Most
        see the future at level 1, where POLICY, FORWARD and JOINT ask for it.
        ``*_weight``: of the loss on the future's codes (chosen for pixels; latents have unit size,
        so that theirs weighs more), and of the regression that teaches the encoder, beside the
        actions' own. ``steps`` sample a stream, ``forward_steps`` a future whose action is known:
        what it leaves open is little, and every further step adds more noise than detail. A joint
        draw is the action and then the future, or both along the paper's diagonal.
        ``watch_width``: channels of the stem that looks at the future as a whole. 0 leaves it to
        attention, as the paper does; after minutes of training INVERSE then reads nothing there.
        """

        codec: Literal["pixels", "kl"] = "pixels"
        latent_channels: int = 8
        codec_width: int = 16
        patch: int = 16
        width: int = 192
        depth: int = 6
        heads: int = 3
        registers: int = 8
        condition: int = 256
        level_width: int = 64
        stem_width: int = 32
        paint_width: int = 64
        watch_width: int = 0
        marginal_action: float = 0.1
        marginal_future: float = 0.7
        clean_action: float = 0.1
        clean_future: float = 0.05
        future_weight: float = 20.0
        regression_weight: float = 4.0
        steps: int = 4
        forward_steps: int = 1
        action_first: bool = True

        @property
        def known(self) -> int:
            """The size of the global vector, of the present and of a future that is watched."""
            seen = len(self.views) * (self.condition // 2) if self.watch_width else 0
            return self.condition + seen

        @classmethod
        def small(cls) -> UWM.Config:
            return cls()

        @classmethod
        def tiny(cls) -> UWM.Config:
            return cls(
                image_size=32, latent_channels=4, codec_width=8, patch=16, width=32, depth=2,
                heads=2, registers=2, condition=32, level_width=16, stem_width=8, paint_width=16,
                chunk=8, offsets=(4, 8), steps=2,
            )  # fmt: skip

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.codec = make_codec(config)
        cell = self.codec.stride * GRAIN[config.codec]
        if config.image_size % config.patch or config.patch % cell:
            raise ValueError(
                f"image_size {config.image_size} must be a multiple of the patch {config.patch}, "
                f"and this one of {cell}"
            )
        self.encoder = ObservationEncoder(
            config.views,
            image_size=config.image_size,
            state_dim=config.state_dim,
            text_dim=config.text_dim,
            width=config.condition,
            stem_width=config.stem_width,
        )
        self.network = Network(config, self.codec)
        self.regression = ChunkRegression(config.known, config.chunk, config.action_dim)

    @property
    def queries(self) -> dict[Query, Answer]:
        c, space = self.config, self.codec.space
        calls, forward = c.steps, c.forward_steps
        joint = calls + forward if c.action_first else calls
        return {
            POLICY: Answer(True, marginal="statistical", calls=calls),
            VIDEO: Answer(True, space, marginal="statistical", calls=calls),
            JOINT: Answer(True, space, coupling="one draw", calls=joint),
            FORWARD: Answer(True, space, calls=forward),
            INVERSE: Answer(True, calls=calls),
        }

    def stages(self) -> list[Stage]:
        c = self.config
        streams = {
            **dict.fromkeys(c.image_streams, (0, *c.offsets)),
            "state": (0,),
            ACTION: tuple(range(c.chunk)),
        }
        joint = Window(streams, rate_hz=c.rate_hz)
        if c.codec == "pixels":
            return [Stage("joint", joint)]
        frames = Window(dict.fromkeys(c.image_streams, (0,)), rate_hz=c.rate_hz)
        rest = ("encoder.", "network.", "regression.")
        return [
            Stage("codec", frames, trains=("codec.",), share=0.15, produces="codec"),
            Stage("joint", joint, trains=rest, share=0.85, codec="codec"),
        ]

    def loss(
        self, batch: Batch, *, stage: str, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        if isinstance(self.codec, KL) and stage == "codec":
            frames, recorded = stacked(batch, self.config.image_streams, (0,))
            return self.codec.loss(frames[:, :, 0], recorded[:, :, 0], generator)
        context = self.context(batch)
        action, labelled_BH = self._action(batch)
        future, recorded_BVT = self._coded(batch, *self.config.offsets)
        sigma_a, sigma_o, learns_a, learns_o = self._levels(batch, labelled_BH, generator)

        noise_a, noise_o = (noise_like(x, generator) for x in (action, future))
        noisy_a = fill_absent(flow.interpolate(action, noise_a, sigma_a), labelled_BH, noise_a)
        noisy_o = fill_absent(flow.interpolate(future, noise_o, sigma_o), recorded_BVT, noise_o)
        x_BLD, known_BE = self.network(
            noisy_a, noisy_o, context, sigma_action=sigma_a, sigma_future=sigma_o
        )
        velocity, clean = self.network.velocity(x_BLD), self.network.clean(x_BLD, context)
        action_loss = flow.masked_mean(
            (velocity - flow.velocity(action, noise_a)).square(), labelled_BH & learns_a[:, None]
        )
        taught_BVT = recorded_BVT & learns_o[:, None, None]
        future_loss = flow.masked_mean(
            (clean - future).square().flatten(1, 2), taught_BVT.flatten(1, 2)
        )
        # What may not teach the policy may still be read off a future that is watched.
        regressed = learns_a if self.config.watch_width else batch.may("policy")
        regression = self.regression.loss(known_BE, action, labelled_BH & regressed[:, None])
        loss = action_loss + self.config.future_weight * future_loss
        loss = loss + self.config.regression_weight * regression
        return {
            "loss": loss, "action": action_loss, "future": future_loss, "regression": regression
        }  # fmt: skip

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
        how = checked_sampler(self, sampler, waits=True)
        context = self.context(observation)
        noise_a, noise_o = self._noise(generator)
        x_a = noise_a if ACTION not in query.given else self._given_action(action)
        x_o = noise_o
        if FUTURE in query.given:
            x_o = given_codes(future, self.config, self.codec)
        levels_a, levels_o = self._plan(query, how)

        for i in range(len(levels_a) - 1):
            x_a = flow.commit(x_a, prefix, noise_a, levels_a[i])
            x_BLD, _ = self.network(
                x_a,
                x_o,
                context,
                sigma_action=x_a.new_full((len(x_a),), levels_a[i]),
                sigma_future=x_o.new_full((len(x_o),), levels_o[i]),
            )
            if step := levels_a[i + 1] - levels_a[i]:
                x_a = x_a + step * self.network.velocity(x_BLD)
            if step := levels_o[i + 1] - levels_o[i]:
                x_o = x_o + step * (x_o - self.network.clean(x_BLD, context)) / levels_o[i]
        x_a = flow.commit(x_a, prefix, noise_a, levels_a[-1])

        return Prediction(
            action=action_chunk(x_a) if ACTION in query.sampled else None,
            future=imagined(x_o, self.config, self.codec) if FUTURE in query.sampled else None,
            cost=Cost(calls=len(levels_a) - 1),
        )

    def likelihood(
        self,
        batch: Batch,
        query: Query,
        *,
        levels: Float[Tensor, " l"],
        generator: Sequence[torch.Generator],
    ) -> Denoised:
        self.answer(query)
        context = self.context(batch)
        action, labelled_BH = self._action(batch)
        future, recorded_BVT = self._coded(batch, *self.config.offsets)
        shown_a, shown_o = [], []
        for level in levels.tolist():
            sigma = {ACTION: 1.0, FUTURE: 1.0} | dict.fromkeys(query.given, 0.0)
            sigma |= dict.fromkeys(query.sampled, level)
            sigma_a, sigma_o = (action.new_full((len(batch),), s) for s in sigma.values())
            noise_a, noise_o = self._noise(generator)
            noisy_a = fill_absent(flow.interpolate(action, noise_a, sigma_a), labelled_BH, noise_a)
            noisy_o = fill_absent(flow.interpolate(future, noise_o, sigma_o), recorded_BVT, noise_o)
            x_BLD, _ = self.network(
                noisy_a, noisy_o, context, sigma_action=sigma_a, sigma_future=sigma_o
            )
            velocity = self.network.velocity(x_BLD)
            shown_a.append(flow.clean_from_velocity(noisy_a, velocity, sigma_a))
            shown_o.append(self.network.clean(x_BLD, context))
        found_a = flow.recovered(levels, shown_a, action, labelled_BH)
        found_o = flow.recovered(levels, shown_o, future, recorded_BVT)
        if query == JOINT:
            return found_a + found_o
        return found_a if ACTION in query.sampled else found_o

    def flows(self, query: Query) -> list[Flow]:
        self.answer(query)
        frames, given = self.config.image_streams, query.given
        at_once = given if self.config.watch_width else {ACTION} & given
        routes: dict[Route, list[str]] = {
            "adaln": [*frames, "state", "text", *at_once],
            "attention": [*frames, "state", "text", *given],
            "channel": [*frames],
        }
        return [
            Flow(source, target, route)
            for route, sources in routes.items()
            for source in sources
            for target in query.sampled
        ]

    def decode(self, future: Future) -> Mapping[str, Float[Tensor, "b t 3 h w"]]:
        return {name: self.codec.decode(x).clamp(-1, 1) for name, x in future.values.items()}

    def encode(
        self, frames: Mapping[str, Float[Tensor, "b t 3 h w"]], offsets: Int[Tensor, "b t"] | None
    ) -> Future:
        codes = {name: self.codec.encode(x) for name, x in frames.items()}
        return Future(self.codec.space, self.codec.name, codes, offsets)

    def context(self, observation: Observation) -> Context:
        """Encode the present; a view or state that is absent is never read."""
        codes, _ = self._coded(observation, 0)
        return Context(self.encoder(observation), codes[:, :, 0])

    @property
    def tokens(self) -> int:
        """Tokens of one row in the trunk."""
        return self.network.tokens

    def _levels(
        self, batch: Batch, labelled_BH: Bool[Tensor, "b h"], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Levels of action and future per row, and which of the two the row may teach.

        A row that may teach the policy has independent levels. One that may not (its actions are
        noise, or it failed) still teaches the inverse (future given, level 0) or the forward
        dynamics (action given). A row without actions has its action at level 1.
        """
        c, rows, device = self.config, len(batch), labelled_BH.device
        atoms_a = {"marginal": c.marginal_action, "clean": c.clean_action}
        atoms_o = {"marginal": c.marginal_future, "clean": c.clean_future}
        sigma_a = flow.draw_levels(rows, generator=generator, **atoms_a).to(device)
        sigma_o = flow.draw_levels(rows, generator=generator, **atoms_o).to(device)
        coin = flow.draw_levels(rows, generator=generator).to(device) < 0.5

        labelled = labelled_BH.any(1)
        policy, forward, inverse = (batch.may(r) & labelled for r in ROLES[:3])
        only_inverse = ~policy & inverse & (coin | ~forward)
        only_forward = ~policy & forward & ~only_inverse
        sigma_o = torch.where(only_inverse, 0.0, sigma_o)
        sigma_a = torch.where(only_forward, 0.0, sigma_a)
        marginal = ~(policy | only_inverse | only_forward)
        sigma_a = torch.where(marginal, 1.0, sigma_a)
        learns_a = (policy | only_inverse) & (sigma_a > 0)
        learns_o = (policy | only_forward | batch.may("video")) & ~only_inverse & (sigma_o > 0)
        return sigma_a, sigma_o, learns_a, learns_o

    def _action(self, batch: Batch) -> tuple[Float[Tensor, "b h a"], Bool[Tensor, "b h"]]:
        stream = batch[ACTION].at(*range(self.config.chunk))
        return fill_absent(stream.values, stream.present), stream.present

    def _coded(
        self, batch: Batch, *offsets: int
    ) -> tuple[Float[Tensor, "b v t c h w"], Bool[Tensor, "b v t"]]:
        """The codes of frames at these offsets, served or made here, and which were recorded."""
        served = [f"{LATENT}{view}" for view in self.config.views]
        if served[0] in batch:
            return stacked(batch, served, offsets)
        frames, recorded = stacked(batch, self.config.image_streams, offsets)
        return fill_absent(self.codec.encode(frames), recorded), recorded

    def _noise(self, generator: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        c = self.config
        chunk = normal((c.chunk, c.action_dim), generator, self.device)
        video = (len(c.views), len(c.offsets), *self.codec.shape)
        return chunk, normal(video, generator, self.device)

    def _plan(
        self, query: Query, sampler: Mapping[str, Sampling]
    ) -> tuple[list[float], list[float]]:
        """The level of each stream at every step: stepped, held at 0 (given) or at 1 (marginal).

        In a joint draw a stream is held at 1 while it waits, and where it stopped when the other
        has further to go. Where the action goes first, the future waits for all of its steps.
        """
        c = self.config
        in_turn = query == JOINT and c.action_first
        future = c.forward_steps if in_turn or query == FORWARD else c.steps
        own = {ACTION: Sampling(c.steps), FUTURE: Sampling(future)}
        chosen = {name: sampler.get(name, own[name]) for name in query.sampled}
        waits = {name: s.waits() for name, s in chosen.items()}
        if in_turn:
            waits[FUTURE] = chosen[FUTURE].waits(waits[ACTION] + chosen[ACTION].steps)
        calls = max(waits[name] + s.steps for name, s in chosen.items())
        plan = {}
        for name in (ACTION, FUTURE):
            if name in chosen:
                s = chosen[name]
                before, after = [1.0] * waits[name], [s.stop] * (calls - waits[name] - s.steps)
                plan[name] = [*before, *flow.levels(s.steps, s.stop), *after]
            else:
                plan[name] = [0.0 if name in query.given else 1.0] * (calls + 1)
        return plan[ACTION], plan[FUTURE]

    def _given_action(self, action: Stream | None) -> Float[Tensor, "b h a"]:
        if action is None:
            raise ValueError("the query gives the action, but no action was passed")
        return action.at(*range(self.config.chunk)).values


def make_codec(config: UWM.Config) -> Codec:
    """The codec that a configuration names."""
    if config.codec == "kl":
        return KL(config.image_size, channels=config.latent_channels, width=config.codec_width)
    return Pixels(config.image_size)
