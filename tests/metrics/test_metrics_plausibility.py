"""Film success beside its controls, between floor and ceiling, and over several models."""

from __future__ import annotations

import numpy as np
import pytest

from wamlab.metrics.base import compute
from wamlab.metrics.compare import success_values
from wamlab.metrics.plausibility import agreement, between, mmrv, pearson
from wamlab.metrics.stats import alike
from wamlab.types import Episode


def played(*outcomes: str, policy: str = "model") -> list[Episode]:
    """One task for each string, one start for each digit; a blank start was not played."""
    return [
        Episode(
            f"point/{task}", "push", seed, {}, np.zeros((2, 4), np.float32),
            np.zeros((1, 4), np.float32), np.array([digit == "1"]), policy=policy,
        )
        for task, digits in enumerate(outcomes)
        for seed, digit in enumerate(digits)
        if digit != " "
    ]  # fmt: skip


CONTROLS = {
    "ceiling": played("1111011111", "1111111110", policy="ceiling"),
    "shuffled": played("0000100000", "0000000000", policy="shuffled"),
}


def test_the_rates_of_the_paper_have_their_intervals() -> None:
    """40.74 % is 11 of 27, 61.11 % is 11 of 18: Wilson's intervals of the specification."""
    for n, ends in ((27, (24.5, 59.3)), (18, (38.6, 79.7))):
        own = played("1" * 11 + "0" * (n - 11))
        controls = {"ceiling": played("1" * n), "shuffled": played("0" * n)}
        found = compute("film_success", own, controls=controls)
        assert found.value == pytest.approx(11 / n)
        assert [100 * end for end in found.interval] == pytest.approx(ends, abs=0.05)
        assert found.details["between"]["value"] == pytest.approx(11 / n)


def test_every_control_stands_beside_the_rate_paired_by_start() -> None:
    found = compute("film_success", played("1110011111", "1100000000"), controls=CONTROLS)
    assert found.value == pytest.approx(0.5)
    ceiling = found.details["controls"]["ceiling"]
    assert ceiling["rate"] == pytest.approx(0.9)
    assert ceiling["parts"] == {"point/0": [9, 10], "point/1": [9, 10]}
    assert ceiling["less"]["value"] == pytest.approx(-0.4)
    assert ceiling["less"]["won"] == (0, 8)
    assert ceiling["less"]["p"] == pytest.approx(2 / 2**8)
    assert found.details["between"]["value"] == pytest.approx((0.5 - 0.05) / (0.9 - 0.05))
    low, high = found.details["between"]["interval"]
    assert low < 0.53 < high
    assert found.details["needs_object"] is None


def test_only_shared_starts_are_compared() -> None:
    """The ceiling lacks the starts whose demonstration failed."""
    ceiling = played("11 1 1111", policy="ceiling")
    controls = {
        "ceiling": ceiling,
        "shuffled": played("000010000", policy="shuffled"),
        "object erased": played("01 0 0000", policy="object erased"),
    }
    found = compute("film_success", played("101111111"), controls=controls)
    less = found.details["controls"]["ceiling"]["less"]
    assert (less["n"], less["only_first"]) == (7, 2)
    assert less["value"] == pytest.approx(-1 / 7)
    assert found.details["between"]["value"] == pytest.approx(6 / 7)
    assert found.details["between"]["n"] == 7
    assert found.details["needs_object"]["value"] == pytest.approx(6 / 7)


def test_a_ceiling_above_the_floor_on_few_starts_may_be_chance() -> None:
    """Of five starts that it alone solves p is 1 in 16."""
    for starts, known in ((5, False), (6, True)):
        own, floor = (success_values(played(digit * starts)) for digit in "10")
        assert (between(own, floor, own).value is not None) == known


def test_pairs_that_are_all_alike_are_as_sure_as_they_are_many() -> None:
    """Six starts that only the ceiling solves: by Wilson at least .610 of all are such."""
    always, never = played("111111"), played("000000")
    controls = {"ceiling": always, "shuffled": never, "object erased": never}
    found = compute("film_success", always, controls=controls).details
    assert found["needs_object"]["value"] == 1
    assert found["needs_object"]["interval"] == alike(1, 6) == pytest.approx((0.219, 1), abs=5e-4)
    assert (found["between"]["value"], found["between"]["interval"]) == (1, None)
    forgiven = compute("film_success", always, controls={**controls, "object erased": always})
    needed = forgiven.details["needs_object"]
    assert (needed["value"], needed["interval"]) == (0, alike(0, 6))
    assert needed["interval"].high == pytest.approx(0.390, abs=5e-4)


def test_without_floor_or_ceiling_there_is_no_rate() -> None:
    own = played("1010")
    for missing in ("ceiling", "shuffled"):
        known = {name: logs for name, logs in CONTROLS.items() if name != missing}
        found = compute("film_success", own, controls=known)
        assert found.value is None
        assert f"{missing!r} has no episode" in found.why_not
    assert "nobody has read films" in compute("film_success", own).why_not
    assert "no episodes" in compute("film_success", [], controls=CONTROLS).why_not


def test_a_judge_that_cannot_tell_real_from_shuffled_judges_nothing() -> None:
    one, other, own = (success_values(played(x)) for x in ("110100", "110010", "111111"))
    found = between(own, floor=one, ceiling=other)
    assert found.value is None
    assert "cannot be told from the floor" in found.why_not
    assert between(own, {}, {}).why_not == "0 starts were played in all three"


SIM, REAL = np.array([0.1, 0.5, 0.4, 0.9]), np.array([0.2, 0.3, 0.6, 0.8])
TIED, APART = np.array([0.5, 0.5, 0.9]), np.array([0.2, 0.3, 0.8])
# Predicted, measured, and the violation of ranks.
RANKS = {
    "rates": (SIM, REAL, 0.15),
    "rates, sides exchanged": (REAL, SIM, 0.05),
    "a tie": (TIED, APART, 0.03333),
    "a tie, sides exchanged": (APART, TIED, 0.0),
}
TOGETHER = 0.83346


def test_mmrv_and_pearson_have_the_values_of_the_specification() -> None:
    for predicted, measured, published in RANKS.values():
        assert mmrv(predicted, measured) == pytest.approx(published, abs=5e-6)
    assert pearson(SIM, REAL) == pytest.approx(TOGETHER, abs=5e-6)
    assert pearson(np.ones(3), APART) is None
    with pytest.raises(ValueError, match="two or more models"):
        mmrv(np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="NaN"):
        pearson(np.array([np.nan, 1.0]), np.ones(2))


def test_models_are_ranked_on_the_starts_that_all_of_them_played() -> None:
    rates = {"a": "1000000000", "b": "1111000000", "c": "1111111100"}
    films = {name: success_values(played(digits)) for name, digits in rates.items()}
    same = agreement(films, films)
    assert (same.models, same.mmrv, same.pearson) == (3, 0, pytest.approx(1))
    assert same.mmrv_interval == (0, 0)
    swapped = agreement(films, {"a": films["c"], "b": films["b"], "c": films["a"]})
    assert swapped.mmrv == pytest.approx((0.7 + 0.4 + 0.7) / 3)
    assert swapped.pearson == pytest.approx(-1, abs=0.02)
    two = agreement({n: films[n] for n in "ab"}, {n: films[n] for n in "ab"})
    assert two.pearson is None
    with pytest.raises(ValueError, match="same two or more models"):
        agreement(films, {"a": films["a"]})
    with pytest.raises(ValueError, match="1 starts were played by all"):
        agreement(films, {**films, "a": success_values(played("1"))})
