"""A model that looks back, in closed loop: its history fills up from an episode's start."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import point_env
import pytest
import torch
from einops import rearrange
from point_model import PointProcessor

from wamlab.models.gr1 import GR1, Past
from wamlab.policy.agents import PolicyAgent
from wamlab.policy.executors import ChunkExecutor
from wamlab.policy.policy import Policy
from wamlab.run.rollout import rollout
from wamlab.types import JOINT, Batch, Text

CONFIG = dataclasses.replace(
    GR1.Config.tiny(), views=("top", "side"), image_size=16, text_dim=8, rate_hz=10.0
)
STEPS = 14


class Encoded(PointProcessor):
    """With an embedding for every instruction."""

    def to_batch(self, observations: list[Any]) -> Batch:
        batch = super().to_batch(observations)
        pooled = np.full((len(batch), CONFIG.text_dim), CONFIG.text_dim**-0.5, np.float32)
        return dataclasses.replace(batch, text=Text(batch.text.sentences, pooled))


class Recorded(GR1, name="gr1-recorded"):
    """Keeps what it was shown."""

    def look(self, observation: Batch) -> Past:
        self.looks = [*getattr(self, "looks", []), super().look(observation)]
        return self.looks[-1]


@pytest.fixture
def model() -> Recorded:
    torch.manual_seed(0)
    return Recorded(CONFIG)


def test_history_fills_up_from_the_start_of_an_episode(model: Recorded) -> None:
    policy = Policy(model, Encoded(), point_env.SPACE)
    assert policy.depth == 8
    agent = PolicyAgent(policy, ChunkExecutor(CONFIG.stride), query=JOINT)
    episodes = rollout(
        agent, "point/push", 2, make=point_env.make, progress=False, max_steps=STEPS, batch=2
    )
    assert [plan.step for plan in episodes[0].replans] == [0, 4, 8, 12]
    seen = [look.seen_BT.tolist() for look in model.looks]
    fills = [[False, False, True], [False, True, True], [True] * 3, [True] * 3]
    assert seen == [[fill] * 2 for fill in fills]

    for row, episode in enumerate(episodes):
        for plan, look in zip(episode.replans, model.looks, strict=True):
            for t, step in enumerate(CONFIG.steps):
                if (tick := plan.step + step) < 0:
                    continue
                raw = np.stack([episode.frames[view][tick] for view in CONFIG.views])
                frames = rearrange(torch.from_numpy(raw), "v h w c -> v c h w").float() / 127.5 - 1
                assert torch.equal(look.frames_BTVCHW[row, t], frames)


def test_a_fuller_history_changes_what_is_done(model: Recorded) -> None:
    """From one state, with and without its past: the past is read where there is one."""
    env = point_env.make("point/push")
    agent = PolicyAgent(Policy(model, Encoded(), env.space), ChunkExecutor(CONFIG.stride))
    agent.reset(0, env, seed=0)
    observation, _ = env.reset(seed=0)
    for _ in range(CONFIG.stride):
        action = agent.act({0: observation})[0][0]
        observation, *_ = env.step(action)
    with_past = agent.act({0: observation})[0][0]
    agent.reset(0, env, seed=0)
    without = agent.act({0: observation})[0][0]
    assert np.abs(with_past - without).max() > 1e-4
