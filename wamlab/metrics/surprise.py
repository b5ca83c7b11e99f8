"""Surprise: how far what arrives is from what was imagined of it, while a policy acts.

A plan imagined frames at some offsets; those that lie before the next plan were imagined under the
actions that then were executed, and the others are not looked at. The surprise of a plan is the
root mean square difference of its last such frame from the one that arrived, over the pixels that
moved in reality or in the imagination since the plan, averaged over the views: 0 where nothing was
to move and nothing did.

A monitor says *alarm* where the mean of the last few surprises exceeds a threshold. Split conformal
calibration sets the threshold (Vovk et al. 2005; Angelopoulos and Bates, arXiv 2107.07511): of n
episodes that succeed, the ``ceil((n + 1)(1 - alpha))``-th smallest peak. A further episode of the
same kind that succeeds then raises the alarm with probability ``alpha`` at most. Nothing is
promised of failures: how many are caught, and how early, is measured.

Only what comes before the first success counts: afterwards there is nothing left to fail. Failures
run longer, and whoever is watched longer surprises more by chance alone. So a failure is held
against each success of its task as if it had ended at the time of that success; from noise that
is the same in both, AUROC is 0.5 and as many failures are caught as there are false alarms.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from wamlab.metrics.base import NotApplicable, Result, metric, rollout_name
from wamlab.metrics.stats import FEWEST, bootstrap, wilson
from wamlab.metrics.visual import MOVE_FLOOR, moved, unit
from wamlab.types import Episode, Frames, Replan

PLANS = 3
"""So many plans a monitor averages over: one bad frame is no alarm."""


class Surprise(NamedTuple):
    """How surprising the frames of one plan were, known once ``step`` actions were executed."""

    step: int
    value: float


@dataclass
class Monitor:
    """Watches one episode; ``push`` takes each plan's surprise and says whether to raise the alarm.

    ``threshold`` comes from `conformal_threshold`; ``plans`` surprises are averaged.
    """

    threshold: float
    plans: int = PLANS
    _last: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        if self.plans < 1:
            raise ValueError(f"a monitor averages over at least 1 plan, got {self.plans}")
        self._last = deque(maxlen=self.plans)

    @property
    def level(self) -> float:
        """The mean of the last surprises; 0 before any."""
        return float(np.mean(self._last)) if self._last else 0.0

    def push(self, surprise: float) -> bool:
        self._last.append(surprise)
        return self.level > self.threshold

    def reset(self) -> None:
        """Forget the episode."""
        self._last.clear()


def frame_surprise(imagined: Frames, arrived: Frames, planned_at: Frames) -> float:
    """How far one imagined frame of each view is from the one that arrived, in [0, 1].

    Args:
        imagined, arrived: (H, W, 3) by view; ``planned_at`` the frames that the plan saw.

    Raises:
        KeyError: a view that did not arrive.
        ValueError: frames with NaN, or outside their range.
    """
    values = []
    for view, shown in imagined.items():
        seen = {"imagined": shown, "arriving": arrived[view], "planned on": planned_at[view]}
        guess, came, before = (
            unit(frame, f"{what} frames of view {view!r}") for what, frame in seen.items()
        )
        moving = moved(came, before, MOVE_FLOOR) | moved(guess, before, MOVE_FLOOR)
        squared = ((guess - came) ** 2)[moving]
        values.append(math.sqrt(float(squared.mean())) if squared.size else 0.0)
    return float(np.mean(values))


@dataclass
class Watcher:
    """Holds what arrives against what was imagined of it, while an episode is under way.

    At every step give it the frames that `arrived`, then say so if a plan was made on seeing them:
    `planned` returns how surprising the plan before it was, None where it had imagined nothing up
    to here. `ended` does so for the last plan. A `Monitor` turns surprises into an alarm.
    """

    _plan: Replan | None = field(default=None, init=False)
    _planned_at: Frames = field(default_factory=dict, init=False)
    _last: tuple[int, int, Frames] | None = field(default=None, init=False)

    def arrived(self, step: int, frames: Frames) -> None:
        """The frames (H, W, 3) by view after ``step`` actions of the episode."""
        if self._plan is None or self._plan.imagined_offsets is None:
            return
        place = np.flatnonzero(self._plan.step + self._plan.imagined_offsets == step)
        if place.size:
            self._last = step, int(place[0]), frames

    def planned(self, plan: Replan, frames: Frames) -> Surprise | None:
        """A plan was made on seeing these frames: the surprise of the one before it."""
        found = self.ended()
        self._plan, self._planned_at = plan, frames
        return found

    def ended(self) -> Surprise | None:
        """The surprise of the plan under way, which goes no further."""
        last, plan = self._last, self._plan
        self._plan = self._last = None
        if plan is None or plan.imagined is None or last is None:
            return None
        step, place, came = last
        guess = {view: frames[place] for view, frames in plan.imagined.items()}
        try:
            return Surprise(step, frame_surprise(guess, came, self._planned_at))
        except ValueError as reason:
            raise ValueError(f"the plan of step {plan.step}: {reason}") from None


def surprises(episode: Episode, until: int | None = None) -> list[Surprise]:
    """The surprise of each plan of an episode up to its first success; none of a replay's.

    As if it had ended after ``until`` steps, where that is sooner. A plan that imagined nothing up
    to the next one is left out.
    """
    plans = {plan.step: plan for plan in episode.replans}
    views = {view for plan in episode.replans for view in plan.imagined or ()}
    last = _done(episode) if episode.success.any() else len(episode)
    last = last if until is None else min(last, until)
    watcher, found = Watcher(), []
    try:
        for step in range(last + 1 if views else 0):
            seen = {view: episode.frames[view][step] for view in views}
            watcher.arrived(step, seen)
            if step in plans:
                found.append(watcher.planned(plans[step], seen))
        found.append(watcher.ended())
    except ValueError as reason:
        raise ValueError(f"{rollout_name(episode)}: {reason}") from None
    return [one for one in found if one is not None]


def peak(found: Sequence[Surprise], plans: int = PLANS) -> float:
    """The highest level that a monitor reaches; 0 without a surprise."""
    monitor, levels = Monitor(math.inf, plans), [0.0]
    for one in found:
        monitor.push(one.value)
        levels.append(monitor.level)
    return max(levels)


def alarm(found: Sequence[Surprise], threshold: float, plans: int = PLANS) -> int | None:
    """After how many steps a monitor raises the alarm, or None."""
    monitor = Monitor(threshold, plans)
    return next((one.step for one in found if monitor.push(one.value)), None)


def conformal_threshold(peaks: Sequence[float], alpha: float = 0.1) -> float:
    """The level that a further successful episode exceeds with probability ``alpha`` at most.

    Raises:
        ValueError: ``alpha`` outside (0, 1), or fewer episodes than ``1 / alpha - 1``: no level
            that was seen is high enough.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, expected 0 < alpha < 1")
    rank = math.ceil((len(peaks) + 1) * (1 - alpha))
    if rank > len(peaks):
        least = math.ceil(1 / alpha) - 1
        raise ValueError(
            f"{len(peaks)} successful episodes cannot bound false alarms by {alpha:g}: it takes "
            f"at least {least}"
        )
    return float(np.sort(peaks)[rank - 1])


