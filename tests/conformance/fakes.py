"""Six small systems that no published one resembles, to prove that the contract holds them all.

Each really learns and really answers; none needs anything outside its own class but the parts
above it. Shape legend: B rows, T instants, V views, H actions of size A, K bins, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from parts import (
    Config,
    Eye,
    Losses,
    actions,
    asked,
    between,
    card,
    film_loss,
    images,
    jitter,
    picture,
    stacked,
    window,
)
from torch import Tensor, nn

from wamlab.generative.discrete import draw, from_bins, masked_cross_entropy, to_bins
from wamlab.generative.flow import masked_mean
from wamlab.generative.noise import fill_absent, noise_like
from wamlab.models.base import Flow, Stage, WorldActionModel, action_chunk
from wamlab.nn.visibility import Block, Visibility, attend
from wamlab.types import (
    ACTION,
    FUTURE,
    JOINT,
    POLICY,
    VALUE,
    VIDEO,
    Answer,
    Batch,
    Cost,
    Future,
    Prediction,
    Query,
    Stream,
    Waypoints,
    Window,
)


@dataclass
class Cache:
    """What was seen and done so far, and what the last answer imagined on top of it."""

    seen: Float[Tensor, "b d"]
    imagined: Float[Tensor, "b d"]

    def select(self, rows: Any) -> Cache:
        return Cache(self.seen[rows], self.imagined[rows])

    def reset(self, rows: Any) -> Cache:
        fresh = Cache(self.seen.clone(), self.imagined.clone())
        fresh.seen[rows] = fresh.imagined[rows] = 0.0
        return fresh

    @staticmethod
    def join(parts: Sequence[Cache]) -> Cache:
        return Cache(*(torch.cat([getattr(p, n) for p in parts]) for n in ("seen", "imagined")))


class Chunks(WorldActionModel, name="fake-chunks"):
    """Chunk after chunk with a cache in which real frames replace the imagined ones."""

    Config = Config
    card = card("pixels", "beside the frame", "one draw", "chunk-autoregressive", "optional")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c, size = config, len(config.views) * 3 * config.image_size**2
        self.eye, self.cell = Eye(c), nn.GRUCell(c.width + c.action_dim, c.width)
        self.dream = nn.Linear(2 * c.width, c.width)
        self.show = nn.Linear(c.width, len(c.offsets) * size)
        self.act = nn.Linear(3 * c.width, c.chunk * c.action_dim)

    @property
    def queries(self) -> dict[Query, Answer]:
        return {POLICY: Answer(True), JOINT: Answer(True, "pixels", "one draw")}

    def stages(self) -> list[Stage]:
        h, past = self.config.chunk, (-2 * self.config.chunk, -self.config.chunk, 0)
        frames = dict.fromkeys(self.config.image_streams, (*past, *self.config.offsets))
        window = Window({**frames, "state": past, ACTION: tuple(range(-2 * h, h))})
        return [Stage("chunks", window)]

    def remember(self, before: Tensor, past: Tensor, executed: Stream | None) -> Tensor:
        done = past.new_zeros(len(past), self.config.action_dim)
        if executed is not None:
            done = fill_absent(executed.values, executed.present).sum(1) / len(executed.offsets[0])
        return self.cell(torch.cat([past, done], -1), before)

    def think(self, seen: Tensor, now: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dream = torch.tanh(self.dream(torch.cat([seen, now], -1)))
        act = self.act(torch.cat([seen, now, dream], -1)).unflatten(-1, (self.config.chunk, -1))
        return dream, self.show(dream), act

    def loss(self, batch: Batch, *, stage: str, step: int, generator: torch.Generator) -> Losses:
        c, done = self.config, None
        seen = torch.zeros(len(batch), c.width, device=self.device)
        for offset in (-2 * c.chunk, -c.chunk, 0):
            seen = self.remember(seen, self.eye(batch, offset), done)
            done = batch[ACTION].at(*range(offset, offset + c.chunk))
        _, shown, mean = self.think(seen, self.eye(batch))
        real, recorded = images(batch, c.image_streams, c.offsets)
        target, taught = actions(batch, c.chunk)
        future = film_loss(shown, real, recorded)
        action = masked_mean((mean - target).square(), taught)
        return {"loss": future + action, "future": future, "action": action}

    def observe(self, memory: Any, observation: Batch, executed: Stream | None) -> Cache:
        now = self.eye(observation)
        before = torch.zeros_like(now) if memory is None else memory.seen
        return Cache(self.remember(before, now, executed), torch.zeros_like(now))

    def sample(self, observation: Batch, query: Query, *, memory: Any = None,
               generator: Sequence[torch.Generator], **_: Any) -> Prediction:  # fmt: skip
        self.answer(query)
        memory = self.observe(None, observation, None) if memory is None else memory
        known = memory.seen + memory.imagined
        dream, shown, mean = self.think(known, self.eye(observation))
        film = picture(self.config, shown, self.config.offsets)
        return Prediction(
            action=jitter(mean, generator),
            future=film if FUTURE in query.sampled else None,
            memory=dataclasses.replace(memory, imagined=dream),
            cost=Cost(1),
        )

    def flows(self, query: Query) -> list[Flow]:
        seen = [*self.config.image_streams, "state", "text", "memory"]
        return between(seen, [*query.sampled])

    def decode(self, future: Future) -> Mapping[str, Tensor]:
        return future.values


class Plan(WorldActionModel, name="fake-plan"):
    """An unclocked film to the episode's end, read geometrically; it needs no action labels."""

    Config = Config
    card = card("pixels", "geometric", "one draw", "regression", "none")
    steps = 3

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        size = len(config.views) * 3 * config.image_size**2
        self.eye, self.show = Eye(config), nn.Linear(config.width, self.steps * size)

    @property
    def queries(self) -> dict[Query, Answer]:
        shown = Answer(False, "pixels", "one draw", plan="waypoints")
        acted = Answer(False, plan="waypoints")
        return {VIDEO: Answer(False, "pixels"), POLICY: acted, JOINT: shown}

    def stages(self) -> list[Stage]:
        frames = dict.fromkeys(self.config.image_streams, tuple(range(self.steps + 1)))
        return [Stage("film", Window({**frames, "state": (0,)}, "to_end"), roles=("video",))]

    def loss(self, batch: Batch, *, stage: str, step: int, generator: torch.Generator) -> Losses:
        ahead = range(1, self.steps + 1)  # places, not offsets: each row has its own clock
        views = [batch[view].columns(ahead) for view in self.config.image_streams]
        real, recorded = stacked(views)
        taught = recorded & batch.may("video")[:, None, None]
        return {"loss": film_loss(self.show(self.eye(batch)), real, taught)}

    def sample(self, observation: Batch, query: Query, *,
               generator: Sequence[torch.Generator], **_: Any) -> Prediction:  # fmt: skip
        self.answer(query)
        film = picture(self.config, self.show(self.eye(observation)), None)
        return Prediction(
            waypoints=self.route(film) if ACTION in query.sampled else None,
            future=film if FUTURE in query.sampled else None,
            cost=Cost(1),
        )

    def route(self, film: Future) -> Waypoints:
        """Where the light of the first view is, in a plane of 0.4 m; the gripper stays open."""
        light = film.values[self.config.image_streams[0]].mean(2)
        share = light.flatten(2).softmax(-1).unflatten(-1, light.shape[-2:])
        place = torch.linspace(-0.2, 0.2, light.shape[-1], device=light.device)
        x, y = (share.sum(d) @ place for d in (-2, -1))
        poses = torch.stack([x, y, torch.zeros_like(x)], -1)
        return Waypoints(poses, torch.full_like(x, 0.02), torch.full_like(x, -1.0))

    def flows(self, query: Query) -> list[Flow]:
        return between([*self.config.image_streams, "state", "text"], [*query.sampled])

    def decode(self, future: Future) -> Mapping[str, Tensor]:
        return future.values


