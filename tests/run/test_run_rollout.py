from __future__ import annotations

import numpy as np
import point_env
import pytest
from point_model import PointModel, policy_of

from wamlab.data.logs import load_episodes
from wamlab.policy.agents import ExpertAgent, PolicyAgent, ReplayAgent
from wamlab.policy.executors import ChunkExecutor
from wamlab.run.rollout import rollout
from wamlab.sim.env import split_of, start_seed
from wamlab.sim.shifts import PUSH_SECONDS, PushedStart
from wamlab.types import JOINT


def run(agent, episodes=3, names="point/push", **options):
    return rollout(agent, names, episodes, make=point_env.make, progress=False, **options)


def same(one, other):
    assert one.seed == other.seed
    np.testing.assert_allclose(one.action, other.action, atol=1e-5)
    np.testing.assert_allclose(one.state, other.state, atol=1e-5)
    np.testing.assert_array_equal(one.success, other.success)


def test_an_episode_logs_every_instant():
    first = run(ExpertAgent(), 1)[0]
    steps = first.action.shape[0]
    assert steps == 40
    assert first.state.shape == (41, 4)
    assert first.frames["top"].shape == (41, 16, 16, 3)
    assert first.entities["block"].shape == (41, 7)
    assert len(first.contacts) == 41
    assert first.success_any
    assert first.success_last
    assert first.policy == "expert"
    assert split_of(first.seed) == "evaluation"


def test_replaying_the_logged_actions_gives_the_logged_episode():
    one = run(ExpertAgent(), 1)[0]
    again = run(ReplayAgent({"point/push": [one.action]}), 1)[0]
    np.testing.assert_array_equal(one.state, again.state)
    np.testing.assert_array_equal(one.frames["side"], again.frames["side"])


def test_a_result_does_not_depend_on_batch_or_workers():
    make = lambda: PolicyAgent(policy_of(PointModel()), ChunkExecutor(3), seed=2)  # noqa: E731
    alone, together = run(make(), 5, batch=1), run(make(), 5, batch=4)
    for one, other in zip(alone, together, strict=True):
        same(one, other)
    for one, other in zip(alone, run(make(), 5, batch=3, workers=2), strict=True):
        same(one, other)
    shifted = run(make(), 2, start=3)
    same(shifted[0], alone[3])


def test_workers_serve_the_expert():
    for one, other in zip(run(ExpertAgent(True)), run(ExpertAgent(True), workers=2), strict=True):
        same(one, other)


def test_an_error_in_a_worker_comes_back():
    agent = ReplayAgent({"point/push": [np.zeros((2, 4))]})
    agent.act = lambda seen: ({row: np.full(4, 9.0) for row in seen}, {})
    with pytest.raises(ValueError, match="outside the space"):
        run(agent, workers=1)


class Counting(point_env.PointEnv):
    steps = 0

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        self.steps = 0
        return observation, {**info, "seed": seed}

    def step(self, action):
        self.steps += 1
        return super().step(action)


def test_the_push_of_a_shifted_start_comes_on_top_of_the_episode():
    env = Counting()
    env.reset(seed=0)
    pushed = PushedStart(env)
    pushed.reset(seed=0)
    push = env.steps
    one = rollout(ExpertAgent(), "point/push", 1, make=lambda _: pushed, progress=False)[0]
    assert push == round(PUSH_SECONDS * env.space.rate_hz)
    assert len(one) == env.max_steps == env.steps - push


def test_episodes_end_after_success_or_at_max_steps():
    stopped = run(ExpertAgent(), 1, stop_after=2)[0]
    assert stopped.success.argmax() == len(stopped) - 3
    assert len(run(ExpertAgent(), 1, max_steps=3)[0]) == 3


def test_a_start_that_is_solved_already_is_no_success():
    episode = run(ExpertAgent(), 1, "point/solved", max_steps=4)[0]
    assert episode.success_at_reset
    assert not episode.success_any


def test_replans_are_logged_with_reason_and_imagination():
    agent = PolicyAgent(policy_of(PointModel()), ChunkExecutor(5), query=JOINT)
    episode = run(agent, 1, max_steps=12)[0]
    assert [(plan.step, plan.reason) for plan in episode.replans] == [
        (0, "start"),
        (5, "5 steps executed"),
        (10, "5 steps executed"),
    ]
    assert episode.replans[1].imagined["side"].shape == (2, 16, 16, 3)


