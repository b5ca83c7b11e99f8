"""LPIPS and feature distances over probes: what they must catch, and what they cannot see."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pusher
import pytest
import torch

from wamlab.metrics.base import compute, names, state_name
from wamlab.metrics.features import Comparison
from wamlab.nn.lpips import LPIPS
from wamlab.types import Probe

pytestmark = pytest.mark.usefixtures("few_draws")

LPIPS_NAMES = ("lpips", "moving_lpips")
SETS = ("frechet_distance", "kernel_distance")
ENDLESS = "frechet_infinity"
PAIRS = ("feature_similarity", "feature_distance")
STATES, SAMPLES = 6, 2


class Cells:
    """Mean colours of 8 x 8 pixels: a real function of what is seen where, with 108 features."""

    name, resize, shortest = "cells", "not resized", 0

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        self.seen += len(frames)
        n, height, width, _ = frames.shape
        cells = frames.reshape(n, height // 8, 8, width // 8, 8, 3).mean(axis=(2, 4))
        return (cells / 255).reshape(n, -1)


class Clips(Cells):
    name, shortest = "clips", 2

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        flat = super().__call__(frames.reshape(-1, *frames.shape[2:]))
        return flat.reshape(len(frames), -1)


@pytest.fixture(scope="module")
def net() -> LPIPS:
    torch.manual_seed(0)
    net = LPIPS("alex")
    with torch.no_grad():
        for layer in net.layers:
            torch.nn.init.kaiming_normal_(layer.weight)
    return net.eval().requires_grad_(False)


def probes(fault: str, noise: float = 0.0) -> list[Probe]:
    return [pusher.probe(seed, fault, samples=SAMPLES, noise=noise) for seed in range(STATES)]


ORACLE, STILL, BLIND = (probes(fault) for fault in ("oracle", "static", "blind"))


def test_all_of_them_are_metrics():
    assert {*LPIPS_NAMES, *SETS, ENDLESS, *PAIRS, "acting_lpips"} <= {*names()}


@pytest.mark.parametrize("name", LPIPS_NAMES)
def test_lpips_is_0_for_the_truth_and_that_of_the_frame_now_for_a_still_future(name, net):
    right, still, wrong = (compute(name, one, net=net) for one in (ORACLE, STILL, BLIND))
    assert right.value == pytest.approx(0, abs=1e-6)
    assert still.value == pytest.approx(still.details["last frame"], rel=1e-4)
    assert right.details["last frame"] == pytest.approx(still.value, rel=0.1)
    assert still.interval.low > 10 * right.value
    assert wrong.interval.low > 10 * right.value
    assert right.metric == {"lpips": "LPIPS-alex", "moving_lpips": "moving-LPIPS-alex"}[name]
    assert right.details["frames"] == "48 x 48 pixels, not resized"
    assert set(right.items) == {state_name(probe) for probe in ORACLE}
    assert set(right.parts) == {"corner@8", "corner@16"}


def test_lpips_is_that_of_the_network_pair_by_pair(net):
    (probe,) = ORACLE[:1]
    still = STILL[0]
    found = compute("lpips", [still], net=net)
    values = []
    for branch in still.of("own"):
        sides = (branch.imagined["corner"], branch.happened["corner"])
        a, b = (torch.tensor(one / 127.5 - 1, dtype=torch.float32) for one in sides)
        values.append(net(a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2)).mean())
    assert found.value == pytest.approx(float(np.mean(values)), rel=1e-5)
    assert probe.now.keys() == {"corner"}


def test_moving_lpips_sees_less_of_noise_where_nothing_moves(net):
    """Less, not nothing: features reach beyond their places, far ones of a small frame over all."""
    spoilt = probes("oracle")
    rng = np.random.default_rng(0)
    for probe in spoilt:
        for branch in probe.of("own"):
            dream, now = branch.imagined["corner"], probe.now["corner"]
            still = np.abs(branch.happened["corner"] / 255 - now / 255).max(-1) < 0.01
            small = rng.integers(-8, 9, dream.shape)  # below the threshold of motion
            dream[:] = np.where(still[..., None], np.clip(dream + small, 0, 255), dream)
    whole, moving = (compute(name, spoilt, net=net).value for name in LPIPS_NAMES)
    assert whole > moving > 0


def test_frames_in_which_nothing_moves_are_left_out_and_counted(net):
    probe = pusher.probe(0, "static zero", samples=1, noise=0)
    result = compute("moving_lpips", [probe, ORACLE[0]], net=net)
    assert result.undefined == {"fewer than 10 such pixels in a frame": 2}
    assert result.n == 1
    alone = compute("moving_lpips", [probe], net=net)
    assert alone.why_not == "fewer than 10 such pixels in a frame (2)"


def test_missing_weights_and_frames_that_are_too_small_are_no_numbers(net):
    missing = compute("lpips", ORACLE)
    assert (missing.metric, missing.value) == ("lpips", None)
    assert "wam weights lpips-alex" in missing.why_not
    assert "BSD-2-Clause" in missing.why_not
    small = dataclasses.replace(ORACLE[0], now={"corner": ORACLE[0].now["corner"][:, :24, :24]})
    small.branches = [
        dataclasses.replace(
            branch,
            happened={"corner": branch.happened["corner"][:, :24, :24]},
            imagined={"corner": branch.imagined["corner"][:, :24, :24]},
        )
        for branch in small.of("own")
    ]
    assert "at least 31 x 31 pixels, got 24 x 24" in compute("lpips", [small], net=net).why_not


def test_what_was_imagined_while_acting_is_scored_up_to_the_next_plan(net):
    episode = pusher.episode(3)
    result = compute("acting_lpips", [episode], net=net)
    assert result.metric == "acting-LPIPS-alex"
    assert result.value == pytest.approx(0, abs=1e-6)
    assert result.details["last frame"] > 0.01
    early = [plan.step for plan in episode.replans]
    cut = dataclasses.replace(
        episode,
        replans=[
            *episode.replans[:1],
            dataclasses.replace(episode.replans[0], step=early[0] + 8, imagined=None),
        ],
    )
    assert set(compute("acting_lpips", [cut], net=net).parts or {"corner@8": 0}) == {"corner@8"}
    bare = dataclasses.replace(episode, frames={})
    assert "no frames of view 'corner'" in compute("acting_lpips", [bare], net=net).why_not
    plain = dataclasses.replace(episode, replans=[])
    assert "no plan of these episodes" in compute("acting_lpips", [plain], net=net).why_not


@pytest.mark.parametrize("name", SETS)
def test_sets_tell_a_still_future_from_the_truth_and_not_whose_future_it_is(name):
    right, still, wrong = (compute(name, one, extractor=Cells()) for one in (ORACLE, STILL, BLIND))
    assert right.value == pytest.approx(0, abs=1e-6)
    assert wrong.value == pytest.approx(0, abs=1e-6)  # the same frames, each for another action
    assert still.value > 1e-3
    assert still.value == pytest.approx(still.details["last frame"])
    assert isinstance(right, Comparison)
    frames = STATES * SAMPLES * 2
    assert (right.counts, right.size, right.details["states"]) == ((frames, frames), 108, STATES)
    assert right.details["frames"] == "48 x 48 pixels, not resized"


def test_few_frames_are_said_in_words():
    result = compute("frechet_distance", ORACLE, extractor=Cells())
    assert result.metric == "FD-cells"
    few = f"{STATES} states are not above D: the covariance is singular, 540 wanted"
    assert (result.n, result.warning) == (STATES * SAMPLES * 2, few)
    kernel = compute("kernel_distance", STILL, extractor=Cells())
    assert kernel.metric == "MMD-cubic-cells"
    assert kernel.details["blocks"] == 3
    few = compute("kernel_distance", ORACLE[:3], extractor=Cells())
    assert few.why_not == "3 states, expected 4 or more: two blocks of two"


@pytest.mark.parametrize(("name", "best"), [("feature_similarity", 1), ("feature_distance", 0)])
def test_pairs_also_tell_whose_future_it_is(name, best):
    right, still, wrong = (compute(name, one, extractor=Cells()) for one in (ORACLE, STILL, BLIND))
    assert right.value == pytest.approx(best, abs=1e-9)
    assert abs(wrong.value - best) > 1e-4
    assert abs(still.value - best) > abs(wrong.value - best)
    assert still.value == pytest.approx(still.details["last frame"])
    assert still.value in still.interval
    assert set(right.items) == {state_name(probe) for probe in ORACLE}


def test_each_frame_goes_through_the_network_once():
    cells = Cells()
    found = compute("feature_similarity", STILL, extractor=cells)
    distinct = {
        frame.tobytes()
        for probe in STILL
        for branch in probe.of("own")
        for frames in (branch.happened["corner"], branch.imagined["corner"], probe.now["corner"])
        for frame in frames
    }
    assert found.value is not None
    assert cells.seen == len(distinct)


def test_clips_are_read_whole_and_short_ones_are_no_number():
    result = compute("frechet_distance", STILL, extractor=Clips())
    assert result.counts == (STATES * SAMPLES,) * 2
    assert result.size == 216
    longer = Clips()
    longer.shortest = 10
    why = compute("frechet_distance", STILL, extractor=longer).why_not
    assert why == "clips reads clips of 10 frames or more; 2 were imagined"


def test_views_of_several_sizes_are_compared_one_at_a_time():
    probe = dataclasses.replace(STILL[0], now={**STILL[0].now, "far": STILL[0].now["corner"]})
    probe.now["far"] = probe.now["corner"][:, ::2, ::2]
    probe.branches = [
        dataclasses.replace(
            branch,
            happened={**branch.happened, "far": branch.happened["corner"][:, ::2, ::2]},
            imagined={**branch.imagined, "far": branch.imagined["corner"][:, ::2, ::2]},
        )
        for branch in probe.of("own")
    ]
    both = compute("frechet_distance", [probe], extractor=Cells())
    assert "frames of several shapes" in both.why_not
    assert both.why_not.endswith("give one view")
    far = compute("frechet_distance", [probe], extractor=Cells(), view="far")
    assert far.details["frames"] == "24 x 24 pixels, not resized"
    none = compute("frechet_distance", [probe], extractor=Cells(), view="near")
    assert none.why_not == "nothing was imagined of view 'near'"


def test_what_endless_samples_would_say_tells_a_still_future_from_the_truth():
    right, still = (compute(ENDLESS, one, extractor=Cells()) for one in (ORACLE, STILL))
    assert right.metric == "FD-infinity-cells"
    assert abs(right.value) < 0.2 * still.value  # of 24 frames it is an estimate
    assert still.value == pytest.approx(still.details["last frame"])
    assert still.counts == (STATES * SAMPLES * 2,) * 2
    assert "2 D = 216" in still.warning


@pytest.mark.parametrize("name", [*LPIPS_NAMES, *SETS, ENDLESS, *PAIRS])
def test_probes_without_frames_say_why(name, net):
    probe = pusher.probe(0)
    for branch in probe.branches:
        branch.imagined, branch.why_not = None, "the future is in feature space"
    options = {"net": net} if name in LPIPS_NAMES else {"extractor": Cells()}
    assert "the future is in feature space" in compute(name, [probe], **options).why_not


@pytest.mark.parametrize("name", [*LPIPS_NAMES, *SETS, ENDLESS, *PAIRS])
def test_frames_with_nan_are_an_error(name, net):
    probe = pusher.probe(0, samples=2)
    for branch in probe.of("own"):
        branch.imagined = {"corner": np.full(branch.imagined["corner"].shape, np.nan)}
    options = {"net": net} if name in LPIPS_NAMES else {"extractor": Cells()}
    said = "^toy/pusher/0-0: imagined frames of view 'corner' hold NaN or infinity$"
    with pytest.raises(ValueError, match=said):
        compute(name, [probe], **options)


def test_what_was_imagined_while_acting_with_nan_names_the_episode(net):
    episode = pusher.episode(3)
    plan = episode.replans[0]
    bad = {"corner": np.full(plan.imagined["corner"].shape, np.nan)}
    broken = dataclasses.replace(episode, replans=[dataclasses.replace(plan, imagined=bad)])
    said = f"^pusher/{episode.env}/3: imagined frames of view 'corner' hold NaN or infinity$"
    with pytest.raises(ValueError, match=said):
        compute("acting_lpips", [broken], net=net)


def test_the_published_networks_put_the_planted_faults_in_order(
    published: Callable[[str], None],
):
    published("lpips-alex")
    for name in LPIPS_NAMES:
        right, wrong, still = (compute(name, one).value for one in (ORACLE, BLIND, STILL))
        assert right < 1e-5 < 0.03 < wrong < still
    found = compute("frechet_distance", STILL)
    assert found.metric == "FD-AlexNet"
    assert found.size == 256
    assert found.value > 10
    far = [compute("feature_similarity", one).value for one in (ORACLE, BLIND, STILL)]
    assert far == sorted(far, reverse=True)


def test_without_weights_features_say_which_command_gets_them():
    found = compute("frechet_distance", ORACLE)
    assert "wam weights lpips-alex" in found.why_not
    assert (
        "no package ships DINOv2"
        in compute("feature_similarity", ORACLE, extractor="DINOv2").why_not
    )