@metric("failure_auroc", needs="episodes")
def failure_auroc(episodes: Sequence[Episode], *, plans: int = PLANS) -> Result:
    """How well surprise tells failures from successes: 0.5 is chance, 1 perfect.

    An episode scores the highest level of its monitor. Pairs are of one task, and of the failure
    only the steps count that the success took; every task with both weighs by its pairs. The
    interval resamples failures and successes of every task. Where every draw is one, or fewer than
    `FEWEST` pairs share no episode, it is Wilson's of so many pairs: the variance of an AUROC is
    theirs at most (van Dantzig 1951).
    """
    won = [_won(*both, plans) for both in _by_task(episodes)]
    if not won:
        raise NotApplicable("no task has successes and failures with imagined frames logged")
    rows = np.array(
        [
            (task, failed, place)
            for task, pairs in enumerate(won)
            for failed, count in zip((True, False), pairs.shape, strict=True)
            for place in range(count)
        ]
    )

    def pooled(rows: Int[np.ndarray, "n 3"]) -> float:
        drawn = [_drawn(pairs, rows[rows[:, 0] == task]) for task, pairs in enumerate(won)]
        return float(sum(pairs.sum() for pairs in drawn) / sum(pairs.size for pairs in drawn))

    value, apart = pooled(rows), sum(min(pairs.shape) for pairs in won)
    interval = bootstrap(rows, [2 * rows[:, 0] + rows[:, 1]], statistic=pooled, keep_outer=True)
    if apart < FEWEST or interval.low == interval.high:
        interval = wilson(value * apart, apart)
    failures = int(rows[:, 1].sum())
    return Result(
        "failure_auroc",
        "",
        value=value,
        interval=interval,
        n=len(rows),
        details={"failures": failures, "successes": len(rows) - failures},
    )


