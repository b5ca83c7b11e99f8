from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_system import TinyBatches, TinyProcessor, make
from torch import nn

from wamlab.models.uwm import UWM
from wamlab.train.feed import Feed
from wamlab.train.learner import Learner, weights_digest
from wamlab.train.optim import OptimConfig
from wamlab.train.plan import plan, training_flops
from wamlab.train.trainer import TrainConfig

CONFIG = TrainConfig(steps=20, precision="f32", batch_size=8)


def test_flops_of_linear_layers_are_counted_exactly():
    model = make()
    learner = Learner(model, model.stages()[0], TinyProcessor(), OptimConfig(), seed=0)
    before = weights_digest(model.state_dict())
    with learner:
        found = training_flops(learner, TinyBatches(8).batch(0, "joint"))
    first = 2 * (
        2 * 8 * 2 * 192 * 16
    )  # forward and weight gradient of 2 instants; no input needs one
    actor = 3 * (2 * 8 * 20 * 4)  # forward and both gradients
    assert found == first + actor
    assert weights_digest(model.state_dict()) == before


def test_attention_is_counted():
    class Attending(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    model = make()
    attend = Attending()
    loss = model.loss

    def with_attention(batch, **rest):
        x = torch.ones(1, 2, 16, 8, requires_grad=True)
        losses = loss(batch, **rest)
        return {"loss": losses["loss"] + attend(x).sum()}

    def count() -> float:
        learner = Learner(model, model.stages()[0], TinyProcessor(), OptimConfig(), seed=0)
        return training_flops(learner, TinyBatches(8).batch(0, "joint"))

    plain = count()
    model.loss = with_attention
    product = 2 * 2 * 16 * 16 * 8
    assert count() - plain == 6 * product


def test_a_plan_counts_what_it_says_and_leaves_the_model_alone():
    model = make(staged=True)
    before = weights_digest(model.state_dict())
    found = plan(model, TinyBatches(8), TinyProcessor(), CONFIG)
    assert weights_digest(model.state_dict()) == before
    world, actor = found.stages
    assert world.trained == 192 * 16 + 16 + 32
    assert actor.trained == 20 * 4 + 4
    assert found.parameters == world.trained + actor.trained
    assert (world.steps, actor.steps) == (5, 15)
    assert found.state_mb == pytest.approx(4e-6 * (found.parameters + 4 * world.trained))
    assert actor.minutes == pytest.approx(15 * actor.ms_per_step / 60_000)
    assert found.minutes == pytest.approx(world.minutes + actor.minutes)
    assert "stage actor" in str(found)
    assert "tokens" not in str(found)


def test_a_plan_turns_minutes_into_steps():
    found = plan(make(), TinyBatches(8), TinyProcessor(), replace(CONFIG, steps=None, minutes=1.0))
    assert found.minutes == pytest.approx(0.97, abs=0.01)


class Counted:
    """A mixture that only counts."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def batch(self, step: int):
        if step == 99:
            raise ValueError("step 99 is damaged")
        return self.stage, step


def test_a_feed_is_a_function_of_step_and_stage():
    asked = [("a", 0), ("a", 1), ("a", 0), ("b", 7), ("b", 8), ("a", 2)]
    with Feed({name: Counted(name) for name in "ab"}) as feed:  # pyright: ignore[reportArgumentType]
        assert [feed.batch(step, stage) for stage, step in asked] == asked


def test_a_feed_raises_what_its_reader_raised():
    with Feed({"a": Counted("a")}) as feed:  # pyright: ignore[reportArgumentType]
        assert feed.batch(98, "a") == ("a", 98)
        with pytest.raises(ValueError, match="step 99 is damaged"):
            feed.batch(99, "a")
        with pytest.raises(KeyError, match="'c'"):
            feed.batch(0, "c")
        assert feed.batch(5, "a") == ("a", 5)


def test_a_parameter_that_takes_no_gradient_is_frozen_in_a_stage_that_trains_all():
    model = make()
    model.world.requires_grad_(False)
    learner = Learner(model, model.stages()[0], TinyProcessor(), OptimConfig(), seed=0)
    frozen, produced = learner.frozen_digest(), learner.produced_digest()
    with torch.no_grad():
        model.world[0].bias.add_(1.0)
    assert learner.frozen_digest() != frozen
    assert learner.produced_digest() == produced
    model.world.seen.add_(1)
    assert learner.produced_digest() != produced


def test_without_buffers_the_digests_are_those_of_the_parameters():
    """So a run that was begun when buffers did not count resumes."""
    model = UWM(UWM.Config.tiny())
    stage = replace(model.stages()[0], trains=("network.", "regression."))
    learner = Learner(model, stage, TinyProcessor(), OptimConfig(), seed=0)
    named = {name: p.detach() for name, p in model.named_parameters()}
    trained = [name for name in named if name.startswith(stage.trains)]
    assert set(named) == set(model.state_dict())
    assert learner.produced_digest() == weights_digest(named, trained)
    assert learner.frozen_digest() == weights_digest(named, set(named) - set(trained))
