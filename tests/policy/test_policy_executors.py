from __future__ import annotations

import numpy as np
import pytest
from point_env import SPACE, STEP, PointEnv

from wamlab.policy.executors import (
    ActionConsensus,
    AnyOfN,
    BestOfN,
    ChunkExecutor,
    Consensus,
    SubgoalExecutor,
)
from wamlab.policy.geometric import Reach, TwoPhaseGrasp, WaypointExecutor
from wamlab.policy.raw import RawPrediction
from wamlab.types import Future, Stream, Waypoints

REACH = Reach(SPACE, STEP)


def chunk(*rows, present=None):
    values = np.asarray(rows, np.float32)
    here = np.ones(values.shape[:2], bool) if present is None else np.asarray(present)
    return RawPrediction(
        action=Stream(values, np.tile(np.arange(values.shape[1]), (len(values), 1)), here)
    )


def numbered(steps):
    return [[k, 0, 0, 0] for k in range(steps)]


def waypoints(*poses, gripper=0.0, tolerance=0.01):
    count = len(poses)
    return RawPrediction(
        waypoints=Waypoints(
            np.asarray([poses], float), np.full((1, count), tolerance), np.full((1, count), gripper)
        )
    )


def run(executor, env, plans, steps):
    """Act for some steps; the reasons with their step, and the positions after each step."""
    observation, reasons, path = env.observe(), [], []
    for step in range(steps):
        if reason := executor.due(0, observation):
            reasons.append((step, reason))
            if not plans:
                break
            executor.accept(0, plans.pop(0))
        observation, *_ = env.step(executor.action(0, observation))
        path.append(observation["state"][:3])
    return reasons, np.array(path)


def placed(x=0.1, y=0.5, z=0.05):
    env = PointEnv()
    env.hand = np.array([x, y, z])
    env.block = np.array([0.9, 0.9, 0.05])
    env.goal = 2.0
    return env


def test_chunk_is_executed_for_execute_steps_then_replanned():
    executor, seen, reasons = ChunkExecutor(3), [], []
    for step in range(7):
        if reason := executor.due(0, {}):
            reasons.append((step, reason))
            executor.accept(0, chunk(numbered(5)))
        seen.append(int(executor.action(0, {})[0]))
    assert seen == [0, 1, 2, 0, 1, 2, 0]
    assert reasons == [(0, "start"), (3, "3 steps executed"), (6, "3 steps executed")]


def test_whole_chunks_end_where_the_present_actions_end():
    executor = ChunkExecutor()
    executor.accept(0, chunk(numbered(4), present=[[True, True, False, False]]))
    assert executor.due(0, {}) is None
    executor.action(0, {})
    executor.action(0, {})
    assert executor.due(0, {}) == "chunk ended"


def test_rows_are_apart_and_reset_forgets():
    executor = ChunkExecutor(2)
    executor.accept(0, chunk(numbered(3)))
    executor.accept(4, chunk(numbered(3)))
    executor.action(0, {})
    assert executor.action(0, {})[0] == 1
    assert executor.action(4, {})[0] == 0
    executor.reset(4)
    assert executor.due(4, {}) == "start"
    with pytest.raises(RuntimeError, match="row 4 has no plan"):
        executor.action(4, {})


def test_plans_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match="needs a plan with actions"):
        ChunkExecutor().accept(0, waypoints((0, 0, 0)))
    with pytest.raises(ValueError, match="needs a plan with waypoints"):
        WaypointExecutor(REACH).accept(0, chunk(numbered(2)))
    with pytest.raises(ValueError, match="holds no present action"):
        ChunkExecutor().accept(0, chunk(numbered(1), present=[[False]]))
    with pytest.raises(ValueError, match="at least 1"):
        ChunkExecutor(0)


