from __future__ import annotations

import dataclasses

import numpy as np
import pusher
import pytest

from wamlab.metrics.base import Result, compute, find, names
from wamlab.metrics.stats import wilson
from wamlab.types import Episode

EASY, HARD = "toy/easy", "toy/hard"
BLIND = {
    EASY: {"expert": (20, 20), "mean replay": (8, 20), "random replay": (5, 20)},
    HARD: {"expert": (20, 20), "mean replay": (0, 20), "random replay": (1, 20)},
}


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    """18 of 20 on the easy task, 10 of 20 on the hard one."""
    base = pusher.episode(0, solved=False)
    solved = pusher.episode(0, solved=True)
    make = lambda env, seed, good: dataclasses.replace(solved if good else base, env=env, seed=seed)  # noqa: E731
    return [make(EASY, s, s < 18) for s in range(20)] + [make(HARD, s, s < 10) for s in range(20)]


def test_every_task_has_its_wilson_interval_and_the_pool_weighs_tasks_alike(episodes):
    result = compute("success_any", episodes)
    assert result.value == pytest.approx(0.7)
    assert result.parts[EASY].value == 0.9
    assert result.parts[EASY].interval == wilson(18, 20)
    assert result.parts[HARD].details["successes"] == 10
    uneven = compute("success_any", episodes[10:])
    assert uneven.value == pytest.approx((0.8 + 0.5) / 2)
    assert result.interval.low < result.details["these_tasks"].low < 0.7


def test_one_task_is_its_own_pool(episodes):
    result = compute("success_any", episodes[:20])
    assert result.interval == wilson(18, 20)
    assert list(result.parts) == [EASY]


def test_solved_at_the_start_is_not_solved_by_the_policy(episodes):
    cheats = [dataclasses.replace(episode, success_at_reset=True) for episode in episodes[:20]]
    result = compute("success_any", cheats)
    assert result.value == 0
    assert result.details["at_reset"] == 20


def test_any_step_and_last_step_are_two_measures():
    episode = pusher.episode(0, solved=True)
    episode.success[-1] = False
    assert compute("success_any", [episode]).value == 1
    assert compute("success_last", [episode]).value == 0


def test_success_is_quoted_over_the_better_blind_row(episodes):
    result = compute("success_over_blind", episodes, blind=BLIND)
    assert result.parts[EASY].value == pytest.approx(0.9 - 0.4)
    assert result.parts[EASY].details["better"] == "mean replay"
    assert result.parts[HARD].details["better"] == "random replay"
    assert result.value == pytest.approx((0.5 + 0.45) / 2)
    assert all(part.interval.low > 0 for part in result.parts.values())
    assert result.interval.low > 0.2


def test_steps_to_success_count_successes_only(episodes):
    result = compute("steps_to_success", episodes)
    assert result.value == 21
    assert result.n == 28
    assert result.undefined == {"no success": 12}


def test_what_cannot_be_computed_says_why(episodes):
    assert compute("success_any", []).why_not == "there are no episodes"
    assert "no blind rows" in compute("success_over_blind", episodes).why_not
    some = compute("success_over_blind", episodes, blind={EASY: BLIND[EASY]})
    assert "no blind rows of 'toy/hard'" in some.why_not
    expert_only = {env: {"expert": (20, 20)} for env in (EASY, HARD)}
    assert "neither" in compute("success_over_blind", episodes, blind=expert_only).why_not
    twice = compute("success_any", [episodes[0], episodes[0]])
    assert "two episodes from one start seed" in twice.why_not
    assert compute("steps_to_success", episodes[30:]).why_not == "no success (10)"


def test_metrics_are_found_by_name():
    assert {"success_any", "moving_psnr", "eic", "eic_cf", "skill", "div"} <= set(names())
    assert find("eic").needs == "probes"
    assert find("success_any").needs == "episodes"
    with pytest.raises(KeyError, match="did you mean 'moving_psnr'"):
        compute("movin_psnr", [])


def test_a_result_is_a_number_or_a_reason():
    with pytest.raises(ValueError, match="a value or says why not"):
        Result("eic")
    with pytest.raises(ValueError, match="must say why"):
        Result("eic", value=float(np.nan))


def test_tasks_of_a_chain_are_counted_where_there_is_one(episodes):
    chained = []
    for episode, most in zip(episodes[:3], (0, 2, 1), strict=True):
        counts = np.minimum(np.arange(len(episode)), most)
        chained.append(dataclasses.replace(episode, columns={"tasks_done": counts}))
    result = compute("tasks_done", chained)
    assert (result.value, result.n) == (1.0, 3)
    assert compute("tasks_done", episodes).why_not == f"no chain of tasks ({len(episodes)})"