class Tokens(WorldActionModel, name="fake-tokens"):
    """Action tokens, one step after the other; the tokens of one step are drawn in parallel."""

    Config = Config
    card = card("none", "none", "none", "discrete tokens", "needed")
    bins = 16

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c = config
        self.eye = Eye(c)
        self.word = nn.Embedding(self.bins, c.width)
        self.place = nn.Parameter(0.1 * torch.randn(2, c.chunk, c.action_dim, c.width))
        self.qkv, self.read = nn.Linear(c.width, 3 * c.width), nn.Linear(c.width, self.bins)
        for name, edge in (("low", -1.0), ("high", 1.0)):
            self.register_buffer(name, torch.full((c.action_dim,), edge))
        slots = [Block(n, c.action_dim, k) for k in range(c.chunk) for n in ("ask", "said")]
        told = {"eye": "all", "said": "earlier"}
        self.visibility = Visibility(
            [Block("eye", 1, -1), *slots],
            {"eye": {"eye": "self"}, "ask": {**told, "ask": "same"},
             "said": {"eye": "all", "said": ("earlier", "same")}},
        )  # fmt: skip

    def fit(self, statistics: Mapping[str, Any]) -> None:
        low, high = (torch.as_tensor(statistics[ACTION][name]) for name in ("q01", "q99"))
        self.low.copy_(low)
        self.high.copy_(torch.maximum(high, low + 1e-3))

    @property
    def queries(self) -> dict[Query, Answer]:
        return {POLICY: Answer(True, calls=self.config.chunk)}

    def stages(self) -> list[Stage]:
        return [Stage("tokens", window(self.config, 0), roles=("policy",))]

    def logits(self, seen: Tensor, said: Tensor) -> Float[Tensor, "b h a k"]:
        asked = self.place[0].expand(len(seen), -1, -1, -1)
        pairs = torch.stack([asked, self.word(said) + self.place[1]], dim=2)
        x = torch.cat([seen[:, None], rearrange(pairs, "b h two a d -> b (h two a) d")], 1)
        for _ in range(2):
            q, k, v = self.qkv(x)[:, None].chunk(3, -1)
            x = x + attend(q, k, v, self.visibility.mask(x.device))[:, 0]
        asked = x[:, self.visibility.positions("ask")]
        return self.read(asked).unflatten(1, said.shape[1:])

    def loss(self, batch: Batch, *, stage: str, step: int, generator: torch.Generator) -> Losses:
        values, taught = actions(batch, self.config.chunk)
        said = to_bins(values, self.low, self.high, self.bins)
        mask = taught[..., None].expand(said.shape)
        return {"loss": masked_cross_entropy(self.logits(self.eye(batch), said), said, mask)}

    def sample(self, observation: Batch, query: Query, *,
               generator: Sequence[torch.Generator], **_: Any) -> Prediction:  # fmt: skip
        self.answer(query)
        c, seen = self.config, self.eye(observation)
        said = torch.zeros(len(seen), c.chunk, c.action_dim, dtype=torch.long, device=seen.device)
        for k in range(c.chunk):
            said[:, k] = draw(self.logits(seen, said)[:, k], generator)
        values = from_bins(said, self.low, self.high, self.bins)
        return Prediction(action=action_chunk(values), cost=Cost(c.chunk))

    def flows(self, query: Query) -> list[Flow]:
        sources = [*self.config.image_streams, "state", "text"]
        return between(sources, [ACTION], route="attention", gradient=False)


