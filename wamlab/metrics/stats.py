"""Intervals and tests: one rate, two, pairs, many policies, and clusters of tasks or seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import betaincinv

from wamlab.config import nearest

LEVEL = 0.95
DRAWS = 1000
MOST_STEPS = 100_000
ROUNDING = 1e-9
EXACT = 12
"""Of so many pairs every arrangement is tried: 4096."""
FEWEST = 5
"""So many items carry an interval; all of four point to one side by chance once in eight."""

Counts = tuple[int, int]
"""Successes and trials."""


class Interval(NamedTuple):
    """Two ends, the lower first."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


def wilson(successes: float, n: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a rate (Wilson 1927).

    ``successes`` may be the sum of n shares from 0 to 1, which spread no more than outcomes do.
    """
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
    low = 0.0 if successes == 0 else betaincinv(successes, n - successes + 1, tail)
    high = 1.0 if successes == n else betaincinv(successes + 1, n - successes, 1 - tail)
    return Interval(float(low), float(high))


def jeffreys(successes: int, n: int, level: float = LEVEL) -> Interval:
    """The Bayesian interval of a rate under Jeffreys' prior, 0 and 1 at the ends."""
    _check_counts(successes, n)
    tail, a, b = (1 - level) / 2, successes + 0.5, n - successes + 0.5
    low = 0.0 if successes == 0 else betaincinv(a, b, tail)
    high = 1.0 if successes == n else betaincinv(a, b, 1 - tail)
    return Interval(float(low), float(high))


def newcombe(first: Counts, second: Counts, level: float = LEVEL) -> Interval:
    """The interval of the difference of two unpaired rates.

    Newcombe 1998, method 10: the two Wilson intervals, joined.
    """
    (low_a, high_a), (low_b, high_b) = wilson(*first, level), wilson(*second, level)
    a, b = first[0] / first[1], second[0] / second[1]
    down = math.hypot(a - low_a, high_b - b)
    up = math.hypot(high_a - a, b - low_b)
    return Interval(a - b - down, a - b + up)


def joined(values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """The interval of the mean of independent values, from their own.

    Distances from a value to its ends add up as squares, as in `newcombe` (MOVER: Zou and Donner
    2008): the mean lies inside, and of one value it is the interval itself.
    """
    middle, ends = np.array(values, float), np.array(intervals, float).T
    down, up = (float(np.sqrt(((end - middle) ** 2).sum())) / len(middle) for end in ends)
    mean = float(middle.mean())
    return Interval(mean - down, mean + up)


def alike(difference: float, n: int, level: float = LEVEL) -> Interval:
    """The interval of a paired difference that was the same, -1, 0 or 1, in every one of n pairs.

    Nothing is left to resample, and a bootstrap would be sure of what it has not seen. By Wilson,
    at least a share w of all pairs differs as these do; the rest may lie anywhere from -1 to 1.
    """
    w = wilson(n, n, level).low
    return Interval(w * difference - (1 - w), w * difference + (1 - w))


def two_rates(first: Counts, second: Counts, test: str = "boschloo") -> float:
    """The exact two-sided p-value that two unpaired rates are one rate.

    ``fisher`` holds both margins fixed and is the most cautious; ``barnard`` (1945) and
    ``boschloo`` (1970) hold only the numbers of trials fixed, as an experiment does. Choose before
    the data are seen. Pairs (the same starts) belong to `mcnemar`.

    Raises:
        KeyError: an unknown test, with the nearest one.
    """
    from scipy import stats  # slow to import, and needed here alone

    tests = {
        "fisher": stats.fisher_exact,
        "barnard": stats.barnard_exact,
        "boschloo": stats.boschloo_exact,
    }
    if test not in tests:
        raise KeyError(f"no test {test!r} of two rates{nearest(test, tests)}")
    for successes, n in (first, second):
        _check_counts(successes, n)
    # The two groups are the columns: with groups as rows the wrong margin would be held fixed.
    table = [[first[0], second[0]], [first[1] - first[0], second[1] - second[0]]]
    return float(tests[test](table).pvalue)


def probability_higher(first: Counts, second: Counts) -> float:
    """The probability, under uniform priors, that the first rate is the higher one.

    With posteriors Beta(k + 1, n - k + 1) it is the chance that, at the second rate, at most k_1 of
    n_1 + 1 trials succeed: a beta-binomial sum.
    """
    from scipy.stats import betabinom

    for successes, n in (first, second):
        _check_counts(successes, n)
    return float(betabinom.cdf(first[0], first[1] + 1, second[0] + 1, second[1] - second[0] + 1))


def trials_needed(first: float, second: float, *, power: float = 0.8, level: float = LEVEL) -> int:
    """How many unpaired trials of each of two policies tell these rates apart.

    The normal approximation of the two-sided test with pooled variance (Fleiss 1981).

    Raises:
        ValueError: equal rates, or rates or a power outside (0, 1).
    """
    if first == second or not all(0 < one < 1 for one in (first, second, power)):
        given = f"{first}, {second} and {power}"
        raise ValueError(f"expected two different rates and a power inside (0, 1), got {given}")
    middle = (first + second) / 2
    alike = NormalDist().inv_cdf(0.5 + level / 2) * math.sqrt(2 * middle * (1 - middle))
    apart = NormalDist().inv_cdf(power) * math.sqrt(first * (1 - first) + second * (1 - second))
    return math.ceil(((alike + apart) / (first - second)) ** 2)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test from its discordant pairs."""
    n = only_first + only_second
    if min(only_first, only_second) < 0:
        raise ValueError(f"discordant pairs are counts, got {only_first} and {only_second}")
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**n)


def swap_test(
    rows: Shaped[np.ndarray, "n *rest"],
    swap: Callable[[np.ndarray], np.ndarray],
    statistic: Callable[[np.ndarray], float],
    *,
    draws: int = 4095,
    seed: int = 0,
) -> float:
    """The two-sided p of a statistic of pairs, were it by chance which of the two is the first.

    Every pair may as well have been the other way round: of up to `EXACT` pairs all arrangements
    are tried, of more a random ``draws`` beside the true one. Of wins and losses it is `mcnemar`.

    Args:
        rows: one row for each pair.
        swap: the rows with first and second exchanged in every pair.
        statistic: of which only the size counts; where it is NaN it counts as large.
    """
    count = len(rows)
    if count <= EXACT:
        flips = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    else:
        drawn = np.random.default_rng(seed).integers(2, size=(draws, count))
        flips = np.concatenate([np.zeros((1, count), drawn.dtype), drawn])
    other = swap(rows)
    spread = (slice(None), *[None] * (rows.ndim - 1))
    least = abs(statistic(rows)) * (1 - ROUNDING)
    below = [abs(statistic(np.where(flip[spread] == 1, other, rows))) < least for flip in flips]
    return 1 - sum(below) / len(flips)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given (Holm 1979).

    Raises:
        ValueError: a p-value outside [0, 1], NaN among them.
    """
    if bad := [p for p in p_values if not 0 <= p <= 1]:
        raise ValueError(f"p-values lie in [0, 1], got {bad[0]}")
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def bradley_terry(wins: Shaped[np.ndarray, "p p"]) -> Float[np.ndarray, " p"]:
    """Log-strengths (sum 0) of policies from who won how often against whom.

    ``wins[i, j]`` counts the wins of i over j, a tie as half a win of each. Policy i beats j with
    probability ``1 / (1 + exp(s_j - s_i))``; the maximum likelihood by Hunter's iteration (2004).

    Raises:
        ValueError: counts that are not, or policies between which nothing was decided: unless
            every one is reached from every other over wins, no finite strengths fit.
    """
    from scipy.sparse.csgraph import connected_components

    if wins.shape != wins.T.shape or not (wins >= 0).all() or wins.diagonal().any():
        raise ValueError("wins are counts (P, P) of one policy over another, 0 on the diagonal")
    groups, label = connected_components(wins > 0, connection="strong")
    if groups > 1:
        named = [np.flatnonzero(label == group).tolist() for group in range(groups)]
        raise ValueError(f"wins do not lead from every policy to every other: {named} stay apart")
    played, strength = wins + wins.T, np.ones(len(wins))
    for _ in range(MOST_STEPS):
        last = strength
        strength = wins.sum(axis=1) / (played / (last[:, None] + last)).sum(axis=1)
        strength /= np.exp(np.log(strength).mean())
        if np.allclose(strength, last, rtol=1e-12, atol=0):
            return np.log(strength)
    raise ValueError(f"Bradley-Terry strengths did not settle in {MOST_STEPS} steps")


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

    ``clusters`` are labels of each row, the outermost first (task, then start): clusters are drawn,
    then clusters inside them, then rows. ``keep_outer`` keeps the outermost clusters as they are:
    "these tasks" instead of "such tasks". Training seeds that play several tasks are not nested in
    them: see `wamlab.metrics.pooled`. Draws whose statistic is NaN are left out.

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


def interval_over(
    rows: Shaped[np.ndarray, "n *rest"], clusters: Sequence[Any] = (), **options: Any
) -> Interval | None:
    """The `bootstrap` interval of a statistic over items, None of fewer than `FEWEST`."""
    return bootstrap(rows, clusters, **options) if len(rows) >= FEWEST else None


def spearman(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """The correlation of ranks, ties sharing theirs; NaN where one of the two never changes."""
    return _cosine(_centred_ranks(first), _centred_ranks(second))


def partial_spearman(
    first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"], given: Float[np.ndarray, " n"]
) -> float:
    """`spearman` of what is left of both ranks when those of ``given`` are regressed out.

    NaN where nothing is left of one of them.
    """
    held = _centred_ranks(given)
    total = float(held @ held)
    left = []
    for values in (first, second):
        ranks = _centred_ranks(values)
        rest = ranks - held * (ranks @ held / total) if total > 0 else ranks
        left.append(np.where(np.abs(rest) < ROUNDING * len(rest), 0, rest))
    return _cosine(*left)


def grouped_spearman(
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """The correlation of ranks inside the groups, pooled, and its two-sided permutation p-value.

    What groups differ in plays no part, whatever its form: ranks are taken inside each group, and
    under the null hypothesis the values of ``second`` could change places there. NaN twice where
    one of the two never changes inside a group.
    """
    places = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    one, other = (
        np.concatenate([_centred_ranks(values[place]) for place in places])
        for values in (first, second)
    )
    found = _cosine(one, other)
    if np.isnan(found):
        return found, found
    rng, ends = np.random.default_rng(seed), np.cumsum([len(place) for place in places])[:-1]
    drawn = np.tile(other, (draws, 1))
    for group in np.split(drawn, ends, axis=1):
        rng.permuted(group, axis=1, out=group)
    reached = np.abs(drawn @ one) >= abs(other @ one) - ROUNDING
    return found, float((1 + reached.sum()) / (1 + draws))


def _centred_ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1, ties sharing the mean of theirs, less their mean; NaN where a value is.

    scipy's ranks are the same and take ten times as long for as few values as a bootstrap draws.
    """
    values = np.asarray(values, float)
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    return np.where(np.isnan(values).any(), np.nan, ranks - ranks.mean())


def _cosine(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    size = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / size if size > 0 else float("nan")


def _resample(
    rng: np.random.Generator,
    rows: Int[np.ndarray, " m"],
    levels: Sequence[Int[np.ndarray, " n"]],
    keep: bool,
) -> Int[np.ndarray, " k"]:
    if not levels:
        return rows[rng.integers(len(rows), size=len(rows))]
    labels = levels[0][rows]
    groups = [rows[labels == label] for label in np.unique(labels)]
    if not keep:
        groups = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
    return np.concatenate([_resample(rng, group, levels[1:], False) for group in groups])


def _check_counts(successes: float, n: int) -> None:
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n}: expected 0 <= successes <= n and n > 0")
