"""GR-1 (Wu et al., ICLR 2024, arXiv 2312.13139): joint, autoregressive over what was seen.

A causal transformer reads the steps of a history: at each the instruction, the state and a few
tokens of every view. Learned queries stand at every step: [ACT] is read out into the actions that
begin there, [OBS] into the frames that follow. Nobody reads a query, not even the query itself, so
action and future share the context and nothing else; both are regressed in one call, nothing is
drawn, and nothing imagined is read again.

Translated here:

- The steps lie ``stride`` ticks apart: 8, as far as the policy acts on Meta-World before it asks
  again (in the scene it acts 4, and the steps stay 8 apart). An [ACT] is read out into a whole
  chunk. The frames after a step are those at the common ``offsets``.
- A small convolutional network, trained along, replaces the frozen MAE, and the global token of a
  view (there the CLS token) is a linear reading of its whole map. ``encoder="frozen"`` leaves that
  network at its random start: the library's frozen pre-trained features
  (`wamlab.nn.codec.Features`, at a sixteenth of the size) are not read. The instruction is the
  library's sentence embedding in the place of CLIP's.
- The gripper is continuous: it has the SmoothL1 loss of the other dimensions, where the paper has
  a binary cross-entropy. State and gripper opening enter as they are.
- The paper regresses frames whose patches have mean 0 and variance 1, and never needs pixels. Here
  each patch also tells how its mean and deviation differ from those of the same patch now, with a
  small loss of its own, and pixels follow. (Taking those of now shows what moves less well.)
- A training step imagines after some steps of the history, other ones each time, not after all.
- There is no dropout: in minutes of training no row is seen often.

What is absent is a masked key: missing history, a missing state, a missing view. Which rows may
teach actions and futures is judged from now on: a burst that lies in the past stays among the
targets of the past steps (a push without direction, a few ticks long). On the demonstrations of
`mw-6` 32 % of the rows that teach the policy have such an action among their targets: 5.3 % of all
targets, of the chunk that begins now none, of those 8, 16 and 24 ticks before 3.7, 8.6 and 10.1 %.

Shape legend: B rows, T steps of the history, S context tokens of a step, V views, K instants of the
future, Q [OBS] tokens of a frame, CHW pixels of a frame, P patches of X values, H actions of size
A, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wamlab.config import nearest
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
    imagined,
    shown_pixels,
)
from wamlab.nn.codec import Pixels
from wamlab.nn.resampler import Resampler
from wamlab.nn.text import sentence_of
from wamlab.nn.transformer import attention, mlp
from wamlab.nn.visibility import Block, Rule, Visibility, attend
from wamlab.nn.vision import ResidualBlock
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
    Future,
    Memory,
    Observation,
    Prediction,
    Query,
    Stream,
    Window,
)

CONTEXT, ACT, OBS = "context", "[ACT]", "[OBS]"
FLAT = 1e-6
"""Added to the variance of a patch: more than one value off by one level of 255 gives it."""

Steps = tuple[int, ...]
Encoder = Literal["trained", "frozen"]


class Past(NamedTuple):
    """The history as the trunk reads it: at each step instruction, state, then view after view.

    A step counts as ``seen`` where anything was observed; now always does.
    """

    tokens_BTSD: Float[Tensor, "b t s d"]
    present_BTS: Bool[Tensor, "b t s"]
    seen_BT: Bool[Tensor, "b t"]
    frames_BTVCHW: Float[Tensor, "b t v 3 h w"]


@cache
def visibility(history: int, size: int, act: Steps, frames: int, obs: Steps) -> Visibility:
    """Who reads whom: ``size`` causal context tokens a step, and queries at the asked steps.

    A query reads the context of its own and of earlier steps; nobody reads a query.
    """
    blocks = [Block(CONTEXT, size, step) for step in range(history)]
    reads: dict[str, dict[str, Sequence[Rule]]] = {CONTEXT: {CONTEXT: ("earlier", "causal")}}
    for name, count, steps in ((ACT, 1, act), (OBS, frames, obs)):
        blocks += [Block(name, count, step) for step in steps]
        if steps:
            reads[name] = {CONTEXT: ("earlier", "same")}
    return Visibility(blocks, reads)


class Layer(nn.Module):
    """A block of GPT-2 with the paper's ReLU: norm, attention; norm, network; short cuts beside."""

    def __init__(self, width: int, heads: int, expansion: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)

    def forward(
        self, x_BLD: Float[Tensor, "b l d"], mask: Bool[Tensor, "b 1 l l"] | None = None
    ) -> Float[Tensor, "b l d"]:
        qkv = self.qkv(self.norm_attention(x_BLD))
        q, k, v = rearrange(qkv, "b l (n h d) -> n b h l d", n=3, h=self.heads)
        read = attention(q, k, v) if mask is None else attend(q, k, v, mask)
        x_BLD = x_BLD + self.out(rearrange(read, "b h l d -> b l (h d)"))
        return x_BLD + self.contract(F.relu(self.expand(self.norm_mlp(x_BLD))))