class Features(WorldActionModel, name="fake-features"):
    """Imagines frozen features that nobody can decode; the action taps them without gradient."""

    Config = Config
    card = card("frozen features", "tap", "one draw", "regression", "optional")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c, size = config, len(config.views) * 3 * config.image_size**2
        seeded = torch.Generator().manual_seed(0)
        self.register_buffer("codec", torch.randn(size, c.width, generator=seeded) / size**0.5)
        self.eye, self.dream = Eye(c), nn.Linear(c.width, len(c.offsets) * c.width)
        self.act = nn.Linear(len(c.offsets) * c.width + c.state_dim, c.chunk * c.action_dim)

    @property
    def queries(self) -> dict[Query, Answer]:
        both = Answer(True, "features", "one draw")
        return {POLICY: Answer(True), VIDEO: Answer(False, "features"), JOINT: both}

    def stages(self) -> list[Stage]:
        frames = dict.fromkeys(self.config.image_streams, (0, *self.config.offsets))
        return [
            Stage(
                "both", Window({**frames, "state": (0,), ACTION: tuple(range(self.config.chunk))})
            )
        ]

    def think(self, batch: Batch) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b h a"]]:
        dream, state = self.dream(self.eye(batch)), batch["state"].at(0)
        told = fill_absent(state.values, state.present)[:, 0]
        act = self.act(torch.cat([dream.detach(), told], -1))
        return dream.unflatten(-1, (-1, self.config.width)), act.unflatten(
            -1, (self.config.chunk, -1)
        )

    def loss(self, batch: Batch, *, stage: str, step: int, generator: torch.Generator) -> Losses:
        dream, mean = self.think(batch)
        frames, recorded = images(batch, self.config.image_streams, self.config.offsets)
        target, taught = actions(batch, self.config.chunk)
        future = masked_mean((dream - frames.flatten(2) @ self.codec).square(), recorded.all(-1))
        action = masked_mean((mean - target).square(), taught)
        return {"loss": future + action, "future": future, "action": action}

    def sample(self, observation: Batch, query: Query, *,
               generator: Sequence[torch.Generator], **_: Any) -> Prediction:  # fmt: skip
        self.answer(query)
        dream, mean = self.think(observation)
        ticks = torch.tensor(self.config.offsets).expand(len(dream), -1)
        future = Future("features", "frozen random projection", {"features": dream}, ticks)
        return Prediction(
            action=jitter(mean, generator) if ACTION in query.sampled else None,
            future=future if FUTURE in query.sampled else None,
            cost=Cost(1),
        )

    def flows(self, query: Query) -> list[Flow]:
        seen = [*self.config.image_streams, "text"]
        action = [
            *between(seen, [ACTION], route="tap", gradient=False),
            Flow("state", ACTION, "channel"),
        ]
        future = between([*seen, "state"], [FUTURE])
        return asked([*action, *future], query)


