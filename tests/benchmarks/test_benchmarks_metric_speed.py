"""The race against torchmetrics: who is measured, and what the page makes of it."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import metric_speed
import metric_speed_table as page
import pytest
from findings import MET, MISSING, NOT_MET, PARTIAL
from tables import Found

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "metric_speed.json"


@pytest.fixture
def result() -> dict[str, Any]:
    return json.loads(RESULT.read_text())


def found(result: dict[str, Any]) -> Found:
    return Found({"metric_speed": result}, [], {})


def test_the_ratio_is_of_runs_that_stand_beside_each_other() -> None:
    """One slow minute falls on both sides of a pair and changes no ratio but its own."""
    seconds = {"ours": [1.0, 9.0, 1.0], "torchmetrics": [2.0, 18.0, 2.2]}
    assert metric_speed.ratio(seconds) == 2


def test_each_side_runs_as_often_and_begins_in_turn() -> None:
    order: list[str] = []

    def side(name: str) -> metric_speed.Work:
        def work() -> float:
            order.append(name)
            return 1.0

        return work

    raced = metric_speed.race(side("ours"), side("theirs"), 3, pairs=1)
    assert order[2:] == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert [len(times) for times in raced["seconds"].values()] == [3, 3]


def test_different_numbers_are_no_race() -> None:
    with pytest.raises(SystemExit, match=r"ours gives 1.0, torchmetrics 1.1: this is not the same"):
        metric_speed.race(lambda: 1.0, lambda: 1.1, 3)


def test_without_torchmetrics_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(SystemExit, match="pip install torchmetrics"):
        metric_speed.needed()


def test_the_slowest_work_decides(result: dict[str, Any]) -> None:
    lpips, frechet = page.findings(found(result))
    assert [lpips.verdict, frechet.verdict] == [MET, MET]
    slow = copy.deepcopy(result)
    slow["frechet"][1]["ratio"] = 0.89
    assert [one.verdict for one in page.findings(found(slow))] == [MET, NOT_MET]
    few = {**result, "runs": 3}
    assert {one.verdict for one in page.findings(found(few))} == {PARTIAL}
    assert {one.verdict for one in page.findings(Found({}, [], {}))} == {MISSING}


def test_the_page_states_work_load_and_command(result: dict[str, Any]) -> None:
    said = page.text(found(result))
    assert said.count("\n| LPIPS, ") + said.count("\n| Frechet distance, ") == 4
    assert f"Load {result['machine']['load']:.1f} before" in said
    assert "`python benchmarks/metric_speed.py" in said
    for name in page.ASKED:
        for work in result[name]:
            values = work["values"]
            assert values["ours"] == pytest.approx(values["torchmetrics"], rel=1e-4)
