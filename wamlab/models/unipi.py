"""UniPi (Du et al., NeurIPS 2023, arXiv 2302.00111): cascaded, explicit plan, learned extraction.

A planner draws by diffusion, from the first frame and the instruction, what will be seen: first a
sparse clip, then, by temporal super-resolution, the frames between. An inverse dynamics model looks
at two frames that follow each other and says which actions lead from the one to the other. The
first frame is a condition of the training and tiled beside every frame; only the inverse dynamics
model ever sees an action.

Translated here: both video networks denoise in pixels and draw what changes (`wamlab.nn.video`,
which says how): the planner about the first frame, the super-resolution about the linear
interpolation of the sparse clip. Both draw frames at their full size: the paper's stages of spatial
super-resolution are left out. The words are the library's MiniLM embeddings, word by word, in the
place of frozen T5-XXL. An inverse step spans several actions and returns them all, and keeps places
where the paper averages over them: what a pixel of motion means depends on where it is. It may look
at the steps beside it too: how a motion goes on tells how it began. It sees frames alone, no state,
so that it can be asked about frames that are only imagined. The paper's (1 + w) c - w u is the
library's u + s (c - u) with s = 1 + w; the null branch knows neither text nor first frame. The
paper does not publish w; 1 (no guidance) is the default.

Not shown here: that plans combine words which were never heard together, the paper's compositional
generalisation. At the size of the tests heard pairs are acted on and unheard ones are not.

Shape legend: B rows, V views, T instants, CHW pixels, S steps (pairs of frames), K actions of a
step, H = S K actions of size A.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wamlab.generative import diffusion, flow
from wamlab.generative.noise import fill_absent, normal
from wamlab.models.base import (
    Flow,
    ModelConfig,
    Refusal,
    Sampling,
    Stage,
    WorldActionModel,
    action_chunk,
    checked_sampler,
    given_codes,
    imagined,
    shown_pixels,
)
from wamlab.nn.codec import Pixels
from wamlab.nn.transformer import mlp
from wamlab.nn.video import Shown, VideoDenoiser, VideoNetwork, words_of
from wamlab.nn.vision import Stem, stacked
from wamlab.types import (
    ACTION,
    FUTURE,
    INVERSE,
    JOINT,
    POLICY,
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

Clip = Float[Tensor, "b v t 3 height width"]


class InverseDynamics(nn.Module):
    """Two frames of every view to the actions between them.

    A view in which either frame is absent is a learned placeholder. With a ``reach`` so many steps
    before and after are read as well, as zeros where the clip has ended.
    """

    def __init__(self, config: UniPi.Config) -> None:
        super().__init__()
        c = config
        self.stems = nn.ModuleList(
            Stem(c.image_size, c.inverse_stem, c.inverse_width, reads=6) for _ in c.views
        )
        self.no_view = nn.Parameter(torch.zeros(len(c.views), c.inverse_width))
        joined = len(c.views) * c.inverse_width * (1 + 2 * c.inverse_reach)
        self.read = mlp(joined, 2 * c.inverse_width, c.inverse_width, c.stride * c.action_dim)
        self.stride, self.reach = c.stride, c.inverse_reach

    def forward(
        self, clip_BVTCHW: Clip, present_BVT: Bool[Tensor, "b v t"]
    ) -> Float[Tensor, "b h a"]:
        """The actions from the first frame to the last of a clip."""
        pairs = torch.cat([clip_BVTCHW[:, :, :-1], clip_BVTCHW[:, :, 1:]], dim=3)
        seen_BVS = both(present_BVT)
        steps = pairs.shape[2]
        features = []
        for v, stem in enumerate(self.stems):
            feature = stem(pairs[:, v].flatten(0, 1)).unflatten(0, (-1, steps))
            features.append(fill_absent(feature, seen_BVS[:, v], self.no_view[v]))
        alone = F.pad(torch.cat(features, dim=-1), (0, 0, self.reach, self.reach))
        beside = [alone[:, first : first + steps] for first in range(1 + 2 * self.reach)]
        actions = self.read(torch.cat(beside, dim=-1)).float()
        return rearrange(actions, "b s (k a) -> b (s k) a", k=self.stride)


def both(present_BVT: Bool[Tensor, "b v t"]) -> Bool[Tensor, "b v s"]:
    """Which pairs of frames that follow each other are there."""
    return present_BVT[:, :, :-1] & present_BVT[:, :, 1:]


class UniPi(WorldActionModel):
    card = {
        "paper": "arXiv 2302.00111",
        "family": "cascaded, explicit plan",
        "carrier": "pixels",
        "extractor": "inverse dynamics on pairs of frames",
        "coupling": "one draw",
        "generation": "diffusion (EDM), coarse to fine in time",
        "action labels": "needed by the inverse dynamics only",
    }
    stepped = (FUTURE,)

    @dataclass(frozen=True, kw_only=True)
    class Config(ModelConfig):
        """``coarse`` are the instants of the sparse clip, among ``offsets`` that lie evenly apart.

        Sizes of the planner, of the temporal super-resolution (``refine_*``) and of the inverse
        dynamics, which reads ``inverse_reach`` steps on either side of each as well. ``drop`` is
        the share of rows that learn the video without text and first frame. ``steps`` sample the
        sparse clip, ``refine_steps`` the fine one.
        """

        offsets: tuple[int, ...] = (4, 8, 12, 16)
        coarse: tuple[int, ...] = (8, 16)
        width: int = 192
        depth: int = 4
        heads: int = 3
        paint_width: int = 64
        level_width: int = 64
        refine_width: int = 128
        refine_depth: int = 2
        refine_heads: int = 2
        inverse_stem: int = 24
        inverse_width: int = 128
        inverse_reach: int = 0
        drop: float = 0.1
        guidance: float = 1.0
        steps: int = 5
        refine_steps: int = 3

        @property
        def stride(self) -> int:
            """Ticks, and actions, between two instants."""
            return self.chunk // len(self.offsets)

        @classmethod
        def small(cls) -> UniPi.Config:
            return cls()

        @classmethod
        def tiny(cls) -> UniPi.Config:
            return cls(
                image_size=32, chunk=8, offsets=(2, 4, 6, 8), coarse=(4, 8), width=32, depth=2,
                heads=2, paint_width=16, level_width=16, refine_width=16, refine_depth=1,
                inverse_stem=8, inverse_width=16, inverse_reach=1, drop=0.5, guidance=1.5, steps=2,
                refine_steps=2,
            )  # fmt: skip

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        _check_instants(c)
        sizes = {
            "image_size": c.image_size,
            "text_dim": c.text_dim,
            "paint_width": c.paint_width,
            "level_width": c.level_width,
        }
        planner = VideoNetwork(
            len(c.views), len(c.coarse), width=c.width, depth=c.depth, heads=c.heads, **sizes
        )
        refiner = VideoNetwork(
            len(c.views),
            len(c.offsets),
            conditions=3,
            width=c.refine_width,
            depth=c.refine_depth,
            heads=c.refine_heads,
            **sizes,
        )
        self.plan, self.refine = VideoDenoiser(planner), VideoDenoiser(refiner)
        self.inverse = InverseDynamics(c)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What is counted as a network call: planner, super-resolution and inverse dynamics."""
        return self.plan.network, self.refine.network, self.inverse

    @property
    def tokens(self) -> int:
        """Tokens of one row in the largest network."""
        return max(self.plan.network.tokens, self.refine.network.tokens)

    @property
    def queries(self) -> dict[Query, Answer]:
        c = self.config
        video = (c.steps + c.refine_steps) * (1 if c.guidance == 1 else 2)
        return {
            POLICY: Answer(True, marginal="exact", calls=video + 1),
            VIDEO: Answer(True, "pixels", marginal="exact", calls=video),
            JOINT: Answer(True, "pixels", coupling="one draw", calls=video + 1),
            INVERSE: Answer(False, calls=1),
        }

    def stages(self) -> list[Stage]:
        c = self.config
        coarse = dict.fromkeys(c.image_streams, (0, *c.coarse))
        fine = dict.fromkeys(c.image_streams, (0, *c.offsets))
        chunk = {ACTION: tuple(range(c.chunk))}
        return [
            Stage(
                "plan",
                Window(coarse, rate_hz=c.rate_hz),
                roles=("video",),
                trains=("plan.",),
                share=0.5,
                produces="planner",
            ),
            Stage(
                "refine",
                Window(fine, rate_hz=c.rate_hz),
                trains=("refine.",),
                share=0.2,
                produces="temporal super-resolution",
            ),
            Stage(
                "inverse",
                Window({**fine, **chunk}, rate_hz=c.rate_hz),
                roles=("inverse",),
                trains=("inverse.",),
                share=0.3,
            ),
        ]

    def loss(
        self, batch: Batch, *, stage: str, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        c = self.config
        if stage == "inverse":
            return self._inverse_loss(batch)
        coin = torch.rand(len(batch), generator=generator, device=generator.device)
        keeps = (coin >= c.drop).to(self.device)
        if stage == "plan":
            clip, present = self._frames(batch, c.coarse)
            # What is planned is done: who may not teach the policy may not teach the plan.
            present = present & batch.may("video")[:, None, None]
            loss = self.plan.loss(clip, present, self._planned(batch, keeps), generator)
        else:
            coarse, there = self._frames(batch, c.coarse)
            clip, present = self._known(batch, there)
            shown = self._refined(batch, coarse, keeps)
            loss = self.refine.loss(clip, present, shown, generator)
        return {"loss": loss, "future": loss}

    def _inverse_loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The squared error of the actions between frames of which some view shows both."""
        c = self.config
        clip, present = self._frames(batch, (0, *c.offsets))
        stream = batch[ACTION].at(*range(c.chunk))
        seen = both(present).any(1).repeat_interleave(c.stride, dim=1)
        taught = stream.present & seen & batch.may("inverse")[:, None]
        error = self.inverse(clip, present) - fill_absent(stream.values, taught)
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
        """To act is to imagine and to extract; `JOINT` shows the very clip that was extracted from.

        ``sampler`` speaks of the future alone; its steps and its ``stop`` (a level of EDM: a
        deviation of pixels) are those of the sparse clip.
        """
        self.answer(query)
        c = self.config
        chosen = checked_sampler(self, sampler, guided=(FUTURE,))
        if FUTURE in query.given:
            clip, calls = given_codes(future, c, Pixels), 0
        else:
            how = chosen.get(FUTURE, Sampling(c.steps))
            clip, calls = self._imagine(observation, how, generator)
        chunk = None
        if ACTION in query.sampled:
            chunk, calls = self._extract(observation, clip), calls + 1
            chunk = diffusion.commit(chunk, prefix, chunk, 0.0)
        return Prediction(
            action=None if chunk is None else action_chunk(chunk),
            future=imagined(clip, c, Pixels) if FUTURE in query.sampled else None,
            cost=Cost(calls=calls),
        )

    def _imagine(
        self, observation: Observation, how: Sampling, generator: Sequence[torch.Generator]
    ) -> tuple[Clip, int]:
        """A clip at all instants, coarse to fine, and how many calls it took."""
        c, guidance = self.config, how.guided(self.config.guidance)
        none = torch.zeros(len(observation), dtype=torch.bool, device=self.device)
        coarse = _draw(
            self.plan,
            self._planned(observation),
            self._planned(observation, none),
            replace(how, guidance=guidance),
            normal(self._shape(c.coarse), generator, self.device),
        ).clamp(-1, 1)
        clip = _draw(
            self.refine,
            self._refined(observation, coarse),
            self._refined(observation, coarse, none),
            Sampling(c.refine_steps, guidance=guidance),
            normal(self._shape(c.offsets), generator, self.device),
        )
        calls = (how.steps + c.refine_steps) * (1 if guidance == 1 else 2)
        return clip, calls

    def _extract(self, observation: Observation, clip: Clip) -> Float[Tensor, "b h a"]:
        """The actions that lead from the current frame through the clip."""
        first, known = self._frames(observation, (0,))
        present = torch.cat([known, known.new_ones(clip.shape[:3])], dim=2)
        return self.inverse(torch.cat([first, clip], dim=2), present)

    def likelihood(
        self,
        batch: Batch,
        query: Query,
        *,
        levels: Float[Tensor, " l"],
        generator: Sequence[torch.Generator],
    ) -> Denoised:
        """Of the clip without guidance: the sparse frames, and given them those between.

        The first is the planner's, the second the super-resolution's, which sees the recorded
        sparse frames as it does in training. (A sample draws the sparse frames again, near those
        that were planned; here they are the planner's.) A frame between two of which one was not
        recorded is not counted.

        Raises:
            Refusal: all but VIDEO. Actions are regressed off the clip and have no density.
        """
        self.answer(query)
        if query != VIDEO:
            raise Refusal(
                f"{self.name} has no likelihood of {query}: its actions are regressed off the clip"
            )
        c = self.config
        coarse, there = self._frames(batch, c.coarse)
        shown = self._planned(batch)
        planned = self.plan.recovered(coarse, there, shown, levels=levels, generator=generator)
        clip, present = self._known(batch, there)
        between = torch.tensor([k not in c.coarse for k in c.offsets], device=present.device)
        return planned + self.refine.recovered(
            clip,
            present,
            self._refined(batch, coarse),
            counted_BVT=present & between,
            levels=levels,
            generator=generator,
        )

    def flows(self, query: Query) -> list[Flow]:
        self.answer(query)
        frames = self.config.image_streams
        if query == INVERSE:
            return [Flow(source, ACTION, "channel") for source in (*frames, FUTURE)]
        return [
            flow_
            for target in query.sampled
            for flow_ in (
                *(Flow(name, target, "channel") for name in frames),
                Flow("text", target, "cross"),
                Flow("text", target, "adaln"),
            )
        ]

    def decode(self, future: Future) -> Mapping[str, Float[Tensor, "b t 3 h w"]]:
        return shown_pixels(future)

    def encode(
        self, frames: Mapping[str, Float[Tensor, "b t 3 h w"]], offsets: Int[Tensor, "b t"] | None
    ) -> Future:
        return Future(Pixels.space, Pixels.name, dict(frames), offsets)

    def _planned(self, observation: Observation, keeps: Bool[Tensor, " b"] | None = None) -> Shown:
        """The planner sees the first frame at every instant; who does not keep it sees no text."""
        first, known = self._first(observation, keeps)
        tiled = repeat(first, "b v c h w -> b v t c h w", t=len(self.config.coarse))
        return Shown(tiled, tiled, known, *words_of(observation.text, keeps))

    def _refined(
        self, observation: Observation, coarse: Clip, keeps: Bool[Tensor, " b"] | None = None
    ) -> Shown:
        """The refiner sees, at every instant, the first frame and the coarse frames around it.

        What is left if nothing else moves is the linear interpolation between those two.
        """
        first, known = self._first(observation, keeps)
        clip = torch.cat([first[:, :, None], coarse], dim=2)
        before, after = self._neighbours()
        tiled = repeat(first, "b v c h w -> b v t c h w", t=len(self.config.offsets))
        frames = torch.cat([tiled, clip[:, :, before], clip[:, :, after]], dim=3)
        return Shown(frames, self._between(clip), known, *words_of(observation.text, keeps))

    def _first(
        self, observation: Observation, keeps: Bool[Tensor, " b"] | None
    ) -> tuple[Float[Tensor, "b v 3 h w"], Bool[Tensor, "b v"]]:
        """The first frame, grey where it is absent or not kept, and where it is known."""
        frames, present = self._frames(observation, (0,))
        known = present[:, :, 0] if keeps is None else present[:, :, 0] & keeps[:, None]
        return fill_absent(frames[:, :, 0], known), known

    def _neighbours(self) -> tuple[list[int], list[int]]:
        """For each instant the places, in (now, *coarse), of the coarse ones before and after."""
        c = self.config
        coarse = (0, *c.coarse)
        before = [bisect_right(coarse, offset) - 1 for offset in c.offsets]
        after = [bisect_left(coarse, offset) for offset in c.offsets]
        return before, after

    def _between(self, clip: Float[Tensor, "b v k 3 height width"]) -> Clip:
        """From (now, *coarse) to all instants, linearly."""
        c = self.config
        ticks = torch.tensor((0, *c.coarse), device=clip.device, dtype=clip.dtype)
        wanted = torch.tensor(c.offsets, device=clip.device, dtype=clip.dtype)
        before, after = self._neighbours()
        gap = (ticks[after] - ticks[before]).clamp(min=1)
        share = ((wanted - ticks[before]) / gap)[:, None, None, None]
        return torch.lerp(clip[:, :, before], clip[:, :, after], share)

    def _frames(self, batch: Batch, offsets: Sequence[int]) -> tuple[Clip, Bool[Tensor, "b v t"]]:
        return stacked(batch, self.config.image_streams, offsets)

    def _known(
        self, batch: Batch, coarse_BVK: Bool[Tensor, "b v k"]
    ) -> tuple[Clip, Bool[Tensor, "b v t"]]:
        """The frames at all instants, and which of them lie between real coarse neighbours."""
        clip, present = self._frames(batch, self.config.offsets)
        before, after = self._neighbours()
        there = torch.cat([torch.ones_like(coarse_BVK[:, :, :1]), coarse_BVK], dim=2)
        return clip, present & there[:, :, before] & there[:, :, after]

    def _shape(self, offsets: Sequence[int]) -> tuple[int, ...]:
        c = self.config
        return len(c.views), len(offsets), 3, c.image_size, c.image_size


def _draw(
    video: VideoDenoiser, shown: Shown, null: Shown, how: Sampling, noise_BVTCHW: Clip
) -> Clip:
    """A clip by deterministic steps, guided away from what text and first frame do not explain."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        level = video.level(x, sigma)
        clean = video(x, level, shown)
        if guidance == 1:
            return clean
        return flow.guide(video(x, level, null), clean, guidance)

    guidance = how.guided()
    levels = video.levels(how.steps, how.stop)
    return diffusion.euler(denoise, video.begin(noise_BVTCHW, shown), levels)


def _check_instants(config: UniPi.Config) -> None:
    """Raise ValueError unless the instants divide the chunk and the coarse ones reach its end."""
    c = config
    even = tuple(range(c.stride, c.chunk + 1, c.stride)) if c.offsets and c.stride else ()
    if c.offsets != even or even[-1:] != (c.chunk,):
        raise ValueError(
            f"offsets {c.offsets} do not divide a chunk of {c.chunk} actions evenly: every inverse "
            "step spans as many actions as there are ticks between two offsets"
        )
    if not set(c.coarse) <= set(c.offsets) or c.coarse[-1:] != c.offsets[-1:]:
        raise ValueError(
            f"coarse {c.coarse} must be among the offsets {c.offsets} and end where they end"
        )