CHOSEN = Query(sampled=[ACTION, VALUE])


class Judge(WorldActionModel, name="fake-judge"):
    """Proposes actions and says what each is worth: the recorded ones more than chance ones."""

    Config = Config
    card = card("none", "none", "none", "best of N", "needed")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        c, size = config, config.chunk * config.action_dim
        self.eye, self.act = Eye(c), nn.Linear(c.width, size)
        self.judge = nn.Sequential(
            nn.Linear(c.width + size, c.width), nn.Tanh(), nn.Linear(c.width, 1)
        )

    @property
    def queries(self) -> dict[Query, Answer]:
        return {POLICY: Answer(True), CHOSEN: Answer(True, coupling="one draw")}

    def stages(self) -> list[Stage]:
        return [Stage("judge", window(self.config, 0), roles=("policy",))]

    def worth(self, seen: Tensor, action: Float[Tensor, "b h a"]) -> Float[Tensor, " b"]:
        return self.judge(torch.cat([seen, action.flatten(1)], -1))[:, 0]

    def loss(self, batch: Batch, *, stage: str, step: int, generator: torch.Generator) -> Losses:
        seen, (target, taught) = self.eye(batch), actions(batch, self.config.chunk)
        mean = self.act(seen).unflatten(-1, (self.config.chunk, -1))
        action, whole = masked_mean((mean - target).square(), taught), taught.all(1)[:, None]
        good, chance = self.worth(seen, target), self.worth(seen, noise_like(target, generator))
        told = nn.functional.softplus(-good) + nn.functional.softplus(chance)
        value = masked_mean(told[:, None], whole)
        return {"loss": action + value, "action": action, "value": value}

    def sample(self, observation: Batch, query: Query, *,
               generator: Sequence[torch.Generator], **_: Any) -> Prediction:  # fmt: skip
        self.answer(query)
        seen = self.eye(observation)
        action = jitter(self.act(seen).unflatten(-1, (self.config.chunk, -1)), generator)
        value = self.worth(seen, action.values) if VALUE in query.sampled else None
        return Prediction(action=action, value=value, cost=Cost(1))

    def flows(self, query: Query) -> list[Flow]:
        return between([*self.config.image_streams, "state", "text"], [*query.sampled])


