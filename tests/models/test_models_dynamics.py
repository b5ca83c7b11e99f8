"""The pure world model: futures of given actions, and nothing from rows without any."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_models_uwm import make_batch
from test_models_uwm_toy import MODES, B, level, world
from torch import Tensor

from wamlab.generative import flow
from wamlab.generative.noise import generators
from wamlab.metrics.likelihood import denoising_bound, noise_levels
from wamlab.models.base import Refusal, Sampling
from wamlab.models.dynamics import Dynamics
from wamlab.models.uwm import UWM
from wamlab.types import ACTION, FORWARD, FUTURE, JOINT, Batch, Stream

CONFIG = Dynamics.Config.tiny()


def make_model() -> Dynamics:
    """A model whose zero-initialised layers were moved, so that every path carries something."""
    torch.manual_seed(0)
    model = Dynamics(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def learned(model: Dynamics, batch: Batch) -> tuple[dict[str, Tensor], list[Tensor]]:
    model.zero_grad()
    generator = torch.Generator().manual_seed(0)
    losses = model.loss(batch, stage="dynamics", step=0, generator=generator)
    losses["loss"].backward()
    zeros = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return {name: loss.detach() for name, loss in losses.items()}, zeros


def test_trunk_and_painter_are_those_of_uwm():
    sizes = [
        {
            name: parameter.shape
            for name, parameter in model(model.Config.small()).network.named_parameters()
            if name.startswith(("trunk.", "paint_future."))
        }
        for model in (Dynamics, UWM)
    ]
    assert sizes[0] == sizes[1]
    assert sizes[0]


def test_levels_and_steps_are_those_with_which_uwm_answers_forward():
    own, uwm = Dynamics.Config.small(), UWM.Config.small()
    assert (own.marginal, own.steps) == (uwm.marginal_future, uwm.forward_steps)
    calls = [model(model.Config.small()).queries[FORWARD].calls for model in (Dynamics, UWM)]
    assert calls[0] == calls[1]


def test_rows_without_actions_are_counted_and_contribute_nothing():
    model, batch = make_model(), make_batch()
    batch[ACTION].present[:2] = False
    batch.role[:2, :3] = False
    losses, gradients = learned(model, batch)
    assert losses["action_free"] == 0.5
    batch["image/corner"].values[:2] *= -1
    batch[ACTION].values[:2] = float("nan")
    other, others = learned(model, batch)
    assert torch.equal(losses["loss"], other["loss"])
    assert all(map(torch.equal, gradients, others))


def test_a_push_teaches_the_same_with_and_without_its_bit_for_video():
    model, batch = make_model(), make_batch()
    batch.role[:2, 0] = False
    losses, gradients = learned(model, batch)
    batch.role[:2, 3] = False
    other, others = learned(model, batch)
    assert losses["loss"] > 0
    assert torch.equal(losses["loss"], other["loss"])
    assert all(map(torch.equal, gradients, others))


def test_a_batch_without_any_action_teaches_nothing():
    model, batch = make_model(), make_batch()
    batch[ACTION].present[:] = False
    losses, gradients = learned(model, batch)
    assert losses["action_free"] == 1
    assert losses["loss"] == 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.fixture(scope="module")
def trained() -> Dynamics:
    config = Dynamics.Config(
        views=("grey",), image_size=4, patch=4, state_dim=1, action_dim=1, text_dim=2, chunk=1,
        offsets=(1,), width=32, depth=2, heads=2, registers=1, condition=32, level_width=16,
        stem_width=8, steps=8,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Dynamics(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for step in range(300):
        batch = world(128, generator)
        losses = model.loss(batch, stage="dynamics", step=step, generator=generator)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def test_the_effect_of_an_imposed_action_is_recovered(trained):
    held_out = world(200, torch.Generator().manual_seed(99))

    def imagined(a: float) -> Tensor:
        action = held_out[ACTION]
        imposed = Stream(torch.full_like(action.values, a), action.offsets, action.present)
        seeds = generators(range(200))
        seen = held_out.observation()
        return level(trained.sample(seen, FORWARD, action=imposed, generator=seeds).future)

    effect = float((imagined(MODES) - imagined(-MODES)).mean()) / (2 * MODES)
    assert effect == pytest.approx(B, rel=0.2)


class Gaussian(torch.nn.Module):
    """The best denoiser of data N(0.2, 0.3^2) on the library's path, in place of the network."""

    def forward(self, future: Tensor, given: object, *, sigma: Tensor) -> Tensor:
        keep, sigma = (flow.like(level, future) for level in (1 - sigma, sigma))
        gain = keep * 0.09 / (keep**2 * 0.09 + sigma**2)
        return 0.2 + gain * (future - keep * 0.2)


@torch.no_grad()
def test_its_likelihood_is_the_data_s_where_the_denoiser_is_the_best() -> None:
    model, batch = make_model(), make_batch()
    model.network = Gaussian()
    frames = [batch[name] for name in CONFIG.image_streams]
    for stream in frames:
        stream.values[:] = 0.2 + 0.3 * torch.randn(stream.values.shape)
    frames[0].values[1, -1], frames[0].present[1, -1] = torch.nan, False
    batch[ACTION].present[3] = False
    levels = torch.from_numpy(noise_levels(32))
    found = model.likelihood(batch, FORWARD, levels=levels, generator=generators(range(4)))
    frame = 3 * CONFIG.image_size**2
    assert found.dims.tolist() == [4 * frame, 3 * frame, 4 * frame, 0]
    ahead = torch.stack([s.at(*CONFIG.offsets).values for s in frames], 1)
    true = -torch.distributions.Normal(0.2, 0.3).log_prob(ahead.nan_to_num()).flatten(1).sum(1)
    whole = [0, 2]
    per_dim = denoising_bound(found)[whole] / found.dims[whole].numpy()
    assert per_dim == pytest.approx(true[whole].numpy() / (4 * frame), abs=0.01)


def test_it_answers_forward_alone_and_bad_requests_are_named():
    model, batch, seeds = make_model(), make_batch(), generators(range(4))
    with pytest.raises(Refusal, match="does not answer JOINT"):
        model.sample(batch.observation(), JOINT, generator=seeds)
    with pytest.raises(ValueError, match="no action was passed"):
        model.sample(batch.observation(), FORWARD, generator=seeds)
    guided = {FUTURE: Sampling(2, guidance=2.0)}
    with pytest.raises(ValueError, match="guidance must be 1"):
        model.sample(
            batch.observation(), FORWARD, action=batch[ACTION], sampler=guided, generator=seeds
        )
    with pytest.raises(ValueError, match="must be a multiple of the patch"):
        Dynamics(dataclasses.replace(CONFIG, image_size=30))
