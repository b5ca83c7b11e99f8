"""Meta-World as an `Env`: starts, exact states, what is seen, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from wamlab.sim.env import Env, self_test, start_seed
from wamlab.sim.metaworld import MetaWorld
from wamlab.sim.visibility import measure


@pytest.fixture(scope="module")
def dial() -> MetaWorld:
    return MetaWorld("dial-turn")


@pytest.fixture(scope="module")
def blind_bin() -> MetaWorld:
    return MetaWorld("bin-picking", views=())


def test_it_is_an_env(dial: MetaWorld) -> None:
    assert isinstance(dial, Env)


def test_observation(dial: MetaWorld) -> None:
    observation, info = dial.reset(seed=start_seed("validation", 3))
    assert set(observation) == {"image/corner", "image/gripper", "state", "instruction"}
    assert observation["image/corner"].shape == (64, 64, 3)
    assert observation["image/corner"].dtype == np.uint8
    assert observation["state"].shape == (len(dial.state_names),) == (4,)
    assert observation["state"].dtype == np.float32
    assert observation["instruction"] == "turn the dial"
    assert info == {"seed": 1_000_003, "split": "validation", "success": False}


def test_state_is_hand_and_opening_only(dial: MetaWorld) -> None:
    observation, _ = dial.reset(seed=0)
    hand = dial.entities()["robot"][:3]
    np.testing.assert_allclose(observation["state"][:3], hand, atol=1e-6)
    assert observation["state"][3] == pytest.approx(1.0)
    for _ in range(30):
        observation, *_ = dial.step(np.array([0, 0, 0, 1.0]))
    assert observation["state"][3] < 0.6


def test_an_action_moves_the_hand_by_a_centimetre(dial: MetaWorld) -> None:
    before, _ = dial.reset(seed=0)
    for _ in range(10):
        after, *_ = dial.step(np.array([1.0, 0, 0, -1.0]))
    moved = after["state"][:3] - before["state"][:3]
    assert 0.04 < moved[0] < 0.10
    assert np.abs(moved[1:]).max() < 0.01


@pytest.mark.parametrize("task", ["dial-turn", "door-lock", "push-back", "box-close"])
def test_a_seed_is_a_start(task: str) -> None:
    one, other = MetaWorld(task, views=()), MetaWorld(task, views=())
    one.reset(seed=5)
    start = one.get_state()
    other.reset(seed=6)
    assert not np.array_equal(other.get_state(), start)
    for _ in range(4):
        other.step(np.full(4, 0.5))
    np.random.rand(3)  # nothing outside the seed counts
    other.reset(seed=5)
    np.testing.assert_array_equal(other.get_state(), start)


def test_reset_without_a_seed_is_a_training_start_and_repeats() -> None:
    infos = [MetaWorld("reach", views=()).reset()[1] for _ in range(2)]
    assert infos[0] == infos[1]
    assert infos[0]["split"] == "train"


@pytest.mark.parametrize("task", ["dial-turn", "door-lock", "bin-picking", "hammer"])
def test_a_restored_state_replays_bit_for_bit_in_another_instance(task: str) -> None:
    one, other = MetaWorld(task, views=()), MetaWorld(task, views=())
    one.reset(seed=1)
    expert = one.expert(variants=False, seed=1)
    for _ in range(20):
        one.step(expert())
    saved = one.get_state()
    actions, states, judged = [], [], []
    for _ in range(50):
        actions.append(expert())
        one.step(actions[-1])
        states.append(one.get_state())
        judged.append(one.success)
    other.reset(seed=2)
    other.set_state(saved)
    np.testing.assert_array_equal(other.get_state(), saved)
    for action, state, success in zip(actions, states, judged, strict=True):
        other.step(action)
        np.testing.assert_array_equal(other.get_state(), state)
        assert other.success == success
    assert saved.dtype == np.float64
    assert saved.ndim == 1


def test_a_distance_not_yet_known_is_restored_as_such(blind_bin: MetaWorld) -> None:
    blind_bin.reset(seed=0)
    start = blind_bin.get_state()
    blind_bin.step(np.zeros(4))
    later = blind_bin.get_state()
    blind_bin.set_state(start)
    np.testing.assert_array_equal(blind_bin.get_state(), start)
    blind_bin.step(np.zeros(4))
    np.testing.assert_array_equal(blind_bin.get_state(), later)


def test_self_test_reports_no_noise(dial: MetaWorld) -> None:
    noise = self_test(dial, repeats=3)
    assert noise.state == 0.0
    assert noise.entity_metres == 0.0
    assert 0.0 <= noise.pixel <= 2.0


def test_state_of_another_task_is_refused(dial: MetaWorld, blind_bin: MetaWorld) -> None:
    with pytest.raises(ValueError, match="for metaworld/dial-turn"):
        dial.set_state(blind_bin.get_state())


def test_success_is_the_present_states_and_travels_with_it() -> None:
    env = MetaWorld("reach", views=())
    _, info = env.reset(seed=0)
    assert not info["success"]
    start = env.get_state()
    expert = env.expert(variants=False, seed=0)
    while not env.success:
        *_, truncated, info = env.step(expert())
        assert not truncated
    assert info["success"]
    solved = env.get_state()
    env.set_state(start)
    assert not env.success
    env.set_state(solved)
    assert env.success


def test_a_start_that_is_solved_says_so() -> None:
    env = MetaWorld("reach", views=())
    env.reset(seed=0)
    at_hand = env.start
    at_hand[0] += 0.3  # the task wants the puck away from the goal
    at_hand[3:] = env._task.tcp_center
    env.start_at(at_hand)
    assert env.success


def test_the_episode_goes_on_after_success_until_max_steps() -> None:
    env = MetaWorld("reach", views=(), max_steps=3)
    env.reset(seed=0)
    ends = [env.step(np.zeros(4))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([0, np.nan, 0, 0]), "NaN or infinity in y"),
        (np.array([0, 0, 0, np.inf]), "NaN or infinity in grip"),
        (np.array([1.5, 0, 0, 0]), "outside the space in x"),
        (np.zeros(3), "shape"),
    ],
)
def test_a_bad_action_changes_nothing(
    blind_bin: MetaWorld, action: np.ndarray, message: str
) -> None:
    blind_bin.reset(seed=0)
    before = blind_bin.get_state()
    with pytest.raises(ValueError, match=message):
        blind_bin.step(action)
    np.testing.assert_array_equal(blind_bin.get_state(), before)


def test_unknown_names_have_a_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'dial-turn'"):
        MetaWorld("dial-tern")
    with pytest.raises(KeyError, match="did you mean 'corner'"):
        MetaWorld("dial-turn", views=("corner2",))
    with pytest.raises(ValueError, match="options"):
        MetaWorld("dial-turn", views=()).reset(options={"goal": 1})


def test_a_start_that_the_task_refuses_is_an_error() -> None:
    env = MetaWorld("push", views=())
    start = env.start
    start[3:] = start[:3]
    with pytest.raises(ValueError, match="refuses the start"):
        env.start_at(start)


@pytest.mark.parametrize("task", ["dial-turn", "reach", "door-lock"])
def test_the_goal_can_be_seen(task: str) -> None:
    seen = measure(MetaWorld(task), starts=2)
    assert seen
    assert all(one.visible for one in seen)
    assert any(one.moves for one in seen)


def test_what_cannot_be_seen_is_called_hidden() -> None:
    env = MetaWorld("reach")
    env.model.site("goal").rgba[3] = 0.0
    assert not all(one.visible for one in measure(env, starts=2))
