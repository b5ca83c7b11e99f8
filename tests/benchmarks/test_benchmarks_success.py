"""Cells: what they refuse, how their steps are fixed, and what they take from logs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cells
import machine
import numpy as np
import pytest
import success
from cells import Cell, Places

from wamlab.config import to_dict
from wamlab.train.record import Record, StageRecord
from wamlab.types import Episode

FIXED = {"uwm-attempt1": {"steps": 700, "minutes": 8.0, "precision": {"choice": "bf16"}}}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "results", tmp_path / "work")


def line(places: Places, *words: str) -> list[str]:
    return ["mw-6", *words, "--results", str(places.results), "--work", str(places.work)]


def arguments(places: Places, *words: str) -> Any:
    return success.arguments(line(places, *words))


def fix(places: Places) -> None:
    path = success.steps_file(places, "mw-6")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(FIXED))


def episode(seed: int, solved: bool, env: str = "toy/push") -> Episode:
    state, action = np.zeros((3, 1), np.float32), np.zeros((2, 1), np.float32)
    return Episode(env, "push", seed, {}, state, action, np.array([solved, False]))


def test_a_later_attempt_says_what_it_expects() -> None:
    with pytest.raises(ValueError, match="attempt 2 needs a written hypothesis"):
        Cell("mw-6", "uwm", 0, attempt=2)
    with pytest.raises(ValueError, match="attempts 1 to 3"):
        Cell("mw-6", "uwm", 0, attempt=4, hypothesis="once more")


def test_nothing_is_trained_before_its_steps_are_fixed(places: Places) -> None:
    with pytest.raises(ValueError, match=r"uwm-attempt1 is not fixed .*--fix-steps"):
        success.main([*["mw-6", "--models", "uwm", "--results"], str(places.results)])


def test_the_recipe_of_the_cascade_is_that_of_the_attempt_that_is_shown(places: Places) -> None:
    shown = json.loads((success.HERE / "results/mw-6/unipi-seed0-attempt2.json").read_text())["run"]
    for words in ((), ("--set", "model.inverse_reach=3")):
        asked = success.asked(arguments(places, *words), "unipi")
        assert json.loads(json.dumps(to_dict(asked.model))) == shown["model"]
        assert asked.rollout.execute_steps == shown["rollout"]["execute_steps"]


def test_another_attempt_has_steps_of_its_own(places: Places) -> None:
    fix(places)
    cell = Cell("mw-6", "uwm", 0, 2, "why")
    with pytest.raises(ValueError, match="did you mean 'uwm-attempt1'"):
        success.run_of(arguments(places), cell, places)


def test_a_variant_is_a_system_of_its_own(places: Places) -> None:
    fix(places)
    cell = Cell("mw-6", "uwm", 1, variant="flat")
    assert cell.name == "uwm-flat-seed1-attempt1"
    with pytest.raises(ValueError, match="uwm-flat-attempt1 is not fixed"):
        success.run_of(arguments(places), cell, places)


def test_a_cell_trains_the_fixed_steps_in_the_fixed_precision(places: Places) -> None:
    fix(places)
    run, fixed = success.run_of(arguments(places), Cell("mw-6", "uwm", 2), places)
    assert (run.train.steps, run.train.minutes, run.train.seed) == (700, None, 2)
    assert run.train.precision == "bf16"
    assert run.train.keep_log_spaced >= 1
    assert fixed == "--fix-steps (8 minutes)"


def test_the_command_line_wins(places: Places) -> None:
    fix(places)
    args = arguments(places, "--steps", "5", "--episodes", "40", "--set", "model.depth=1")
    run, fixed = success.run_of(args, Cell("mw-6", "uwm", 0), places)
    assert (run.train.steps, run.rollout.episodes, fixed) == (5, 40, "--steps 5")
    assert run.to_dict()["model"]["depth"] == 1
    args = arguments(places, "--set", "train.precision=f32")
    run, _ = success.run_of(args, Cell("mw-6", "uwm", 0), places)
    assert (run.train.steps, run.train.precision) == (700, "f32")


def test_a_recipe_that_says_its_steps_needs_no_timing(places: Places) -> None:
    args = success.arguments(["mw-demo", "--results", str(places.results)])
    run, fixed = success.run_of(args, Cell("mw-demo", "uwm", 0), places)
    assert (run.train.steps, fixed) == (1600, "the recipe")


def test_steps_are_fixed_once(places: Places) -> None:
    fix(places)
    with pytest.raises(ValueError, match="fixes 700 steps for uwm-attempt1 already"):
        success.fix(arguments(places), "uwm", places, {"idle": True})


def test_a_busy_machine_times_nothing(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="the machine was busy"):
        success.main(line(places, "--fix-steps"))


def test_the_load_of_timing_one_model_does_not_refuse_the_next(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = 0.0
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (load, 0.0, 0.0))

    def fix_steps(*_: Any) -> dict[str, Any]:
        nonlocal load
        load = 99.0
        return {"steps": 7, "seconds_per_step": 1.0}

    monkeypatch.setattr(success, "fix_steps", fix_steps)
    success.main(line(places, "--models", "uwm", "gr1", "--fix-steps"))
    table = json.loads(success.steps_file(places, "mw-6").read_text())
    assert {key: one["machine"]["load"] for key, one in table.items()} == {
        "uwm-attempt1": 0.0,
        "gr1-attempt1": 0.0,
    }


def test_a_cell_that_is_there_is_not_run_again(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run_cell(cell: Cell, *_: Any, **__: Any) -> Path:
        ran.append(cell.name)
        return cell.result(places.results)

    monkeypatch.setattr(success, "run_cell", run_cell)
    there = Cell("mw-6", "uwm", 1).result(places.results)
    there.parent.mkdir(parents=True)
    there.write_text("{}")
    success.main(line(places, "--seeds", "0", "1", "--steps", "4"))
    assert ran == ["uwm-seed0-attempt1"]
    assert there.read_text() == "{}"


def test_other_demonstrations_are_refused(places: Places, tmp_path: Path) -> None:
    config = success.asked(arguments(places), "uwm").data
    (tmp_path / "data.json").write_text(json.dumps({**to_dict(config), "episodes": 3}))
    with pytest.raises(ValueError, match="holds demonstrations of"):
        cells.demonstrations(config, tmp_path / "data")


def test_what_training_makes_of_demonstrations_asks_for_no_others(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do fields that a configuration did not have when they were collected."""
    config, collected = success.asked(arguments(places), "uwm").data, []
    monkeypatch.setattr(cells, "collect_data", lambda config, out: collected.append(out))
    older = {**to_dict(config), "held_out": 4}
    del older["weights"]
    (tmp_path / "data.json").write_text(json.dumps(older))
    assert cells.demonstrations(config, tmp_path / "data") == tmp_path / "data"
    assert collected == [tmp_path / "data"]


