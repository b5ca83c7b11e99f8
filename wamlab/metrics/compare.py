"""Runs held against each other on what they share: the same starts, the same states.

A difference is taken pair by pair and its interval resamples tasks, then pairs inside them ("such
tasks"). What only one run has played or answered is counted and left out. Where the interval holds
0 the runs cannot be told apart, and that is what is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from wamlab.metrics.base import compute
from wamlab.metrics.stats import Interval, alike, bootstrap, mcnemar
from wamlab.types import Episode, Probe

Values = Mapping[str, float]
"""One measure of one run: by item, of which the first part up to the last ``/`` names the task."""


@dataclass(frozen=True)
class Difference:
    """The ``first`` run less the ``second``, in ``unit``, over ``n`` pairs.

    ``only_first`` and ``only_second`` count items of one run alone. Of rates, ``won`` are the pairs
    that only the first and only the second solve, and ``p`` is McNemar's exact one.
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

    @property
    def better(self) -> str:
        """The run with the higher value, or nothing where the two cannot be told apart."""
        if self.value is None or self.interval is None:
            return ""
        if self.interval.low <= 0 <= self.interval.high:
            return ""
        return self.first if self.value > 0 else self.second


def differences(
    measure: str, unit: str, runs: Mapping[str, Values], *, rate: bool = False
) -> list[Difference]:
    """Every run less every later one; ``rate`` says that the values are 0 or 1."""
    return [
        difference(measure, unit, first, second, runs[first], runs[second], rate=rate)
        for first, second in combinations(runs, 2)
    ]


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
    """One run less another on the items that both have."""
    shared = sorted(ones.keys() & others.keys())
    tasks = [item.rpartition("/")[0] for item in shared]
    pairs = np.array([(ones[item], others[item]) for item in shared], float).reshape(-1, 2)
    weighed = np.array(
        [(a - b, 1 / tasks.count(t)) for (a, b), t in zip(pairs, tasks, strict=True)]
    )
    value = _weighed_mean(weighed) if shared else None
    interval = bootstrap(weighed, [tasks], statistic=_weighed_mean) if len(shared) > 1 else None
    won, p = None, None
    if rate and shared:
        won = int((pairs[:, 0] > pairs[:, 1]).sum()), int((pairs[:, 0] < pairs[:, 1]).sum())
        p = mcnemar(*won)
        if np.ptp(weighed[:, 0]) == 0:
            interval = alike(weighed[0, 0], len(shared))
    return Difference(
        measure,
        unit,
        first,
        second,
        value,
        interval,
        len(shared),
        len(ones) - len(shared),
        len(others) - len(shared),
        won,
        p,
    )


def success_values(episodes: Sequence[Episode]) -> Values:
    """Whether each start was solved at some step, by ``task/seed``."""
    return {f"{one.env}/{one.seed}": float(one.success_any) for one in episodes}


def state_values(measure: str, probes: Sequence[Probe], **options: str) -> Values:
    """A measure's value at each probed state, by ``task/seed-step``; empty where it has none."""
    return compute(measure, probes, **options).items


def _weighed_mean(rows: Float[np.ndarray, "n 2"]) -> float:
    """The mean of the first column, every task weighing the same."""
    return float((rows[:, 0] * rows[:, 1]).sum() / rows[:, 1].sum())