def test_finished_episodes_are_logged_and_not_run_again(tmp_path):
    class Killed(ExpertAgent):
        count = 0

        def reset(self, row, scene, seed):
            self.count += 1
            if self.count > 3:
                raise KeyboardInterrupt
            super().reset(row, scene, seed)

    with pytest.raises(KeyboardInterrupt):
        run(Killed(), 5, out=tmp_path, batch=1)
    assert len(load_episodes(tmp_path)) == 3
    agent = Killed()
    resumed = run(agent, 5, out=tmp_path, batch=1)
    assert agent.count == 2
    whole = run(ExpertAgent(), 5)
    for one, other in zip(resumed, whole, strict=True):
        same(one, other)
    assert resumed[0].frames == {}
    logged = load_episodes(tmp_path)
    np.testing.assert_array_equal(logged[4].frames["top"], whole[4].frames["top"])


def test_another_agents_folder_is_refused(tmp_path):
    run(ExpertAgent(), 1, out=tmp_path)
    with pytest.raises(ValueError, match="holds other episodes"):
        run(ExpertAgent(name="other"), 1, out=tmp_path)


def test_only_the_first_episodes_keep_frames():
    episodes = run(ExpertAgent(), 3, ["point/push", "point/flaky"], keep_frames=1)
    assert [bool(one.frames) for one in episodes] == [True, False, False] * 2
    assert episodes[0].seed == start_seed("evaluation", 0)


def test_no_episodes_side_by_side_would_never_end(tmp_path):
    with pytest.raises(ValueError, match="batch is 0, expected at least 1"):
        run(ExpertAgent(), 1, "point/push", batch=0, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_environment_names_the_nearest():
    with pytest.raises(KeyError, match="did you mean 'point/push'"):
        run(ExpertAgent(), 1, "point/push2")


class Chain(point_env.PointEnv):
    """Pushing twice as far, told in two sentences."""

    def __init__(self, name, *, sentence=0, shift="", **options):
        self.told = f"{sentence}/{shift}"
        super().__init__(name, **options)

    @property
    def tasks_done(self):
        return int(self.block[0] > self.goal - 0.1) + int(self.success)

    @property
    def told_done(self):
        return self.tasks_done > 0

    @property
    def instruction(self):
        return ("push it to the middle", "push it to the end")[min(self.tasks_done, 1)]


def test_a_chain_logs_its_tasks_and_all_that_was_said():
    one = rollout(ExpertAgent(), "point/push", 1, make=Chain, progress=False)[0]
    assert one.instruction == "push it to the middle, then push it to the end"
    assert one.columns["tasks_done"].shape == (len(one),)
    assert sorted(set(one.columns["tasks_done"])) == [0, 1, 2]
    np.testing.assert_array_equal(one.columns["tasks_done"] == 2, one.success)
    np.testing.assert_array_equal(one.columns["told_done"], one.columns["tasks_done"] > 0)


def test_what_is_said_and_shifted_reaches_the_environment_and_the_claim(tmp_path):
    built = []

    def make(name, **options):
        built.append(Chain(name, **options).told)
        return Chain(name, **options)

    options = {"make": make, "progress": False, "out": tmp_path}
    rollout(ExpertAgent(), "point/push", 1, sentence="swapped", shift="light", **options)
    assert built == ["swapped/light"]
    for other in ({"sentence": "swapped"}, {"sentence": "swapped", "shift": "camera"}):
        with pytest.raises(ValueError, match="holds other episodes"):
            rollout(ExpertAgent(), "point/push", 1, **other, **options)


def test_a_folder_in_which_nothing_was_logged_is_claimed_anew(tmp_path):
    def broken(name, **options):
        raise RuntimeError("no simulator")

    options = {"progress": False, "out": tmp_path}
    with pytest.raises(RuntimeError, match="no simulator"):
        rollout(ExpertAgent(), "point/push", 1, make=broken, sentence=1, **options)
    rollout(ExpertAgent(), "point/push", 1, make=point_env.make, **options)
    with pytest.raises(ValueError, match="sentence was 0, now 1"):
        rollout(ExpertAgent(), "point/push", 1, make=point_env.make, sentence=1, **options)
