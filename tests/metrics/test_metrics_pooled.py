"""Intervals over crossed tasks and seeds, where the answer is known without drawing."""

from __future__ import annotations

import numpy as np
import pytest

from wamlab.metrics.pooled import of_difference, of_mean, of_rate, of_rate_over_blind
from wamlab.metrics.stats import alike, newcombe, wilson


def table(*tasks: list[tuple[int, ...]]) -> np.ndarray:
    """Counts by task, then by seed."""
    return np.array(tasks)


def test_the_interval_is_of_the_mean_of_the_tasks_rates() -> None:
    """Of 90/100 and 2/10 the mean is .55 and its standard error half the root of both variances."""
    error = np.sqrt(0.9 * 0.1 / 100 + 0.2 * 0.8 / 10) / 2
    found = of_rate(table([(90, 100)], [(2, 10)]), keep_tasks=True)
    assert found == pytest.approx((0.55 - 1.96 * error, 0.55 + 1.96 * error), abs=0.02)
    such = of_rate(table([(90, 100)], [(2, 10)]))
    assert such.low < 0.3
    assert such.high > 0.85


def test_one_policy_plays_every_task_so_its_luck_counts_once() -> None:
    """Seeds at .95, .5 and .05 on all tasks: one draw in 27 takes the worst seed alone."""
    seeds = [(19, 20), (10, 20), (1, 20)]
    for tasks in (1, 6, 50):
        found = of_rate(table(*[seeds] * tasks))
        assert found.low < 0.1
        assert found.high > 0.9
    lucky_in_turn = table(seeds, seeds[1:] + seeds[:1], seeds[2:] + seeds[:2])
    assert np.ptp(of_rate(lucky_in_turn, keep_tasks=True)) < np.ptp(of_rate(table(*[seeds] * 3)))


def test_episodes_of_one_seed_and_task_vary_as_binomials_do() -> None:
    found = of_rate(table([(200, 400)]))
    assert found == pytest.approx(wilson(200, 400), abs=0.005)


def test_where_nothing_varies_the_value_lies_inside() -> None:
    """Of outcomes that are all alike it is Wilson's; of tasks that differ, theirs, joined."""
    assert of_rate(table([(20, 20)], [(5, 5)])) == wilson(25, 25)
    kept = of_rate(table([(20, 20)], [(0, 5)]), keep_tasks=True)
    down, up = (1 - wilson(20, 20).low) / 2, wilson(0, 5).high / 2
    assert kept == pytest.approx((0.5 - down, 0.5 + up))
    blind = np.array([[0, 30], [0, 10]])
    over = of_rate_over_blind(table([(20, 20)], [(0, 5)]), blind, keep_tasks=True)
    first, second = newcombe((20, 20), (0, 30)), newcombe((0, 5), (0, 10))
    assert over.low == pytest.approx(0.5 - np.hypot(1 - first.low, 0 - second.low) / 2)
    assert over.high == pytest.approx(0.5 + np.hypot(first.high - 1, second.high) / 2)
    assert of_rate_over_blind(table([(20, 20)]), blind[:1]) == newcombe((20, 20), (0, 30))


def outcomes(counts: np.ndarray) -> list[list[np.ndarray]]:
    """The same episodes one by one, 1 where they succeeded."""
    return [[np.r_[np.ones(k), np.zeros(n - k)] for k, n in row] for row in counts]


def test_values_that_are_outcomes_have_the_interval_of_their_rate() -> None:
    seeds = [(19, 20), (10, 20), (1, 20)]
    for counts in (
        table([(90, 100)], [(2, 10)]),
        table(*[seeds] * 6),
        table([(200, 400)]),
        table([(15, 20), (0, 0)], [(0, 0), (3, 20)], [(5, 20), (9, 10)]),
    ):
        assert of_mean(outcomes(counts)) == pytest.approx(of_rate(counts), abs=0.03)


def test_values_of_which_nothing_varies_have_no_interval() -> None:
    assert of_mean([[np.full(20, 3.0)], [np.full(5, 3.0)]]) is None
    assert of_mean([[np.full(20, 3.0)], [np.full(5, 7.0)]]) == (3, 7)


def test_blind_trials_vary_beside_the_episodes() -> None:
    played, blind = table([(200, 400)]), np.array([[100, 200]])
    found = of_rate_over_blind(played, blind)
    assert found == pytest.approx(newcombe((200, 400), (100, 200)), abs=0.01)
    seeds = [(19, 20), (10, 20), (1, 20)]
    wide = of_rate_over_blind(table(*[seeds] * 6), np.array([[5, 30]] * 6))
    assert np.ptp(wide) > 0.8


def test_pairs_of_a_seed_that_gains_everywhere_are_one_gain() -> None:
    """Of three seeds one gains on all pairs and two on none: nobody can be sure of a gain."""
    seeds = [(20, 0, 20), (0, 0, 20), (0, 0, 20)]
    found = of_difference(table(*[seeds] * 6))
    assert found == (0, 1)
    assert of_difference(table([(0, 0, 20)], [(0, 0, 20)])) == alike(0, 40)
    assert of_difference(table([(20, 0, 20)])) == alike(1, 20)


def test_what_a_seed_has_not_played_is_left_out_and_not_a_tie() -> None:
    """One seed played both tasks, the other the first alone; both win every pair."""
    won, absent = (20, 0, 20), (0, 0, 0)
    assert of_difference(table([won, won], [won, absent])) == alike(1, 60)
    assert of_rate(table([(20, 20), (20, 20)], [(20, 20), (0, 0)])) == wilson(60, 60)
    apart = of_rate(table([(20, 20), (0, 0)], [(0, 0), (0, 20)]))
    assert apart == (0, 1)
