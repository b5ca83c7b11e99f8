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
from wamlab.policy.history import History
from wamlab.policy.policy import Policy
from wamlab.run.rollout import rollout
from wamlab.types import JOINT, POLICY, Batch, Text

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


class Chain(point_env.PointEnv):
    """Says something else from a tick on."""

    change, ticks = 10, 0

    def reset(self, **options: Any) -> Any:
        self.ticks = 0
        return super().reset(**options)

    def step(self, action: Any) -> Any:
        self.ticks += 1
        return super().step(action)

    @property
    def instruction(self) -> str:
        return "push the block" if self.ticks < self.change else "lift the block"


def test_the_history_of_another_task_is_absent_as_before_a_start(model: Recorded) -> None:
    """Both chains change at tick 10; the plans at 12 and 16 see back to it, none is made sooner."""
    agent = PolicyAgent(
        Policy(model, Encoded(), point_env.SPACE), ChunkExecutor(CONFIG.stride), query=JOINT
    )
    options: dict[str, Any] = {"make": Chain, "progress": False, "max_steps": 22, "batch": 2}
    episodes = rollout(agent, "point/push", 2, **options)
    assert all([p.step for p in e.replans] == [0, 4, 8, 12, 16, 20] for e in episodes)
    fills = [look.seen_BT.tolist()[0] for look in model.looks]
    starts, full = [[False, False, True], [False, True, True]], [True] * 3
    assert fills == [*starts, full, *starts, full]

    env = Chain()
    observation, _ = env.reset(seed=0)
    agent.reset(0, env, seed=0)
    for _ in range(Chain.change + 2):
        observation, *_ = env.step(agent.act({0: observation})[0][0])
    later = Policy(model, Encoded(), env.space).query(
        observation, JOINT, histories=[agent._rows[0].history]
    )
    first = Policy(model, Encoded(), env.space).query(observation, JOINT)
    np.testing.assert_array_equal(later.action.values, first.action.values)


def test_an_instruction_that_comes_back_does_not_bring_its_past_along() -> None:
    history = History(4)
    for said in ("push", "lift", "push", "push"):
        history.push({"instruction": said}, np.zeros(4))
    assert [history.told(said) for said in ("push", "lift")] == [2, 0]
    again = history.retold("lift")
    assert (again.told("lift"), again.told("push"), history.told("push")) == (4, 0, 2)


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


def test_a_robots_loop_tells_the_model_what_a_rollout_tells_it(model: Recorded) -> None:
    """As docs/own-data.md says: a history of the policy's depth, pushed after each action."""
    policy, env = Policy(model, Encoded(), point_env.SPACE), point_env.make("point/push")
    past, observation = History(policy.depth), env.reset(seed=3)[0]
    for _ in range(STEPS):
        chunk = policy.query(observation, POLICY, histories=[past], seed=0).action.values[0]
        action = policy.space.clip(chunk[0])
        past.push(observation, action)
        observation = env.step(action)[0]
    seen = [int(look.seen_BT.sum()) for look in model.looks]
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]
