"""Oracle substitution: which pairs of halves there are, what is kept, what the page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import substitution
import substitution_tables
from cells import Cell, Places
from made_cells import cell, outcomes
from substitution import HALVES, Halves
from tables import Found

from wamlab.data.logs import save_episode
from wamlab.recipes import recipe
from wamlab.run.substitution import EXTRACTORS, FUTURES
from wamlab.sim.instructions import INSTRUCTIONS
from wamlab.train.checkpoint import CheckpointError
from wamlab.types import Episode

TASKS = ("metaworld/a", "metaworld/b")


def played(future: str, extractor: str, solved: int) -> dict[str, Any]:
    return {
        "protocol": "mw-6",
        "model": "unipi",
        "seed": 0,
        "attempt": 1,
        "future": future,
        "extractor": extractor,
        "success": {env: outcomes(solved, 5) for env in TASKS},
        "machine": {"load": 0.1},
        "provenance": {"command": "benchmarks/substitution.py mw-6"},
    }


def test_nine_pairs_of_halves_are_played_each_once() -> None:
    assert len({halves.name for halves in HALVES}) == 9
    assert {halves.future for halves in HALVES} == {*FUTURES}
    assert {halves.extractor for halves in HALVES} == {*EXTRACTORS}


def test_another_instruction_is_that_of_the_next_task() -> None:
    envs = ("metaworld/door-lock", "metaworld/dial-turn")
    assert substitution.others(envs) == {
        "metaworld/door-lock": INSTRUCTIONS["dial-turn"],
        "metaworld/dial-turn": INSTRUCTIONS["door-lock"],
    }


def test_a_cell_that_was_not_trained_here_is_named(tmp_path: Path) -> None:
    places = Places(tmp_path / "results", tmp_path / "work")
    with pytest.raises(CheckpointError, match="unipi-seed0-attempt1 does not exist"):
        substitution.play(Cell("mw-6", "unipi", 0), HALVES[0], places, 1)


def test_pairs_can_be_played_one_by_one(tmp_path: Path, monkeypatch) -> None:
    played: list[str] = []
    monkeypatch.setattr(substitution, "play", lambda cell, halves, *_: played.append(halves.name))
    there = ["--work", str(tmp_path), "--results", str(tmp_path)]
    substitution.main(["mw-6", "--halves", "true-exact", "static-learned", *there])
    assert played == ["static-learned", "true-exact"]
    played.clear()
    substitution.main(["mw-6", *there])
    assert played == [halves.name for halves in HALVES]


def test_a_result_is_made_of_the_logs(tmp_path: Path) -> None:
    for seed, solved in ((0, True), (1, False)):
        state, action = np.zeros((3, 1), np.float32), np.zeros((2, 1), np.float32)
        save_episode(
            tmp_path, Episode(TASKS[0], "", seed, {}, state, action, np.array([0, solved]) > 0)
        )
    run, halves = recipe("mw-6/unipi"), Halves("true", "learned")
    found = substitution.judged(Cell("mw-6", "unipi", 3), halves, tmp_path, run, {"load": 0.1})
    assert (found["seed"], found["future"], found["extractor"]) == (3, "true", "learned")
    assert found["success"][TASKS[0]]["outcomes"] == "10"
    assert found["execute_steps"] == 8


def test_the_page_pairs_every_half_with_the_system_itself() -> None:
    own = cell(dict.fromkeys(TASKS, 3), n=5, protocol="mw-6", model="unipi")
    grid = [played("true", "learned", 5), played("learned", "exact", 3)]
    text = substitution_tables.tables(Found({}, [own], {}, (), grid))
    true, learned, static = (
        next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        for name in ("true", "learned", "static")
    )
    assert "100.0 %" in true
    assert "+40.0" in true
    assert "+0.0" in learned.split("|")[3]
    assert static.split("|")[2:4] == [" – ", " – "]


def test_every_attempt_has_a_table_of_its_own() -> None:
    one, other = (
        [{**played(future, "learned", solved), "attempt": attempt} for future, solved in grid]
        for attempt, grid in ((1, [("learned", 2), ("true", 5)]), (2, [("learned", 4)]))
    )
    text = substitution_tables.tables(Found({}, [], {}, (), one + other))
    first, second = text.split("attempt 2\n")
    assert "`unipi` on `mw-6`, attempt 1\n" in first
    assert "100.0 %" in first
    assert "100.0 %" not in second
    assert "80.0 %" in second


def test_what_was_not_measured_is_said() -> None:
    assert "Not measured" in substitution_tables.tables(Found({}, [], {}))
