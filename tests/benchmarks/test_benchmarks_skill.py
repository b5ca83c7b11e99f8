"""How measures go with success over checkpoints: made-up checkpoints whose answer is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import imagination_and_skill
import numpy as np
import pusher
import pytest
import skill_tables
from cells import Cell
from findings import MET, MISSING, PARTIAL
from imagination_and_skill import Asked, checkpoint, kept, values
from made_cells import outcomes
from skill_tables import correlations, ends, given_step
from tables import Found

from wamlab.data.logs import load_probes, save_episode, save_probe
from wamlab.recipes import recipe
from wamlab.recipes.run import DataConfig
from wamlab.report.results import write_results
from wamlab.train.checkpoint import CheckpointError
from wamlab.train.record import Record, StageRecord
from wamlab.types import Probe

pytestmark = pytest.mark.usefixtures("few_draws")


def cell(seed: int, steps: int = 8) -> dict[str, Any]:
    """``longer`` grows with the step, ``skilled`` is success, ``rare`` is seldom defined."""
    rng = np.random.default_rng(seed)
    found = []
    for place in range(steps):
        solved = int(np.clip(2 * place + rng.integers(-3, 4), 0, 20))
        longer = place + rng.normal()
        measures = {"step": 1.0 * place, "longer": longer, "skilled": solved + 0.5, "still": 1.0}
        measures |= {"chance": float(rng.normal())} | ({"rare": 1.0 * solved} if place > 5 else {})
        success = {"metaworld/a": outcomes(solved, 20)}
        found.append({"step": 2**place, "success": success, "measures": measures})
    which = {"protocol": "mw-demo", "model": "uwm", "seed": seed, "attempt": 1}
    made = {"machine": {"load": 0.1}, "provenance": {"command": "benchmarks/x"}}
    return {**which, "checkpoints": found, **made}


def test_what_is_only_trained_longer_goes_with_success_until_the_step_is_held() -> None:
    """A measure that has the ranks of the step has nothing left, one that is still none at all."""
    found = correlations([cell(seed) for seed in range(3)])
    assert {*found} == {"longer", "skilled", "chance"}
    assert found["skilled"].plain == pytest.approx(1)
    assert found["skilled"].given_step == pytest.approx(1)
    assert found["longer"].plain > 0.7
    assert 0 in ends(found["longer"], given_step)
    assert abs(found["chance"].plain) < 0.5
    assert len(found["skilled"].points) == 24
    assert found["skilled"].same_step == pytest.approx(1)
    assert found["skilled"].sure
    assert not found["longer"].sure


def test_one_seed_says_nothing_of_checkpoints_of_the_same_step() -> None:
    found = correlations([cell(0)])["skilled"]
    assert np.isnan([found.same_step, found.same_step_p]).all()
    assert not found.sure
    assert "| +1.00 (1.00 to 1.00) | – |" in skill_tables.tables(Found({}, [], {}, skill=[cell(0)]))


def test_the_page_shows_both_correlations_and_says_how_much_they_are_worth() -> None:
    cells = [cell(seed) for seed in range(3)]
    text = skill_tables.tables(Found({}, [], {}, skill=cells))
    assert text.startswith("Exploratory:")
    assert "| skilled | 24 | +1.00 (1.00 to 1.00) | +1.00 (1.00 to 1.00) | +1.00 (p 0." in text
    assert "| 0 | " in text
    said = skill_tables.finding(Found({}, [], {}, skill=cells))
    assert said.verdict == MET
    assert "`uwm` on `mw-demo`, 3 seeds: of 3 measures" in said.measured
    assert skill_tables.finding(Found({}, [], {}, skill=cells[:2])).verdict == PARTIAL
    assert skill_tables.finding(Found({}, [], {})).verdict == MISSING
    assert "Not measured" in skill_tables.tables(Found({}, [], {}))


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Logs that are all there, and what is asked to go on with them."""
    asked: list[str] = []
    for seed in range(3):
        save_probe(tmp_path, pusher.probe(seed))

    def roll_out(*_: Any, **__: Any) -> None:
        asked.append("roll_out")

    def probe_and_read(*_: Any) -> list[Probe]:
        asked.append("probe_and_read")
        return load_probes(tmp_path)

    monkeypatch.setattr(imagination_and_skill, "load", lambda *_: None)
    monkeypatch.setattr(imagination_and_skill, "roll_out", roll_out)
    monkeypatch.setattr(imagination_and_skill, "probe_and_read", probe_and_read)
    return asked


STEP = Path("checkpoints/step-000128")


def test_a_checkpoint_is_measured_anew_from_its_logs(tmp_path: Path, played: list[str]) -> None:
    """Old results are not taken over: the logs may have been read by a newer reader since."""
    found = values(write_results(tmp_path))
    assert {"eic, robot", "eic_cf, object", "moving_psnr"} <= {*found}
    assert not {"success_any", "progress"} & {*found}
    (tmp_path / "results.json").write_text("{}")
    run = Asked(2, 1, 2).of(recipe("mw-demo/uwm"))
    assert (run.rollout.episodes, run.probe.states, run.probe.samples) == (2, 1, 2)
    kept = checkpoint(run, STEP, tmp_path, tmp_path, None)
    assert (kept["step"], kept["success"], kept["measures"]) == (128, {}, found)
    assert played == ["roll_out", "probe_and_read"]


def test_more_logs_than_are_asked_for_are_refused(tmp_path: Path, played: list[str]) -> None:
    run = Asked(2, 1, 2).of(recipe("mw-demo/uwm"))
    less = dataclasses.replace(run, data=DataConfig(envs=("metaworld/push",)))
    with pytest.raises(ValueError, match=r"holds 3 probes, asked for 1: give another --work"):
        checkpoint(less, STEP, tmp_path, tmp_path, None)
    save_episode(tmp_path, pusher.episode(0))
    none = Asked(0, 9, 2).of(less)
    with pytest.raises(ValueError, match="holds 1 episodes, asked for 0"):
        checkpoint(none, STEP, tmp_path, tmp_path, None)


def test_the_log_spaced_checkpoints_of_the_last_stage_are_judged(tmp_path: Path) -> None:
    Record(1, {}, {}, [StageRecord("first", 40), StageRecord("last", 64)]).save(tmp_path)
    names = [path.name for path in kept(tmp_path, 3)]
    assert names == ["step-000048", "step-000056", "step-000072", "step-000104"]


def test_a_cell_that_was_not_trained_here_is_named(tmp_path: Path) -> None:
    words = ["mw-demo", "--work", str(tmp_path), "--results", str(tmp_path)]
    with pytest.raises(CheckpointError, match="uwm-seed0-attempt1 does not exist"):
        imagination_and_skill.main(words)
    path = imagination_and_skill.result_path(Cell("mw-demo", "uwm", 0), tmp_path)
    assert path.parent.name == "skill"
