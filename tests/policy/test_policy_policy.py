from __future__ import annotations

import numpy as np
import pytest
import torch
from point_env import SPACE, PointEnv
from point_model import (
    Broken,
    Latent,
    PointConfig,
    PointModel,
    Reactive,
    policy_of,
)

from wamlab.models.base import Refusal
from wamlab.policy.cost import count_calls
from wamlab.policy.history import History
from wamlab.policy.raw import ABSENT, FRAMES
from wamlab.policy.seeds import draw_seed, generators
from wamlab.types import ACTION, FORWARD, INVERSE, JOINT, POLICY, STATE, VIDEO


@pytest.fixture
def observations():
    env = PointEnv()
    return [env.reset(seed=seed)[0] for seed in range(4)]


def test_action_is_in_raw_units_and_what_had_to_be_clipped_is_counted(observations):
    policy = policy_of(PointModel())
    policy.processor.denormalize_action = lambda action: action * 10
    answer = policy.query(observations, POLICY, seed=3)
    free = policy_of(PointModel()).query(observations, POLICY, seed=3)
    raw = free.action.values / 0.5 * 10
    np.testing.assert_allclose(answer.action.values, np.clip(raw, -1, 1), atol=1e-6)
    assert answer.clipped.tolist() == (np.abs(raw) > 1 + 1e-6).sum(axis=(1, 2)).tolist()
    assert answer.clipped.sum() > 0
    assert free.clipped.sum() == 0
    assert answer.action.offsets[0].tolist() == list(range(8))
    assert answer.future is None


def test_a_row_does_not_depend_on_who_shares_its_batch(observations):
    policy = policy_of(PointModel())
    together = policy.query(observations, JOINT, seed=[5, 6, 7, 8])
    for row, observation in enumerate(observations):
        alone = policy.query(observation, JOINT, seed=[5 + row])
        np.testing.assert_allclose(
            alone.action.values[0], together.action.values[row], atol=1e-5, rtol=0
        )


def test_draws_are_bit_equal_alone_and_in_company():
    cpu = torch.device("cpu")
    draw = lambda g: torch.randn(5, generator=g)  # noqa: E731
    many = [draw(g) for g in generators([3, 4], 2, 3, cpu)]
    alone = [draw(g) for g in generators([4], 1, 2, cpu)]
    assert torch.equal(many[3], alone[0])
    assert torch.equal(many[4], alone[1])
    assert len({tuple(one.tolist()) for one in many}) == 6
    by_place = [draw(g) for g in generators(9, 2, 1, cpu)]
    assert not torch.equal(by_place[0], by_place[1])
    with pytest.raises(ValueError, match="1 seeds for 2 observations"):
        generators([1], 2, 1, cpu)


def test_seeds_differ_by_order_and_length():
    seeds = {draw_seed(*parts) for parts in [(1, 2), (2, 1), (1,), (1, 2, 0), (0, 1, 2)]}
    assert len(seeds) == 5


def test_samples_are_repeated_rows(observations):
    policy = policy_of(PointModel())
    answer = policy.query(observations[:2], POLICY, seed=[1, 2], samples=3)
    assert answer.action.values.shape == (6, 8, 4)
    one = policy.query(observations[1], POLICY, seed=[2], samples=2)
    np.testing.assert_allclose(answer.action.values[3:5], one.action.values, atol=1e-5)


def test_future_becomes_frames_and_can_be_given_back(observations):
    policy = policy_of(PointModel())
    answer = policy.query(observations[:2], JOINT, seed=1)
    assert answer.future.space == FRAMES
    frames = answer.frames(1)
    assert frames["top"].shape == (2, 16, 16, 3)
    assert frames["top"].dtype == np.uint8
    assert answer.frame_offsets(1).tolist() == [4, 8]
    back = policy.query(observations[:2], INVERSE, future=answer.future)
    assert back.action.values.shape == (2, 8, 4)


def test_decoded_frames_are_exact():
    """A future that is the present, unshaded, decodes to the observed bytes."""
    policy = policy_of(PointModel())
    observation = PointEnv().reset(seed=2)[0]
    still = policy.query(observation, FORWARD, action=np.zeros((8, 4), np.float32))
    for frame in still.frames(0)["top"]:
        np.testing.assert_array_equal(frame, observation["image/top"])


def test_an_undecodable_future_stays_in_its_own_space_and_says_why(observations):
    answer = policy_of(Latent()).query(observations[0], VIDEO)
    assert answer.future.space == "pixels"
    assert answer.frames(0) is None
    assert "features" in answer.undecoded
    unasked = policy_of(PointModel()).query(observations[0], VIDEO, decode=False)
    assert unasked.undecoded == "pixels were not asked for"


