"""Action errors, frames and likelihoods of recordings, where every number is known."""

from __future__ import annotations

import numpy as np
import pytest
import recorded
from test_metrics_logs import assert_same

from wamlab.data.logs import load_recording, load_recordings, save_recording
from wamlab.metrics.base import compute
from wamlab.metrics.likelihood import nats
from wamlab.metrics.open_loop import OTHER_FRAMES
from wamlab.metrics.rivals import Clips, guesses, hold
from wamlab.metrics.visual import CAP
from wamlab.types import ActionSpace, Guess

SPACE = ActionSpace(
    recorded.NAMES, (-3.0,) * 3, (3.0,) * 3, ("delta", "delta", "absolute"), recorded.UNITS, 20.0
)


def test_the_error_is_normalised_over_the_dimensions_that_vary() -> None:
    """Episode e misses dx by 0.25 e: (0.25 e / 1 + 0 / 2) / 2 in normalised units."""
    found = compute("recorded_action_error", recorded.recordings())
    assert found.items == pytest.approx({f"episode {e}": 0.125 * e for e in range(5)})
    assert found.value == pytest.approx(0.25)
    assert found.n == 5
    assert found.interval is not None
    assert found.interval.low < 0.25 < found.interval.high
    assert found.parts["slide"].value == pytest.approx(0.25)
    assert found.parts["glide"].value == pytest.approx(0.25)
    assert found.details["steps"] == pytest.approx([0.25] * 8)
    by = found.details["dimensions"]
    assert by["dx"]["value"] == pytest.approx(0.5)
    assert (by["dy"]["value"], by["dy"]["unit"]) == (0, "pixel")
    assert by["grip"]["value"] == 0


def test_an_error_that_grows_along_the_chunk_is_seen_step_by_step() -> None:
    one = recorded.recording(0, 1, miss=0.0)
    one.guesses["POLICY"].action = one.action + np.arange(8, dtype=np.float32)[:, None]
    found = compute("recorded_action_error", [one])
    assert found.details["steps"] == pytest.approx([0.75 * t for t in range(8)])
    assert found.interval is None


def test_intervals_resample_whole_episodes() -> None:
    """More instants of the same episodes make a number no more certain."""
    few = compute("recorded_action_error", recorded.recordings())
    many = compute("recorded_action_error", recorded.recordings() * 10)
    assert few.interval == many.interval


def test_a_rival_is_judged_on_the_same_instants() -> None:
    logs = recorded.recordings()
    over = compute("recorded_action_over_rival", logs, rival="hold")
    assert over.value == pytest.approx((1 + 0.5) / 2 - 0.25)
    perfect = compute("recorded_action_over_rival", logs, rival="nearest clip")
    assert perfect.value == pytest.approx(-0.25)
    del logs[0].rivals["nearest clip"]
    assert compute("recorded_action_over_rival", logs, rival="nearest clip").n == 5
    missing = compute("recorded_action_over_rival", logs, rival="dataset mean")
    assert "no action of the rival 'dataset mean'" in missing.why_not


def test_an_inverse_explains_what_it_reads_off_the_frames() -> None:
    """Errors of 0.5 in dx, whose variance is 1, and none in dy; the grip never changes."""
    logs = []
    for one, turn in zip(recorded.recordings(6), (1, -1) * 6, strict=True):
        one.action = one.action * np.array([turn, 2 * turn, 1], np.float32)
        one.guesses["INVERSE"] = Guess(one.action + np.array([0.5, 0, 0], np.float32))
        one.guesses[OTHER_FRAMES] = Guess(0 * one.action)
        logs.append(one)
    found = compute("recorded_inverse_r2", logs)
    assert found.details["dimensions"] == pytest.approx({"dx": 0.75, "dy": 1.0})
    assert found.value == pytest.approx(0.875)
    assert found.details["other_frames"] == pytest.approx(0.0)
    assert found.n == 6
    assert found.interval == pytest.approx((0.875, 0.875))
    assert compute("recorded_inverse_r2", logs[:8]).interval is None


def test_the_mean_between_two_frames_explains_what_changes_from_frame_to_frame_alone() -> None:
    """dx turns at the frame after two steps, dy within each pair: all of one, none of the other."""
    logs = recorded.recordings(4)
    for one in logs:
        one.offsets = np.array([2, 4])
        one.action = np.array([[1, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]], np.float32)
        one.guesses["INVERSE"] = Guess(one.action)
    assert compute("recorded_inverse_r2", logs).details["between_frames"] == pytest.approx(0.5)
    for one in logs:
        one.offsets = np.arange(1, 5)
    assert compute("recorded_inverse_r2", logs).details["between_frames"] == 1


