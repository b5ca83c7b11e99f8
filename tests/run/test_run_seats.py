"""Seats in worker processes, and what is said of a process that dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import point_env
import pytest

from wamlab.data.logs import load_episodes
from wamlab.policy.agents import ReplayAgent
from wamlab.run.rollout import rollout
from wamlab.run.seats import seats

STILL = np.zeros(4, np.float32)


class Mortal(point_env.PointEnv):
    """Its process is killed, as by a system without memory, in the second step from start ...2."""

    seed, steps = None, 0

    def reset(self, *, seed=None, options=None):
        self.seed, self.steps = seed, 0
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.steps += 1
        if self.seed is not None and self.seed % 10 == 2 and self.steps == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


def mortal(name: str) -> Mortal:
    return Mortal(name)


def test_a_process_that_dies_is_named_and_what_had_ended_is_kept(tmp_path: Path) -> None:
    agent = ReplayAgent({"point/push": [STILL[None]]})
    said = r"simulates point/push in row 0 died with exit code -9; .*fewer workers"
    with pytest.raises(RuntimeError, match=said):
        rollout(
            agent, "point/push", 4, make=mortal, max_steps=3, batch=1, workers=1, out=tmp_path,
            progress=False,
        )  # fmt: skip
    assert len(load_episodes(tmp_path, frames=False)) == 2


def test_every_further_question_to_a_dead_process_says_the_same() -> None:
    with seats(mortal, 2, 1) as (first, second):
        first.begin("point/push", 2)
        first.send(STILL)
        first.receive()
        first.send(STILL)
        with pytest.raises(RuntimeError, match="point/push in row 0 died with exit code -9"):
            first.receive()
        with pytest.raises(RuntimeError, match="point/reach in row 1 died with exit code -9"):
            second.begin("point/reach", 1)
