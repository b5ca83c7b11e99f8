"""Other conditions than those of training: which there are, what is kept, what the page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import condition_tables
import conditions
import numpy as np
import pytest
from cells import Cell, Places
from conditions import Condition
from made_cells import cell, outcomes
from tables import Found

from wamlab.data.logs import save_episode
from wamlab.sim.shifts import shifts
from wamlab.train.checkpoint import CheckpointError
from wamlab.types import Episode

TASKS = ("metaworld/a", "metaworld/b")


def played(condition: str, solved: int, suite: str = "", **more: Any) -> dict[str, Any]:
    return {
        "protocol": "mw-6",
        "model": "uwm",
        "seed": 0,
        "attempt": 1,
        "condition": condition,
        "suite": suite,
        "sentence": 0,
        "success": {env: outcomes(solved, 5) for env in TASKS},
        "tasks_done": {"value": None},
        "machine": {"load": 0.1},
        "provenance": {"command": "benchmarks/conditions.py mw-6"},
        **more,
    }


def test_meta_world_is_judged_under_every_shift() -> None:
    assert {one.shift for one in conditions.conditions("mw-6")} == set(shifts())


def test_the_scene_is_judged_by_what_is_said_and_asked() -> None:
    said = {one.sentence for one in conditions.conditions("scene")}
    assert {0, 1, "swapped", "empty"} == said
    assert [one.name for one in conditions.chosen("scene", ["empty"])] == ["empty"]
    with pytest.raises(KeyError, match="did you mean 'swapped'"):
        conditions.chosen("scene", ["swap"])


def test_a_cell_that_was_not_trained_here_is_named(tmp_path: Path) -> None:
    places = Places(tmp_path / "results", tmp_path / "work")
    with pytest.raises(CheckpointError, match="uwm-seed0-attempt1 does not exist"):
        conditions.play(Cell("mw-6", "uwm", 0), Condition("light", shift="light"), places, 1)


def test_a_result_is_made_of_the_logs_alone(tmp_path: Path) -> None:
    for seed, done in ((0, 2), (1, 1)):
        state, action = np.zeros((3, 1), np.float32), np.zeros((2, 1), np.float32)
        one = Episode(
            "scene/a+b", "a, then b", seed, {}, state, action, np.array([False, done == 2]),
            columns={"tasks_done": np.array([0, done])},
        )  # fmt: skip
        save_episode(tmp_path, one)
    chain = Condition("chains-2", suite="scene-chains-2")
    found = conditions.judged(Cell("scene", "uwm", 3), chain, tmp_path, {"load": 0.1})
    assert (found["seed"], found["condition"], found["suite"]) == (3, "chains-2", "scene-chains-2")
    assert found["success"]["scene/a+b"]["outcomes"] == "10"
    assert found["tasks_done"]["value"] == 1.5


def test_the_page_pairs_a_condition_with_the_same_starts_as_trained() -> None:
    own = cell(dict.fromkeys(TASKS, 5), n=20, protocol="mw-6")
    found = Found({}, [own], {}, [played("light", 3), played("gain", 5)])
    text = condition_tables.tables(found)
    light, gain = (line for line in text.splitlines() if line.startswith(("| light", "| gain")))
    assert "60.0 %" in light
    assert "−40.0" in light
    assert "+0.0" in gain
    assert "25.0 %" in text.splitlines()[6]


def test_the_page_shows_the_last_attempt_and_says_so() -> None:
    first = played("light", 1)
    last = [played("light", 3, attempt=2, seed=seed) for seed in (2, 0)]
    text = condition_tables.tables(Found({}, [], {}, [*last, first]))
    assert "60.0 %" in text
    assert "attempt 2, seeds 0, 2" in text


def test_a_chain_says_how_many_of_its_tasks_were_done_by_all_seeds() -> None:
    chains = [
        {**played("chains-2", 1, "scene-chains-2", tasks_done={"value": done}), "seed": seed}
        for seed, done in enumerate((1.25, 0.25))
    ]
    text = condition_tables.tables(Found({}, [], {}, chains))
    assert "0.75 tasks done" in text


def test_what_is_said_is_judged_beside_what_is_asked(tmp_path: Path) -> None:
    state, action = np.zeros((3, 1), np.float32), np.zeros((2, 1), np.float32)
    for seed, (asked, told) in enumerate(((0, 1), (0, 1), (1, 0), (0, 0))):
        one = Episode(
            "scene/a", "b", seed, {}, state, action, np.array([False, bool(asked)]),
            columns={"told_done": np.array([bool(told), False])},
        )  # fmt: skip
        save_episode(tmp_path, one)
    swapped = Condition("swapped", sentence="swapped")
    found = conditions.judged(Cell("scene", "uwm", 0), swapped, tmp_path, {"load": 0.1})
    assert found["success"]["scene/a"]["outcomes"] == "0010"
    assert found["told"]["scene/a"]["outcomes"] == "1100"
    text = condition_tables.tables(Found({}, [], {}, [found]))
    assert "25.0 %" in text
    assert "what is said is done in 50.0 %" in text
    assert "+25.0" in text


def test_what_was_not_played_is_said_to_be_missing() -> None:
    assert "Not measured" in condition_tables.tables(Found({}, [], {}))
