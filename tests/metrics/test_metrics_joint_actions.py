"""Inverse-cycle consistency of imaginations whose coupling is known, read by a noisy judge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from wamlab.metrics.base import Result, compute
from wamlab.types import ActionSpace, Branch, Probe

STATES, SAMPLES, STEPS = 12, 4, 16
UNITS = np.array([1, 1, 1, 100])
SPACE = ActionSpace(
    tuple("xyzw"), tuple(-UNITS), tuple(UNITS), ("delta",) * 4, ("m", "m", "m", "cm"), 10.0
)
Decode = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def noisy(chunks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return chunks + 0.2 * rng.standard_normal(chunks.shape)


def other_s(chunks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return noisy(np.roll(chunks, 1, axis=0), rng)


def late(chunks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return noisy(np.concatenate([chunks[:, :1], chunks[:, :-1]], axis=1), rng)


def exactly(chunks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return chunks


def half_other_s(chunks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Between the own chunk and that of the next sample."""
    return 0.7 * chunks + 0.3 * np.roll(chunks, 1, axis=0)


def one_for_all(chunks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(noisy(chunks[:1], rng), chunks.shape)


def probes(imagined: Decode = noisy, executed: Decode = noisy, spread: float = 1.0) -> list[Probe]:
    """The third dimension never changes, the fourth is in units of a hundred."""
    rng = np.random.default_rng(0)
    return [probe(seed, rng, imagined, executed, spread) for seed in range(STATES)]


def probe(
    seed: int, rng: np.random.Generator, imagined: Decode, executed: Decode, spread: float
) -> Probe:
    shape, units = (SAMPLES, STEPS, 4), UNITS * [1, 1, 0, 1]
    mode = rng.standard_normal((1, STEPS, 4))
    own = mode + spread * rng.standard_normal(shape)
    frames = {"top": np.zeros((1, 2, 2, 3), np.uint8)}
    branches = [
        Branch(
            "own",
            str(k),
            (own[k] * units).astype(np.float32),
            np.array([16]),
            frames,
            imagined=frames,
            decoded=(read[k] * units).astype(np.float32),
            redecoded=(real[k] * units).astype(np.float32),
        )
        for read, real in [(imagined(own, rng), executed(own, rng))]
        for k in range(SAMPLES)
    ]
    return Probe("e", "", seed, 0, frames, np.zeros(1, np.float32), branches, judge="inverse ab")


def measured(name: str, found: list[Probe]) -> Result:
    return compute(name, found, space=SPACE)


def test_what_the_judge_reads_is_the_own_action_or_that_of_another_sample() -> None:
    """For noise 0.2 and spread 1 in 3 dimensions the ceiling is 1 - 0.2 / sqrt(2 + 0.04)."""
    right, other = measured("icc", probes()), measured("icc", probes(other_s))
    assert right.value == pytest.approx(1 - 0.2 / 2.04**0.5, abs=0.02)
    assert right.value == pytest.approx(right.details["ceiling"], abs=0.02)
    assert right.details["normalised"] == right.value / right.details["ceiling"]
    assert (right.details["lag"], right.details["ceiling_lag"]) == (0, 0)
    assert other.value < -0.3
    assert right.interval.low > other.interval.high
    assert measured("icc", probes(one_for_all)).value == pytest.approx(0, abs=1e-6)


def test_contact_phases_are_parts_and_one_that_was_not_read_says_so() -> None:
    phased = [*probes(), *probes(other_s)]
    for one, stratum in zip(phased, ["free"] * STATES + ["contact"] * STATES, strict=True):
        one.stratum = stratum
    parts = measured("icc", phased).parts
    assert parts["free"].value == pytest.approx(measured("icc", probes()).value)
    assert parts["contact"].value < 0
    for branch in (b for one in phased[STATES:] for b in one.branches):
        branch.decoded = None
    assert measured("icc", phased).parts["contact"].why_not.startswith("a judge has read 0")


def test_a_late_imagination_fits_best_one_step_later() -> None:
    found = measured("icc", probes(late))
    assert found.value < 0.3
    assert (found.details["lag"], found.details["ceiling_lag"]) == (1, 0)


def test_the_unit_of_a_dimension_is_no_weight() -> None:
    """The fourth in hundredths of its range, or in a space that says so: one number."""
    scaled = probes()
    for one in scaled:
        for branch in one.branches:
            for chunk in (branch.action, branch.decoded, branch.redecoded):
                chunk[:, 3] /= 100
    found = compute("icc", scaled)
    assert found.value == pytest.approx(measured("icc", probes()).value, abs=1e-5)


def test_what_hardly_varies_cannot_lower_the_score_by_how_it_is_read() -> None:
    """A gripper at 1, give or take 1e-4, that is read to 0.1 adds 0.01 to both squares."""
    gripped = probes()
    rng = np.random.default_rng(1)
    for branch in (b for one in gripped for b in one.branches):
        branch.action[:, 2] = 1 + 1e-4 * rng.standard_normal(STEPS)
        for chunk in (branch.decoded, branch.redecoded):
            chunk[:, 2] = 1 + 0.1 * rng.standard_normal(STEPS)
    assert measured("icc", gripped).value == pytest.approx(1 - (0.13 / 6.13) ** 0.5, abs=0.02)


def test_a_policy_at_rest_is_undefined_however_well_it_is_read() -> None:
    """Chunks that differ by 1e-4, read exactly, say nothing of what follows from an action."""
    exact = lambda chunks, rng: chunks  # noqa: E731
    rest = by_itself(exact, one_for_all)
    for branch in (b for one in rest for b in one.branches):
        branch.action *= 1e-4
        branch.extracted *= 1e-4
        branch.reextracted *= 1e-4
    found = measured("action_state_consistency", rest)
    assert found.value is None
    assert found.undefined == {"own actions differ by 0.05 or less": STATES}
    moving = measured("action_state_consistency", by_itself(exact, one_for_all))
    assert moving.value == pytest.approx(1)
    assert moving.details["normalised"] is None


def test_an_action_that_was_read_off_the_imagination_has_no_share_of_the_ceiling() -> None:
    """Off what happened it is seen half as well: more than the ceiling is no more than all."""
    found = measured("icc", probes(imagined=exactly, executed=half_other_s))
    assert found.value == pytest.approx(1)
    assert 0.2 < found.details["ceiling"] < 0.8
    assert (found.details["above_ceiling"], found.details["normalised"]) == (True, None)
    usual = measured("icc", probes(imagined=half_other_s, executed=exactly)).details
    assert not usual["above_ceiling"]
    assert usual["normalised"] == pytest.approx(found.details["ceiling"])


def test_where_executions_come_late_to_the_judge_no_lag_is_told() -> None:
    found = measured("icc", probes(imagined=late, executed=late)).details
    assert (found["ceiling_lag"], found["lag"]) == (1, None)


def test_what_fits_at_no_lag_has_none() -> None:
    found = measured("icc", probes(one_for_all)).details
    assert (found["lag"], found["ceiling_lag"]) == (None, 0)


def by_itself(*readings: Decode) -> list[Probe]:
    """The same chunks, read by the model itself."""
    found = probes(*readings)
    for branch in (b for one in found for b in one.branches):
        branch.extracted, branch.reextracted = branch.decoded, branch.redecoded
        branch.decoded = branch.redecoded = None
    return found


def test_a_model_that_reads_its_own_imagination_is_asked_nothing_else() -> None:
    """It may agree with itself and be wrong, and one whose INVERSE looks at nothing scores 0."""
    name = "action_state_consistency"
    right, wrong = measured(name, by_itself()), measured(name, by_itself(noisy, other_s))
    assert right.value == wrong.value == pytest.approx(measured("icc", probes()).value)
    assert right.details["ceiling"] > 0.8
    assert wrong.details["ceiling"] < -0.3
    assert wrong.details["normalised"] is None
    blind = measured(name, by_itself(one_for_all, one_for_all))
    assert (blind.value, blind.details["ceiling"]) == pytest.approx((0, 0), abs=1e-6)
    assert measured("icc", by_itself()).why_not.startswith("a judge has read 0")
    unread = measured(name, probes())
    assert unread.why_not.startswith(f"the model itself has read 0 of {STATES} probes")


def test_where_there_is_no_value_the_reason_is_said() -> None:
    same = measured("icc", probes(spread=0.001))
    assert same.why_not == f"own actions differ by 0.05 or less ({STATES})"
    blind = measured("icc", probes(executed=one_for_all))
    assert blind.why_not.startswith(
        f"the judge cannot tell in {STATES} states (at least 5 are needed)"
    )
    still = probes()
    for one in still:
        for branch in one.branches:
            branch.action[:] = 1
    assert measured("icc", still).why_not == f"own actions differ by 0.05 or less ({STATES})"
    unread = probes()
    for one in unread:
        one.judge = ""
        for branch in one.branches:
            branch.decoded = None
    assert measured("icc", unread).why_not.startswith(f"a judge has read 0 of {STATES} probes")
    for one in unread:
        for branch in one.branches:
            branch.imagined, branch.why_not = None, "in features"
    assert "in features" in measured("icc", unread).why_not
