"""Motion masks of a square that slides, stops or runs back, known overlaps, and their division."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_metrics_physics_frames import disc, painted, probe, still

from wamlab.metrics.base import NotApplicable, compute
from wamlab.metrics.motion import (
    PERCEPTION,
    SCORES,
    Agreement,
    motion_agreement,
    motion_masks,
    motion_scores,
    perceived,
)
from wamlab.metrics.physics_frames import iou

SIZE, FRAMES = 48, 8
NOISE = 2 / 255


def video(places: list[int], row: int = 10) -> np.ndarray:
    frames = np.full((len(places), SIZE, SIZE, 3), 0.2)
    for frame, x in zip(frames, places, strict=True):
        frame[row : row + 8, x : x + 8] = 0.9
    return frames


SLIDING = video([5 * t for t in range(FRAMES)])


def test_known_masks() -> None:
    a, b = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    assert iou(a, b) == 1  # both empty: nothing moves in either
    a[0], b[:, :2] = True, True
    assert iou(a, b) == 2 / 6
    assert iou(a, a) == 1
    assert iou(a, ~a) == 0


def test_what_moves_is_what_differs_from_before() -> None:
    masks = motion_masks(SLIDING)
    assert not masks[0].any()
    assert masks[1, 14, 9]  # arrived
    assert masks[1, 14, 2]  # left
    assert not masks[:, 30:].any()
    assert not motion_masks(video([3] * FRAMES)).any()


def test_the_truth_scores_one_and_a_still_picture_nothing() -> None:
    perfect = motion_scores(SLIDING, SLIDING)
    assert perfect == {"spatial_iou": 1, "spatiotemporal_iou": 1, "weighted_iou": 1, "mse": 0}
    frozen = motion_scores(video([0] * FRAMES), SLIDING)
    assert [frozen[name] for name in SCORES[:3]] == [0, 0, 0]
    assert frozen["mse"] > 0.01
    assert motion_scores(video([3] * 4), video([3] * 4)) == perfect


def test_elsewhere_is_not_there_and_late_is_not_then() -> None:
    elsewhere = motion_scores(video([5 * t for t in range(FRAMES)], row=34), SLIDING)
    assert elsewhere["spatial_iou"] == 0
    back = motion_scores(SLIDING[::-1], SLIDING)
    assert back["spatial_iou"] > 0.9
    assert back["spatiotemporal_iou"] < 0.8


def test_scores_are_divided_by_what_another_take_reaches() -> None:
    raw = {"spatial_iou": 0.4, "spatiotemporal_iou": 0.9, "weighted_iou": 0.2, "mse": 0.02}
    repeat = {"spatial_iou": 0.8, "spatiotemporal_iou": 0.6, "weighted_iou": 0.5, "mse": 0.01}
    found = Agreement(raw, repeat)
    assert found.shares == pytest.approx(
        {"spatial_iou": 0.5, "spatiotemporal_iou": 1, "weighted_iou": 0.4, "mse": 0.5}
    )
    assert found.value == pytest.approx(0.6)
    assert found.original == pytest.approx(1.48 / 1.89)
    assert Agreement({**raw, "mse": 0.0}, repeat).shares["mse"] == 1


def test_another_take_is_as_good_as_the_truth_and_a_stopped_one_is_not() -> None:
    first, second, third = (perceived(SLIDING, NOISE, seed) for seed in range(3))
    assert motion_agreement(third, first, second).value > 0.97
    stopped = perceived(video([0, 5, 10, *[15] * 5]), NOISE, 3)
    assert motion_agreement(stopped, first, second).value < 0.7


def test_nothing_to_divide_by_is_said() -> None:
    with pytest.raises(NotApplicable, match="no other take"):
        motion_agreement(SLIDING, SLIDING, None)
    with pytest.raises(NotApplicable, match="equals the truth"):
        motion_agreement(SLIDING, SLIDING, SLIDING)
    with pytest.raises(NotApplicable, match="nothing in common"):
        motion_agreement(SLIDING, SLIDING, video([0] * FRAMES))


@pytest.mark.usefixtures("as_shipped")
def test_bad_videos_are_refused() -> None:
    with pytest.raises(NotApplicable, match="at least 3 frames"):
        motion_masks(SLIDING[:2])
    with pytest.raises(ValueError, match="beside a true one"):
        motion_scores(SLIDING[1:], SLIDING)
    bad = SLIDING.copy()
    bad[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        motion_scores(bad, SLIDING)
    with pytest.raises(ValueError, match="noise above 0"):
        perceived(SLIDING, 0.0, 0)


def test_the_metric_of_probes() -> None:
    truth = np.stack([disc(4, 12 + 3 * t) for t in range(FRAMES)])
    arm = still(disc(6, 20, 40))[:FRAMES]
    real = painted(truth, arm)
    frozen = np.repeat(real[:1], FRAMES, axis=0)
    good = compute("motion_agreement", [probe(real, real, truth, arm)], noise=NOISE)
    assert good.value == 1
    bad = compute("motion_agreement", [probe(frozen, real, truth, arm)], noise=NOISE)
    assert bad.value is not None
    assert bad.value < 0.1
    assert set(bad.details) == {*SCORES, "original", "noise"}


def test_a_simulator_that_repeats_exactly_is_seen_again_through_a_stated_noise() -> None:
    truth = np.stack([disc(4, 12 + 3 * t) for t in range(FRAMES)])
    arm = still(disc(6, 20, 40))[:FRAMES]
    real = painted(truth, arm)
    exact = probe(np.repeat(real[:1], FRAMES, axis=0), real, truth, arm)
    assert exact.pixel_noise == 0
    found = compute("motion_agreement", [exact])
    assert found.value == compute("motion_agreement", [exact], noise=PERCEPTION).value < 0.1
    assert found.details["noise"] == PERCEPTION == 2 / 255
    rough = dataclasses.replace(exact, pixel_noise=4.0)
    assert compute("motion_agreement", [exact, rough]).details["noise"] == 4 / 255
