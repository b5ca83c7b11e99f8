"""Films judged and futures replaced as the benchmarks do it, on the point environment."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import idm_turing
import imagination_use
import plausibility_tables
import pytest
from cells import Cell, rounded
from tables import Found

from wamlab.train.checkpoint import CheckpointError

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))

import point_env
from point_judge import ENV, Seer, Still, clips, judge_of
from point_model import policy_of

pytestmark = pytest.mark.usefixtures("few_draws")


def cell_of(**found: Any) -> dict[str, Any]:
    which = {"protocol": "mw-6", "model": "uwm", "seed": 0, "attempt": 1}
    return {**which, **found, "machine": {"load": 0.1}, "provenance": {"command": "benchmarks/x"}}


@pytest.fixture
def court(tmp_path: Path) -> idm_turing.Court:
    where, make = tmp_path / "judge", partial(point_env.make, max_steps=24)
    return idm_turing.Court(judge_of(), [ENV], 2, where, clips(1), 4, make=make)


def test_a_model_is_judged_in_both_loops_beside_the_judges_own_controls(
    court: idm_turing.Court, tmp_path: Path
) -> None:
    controls = court.controls()
    made = [path for logs in controls.values() for path in logs.values()]
    assert len(made) == len(idm_turing.CONTROLS) + 4
    before = {path: path.stat().st_mtime_ns for where in made for path in where.rglob("*.npz")}
    assert len(before) == 2 * len(made)
    seer = idm_turing.judged(court, policy_of(Seer()), tmp_path / "seer")
    assert before == {path: path.stat().st_mtime_ns for path in before}
    for loop in ("open", "closed"):
        assert seer[loop]["value"] == 1
        assert seer[loop]["success"][ENV]["outcomes"] == "11"
        assert seer[loop]["details"]["controls"]["ceiling"]["rate"] == 1
        assert {*seer[loop]["details"]["controls"]} == {*idm_turing.LOOPS[loop]}
        said = idm_turing.line("seer", loop, seer[loop])
        assert said.startswith(f"seer, {loop} loop: 100\u00a0% of 2")
        assert "ceiling 100\u00a0% of 2, floor" in said
    kept = json.loads(json.dumps(rounded(seer), allow_nan=False))
    text = plausibility_tables.tables(Found({}, [], {}, films=[cell_of(loops=kept)]))
    rows = [line for line in text.splitlines() if line.startswith("| `uwm` on `mw-6`, seed 0")]
    assert len(rows) == 2
    assert all("| 100\u00a0% (" in row for row in rows)
    assert "| model | success | between | ceiling |" in text
    assert "The use of imagination is not measured" in text


def test_what_cannot_be_read_is_said_in_the_line() -> None:
    found = {"value": None, "why_not": "the control 'ceiling' was not played"}
    assert idm_turing.line("uwm", "open", found).endswith("'ceiling' was not played")


def test_a_result_lies_by_protocol_and_cell(tmp_path: Path) -> None:
    cell = Cell("mw-6", "unipi", 1)
    assert idm_turing.result_path(cell, tmp_path) == (
        tmp_path / "mw-6" / "turing" / "unipi-seed1-attempt1.json"
    )
    assert imagination_use.result_path(cell, tmp_path).parent.name == "use"


def test_the_use_of_an_imagination_is_measured_on_states_and_in_episodes(tmp_path: Path) -> None:
    make = partial(point_env.make, max_steps=16)
    asked = imagination_use.Asked([ENV], 2, 2, tmp_path, execute_steps=8, make=make)
    policy = policy_of(Still())
    found = imagination_use.changes(policy, asked)
    assert found["mirrored executed"]["floor"] > 0
    assert found["another sample's"]["why_not"] == "nothing was searched for (2)"
    lost = imagination_use.losses(policy, asked, {ENV: "open the drawer"})
    assert {*lost["lost"]} == {*imagination_use.REPLACED}
    assert all(one["n"] == 2 for one in lost["lost"].values())
    kept = json.loads(json.dumps(rounded({"use": found, **lost}), allow_nan=False))
    text = plausibility_tables.tables(Found({}, [], {}, use=[cell_of(**kept)]))
    (row,) = [line for line in text.splitlines() if line.startswith("| `uwm` on `mw-6`, seed 0")]
    assert row.count("|") == 2 + len({*found, *lost["lost"]})
    assert row.count("loses 0 points") == len(lost["lost"])
    assert "The IDM Turing test is not measured" in text
    assert imagination_use.following(["a", "b", "c"]) == {"a": "b", "b": "c", "c": "a"}


@pytest.mark.parametrize("benchmark", [idm_turing, imagination_use])
def test_a_cell_that_was_not_trained_here_is_named(benchmark, tmp_path: Path) -> None:
    words = ["mw-6", "--work", str(tmp_path), "--results", str(tmp_path)]
    if benchmark is idm_turing:
        words += ["--judge", str(tmp_path / "judge")]
    with pytest.raises(CheckpointError, match=r"(judge|uwm-seed0-attempt1) does not exist"):
        benchmark.main(words)