@metric("alarms", needs="episodes", unit="rate")
def alarms(
    episodes: Sequence[Episode],
    *,
    calibration: Sequence[Episode] = (),
    alpha: float = 0.1,
    plans: int = PLANS,
) -> Result:
    """The share of failures that raise the alarm in the time that a success takes.

    The threshold comes from the successes of ``calibration``, which are none of ``episodes``, and
    whose surprises are known. A failure is held against each of those of its task, and counts by
    the share of them in whose time it raises the alarm; shares spread no more than outcomes do, so
    that Wilson's interval is wide enough. ``details``: ``threshold``, of how many successes
    (``calibration``), ``false`` alarms (the share of successes), and ``lead``, the median number of
    steps from such an alarm to the end of the failure.
    """
    threshold, times = _calibrated(calibration, alpha, plans)
    raised, shares, leads, unmatched = [], [], [], 0
    for one in episodes:
        if one.success_at_reset or not (found := surprises(one)):
            continue
        if one.success_any:
            raised.append(alarm(found, threshold, plans) is not None)
        elif one.env not in times:
            unmatched += 1
        else:
            known = {t: alarm(surprises(one, t), threshold, plans) for t in {*times[one.env]}}
            shares.append(float(np.mean([known[t] is not None for t in times[one.env]])))
            if early := [step for step in known.values() if step is not None]:
                leads.append(len(one) - min(early))
    if not shares:
        raise NotApplicable("no failure of a calibrated task has imagined frames logged")
    return Result(
        "alarms",
        "rate",
        value=float(np.mean(shares)),
        interval=wilson(sum(shares), len(shares)),
        n=len(shares),
        undefined={"no success of its task to calibrate on": unmatched} if unmatched else {},
        details={
            "threshold": threshold,
            "calibration": sum(map(len, times.values())),
            "false": float(np.mean(raised)) if raised else None,
            "successes": len(raised),
            "lead": float(np.median(leads)) if leads else None,
        },
    )


def _done(episode: Episode) -> int:
    """Executed steps to the first success."""
    return int(episode.success.argmax()) + 1


def _calibrated(
    calibration: Sequence[Episode], alpha: float, plans: int
) -> tuple[float, dict[str, list[int]]]:
    """The threshold of an alarm, and the times of the successes that it is of, by task.

    Raises:
        NotApplicable: successes whose surprises are known are too few, or there are none.
    """
    calm = [(one, found) for one in calibration if one.success_any and (found := surprises(one))]
    if not calm:
        raise NotApplicable("no success to calibrate on has imagined frames logged")
    try:
        threshold = conformal_threshold([peak(found, plans) for _, found in calm], alpha)
    except ValueError as reason:
        raise NotApplicable(str(reason)) from None
    times: dict[str, list[int]] = {}
    for one, _ in calm:
        times.setdefault(one.env, []).append(_done(one))
    return threshold, times


def _by_task(episodes: Sequence[Episode]) -> Iterator[tuple[list[Episode], list[Episode]]]:
    """Failures and successes of every task that has both, with imagined frames logged."""
    tasks: dict[str, tuple[list[Episode], list[Episode]]] = {}
    for one in episodes:
        if not one.success_at_reset and any(plan.imagined for plan in one.replans) and one.frames:
            tasks.setdefault(one.env, ([], []))[one.success_any].append(one)
    yield from (
        (failures, successes) for failures, successes in tasks.values() if failures and successes
    )


def _won(
    failures: Sequence[Episode], successes: Sequence[Episode], plans: int
) -> Float[np.ndarray, "f s"]:
    """1 where the failure scores higher within the success's own time, 0.5 where as high."""
    times = [_done(one) for one in successes]
    theirs = np.array([peak(surprises(one), plans) for one in successes])
    own = np.empty((len(failures), len(times)))
    for row, one in zip(own, failures, strict=True):
        known = {time: peak(surprises(one, time), plans) for time in {*times}}
        row[:] = [known[time] for time in times]
    return (own > theirs) + (own == theirs) / 2


def _drawn(
    pairs: Float[np.ndarray, "f s"], rows: Int[np.ndarray, "n 3"]
) -> Float[np.ndarray, "f s"]:
    """The pairs of a task's drawn rows: task, whether it failed, and place among its kind."""
    failures, successes = (rows[rows[:, 1] == failed, 2] for failed in (1, 0))
    return pairs[np.ix_(failures, successes)]
