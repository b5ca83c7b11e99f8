"""UWM's acceptance check 4: a world whose five distributions are known.

``o' = 0.5 o + 0.4 a + noise`` with ``a = +-0.7`` at random: frames are uniformly grey, so that the
grey level is the observation.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from wamlab.generative.noise import generators
from wamlab.metrics.likelihood import nats, noise_levels
from wamlab.models.uwm import UWM
from wamlab.types import (
    ACTION,
    FORWARD,
    INVERSE,
    JOINT,
    POLICY,
    QUERIES,
    ROLES,
    VIDEO,
    Batch,
    Future,
    Stream,
    Text,
)

A, B, MODES, NOISE = 0.5, 0.4, 0.7, 0.05
CONFIG = UWM.Config(
    views=("grey",), image_size=4, patch=4, state_dim=1, action_dim=1, text_dim=2, chunk=1,
    offsets=(1,), width=32, depth=2, heads=2, registers=1, condition=32, level_width=16,
    stem_width=8, steps=8, forward_steps=8, marginal_action=0.1, marginal_future=0.1,
)  # fmt: skip


def world(rows: int, generator: torch.Generator) -> Batch:
    o = torch.rand(rows, generator=generator) - 0.5
    sign = torch.randint(0, 2, (rows,), generator=generator) * 2.0 - 1
    a = MODES * sign + 0.05 * torch.randn(rows, generator=generator)
    after = A * o + B * a + NOISE * torch.randn(rows, generator=generator)
    frames = torch.stack([o, after], 1)[..., None, None, None].expand(-1, -1, 3, 4, 4)

    def stream(values: Tensor, *offsets: int) -> Stream:
        columns = torch.tensor(offsets).expand(rows, -1)
        return Stream(values, columns, torch.ones_like(columns, dtype=torch.bool))

    streams = {
        "image/grey": stream(frames.contiguous(), 0, 1),
        "state": stream(o[:, None, None], 0),
        ACTION: stream(a[:, None, None], 0),
    }
    text = Text([""] * rows, torch.zeros(rows, 2))
    return Batch(streams, text, torch.ones(rows, len(ROLES), dtype=torch.bool), torch.ones(rows))


@pytest.fixture(scope="module")
def model() -> UWM:
    torch.manual_seed(0)
    model = UWM(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    steps = 700
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for step in range(steps):
        batch = world(128, generator)
        model.loss(batch, stage="joint", step=step, generator=generator)["loss"].backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def held_out() -> Batch:
    return world(400, torch.Generator().manual_seed(99))


def level(future: Future) -> Tensor:
    return future.values["image/grey"].mean((1, 2, 3, 4))


@torch.no_grad()
def test_check_4_policy_is_bimodal(model: UWM, held_out: Batch) -> None:
    prediction = model.sample(held_out.observation(), POLICY, generator=generators(range(400)))
    action = prediction.action.values.flatten()
    assert 0.35 < float((action > 0).float().mean()) < 0.65
    assert float((action.abs() - MODES).abs().median()) < 0.15


@torch.no_grad()
def test_check_4_forward_recovers_the_effect_of_the_action(model: UWM, held_out: Batch) -> None:
    observation, seeds = held_out.observation(), range(400)

    def imagined(a: float) -> Tensor:
        action = held_out[ACTION]
        imposed = Stream(torch.full_like(action.values, a), action.offsets, action.present)
        return level(
            model.sample(observation, FORWARD, action=imposed, generator=generators(seeds)).future
        )

    effect = float((imagined(MODES) - imagined(-MODES)).mean()) / (2 * MODES)
    assert effect == pytest.approx(B, rel=0.2)


@torch.no_grad()
def test_check_4_inverse_collapses_to_the_right_mode(model: UWM, held_out: Batch) -> None:
    frames = {"image/grey": held_out["image/grey"].at(1).values}
    future = Future("pixels", "pixels", frames, None)
    prediction = model.sample(
        held_out.observation(), INVERSE, future=future, generator=generators(range(400))
    )
    right = prediction.action.values.sign() == held_out[ACTION].values.sign()
    assert float(right.float().mean()) > 0.95


@torch.no_grad()
def test_check_4_video_varies_more_than_forward(model: UWM, held_out: Batch) -> None:
    observation = held_out.observation().select([0] * 200)
    seeds = generators(range(200))
    video = level(model.sample(observation, VIDEO, generator=seeds).future)
    action = held_out[ACTION].select([0] * 200)
    forward = level(
        model.sample(observation, FORWARD, action=action, generator=generators(range(200))).future
    )
    assert float(video.std()) > 2 * float(forward.std())
    assert float(video.std()) == pytest.approx(B * MODES, rel=0.35)


@torch.no_grad()
def test_likelihoods_are_bounds_and_know_what_is_given(model: UWM, held_out: Batch) -> None:
    """Seeing the future says which of the two modes it was: ``log 2`` nats.

    The action is a mixture of two modes of deviation 0.05, of which a seen future leaves one, of
    deviation ``(0.05^-2 + (B / NOISE)^2)^-0.5``.
    """
    levels = torch.from_numpy(noise_levels(12, cleanest=0.02)).float()
    found = {
        query: model.likelihood(held_out, query, levels=levels, generator=generators(range(400)))
        for query in QUERIES.values()
    }
    bound = {query: float(nats(one).mean()) for query, one in found.items()}
    spread = lambda variance: 0.5 * math.log(2 * math.pi * math.e * variance)  # noqa: E731
    policy = spread(0.05**2) + math.log(2)
    inverse = spread(1 / (0.05**-2 + (B / NOISE) ** 2))
    assert policy - 0.05 < bound[POLICY] < policy + 0.4
    assert inverse - 0.05 < bound[INVERSE] < inverse + 0.4
    assert bound[JOINT] == pytest.approx(bound[POLICY] + bound[FORWARD], abs=2)

    blind, told = (float(found[query].errors[:, 0].mean()) for query in (VIDEO, FORWARD))
    assert told < 0.3 * blind
