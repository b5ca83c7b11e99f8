from __future__ import annotations

import builtins
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_system import TinyProcessor, make

import wamlab.data.manifest as manifest
from wamlab.config import to_dict
from wamlab.train import checkpoint as module
from wamlab.train.checkpoint import (
    CheckpointError,
    Snapshot,
    checkpoints,
    load_checkpoint,
    newest_verified,
    resolve,
    save_checkpoint,
)
from wamlab.types import ActionSpace

SPACE = ActionSpace(("x", "grip"), (-1.0, -1.0), (1.0, 1.0), ("delta",) * 2, ("m", "1"), 80.0)


def snapshot(step: int, **changes) -> Snapshot:
    model = make()
    weights = {name: value + step for name, value in model.state_dict().items()}
    values = Snapshot(
        step=step,
        model="tiny",
        model_config=to_dict(model.config),
        weights=weights,
        trained={name: value + 1 for name, value in weights.items()},
        optimizer={"exp_avg/world.0.bias": torch.arange(16.0)},
        position={"stage": 0, "stage_step": step},
        processor=TinyProcessor(),
        action_space=SPACE,
        provenance={"dataset": "abc"},
        external={"minilm": "12ab"},
    )
    return replace(values, **changes)


@pytest.fixture
def run(tmp_path) -> Path:
    save_checkpoint(tmp_path, snapshot(1))
    save_checkpoint(tmp_path, snapshot(2))
    return tmp_path


def test_everything_comes_back(run):
    found, saved = load_checkpoint(run), snapshot(2)
    assert found.folder == run / "checkpoints" / "step-000002"
    assert (found.model, found.step, found.action_space) == ("tiny", 2, SPACE)
    for there, here in [
        (found.weights, saved.weights),
        (found.trained(), saved.trained),
        (found.optimizer(), saved.optimizer),
    ]:
        assert there.keys() == here.keys()
        assert all(torch.equal(there[name], here[name]) for name in here)
    assert found.position() == {"stage": 0, "stage_step": 2}
    assert found.config["external"] == {"minilm": "12ab"}
    assert found.config["provenance"] == {"dataset": "abc"}
    assert json.loads((found.processor / "processor.json").read_text())["high"] == 255
    assert load_checkpoint(found.folder).step == 2
    model = found.build()
    assert all(torch.equal(value, saved.weights[n]) for n, value in model.state_dict().items())


def test_tied_weights_and_scalars_are_saved(tmp_path):
    weight = torch.ones(2, 2)
    tied = {"a": weight, "b": weight, "c": torch.tensor(3), "d": weight.bfloat16().T}
    save_checkpoint(tmp_path, snapshot(1, weights=tied))
    found = load_checkpoint(tmp_path).weights
    assert all(torch.equal(found[name], tied[name]) for name in tied)


def test_no_file_is_a_pickle_and_none_is_temporary(run):
    kinds = {path.suffix for path in run.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors", ""}
    assert not [path for path in run.rglob("*") if "tmp" in path.name]


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "weights.safetensors",
        "action_space.json",
        "processor/processor.json",
        "train/weights.safetensors",
        "train/optimizer.safetensors",
        "train/position.json",
    ],
)
def test_every_flipped_bit_is_an_error_that_names_the_file(run, name):
    path = resolve(run) / name
    content = path.read_bytes()
    for place in (0, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(run)
    path.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(run)
    path.write_bytes(content)
    assert load_checkpoint(run).step == 2


def test_every_flipped_bit_of_the_manifest_is_an_error(run):
    path = resolve(run) / "manifest.json"
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match="is damaged"):
            load_checkpoint(run)


def test_a_flipped_bit_in_a_tensor_names_the_tensor(run):
    path = resolve(run) / "train" / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 128
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tensor exp_avg/world\.0\.bias"):
        load_checkpoint(run)


def test_missing_and_extra_files_are_errors(run):
    folder = resolve(run)
    (folder / "extra.bin").write_bytes(b"?")
    with pytest.raises(CheckpointError, match=r"extra\.bin"):
        load_checkpoint(run)
    (folder / "extra.bin").unlink()
    (folder / "train" / "position.json").unlink()
    with pytest.raises(CheckpointError, match=r"position\.json is missing"):
        load_checkpoint(run)


def test_another_schema_says_who_wrote_it(run, monkeypatch):
    monkeypatch.setattr(module, "SCHEMA", 2)
    with pytest.raises(CheckpointError, match=r"has schema 1, expected 2.*wamlab 0\.1"):
        load_checkpoint(run)


