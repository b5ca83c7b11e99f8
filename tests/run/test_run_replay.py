"""Blind rows on the point environment, where what is right is known."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import point_env
import pytest

from wamlab.run.replay import measure, replay
from wamlab.sim.env import start_seed


def world() -> point_env.PointEnv:
    return point_env.make("point/push", views=())


def test_a_blind_row_counts_on_the_same_starts() -> None:
    row = measure(world, starts=4, demonstrations=2)
    assert (row.env, row.starts, row.demonstrations) == ("point/push", 4, 2)
    assert row.expert == 4
    assert 0 <= row.mean <= 4
    assert 0 <= row.replay <= 4
    assert row == measure(world, starts=4, demonstrations=2)


def test_replaying_nothing_solves_nothing() -> None:
    env = world()
    still = np.zeros((env.max_steps, env.space.size), np.float32)
    assert not replay(env, start_seed("evaluation", 0), still)


def test_an_expert_that_fails_is_an_error() -> None:
    class Idle:
        variant: ClassVar[dict[str, float]] = {}

        def __call__(self):
            return np.zeros(4, np.float32)

    class Unable(point_env.PointEnv):
        def expert(self, **_):
            return Idle()

    with pytest.raises(RuntimeError, match="0 of 6 demonstrations succeeded"):
        measure(Unable, starts=1, demonstrations=2)
