"""How long a demo trains: the recipe's steps where there is time for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from wamlab.cli import demo
from wamlab.data.logs import write_json
from wamlab.recipes import mw_demo, work


def planned(monkeypatch: pytest.MonkeyPatch, minutes: float) -> None:
    monkeypatch.setattr(work, "plan_run", lambda *_, **__: SimpleNamespace(minutes=minutes))


def test_a_machine_that_is_fast_enough_takes_the_steps_of_the_recipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    planned(monkeypatch, 5.5)
    run = mw_demo.run("uwm")
    assert demo.in_time(run, tmp_path, tmp_path / "uwm", "cpu") == run


def test_a_slow_machine_trains_for_the_longest_time_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(monkeypatch, 24.2)
    run = demo.in_time(mw_demo.run("uwm"), tmp_path, tmp_path / "uwm", "cpu")
    assert (run.train.minutes, run.train.steps) == (demo.LONGEST, None)
    assert (
        "1600 steps would take 24 minutes here; training for 8 instead" in capsys.readouterr().out
    )


def test_what_was_decided_at_the_beginning_stays_decided(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine that was busy when the demo began is idle when it goes on."""
    planned(monkeypatch, 5.5)
    run = mw_demo.run("uwm")
    begun = {"provenance": {"run": run.with_budget(minutes=9.0).to_dict()}}
    write_json(tmp_path / "run.json", begun)
    assert demo.in_time(run, tmp_path, tmp_path, "cpu") == run.with_budget(minutes=9.0)