class Stages(WorldActionModel, name="fake-stages"):
    """First a world, then an actor that learns from what the frozen world imagines."""

    Config = Config
    card = card("pixels", "learned", "one draw", "regression", "second stage")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        size = len(config.views) * 3 * config.image_size**2
        self.world = nn.Sequential(Eye(config), nn.Linear(config.width, len(config.offsets) * size))
        self.actor = nn.Sequential(
            nn.Linear((1 + len(config.offsets)) * size, config.width), nn.Tanh(),
            nn.Linear(config.width, config.chunk * config.action_dim),
        )  # fmt: skip

    @property
    def queries(self) -> dict[Query, Answer]:
        both = Answer(True, "pixels", "one draw")
        return {VIDEO: Answer(False, "pixels"), POLICY: Answer(True), JOINT: both}

    def stages(self) -> list[Stage]:
        film = window(self.config, 0, *self.config.offsets, acts=False)
        chunk = window(self.config, 0)
        return [
            Stage("world", film, ("video",), ("world.",), share=0.5, produces="world"),
            Stage("actor", chunk, ("policy",), ("actor.",), share=0.5),
        ]

    def act(self, batch: Batch, dream: Float[Tensor, "b pixels"]) -> Float[Tensor, "b h a"]:
        now, _ = images(batch, self.config.image_streams, (0,))
        pair = torch.cat([now.flatten(1), dream.detach()], -1)
        return self.actor(pair).unflatten(-1, (self.config.chunk, -1))

    def loss(self, batch: Batch, *, stage: str, step: int, generator: torch.Generator) -> Losses:
        dream = self.world(batch)
        if stage == "actor":
            target, taught = actions(batch, self.config.chunk)
            return {"loss": masked_mean((self.act(batch, dream) - target).square(), taught)}
        real, recorded = images(batch, self.config.image_streams, self.config.offsets)
        taught = recorded & batch.may("video")[:, None, None]
        return {"loss": film_loss(dream, real, taught)}

    def sample(self, observation: Batch, query: Query, *,
               generator: Sequence[torch.Generator], **_: Any) -> Prediction:  # fmt: skip
        self.answer(query)
        dream = self.world(observation)
        shown = picture(self.config, dream, self.config.offsets)
        return Prediction(
            action=jitter(self.act(observation, dream), generator)
            if ACTION in query.sampled
            else None,
            future=shown if FUTURE in query.sampled else None,
            cost=Cost(1),
        )

    def flows(self, query: Query) -> list[Flow]:
        seen, told = list(self.config.image_streams), ["state", "text"]
        action = [*between(seen, [ACTION]), *between(told, [ACTION], route="tap", gradient=False)]
        future = between([*seen, *told], [FUTURE])
        return asked([*action, *future], query)

    def decode(self, future: Future) -> Mapping[str, Tensor]:
        return future.values


FAKES: tuple[type[WorldActionModel], ...] = (Chunks, Plan, Tokens, Features, Judge, Stages)
