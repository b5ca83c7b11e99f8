"""A judge and imaginers for the point environment, by hand: what is right is known.

The judge reads where the hand is off the frames and says how it came there. Imaginers draw with the
environment itself what they know of the world.
"""

from __future__ import annotations

import numpy as np
import point_env
import torch
from point_model import SCALE, PointModel, policy_of

from wamlab.metrics.rivals import Clips
from wamlab.models.base import Flow, Refusal
from wamlab.run.film import Judge
from wamlab.sim.env import start_seed
from wamlab.types import FUTURE, INVERSE, VIDEO, Cost, Future, Prediction

ENV, VIEWS, OFFSETS = "point/push", ("top", "side"), (4, 8)
SIDE = (torch.arange(16) + 0.5) / 16


def where(frames: torch.Tensor, channel: int) -> torch.Tensor:
    """The middle (..., 2) of what is red (0) or blue (2) in frames (..., 3, 16, 16), or NaN."""
    other = 2 - channel
    weight = (frames[..., channel, :, :] - frames[..., other, :, :] > 0.5).float()
    total = weight.sum((-2, -1))
    middle = [(weight.sum(-2) * SIDE).sum(-1) / total, (weight.sum(-1) * SIDE).sum(-1) / total]
    return torch.stack(middle, -1)


class Reading(PointModel, name="point_reading"):
    """The hand's path through the frames, each way in even steps."""

    answers = (INVERSE,)

    def flows(self, query):
        return [Flow(name, "action", "channel") for name in (*self.config.image_streams, FUTURE)]

    def sample(self, observation, query, *, future=None, generator, **_):
        self.answer(query)
        self.seen.append(observation)
        now = observation["image/top"].at(0).values
        path = where(torch.cat([now, future.values["image/top"]], 1), 0)
        steps = path.diff(dim=1) / (4 * point_env.STEP * SCALE)
        chunk = torch.zeros(len(path), 8, 4)
        chunk[..., :2] = self.trust(now)[:, None, None] * steps.repeat_interleave(4, 1)
        return Prediction(action=self._stream(chunk), cost=Cost(calls=1))

    def trust(self, now):
        return torch.ones(len(now))


class Attached(Reading, name="point_attached"):
    """Reads nothing where no block is to be seen."""

    def trust(self, now):
        return (~where(now[:, 0], 2).isnan().any(-1)).float()


class Seer(PointModel, name="point_seer"):
    """Imagines what the expert would do about the hand and the block that it sees."""

    answers = (VIDEO,)

    def sample(self, observation, query, *, generator, **_):
        self.answer(query)
        self.seen.append(observation)
        now = observation["image/top"].at(0).values[:, 0]
        frames = [self.imagine(where(one, 0), where(one, 2)) for one in now]
        values = {f"image/{view}": torch.stack([shots[view] for shots in frames]) for view in VIEWS}
        return Prediction(
            future=Future("pixels", "pixels", values, torch.tensor([OFFSETS] * len(now))),
            cost=Cost(calls=3),
        )

    def imagine(self, hand, block):
        world = point_env.PointEnv(ENV, views=())
        covered = bool(block.isnan().any())
        world.hand[:2], world.block[:2] = hand.numpy(), (hand if covered else block).numpy()
        expert = world.expert(variants=False, seed=0)
        shots = {view: [] for view in VIEWS}
        for step in range(1, 9):
            world.step(expert())
            for view in VIEWS if step in OFFSETS else ():
                picture = torch.as_tensor(world.render_view(view).copy())
                shots[view].append(picture.permute(2, 0, 1) / 127.5 - 1)
        return {view: torch.stack(seen) for view, seen in shots.items()}


class Still(PointModel, name="point_still"):
    """Imagines that nothing will move."""

    answers = (VIDEO, INVERSE)

    def _future(self, observation, shade):
        return super()._future(observation, torch.zeros_like(shade))


class Unclocked(Still, name="point_unclocked"):
    def _future(self, observation, shade):
        found = super()._future(observation, shade)
        return Future(found.space, found.codec, found.values, None)


class Hidden(Still, name="point_hidden"):
    def decode(self, future):
        raise Refusal("it imagines in features")


def judge_of(model: PointModel | None = None) -> Judge:
    return Judge(policy_of(model or Reading()))


def clips(starts: int = 6) -> Clips:
    """Whole demonstrations from training starts, cut at every step."""
    first = {view: [] for view in VIEWS}
    future = {view: [] for view in VIEWS}
    for index in range(starts):
        world = point_env.PointEnv(ENV, views=())
        world.reset(seed=start_seed("train", index))
        expert = world.expert(variants=False, seed=0)
        shots = {view: [world.render_view(view).copy()] for view in VIEWS}
        for _ in range(30):
            world.step(expert())
            for view in VIEWS:
                shots[view].append(world.render_view(view).copy())
        for view in VIEWS:
            for at in range(0, 22):
                first[view].append(shots[view][at])
                future[view].append(np.stack([shots[view][at + k] for k in OFFSETS]))
    stack = lambda parts: {view: np.stack(one) for view, one in parts.items()}  # noqa: E731
    return Clips([ENV] * (22 * starts), OFFSETS, stack(first), stack(future))
