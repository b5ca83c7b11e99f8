"""The whole vector of a trained cell: what is kept of a report, and what the page says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import every_measure
import measure_tables
import pusher
import pytest
import wording
from cells import Cell, Places
from findings import PARTIAL
from tables import Found

from wamlab.data.logs import save_probe
from wamlab.report.results import write_results
from wamlab.train.checkpoint import CheckpointError

pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.fixture(scope="module")
def vector(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("measured")
    for seed in range(3):
        save_probe(folder, pusher.probe(seed))
    return every_measure.vector(write_results(folder))


def measured(vector: dict[str, Any], model: str = "uwm", **changes: Any) -> dict[str, Any]:
    return {
        "protocol": "mw-6",
        "model": model,
        "seed": 0,
        "attempt": 1,
        **vector,
        "settings": {"states": 54, "samples": 8},
        "minutes": {"probing": 20.0, "reading": 15.0, "rivals": 1.0, "measuring": 2.0},
        "machine": {"threads": 2, "load": 0.1},
        "provenance": {"command": "benchmarks/every_measure.py mw-6"},
        **changes,
    }


def test_values_intervals_and_controls_are_kept_and_those_of_states_are_not(vector):
    eic = vector["joint"]["robot"]["eic"]
    assert {"value", "interval", "details", "n"} <= set(eic)
    assert "items" not in eic
    assert eic["details"]["oracle"] == 1
    assert all("items" not in part for part in vector["fidelity"]["psnr"]["parts"].values())
    assert vector["axes"]["joint coupling"]["state_eic, robot"]["why_not"]
    assert vector["census"]["states"] == 3


def test_the_page_has_a_row_for_each_measure_and_a_column_for_each_model(vector):
    silent = {**vector["joint"]["robot"], "eic": {"value": None, "why_not": "one sample"}}
    joint = {**vector["joint"], "robot": silent}
    both = [measured(vector), measured({**vector, "joint": joint}, "gr1")]
    lines = measure_tables.tables(Found({}, [], {}, measured=both)).splitlines()
    (head,) = [line for line in lines if line.startswith("| measure")]
    assert "`uwm`, seed 0 | `gr1`, seed 0" in head
    (row,) = [line for line in lines if line.startswith("| EIC, robot (pixels)")]
    assert "oracle 1" in row
    assert "static" in row
    assert row.endswith("| n/a |")
    assert [line for line in lines if line.startswith("| DIV, robot |")]
    (unread,) = [line for line in lines if line.startswith("Without a value for any of them")]
    assert "; state EIC, robot; " in unread
    assert "; EIC, robot (pixels)" not in unread
    assert "film success" not in unread
    (apart,) = [line for line in lines if line.startswith("Measured apart")]
    assert (
        "alarms and failure AUROC in [Imagined futures while acting](#imagined-futures-while"
        in apart
    )
    assert "film success and imagination use in [Action plausibility: what a judge" in apart
    assert any("54 states, 8 samples; probing 20.0" in line for line in lines)
    assert "Not measured" in measure_tables.tables(Found({}, [], {}))


def test_distances_of_sets_stand_beside_the_frame_now_and_say_of_what_they_are(vector):
    distance = {
        "metric": "FD-AlexNet", "value": 27.68, "interval": None, "floor": 1.8354,
        "counts": [1152, 1152], "size": 256, "warning": "fewer than 5 samples a dimension",
        "details": {"states": 24, "last frame": 24.708},
    }  # fmt: skip
    perceptual = {**vector["perceptual"], "frechet_distance": distance}
    text = measure_tables.tables(
        Found({}, [], {}, measured=[measured(vector, perceptual=perceptual)])
    )
    (row,) = [line for line in text.splitlines() if line.startswith("| frechet distance")]
    said = "27.7; last frame 24.7; noise floor 1.84; FD-AlexNet; N 1152 of 24 states, D 256"
    assert row == f"| frechet distance | {said}; fewer than 5 samples a dimension |"
    assert measure_tables.sets({**distance, "counts": [9, 8], "warning": ""})[1:] == [
        "N 9 and 8 of 24 states, D 256"
    ]


def test_measures_by_contact_phase_have_a_table_of_their_own(vector):
    part = {"value": 0.5, "interval": None}
    phased = {"state_skill, robot": {"value": 0.4, "interval": None, "parts": {"contact": part}}}
    cell = measured(vector, axes={**vector["axes"], "joint coupling": phased})
    text = measure_tables.tables(Found({}, [], {}, measured=[cell, measured(vector, "gr1")]))
    assert "| of | measure | free | before | contact | after |" in text
    assert "| `uwm` | state SKILL | – | – | 0.5 | – |" in text
    assert "| `gr1` | state SKILL" not in text


def test_the_least_of_the_normalised_and_curves_over_offsets_stand_below_the_table(vector):
    details = {"static": 0.0, "oracle": 0.5, "normalised": -0.5, "curve": {"16": -0.25, "8": 0.1}}
    eic = {"state_eic, object": {"value": -0.25, "interval": None, "details": details}}
    cell = measured({**vector, "joint": {}}, axes={**vector["axes"], "joint coupling": eic})
    bare = measured({**vector, "joint": {}}, "gr1", axes={"joint coupling": {}})
    text = measure_tables.tables(Found({}, [], {}, measured=[cell, bare]))
    assert "| −0.25; static 0; oracle 0.5; normalised −0.5 | – |" in text
    assert "The least of the" not in text, "it would be of other measures for each model"
    icc = {"icc": {"value": 0.2, "interval": None, "details": {"normalised": 0.9}}}
    other = measured({**vector, "joint": {}}, "gr1", axes={"joint coupling": eic})
    more = measured({**vector, "joint": {}}, axes={"joint coupling": eic | icc})
    both = measure_tables.tables(Found({}, [], {}, measured=[more, other]))
    said = "The least of the 1 normalised joint measure that all of these have"
    assert f"{said}: `uwm` −0.50, state EIC, object; `gr1` −0.50, state EIC, object.\n" in both
    beyond = {"value": 0.2, "interval": None, "details": {"ceiling": 0.1, "above_ceiling": True}}
    seen = measured({**vector, "joint": {}}, axes={"joint coupling": {"icc": beyond}})
    alone = measure_tables.tables(Found({}, [], {}, measured=[seen]))
    assert "ceiling 0.1; surely above its ceiling" in alone
    assert "| measure | `uwm` | `gr1` |" in text
    assert "| state EIC, object | 8: 0.1, 16: −0.25 | – |" in text
    without = measure_tables.tables(Found({}, [], {}, measured=[bare]))
    assert "normalised joint measures" not in without
    assert "Over offsets" not in without


def test_a_model_that_was_measured_elsewhere_says_where(vector):
    moving = {**vector["fidelity"]["moving_psnr"], "parts": {"corner@4": {}, "gripper@8": {}}}
    own = {**vector["fidelity"], "moving_psnr": moving}
    both = [measured(vector), measured(vector, "unipi", fidelity=own)]
    lines = measure_tables.tables(Found({}, [], {}, measured=both)).splitlines()
    (head,) = [line for line in lines if line.startswith("| measure")]
    assert "`unipi`, seed 0 (at 4, 8)" in head
    assert "(at" in wording.elsewhere(moving)
    assert wording.elsewhere({"parts": {"corner@8": {}, "corner@16": {}}}) == ""


def test_a_wrong_world_stands_by_name_between_the_other_controls(vector):
    details = {"static": 0.0, "wrong_world": 0.4, "wrong_world_is": "gain 0.7", "oracle": 0.9}
    found = {"value": 0.5, "interval": (0.3, 0.6), "details": details}
    axes = {"joint coupling": {"state_eic, robot": found}}
    text = measure_tables.tables(Found({}, [], {}, measured=[measured({**vector, "axes": axes})]))
    assert "| 0.5 (0.3 to 0.6); static 0; wrong world (gain 0.7) 0.4; oracle 0.9 |" in text


def test_the_bar_is_of_states_and_minutes(vector):
    finding = lambda cells: measure_tables.finding(Found({}, [], {}, measured=cells))  # noqa: E731
    every = [measured(vector, model) for model in measure_tables.MODELS]
    slow = {"probing": 31.0}
    assert finding([]).measured == ""
    in_time = [measured(vector, m, minutes={"probing": 29.0}) for m in measure_tables.MODELS]
    assert finding(in_time).verdict == "met"
    assert finding(every).verdict == "**not met**"  # 38 minutes are too many but for `uwm`
    assert finding(in_time[:2]).verdict == PARTIAL
    assert finding([*in_time[:3], measured(vector, "unipi", minutes=slow)]).verdict == "**not met**"
    few = [*in_time[1:], measured(vector, minutes=slow, settings={"states": 24, "samples": 6})]
    assert finding(few).verdict == "**not met**"
    thin = [*in_time[1:], measured(vector, settings={"states": 50, "samples": 2})]
    assert finding(thin).verdict == "**not met**"
    assert "`uwm` 50 states, 2 samples, 38 minutes" in finding(thin).measured


def test_a_cell_that_was_not_trained_here_is_named(tmp_path: Path):
    places = Places(tmp_path / "results", tmp_path / "work")
    with pytest.raises(CheckpointError, match="uwm-seed0-attempt1 does not exist"):
        every_measure.measure(Cell("mw-6", "uwm", 0), places, 6, 2)


def test_the_minutes_of_an_interrupted_run_count_with_those_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clock = iter([0.0, 60.0, 100.0, 220.0, 300.0, 330.0])
    monkeypatch.setattr(every_measure.time, "perf_counter", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt), every_measure.timed(tmp_path, "reading"):
        raise KeyboardInterrupt
    with every_measure.timed(tmp_path, "reading"):
        pass
    with every_measure.timed(tmp_path, "rivals"):
        pass
    assert every_measure.minutes_of(tmp_path) == {"reading": 3.0, "rivals": 0.5}
