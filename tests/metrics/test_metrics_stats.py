from __future__ import annotations

import numpy as np
import pytest

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


@pytest.mark.parametrize(("a", "b"), [(0.5, 20.5), (3.0, 8.0), (45.0, 6.0), (1900.5, 100.5)])
def test_beta_quantiles_agree_with_scipy(a, b):
    scipy = pytest.importorskip("scipy.special")
    for probability in (0.025, 0.5, 0.975):
        want = scipy.betaincinv(a, b, probability)
        assert stats._beta_quantile(a, b, probability) == pytest.approx(want, rel=1e-9)


def test_the_exact_interval_covers_at_least_its_level():
    rate, n = 0.3, 25
    rng = np.random.default_rng(0)
    draws = rng.binomial(n, rate, 4000)
    covers = np.array([rate in stats.clopper_pearson(k, n) for k in range(n + 1)])
    covered = covers[draws].mean()
    assert covered >= 0.95


def test_mcnemar_on_nine_against_three_discordant_pairs():
    assert stats.mcnemar(9, 3) == pytest.approx(0.1460, abs=5e-5)
    assert stats.mcnemar(3, 9) == stats.mcnemar(9, 3)
    assert stats.mcnemar(0, 0) == 1.0


def test_newcombe_has_the_values_of_the_paper():
    # Newcombe 1998, table II, method 10: 56/70 - 48/80 and 10/10 - 0/10.
    assert stats.newcombe((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=6e-5)
    assert stats.newcombe((10, 10), (0, 10)) == pytest.approx((0.6075, 1.0), abs=6e-5)


def test_holm_steps_down_and_keeps_the_order():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_the_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    rows = np.random.default_rng(1).normal(3, 1, 400)
    low, high = stats.bootstrap(rows)
    half = 1.96 * rows.std() / 20
    assert (low, high) == pytest.approx((rows.mean() - half, rows.mean() + half), abs=0.02)


def test_pairing_removes_what_the_pairs_share():
    rng = np.random.default_rng(2)
    shared = rng.normal(0, 10, 50)
    first, second = shared + 1 + rng.normal(0, 0.1, 50), shared
    low, high = stats.paired_bootstrap(first, second)
    assert 0.9 < low < 1 < high < 1.1


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
        (lambda: stats.bootstrap(np.ones(1)), "at least 2 rows, got 1"),
        (lambda: stats.bootstrap(np.ones(3), [[0, 1]]), "labels of length 2 for 3 rows"),
        (lambda: stats.paired_bootstrap(np.ones(3), np.ones(2)), "pairs of 3 and 2"),
        (lambda: stats.bootstrap(np.ones(3), statistic=lambda rows: np.nan), "undefined in every"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
