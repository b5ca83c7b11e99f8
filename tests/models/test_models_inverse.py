"""The pure inverse dynamics model on moving blocks: it reads the frames, and nothing else."""

from __future__ import annotations

import dataclasses

import moving_blocks
import pytest
import torch
from moving_blocks import r2, world
from torch import Tensor

from wamlab.generative.noise import generators
from wamlab.models.base import Refusal, Sampling
from wamlab.models.inverse import Inverse
from wamlab.types import ACTION, INVERSE, POLICY, STATE, Batch, Future

TOY = Inverse.Config(
    views=("top",), image_size=32, state_dim=1, action_dim=2, text_dim=4, chunk=8,
    offsets=(2, 4, 6, 8), rate_hz=1.0, stem_width=8, width=32,
)  # fmt: skip
ROWS = 200


@pytest.fixture(scope="module")
def model() -> Inverse:
    torch.manual_seed(0)
    model = Inverse(TOY)
    moving_blocks.learn(model, "inverse", lambda g: world(16, g), 100)
    return model.eval()


@pytest.fixture(scope="module")
def held_out() -> Batch:
    return world(ROWS, torch.Generator().manual_seed(99))


@torch.no_grad()
def read(model: Inverse, batch: Batch, frames: Tensor) -> Tensor:
    future = Future("pixels", "pixels", {"image/top": frames}, None)
    seeds = generators(range(len(batch)))
    return model.sample(batch.observation(), INVERSE, future=future, generator=seeds).action.values


def ahead(batch: Batch) -> Tensor:
    return batch["image/top"].at(*TOY.offsets).values


def test_it_reads_the_frames_in_their_order(model: Inverse, held_out: Batch) -> None:
    """Other frames say other actions: what another row shows explains nothing of this one's."""
    true = held_out[ACTION].values.flatten(1)
    own = read(model, held_out, ahead(held_out)).flatten(1)
    mixed = read(model, held_out, ahead(held_out)[:, [2, 0, 3, 1]]).flatten(1)
    other = read(model, held_out, ahead(held_out).roll(1, 0)).flatten(1)
    assert r2(own, true) > 0.85
    assert r2(mixed, true) < 0.3
    assert r2(other, true) < 0.1


def test_neither_state_nor_instruction_is_read(model: Inverse, held_out: Batch) -> None:
    told = dataclasses.replace(held_out, text=moving_blocks.words(torch.zeros(ROWS).long()))
    told.streams = {name: s for name, s in told.streams.items() if name != STATE}
    frames = ahead(held_out)
    torch.testing.assert_close(read(model, told, frames), read(model, held_out, frames))


def test_actions_beyond_the_last_frame_teach_nothing(model: Inverse, held_out: Batch) -> None:
    batch = held_out.select(range(8))
    last = batch["image/top"].offsets[0] == 8
    batch["image/top"].present[:, last] = False

    def learned() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return model.loss(batch, stage="inverse", step=0, generator=generator)["loss"].detach()

    before = learned()
    batch[ACTION].values[:, 6:] = 100.0
    assert torch.equal(learned(), before)
    batch[ACTION].values[:, 5] = 100.0
    assert learned() > before


def test_bad_requests_are_named(model: Inverse, held_out: Batch) -> None:
    seen, seeds = held_out.observation(), generators(range(ROWS))
    with pytest.raises(Refusal, match="inverse does not answer POLICY; it answers INVERSE"):
        model.sample(seen, POLICY, generator=seeds)
    with pytest.raises(ValueError, match="no future in pixels of the codec 'pixels' was passed"):
        model.sample(seen, INVERSE, generator=seeds)
    with pytest.raises(ValueError, match="has 3 instants, expected 4"):
        read(model, held_out, ahead(held_out)[:, :3])
    elsewhere = Future("pixels", "pixels", {"image/side": ahead(held_out)}, None)
    with pytest.raises(ValueError, match="lacks 'image/top'"):
        model.sample(seen, INVERSE, future=elsewhere, generator=seeds)
    with pytest.raises(Refusal, match="inverse does not sample 'action' step by step"):
        model.sample(seen, INVERSE, sampler={ACTION: Sampling(2)}, generator=seeds)
    for offsets in ((), (2, 4, 6), (4, 2, 8), (0, 8)):
        with pytest.raises(ValueError, match=r"must rise from 1 or more to 8"):
            Inverse(dataclasses.replace(TOY, offsets=offsets))
