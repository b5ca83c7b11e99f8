"""VPP, Video Prediction Policy (Hu et al., ICML 2025, arXiv 2412.14803): cascaded, implicit plan.

A video model is used as a predictive encoder. First it learns to draw the coming frames by
diffusion; then it is frozen, and a policy reads what its layers hold after one forward pass on
nothing but noise, in which the coarse future already is. To act, no video is ever sampled.

Translated here: the pretrained SVD is a small factorised network trained on the demonstrations
themselves, in pixels, and draws what changes (`wamlab.nn.video`, which says how). Its words are the
library's MiniLM embeddings, word by word, in the place of frozen CLIP tokens. It attends over both
views together, where the paper's features are of one camera each. Features come from a middle
block, the last block and the map that frames are drawn from. The paper's encoder and decoder of the
policy are one trunk over [actions | plan], modulated by the level, the instruction, the state and a
summary of the plan. That state, and a regression which only training reads, are not in the paper:
`uwm` and `reactive` have both, `gr1` has the state, `unipi` neither. A joint answer continues the
noise that was read into a clip: action and clip share that call and nothing after it.

Shape legend: B rows, V views, T imagined instants, CHW pixels, M channels of a map, G x G places of
a map, H actions of size A, Q queries of a frame, L tokens, D width; `vector_BC` is C wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wamlab.generative import diffusion, flow
from wamlab.generative.noise import fill_absent, noise_like, normal
from wamlab.models.base import (
    Flow,
    ModelConfig,
    Refusal,
    Sampling,
    Stage,
    WorldActionModel,
    action_chunk,
    checked_sampler,
    imagined,
    shown_pixels,
)
from wamlab.nn.codec import Pixels
from wamlab.nn.regression import ChunkRegression
from wamlab.nn.text import sentence_of
from wamlab.nn.transformer import Trunk, mlp, sinusoids
from wamlab.nn.video import Attention, Shown, VideoDenoiser, VideoNetwork, words_of
from wamlab.nn.vision import stacked
from wamlab.types import (
    ACTION,
    FUTURE,
    JOINT,
    POLICY,
    STATE,
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

ACTION_LEVELS = (1e-3, 80.0)
"""The lowest and the highest noise level of the actions."""

Maps = Mapping[str, Float[Tensor, "b v t m y x"]]


class FormerLayer(nn.Module):
    """The queries of an instant read its places in all views, then each follows its own in time."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_look, self.norm_follow, self.norm_think = (nn.LayerNorm(width) for _ in range(3))
        self.look, self.follow = Attention(width, heads), Attention(width, heads)
        self.think = mlp(width, 4 * width, width)

    def forward(
        self, x_BTQD: Float[Tensor, "b t q d"], places_BTPD: Float[Tensor, "b t p d"]
    ) -> Float[Tensor, "b t q d"]:
        rows, instants = x_BTQD.shape[:2]
        h = self.look(self.norm_look(x_BTQD).flatten(0, 1), places_BTPD.flatten(0, 1))
        x_BTQD = x_BTQD + h.unflatten(0, (rows, instants))
        h = rearrange(self.norm_follow(x_BTQD), "b t q d -> (b q) t d")
        x_BTQD = x_BTQD + rearrange(self.follow(h, h), "(b q) t d -> b t q d", b=rows)
        return x_BTQD + self.think(self.norm_think(x_BTQD))


