"""Intervals and tests: one rate, two rates, pairs, and clusters of tasks, seeds or states."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

LEVEL = 0.95
DRAWS = 1000


class Interval(NamedTuple):
    """Two ends, the lower first."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


def wilson(successes: int, n: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a rate (Wilson 1927)."""
    _check_counts(successes, n)
    z, rate = NormalDist().inv_cdf(0.5 + level / 2), successes / n
    middle = rate + z**2 / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    low, high = ((middle + side * half) / (1 + z**2 / n) for side in (-1, 1))
    return Interval(0.0 if successes == 0 else low, 1.0 if successes == n else high)


def clopper_pearson(successes: int, n: int, level: float = LEVEL) -> Interval:
    """The exact interval of a rate, never too short (Clopper and Pearson 1934)."""
    _check_counts(successes, n)
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else _beta_quantile(float(successes), n - successes + 1.0, tail)
    high = (
        1.0 if successes == n else _beta_quantile(successes + 1.0, float(n - successes), 1 - tail)
    )
    return Interval(low, high)


def jeffreys(successes: int, n: int, level: float = LEVEL) -> Interval:
    """The Bayesian interval of a rate under Jeffreys' prior, 0 and 1 at the ends."""
    _check_counts(successes, n)
    tail, a, b = (1 - level) / 2, successes + 0.5, n - successes + 0.5
    low = 0.0 if successes == 0 else _beta_quantile(a, b, tail)
    high = 1.0 if successes == n else _beta_quantile(a, b, 1 - tail)
    return Interval(low, high)


def newcombe(first: tuple[int, int], second: tuple[int, int], level: float = LEVEL) -> Interval:
    """The interval of the difference of two unpaired rates, each given as (successes, n).

    Newcombe 1998, method 10: the two Wilson intervals, joined.
    """
    (low_a, high_a), (low_b, high_b) = wilson(*first, level), wilson(*second, level)
    a, b = first[0] / first[1], second[0] / second[1]
    down = math.hypot(a - low_a, high_b - b)
    up = math.hypot(high_a - a, b - low_b)
    return Interval(a - b - down, a - b + up)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test from its discordant pairs."""
    n = only_first + only_second
    if min(only_first, only_second) < 0:
        raise ValueError(f"discordant pairs are counts, got {only_first} and {only_second}")
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def bootstrap(
    rows: Shaped[np.ndarray, "n *rest"],
    clusters: Sequence[Any] = (),
    *,
    statistic: Callable[[np.ndarray], float] = lambda rows: float(np.mean(rows)),
    keep_outer: bool = False,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Percentile interval of ``statistic`` over resampled rows.

    ``clusters`` are labels of each row, the outermost first (task, then training seed): clusters
    are drawn, then clusters inside them, then rows. ``keep_outer`` keeps the outermost clusters as
    they are: "these tasks" instead of "such tasks". Draws whose statistic is NaN are left out.

    Raises:
        ValueError: fewer than two rows, labels of another length, or no finite draw.
    """
    if len(rows) < 2:
        raise ValueError(f"a bootstrap needs at least 2 rows, got {len(rows)}")
    if bad := [len(labels) for labels in clusters if len(labels) != len(rows)]:
        raise ValueError(f"cluster labels of length {bad[0]} for {len(rows)} rows")
    rng = np.random.default_rng(seed)
    levels = [np.unique(np.asarray(labels), return_inverse=True)[1] for labels in clusters]
    every = np.arange(len(rows))
    values = np.array(
        [statistic(rows[_resample(rng, every, levels, keep_outer)]) for _ in range(draws)]
    )
    if not np.isfinite(values).any():
        raise ValueError("the statistic is undefined in every bootstrap draw")
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def paired_bootstrap(
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " m"],
    clusters: Sequence[Any] = (),
    **options: Any,
) -> Interval:
    """The interval of the mean difference of pairs; a pair stays a pair. See `bootstrap`."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape:
        raise ValueError(f"pairs of {len(first)} and {len(second)} rows")
    return bootstrap(first - second, clusters, **options)


def _resample(
    rng: np.random.Generator,
    rows: Int[np.ndarray, " m"],
    levels: Sequence[Int[np.ndarray, " n"]],
    keep: bool,
) -> Int[np.ndarray, " k"]:
    if not levels:
        return rng.choice(rows, len(rows))
    labels = levels[0][rows]
    groups = [rows[labels == label] for label in np.unique(labels)]
    if not keep:
        groups = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
    return np.concatenate([_resample(rng, group, levels[1:], False) for group in groups])


def _beta_quantile(a: float, b: float, probability: float) -> float:
    """Where the Beta distribution function reaches ``probability``, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_cdf(a, b, middle) < probability else (low, middle)
    return (low + high) / 2


def _beta_cdf(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22)."""
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_cdf(b, a, 1 - x)
    total = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(total + a * math.log(x) + b * math.log1p(-x)) / a
    fraction = 1.0
    for m in range(200, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        fraction = 1 + even / (1 + odd / fraction)
    return front / (1 - (a + b) * x / ((a + 1) * fraction))


def _check_counts(successes: int, n: int) -> None:
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n}: expected 0 <= successes <= n and n > 0")
