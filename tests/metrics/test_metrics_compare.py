"""Differences between runs, pair by pair, where every number is known."""

from __future__ import annotations

import numpy as np
import pusher
import pytest

from wamlab.metrics import coupling, stats
from wamlab.metrics.base import Result, compute
from wamlab.metrics.compare import (
    difference,
    differences,
    ratio_difference,
    state_differences,
    success_values,
)


def rates(solved: int, n: int = 20, task: str = "a") -> dict[str, float]:
    return {f"{task}/{seed}": float(seed < solved) for seed in range(n)}


def test_pairs_stay_pairs() -> None:
    """Both solve 10 of 20, one the first ten and the other the last: no difference, 20 apart."""
    other = {item: 1 - value for item, value in rates(10).items()}
    found = difference("success", "points", "x", "y", rates(10), other, rate=True)
    assert found.value == pytest.approx(0)
    assert found.won == (10, 10)
    assert found.p == 1
    assert found.higher == ""
    same = difference("success", "points", "x", "y", rates(10), rates(10), rate=True)
    assert same.interval == stats.alike(0, 20)
    assert same.higher == ""
    assert same.won == (0, 0)
    ever = difference("success", "points", "x", "y", rates(20), rates(0), rate=True)
    assert ever.interval == stats.alike(1, 20)
    assert ever.higher == "x"


def test_a_difference_that_is_clear_names_the_better_run() -> None:
    found = difference("success", "points", "x", "y", rates(4), rates(18), rate=True)
    assert found.value == pytest.approx(-0.7)
    assert found.higher == "y"
    assert found.p == pytest.approx(stats.mcnemar(0, 14))


def test_few_pairs_carry_no_interval_and_no_verdict() -> None:
    """Of [1, 1, 1, 0] a bootstrap says .25 to 1, and the exact test p = .25."""
    few = difference("success", "points", "x", "y", rates(3, 4), rates(0, 4), rate=True)
    assert (few.value, few.interval, few.p, few.higher) == (0.75, None, 0.25, "")
    psnr = {f"a/{i}": 20.0 + i for i in range(6)}
    lower = {item: value - 1 for item, value in psnr.items()}
    assert difference("psnr", "dB", "x", "y", psnr, lower).higher == "x"
    few = {item: lower[item] for item in [*lower][:4]}
    assert difference("psnr", "dB", "x", "y", psnr, few).interval is None


def test_a_verdict_is_never_against_the_exact_test() -> None:
    """Of five pairs that all go one way p is 1 in 16, of six 1 in 32; of rates as of decibels."""
    for n, higher in ((5, ""), (6, "x")):
        psnr = {f"a/{i}": 20.0 + i for i in range(n)}
        lower = {item: value - 1 - 0.1 * i for i, (item, value) in enumerate(psnr.items())}
        found = difference("psnr", "dB", "x", "y", psnr, lower)
        assert found.interval.low > 0
        assert (found.p, found.higher) == (2 / 2**n, higher)
        ratio = ratio_difference(
            "EIC", "", "x", "y", dict.fromkeys(psnr, (0.1, 1.0)), dict.fromkeys(psnr, (0.9, 1))
        )
        assert (ratio.p, ratio.higher) == (2 / 2**n, higher)
    five = difference("success", "points", "x", "y", rates(5), rates(0), rate=True)
    assert five.interval.low > 0
    assert (five.p, five.higher) == (1 / 16, "")
    six = difference("success", "points", "x", "y", rates(6), rates(0), rate=True)
    assert (six.p, six.higher) == (1 / 32, "x")


def test_among_several_runs_the_exact_test_is_adjusted() -> None:
    """x over y and over z: 1 in 32 alone, 3 in 32 by Holm among three pairs of runs."""
    runs = {"x": rates(6), "y": rates(0), "z": rates(0)}
    found = differences("success", "points", runs, rate=True)
    assert [one.adjusted for one in found] == [3 / 32, 3 / 32, 1.0]
    assert [one.higher for one in found] == ["", "", ""]
    (alone,) = differences("success", "points", {"x": rates(6), "y": rates(0)}, rate=True)
    assert (alone.adjusted, alone.higher) == (1 / 32, "x")
    results = {
        run: Result("psnr", "dB", value=value, items={f"a/{i}": value for i in range(6)})
        for run, value in {"x": 2.0, "y": 1.0, "z": 1.0}.items()
    }
    found = state_differences("psnr", "dB", results)
    assert [one.adjusted for one in found] == [3 / 32, 3 / 32, 1.0]
    assert [one.higher for one in found] == ["", "", ""]


def test_a_ratio_of_sums_is_compared_as_one() -> None:
    """A state where next to nothing happens turns the mean of ratios around, and not their sums."""
    ones = {f"a/{i}-0": (0.5, 1.0) for i in range(9)} | {"a/9-0": (0.03, 0.006)}
    others = dict.fromkeys(ones, (0.7, 1.0))
    found = ratio_difference("EIC_cf", "", "x", "y", ones, others)
    assert found.value == pytest.approx((1 - 4.53 / 9.006) - 0.3)
    assert found.higher == "x"
    few = ratio_difference("EIC_cf", "", "x", "y", ones, {"a/1-0": (0.7, 1.0)})
    assert (few.value, few.n, few.only_first) == (pytest.approx(0.2), 1, 9)
    assert few.interval is None
    nothing = ratio_difference("EIC_cf", "", "x", "y", ones, {"b/1-0": (0.7, 1.0)})
    assert (nothing.value, nothing.n) == (None, 0)
    still = dict.fromkeys(ones, (0.0, 0.0))
    assert ratio_difference("EIC_cf", "", "x", "y", ones, still).value is None


def test_on_the_same_states_it_is_the_difference_of_what_is_reported() -> None:
    scene = pusher.scene(states=24, samples=4)
    references = scene.execute(scene.imposed).robot[..., 1:, :]
    read = {
        model: coupling.eic_ref(pusher.paths(model, scene)["robot"], references)
        for model in ("oracle", "blind")
    }
    seen = {fault: compute("eic_cf", pusher.probes(fault, 8)) for fault in ("oracle", "blind")}
    for results in (read, seen):
        (found,) = state_differences("it", "", results)
        first, second = results.values()
        assert found.n == first.n == second.n
        assert found.value == pytest.approx(first.value - second.value)
        assert found.value != pytest.approx(
            np.mean([*first.items.values()]) - np.mean([*second.items.values()]), abs=1e-4
        )


def test_only_what_both_have_counts_and_the_rest_is_counted() -> None:
    found = difference(
        "psnr", "dB", "x", "y", {"a/1": 20.0, "a/2": 22.0}, {"a/2": 21.0, "b/1": 5.0}
    )
    assert (found.value, found.n, found.only_first, found.only_second) == (1.0, 1, 1, 1)
    assert found.interval is None
    assert found.higher == ""
    assert found.p == 1
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
    known = compute("moving_psnr", pusher.probes(n=3))
    nothing = compute("moving_psnr", [])
    assert state_differences("psnr", "dB", {"x": known, "y": nothing}) == []
    (same,) = state_differences("psnr", "dB", {"x": known, "z": known})
    assert (same.value, same.n) == (0, 3)
