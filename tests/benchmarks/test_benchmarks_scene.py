"""The scene on the page: who listens, and what is missing."""

from __future__ import annotations

from typing import Any

import pytest
import scene_tables
from findings import MET, MISSING, PARTIAL
from made_cells import cell, outcomes
from tables import Found

TASK = "scene/open-drawer"


def trained(model: str, solved: int = 18) -> dict[str, Any]:
    return cell({TASK: solved}, n=20, model=model, protocol="scene")


def played(model: str, condition: str, solved: int, told: int = 0) -> dict[str, Any]:
    return {
        "protocol": "scene",
        "model": model,
        "seed": 0,
        "attempt": 1,
        "condition": condition,
        "sentence": condition if condition in ("swapped", "empty") else 0,
        "suite": f"scene-{condition}" if condition.startswith("chains") else "",
        "success": {TASK: outcomes(solved, 10)},
        "told": {TASK: outcomes(told, 10)},
        "tasks_done": {"value": None},
    }


def all_of(model: str) -> list[dict[str, Any]]:
    return [played(model, name, 1, told=8) for name in scene_tables.ASKED]


def test_nothing_measured_is_missing() -> None:
    assert scene_tables.finding(Found({}, [], {})).verdict == MISSING
    assert "not measured" in scene_tables.tables(Found({}, [], {}))


@pytest.mark.parametrize("left_out", ["", "uwm", "chains-3"])
def test_all_systems_under_all_conditions_are_asked_for(left_out: str) -> None:
    systems = [name for name in scene_tables.SYSTEMS if name != left_out]
    conditions = [one for name in systems for one in all_of(name) if one["condition"] != left_out]
    found = Found({}, [trained(name) for name in systems], {}, conditions)
    assert scene_tables.finding(found).verdict == (PARTIAL if left_out else MET)


def test_what_was_said_is_named_beside_what_was_asked() -> None:
    found = Found({}, [trained("gr1")], {}, all_of("gr1"))
    said = scene_tables.finding(found).measured.replace("\xa0", " ")
    assert said == (
        "`gr1` right 90 %, swapped 10 %, what was said instead 80 %, empty 10 %, "
        "chains-2 10 %, chains-3 10 %"
    )


def test_another_training_than_the_last_does_not_count() -> None:
    first, second = trained("gr1"), {**trained("gr1"), "attempt": 2}
    said = scene_tables.finding(Found({}, [first, second], {}, all_of("gr1"))).measured
    assert said.replace("\xa0", " ") == "`gr1` right 90 %"


def test_every_cell_of_the_scene_is_on_the_page() -> None:
    text = scene_tables.tables(Found({}, [trained("gr1"), trained("uwm", 10)], {}))
    assert "`gr1`, attempt 1" in text
    assert "+40.0" not in text.split("###")[0]
    assert "Missing" not in text
