from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import barnard_exact, binom, boschloo_exact, fisher_exact, ttest_1samp

from wamlab.metrics import stats

RATES = [
    (0, 20, (0.0000, 0.1611), (0.0000, 0.1684), (0.0000, 0.1166)),
    (8, 10, (0.4902, 0.9433), (0.4439, 0.9748), (0.4972, 0.9559)),
    (10, 10, (0.7225, 1), (0.6915, 1), (0.7828, 1)),
    (45, 50, (0.7864, 0.9565), (0.7819, 0.9667), (0.7946, 0.9608)),
    (475, 500, (0.9272, 0.9659), (0.9271, 0.9674), (0.9282, 0.9666)),
    (1900, 2000, (0.9396, 0.9587), (0.9395, 0.9591), (0.9398, 0.9589)),
]


@pytest.mark.parametrize(("k", "n", "wilson", "exact", "jeffreys"), RATES)
def test_intervals_of_one_rate_have_their_published_values(k, n, wilson, exact, jeffreys):
    assert stats.wilson(k, n) == pytest.approx(wilson, abs=6e-5)
    assert stats.clopper_pearson(k, n) == pytest.approx(exact, abs=6e-5)
    assert stats.jeffreys(k, n) == pytest.approx(jeffreys, abs=6e-5)


def test_the_exact_interval_covers_at_least_its_level():
    rate, n = 0.3, 25
    rng = np.random.default_rng(0)
    draws = rng.binomial(n, rate, 4000)
    covers = np.array([rate in stats.clopper_pearson(k, n) for k in range(n + 1)])
    covered = covers[draws].mean()
    assert covered >= 0.95


# k of n against k of n; p-values of Fisher, Barnard and Boschloo, and those that have been printed:
# of a table whose rows are the groups, in which the successes are held fixed and not the trials.
TWO_RATES = [
    ((8, 10), (5, 10), (0.350, 0.2206, 0.1973), (0.350, 0.189, 0.196)),
    ((45, 50), (40, 50), (0.262, 0.2087, 0.1933), (0.262, 0.169, 0.172)),
    ((475, 500), (460, 500), (0.072, 0.0557, 0.0637), (0.072, 0.055, 0.055)),
]
LAST_SLOWLY = [*TWO_RATES[:2], pytest.param(*TWO_RATES[2], marks=pytest.mark.slow)]


@pytest.mark.parametrize(("first", "second", "want", "printed"), LAST_SLOWLY)
def test_exact_tests_of_two_rates_hold_the_trials_of_each_fixed(first, second, want, printed):
    found = [stats.two_rates(first, second, test) for test in ("fisher", "barnard", "boschloo")]
    assert found == pytest.approx(want, abs=5e-4)
    groups = [(k, n - k) for k, n in (first, second)]
    turned = [test(groups).pvalue for test in (fisher_exact, barnard_exact, boschloo_exact)]
    assert turned == pytest.approx(printed, abs=6e-4)


@pytest.mark.parametrize(("first", "second", "want", "printed"), TWO_RATES)
def test_barnard_and_boschloo_are_the_worst_case_over_the_common_rate(first, second, want, printed):
    assert counted_out(first, second) == pytest.approx(want[1:], abs=1e-4)


def test_the_exact_tests_take_the_groups_in_any_order():
    barnard, boschloo = counted_out((8, 10), (5, 10))
    assert stats.two_rates((8, 10), (5, 10), "barnard") == pytest.approx(barnard, abs=1e-5)
    assert stats.two_rates((8, 10), (5, 10)) == pytest.approx(boschloo, abs=1e-5)
    assert stats.two_rates((5, 10), (8, 10)) == pytest.approx(boschloo, abs=1e-5)


def counted_out(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float]:
    """Barnard's p by the score with the pooled rate, and Boschloo's; of as many trials each.

    The chance of all outcomes that are as extreme, at the worst of 1999 common rates.
    """
    (a, n), (b, _) = first, second
    k = np.arange(n + 1)
    i, j = k[:, None], k[None]
    pooled = (i + j) / (2 * n)
    score = np.abs(i - j) / np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12))
    # How many of the successes are the first's, both margins fixed: the one-sided p of Fisher.
    tail = np.exp(ways(n, i) + ways(n, j) - ways(2 * n, i + j))
    for more in range(n - 1, -1, -1):
        tail[more, 1:] += tail[more + 1, :-1]
    chance = binom.pmf(k, n, np.linspace(0, 1, 2001)[1:-1, None])
    worst = lambda extreme: float((chance @ extreme * chance).sum(axis=1).max())  # noqa: E731
    barnard = worst((score >= score[a, b] - 1e-9).astype(float))
    return barnard, 2 * worst((tail <= tail[a, b] * (1 + 1e-9)).astype(float))


