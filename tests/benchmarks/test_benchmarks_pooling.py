"""Rates and differences over tasks and seeds."""

from __future__ import annotations

import numpy as np
import pooling
import pytest
from made_cells import TASKS, cell

from wamlab.metrics.stats import alike, newcombe, wilson


def cells(solved: int, n: int = 40, **options: object) -> list[dict[str, object]]:
    return [cell(dict.fromkeys(TASKS, solved), n=n, seed=s, **options) for s in range(3)]  # type: ignore[arg-type]


def test_every_task_weighs_the_same() -> None:
    one = cell({"metaworld/a": 40, "metaworld/b": 0})
    one["success"]["metaworld/b"] = {**one["success"]["metaworld/b"], "outcomes": "0" * 10, "n": 10}
    assert pooling.pooled([one]).value == pytest.approx(0.5)


def test_outcomes_that_are_all_alike_are_as_sure_as_they_are_many() -> None:
    found = cells(40)
    for one in found:
        one["blind"] = {env: {"mean replay": [0, 30], "random replay": [0, 30]} for env in TASKS}  # type: ignore[index]
    n = sum(row["n"] for one in found for row in one["success"].values())
    assert pooling.pooled_over_blind(found) == (1.0, newcombe((n, n), (0, 30 * len(TASKS))))
    assert pooling.pooled(found) == (1.0, wilson(n, n))
    assert pooling.pooled([cell(dict.fromkeys(TASKS, 0), n=10)]) == (0.0, wilson(0, 30))


def test_the_better_blind_row_counts() -> None:
    one = cell({"metaworld/a": 20})
    assert pooling.better_blind([one], "metaworld/a") == (12, 30)
    one["blind"]["metaworld/a"]["random replay"] = [15, 30]
    assert pooling.better_blind([one], "metaworld/a") == (15, 30)
    assert pooling.over_blind([one], "metaworld/a").value == pytest.approx(0.0)


def test_over_blind_holds_its_value_and_widens_with_seeds_that_disagree() -> None:
    level = pooling.pooled_over_blind(cells(20))
    uneven = [cell(dict.fromkeys(TASKS, count), seed=i) for i, count in enumerate((0, 20, 40))]
    spread = pooling.pooled_over_blind(uneven)
    assert level.value == pytest.approx(spread.value)
    assert level.value == pytest.approx(0.5 - np.mean([12, 9, 3]) / 30)
    assert level.interval is not None
    assert spread.interval is not None
    assert level.value in level.interval
    assert np.ptp(spread.interval) > 1.3 * np.ptp(level.interval)


def test_the_luck_of_a_training_counts_once_however_many_tasks_it_plays() -> None:
    """Seeds that solve 0, 20 and 40 of 40 everywhere: one draw in 27 takes the worst seed alone."""
    found = [cell(dict.fromkeys(TASKS, k), seed=i) for i, k in enumerate((0, 20, 40))]
    rate = pooling.pooled(found)
    assert rate.value == pytest.approx(0.5)
    assert rate.interval is not None
    assert rate.interval.low < 0.05
    assert rate.interval.high > 0.95
    other = [cell(dict.fromkeys(TASKS, 0), seed=i, model="reactive") for i in range(3)]
    both = pooling.paired(found, other)
    assert both is not None
    assert both.difference.interval is not None
    assert both.difference.interval.low == 0


def test_a_seed_that_has_not_played_a_task_is_no_tie_there() -> None:
    """Every pair that was played is won, though one seed played a task less."""
    first, second = cells(40), cells(0, model="reactive")
    del first[0]["success"]["metaworld/c"]  # type: ignore[attr-defined]
    both = pooling.paired(first, second)
    assert both is not None
    assert both.difference == (1.0, alike(1.0, 8 * 40))
    assert pooling.pooled(first) == (1.0, wilson(8 * 40, 8 * 40))


def test_a_model_does_not_differ_from_itself() -> None:
    both = pooling.paired(cells(20), cells(20, model="reactive"))
    assert both is not None
    assert both.difference == (0.0, alike(0.0, 3 * 3 * 40))
    assert both.p == 1.0


def test_pairs_are_counted_by_start() -> None:
    both = pooling.paired(cells(30), cells(20, model="reactive"))
    assert both is not None
    assert (both.only_first, both.only_second) == (3 * 3 * 10, 0)
    assert both.difference.value == pytest.approx(0.25)


def test_only_common_starts_are_paired() -> None:
    both = pooling.paired(cells(30), cells(10, n=10, model="reactive"))
    assert both is not None
    assert (both.only_first, both.only_second) == (0, 0)


def test_starts_are_pooled_over_seeds_that_reach_different_states() -> None:
    results = [{"items": {"a/1-3": 1.0, "a/2-9": 3.0}}, {"items": {"a/1-7": 2.0, "a/2-9": 4.0}}]
    found = pooling.over_states(results, [0, 1])
    assert found is not None
    assert found.value == pytest.approx(2.5)
    assert found.interval == (1.0, 4.0)  # one seed and one start alone: 1 in 16
    alone = pooling.over_states([{"items": {"a/1-3": 1.0, "a/2-9": 3.0}}, {"items": {}}], [0, 1])
    assert alone is not None
    assert (alone.value, alone.interval) == (2.0, (1.0, 3.0))
    assert pooling.over_states([{"items": {}}], [0]) is None


def test_states_of_one_training_share_its_luck() -> None:
    """Three seeds that measure 0, 1 and 2 at each of 50 starts: a seed alone is 1 draw in 27."""
    results = [{"items": {f"a/{start}-3": float(i) for start in range(50)}} for i in range(3)]
    found = pooling.over_states(results, [0, 1, 2])
    assert found == (1.0, (0.0, 2.0))