class Eye(nn.Module):
    """One frame to a few latents and one global token.

    The latents resample the features at an eighth of the size. The global token is a linear reading
    of a map at a quarter: where a thing is matters more for acting than what it is.
    """

    def __init__(self, config: GR1.Config) -> None:
        super().__init__()
        width, quarter, eighth = (n * config.stem_width for n in (1, 2, 4))
        sides = -(-config.image_size // 4), -(-config.image_size // 8)
        self.near = nn.Sequential(
            nn.Conv2d(3, width, 5, 2, 2, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            ResidualBlock(width, quarter, stride=2),
        )
        self.far = nn.Sequential(
            nn.Conv2d(quarter, eighth, 3, 2, 1, bias=False), nn.GroupNorm(8, eighth), nn.ReLU()
        )
        if config.encoder == "frozen":
            self.near.requires_grad_(False)
            self.far.requires_grad_(False)
        self.whole = nn.Sequential(
            nn.Conv2d(quarter, 8, 1, bias=False),
            nn.GroupNorm(1, 8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * sides[0] ** 2, config.width),
        )
        self.place = nn.Parameter(0.02 * torch.randn(sides[1] ** 2, eighth))
        self.resample = Resampler(eighth, config.latents, config.resampler_depth, heads=4)
        self.embed = nn.Linear(eighth, config.width)

    def forward(self, frame: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n s d"]:
        near = self.near(frame.contiguous(memory_format=torch.channels_last))
        features = rearrange(self.far(near), "n c h w -> n (h w) c") + self.place
        latents = self.embed(self.resample(features))
        return torch.cat([latents, self.whole(near)[:, None]], dim=1).float()


class Network(nn.Module):
    """The trunk: ``[context of every step | [ACT] | [OBS]]``, queries only where they are asked.

    Which step a token belongs to is a learned embedding that all tokens of the step share.
    """

    def __init__(self, config: GR1.Config) -> None:
        super().__init__()
        width = config.width
        self.time = nn.Parameter(0.02 * torch.randn(config.history, width))
        self.act = nn.Parameter(0.02 * torch.randn(1, width))
        self.obs = nn.Parameter(0.02 * torch.randn(config.frames * config.obs, width))
        self.norm_in = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        tokens_BTSD: Float[Tensor, "b t s d"],
        present_BTS: Bool[Tensor, "b t s"],
        *,
        act: Steps = (),
        obs: Steps = (),
    ) -> tuple[Float[Tensor, "b ta d"], Float[Tensor, "b to q d"]]:
        """What the queries at steps ``act`` and ``obs`` (counted from the oldest) have read."""
        rows, history, size, _ = tokens_BTSD.shape
        graph = visibility(history, size, act, len(self.obs), obs)
        context_BLD = rearrange(tokens_BTSD + self.time[:, None], "b t s d -> b (t s) d")
        queries = [
            repeat(query + self.time[list(steps), None], "t q d -> b (t q) d", b=rows)
            for query, steps in ((self.act, act), (self.obs, obs))
        ]
        x_BLD = self.norm_in(torch.cat([context_BLD, *queries], dim=1))
        present_BL = F.pad(present_BTS.flatten(1), (0, len(graph) - history * size), value=True)
        mask = graph.merged(present_BL)
        for layer in self.layers:
            x_BLD = layer(x_BLD, mask)
        asked_BLD = self.norm(x_BLD[:, history * size :]).float()
        act_BTD, obs_BLD = asked_BLD.split([len(act), len(obs) * len(self.obs)], dim=1)
        return act_BTD, obs_BLD.unflatten(1, (len(obs), len(self.obs)))


class PatchDecoder(nn.Module):
    """[OBS] tokens to a frame's patches, as in a masked autoencoder (He et al., 2111.06377).

    Copies of one mask token, each at its place, and the [OBS] tokens read each other. A patch comes
    out normalised, with the change of its mean and deviation from now.
    """

    place: Tensor

    def __init__(self, config: GR1.Config) -> None:
        super().__init__()
        width = config.draw_width
        self.tell = nn.Linear(config.width, width)
        self.blank = nn.Parameter(0.02 * torch.randn(width))
        place = grid_positions(config.image_size // config.patch, width)
        self.register_buffer("place", place, persistent=False)
        layers = (Layer(width, config.draw_heads) for _ in range(config.draw_depth))
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)
        self.draw = nn.Linear(width, 3 * config.patch**2)
        self.shade = nn.Linear(width, 2)
        nn.init.zeros_(self.shade.weight)
        nn.init.zeros_(self.shade.bias)

    def forward(
        self, obs_NQD: Float[Tensor, "n q d"]
    ) -> tuple[Float[Tensor, "n p x"], Float[Tensor, "n p 2"]]:
        blank_NPD = (self.blank + self.place).expand(len(obs_NQD), -1, -1)
        x_NLD = torch.cat([blank_NPD, self.tell(obs_NQD)], dim=1)
        for layer in self.layers:
            x_NLD = layer(x_NLD)
        x_NPD = self.norm(x_NLD[:, : len(self.place)])
        return self.draw(x_NPD).float(), self.shade(x_NPD).float()


class GR1(WorldActionModel):
    card = {
        "paper": "arXiv 2312.13139",
        "family": "joint, autoregressive",
        "carrier": "pixels",
        "extractor": "none: action and future are read out side by side",
        "coupling": "shared context",
        "generation": "regression from a causal history",
        "action labels": "optional per row",
    }

    @dataclass(frozen=True, kw_only=True)
    class Config(ModelConfig):
        """``history`` steps, ``stride`` ticks apart, of which the last is now.

        A view is ``latents`` tokens and a global one, an imagined frame ``obs`` queries. A training
        step imagines after ``imagined`` of the steps. ``draw_*`` are sizes of the patch decoder.
        ``*_weight``: of the losses on normalised patches and on their statistics, beside the
        actions' own (the paper weighs actions and patches alike).
        """

        history: int = 4
        stride: int = 8
        encoder: Encoder = "trained"
        stem_width: int = 16
        latents: int = 3
        resampler_depth: int = 1
        obs: int = 4
        width: int = 192
        depth: int = 4
        heads: int = 3
        patch: int = 8
        imagined: int = 1
        draw_width: int = 64
        draw_depth: int = 2
        draw_heads: int = 4
        future_weight: float = 0.1
        statistics_weight: float = 1.0

        @property
        def steps(self) -> Steps:
            """The offsets of the history's steps, in ticks."""
            return tuple(self.stride * (step + 1 - self.history) for step in range(self.history))

        @property
        def frames(self) -> int:
            """The frames that are imagined after each step, over views and instants."""
            return len(self.views) * len(self.offsets)

        @classmethod
        def small(cls) -> GR1.Config:
            return cls()

        @classmethod
        def tiny(cls) -> GR1.Config:
            return cls(
                image_size=32, chunk=8, offsets=(4, 8), history=3, stride=4, stem_width=8,
                latents=2, obs=1, width=32, depth=2, heads=2, draw_width=32,
                draw_depth=1, draw_heads=2,
            )  # fmt: skip

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.image_size % config.patch:
            raise ValueError(
                f"image_size {config.image_size} must be a multiple of the patch {config.patch}"
            )
        if config.stride < 1 or not 1 <= config.imagined <= config.history:
            raise ValueError(
                f"expected stride >= 1 and 1 <= imagined <= history, got {config.stride}, "
                f"{config.imagined} and {config.history}"
            )
        if config.encoder not in (known := get_args(Encoder)):
            raise ValueError(f"no encoder {config.encoder!r}{nearest(config.encoder, known)}")
        width, actions = config.width, (config.chunk, config.action_dim)
        self.embed_text = nn.Linear(config.text_dim, width)
        self.embed_state = nn.Linear(config.state_dim, width)
        self.eyes = nn.ModuleDict({view: Eye(config) for view in config.views})
        self.network = Network(config)
        self.read_action = nn.Sequential(
            mlp(width, width, width, config.chunk * config.action_dim), nn.Unflatten(-1, actions)
        )
        self.decoder = PatchDecoder(config)

    @property
    def queries(self) -> dict[Query, Answer]:
        return {
            POLICY: Answer(False, marginal="exact"),
            VIDEO: Answer(False, "pixels", marginal="exact"),
            JOINT: Answer(False, "pixels", coupling="shared context"),
        }

    def stages(self) -> list[Stage]:
        c = self.config
        shown = {step + offset for step in c.steps for offset in (0, *c.offsets)}
        acted = {step + tick for step in c.steps for tick in range(c.chunk)}
        streams = {
            **dict.fromkeys(c.image_streams, tuple(sorted(shown))),
            STATE: c.steps,
            ACTION: tuple(sorted(acted)),
        }
        window = Window(streams, rate_hz=c.rate_hz)
        return [Stage("joint", window, roles=("policy", "video"))]

    def loss(
        self, batch: Batch, *, stage: str, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        c, past = self.config, self.look(batch)
        # Nobody reads a query: what is left out here changes nothing of the rest. Where nothing is
        # absent the loss on futures is an unbiased estimate of the one over all steps; where
        # something is, each draw is a mean over what there is, however little, and weighs the same.
        shuffled = torch.randperm(c.history, generator=generator, device=generator.device)
        after = tuple(shuffled[: c.imagined].tolist())
        act_BTD, obs_BTLD = self.network(
            past.tokens_BTSD, past.present_BTS, act=tuple(range(c.history)), obs=after
        )

        chunk, taught_BTH = self._chunks(batch, past)
        error = F.smooth_l1_loss(self.read_action(act_BTD), chunk, reduction="none")
        action_loss = flow.masked_mean(error.flatten(1, 2), taught_BTH.flatten(1))

        frames, taught_BTVK = self._futures(batch, past, after)
        true_patches, true_statistics = normalised(patches(frames, c.patch))
        drawn_patches, drawn_statistics = self._draw(obs_BTLD, past.frames_BTVCHW[:, list(after)])
        taught_BL = taught_BTVK.flatten(1)
        error = (drawn_patches - true_patches).square()
        future_loss = flow.masked_mean(error.flatten(1, 3), taught_BL)
        error = (drawn_statistics - true_statistics).square()
        statistics_loss = flow.masked_mean(error.flatten(1, 3), taught_BL)

        loss = action_loss + c.future_weight * future_loss + c.statistics_weight * statistics_loss
        return {
            "loss": loss, "action": action_loss, "future": future_loss,
            "statistics": statistics_loss,
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
        """As the contract says; actions after a committed prefix do not depend on it."""
        self.answer(query)
        checked_sampler(self, sampler)
        last = (self.config.history - 1,)
        past = self.look(observation)
        act_BTD, obs_BTLD = self.network(
            past.tokens_BTSD,
            past.present_BTS,
            act=last if ACTION in query.sampled else (),
            obs=last if FUTURE in query.sampled else (),
        )
        answer = Prediction(cost=Cost(calls=1))
        if ACTION in query.sampled:
            chunk = self.read_action(act_BTD)[:, -1]
            answer.action = action_chunk(flow.commit(chunk, prefix, torch.zeros_like(chunk), 0.0))
        if FUTURE in query.sampled:
            drawn = self._draw(obs_BTLD, past.frames_BTVCHW[:, -1:])
            answer.future = self._pixels(*(part[:, -1] for part in drawn))
        return answer

    def flows(self, query: Query) -> list[Flow]:
        self.answer(query)
        frames = self.config.image_streams
        sources = (*frames, STATE, "text")
        read = [Flow(source, target, "attention") for source in sources for target in query.sampled]
        # The statistics of an imagined patch are told as a change of those that are seen now.
        return read + [Flow(name, FUTURE, "channel") for name in frames if FUTURE in query.sampled]

    def decode(self, future: Future) -> Mapping[str, Float[Tensor, "b t 3 h w"]]:
        return shown_pixels(future)

    @property
    def tokens(self) -> int:
        """Tokens of one row in the trunk, in training."""
        c = self.config
        step = 2 + len(c.views) * (c.latents + 1)
        return c.history * (step + 1) + c.imagined * c.frames * c.obs

    def look(self, observation: Observation) -> Past:
        """Encode every step of the history; what is absent is never read.

        Raises:
            KeyError: a view or the state is missing as a stream, or at a step of the history.
            ValueError: the instructions carry no pooled embedding.
        """
        c, said = self.config, sentence_of(observation.text)
        views = [observation[name].at(*c.steps) for name in c.image_streams]
        state = observation[STATE].at(*c.steps)
        frames = torch.stack([fill_absent(s.values, s.present) for s in views], dim=2)
        text_BD = self.embed_text(said)
        state_BTD = self.embed_state(fill_absent(state.values, state.present))
        tokens = [repeat(text_BD, "b d -> b t 1 d", t=c.history), state_BTD[:, :, None]]
        for view, eye in enumerate(self.eyes.values()):
            seen = eye(frames[:, :, view].flatten(0, 1))
            tokens.append(seen.unflatten(0, (-1, c.history)))

        shown_BTV = torch.stack([s.present for s in views], dim=2)
        seen_BT = shown_BTV.any(2) | state.present
        seen_BT[:, -1] = True
        shown_BTS = repeat(shown_BTV, "b t v -> b t (v s)", s=c.latents + 1)
        present = torch.cat([seen_BT[..., None], state.present[..., None], shown_BTS], dim=2)
        return Past(torch.cat(tokens, dim=2), present, seen_BT, frames)

    def _chunks(
        self, batch: Batch, past: Past
    ) -> tuple[Float[Tensor, "b t h a"], Bool[Tensor, "b t h"]]:
        """The chunk that begins at each step, and which of its actions teach."""
        c = self.config
        stream = batch[ACTION].at(*(step + tick for step in c.steps for tick in range(c.chunk)))
        lay_out = {"t": c.history, "h": c.chunk}
        chunk = rearrange(stream.values, "b (t h) a -> b t h a", **lay_out)
        present = rearrange(stream.present, "b (t h) -> b t h", **lay_out)
        taught = present & past.seen_BT[..., None] & batch.may("policy")[:, None, None]
        return fill_absent(chunk, taught), taught

    def _futures(
        self, batch: Batch, past: Past, after: Steps
    ) -> tuple[Float[Tensor, "b t v k 3 h w"], Bool[Tensor, "b t v k"]]:
        """The frames after the steps of ``after``, and which of them teach."""
        c = self.config
        instants = [c.steps[step] + offset for step in after for offset in c.offsets]
        streams = [batch[name].at(*instants) for name in c.image_streams]
        frames = torch.stack([fill_absent(s.values, s.present) for s in streams], dim=1)
        present = torch.stack([s.present for s in streams], dim=1)
        present = rearrange(present, "b v (t k) -> b t v k", t=len(after))
        may = batch.may("video")[:, None] & past.seen_BT[:, list(after)]
        frames = rearrange(frames, "b v (t k) c h w -> b t v k c h w", t=len(after))
        return frames, present & may[..., None, None]

    def _draw(
        self, obs_BTLD: Float[Tensor, "b t l d"], now_BTVCHW: Float[Tensor, "b t v 3 h w"]
    ) -> tuple[Float[Tensor, "b t v k p x"], Float[Tensor, "b t v k p 2"]]:
        """Normalised patches of the frames after some steps, and their means and deviations."""
        c = self.config
        lay_out = {"b": len(obs_BTLD), "v": len(c.views), "k": len(c.offsets)}
        obs_NQD = rearrange(obs_BTLD, "b t (n q) d -> (b t n) q d", q=c.obs)
        drawn = [
            rearrange(part, "(b t v k) p x -> b t v k p x", **lay_out)
            for part in self.decoder(obs_NQD)
        ]
        _, now = normalised(patches(now_BTVCHW, c.patch))
        return drawn[0], now[:, :, :, None] + drawn[1]

    def _pixels(
        self,
        patches_BVKPX: Float[Tensor, "b v k p x"],
        statistics_BVKP2: Float[Tensor, "b v k p 2"],
    ) -> Future:
        c = self.config
        mean, deviation = statistics_BVKP2.split(1, dim=-1)
        frames = rearrange(
            mean + deviation.clamp(min=0) * patches_BVKPX,
            "b v k (h w) (p q c) -> b v k c (h p) (w q)",
            h=c.image_size // c.patch, p=c.patch, q=c.patch,
        )  # fmt: skip
        return imagined(frames, c, Pixels)


def patches(frames: Float[Tensor, "*n 3 h w"], size: int) -> Float[Tensor, "*n p x"]:
    """Frames cut into squares of ``size`` pixels."""
    return rearrange(frames, "... c (h p) (w q) -> ... (h w) (p q c)", p=size, q=size)


def normalised(
    patches: Float[Tensor, "*n p x"],
) -> tuple[Float[Tensor, "*n p x"], Float[Tensor, "*n p 2"]]:
    """Patches of mean 0 and variance 1, and the mean and deviation that each had."""
    variance, mean = torch.var_mean(patches, dim=-1, correction=0, keepdim=True)
    deviation = (variance + FLAT).sqrt()
    return (patches - mean) / deviation, torch.cat([mean, deviation], dim=-1)


def grid_positions(side: int, width: int) -> Float[Tensor, "places width"]:
    """Sines and cosines of row and column, half of ``width`` each, at rates from 1 to 1e-4.

    Raises:
        ValueError: a width that is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"positions on a grid need a multiple of 4 as width, got {width}")
    rates = 1e-4 ** (torch.arange(width // 4) / (width // 4))
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = torch.stack([row, column], dim=-1).reshape(-1, 2, 1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