def ways(n: int, k: np.ndarray) -> np.ndarray:
    """The logarithm of how many ways there are to choose k of n."""
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def test_the_probability_that_one_rate_is_higher():
    assert stats.probability_higher((8, 10), (5, 10)) == pytest.approx(0.909, abs=5e-4)
    assert stats.probability_higher((45, 50), (40, 50)) == pytest.approx(0.914, abs=5e-4)
    assert stats.probability_higher((3, 7), (3, 7)) == pytest.approx(0.5)
    other = stats.probability_higher((2, 9), (4, 6))
    assert other == pytest.approx(1 - stats.probability_higher((4, 6), (2, 9)))
    rng = np.random.default_rng(0)
    drawn = rng.beta(3, 8, 200_000) > rng.beta(5, 3, 200_000)
    assert other == pytest.approx(drawn.mean(), abs=2e-3)


# Two rates, and the trials of each that tell them apart with power 0.8.
TRIALS = [(0.9, 0.8, 199), (0.95, 0.9, 435), (0.8, 0.7, 294), (0.5, 0.6, 388)]


@pytest.mark.parametrize(("first", "second", "n"), TRIALS)
def test_how_many_trials_tell_two_rates_apart(first, second, n):
    assert stats.trials_needed(first, second) == stats.trials_needed(second, first) == n
    rng = np.random.default_rng(1)
    a, b = (rng.binomial(n, rate, 20_000) / n for rate in (first, second))
    error = np.sqrt((a + b) * (1 - (a + b) / 2) / n)
    assert (np.abs(a - b) > 1.96 * error).mean() == pytest.approx(0.8, abs=0.02)


def test_five_hundred_trials_do_not_tell_95_from_97_percent():
    assert stats.trials_needed(0.95, 0.97) > 500
    assert stats.trials_needed(0.95, 0.97, power=0.9) > stats.trials_needed(0.95, 0.97)


DISCORDANT = ((9, 3), 0.1460)


def test_mcnemar_on_nine_against_three_discordant_pairs():
    pairs, published = DISCORDANT
    assert stats.mcnemar(*pairs) == pytest.approx(published, abs=5e-5)
    assert stats.mcnemar(3, 9) == stats.mcnemar(9, 3)
    assert stats.mcnemar(0, 0) == 1.0


def test_pairs_that_are_all_alike_are_as_sure_as_they_are_many():
    """Wilson's lower end of 10 of 10 is 0.72247: the rest of the pairs may say anything."""
    assert stats.alike(0, 10) == pytest.approx((-0.27753, 0.27753), abs=6e-6)
    assert stats.alike(1, 10) == pytest.approx((0.44493, 1.0), abs=6e-6)
    assert stats.alike(-1, 10) == pytest.approx((-1.0, -0.44493), abs=6e-6)
    assert stats.alike(0, 1000).high < 0.004