def test_another_model_is_an_error(run):
    with pytest.raises(CheckpointError, match="holds model 'tiny', expected 'uwm'"):
        load_checkpoint(run, model="uwm")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "tiyn"}, "no model 'tiyn'.*did you mean 'tiny'"),
        ({"model_config": {"widht": 3}}, "'widht'.*did you mean 'width'"),
        ({"model_config": {"width": "wide"}}, "width: expected a whole number"),
        ({"model_config": {"width": 8}}, r"world\.0\.weight has shape \(16, 192\), expected \(8,"),
        ({"weights": {"world.seen": torch.tensor(0)}}, r"actor\.1\.bias is missing.*and \d+ more"),
    ],
)
def test_weights_that_do_not_fit_say_what_does_not(tmp_path, changes, said):
    save_checkpoint(tmp_path, snapshot(1, **changes))
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path).build()


def test_what_is_no_checkpoint_says_so(run, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="is no checkpoint and no run"):
        load_checkpoint(tmp_path / "empty")
    (run / "latest").write_text("checkpoints/step-000009\n")
    with pytest.raises(CheckpointError, match=r"step-000009.*does not exist; did you mean"):
        load_checkpoint(run)
    (run / "latest").write_text("../../etc\n")
    with pytest.raises(CheckpointError, match=r"expected checkpoints/step-"):
        load_checkpoint(run)


def test_an_equal_checkpoint_is_kept_and_another_gets_a_new_name(run):
    again = save_checkpoint(run, snapshot(2))
    assert again.name == "step-000002"
    other = save_checkpoint(run, snapshot(2, trained=snapshot(5).trained))
    assert other.name == "step-000002-2"
    assert resolve(run) == other


def test_retention_keeps_two_whole_ones_and_the_protected(tmp_path):
    for step in range(1, 7):
        save_checkpoint(tmp_path, snapshot(step), protect={2})
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["2", "5", "6"]
    (tmp_path / "checkpoints" / "step-000006" / "config.json").write_text("{}")
    save_checkpoint(tmp_path, snapshot(7), keep=1)
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["5", "6", "7"]
    assert newest_verified(tmp_path) == tmp_path / "checkpoints" / "step-000007"


class Faults:
    """Counts the calls that touch the disk, and lets one of them fail."""

    def __init__(self, monkeypatch, at: int, code: int) -> None:
        self.count, self.at, self.code = 0, at, code
        for name in ("fsync", "replace", "rename", "mkdir"):
            monkeypatch.setattr(os, name, self._failing(getattr(os, name)))
        monkeypatch.setattr(manifest, "open", self._open, raising=False)

    def _fail(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise OSError(self.code, os.strerror(self.code))

    def _failing(self, call):
        def wrapped(*args, **kwargs):
            self._fail()
            return call(*args, **kwargs)

        return wrapped

    def _open(self, path, mode="r"):
        file = builtins.open(path, mode)  # noqa: SIM115
        if "w" in mode:
            try:
                file.write(b"torn")
                file.flush()
                self._fail()
                file.seek(0)
                file.truncate()
            except OSError:
                file.close()
                raise
        return file


def _fails(run: Path, why: str) -> bool:
    """Whether a save fails, and if so with an error that says why."""
    try:
        save_checkpoint(run, snapshot(3))
    except (CheckpointError, OSError) as error:
        if why not in str(error):
            raise
        return True
    return False


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_at_any_call_loses_nothing(run, tmp_path_factory, monkeypatch, code):
    start = tmp_path_factory.mktemp("start") / "run"
    shutil.copytree(run, start)
    failures = 0
    for at in range(1, 500):
        with monkeypatch.context() as patch:
            faults = Faults(patch, at, code)
            failures += _fails(run, os.strerror(code))
        if faults.count < at:
            break
        assert load_checkpoint(run).step in (2, 3)
        assert newest_verified(run) is not None
        save_checkpoint(run, snapshot(4))
        assert load_checkpoint(run).step == 4
        assert not [path for path in run.rglob("*") if "tmp" in path.name]
        shutil.rmtree(run)
        shutil.copytree(start, run)
    assert failures >= 20
    assert faults.count < at


def test_the_error_of_a_full_disk_names_the_newest_checkpoint(run, monkeypatch):
    Faults(monkeypatch, 3, errno.ENOSPC)
    with pytest.raises(
        CheckpointError, match=r"step 3 .*No space left on device; .*step-000002"
    ) as caught:
        save_checkpoint(run, snapshot(3))
    assert isinstance(caught.value.__cause__, OSError)
    assert not [path for path in run.rglob("*") if "tmp" in path.name]
