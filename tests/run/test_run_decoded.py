"""The closed loop on what a judge reads off imagined windows, on the point environment."""

from __future__ import annotations

import numpy as np
import point_env
import pytest
from point_judge import ENV, Attached, Seer, Still, clips, judge_of
from point_model import Reactive, policy_of

from wamlab.models.base import Refusal
from wamlab.policy.agents import ExpertAgent
from wamlab.policy.executors import ChunkExecutor
from wamlab.run.decoded import SHOWN, DecodedAgent
from wamlab.run.rollout import rollout
from wamlab.types import Episode

STARTS = 4


def agent(shown: str = "imagined", model=None, judge=None, steps: int = 4, **options):
    judge = judge or judge_of()
    policy = judge.policy if model is None else policy_of(model)
    how = {"clips": clips(), "make": point_env.make, **options}
    return DecodedAgent(policy, ChunkExecutor(steps), judge=judge, shown=shown, **how)


def play(player: DecodedAgent, episodes: int = STARTS, **options) -> list[Episode]:
    with_defaults = {"make": point_env.make, "progress": False, "stop_after": 0, **options}
    played = rollout(player, ENV, episodes, **with_defaults)
    player.close()
    return played


def solved(episodes: list[Episode]) -> int:
    return sum(one.success_any for one in episodes)


def test_seeing_again_solves_what_is_foreseen_and_nothing_else() -> None:
    assert solved(play(agent(model=Seer()))) == STARTS
    assert solved(play(agent(model=Still()))) == 0
    assert solved(play(agent("ceiling"))) == STARTS
    assert solved(play(agent("shuffled"))) < STARTS


def test_the_ceiling_is_the_expert_seen_through_the_judge() -> None:
    """Every window begins at the true present and shows what the expert then does."""
    played = play(agent("ceiling", steps=8), 1)[0]
    expert = rollout(ExpertAgent(), ENV, 1, make=point_env.make, progress=False)[0]
    for k, offset in enumerate((4, 8)):
        np.testing.assert_array_equal(
            played.replans[0].imagined["top"][k], expert.frames["top"][offset]
        )
    moved = (played.state[8] - expert.state[8])[:2]
    assert np.abs(moved).max() < 0.04


def test_without_the_object_a_judge_of_the_hand_reads_on_and_another_stops() -> None:
    assert solved(play(agent("object erased"))) == STARTS
    attached = judge_of(Attached())
    assert solved(play(agent("ceiling", judge=attached))) == STARTS
    still = play(agent("object erased", judge=attached))
    assert not any(one.action.any() for one in still)


def test_a_shuffled_window_is_a_clip_drawn_anew_each_time() -> None:
    played = play(agent("shuffled"), 1)[0]
    shown = [plan.imagined["top"].tobytes() for plan in played.replans]
    known = {future.tobytes() for future in clips().future["top"]}
    assert len({*shown}) > 1
    assert {*shown} <= known


@pytest.mark.parametrize("shown", SHOWN)
def test_every_condition_says_what_made_it(shown: str) -> None:
    player = agent(shown, Seer() if shown == "imagined" else None)
    played = play(player, 1, max_steps=4)[0]
    assert played.policy == (shown if shown != "imagined" else "point_seer")
    assert (player.made_by["shown"], player.made_by["judge"]) == (shown, "point_reading")
    assert played.replans[0].calls == (4 if shown == "imagined" else 1)


def test_bad_requests_are_named() -> None:
    with pytest.raises(KeyError, match=r"no condition 'celing'.*ceiling"):
        agent("celing")
    with pytest.raises(ValueError, match="shuffled windows are training clips, but none"):
        agent("shuffled", clips=None)
    with pytest.raises(Refusal, match="does not answer VIDEO"):
        agent(model=Reactive())
