"""Checkpoints and run folders that are damaged, of another make, or in use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import wamlab
from wamlab.data.commit import acquire_lock
from wamlab.data.manifest import write_manifest
from wamlab.train.checkpoint import CheckpointError

NEWEST = "checkpoints/step-000002"


def act(run: Path, out: Path) -> tuple[object, ...]:
    return ("eval", run, "--env", "point/push", "--episodes", "1", "--out", out)


def resume(made: Path, run: Path, *more: str) -> tuple[object, ...]:
    words = ("train", "mw-demo/pupil", "--data", made / "data", "--out", run, "--steps", "2")
    return (*words, "--device", "cpu", "--set", "train.augment_shift=0", *more)


def rewrite(run: Path, **changes: object) -> None:
    """Another configuration, sealed as if it had been written so."""
    path = run / NEWEST / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    write_manifest(run / NEWEST)


@pytest.mark.parametrize(
    "name", ["config.json", "weights.safetensors", "processor/processor.json", "manifest.json"]
)
def test_a_damaged_checkpoint_neither_acts_nor_resumes(wam, made, run, tmp_path, name) -> None:
    path = run / NEWEST / name
    path.write_bytes(path.read_bytes()[:-9])
    wam(*act(run, tmp_path / "out")).refused(NEWEST, name, "damaged")
    wam(*resume(made, run, "--resume")).refused("none of the 1 checkpoints", str(run))
    with pytest.raises(CheckpointError, match=name):
        wamlab.load(run, "cpu")
    assert path.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, ("schema 2, expected 1", "wamlab")),
        ({"model": {"name": "pupl", "config": {}}}, ("no model 'pupl'", "did you mean 'pupil'?")),
        ({"model": {"name": "pupil", "config": {"chnk": 8}}}, ("'chnk'", "did you mean 'chunk'?")),
        ({"model": {"name": "pupil", "config": {"chunk": 4}}}, ("network.", "expected (16", "(32")),
    ],
    ids=["schema", "model", "field", "shape"],
)
def test_a_checkpoint_of_another_make(wam, run, tmp_path, changes, said) -> None:
    rewrite(run, **changes)
    wam(*act(run, tmp_path / "out")).refused(*said)
    assert not (tmp_path / "out").exists()


def test_a_run_is_neither_overwritten_nor_continued_as_another(wam, made, run) -> None:
    before = (run / "run.json").read_bytes()
    wam(*resume(made, run)).refused(str(run), "holds a run already: resume it")
    other = resume(made, run, "--resume", "--set", "model.noise=0.1")
    wam(*other).refused("cannot be resumed", "model.config.noise was 0.3 and is now 0.1")
    assert (run / "run.json").read_bytes() == before
    wamlab.load(run, "cpu")


def test_two_trainings_into_one_run(wam, made, run) -> None:
    with acquire_lock(run):
        words = resume(made, run, "--resume")
        wam(*words).refused(str(run), "is being written by another process (pid")
    assert wam(*words).code == 0


def test_a_latest_that_names_nothing(wam, run, tmp_path) -> None:
    shutil.move(run / NEWEST, run / "checkpoints/step-000001")
    wam(*act(run, tmp_path / "out")).refused("step-000002", "did you mean 'step-000001'?")


def test_a_gpu_that_is_not_there(wam, made, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = act(made / "run", tmp_path / "out")
    wam(*words, "--device", "cuda").refused("'cuda'", "only the CPU")
    with pytest.raises(ValueError, match="only the CPU"):
        wamlab.load(made / "run", "cuda")
