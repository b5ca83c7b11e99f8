"""What is wrong with logs is named before anything is measured of them."""

from __future__ import annotations

import numpy as np
import pusher
import pytest
import recorded

from wamlab.metrics.base import compute
from wamlab.metrics.surprise import surprises
from wamlab.types import Denoised


@pytest.mark.parametrize("name", ["eic", "div", "skill", "state_eic"])
def test_a_pose_that_is_nan_opens_no_gate(name: str) -> None:
    probes = pusher.probes(n=6)
    for branch in probes[3].branches:
        branch.entities["robot"][5:] = np.nan
    said = "^toy/pusher/3-0: poses of 'robot' in branch 'sample 0' hold NaN or infinity$"
    with pytest.raises(ValueError, match=said):
        compute(name, probes)


def test_a_branch_without_the_poses_of_its_state_is_named() -> None:
    probe = pusher.probe(0)
    del probe.branches[1].entities["block"]
    said = "^toy/pusher/0-0: the branch 'sample 1' lacks the poses of 'block'$"
    with pytest.raises(ValueError, match=said):
        compute("eic", [probe])


@pytest.mark.parametrize("name", ["psnr", "eic", "object_permanence"])
def test_a_branch_without_the_frames_that_were_executed_is_named(name: str) -> None:
    probe = pusher.probe(0)
    probe.branches[0].happened = {}
    said = "^toy/pusher/0-0: the branch 'sample 0' holds no executed frames of view 'corner'"
    with pytest.raises(ValueError, match=said):
        compute(name, [probe])


def test_what_a_judge_read_is_a_number() -> None:
    probe = pusher.probe(0)
    for branch in probe.of("own"):
        branch.decoded, branch.redecoded = branch.action * np.nan, branch.action
    said = "^toy/pusher/0-0: decoded actions in branch 'sample 0' hold NaN or infinity$"
    with pytest.raises(ValueError, match=said):
        compute("icc", [probe])


def test_an_executed_action_is_a_number() -> None:
    episode = pusher.episode(3)
    episode.action[2] = np.inf
    said = "^pusher/toy/pusher/3: executed actions hold NaN or infinity$"
    with pytest.raises(ValueError, match=said):
        compute("action_smoothness", [episode])


def test_a_loss_that_is_nan_ends_no_integral_early() -> None:
    """`tightest` would drop every level from it on, of all rows."""
    logs = recorded.recordings(5)
    known = logs[3].likelihood["FORWARD"]
    errors = np.array([[24.0, np.nan, 0.05]])
    logs[3].likelihood["FORWARD"] = Denoised(known.levels, errors, known.energy, known.dims)
    said = "^episode 1, step 9: the errors of the likelihood of FORWARD hold NaN or infinity$"
    with pytest.raises(ValueError, match=said):
        compute("nats_per_dim", logs, query="FORWARD")


def test_a_recorded_or_guessed_action_is_a_number() -> None:
    one = recorded.recording(2, 1)
    one.guesses["POLICY"].action = one.action * np.nan
    with pytest.raises(ValueError, match=r"^episode 2, step 1: actions of POLICY hold NaN"):
        compute("recorded_action_error", [one])


def test_a_frame_imagined_while_acting_is_named_by_episode_and_plan() -> None:
    episode = pusher.episode(3)
    plan = episode.replans[0]
    plan.imagined = {"corner": np.full(plan.imagined["corner"].shape, np.nan)}
    said = "pusher/toy/pusher/3: the plan of step 0: imagined frames of view 'corner' hold NaN"
    with pytest.raises(ValueError, match=said):
        surprises(episode)
