"""What a run asks of a model."""

from __future__ import annotations

import pytest

from wamlab.models.base import Refusal, Sampling, model_class
from wamlab.recipes.run import RolloutConfig
from wamlab.types import ACTION, FUTURE


def test_network_steps_are_those_of_the_streams_that_are_sampled_step_by_step() -> None:
    rollouts = RolloutConfig(network_steps=2)
    for name, stepped in {"uwm": (ACTION, FUTURE), "unipi": (FUTURE,)}.items():
        kind = model_class(name)
        model = kind(kind.Config.tiny())
        assert rollouts.sampler(model) == dict.fromkeys(stepped, Sampling(2))
        assert RolloutConfig().sampler(model) is None
    kind = model_class("gr1")
    with pytest.raises(Refusal, match="gr1 samples nothing step by step"):
        rollouts.sampler(kind(kind.Config.tiny()))