def test_outcomes_are_in_the_order_of_the_starts() -> None:
    found = cells.tasks([episode(7, True), episode(5, False), episode(6, True)])["toy/push"]
    assert found["outcomes"] == "011"
    assert (found["n"], found["any"], found["last"], found["first_start"]) == (3, 2, 0, 5)


def test_training_time_comes_from_the_log_whatever_interrupted_it() -> None:
    log = [
        {"step": 20, "samples_per_s": 64.0},
        {"step": 20, "validation/loss": 1.0},
        {"step": 30, "samples_per_s": 32.0},
    ]
    assert cells.training_seconds(log, 32) == pytest.approx(20 * 32 / 64 + 10 * 32 / 32)


def test_the_middle_is_half_of_the_last_stage() -> None:
    stages = [StageRecord("first", 10), StageRecord("second", 41)]
    assert cells.middle_step(Record(1, {}, {}, stages)) == 30


def test_a_middle_that_was_not_kept_is_named(tmp_path: Path) -> None:
    record = Record(1, {}, {}, [StageRecord("joint", 8)])
    record.save(tmp_path)
    (tmp_path / "checkpoints" / "step-000008").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"step-000004 was not kept.*step-000008"):
        cells.middle_checkpoint(tmp_path)


def test_numbers_are_short() -> None:
    assert cells.rounded({"a": [0.123456789, 12345.678, 3]}) == {"a": [0.12346, 12346.0, 3]}


def test_plans_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    replans = [SimpleNamespace(calls=4, ms=ms) for ms in (40.0, 50.0, 300.0)]
    found = cells.per_plan([SimpleNamespace(replans=replans)], rows=8)  # type: ignore[list-item]
    assert found == {"calls": 4, "ms_p50": 50.0, "rows_at_most": 8, "plans": 3}