def test_an_inverse_that_was_not_answered_or_of_actions_that_never_vary_has_no_r2() -> None:
    missing = compute("recorded_inverse_r2", recorded.recordings())
    assert "no action of INVERSE was logged" in missing.why_not
    assert "takes no frames" in missing.why_not
    flat = recorded.recordings()
    for one in flat:
        one.guesses["INVERSE"] = Guess(one.action)
    assert "varies" in compute("recorded_inverse_r2", flat).why_not


def test_frames_under_the_recorded_action_are_not_those_under_the_own() -> None:
    """FORWARD sees truly and scores the cap; JOINT follows its own action and does not."""
    logs = recorded.recordings(miss=1.0)
    forward = compute("recorded_moving_psnr", logs, query="FORWARD")
    joint = compute("recorded_moving_psnr", logs, query="JOINT")
    assert forward.value == CAP
    assert joint.value < 20
    assert set(joint.parts) == {"corner@4", "corner@8"}
    by_task = compute("recorded_moving_psnr", logs, query="JOINT", by="task")
    assert set(by_task.parts) == {"slide", "glide"}
    over = compute("recorded_moving_psnr_over_rival", logs, query="FORWARD", rival="last frame")
    assert over.value > 50
    assert over.details["wins"] == 1
    same = compute("recorded_moving_psnr_over_rival", logs, query="FORWARD", rival="nearest clip")
    assert same.value == 0


def test_a_static_future_gains_nothing_over_the_last_frame() -> None:
    logs = recorded.recordings()
    for one in logs:
        one.guesses["FORWARD"].imagined = one.rivals["last frame"].imagined
    over = compute("recorded_moving_psnr_over_rival", logs, query="FORWARD", rival="last frame")
    assert over.value == 0


def test_what_was_not_answered_has_a_reason_and_no_number() -> None:
    logs = recorded.recordings()
    inverse = compute("recorded_action_error", logs, query="INVERSE")
    assert inverse.value is None
    assert "no action of INVERSE was logged; it takes no frames" in inverse.why_not
    assert "no future of VIDEO" in compute("recorded_moving_psnr", logs, query="VIDEO").why_not
    assert "has none" in compute("nats_per_dim", logs, query="VIDEO").why_not
    assert "JOINT, VIDEO, INVERSE" in compute("chain_gap", logs, chain="by video").why_not


def test_nats_are_per_dimension_and_the_chain_gap_per_dimension_of_the_joint() -> None:
    logs = recorded.recordings()
    total = float(nats(logs[0].likelihood["POLICY"])[0])
    found = compute("nats_per_dim", logs, query="POLICY")
    assert found.value == pytest.approx(total / 24)
    assert found.details["total"] == pytest.approx(total)
    assert found.details["levels"] == [1.0, 0.5, 0.1]
    assert compute("chain_gap", logs).value == pytest.approx(total / 24)


def test_holding_still_keeps_the_last_command_of_an_absolute_dimension() -> None:
    assert hold(np.array([0.5, -1.0, 2.0]), SPACE, 2).tolist() == [[0, 0, 2], [0, 0, 2]]


def test_rivals_guess_actions_and_frames_from_other_episodes_alone() -> None:
    logs = recorded.recordings(4, miss=0.0)
    clips = Clips(
        [one.env for one in logs],
        (4, 8),
        {"corner": np.stack([one.now["corner"][0] for one in logs])},
        {"corner": np.stack([one.ahead["corner"] for one in logs])},
        np.stack([one.action + i for i, one in enumerate(logs)]),
        [one.episode for one in logs],
    )
    last = np.array([0.0, 0.0, 1.0], np.float32)
    found = guesses(logs[0], last, SPACE, clips.without(0))
    assert set(found) == {"hold", "last frame", "dataset mean", "nearest clip"}
    near = found["nearest clip"].action
    assert near is not None
    assert near[0, 0] - logs[0].action[0, 0] in (4, 5)
    mean = found["dataset mean"].action
    assert mean is not None
    assert mean[0, 0] == pytest.approx(logs[0].action[0, 0] + 4.5)
    assert found["hold"].imagined is None
    alone = guesses(logs[0], last, SPACE, clips.without(0).without(2))
    assert set(alone) == {"hold", "last frame"}


def test_a_recording_comes_back_with_every_field(tmp_path) -> None:
    logs = recorded.recordings(2)
    for one in reversed(logs):
        save_recording(tmp_path, one)
    assert_same(logs, load_recordings(tmp_path))
    assert load_recording(tmp_path, 7, 1) is None