def test_network_calls_are_counted(observations):
    model = PointModel()
    answer = policy_of(model).query(observations, POLICY)
    assert answer.cost.calls == 1
    assert answer.cost.ms > 0
    with count_calls(model) as cost:
        for _ in range(3):
            model.network(torch.zeros(1, 4))
    assert cost.calls == 3
    model.network(torch.zeros(1, 4))
    assert cost.calls == 3


def test_history_fills_the_offsets_that_the_window_asks_for():
    model = PointModel(PointConfig(past=(-3, -1)))
    policy, env = policy_of(model), PointEnv()
    now, _ = env.reset(seed=1)
    history, seen = History(policy.depth), []
    assert policy.depth == 3
    for step in range(4):
        policy.query(now, POLICY, histories=[history])
        state, action = model.seen[-1][STATE], model.seen[-1][ACTION]
        assert state.offsets[0].tolist() == [-3, -1, 0]
        assert state.present[0].tolist() == [step >= 3, step >= 1, True]
        assert action.present[0].tolist() == [step >= 3, step >= 1]
        if step:
            np.testing.assert_allclose(state.values[0, 1], seen[-1]["state"])
            np.testing.assert_allclose(action.values[0, 1, 0] * 0.5, 0.1 * step, atol=1e-6)
        executed = np.array([0.1 * (step + 1), 0, 0, 0], np.float32)
        history.push(now, executed)
        seen.append(now)
        now, *_ = env.step(executed)
    policy.query({**now, "instruction": "lift it"}, POLICY, histories=[history])
    state, action = model.seen[-1][STATE], model.seen[-1][ACTION]
    assert state.present[0].tolist() == [False, False, True]
    assert not action.present.any()


def test_nan_and_infinity_stop_at_the_door(observations):
    bad = {**observations[0], "state": np.array([0, np.nan, 0, 0], np.float32)}
    with pytest.raises(ValueError, match="observation 1: 'state' holds NaN"):
        policy_of(PointModel()).query([observations[0], bad], POLICY)
    with pytest.raises(ValueError, match="the action of point_broken holds NaN"):
        policy_of(Broken()).query(observations[0], POLICY)


def test_wrong_view_names_the_nearest(observations):
    bad = {("image/tops" if k == "image/top" else k): v for k, v in observations[0].items()}
    with pytest.raises(KeyError, match=r"no 'image/top'; did you mean 'image/tops'"):
        policy_of(PointModel()).query(bad, POLICY)


def test_unanswered_query_is_refused(observations):
    with pytest.raises(Refusal, match="point_reactive does not answer JOINT; it answers POLICY"):
        policy_of(Reactive()).query(observations[0], JOINT)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.full((8, 4), 2.0), "outside the space in x, y, z, grip"),
        (np.full((8, 4), np.nan), "NaN or infinity"),
        (np.zeros((8, 3)), r"expected \(..., 4\)"),
    ],
)
def test_given_actions_must_be_within_the_space(observations, action, message):
    with pytest.raises(ValueError, match=message):
        policy_of(PointModel()).query(observations[0], FORWARD, action=action)


def test_what_a_query_gives_must_be_given(observations):
    with pytest.raises(ValueError, match="FORWARD needs an action"):
        policy_of(PointModel()).query(observations[0], FORWARD)
    with pytest.raises(ValueError, match="POLICY does not take an action"):
        policy_of(PointModel()).query(observations[0], POLICY, action=np.zeros((8, 4)))


def test_a_model_of_another_action_size_is_no_policy_here():
    with pytest.raises(ValueError, match="speaks 7 action dimensions, the space has 4"):
        policy_of(PointModel(PointConfig(action_dim=7)))


def test_selecting_rows_keeps_what_is_raw(observations):
    answer = policy_of(PointModel()).query(observations, JOINT).select([2])
    assert answer.clipped.shape == (1,)
    assert answer.frames(0)["side"].shape == (2, 16, 16, 3)
    assert SPACE.size == answer.action.values.shape[-1]


def test_a_state_that_is_not_known_is_absent() -> None:
    model = PointModel()
    seen, _ = PointEnv().reset(seed=0)
    policy_of(model).query([seen, {**seen, "state": ABSENT}], POLICY)
    state = model.seen[0][STATE]
    assert state.present.tolist() == [[True], [False]]
    np.testing.assert_allclose(state.values[0, 0], seen["state"])