def test_waypoints_are_reached_in_the_exact_number_of_steps():
    """0.2 m then 0.1 m at 0.05 m a step: arrived after 4 and after 6 steps."""
    env = placed()
    plan = waypoints((0.3, 0.5, 0.05), (0.3, 0.6, 0.05), gripper=0.7)
    reasons, path = run(WaypointExecutor(REACH), env, [plan], 10)
    assert reasons == [(0, "start"), (6, "all waypoints reached")]
    np.testing.assert_allclose(path[3], (0.3, 0.5, 0.05), atol=1e-6)
    np.testing.assert_allclose(path[5], (0.3, 0.6, 0.05), atol=1e-6)
    assert env.grip == pytest.approx(0.7)


def test_a_stalled_waypoint_asks_for_a_plan():
    """The wall at x = 1 cannot be passed: the way stalls `patience` steps after reaching it."""
    env = placed(x=0.9)
    executor = WaypointExecutor(REACH, patience=3)
    reasons, _ = run(executor, env, [waypoints((1.5, 0.5, 0.05))], 20)
    assert reasons == [(0, "start"), (5, "stalled before waypoint 0")]


def test_a_pose_needs_delta_dimensions_and_a_gripper():
    with pytest.raises(ValueError, match="needs 4 delta dimensions"):
        REACH.towards(placed().observe(), np.zeros(4), 0.0)
    with pytest.raises(ValueError, match="positive"):
        Reach(SPACE, 0.0)


def test_grasp_approaches_closes_and_lifts():
    env = placed(z=0.3)
    executor = TwoPhaseGrasp(REACH, close_steps=2, lift=0.1)
    plans, grips, phases = [waypoints((0.1, 0.5, 0.2))], [], []
    observation = env.observe()
    for _ in range(7):
        reason = executor.due(0, observation)
        if reason == "start":
            executor.accept(0, plans.pop())
        elif reason:
            break
        phases.append(executor.phase(0))
        observation, *_ = env.step(executor.action(0, observation))
        grips.append(env.grip)
    assert phases == ["approach"] * 2 + ["close"] * 2 + ["lift"] * 2
    assert grips == [-1, -1, 1, 1, 1, 1]
    assert reason == "lifted"
    np.testing.assert_allclose(env.hand, (0.1, 0.5, 0.3), atol=1e-6)


def test_grasp_lifts_along_further_waypoints():
    env = placed(z=0.2)
    executor = TwoPhaseGrasp(REACH, close_steps=1)
    plan = waypoints((0.1, 0.5, 0.2), (0.2, 0.5, 0.2))
    reasons, path = run(executor, env, [plan], 20)
    assert reasons == [(0, "start"), (4, "lifted")]
    np.testing.assert_allclose(path[-1], (0.2, 0.5, 0.2), atol=1e-6)


def subgoals(*states):
    return RawPrediction(future=Future("state", "none", {"state": np.array([states], float)}, None))


def follower(**options):
    return SubgoalExecutor(
        "state",
        lambda seen, goal: REACH.towards(seen, goal, 0.0),
        REACH.distance,
        tolerance=0.01,
        **options,
    )


def test_subgoals_are_followed_one_after_the_other():
    plan = subgoals((0.2, 0.5, 0.05), (0.2, 0.6, 0.05), (0.9, 0.9, 0.9))
    reasons, path = run(follower(goals=2), placed(), [plan], 10)
    assert reasons == [(0, "start"), (4, "goal 1 reached")]
    np.testing.assert_allclose(path[1], (0.2, 0.5, 0.05), atol=1e-6)


def test_a_subgoal_that_stalls_asks_for_a_plan():
    reasons, _ = run(follower(patience=2), placed(x=0.95), [subgoals((2.0, 0.5, 0.05))], 20)
    assert reasons == [(0, "start"), (3, "stalled before goal 0")]
    with pytest.raises(ValueError, match="imagines no 'state'; it imagines"):
        follower().accept(0, chunk(numbered(2)))


