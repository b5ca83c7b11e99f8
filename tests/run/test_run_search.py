from __future__ import annotations

from contextlib import closing

import numpy as np
import point_env
import pytest

from wamlab.run.search import Sandbox, Search
from wamlab.sim.env import start_seed
from wamlab.sim.registry import make

ENV, VIEWS, OFFSETS = "point/push", ("top", "side"), (4, 8)


def test_the_search_finds_what_was_planted():
    env = point_env.make(ENV, views=())
    env.image_size = 64
    env.reset(seed=3)
    sandbox = Sandbox(env, VIEWS, OFFSETS)
    state = env.get_state()
    planted = np.tile(np.array([0.4, -0.3, 0.2, 0.0], np.float32), (8, 1))
    wanted, _ = sandbox.frames(state, 8, planted.__getitem__)
    guess = np.zeros((8, 4), np.float32)
    found = Search()(sandbox, state, wanted, guess, seed=0)
    assert sandbox.error(state, planted, wanted) == 0
    assert sandbox.error(state, found, wanted) < 0.25 * sandbox.error(state, guess, wanted)
    ends = [chunk[:, :3].sum(0) * point_env.STEP for chunk in (planted, found)]
    assert np.linalg.norm(ends[0] - ends[1]) < 0.04 < 0.2 < np.linalg.norm(ends[0])


def test_the_search_never_ends_worse_than_its_first_guess():
    env = point_env.make(ENV, views=())
    sandbox, state = Sandbox(env, VIEWS, OFFSETS), env.get_state()
    guess = np.tile(np.array([0.5, 0.2, 0.1, 0.0], np.float32), (8, 1))
    wanted, _ = sandbox.frames(state, 8, guess.__getitem__)
    found = Search((1,), population=2, elite=1, spread=1.0)(sandbox, state, wanted, guess, 0)
    np.testing.assert_array_equal(found, guess)


class Thorough(Sandbox):
    """Looks at every frame of every chunk."""

    def error(self, state, chunk, wanted, bound=np.inf):
        return super().error(state, chunk, wanted)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_rendered_makes_no_difference(seed):
    """A chunk that is given up early is never one that would have been kept."""
    env = point_env.make(ENV, views=())
    env.reset(seed=seed)
    rendered, render = [], env.render_view
    env.render_view = lambda view: rendered.append(view) or render(view)
    state = env.get_state()
    planted = np.tile(np.array([0.4, -0.3, 0.2, 0.0], np.float32), (8, 1))
    wanted, _ = Sandbox(env, VIEWS, OFFSETS).frames(state, 8, planted.__getitem__)
    found, counts = [], []
    for kind in (Sandbox, Thorough):
        rendered.clear()
        guess = np.zeros((8, 4), np.float32)
        found.append(Search()(kind(env, VIEWS, OFFSETS), state, wanted, guess, seed))
        counts.append(len(rendered))
    np.testing.assert_array_equal(*found)
    assert counts[1] == 81 * len(VIEWS) * len(OFFSETS)
    assert counts[0] < counts[1]


def test_an_error_above_the_bound_is_a_part_of_the_whole():
    env = point_env.make(ENV, views=())
    sandbox, state = Sandbox(env, VIEWS, OFFSETS), env.get_state()
    planted = np.tile(np.array([0.4, -0.3, 0.2, 0.0], np.float32), (8, 1))
    wanted, _ = sandbox.frames(state, 8, planted.__getitem__)
    guess = np.zeros((8, 4), np.float32)
    whole = sandbox.error(state, guess, wanted)
    shown, _ = sandbox.frames(state, 8, guess.__getitem__)
    parts = [(shown[v].astype(float) - wanted[v]) ** 2 for v in VIEWS]
    np.testing.assert_allclose(whole, np.mean(parts))
    assert sandbox.error(state, guess, wanted, bound=whole) == whole
    assert 0.2 * whole < sandbox.error(state, guess, wanted, bound=0.2 * whole) < whole


@pytest.mark.slow
def test_in_meta_world_a_restored_expert_goes_on_and_its_chunk_is_found() -> None:
    """The whole of it on a real simulator: the hand ends within 2 cm of where it should."""
    with closing(make("metaworld/door-lock", views=())) as env:
        env.reset(seed=start_seed("validation", 0))
        expert, sandbox = (
            env.expert(variants=False, seed=0),
            Sandbox(env, ("corner", "gripper"), (8, 16)),
        )
        for _ in range(30):
            env.step(expert())
        state = env.get_state()
        wanted, planted = sandbox.frames(state, 16, lambda _: expert())
        goal = env.entities()["robot"][:3]
        guess = np.zeros_like(planted)
        sandbox.frames(state, 16, guess.__getitem__)
        before = np.linalg.norm(env.entities()["robot"][:3] - goal)
        found = Search()(sandbox, state, wanted, guess, seed=0)
        assert sandbox.error(state, found, wanted) < 0.5 * sandbox.error(state, guess, wanted)
        sandbox.frames(state, 16, found.__getitem__)
        assert np.linalg.norm(env.entities()["robot"][:3] - goal) < 0.02 < 0.05 < before
        assert sandbox.error(state, planted, wanted) == 0
