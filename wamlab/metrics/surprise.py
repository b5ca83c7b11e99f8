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

Only what comes before the first success counts: afterwards there is nothing left to fail.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from wamlab.metrics.base import NotApplicable, Result, metric
from wamlab.metrics.stats import bootstrap
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
        guess, came, before = (
            unit(frame, view) for frame in (shown, arrived[view], planned_at[view])
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
        return Surprise(step, frame_surprise(guess, came, self._planned_at))


def surprises(episode: Episode) -> list[Surprise]:
    """The surprise of each plan of an episode up to its first success; none of a replay's.

    A plan that imagined nothing up to the next one is left out.
    """
    plans = {plan.step: plan for plan in episode.replans}
    views = {view for plan in episode.replans for view in plan.imagined or ()}
    solved = episode.success.argmax() + 1 if episode.success.any() else len(episode)
    watcher, found = Watcher(), []
    for step in range(solved + 1 if views else 0):
        seen = {view: episode.frames[view][step] for view in views}
        watcher.arrived(step, seen)
        if step in plans:
            found.append(watcher.planned(plans[step], seen))
    found.append(watcher.ended())
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


def auroc(failures: Sequence[float], successes: Sequence[float]) -> float:
    """The probability that a failure scores above a success, ties counting half.

    Raises:
        ValueError: one of the two is empty.
    """
    if not len(failures) or not len(successes):
        raise ValueError("AUROC takes failures and successes")
    above = np.asarray(failures, float)[:, None] - np.asarray(successes, float)
    return float((above > 0).mean() + (above == 0).mean() / 2)


@metric("failure_auroc", needs="episodes")
def failure_auroc(episodes: Sequence[Episode], *, plans: int = PLANS) -> Result:
    """How well surprise tells failures from successes: 0.5 is chance, 1 perfect.

    An episode scores the highest level of its monitor. Failures run longer and so would score
    higher by chance alone: of every episode only the steps count within which half of its task's
    successes are done. Pairs are of one task; every task with both weighs by its pairs. The
    interval resamples failures and successes of every task.
    """
    rows = np.array(list(_scores(episodes, plans)), float).reshape(-1, 3)
    if not len(rows):
        raise NotApplicable("no task has successes and failures with imagined frames logged")
    value = _pooled_auroc(rows)
    failures = int(rows[:, 1].sum())
    return Result(
        "failure_auroc",
        "",
        value=value,
        interval=bootstrap(
            rows, [2 * rows[:, 0] + rows[:, 1]], statistic=_pooled_auroc, keep_outer=True
        ),
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
    """The share of failures that raise the alarm before they end.

    The threshold comes from the successes of ``calibration``, which are none of ``episodes``.
    ``details``: ``threshold``, ``false`` alarms (the share of successes), and ``lead``, the median
    number of steps from the alarm to the end of a failure that raised it.
    """
    calm = [peak(surprises(one), plans) for one in calibration if one.success_any]
    try:
        threshold = conformal_threshold(calm, alpha)
    except ValueError as reason:
        raise NotApplicable(str(reason)) from None
    raised: dict[bool, list[int | None]] = {True: [], False: []}
    for one in episodes:
        if found := surprises(one):
            step = alarm(found, threshold, plans)
            raised[one.success_any].append(None if step is None else len(one) - step)
    failures, successes = raised[False], raised[True]
    if not failures:
        raise NotApplicable("no failure has imagined frames logged")
    caught = np.array([step is not None for step in failures], float)
    leads = [step for step in failures if step is not None]
    return Result(
        "alarms",
        "rate",
        value=float(caught.mean()),
        interval=bootstrap(caught) if len(caught) > 1 else None,
        n=len(failures),
        details={
            "threshold": threshold,
            "false": float(np.mean([s is not None for s in successes])) if successes else None,
            "successes": len(successes),
            "lead": float(np.median(leads)) if leads else None,
        },
    )


def _scores(episodes: Sequence[Episode], plans: int) -> Iterator[tuple[int, bool, float]]:
    """Task number, whether it failed, and score, of the tasks that have failures and successes."""
    tasks: dict[str, list[Episode]] = {}
    for one in episodes:
        if not one.success_at_reset and any(plan.imagined for plan in one.replans) and one.frames:
            tasks.setdefault(one.env, []).append(one)
    for number, group in enumerate(tasks.values()):
        times = [one.success.argmax() + 1 for one in group if one.success_any]
        if times and len(times) < len(group):
            until = float(np.median(times))
            for one in group:
                early = [found for found in surprises(one) if found.step <= until]
                yield number, not one.success_any, peak(early, plans)


def _pooled_auroc(rows: Float[np.ndarray, "n 3"]) -> float:
    """Over pairs of one task; NaN where a draw left none."""
    won, pairs = 0.0, 0
    for task in np.unique(rows[:, 0]):
        mine = rows[rows[:, 0] == task]
        failures, successes = mine[mine[:, 1] == 1, 2], mine[mine[:, 1] == 0, 2]
        if failures.size and successes.size:
            won += auroc(failures, successes) * failures.size * successes.size
            pairs += failures.size * successes.size
    return won / pairs if pairs else float("nan")
