"""Differences between runs, pair by pair, where every number is known."""

from __future__ import annotations

import pusher
import pytest

from wamlab.metrics import stats
from wamlab.metrics.compare import difference, differences, state_values, success_values


def rates(solved: int, n: int = 20, task: str = "a") -> dict[str, float]:
    return {f"{task}/{seed}": float(seed < solved) for seed in range(n)}


def test_pairs_stay_pairs() -> None:
    """Both solve 10 of 20, one the first ten and the other the last: no difference, 20 apart."""
    other = {item: 1 - value for item, value in rates(10).items()}
    found = difference("success", "points", "x", "y", rates(10), other, rate=True)
    assert found.value == pytest.approx(0)
    assert found.won == (10, 10)
    assert found.p == 1
    assert found.better == ""
    same = difference("success", "points", "x", "y", rates(10), rates(10), rate=True)
    assert same.interval == stats.alike(0, 20)
    assert same.better == ""
    assert same.won == (0, 0)
    ever = difference("success", "points", "x", "y", rates(20), rates(0), rate=True)
    assert ever.interval == stats.alike(1, 20)
    assert ever.better == "x"


def test_a_difference_that_is_clear_names_the_better_run() -> None:
    found = difference("success", "points", "x", "y", rates(4), rates(18), rate=True)
    assert found.value == pytest.approx(-0.7)
    assert found.better == "y"
    assert found.p == pytest.approx(stats.mcnemar(0, 14))


def test_only_what_both_have_counts_and_the_rest_is_counted() -> None:
    found = difference(
        "psnr", "dB", "x", "y", {"a/1": 20.0, "a/2": 22.0}, {"a/2": 21.0, "b/1": 5.0}
    )
    assert (found.value, found.n, found.only_first, found.only_second) == (1.0, 1, 1, 1)
    assert found.interval is None
    assert found.better == ""
    assert found.p is None
    nothing = difference("psnr", "dB", "x", "y", {"a/1": 1.0}, {"b/1": 1.0})
    assert (nothing.value, nothing.n) == (None, 0)


def test_every_task_weighs_the_same() -> None:
    """Task a has ten pairs with a difference of 1, task b two with none."""
    first = {**{f"a/{i}": 1.0 for i in range(10)}, "b/0": 0.0, "b/1": 0.0}
    found = difference("success", "points", "x", "y", first, dict.fromkeys(first, 0.0))
    assert found.value == pytest.approx(0.5)


def test_every_run_is_held_against_every_later_one() -> None:
    found = differences("success", "points", {"x": rates(1), "y": rates(2), "z": rates(3)})
    assert [(one.first, one.second) for one in found] == [("x", "y"), ("x", "z"), ("y", "z")]


def test_values_are_those_of_episodes_and_states() -> None:
    episodes = [pusher.episode(seed, solved=seed == 1) for seed in range(3)]
    assert success_values(episodes) == {f"toy/pusher/{seed}": seed == 1 for seed in range(3)}
    probes = pusher.probes(n=3)
    values = state_values("moving_psnr", probes)
    assert {item.rpartition("-")[0] for item in values} <= {f"toy/pusher/{p.seed}" for p in probes}
    assert values
