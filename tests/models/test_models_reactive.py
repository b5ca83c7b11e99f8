"""The reactive baseline: what it answers, and that it is the trunk of `uwm` without a future."""

from __future__ import annotations

import pytest
import torch

from wamlab.generative.noise import generators
from wamlab.models.base import Refusal
from wamlab.models.reactive import Reactive
from wamlab.models.uwm import UWM
from wamlab.types import ACTION, JOINT, POLICY, ROLES, Batch, Stream, Text

CONFIG = Reactive.Config.tiny()


def make_batch(rows: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def stream(length: int, *shape: int) -> Stream:
        values = torch.rand(rows, length, *shape, generator=generator) * 2 - 1
        columns = torch.arange(length).expand(rows, -1)
        return Stream(values, columns, torch.ones_like(columns, dtype=torch.bool))

    size = CONFIG.image_size
    streams = {name: stream(1, 3, size, size) for name in CONFIG.image_streams}
    streams |= {"state": stream(1, CONFIG.state_dim), ACTION: stream(CONFIG.chunk, 4)}
    text = Text(["push"] * rows, torch.zeros(rows, CONFIG.text_dim))
    role = torch.ones(rows, len(ROLES), dtype=torch.bool)
    return Batch(streams, text, role, torch.full((rows,), 80.0))


def test_it_shares_trunk_and_encoder_shapes_with_uwm() -> None:
    ours, theirs = (
        {name: tuple(p.shape) for name, p in m(m.Config.small()).named_parameters()}
        for m in (Reactive, UWM)
    )
    shared = {name for name in ours if name.startswith(("encoder.", "network.trunk."))}
    assert len(shared) > 50
    assert all(ours[name] == theirs[name] for name in shared)


def test_rows_that_may_not_teach_the_policy_teach_nothing() -> None:
    torch.manual_seed(0)
    model, batch = Reactive(CONFIG), make_batch()
    batch.role[:, 0] = False
    losses = model.loss(batch, stage="policy", step=0, generator=torch.Generator())
    assert losses["loss"].item() == 0


def test_it_has_no_future_and_says_so() -> None:
    model, batch = Reactive(CONFIG), make_batch()
    chunk = model.sample(batch.observation(), POLICY, generator=generators(range(4)))
    assert chunk.action is not None
    assert chunk.action.values.shape == (4, CONFIG.chunk, 4)
    assert chunk.cost.calls == CONFIG.steps
    with pytest.raises(Refusal, match="reactive does not answer JOINT; it answers POLICY"):
        model.sample(batch.observation(), JOINT, generator=generators(range(4)))


@torch.no_grad()
def test_its_likelihood_is_of_the_action_alone() -> None:
    model, batch, levels = Reactive(CONFIG), make_batch(), torch.tensor([1.0, 0.5])
    batch[ACTION].present[0, 2:] = False
    batch[ACTION].values[0, 2:] = torch.nan
    found = model.likelihood(batch, POLICY, levels=levels, generator=generators(range(4)))
    assert found.dims.tolist() == [8, *[CONFIG.chunk * 4] * 3]
    # Untrained, the velocity is 0: at level 1 the noise itself stands for the clean action.
    noise = torch.randn(CONFIG.chunk, 4, generator=generators([1])[0])
    missed = (noise - batch[ACTION].values[1]).square().sum()
    assert found.errors[1, 0].item() == pytest.approx(missed.item(), rel=1e-5)
    with pytest.raises(Refusal, match="does not answer JOINT"):
        model.likelihood(batch, JOINT, levels=levels, generator=generators(range(4)))
