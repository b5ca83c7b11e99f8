"""Shifts: each changes what it says and nothing else, in both simulators; refusals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from wamlab.sim.env import Env, start_seed
from wamlab.sim.registry import make
from wamlab.sim.shifts import PushedStart, shift, shifts

SEEN = ("camera", "light", "texture", "distractors")
ENVS = ("metaworld/push", "scene/red-cube-to-green-mat")
SEED = start_seed("evaluation", 3)


@pytest.fixture(scope="module", params=ENVS)
def plain(request: pytest.FixtureRequest) -> Iterator[Env]:
    env = make(request.param)
    yield env
    env.close()


def changed(one: np.ndarray, other: np.ndarray) -> float:
    """The share of pixels that differ by ten levels or more."""
    return float((np.abs(one.astype(int) - other).max(axis=-1) >= 10).mean())


def test_the_shifts_have_names() -> None:
    assert shifts() == sorted((*SEEN, "start", "paraphrase", "gain", "friction"))


@pytest.mark.parametrize("name", SEEN)
def test_what_is_seen_changes_and_what_happens_does_not(plain: Env, name: str) -> None:
    env = make(plain.name, shift=name)
    action = np.array(env.space.high) * 0.3
    for world in (plain, env):
        world.reset(seed=SEED)
        world.step(action)
    np.testing.assert_array_equal(env.get_state(), plain.get_state())
    before, after = plain.observe(), env.observe()
    np.testing.assert_array_equal(before["state"], after["state"])
    first = f"image/{plain.views[0]}"
    assert changed(before[first], after[first]) > 0.005
    if name in ("light", "texture", "distractors"):
        for thing, mask in plain.masks(plain.views[0]).items():
            np.testing.assert_array_equal(mask, env.masks(plain.views[0])[thing])
    env.close()


def test_a_moved_camera_says_where_it_is(plain: Env) -> None:
    env = make(plain.name, shift="camera")
    for world in (plain, env):
        world.reset(seed=SEED)
    for view in plain.views:
        was, now = plain.camera(view).pose, env.camera(view).pose
        assert np.linalg.norm(now[:3, 3] - was[:3, 3]) == pytest.approx(0.03, abs=1e-6)
        turn = np.arccos((np.trace(was[:3, :3].T @ now[:3, :3]) - 1) / 2)
        assert np.rad2deg(turn) == pytest.approx(4.0, abs=0.01)
    env.close()


def test_distractors_cover_no_thing_and_have_depth(plain: Env) -> None:
    env = make(plain.name, shift="distractors")
    for world in (plain, env):
        world.reset(seed=SEED)
    view = plain.views[0]
    before, after = (world.render_view(view, "depth") for world in (plain, env))
    nearer = before - after > 0.01
    assert nearer.sum() > 10
    assert not (after - before > 0.001).any()
    assert not any((mask & nearer).any() for mask in plain.masks(view).values())
    env.close()


@pytest.mark.parametrize("name", ["gain", "friction"])
def test_what_acts_changes_and_the_same_state_looks_the_same(plain: Env, name: str) -> None:
    env = make(plain.name, shift=name)
    plain.reset(seed=SEED)
    expert, states = plain.expert(variants=False, seed=0), [plain.get_state()]
    actions = []
    for _ in range(60):
        actions.append(plain.space.clip(expert()))
        plain.step(actions[-1])
    end = plain.get_state()
    env.set_state(states[0])
    plain.set_state(states[0])
    for view in plain.views:
        assert changed(env.render_view(view), plain.render_view(view)) == 0
    for action in actions:
        env.step(action)
    assert not np.array_equal(env.get_state(), end)
    env.close()


def test_a_start_is_pushed_aside_and_is_its_seeds(plain: Env) -> None:
    env = shift(plain, "start")
    assert isinstance(env, PushedStart)
    assert isinstance(env, Env)
    usual, _ = plain.reset(seed=SEED)
    ways = []
    for seed in (SEED, SEED, SEED + 1):
        observation, info = env.reset(seed=seed)
        assert not info["success"]
        ways.append(observation["state"][:3] - usual["state"][:3])
    np.testing.assert_array_equal(ways[0], ways[1])
    assert 0.02 < np.linalg.norm(ways[0]) < 0.25
    assert np.linalg.norm(ways[0] - ways[2]) > 0.02


def test_a_paraphrase_is_said(plain: Env) -> None:
    env = make(plain.name, shift="paraphrase", views=())
    assert env.instruction == make(plain.name, sentence=1, views=()).instruction
    assert env.instruction != plain.instruction


def test_a_paraphrase_and_a_sentence_are_not_both_said(plain: Env) -> None:
    with pytest.raises(ValueError, match=r"'paraphrase' is .*, but sentence is given as well"):
        make(plain.name, shift="paraphrase", sentence="empty", views=())


def test_shifts_are_refused_by_name(plain: Env) -> None:
    class Bare:
        name = "bare/thing"

    with pytest.raises(ValueError, match="bare/thing cannot do the shift 'light'"):
        shift(Bare(), "light")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bare/thing cannot do the shift 'distractors'"):
        shift(Bare(), "distractors")  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="did you mean 'light'"):
        shift(plain, "lights")
    with pytest.raises(ValueError, match="is given when"):
        shift(plain, "paraphrase")
