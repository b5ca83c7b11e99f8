"""The query and the executor that a model's declarations call for."""

from __future__ import annotations

import numpy as np
import pytest
from point_env import SPACE
from point_model import Latent, PointModel, Reactive, policy_of
from test_policy_agents import drive

from wamlab.models.base import Refusal
from wamlab.policy.acting import acting, acting_query, executor_for, metres
from wamlab.policy.executors import ActionConsensus, AnyOfN, ChunkExecutor, Consensus
from wamlab.recipes.run import RolloutConfig
from wamlab.types import JOINT, POLICY


def test_one_sample_is_the_policy_s() -> None:
    agent = acting(policy_of(PointModel()), execute_steps=3)
    assert agent.query == POLICY
    assert isinstance(agent.executor, ChunkExecutor)


@pytest.mark.parametrize(
    ("choice", "model", "query", "kind"),
    [
        ("consensus", PointModel, JOINT, Consensus),
        ("consensus", Latent, JOINT, Consensus),
        ("action-consensus", PointModel, POLICY, ActionConsensus),
        ("random", PointModel, POLICY, AnyOfN),
    ],
)
def test_several_samples_come_with_what_they_are_chosen_by(choice, model, query, kind) -> None:
    agent = acting(policy_of(model()), samples=3, choice=choice)
    assert (agent.query, type(agent.executor)) == (query, kind)
    assert agent.made_by["executor"]["kind"] == kind.__name__


def test_a_run_that_asks_for_several_samples_alone_chooses_by_what_models_can_imagine() -> None:
    choice = RolloutConfig(samples=3).choice
    for said in ({"choice": choice}, {}):
        agent = acting(policy_of(PointModel()), samples=3, **said)
        assert (agent.query, type(agent.executor)) == (JOINT, Consensus)


def test_consensus_is_executed_and_logged_with_its_future() -> None:
    """The future's shade is the mean of the noise that also makes the action."""
    policy = policy_of(PointModel())
    agent = acting(policy, samples=5, choice="consensus", seed=2)
    actions, replans = drive(agent, [1], 8)
    plan = replans[0][0]
    np.testing.assert_allclose(actions[0], plan.action)
    assert plan.imagined is not None
    alone, _ = drive(acting(policy, seed=2), [1], 8)
    assert np.abs(alone - actions).max() > 0


def test_what_cannot_be_chosen_by_is_said() -> None:
    with pytest.raises(Refusal, match="cannot value its plans, to choose from 3 samples"):
        acting(policy_of(PointModel()), samples=3, choice="value")
    with pytest.raises(Refusal, match="cannot imagine its plans, to choose from 4 samples"):
        acting_query(Reactive(), 4)
    with pytest.raises(KeyError, match=r"no way to choose 'consent'.*consensus"):
        executor_for(PointModel(), SPACE, samples=2, choice="consent")
    with pytest.raises(ValueError, match="are not lengths"):
        metres("effort")
