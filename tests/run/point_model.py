"""Models and a processor for the point environment: untrained, small, and honest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from point_env import SPACE

from wamlab.models.base import ModelConfig, Refusal, Stage, WorldActionModel
from wamlab.policy.policy import Policy
from wamlab.types import (
    ACTION,
    FORWARD,
    FUTURE,
    INVERSE,
    JOINT,
    POLICY,
    STATE,
    VIDEO,
    Answer,
    Batch,
    Future,
    Prediction,
    Stream,
    Text,
    Waypoints,
    Window,
)

SCALE = 0.5


@dataclass(frozen=True, kw_only=True)
class PointConfig(ModelConfig):
    views: tuple[str, ...] = ("top", "side")
    image_size: int = 16
    chunk: int = 8
    offsets: tuple[int, ...] = (4, 8)
    rate_hz: float = 10.0
    past: tuple[int, ...] = ()
    noise: float = 0.3


class PointModel(WorldActionModel, name="point"):
    """The action is a linear map of the state plus noise, the future the present plus a shade."""

    Config = PointConfig
    card = {"family": "test"}
    answers = (POLICY, VIDEO, JOINT, FORWARD, INVERSE)

    def __init__(self, config: PointConfig | None = None) -> None:
        super().__init__(config or PointConfig())
        torch.manual_seed(0)
        self.network = torch.nn.Linear(4, self.config.chunk * 4)
        self.seen: list[Batch] = []

    @property
    def queries(self):
        return {query: Answer(stochastic=True, space="pixels") for query in self.answers}

    def stages(self):
        streams = dict.fromkeys(self.config.image_streams, (*self.config.past, 0))
        past = {STATE: (*self.config.past, 0), ACTION: (*self.config.past, *range(8))}
        return [Stage("all", Window(streams | past))]

    def sample(self, observation, query, *, action=None, future=None, generator, **_):
        self.answer(query)
        self.seen.append(observation)
        drawn = [torch.randn(self.config.chunk, 4, generator=g) for g in generator]
        noise = torch.stack(drawn).to(self.device)
        result = Prediction()
        if ACTION in query.sampled:
            state = observation[STATE].at(0).values[:, 0]
            mean = rearrange(self.network(state), "b (h a) -> b h a", a=4)
            result.action = self._stream(torch.tanh(mean + self.config.noise * noise))
        if FUTURE in query.sampled:
            shade = 0.1 * noise.mean((1, 2)) if action is None else action.values.mean((1, 2))
            result.future = self._future(observation, shade)
        return result

    def decode(self, future):
        return future.values

    def encode(self, frames, offsets):
        return Future("pixels", "pixels", dict(frames), offsets)

    def _stream(self, values):
        steps = torch.arange(values.shape[1], device=values.device).expand(len(values), -1)
        return Stream(values, steps, torch.ones_like(steps, dtype=torch.bool))

    def _future(self, observation, shade):
        now = {name: observation[name].at(0).values for name in self.config.image_streams}
        count = len(self.config.offsets)
        values = {
            name: (frame + shade[:, None, None, None, None]).clamp(-1, 1).repeat(1, count, 1, 1, 1)
            for name, frame in now.items()
        }
        offsets = torch.tensor(self.config.offsets, device=shade.device).expand(len(shade), -1)
        return Future("pixels", "pixels", values, offsets)


class Reactive(PointModel, name="point_reactive"):
    answers = (POLICY,)


class Foreseeing(PointModel, name="point_foreseeing"):
    """A world model: it does not act."""

    answers = (FORWARD,)


class Latent(PointModel, name="point_latent"):
    def decode(self, future):
        raise Refusal("it imagines in features")


class Broken(PointModel, name="point_broken"):
    """Its answers hold a NaN."""

    def _stream(self, values):
        values[0, 0, 0] = torch.nan
        return super()._stream(values)


class Valued(PointModel, name="point_valued"):
    """The value of a plan is its mean first action dimension."""

    answers = (POLICY, VIDEO, JOINT, FORWARD)

    def sample(self, observation, query, **options):
        result = super().sample(observation, query, **options)
        result.value = result.action.values[..., 0].mean(1)
        return result


class Planner(PointModel, name="point_planner"):
    """Plans two waypoints, and imagines without a clock."""

    answers = (POLICY, JOINT)

    def sample(self, observation, query, **options):
        result = super().sample(observation, query, **options)
        here = observation[STATE].at(0).values[:, 0, :3]
        poses = torch.stack([here + 0.1, here + torch.tensor([0.2, 0.1, 0.1])], 1)
        rows = len(poses)
        result.action = None
        result.waypoints = Waypoints(poses, torch.full((rows, 2), 0.02), torch.ones(rows, 2))
        if result.future is not None:
            result.future = replace(result.future, offsets=None)
        return result


class Remembering(PointModel, name="point_remembering"):
    """Counts what it was told of executed steps."""

    def observe(self, memory, observation, executed):
        told = 0 if executed is None else executed.present.sum(1)
        before = torch.zeros(len(observation)) if memory is None else memory.steps
        return Steps(before + told)

    def sample(self, observation, query, *, memory=None, **options):
        result = super().sample(observation, query, **options)
        result.memory = memory
        result.value = memory.steps
        return result


@dataclass
class Steps:
    steps: torch.Tensor

    def select(self, rows):
        return Steps(self.steps[rows])

    def reset(self, rows):
        steps = self.steps.clone()
        steps[rows] = 0
        return Steps(steps)

    @staticmethod
    def join(parts):
        return Steps(torch.cat([part.steps for part in parts]))


class PointProcessor:
    """Actions are halved on the way out; states pass as they are."""

    def to_batch(self, observations):
        rows = len(observations)
        names = [name for name in observations[0] if name.startswith("image/") or name == STATE]
        stack = {name: np.stack([one[name] for one in observations])[:, None] for name in names}
        zero, there = np.zeros((rows, 1), np.int64), np.ones((rows, 1), bool)
        return Batch(
            {name: Stream(values, zero, there) for name, values in stack.items()},
            Text([one["instruction"] for one in observations]),
            np.ones((rows, 4), bool),
            np.full(rows, 10.0, np.float32),
        )

    def normalize(self, batch):
        return replace(batch, streams={n: self._one(n, s) for n, s in batch.streams.items()})

    def normalize_action(self, action):
        return action / SCALE

    def denormalize_action(self, action):
        return action * SCALE

    def _one(self, name, stream):
        if name.startswith("image/"):
            pixels = rearrange(stream.values, "b t h w c -> b t c h w").float() / 127.5 - 1
            return replace(stream, values=pixels)
        return replace(stream, values=stream.values / SCALE) if name == ACTION else stream


class Worded(PointProcessor):
    """Every sentence is one and the same word."""

    def normalize(self, batch: Batch) -> Batch:
        rows = len(batch)
        word = torch.ones(rows, 1, 4) / 2
        text = replace(batch.text, pooled=word[:, 0], tokens=word, mask=torch.ones(rows, 1).bool())
        return replace(super().normalize(batch), text=text)


def policy_of(model: WorldActionModel) -> Policy:
    return Policy(model, PointProcessor(), SPACE)
