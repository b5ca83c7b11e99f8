"""Surprise and its monitor on a square that moves a pixel a step, or gets stuck unforeseen."""

from __future__ import annotations

import numpy as np
import pytest

from wamlab.metrics.base import compute
from wamlab.metrics.stats import wilson
from wamlab.metrics.surprise import (
    Monitor,
    Surprise,
    Watcher,
    alarm,
    conformal_threshold,
    frame_surprise,
    peak,
    surprises,
)
from wamlab.types import Episode, Replan

SIZE, EVERY = 32, 4
DARK, BRIGHT = 51, 255
STEP = (BRIGHT - DARK) / 255


def picture(x: int, size: int = SIZE) -> np.ndarray:
    frame = np.full((12, size, 3), DARK, np.uint8)
    frame[8:12, x : x + 4] = BRIGHT
    return frame


def episode(
    seed: int,
    *,
    stuck: int | None = None,
    solved: int | None = 12,
    steps: int = 20,
    env: str = "slide",
    size: int = SIZE,
) -> Episode:
    """The square is imagined to move on; from step ``stuck`` it does not."""
    place = [min(t, steps if stuck is None else stuck) for t in range(steps + 1)]
    replans = [
        Replan(
            step=t,
            reason="",
            imagined={"corner": np.stack([picture(place[t] + ahead, size) for ahead in (4, 8)])},
            imagined_offsets=np.array([4, 8]),
        )
        for t in range(0, steps, EVERY)
    ]
    success = np.zeros(steps, bool)
    if solved is not None:
        success[solved - 1 :] = True
    frames = {"corner": np.stack([picture(x, size) for x in place])}
    state = np.zeros((steps + 1, 1), np.float32)
    action = np.zeros((steps, 1), np.float32)
    return Episode(env, "", seed, frames, state, action, success, replans=replans)


def test_only_frames_before_the_next_plan_and_the_first_success_are_compared() -> None:
    """Plans at 0, 4, 8; that of 12 begins when the task is solved."""
    assert surprises(episode(0)) == [Surprise(4, 0.0), Surprise(8, 0.0), Surprise(12, 0.0)]
    assert len(surprises(episode(0, solved=None))) == 5
    assert [one.step for one in surprises(episode(0, solved=10))] == [4, 8]


def test_an_episode_under_way_is_watched_as_its_log_is_read() -> None:
    one = episode(0, stuck=6, solved=None)
    watcher, live = Watcher(), []
    plans = {plan.step: plan for plan in one.replans}
    for step, frame in enumerate(one.frames["corner"]):
        watcher.arrived(step, {"corner": frame})
        if step in plans:
            live.append((step, watcher.planned(plans[step], {"corner": frame})))
    assert live[0] == (0, None)
    assert [found for _, found in live[1:]] == surprises(one)[:-1]
    assert all(found.step == step for step, found in live[1:])
    assert watcher.ended() == surprises(one)[-1]
    assert watcher.ended() is None