def test_best_of_n_executes_the_plan_of_the_highest_value():
    plan = chunk(numbered(2), [[7, 0, 0, 0]] * 2, [[8, 0, 0, 0]] * 2)
    plan.value = np.array([0.1, 0.9, 0.5])
    executor = BestOfN(ChunkExecutor(), 3)
    assert executor.due(0, {}) == "start"
    assert executor.accept(0, plan) == 1
    assert executor.action(0, {})[0] == 7
    plan.value = None
    with pytest.raises(ValueError, match="needs a value for each"):
        executor.accept(0, plan)
    with pytest.raises(ValueError, match="at least 2 samples"):
        BestOfN(ChunkExecutor(), 1)


def test_consensus_executes_the_plan_in_the_middle_of_the_futures():
    """Futures 0, 10 and 14: the one of 10 is nearest to the others."""
    plan = chunk(numbered(2), [[7, 0, 0, 0]] * 2, [[8, 0, 0, 0]] * 2)
    frames = np.stack([np.full((2, 4, 4, 3), shade, np.uint8) for shade in (0, 10, 14)])
    plan.future = Future("frames", "uint8", {"image/top": frames}, None)
    executor = Consensus(ChunkExecutor(), 3)
    assert executor.accept(0, plan) == 1
    assert executor.action(0, {})[0] == 7
    plan.future.values["image/side"] = np.stack([frames[0], frames[1] + 90, frames[2] + 200])
    assert executor.accept(0, plan) == 1
    plan.future.values["image/side"] = np.stack([frames[0], frames[2] + 90, frames[0]])
    assert executor.accept(0, plan) == 2
    plan.future = None
    with pytest.raises(ValueError, match="consensus needs an imagined future"):
        executor.accept(0, plan)


def test_consensus_of_actions_looks_at_present_actions_alone():
    """Chunks 0, 3 and 4; an absent last action of 100 changes nothing."""
    plan = chunk([[0, 0, 0, 0]] * 2, [[3, 0, 0, 0]] * 2, [[4, 0, 0, 0]] * 2)
    executor = ActionConsensus(ChunkExecutor(), 3)
    assert executor.accept(0, plan) == 1
    plan.action.values[1, 1] = 100
    assert executor.accept(0, plan) == 2
    plan.action.present[:, 1] = False
    assert executor.accept(0, plan) == 1
    plan.action = None
    with pytest.raises(ValueError, match="needs a plan with actions"):
        executor.accept(0, plan)


def test_a_sample_with_nan_is_no_agreement_and_no_value():
    """Of it nothing has a distance, and it would be the greatest of values."""
    plan = chunk(numbered(2), [[7, 0, 0, 0]] * 2, [[8, 0, 0, 0]] * 2)
    plan.value = np.array([0.1, np.nan, 0.5])
    frames = np.zeros((3, 2, 4, 4, 3), np.float32)
    frames[2, 0] = np.inf
    plan.future = Future("latents", "kl", {"image/top": frames}, None)
    with pytest.raises(ValueError, match=r"the values \[1\] of 3 to choose from hold NaN"):
        BestOfN(ChunkExecutor(), 3).accept(0, plan)
    with pytest.raises(ValueError, match=r"the samples \[2\] of 3 to choose from hold NaN"):
        Consensus(ChunkExecutor(), 3).accept(0, plan)
    plan.action.values[0, 1] = np.nan
    with pytest.raises(ValueError, match=r"the samples \[0\] of 3 to choose from hold NaN"):
        ActionConsensus(ChunkExecutor(), 3).accept(0, plan)


def test_a_choice_at_random_is_the_first_of_exchangeable_samples():
    plan = chunk(numbered(2), [[7, 0, 0, 0]] * 2)
    executor = AnyOfN(ChunkExecutor(), 2)
    assert executor.accept(0, plan) == 0
    assert executor.action(0, {})[0] == plan.action.values[0, 0, 0]
