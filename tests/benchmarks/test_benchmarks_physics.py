"""Thresholds come from real clips alone, the confusion counts what they raise, the page says it."""

from __future__ import annotations

from typing import Any

import pytest
from findings import MET, MISSING, NOT_MET
from physics_clips import Task, tasks_of
from physics_faults import ALPHA, MEASURES, Judged, Seen, confusion, seen, thresholds
from physics_tables import ASKED, finding, tables
from tables import Found

STEPS = 24


def clip(fault: str = "real", *, free: bool = True, **values: float) -> Seen:
    """A clip on which every measure is 0, but for those given."""
    every = {**dict.fromkeys(MEASURES, 0.0), **values}
    return Seen("push", free, fault, every, {})


def calibration(free: bool) -> list[Seen]:
    return [clip(free=free, jump=1 + step / STEPS) for step in range(STEPS)]


LIMITS = thresholds([*calibration(True), *calibration(False)])


def judged(*clips: Seen) -> list[Judged]:
    return [Judged(one, LIMITS) for one in clips]


def test_a_threshold_is_the_highest_of_a_few_real_clips_or_the_gate() -> None:
    assert LIMITS["free"]["jump"] == 1 + (STEPS - 1) / STEPS
    assert LIMITS["free"]["motion without contact"] == MEASURES["motion without contact"].gate
    assert LIMITS["free"]["lost"] == 0


def test_too_few_real_clips_or_none_to_which_it_applies_fix_no_threshold() -> None:
    few = calibration(True)[: round(1 / ALPHA) - 2]
    assert thresholds([*few, *calibration(False)])["free"]["jump"] is None
    held = [
        Seen("door-open", False, "real", {"jump": 1.0}, {"gravity": "a joint holds the thing"})
        for _ in range(STEPS)
    ]
    limits = thresholds([*calibration(True), *held])["held by a joint"]
    assert limits["gravity"] is None
    assert limits["jump"] == 1.0


def test_where_a_measure_applies_to_some_clips_the_others_raise_no_alarm() -> None:
    some = [
        Seen("push", True, "real", {"gravity": 2.0} if number % 3 else {}, {})
        for number in range(STEPS)
    ]
    assert thresholds([*some, *calibration(False)])["free"]["gravity"] == 2.0


def test_the_confusion_counts_alarms_and_where_a_measure_applies() -> None:
    found = confusion(
        judged(
            clip(),
            clip(jump=3.0),
            clip("vanish", lost=0.5),
            clip("vanish", lost=0.5, jump=9.0),
            Seen("push", True, "vanish", {"jump": 9.0}, {"lost": "not seen"}),
        )
    )
    assert found["real"]["jump"]["alarms"] == 1
    assert found["real"]["any"]["alarms"] == 1
    assert found["vanish"]["lost"] == {
        "alarms": 2,
        "clips": 3,
        "applicable": 2,
        "wilson_95": [pytest.approx(0.2077, abs=1e-4), pytest.approx(0.9385, abs=1e-4)],
    }
    assert found["vanish"]["any"]["alarms"] == 3
    only_truth = confusion(judged(clip("freeze", **{"motion against truth": 0.5})))["freeze"]
    assert only_truth["any"]["alarms"] == 1
    assert only_truth["any without the truth"]["alarms"] == 0


def made(caught: int = 20, n: int = 20) -> dict[str, Any]:
    """A result whose every fault is caught by one measure, so many times."""
    real = [clip() for _ in range(n)]
    faults = [
        clip(fault, **({"lost": 0.5} if number < caught else {}))
        for fault in ASKED
        for number in range(n)
    ]
    return {
        "clips": {"calibration": 2 * STEPS, "test": n},
        "settings": {"image_size": 128, "instants": 48, "alpha": ALPHA, "noise": 0.01},
        "tasks": {"free": ["push"]},
        "faults": dict.fromkeys(ASKED, "goes wrong"),
        "reads": {name: measure.reads for name, measure in MEASURES.items()},
        "units": {name: measure.unit for name, measure in MEASURES.items()},
        "needs_truth": {name: measure.needs_truth for name, measure in MEASURES.items()},
        "thresholds": LIMITS,
        "confusion": confusion(judged(*real, *faults)),
    }


def test_the_page_says_what_is_told_and_what_is_not() -> None:
    assert finding(Found({}, [], {})).verdict == MISSING
    good, bad = (Found({"physics_faults": made(caught)}, [], {}) for caught in (20, 2))
    assert finding(good).verdict == MET
    assert finding(bad).verdict == NOT_MET
    assert "7 of 7, 7 without the true video" in finding(good).measured
    text = tables(good)
    (lost,) = [line for line in text.splitlines() if line.startswith("| lost | masks")]
    assert "0/20 (0 to 16 %)" in lost
    assert "20/20 (84 to 100 %)" in lost
    assert lost.endswith("| nothing |")
    (jump,) = [line for line in text.splitlines() if line.startswith("| jump | states")]
    assert jump.endswith("| teleport, vanish, float, melt, ghost motion, reversal and freeze |")


def test_real_clips_and_their_twins() -> None:
    task = Task("push", "obj", free=True)
    ((real, twins),) = task.twins(range(1), size=64, faults=("teleport", "vanish"))
    ordinary, jumped, gone = (seen(one, real, "") for one in (real, *twins.values()))
    assert ordinary.values["jump"] < 2 < 8 < jumped.values["jump"]
    assert ordinary.values["lost"] == 0 < gone.values["lost"]
    assert ordinary.values["motion without contact"] < 0.01
    assert ordinary.values["motion against truth"] < 0.01 < gone.values["motion against truth"]


def test_unknown_tasks_have_a_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'push'"):
        tasks_of(["push-"])
