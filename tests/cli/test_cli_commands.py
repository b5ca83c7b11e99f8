"""What commands leave behind, on the point environment."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import point_env
import pytest

from wamlab.data.logs import (
    LogError,
    load_blind,
    load_chosen,
    load_probes,
    load_rivals,
    read_json,
    save_reader_errors,
)
from wamlab.sim import shifts
from wamlab.sim.suites import BlindRow

ROW = BlindRow("point/push", 100, 12, True, 200, mean=30, replay=20, expert=99)
SAVED = {"expert": (99, 100), "mean replay": (30, 100), "random replay": (20, 100)}


def known_row(env: str) -> BlindRow:
    if env != ROW.env:
        raise KeyError(f"no blind row of {env!r}")
    return ROW


def test_a_run_is_recorded_with_the_environments_of_its_data(
    wam, data: Path, tmp_path: Path
) -> None:
    words = ("train", "mw-demo/pupil", "--data", data, "--steps", 1, "--device", "cpu")
    words = (*words, "--set", "train.augment_shift=0", "--set", "train.batch_size=4", "--out")
    told = wam(*words, tmp_path / "out")
    assert told.code == 0, told.err
    said = "the data hold point/push; mw-demo/pupil is meant for mw-demo\n"
    assert said in told.err
    run = read_json(tmp_path / "out/run.json")["provenance"]["run"]
    assert run["data"]["envs"] == ["point/push"]
    assert '"point/push"' in told.out  # the run that is printed is the run that is recorded


def test_recordings_are_of_one_reading_of_data_that_are_as_training_read_them(
    wam, data: Path, tmp_path: Path
) -> None:
    words = ("train", "mw-demo/pupil", "--data", data, "--steps", 1, "--device", "cpu")
    words = (*words, "--set", "train.augment_shift=0", "--set", "train.batch_size=4", "--out")
    assert wam(*words, tmp_path / "out").code == 0
    judge = ("eval", tmp_path / "out", "--dataset", data, "--episodes", 1, "--states", 1)
    told = wam(*judge)
    assert told.code == 0, told.err
    assert wam(*judge).code == 0
    other = wam(*judge, "--set", "data.alignment=o_after")
    other.refused("holds other recordings", "alignment was None, now 'o_after'")

    assert wam("collect", "--env", "point/push", "--episodes", 4, "--out", data).code == 0
    words = ("--out", tmp_path / "more")
    wam(*judge, *words).refused("data was trained on and has changed since")
    shutil.copytree(data, tmp_path / "copy")
    told = wam("eval", tmp_path / "out", "--dataset", tmp_path / "copy", *judge[4:], *words)
    assert told.code == 0, told.err


def test_rollouts_stand_beside_the_blind_rows_that_were_measured(
    wam, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("eval", run, "--episodes", 1, "--out", tmp_path / "out", "--env")
    assert wam(*words, "point/push").code == 0
    assert load_blind(tmp_path / "out") == {}
    monkeypatch.setattr("wamlab.sim.suites.blind_row", known_row)
    assert wam(*words, "point/push").code == 0
    assert load_blind(tmp_path / "out") == {"point/push": SAVED}
    assert "better blind replay" in Path(wam("report", tmp_path / "out").out.strip()).read_text()


def test_rollouts_say_by_which_rule_they_were_chosen(wam, run: Path, tmp_path: Path) -> None:
    """Of a run its newest checkpoint, of a checkpoint that one; other logs say nothing."""
    words = ("--episodes", 1, "--env", "point/push")
    assert wam("eval", run, *words, "--out", tmp_path / "newest").code == 0
    assert load_chosen(tmp_path / "newest") == {
        "starts": "all evaluation starts below 1: nothing is trained on them",
        "checkpoint": "the newest of the run",
        "seeds": "0, given before training",
    }
    (kept,) = (run / "checkpoints").glob("step-*")
    assert wam("eval", kept, *words, "--out", tmp_path / "kept").code == 0
    assert load_chosen(tmp_path / "kept")["checkpoint"] == kept.name
    assert load_chosen(tmp_path) == {}
    (tmp_path / "chosen.json").write_text("[1]")
    with pytest.raises(LogError, match="does not hold a sentence for each rule"):
        load_chosen(tmp_path)


def test_under_a_shift_no_blind_row_holds(
    wam, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wamlab.sim.suites.blind_row", known_row)
    make = lambda name, shift: shifts.shift(point_env.make(name), shift)  # noqa: E731
    monkeypatch.setattr("wamlab.sim.registry.make", make)
    words = ("eval", run, "--episodes", 1, "--out", tmp_path / "out", "--env", "point/push")
    assert wam(*words, "--set", "rollout.shift=gain").code == 0
    assert load_blind(tmp_path / "out") == {}


def test_a_probe_that_cannot_be_is_refused_before_any_environment_is_tried(
    wam, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wamlab.sim.registry.instruction_of", str)
    monkeypatch.setattr("wamlab.run.probe.self_test", None)
    words = ("probe", run, "--env", "point/push", "--out", tmp_path / "out")
    wam(*words).refused("'other-instruction' is imposed, but none is known for point/push")
    words = (*words, "--set", "probe.imposed=zero", "--judge")
    wam(*words, tmp_path / "nowhere").refused("nowhere does not exist")
    assert not (tmp_path / "out").exists()


def test_counts_that_are_not_asked_for_are_the_runs_own(
    wam, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []

    def roll_out(run, *_, **__):
        asked.append((run.rollout.episodes,))
        return []

    def imagine(run, *_, **__):
        asked.append((run.probe.states, run.probe.samples))
        return []

    monkeypatch.setattr("wamlab.recipes.work.roll_out", roll_out)
    monkeypatch.setattr("wamlab.recipes.work.execute_imagination", imagine)
    monkeypatch.setattr("wamlab.sim.registry.instruction_of", str)
    words = (run, "--env", "point/push", "--out", tmp_path)
    for more in ((), ("--episodes", 3), ("--set", "rollout.episodes=4")):
        assert wam("eval", *words, *more).code == 0
    words = (*words, "--set", "probe.imposed=zero")
    for more in ((), ("--states", 3), ("--samples", 2), ("--set", "probe.samples=1")):
        assert wam("probe", *words, *more).code == 0
    assert asked == [(10,), (3,), (4,), (6, 4), (3, 4), (6, 2), (6, 1)]


def test_blind_rows_of_other_environments_stay(
    tmp_path: Path, point_world: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wamlab.recipes.work import save_blind_rows

    monkeypatch.setattr("wamlab.sim.suites.blind_row", known_row)
    save_blind_rows(["point/push"], tmp_path)
    save_blind_rows(["point/flaky"], tmp_path)
    assert load_blind(tmp_path) == {"point/push": SAVED}


def test_how_exact_each_state_reader_is_is_printed(
    wam, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_probes_of(policy, out, readers):
        save_reader_errors(out, {"point/push, pixels": {"block": 0.0061}, "another's": {}})
        return [SimpleNamespace(reader=title) for title in ("point/push, pixels", "")]

    monkeypatch.setattr("wamlab.sim.registry.instruction_of", str)
    monkeypatch.setattr("wamlab.run.reading.read_probes_of", read_probes_of)
    monkeypatch.setattr("wamlab.recipes.work.execute_imagination", lambda *_, **__: [])
    words = ("--env", "point/push", "--set", "probe.imposed=zero", "--readers", "kept")
    told = wam("probe", run, "--out", tmp_path, *words)
    assert told.code == 0, told.err
    assert told.out.splitlines()[-2:] == [
        "1 of them read by the state readers in kept",
        "point/push, pixels, on starts that it never saw: block 6.1 mm",
    ]


def test_probes_stand_beside_the_rivals_of_a_dataset(
    wam, run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wamlab.sim.registry.instruction_of", str)
    words = ("probe", run, "--env", "point/push", "--states", 1, "--samples", 1, "--out")
    told = wam(*words, tmp_path / "no")
    told.refused("none is known for point/push", "--set probe.imposed=unchanged,zero,mirrored")
    words = (*words[:-1], "--set", "probe.imposed=zero,mirrored", "--out")
    assert wam(*words, tmp_path / "bare").code == 0
    (bare,) = load_probes(tmp_path / "bare")
    assert load_rivals(tmp_path / "bare", bare) == {}
    told = wam(*words, tmp_path / "out", "--data", data)
    assert told.code == 0, told.err
    (probe,) = load_probes(tmp_path / "out")
    shown = load_rivals(tmp_path / "out", probe)
    assert set(shown) == {"last frame", "dataset mean", "nearest clip"}
    wam(*words, tmp_path / "no", "--data", tmp_path / "nowhere").refused("nowhere")
    assert not (tmp_path / "no").exists()