def test_surprise_is_the_difference_over_what_moved() -> None:
    """Imagined 4 to the right, stayed: both squares' 16 pixels moved in the imagination."""
    still, on = {"corner": picture(5)}, {"corner": picture(9)}
    assert frame_surprise(on, still, still) == pytest.approx(STEP)
    assert frame_surprise(still, still, still) == 0
    assert frame_surprise(on, on, still) == 0
    half = {"corner": (picture(5) // 2 + picture(9) // 2)}
    assert 0 < frame_surprise(half, on, still) < STEP
    two = frame_surprise(
        {**on, "side": picture(5)}, {**still, "side": picture(5)}, {**still, "side": picture(5)}
    )
    assert two == pytest.approx(STEP / 2)


def test_what_gets_stuck_surprises_from_then_on() -> None:
    found = surprises(episode(0, stuck=6, solved=None))
    assert [one.value > 0.1 for one in found] == [False, True, True, True, True]
    assert found[2].value == pytest.approx(STEP)


def test_a_monitor_averages_and_forgets() -> None:
    monitor = Monitor(0.5, plans=2)
    assert [monitor.push(x) for x in (0.8, 0.1, 0.9, 0.3)] == [True, False, False, True]
    monitor.reset()
    assert monitor.level == 0
    assert not monitor.push(0.5)
    with pytest.raises(ValueError, match="at least 1 plan, got 0"):
        Monitor(0.5, plans=0)


def test_peak_and_alarm_are_what_the_monitor_does() -> None:
    found = [Surprise(4, 0.0), Surprise(8, 0.3), Surprise(12, 0.9)]
    assert peak(found, plans=3) == pytest.approx(0.4)
    assert alarm(found, 0.35, plans=3) == 12
    assert alarm(found, 0.1, plans=1) == 8
    assert alarm(found, 0.4 + 1e-9, plans=3) is None
    assert peak([]) == 0


def test_the_conformal_level_keeps_its_promise() -> None:
    """Of a further success the chance to exceed it is at most alpha, over many calibrations."""
    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(4000, 20))
    over = [fresh > conformal_threshold(calm, 0.2) for *calm, fresh in draws]
    assert 0.17 < np.mean(over) <= 0.2 + 2 * (0.16 / 4000) ** 0.5
    assert conformal_threshold([3.0, 1.0, 2.0], 0.25) == 3.0
    assert conformal_threshold(range(1, 20), 0.1) == 18
    with pytest.raises(ValueError, match=r"8 successful episodes .* by 0.1: it takes at least 9"):
        conformal_threshold(range(8), 0.1)
    with pytest.raises(ValueError, match="alpha is 1"):
        conformal_threshold(range(8), 1)


def test_an_episode_can_be_cut_where_another_was_solved() -> None:
    """Also in the middle of a plan, of which then an earlier frame is the last that arrived."""
    endless = episode(0, stuck=6, solved=None)
    for until in range(1, 20):
        assert surprises(endless, until) == surprises(episode(0, stuck=6, solved=until))
    assert surprises(endless, 100) == surprises(endless)
    assert surprises(episode(0, solved=8), 12) == surprises(episode(0, solved=8))


def test_failures_that_surprise_are_told_from_successes() -> None:
    """Four pairs share no episode: of all told apart it is Wilson's of 4 of 4."""
    good = [episode(seed) for seed in range(6)]
    bad = [episode(seed, stuck=6, solved=None) for seed in range(10, 14)]
    found = compute("failure_auroc", good + bad)
    assert found.value == 1
    assert found.interval == wilson(4, 4)
    assert found.details == {"failures": 4, "successes": 6}
    calm = [episode(seed, solved=None) for seed in range(10, 14)]
    assert compute("failure_auroc", good + calm).interval == wilson(2, 4)


def test_auroc_is_over_pairs_and_resamples_episodes() -> None:
    """Half of ten failures surprise, none of ten successes does: the others tie."""
    good = [episode(seed) for seed in range(10)]
    bad = [episode(s, stuck=6 if s % 2 else None, solved=None) for s in range(10, 20)]
    found = compute("failure_auroc", good + bad)
    assert found.value == 0.75
    assert found.interval == pytest.approx((0.75 - 0.155, 0.75 + 0.155), abs=0.05)


def test_failing_late_without_surprise_is_no_easier_for_lasting_longer() -> None:
    """It gets stuck after the time in which others are done: nothing before tells it apart."""
    late = [episode(seed, stuck=13, solved=None) for seed in range(10, 14)]
    assert compute("failure_auroc", [episode(s) for s in range(6)] + late).value == 0.5


def test_what_surprises_alike_is_not_told_apart_by_when_it_ends() -> None:
    """All get stuck at once; a success that is done soon has less time to surprise than most."""
    good = [episode(i, stuck=6, solved=4 * i + 4) for i in range(5)]
    bad = [episode(seed, stuck=6, solved=None) for seed in range(10, 14)]
    assert compute("failure_auroc", good + bad).value == 0.5


def test_pairs_are_of_one_task() -> None:
    """A task without failures adds nothing, however calm it is."""
    bad = [episode(seed, stuck=6, solved=None) for seed in range(3)]
    other = [episode(seed, env="glide") for seed in range(3)]
    assert "no task has successes and failures" in compute("failure_auroc", bad + other).why_not


def test_alarms_have_a_rate_a_price_and_a_lead() -> None:
    calm = [episode(seed) for seed in range(9)]
    bad = [episode(seed, stuck=6, solved=None) for seed in range(3)]
    bad.append(episode(9, solved=None))
    found = compute("alarms", [*bad, episode(20)], calibration=calm)
    assert found.value == 0.75
    assert found.interval == wilson(3, 4)
    assert found.details["threshold"] == 0
    assert found.details["calibration"] == 9
    assert found.details["false"] == 0
    assert found.details["lead"] == 12
    every = compute("alarms", bad[:3], calibration=calm)
    assert (every.value, every.interval) == (1, wilson(3, 3))
    few = compute("alarms", bad, calibration=calm[:5])
    assert "5 successful episodes cannot bound" in few.why_not
    assert "no failure" in compute("alarms", calm, calibration=calm).why_not


def test_a_failure_is_caught_in_the_time_that_a_success_takes() -> None:
    """It surprises from step 8, after 3 of 9 calibrated successes, or after all of them."""
    calm = [episode(seed, solved=4 if seed < 3 else 12) for seed in range(9)]
    soon = [episode(seed, stuck=6, solved=None) for seed in range(2)]
    late = [episode(seed, stuck=13, solved=None) for seed in range(2, 4)]
    found = compute("alarms", soon + late, calibration=calm)
    assert found.value == pytest.approx((2 * 6 / 9 + 0) / 4)
    assert found.interval == wilson(12 / 9, 4)
    assert found.details["lead"] == 12
    assert compute("alarms", late, calibration=calm).details["lead"] is None


def noisy(seed: int, solved: int | None, steps: int) -> Episode:
    """Every frame is as far from what was imagined as chance will have it."""
    rng = np.random.default_rng(seed)
    one = episode(seed, solved=solved, steps=steps, size=steps + 16)
    for plan in one.replans:
        shown = plan.imagined["corner"].astype(int)  # type: ignore[index]
        shown[:, 8:12] += rng.integers(-50, 0, (len(shown), 1, 1, 1))
        plan.imagined = {"corner": np.clip(shown, 0, 255).astype(np.uint8)}
    return one


def test_pure_noise_catches_as_many_failures_as_it_raises_false_alarms() -> None:
    """Successes of 12 to 60 steps, failures of 100: watched to their end more would be caught."""
    calm, good = (
        [noisy(first + i, (12, 36, 60)[i % 3], 60) for i in range(45)] for first in (0, 100)
    )
    bad = [noisy(seed, None, 100) for seed in range(200, 230)]
    found = compute("alarms", good + bad, calibration=calm, alpha=0.2)
    assert found.value == pytest.approx(0.2, abs=0.1)
    assert found.value == pytest.approx(found.details["false"], abs=0.1)
    ever = [alarm(surprises(one), found.details["threshold"]) is not None for one in bad]
    assert np.mean(ever) > found.value + 0.1
    auroc = compute("failure_auroc", good + bad)
    assert auroc.value == pytest.approx(0.5, abs=0.05)


def test_successes_whose_frames_were_not_kept_calibrate_nothing() -> None:
    calm = [episode(seed) for seed in range(9)]
    bad = [episode(seed, stuck=6, solved=None) for seed in range(3)]
    forgotten = [episode(seed) for seed in range(9, 20)]
    for one in forgotten:
        one.replans = []
    found = compute("alarms", bad, calibration=[*calm, *forgotten])
    assert found.details["calibration"] == 9
    assert "8 successful episodes cannot bound" in (
        compute("alarms", bad, calibration=[*calm[:8], *forgotten]).why_not
    )
    none = "no success to calibrate on has imagined frames logged"
    assert compute("alarms", bad, calibration=forgotten).why_not == none
    assert compute("alarms", bad).why_not == none


def test_a_failure_of_a_task_without_a_calibrated_success_is_left_out() -> None:
    calm = [episode(seed) for seed in range(9)]
    bad = [episode(seed, stuck=6, solved=None) for seed in range(3)]
    other = episode(3, stuck=6, solved=None, env="glide")
    found = compute("alarms", [*bad, other], calibration=calm)
    assert (found.n, found.undefined) == (3, {"no success of its task to calibrate on": 1})
    assert "no failure of a calibrated task" in compute("alarms", [other], calibration=calm).why_not


def test_an_episode_without_imagination_or_frames_says_nothing() -> None:
    one = episode(0)
    for plan in one.replans:
        plan.imagined = None
    assert surprises(one) == []
    one.replans = []
    assert surprises(one) == []
    assert "imagined frames logged" in compute("failure_auroc", [one]).why_not