class VideoFormer(nn.Module):
    """The maps of several layers to a few tokens per instant (the paper's Video Former)."""

    def __init__(self, config: VPP.Config, channels: int) -> None:
        super().__init__()
        width, views, instants = config.plan_width, len(config.views), len(config.offsets)
        self.side = config.image_size // 8
        self.gather = nn.Linear(channels, width)
        self.place = nn.Parameter(0.02 * torch.randn(views, self.side**2, width))
        self.queries = nn.Parameter(0.02 * torch.randn(instants, config.queries, width))
        self.layers = nn.ModuleList(
            FormerLayer(width, config.plan_heads) for _ in range(config.plan_depth)
        )
        self.norm_places, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, maps: Maps) -> Float[Tensor, "b t q d"]:
        together = torch.cat([self._resized(one) for one in maps.values()], dim=3)
        places = self.gather(rearrange(together, "b v t m y x -> b t v (y x) m")) + self.place
        places_BTPD = self.norm_places(places.flatten(2, 3))
        x_BTQD = self.queries.expand(len(places), -1, -1, -1)
        for layer in self.layers:
            x_BTQD = layer(x_BTQD, places_BTPD)
        return self.norm(x_BTQD)

    def _resized(self, map_: Float[Tensor, "b v t m y x"]) -> Float[Tensor, "b v t n g g"]:
        """To an eighth of the frame's side: fine maps folded into channels, coarse ones repeated.

        Each is brought to deviation one first: the layers of a trunk differ in scale.
        """
        lead = map_.shape[:3]
        flat = F.layer_norm(map_.flatten(0, 2).movedim(1, -1), map_.shape[3:4]).movedim(-1, 1)
        if (fold := flat.shape[-1] // self.side) > 1:
            flat = F.pixel_unshuffle(flat, fold)
        else:
            flat = F.interpolate(flat, size=self.side, mode="nearest")
        return flat.unflatten(0, lead)


class Plan(NamedTuple):
    """What the policy knows: the tokens of the plan, and one vector with instruction and state."""

    tokens_BLD: Float[Tensor, "b l d"]
    vector_BC: Float[Tensor, "b c"]


class Planner(nn.Module):
    """From maps, instruction and state to a `Plan`."""

    def __init__(self, config: VPP.Config, channels: int) -> None:
        super().__init__()
        c, half = config, config.condition // 2
        self.former = VideoFormer(c, channels)
        self.embed = nn.Linear(c.plan_width, c.policy_width)
        self.sum_up = nn.Linear(len(c.offsets) * c.queries * c.plan_width, c.condition)
        self.text = nn.Linear(c.text_dim, half)
        self.no_state = nn.Parameter(torch.zeros(c.state_dim))
        self.mix = mlp(c.condition + half + c.state_dim, 2 * c.condition, c.condition)

    def forward(self, maps: Maps, observation: Observation) -> Plan:
        said = sentence_of(observation.text)
        plan_BLD = self.former(maps).flatten(1, 2)
        now = observation[STATE].at(0)
        state = fill_absent(now.values, now.present, self.no_state)[:, 0]
        known = [self.sum_up(plan_BLD.flatten(1)), self.text(said), state]
        return Plan(self.embed(plan_BLD), self.mix(torch.cat(known, dim=-1)))


class PolicyNetwork(nn.Module):
    """The network F of the actions: ``[actions | plan]`` under full attention."""

    def __init__(self, config: VPP.Config) -> None:
        super().__init__()
        width = config.policy_width
        self.embed_action = nn.Linear(config.action_dim, width)
        self.action_position = nn.Parameter(0.02 * torch.randn(config.chunk, width))
        self.level_width = config.level_width
        self.condition = mlp(
            config.condition + config.level_width, config.condition, config.condition
        )
        self.trunk = Trunk(width, config.policy_depth, config.policy_heads, config.condition)
        self.read_action = nn.Linear(width, config.action_dim)
        nn.init.zeros_(self.read_action.weight)
        nn.init.zeros_(self.read_action.bias)

    def forward(
        self, action_BHA: Float[Tensor, "b h a"], plan: Plan, noise_level: Float[Tensor, " b"]
    ) -> Float[Tensor, "b h a"]:
        action_BHD = self.embed_action(action_BHA) + self.action_position
        x_BLD = torch.cat([action_BHD, plan.tokens_BLD.to(action_BHD.dtype)], dim=1)
        known = torch.cat([plan.vector_BC, sinusoids(noise_level, self.level_width)], dim=-1)
        x_BLD = self.trunk(x_BLD, self.condition(known))
        return self.read_action(x_BLD[:, : action_BHA.shape[1]]).float()


class VPP(WorldActionModel):
    card = {
        "paper": "arXiv 2412.14803",
        "family": "cascaded, implicit plan",
        "carrier": "features of a video denoiser in pixels",
        "extractor": "Video Former and diffusion transformer",
        "coupling": "shared context",
        "generation": "diffusion (EDM), one forward pass to act",
        "action labels": "needed in the second stage only",
    }
    stepped = (ACTION, FUTURE)

    @dataclass(frozen=True, kw_only=True)
    class Config(ModelConfig):
        """Sizes of the video network, of the plan (Video Former) and of the policy.

        ``taps`` are the maps that the policy reads. ``drop`` is the share of rows that learn the
        video without the instruction, for ``guidance``. ``video_steps`` sample a clip,
        ``policy_steps`` a chunk.
        """

        offsets: tuple[int, ...] = (4, 8, 12, 16)
        width: int = 192
        depth: int = 4
        heads: int = 3
        paint_width: int = 64
        level_width: int = 64
        taps: tuple[str, ...] = ("block2", "block4", "up")
        drop: float = 0.05
        guidance: float = 1.0
        queries: int = 6
        plan_width: int = 128
        plan_depth: int = 2
        plan_heads: int = 2
        policy_width: int = 192
        policy_depth: int = 4
        policy_heads: int = 3
        condition: int = 128
        sigma_action: float = 0.5
        regression_weight: float = 4.0
        video_steps: int = 5
        policy_steps: int = 10

        @classmethod
        def small(cls) -> VPP.Config:
            return cls()

        @classmethod
        def tiny(cls) -> VPP.Config:
            return cls(
                image_size=32, chunk=8, offsets=(4, 8), width=32, depth=2, heads=2, paint_width=16,
                level_width=16, taps=("block1", "block2", "up"), drop=0.5, guidance=1.5, queries=2,
                plan_width=16, plan_depth=1, policy_width=32, policy_depth=2, policy_heads=2,
                condition=32, video_steps=3, policy_steps=2,
            )  # fmt: skip

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        network = VideoNetwork(
            len(c.views),
            len(c.offsets),
            image_size=c.image_size,
            text_dim=c.text_dim,
            width=c.width,
            depth=c.depth,
            heads=c.heads,
            paint_width=c.paint_width,
            level_width=c.level_width,
        )
        self.video = VideoDenoiser(network)
        self.planner = Planner(c, sum(map(self._channels, c.taps)))
        self.policy = PolicyNetwork(c)
        self.regression = ChunkRegression(c.condition, c.chunk, c.action_dim)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What is counted as a network call: the video network, and the policy's."""
        return self.video.network, self.policy

    @property
    def tokens(self) -> int:
        """Tokens of one row in the video network."""
        return self.video.network.tokens

    @property
    def queries(self) -> dict[Query, Answer]:
        c = self.config
        video = c.video_steps * (1 if c.guidance == 1 else 2)
        return {
            POLICY: Answer(True, marginal="exact", calls=1 + c.policy_steps),
            VIDEO: Answer(True, "pixels", marginal="exact", calls=video),
            JOINT: Answer(True, "pixels", coupling="shared context", calls=video + c.policy_steps),
        }

    def stages(self) -> list[Stage]:
        c = self.config
        frames = dict.fromkeys(c.image_streams, (0, *c.offsets))
        now = {**dict.fromkeys(c.image_streams, (0,)), STATE: (0,), ACTION: tuple(range(c.chunk))}
        return [
            Stage(
                "video",
                Window(frames, rate_hz=c.rate_hz),
                roles=("video",),
                trains=("video.",),
                produces="video network",
            ),
            Stage(
                "policy",
                Window(now, rate_hz=c.rate_hz),
                roles=("policy",),
                trains=("planner.", "policy.", "regression."),
            ),
        ]

    def loss(
        self, batch: Batch, *, stage: str, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        if stage == "video":
            return self._video_loss(batch, generator)
        return self._policy_loss(batch, generator)

    def _video_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Float[Tensor, ""]]:
        """Stage 1: denoise the coming frames of both views, given the first and the words."""
        clip, present = stacked(batch, self.config.image_streams, self.config.offsets)
        present = present & batch.may("video")[:, None, None]
        coin = torch.rand(len(batch), generator=generator, device=generator.device)
        hears = (coin >= self.config.drop).to(clip.device)
        loss = self.video.loss(clip, present, self._shown(batch, hears), generator)
        return {"loss": loss, "future": loss}

    def _policy_loss(
        self, batch: Batch, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """Stage 2: denoise the chunk, given what the frozen video network makes of fresh noise."""
        c = self.config
        stream = batch[ACTION].at(*range(c.chunk))
        taught = stream.present & batch.may("policy")[:, None]
        action = fill_absent(stream.values, taught)
        with torch.no_grad():
            noise = torch.randn(
                (len(batch), *self._clip), generator=generator, device=generator.device
            )
            maps = self.video.foresee(noise.to(self.device), self._shown(batch), c.taps)
        plan = self.planner(maps, batch)

        sigma = diffusion.log_logistic(
            len(batch), math.log(c.sigma_action), 0.5, *ACTION_LEVELS, generator=generator
        ).to(action.device)
        noise = noise_like(action, generator)
        pre = diffusion.precondition(sigma, c.sigma_action)
        unknown = noise / flow.like(pre.input, noise)
        noisy = fill_absent(diffusion.add_noise(action, noise, sigma), taught, unknown)
        error = (self._denoise(noisy, sigma, plan) - action).square()
        weight = flow.like(diffusion.weight(sigma, c.sigma_action), error)
        action_loss = flow.masked_mean(weight * error, taught)
        regression = self.regression.loss(plan.vector_BC, action, taught)
        loss = action_loss + c.regression_weight * regression
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
        """To act is one look at noise; a clip is drawn only where the future is asked for.

        A ``stop`` of ``sampler`` is a level of EDM: a deviation of pixels or of actions.
        """
        self.answer(query)
        c = self.config
        chosen = checked_sampler(self, sampler, guided=(FUTURE,))
        noise = normal(self._clip, generator, self.device)
        noise_a = normal((c.chunk, c.action_dim), generator, self.device)
        shown = self._shown(observation)
        if FUTURE not in query.sampled:
            maps, clip, calls = self.video.foresee(noise, shown, c.taps), None, 1
        else:
            how = chosen.get(FUTURE, Sampling(c.video_steps))
            maps, clip, calls = self._clip_from(noise, shown, observation, how)
        chunk = None
        if ACTION in query.sampled:
            how = chosen.get(ACTION, Sampling(c.policy_steps))
            # The video network is frozen for the policy: what is read teaches nothing before it.
            plan = self.planner({name: one.detach() for name, one in maps.items()}, observation)
            chunk, calls = self._chunk_from(noise_a, plan, prefix, how), calls + how.steps
        return Prediction(
            action=None if chunk is None else action_chunk(chunk),
            future=None if clip is None else imagined(clip, c, Pixels),
            cost=Cost(calls=calls),
        )

    def _clip_from(
        self, noise: Tensor, shown: Shown, observation: Observation, how: Sampling
    ) -> tuple[dict[str, Tensor], Tensor, int]:
        """The maps of the first call, the clip that the same noise becomes, and how many calls."""
        guidance = how.guided(self.config.guidance)
        guided = guidance != 1
        deaf = torch.zeros(len(observation), dtype=torch.bool, device=self.device)
        null = self._shown(observation, deaf) if guided else shown
        first: dict[str, Tensor] = {}

        def denoise(x: Tensor, sigma: float) -> Tensor:
            nonlocal first
            level = self.video.level(x, sigma)
            clean, maps = self.video.read(x, level, shown, self.config.taps)
            first = first or maps
            return flow.guide(self.video(x, level, null), clean, guidance) if guided else clean

        levels = self.video.levels(how.steps, how.stop)
        clip = diffusion.euler(denoise, self.video.begin(noise, shown), levels)
        return first, clip, how.steps * (2 if guided else 1)

    def _chunk_from(
        self, noise: Tensor, plan: Plan, prefix: Stream | None, how: Sampling
    ) -> Float[Tensor, "b h a"]:
        def denoise(x: Tensor, sigma: float) -> Tensor:
            x = diffusion.commit(x, prefix, noise, sigma)
            return self._denoise(x, x.new_full((len(x),), sigma), plan)

        levels = diffusion.exponential(how.steps, *ACTION_LEVELS, stop=how.stop)
        x = diffusion.euler(denoise, levels[0] * noise, levels)
        return diffusion.commit(x, prefix, noise, how.stop)

    def _denoise(
        self, x_BHA: Float[Tensor, "b h a"], sigma: Float[Tensor, " b"], plan: Plan
    ) -> Float[Tensor, "b h a"]:
        pre = diffusion.precondition(sigma, self.config.sigma_action)
        content = self.policy(flow.like(pre.input, x_BHA) * x_BHA, plan, pre.noise)
        return flow.like(pre.skip, x_BHA) * x_BHA + flow.like(pre.out, x_BHA) * content

    def likelihood(
        self,
        batch: Batch,
        query: Query,
        *,
        levels: Float[Tensor, " l"],
        generator: Sequence[torch.Generator],
    ) -> Denoised:
        """Of the clip, or of the actions given one look at noise.

        A policy draws that noise too. Given it, the mean bound is never below the bound without,
        since ``-log`` is convex: it bounds POLICY. The clip is not guided.

        Raises:
            Refusal: JOINT, whose action and clip hang together by the noise that both begin with.
        """
        self.answer(query)
        if query == VIDEO:
            clip, present = stacked(batch, self.config.image_streams, self.config.offsets)
            shown = self._shown(batch)
            return self.video.recovered(clip, present, shown, levels=levels, generator=generator)
        if query == JOINT:
            raise Refusal(
                f"{self.name} has no likelihood of {query}: action and clip share the noise that "
                "they begin with, which no one has recorded"
            )
        c, stream = self.config, batch[ACTION].at(*range(self.config.chunk))
        noise = normal(self._clip, generator, self.device)
        plan = self.planner(self.video.foresee(noise, self._shown(batch), c.taps), batch)
        action = fill_absent(stream.values, stream.present)
        levels, sigmas = diffusion.trained_levels(levels, *ACTION_LEVELS)
        found = diffusion.recoveries(
            lambda x, sigma: self._denoise(x, x.new_full((len(x),), sigma), plan),
            action,
            stream.present,
            sigmas=sigmas,
            sigma_data=c.sigma_action,
            generator=generator,
        )
        return flow.recovered(levels, found, action, stream.present)

    def flows(self, query: Query) -> list[Flow]:
        self.answer(query)
        frames, found = self.config.image_streams, []
        if ACTION in query.sampled:
            found += [Flow(name, ACTION, "tap", gradient=False) for name in (*frames, "text")]
            found += [Flow(name, ACTION, "adaln") for name in (STATE, "text")]
        if FUTURE in query.sampled:
            found += [Flow(name, FUTURE, "channel") for name in frames]
            found += [Flow("text", FUTURE, "cross"), Flow("text", FUTURE, "adaln")]
        return found

    def decode(self, future: Future) -> Mapping[str, Float[Tensor, "b t 3 h w"]]:
        return shown_pixels(future)

    def _shown(self, observation: Observation, hears: Bool[Tensor, " b"] | None = None) -> Shown:
        """The first frame, tiled over all instants, and the words for the rows that hear them."""
        now, known = stacked(observation, self.config.image_streams, (0,))
        tiled = now.expand(-1, -1, len(self.config.offsets), -1, -1, -1)
        return Shown(tiled, tiled, known[:, :, 0], *words_of(observation.text, hears))

    @property
    def _clip(self) -> tuple[int, ...]:
        c = self.config
        return len(c.views), len(c.offsets), 3, c.image_size, c.image_size

    def _channels(self, name: str) -> int:
        """Channels of a map once it is folded to an eighth of the frame's side."""
        network, side = self.video.network, self.config.image_size // 8
        fold = max(1, network.side_of(name) // side)
        return network.channels(name) * fold**2
