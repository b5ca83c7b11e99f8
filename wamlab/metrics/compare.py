"""Runs held against each other on what they share: the same starts, states or recorded instants.

A difference is taken pair by pair and its interval resamples tasks, then pairs inside them ("such
tasks"). What only one run has played or answered is counted and left out. Where the interval holds
0, fewer than `FEWEST` pairs are shared, or an exact test of the pairs does not reject (McNemar's of
rates, `swap_test` of the others; by Holm over all pairs of runs), the runs cannot be told apart,
and that is what is said. Futures are compared at the offsets that all runs imagine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Float

from wamlab.metrics.base import Result, Sides
from wamlab.metrics.open_loop import episode_name
from wamlab.metrics.over_states import score
from wamlab.metrics.stats import (
    LEVEL,
    Interval,
    alike,
    holm,
    interval_over,
    mcnemar,
    swap_test,
)
from wamlab.types import Episode, Recording

Values = Mapping[str, float]
"""One measure of one run: by item, of which the first part up to the last ``/`` names the task."""


@dataclass(frozen=True)
class Difference:
    """The ``first`` run less the ``second``, in ``unit``, over ``n`` pairs.

    ``paired`` says what a pair is of. ``only_first`` and ``only_second`` count items of one run
    alone. Of rates, ``won`` are the pairs that only the first and only the second solve. ``p`` is
    McNemar's of rates and that of `swap_test` of the others, and ``adjusted`` is it by Holm over
    the pairs of runs that were compared.
    """

    measure: str
    unit: str
    first: str
    second: str
    value: float | None
    interval: Interval | None
    n: int
    only_first: int
    only_second: int
    won: tuple[int, int] | None = None
    p: float | None = None
    adjusted: float | None = None
    paired: str = "state"

    @property
    def higher(self) -> str:
        """The run with the higher value, or nothing where the two cannot be told apart."""
        if self.value is None or self.interval is None:
            return ""
        if self.interval.low <= 0 <= self.interval.high:
            return ""
        p = self.p if self.adjusted is None else self.adjusted
        if p is not None and p > 1 - LEVEL:
            return ""
        return self.first if self.value > 0 else self.second


def differences(
    measure: str, unit: str, runs: Mapping[str, Values], *, rate: bool = False
) -> list[Difference]:
    """Every run less every later one; ``rate`` says that the values are 0 or 1."""
    found = [
        difference(measure, unit, first, second, runs[first], runs[second], rate=rate)
        for first, second in combinations(runs, 2)
    ]
    return by_holm(found)


def by_holm(found: Sequence[Difference]) -> list[Difference]:
    """The differences of one measure between several pairs of runs, with adjusted p."""
    adjusted = iter(holm([one.p for one in found if one.p is not None]))
    return [one if one.p is None else replace(one, adjusted=next(adjusted)) for one in found]


def difference(
    measure: str,
    unit: str,
    first: str,
    second: str,
    ones: Values,
    others: Values,
    *,
    rate: bool = False,
) -> Difference:
    """One run less another on the items that both have, every task weighing the same."""
    shared = _shared(ones, others)
    tasks = _tasks(shared)
    apart = [ones[item] - others[item] for item in shared]
    rows = [(by, 1 / tasks.count(task)) for by, task in zip(apart, tasks, strict=True)]
    found = _held(
        measure, unit, first, second, ones, others, np.array(rows), _weighed_mean, _other_sign
    )
    if not rate or not shared:
        return found
    won = sum(by > 0 for by in apart), sum(by < 0 for by in apart)
    interval = found.interval
    if interval is not None and np.ptp(apart) == 0:
        interval = alike(apart[0], len(shared))
    return replace(found, interval=interval, won=won, p=mcnemar(*won), paired="start")


def state_differences(measure: str, unit: str, results: Mapping[str, Result]) -> list[Difference]:
    """One measure of probes: every run less every later one, of the states that both have.

    Of a ratio of sums over states it is a ratio of sums again, and not the mean of single states'
    ratios, in which a state where next to nothing happens weighs as much as any. A run without a
    value is left out.
    """
    known = {run: one for run, one in results.items() if one.value is not None}
    found = []
    for first, second in combinations(known, 2):
        one, other = known[first], known[second]
        if one.sides and other.sides:
            found.append(ratio_difference(measure, unit, first, second, one.sides, other.sides))
        else:
            found.append(difference(measure, unit, first, second, one.items, other.items))
    return by_holm(found)


def ratio_difference(
    measure: str, unit: str, first: str, second: str, ones: Sides, others: Sides
) -> Difference:
    """The difference of one less a ratio of sums, over the states that both have."""
    rows = [(*ones[item], *others[item]) for item in _shared(ones, others)]
    return _held(
        measure, unit, first, second, ones, others, np.array(rows), _scores_apart, _other_run
    )


def recorded_differences(
    measure: str,
    unit: str,
    runs: Mapping[str, Sequence[Recording]],
    measured: Callable[[Sequence[Recording]], Result],
) -> list[Difference]:
    """One measure of recordings: every run less every later one, of the instants that both have.

    Instants are averaged in their episodes, and episodes are the pairs. A run that has no value at
    these instants is left out.
    """
    found = []
    for first, second in combinations(runs, 2):
        sides = at_shared_instants(runs[first], runs[second])
        ones, others = (_by_episode(side, measured(side)) for side in sides)
        if ones and others:
            one = difference(measure, unit, first, second, ones, others)
            alone = [len(_episodes(runs[run])) - one.n for run in (first, second)]
            found.append(replace(one, paired="episode", only_first=alone[0], only_second=alone[1]))
    return by_holm(found)


def success_values(episodes: Sequence[Episode]) -> Values:
    """Whether each start was solved at some step, by ``task/seed``."""
    return {f"{one.env}/{one.seed}": float(one.success_any) for one in episodes}


def at_shared_instants(
    ones: Sequence[Recording], others: Sequence[Recording]
) -> tuple[list[Recording], list[Recording]]:
    """The recordings of the instants that both have.

    Two datasets may number their episodes alike: an instant is the same where the same was done.
    """
    there = {_instant(other): other for other in others}
    pairs = [(one, there[_instant(one)]) for one in ones if _instant(one) in there]
    same = [(one, other) for one, other in pairs if _did_the_same(one, other)]
    return [one for one, _ in same], [other for _, other in same]


def _held(
    measure: str,
    unit: str,
    first: str,
    second: str,
    ones: Mapping[str, object],
    others: Mapping[str, object],
    rows: np.ndarray,
    statistic: Callable[[np.ndarray], float],
    swap: Callable[[np.ndarray], np.ndarray],
) -> Difference:
    """A statistic of rows, one for each shared item, as a difference; see `swap_test`."""
    shared = _shared(ones, others)
    value = statistic(rows) if shared else float("nan")
    known = bool(np.isfinite(value))
    interval = interval_over(rows, [_tasks(shared)], statistic=statistic) if known else None
    return Difference(
        measure,
        unit,
        first,
        second,
        value if known else None,
        interval,
        len(shared),
        len(ones) - len(shared),
        len(others) - len(shared),
        p=swap_test(rows, swap, statistic) if known else None,
    )


def _instant(one: Recording) -> tuple[str, str, int, int]:
    return one.env, one.instruction, one.episode, one.step


def _did_the_same(one: Recording, other: Recording) -> bool:
    steps = min(len(one.action), len(other.action))
    return np.array_equal(one.action[:steps], other.action[:steps])


def _episodes(recordings: Sequence[Recording]) -> set[tuple[str, int]]:
    return {(one.env, one.episode) for one in recordings}


def _by_episode(recordings: Sequence[Recording], found: Result) -> Values:
    """A measure's items with the name of their task."""
    tasks = {episode_name(one): one.env for one in recordings}
    return {f"{tasks[item]}/{item}": value for item, value in found.items.items()}


def _shared(ones: Mapping[str, object], others: Mapping[str, object]) -> list[str]:
    return sorted(ones.keys() & others.keys())


def _tasks(items: Sequence[str]) -> list[str]:
    return [item.rpartition("/")[0] for item in items]


def _weighed_mean(rows: Float[np.ndarray, "n 2"]) -> float:
    """The mean of the first column, every task weighing the same."""
    return float((rows[:, 0] * rows[:, 1]).sum() / rows[:, 1].sum())


def _other_sign(rows: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    return rows * [-1, 1]


def _other_run(rows: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    return rows[:, [2, 3, 0, 1]]


def _scores_apart(rows: Float[np.ndarray, "n 4"]) -> float:
    return score(rows[:, :2]) - score(rows[:, 2:])
