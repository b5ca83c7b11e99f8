"""Scenes without their objects: the robot is seen as it was, and everything happens as it did."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from wamlab.sim.env import start_seed
from wamlab.sim.erase import erase_objects
from wamlab.sim.registry import make

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))

import point_env

SEED = start_seed("evaluation", 0)


@pytest.mark.parametrize("name", ["metaworld/door-unlock", "scene/open-drawer"])
def test_the_objects_are_gone_from_the_pictures_and_from_nothing_else(name: str) -> None:
    env = make(name)
    view, action = env.views[0], np.array(env.space.high) * 0.3
    env.reset(seed=SEED)
    before, masks, poses = env.render_view(view).copy(), env.masks(view), env.entities()
    env.step(action)
    after = env.get_state()

    erase_objects(env)
    env.reset(seed=SEED)
    seen, left = env.render_view(view), env.masks(view)
    things = [thing for thing in masks if thing != "robot"]
    hidden = np.any([masks[thing] for thing in things], axis=0)
    assert hidden.sum() > 200
    assert not any(left[thing].any() for thing in things)
    assert (masks["robot"] <= left["robot"]).all()
    np.testing.assert_array_equal(seen[masks["robot"]], before[masks["robot"]])
    assert (np.abs(seen.astype(int) - before).max(-1)[hidden] >= 10).mean() > 0.5
    for thing, pose in env.entities().items():
        np.testing.assert_array_equal(pose, poses[thing])
    env.step(action)
    np.testing.assert_array_equal(env.get_state(), after)
    env.close()


def test_an_environment_that_cannot_do_it_says_so() -> None:
    class Drawn(point_env.PointEnv):
        @property
        def erase_objects(self):
            raise AttributeError("it is drawn in one piece")

    with pytest.raises(ValueError, match="point/push cannot erase its objects: it is drawn in one"):
        erase_objects(Drawn())
