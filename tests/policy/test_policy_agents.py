from __future__ import annotations

import numpy as np
import pytest
from point_env import SPACE, PointEnv
from point_model import PointConfig, PointModel, Remembering, Valued, policy_of

from wamlab.policy.agents import ExpertAgent, PolicyAgent, ReplayAgent
from wamlab.policy.executors import BestOfN, ChunkExecutor
from wamlab.types import JOINT, POLICY


def drive(agent, seeds, steps):
    """Act in one row per seed; the actions (rows, steps, A) and the replans by row."""
    envs = {row: PointEnv() for row in range(len(seeds))}
    now = {}
    for row, env in envs.items():
        now[row], _ = env.reset(seed=seeds[row])
        agent.reset(row, env, seeds[row])
    actions, replans = [], {row: [] for row in envs}
    for _ in range(steps):
        taken, planned = agent.act(now)
        for row, plan in planned.items():
            replans[row].append(plan)
        for row, env in envs.items():
            now[row], *_ = env.step(taken[row])
        actions.append([taken[row] for row in envs])
    return np.swapaxes(np.array(actions), 0, 1), replans


def test_rows_that_replan_share_one_call():
    model = PointModel()
    _, replans = drive(PolicyAgent(policy_of(model), ChunkExecutor(4)), [1, 2, 3], 8)
    assert [len(batch) for batch in model.seen] == [3, 3]
    assert [[plan.step for plan in row] for row in replans.values()] == [[0, 4]] * 3
    assert [plan.reason for plan in replans[0]] == ["start", "4 steps executed"]
    assert replans[0][0].action.shape == (8, 4)
    assert replans[0][0].imagined is None
    assert replans[0][0].calls == 1


def test_a_row_does_not_depend_on_the_others():
    together, _ = drive(PolicyAgent(policy_of(PointModel()), seed=4), [1, 2, 3], 20)
    alone, _ = drive(PolicyAgent(policy_of(PointModel()), seed=4), [2], 20)
    np.testing.assert_allclose(alone[0], together[1], atol=1e-5)
    other, _ = drive(PolicyAgent(policy_of(PointModel()), seed=5), [2], 20)
    assert np.abs(other - alone).max() > 0.01


def test_joint_queries_log_what_was_imagined():
    _, replans = drive(PolicyAgent(policy_of(PointModel()), query=JOINT), [1], 1)
    plan = replans[0][0]
    assert plan.imagined["top"].shape == (2, 16, 16, 3)
    assert plan.imagined_offsets.tolist() == [4, 8]


def test_best_of_n_logs_the_value_of_what_is_executed():
    agent = PolicyAgent(policy_of(Valued()), BestOfN(ChunkExecutor(), 5))
    actions, replans = drive(agent, [1, 2], 8)
    for row in range(2):
        chosen = replans[row][0]
        np.testing.assert_allclose(actions[row], chosen.action)
        assert chosen.value == pytest.approx(float(chosen.action[:, 0].mean()) / 0.5, abs=1e-5)
        single, _ = drive(PolicyAgent(policy_of(Valued())), [row + 1], 8)
        assert chosen.value >= float(single[0, :, 0].mean()) / 0.5 - 1e-5


def test_a_memory_is_told_of_every_executed_step():
    model = Remembering()
    _, replans = drive(PolicyAgent(policy_of(model), ChunkExecutor(3)), [1, 2], 9)
    for row in replans.values():
        assert [plan.value for plan in row] == [0, 3, 6]


def test_history_reaches_the_model_through_the_agent():
    model = PointModel(PointConfig(past=(-2,)))
    actions, _ = drive(PolicyAgent(policy_of(model), ChunkExecutor(3)), [1], 4)
    stream = model.seen[1]["action"]
    np.testing.assert_allclose(stream.values[0, 0] * 0.5, actions[0, 1], atol=1e-6)
    assert bool(stream.present.all())


def test_another_action_space_is_refused():
    env = PointEnv()
    env.space = SPACE.__class__(**{**vars(SPACE), "rate_hz": 20.0})
    with pytest.raises(ValueError, match="was trained on the action space"):
        PolicyAgent(policy_of(PointModel())).reset(0, env, 0)


def test_expert_agent_solves_the_task():
    env = PointEnv()
    now, _ = env.reset(seed=3)
    agent = ExpertAgent()
    agent.reset(0, env, 3)
    for _ in range(env.max_steps):
        actions, replans = agent.act({0: now})
        assert replans == {}
        now, *_ = env.step(actions[0])
    assert env.success


def test_replay_plays_the_sequence_then_rests():
    sequence = np.array([[0.5, 0, 0, 0.1], [1, 0, 0, 0.3]], np.float32)
    actions, _ = drive(ReplayAgent({"point/push": [sequence]}), [1], 4)
    rest = np.array([0, 0, 0, 0.3], np.float32)
    np.testing.assert_array_equal(actions[0], [*sequence, rest, rest])


def test_random_replay_draws_by_start_and_not_by_row():
    choices = [np.full((2, 4), k / 10, np.float32) for k in range(8)]
    agent = ReplayAgent({"point/push": choices}, "random replay", seed=1)
    together, _ = drive(agent, [11, 12, 13, 14, 15], 1)
    alone, _ = drive(agent, [13], 1)
    np.testing.assert_array_equal(alone[0], together[2])
    assert len(np.unique(together[:, 0, 0])) > 1


def test_replay_refuses_unknown_environments_and_bad_actions():
    with pytest.raises(KeyError, match="no sequence to replay in point/push"):
        drive(ReplayAgent({}), [1], 1)
    with pytest.raises(ValueError, match="outside the space"):
        drive(ReplayAgent({"point/push": [np.full((2, 4), 3.0)]}), [1], 1)


def test_default_query_is_the_policy():
    assert PolicyAgent(policy_of(PointModel())).query == POLICY