def test_newcombe_has_the_values_of_the_paper():
    # Newcombe 1998, table II, method 10: 56/70 - 48/80 and 10/10 - 0/10.
    assert stats.newcombe((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=6e-5)
    assert stats.newcombe((10, 10), (0, 10)) == pytest.approx((0.6075, 1.0), abs=6e-5)


def test_holm_steps_down_and_keeps_the_order():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


WINS = np.array([[0, 7, 9], [3, 0, 6], [1, 4, 0]])
STRENGTHS = (0.94361, -0.16016, -0.78345)


def test_bradley_terry_strengths_have_their_published_values():
    strength = stats.bradley_terry(WINS)
    assert strength == pytest.approx(STRENGTHS, abs=5e-6)
    assert 1 / (1 + np.exp(strength[2] - strength[0])) == pytest.approx(0.84903, abs=5e-6)


def test_two_policies_differ_by_their_log_odds_and_a_tie_is_half_a_win():
    strength = stats.bradley_terry(np.array([[0, 6.5], [3.5, 0]]))
    assert strength[0] - strength[1] == pytest.approx(np.log(6.5 / 3.5))
    assert strength.sum() == pytest.approx(0)


def test_the_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    rows = np.random.default_rng(1).normal(3, 1, 400)
    low, high = stats.bootstrap(rows)
    half = 1.96 * rows.std() / 20
    assert (low, high) == pytest.approx((rows.mean() - half, rows.mean() + half), abs=0.02)


def test_clusters_widen_the_interval_and_kept_clusters_do_not():
    rng = np.random.default_rng(3)
    tasks = np.repeat(np.arange(6), 40)
    values = (rng.random(240) < np.repeat([0.1, 0.3, 0.5, 0.7, 0.9, 0.9], 40)).astype(float)
    width = lambda interval: interval.high - interval.low  # noqa: E731
    such, these = (
        width(stats.bootstrap(values, [tasks], keep_outer=keep)) for keep in (False, True)
    )
    assert these < width(stats.bootstrap(values)) < such
    assert such > 3 * these


def test_nested_clusters_are_drawn_inside_their_parents():
    tasks, seeds = np.repeat([0, 1], 6), np.tile(np.repeat([0, 1, 2], 2), 2)
    values = tasks + 0.1 * seeds
    assert stats.bootstrap(values, [tasks, seeds], keep_outer=True) == pytest.approx(
        (0.5, 0.7), abs=0.11
    )


def test_the_same_seed_gives_the_same_interval():
    rows = np.random.default_rng(4).normal(size=20)
    assert stats.bootstrap(rows, seed=5) == stats.bootstrap(rows, seed=5)
    assert stats.bootstrap(rows, seed=5) != stats.bootstrap(rows, seed=6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.wilson(0, 0), "n > 0"),
        (lambda: stats.jeffreys(5, 4), "5 successes of 4"),
        (lambda: stats.mcnemar(-1, 2), "counts"),
        (lambda: stats.two_rates((5, 4), (1, 4)), "5 successes of 4"),
        (lambda: stats.probability_higher((1, 4), (-1, 4)), "-1 successes of 4"),
        (lambda: stats.trials_needed(0.5, 0.5), "two different rates"),
        (lambda: stats.trials_needed(0.5, 1.0), r"inside \(0, 1\), got 0\.5, 1\.0"),
        (lambda: stats.holm([0.1, np.nan]), r"in \[0, 1\], got nan"),
        (lambda: stats.bradley_terry(np.array([[0, 1], [-1, 0]])), "wins are counts"),
        (lambda: stats.bradley_terry(np.eye(2)), "0 on the diagonal"),
        (lambda: stats.bradley_terry(np.array([[0, 3], [0, 0]])), "stay apart"),
        (lambda: stats.bootstrap(np.ones(1)), "at least 2 rows, got 1"),
        (lambda: stats.bootstrap(np.ones(3), [[0, 1]]), "labels of length 2 for 3 rows"),
        (lambda: stats.bootstrap(np.ones(3), statistic=lambda rows: np.nan), "undefined in every"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_test_has_its_nearest():
    with pytest.raises(KeyError, match="no test 'boshloo' of two rates; did you mean 'boschloo'"):
        stats.two_rates((1, 2), (1, 3), "boshloo")


def test_rank_correlation_is_that_of_scipy_ties_included():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    first = rng.integers(0, 5, 40).astype(float)
    second = first + rng.integers(-3, 4, 40)
    assert stats.spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert stats.spearman(first, -(first**3)) == pytest.approx(-1)
    assert math.isnan(stats.spearman(first, np.ones(40)))


def test_partial_rank_correlation_has_its_closed_form():
    """(r12 - r13 r23) / sqrt((1 - r13^2)(1 - r23^2)), on ranks."""
    rng = np.random.default_rng(1)
    given = rng.normal(size=200)
    first, second = given + rng.normal(size=200), given + rng.normal(size=200)
    a, b, c = (stats.spearman(*pair) for pair in ((first, second), (first, given), (second, given)))
    closed = (a - b * c) / math.sqrt((1 - b**2) * (1 - c**2))
    found = stats.partial_spearman(first, second, given)
    assert found == pytest.approx(closed, abs=1e-12)
    assert abs(found) < 0.2 < a
    assert math.isnan(stats.partial_spearman(given**3, second, given))
    assert stats.partial_spearman(first, second, np.ones(200)) == pytest.approx(a)


def test_correlation_inside_groups_forgets_what_groups_differ_in():
    """Both grow with the group, and inside a group only what truly goes together counts."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(12), 4)
    first, chance = (10.0 * groups + rng.normal(size=48) for _ in range(2))
    rho, p = stats.grouped_spearman(first, chance, groups)
    assert stats.spearman(first, chance) > 0.95
    assert abs(rho) < 0.3
    assert p > 0.1
    rho, p = stats.grouped_spearman(first, first**3, groups)
    assert rho == pytest.approx(1)
    assert p < 0.001
    assert all(map(math.isnan, stats.grouped_spearman(first, 1.0 * groups, groups)))


def test_the_permutation_p_value_is_that_of_all_permutations():
    """One group of four in perfect order: 2 of 24 orders reach a correlation of one in size."""
    order = np.arange(4.0)
    rho, p = stats.grouped_spearman(order, order, np.zeros(4), draws=20_000)
    assert rho == pytest.approx(1)
    assert p == pytest.approx(2 / 24, abs=0.006)


def test_swapping_pairs_is_mcnemar_of_wins_and_losses() -> None:
    for won, lost in ((5, 0), (6, 0), (6, 2), (3, 3)):
        rows = np.array([1.0] * won + [-1.0] * lost + [0.0])
        assert stats.swap_test(rows, np.negative, np.mean) == pytest.approx(
            stats.mcnemar(won, lost)
        )


def test_swapping_many_pairs_is_the_t_test_of_a_bell() -> None:
    """Thirty pairs, drawn arrangements: the p of Student's test to two standard errors of it."""
    rows = np.random.default_rng(3).normal(0.4, 1, 30)
    p = stats.swap_test(rows, np.negative, np.mean)
    assert p == pytest.approx(ttest_1samp(rows, 0).pvalue, abs=2 * (p * (1 - p) / 4096) ** 0.5)
    assert stats.swap_test(rows + 9, np.negative, np.mean) == 1 / 4096
    assert stats.swap_test(rows * 0, np.negative, np.mean) == 1
