"""Things put where they were at another time: they are there, and the robot is where it is."""

from __future__ import annotations

import numpy as np
import pytest

from wamlab.sim.env import start_seed
from wamlab.sim.registry import make
from wamlab.sim.things import put_things

SEED = start_seed("evaluation", 0)


@pytest.mark.parametrize("name", ["metaworld/window-open", "scene/close-drawer"])
def test_the_things_go_back_and_the_robot_stays(name: str) -> None:
    env = make(name)
    env.reset(seed=SEED)
    before, first = env.entities(), env.get_state()
    expert = env.expert(variants=False, seed=0)
    while not env.success:
        env.step(expert())
    after, last, shown = env.entities(), env.get_state(), env.render_view(env.views[0]).copy()
    moved = [
        thing
        for thing in after
        if thing != "robot" and np.abs(after[thing] - before[thing]).max() > 0.05
    ]
    assert moved

    put_things(env, first)
    assert not env.success
    for thing, pose in env.entities().items():
        there = after if thing == "robot" else before
        np.testing.assert_allclose(pose, there[thing], atol=1e-9)
    assert (env.render_view(env.views[0]) != shown).any()

    env.set_state(first)
    put_things(env, last)
    assert env.success
    np.testing.assert_allclose(env.entities()["robot"], before["robot"], atol=1e-9)

    env.set_state(last)
    np.testing.assert_array_equal(env.get_state(), last)
    np.testing.assert_array_equal(env.render_view(env.views[0]), shown)
    env.close()
