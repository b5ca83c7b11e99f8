from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_system import VIEW, TinyBatches, TinyProcessor, make

from wamlab.data.logs import load_losses
from wamlab.data.manifest import DataError
from wamlab.train.budget import milestones, split_steps
from wamlab.train.checkpoint import CheckpointError, checkpoints, load_checkpoint
from wamlab.train.evidence import load_batch
from wamlab.train.learner import Diverged, Learner, measure_precision, seed_of, weights_digest
from wamlab.train.log import LOG
from wamlab.train.optim import OptimConfig
from wamlab.train.record import read_record
from wamlab.train.trainer import TrainConfig, train

CONFIG = TrainConfig(
    steps=20,
    precision="f32",
    checkpoint_every=5,
    log_every=5,
    augment_shift=2,
    optim=OptimConfig(lr=1e-2, warmup_steps=3, ema=0.9),
)


def go(out: Path, config: TrainConfig = CONFIG, *, model=None, batches=None, **rest):
    model = model or make()
    rest = {"progress": False, "statistics": {"center": 0.1}, **rest}
    return train(model, batches or TinyBatches(), TinyProcessor(), config, out, **rest)


def final(out: Path) -> str:
    checkpoint = load_checkpoint(out)
    return weights_digest({**checkpoint.weights, **_trained(checkpoint)})


def _trained(checkpoint):
    return {f"trained/{name}": value for name, value in checkpoint.trained().items()}


class Interrupting(TinyBatches):
    """Asks the process to stop, or fails, when a step's data is read."""

    def __init__(self, at: int, how) -> None:
        super().__init__()
        self.at, self.how = at, how

    def batch(self, step, stage):
        if step == self.at:
            self.how()
        return super().batch(step, stage)


def fail() -> None:
    raise OSError("the disk went away")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    go(out)
    return out


def test_training_lowers_the_loss_and_the_run_loads(unbroken):
    lines = load_losses(unbroken)
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert {"lr", "grad_norm", "samples_per_s", "data_wait_share", "action"} <= set(lines[0])
    checkpoint = load_checkpoint(unbroken)
    assert (checkpoint.step, checkpoint.model) == (20, "tiny")
    model = checkpoint.build()
    assert not model.training
    assert int(model.world.seen) == 20
    assert float(model.center) == pytest.approx(0.1)
    assert read_record(unbroken).status == "finished"
    assert [path.name for path in checkpoints(unbroken)] == ["step-000015", "step-000020"]


@pytest.mark.parametrize("at", [1, 5, 7, 19])
def test_a_failed_run_resumes_bit_for_bit(unbroken, tmp_path, at):
    with pytest.raises(OSError, match="went away"):
        go(tmp_path, batches=Interrupting(at, fail))
    go(tmp_path, resume=True)
    assert final(tmp_path) == final(unbroken)
    assert [line["step"] for line in load_losses(tmp_path)] == [5, 10, 15, 20]


def test_resuming_a_finished_run_changes_nothing(unbroken):
    before = final(unbroken)
    assert go(unbroken, resume=True).status == "finished"
    assert final(unbroken) == before


def test_a_signal_finishes_the_step_and_saves(unbroken, tmp_path):
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    handler = signal.getsignal(signal.SIGTERM)
    result = go(tmp_path, batches=Interrupting(7, stop))
    assert (result.status, result.step) == ("stopped", 8)
    assert load_checkpoint(tmp_path).position()["stage_step"] == 8
    assert signal.getsignal(signal.SIGTERM) is handler
    assert go(tmp_path, resume=True).status == "finished"
    assert final(tmp_path) == final(unbroken)


SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
from test_train_trainer import CONFIG, go
from tiny_system import TinyBatches
go(sys.argv[1], batches=TinyBatches(seconds=0.02), resume=True)
"""


def test_a_killed_process_resumes_bit_for_bit(unbroken, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), "."])}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    process = subprocess.Popen(command, env=environment)
    while not (tmp_path / "checkpoints" / "step-000005").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert read_record(tmp_path).status == "training"
    go(tmp_path, resume=True)
    assert final(tmp_path) == final(unbroken)


def test_two_stages_share_the_budget_and_leave_each_other_alone(tmp_path):
    model = make(staged=True)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    result = go(tmp_path, model=model)
    world, actor = read_record(tmp_path).stages
    assert (result.step, world.steps, actor.steps) == (20, 5, 15)
    assert (world.produces, actor.produces) == ("features", None)
    produced = load_checkpoint(tmp_path / "checkpoints" / "step-000005").weights
    end = load_checkpoint(tmp_path).weights
    for name in start:
        if name.startswith("actor."):
            assert torch.equal(start[name], produced[name])
            assert not torch.equal(produced[name], end[name])
        if name.startswith("world."):
            assert not torch.equal(start[name], produced[name])
            assert torch.equal(produced[name], end[name])
    assert int(end["world.seen"]) == 5
    learned = [name for name in end if name.startswith("world.")]
    assert world.digest == weights_digest(end, learned)
    assert actor.frozen == weights_digest(end, [*learned, "center"])
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("stage", "at"), [("world", 3), ("actor", 0), ("actor", 8)])
def test_stages_resume_bit_for_bit(tmp_path, stage, at):
    class Failing(TinyBatches):
        def batch(self, step, name):
            if (name, step) == (stage, at):
                fail()
            return super().batch(step, name)

    go(tmp_path / "whole", model=make(staged=True))
    with pytest.raises(OSError, match="went away"):
        go(tmp_path / "broken", model=make(staged=True), batches=Failing())
    go(tmp_path / "broken", model=make(staged=True), resume=True)
    assert final(tmp_path / "broken") == final(tmp_path / "whole")


def test_a_stage_that_changes_frozen_weights_is_found_out(tmp_path):
    model = make(staged=True)

    def meddle() -> None:
        with torch.no_grad():
            model.actor[1].bias.add_(1.0)

    model.after_step = meddle
    with pytest.raises(RuntimeError, match="world changed weights that it declares frozen"):
        go(tmp_path, model=model)


def test_a_stage_that_changes_a_frozen_buffer_is_found_out(tmp_path):
    model = make(staged=True)
    model.after_step = lambda: model.actor.seen.add_(1)
    with pytest.raises(RuntimeError, match="world changed weights that it declares frozen"):
        go(tmp_path, model=model)


def test_a_stage_that_trains_nothing_is_refused(tmp_path):
    model = make()
    stage = replace(model.stages()[0], trains=("wrold.",))
    model.stages = lambda: [stage]
    with pytest.raises(ValueError, match=r"'wrold\.'.*world"):
        go(tmp_path, model=model)


def test_minutes_become_steps_that_give_the_same_weights(tmp_path):
    config = replace(CONFIG, steps=None, minutes=0.5 / 60, checkpoint_every=1000)
    start = time.perf_counter()
    go(tmp_path / "minutes", config, batches=TinyBatches(seconds=0.01), device="cpu")
    assert time.perf_counter() - start < 2.0
    entry = read_record(tmp_path / "minutes").stages[0]
    assert 5 < entry.steps < 50
    assert 0.01 < entry.seconds_per_step < 0.1
    exactly = replace(CONFIG, steps=entry.steps, checkpoint_every=1000)
    go(tmp_path / "steps", exactly, device="cpu")
    assert final(tmp_path / "steps") == final(tmp_path / "minutes")


def test_the_precision_is_decided_once_and_recorded(tmp_path):
    with pytest.raises(OSError, match="went away"):
        go(tmp_path, replace(CONFIG, precision="auto"), batches=Interrupting(7, fail))
    decided = read_record(tmp_path).precision
    assert decided["choice"] == ("bf16" if decided["f32_ms"] >= 1.1 * decided["bf16_ms"] else "f32")
    other = "f32" if decided["choice"] == "bf16" else "bf16"
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace(f'"{decided["choice"]}"', f'"{other}"'))
    go(tmp_path, replace(CONFIG, precision="auto"), resume=True)
    assert load_checkpoint(tmp_path).config["run"]["precision"]["choice"] == other


def test_measuring_leaves_the_model_as_it_was():
    model = make()
    learner = Learner(model, model.stages()[0], TinyProcessor(), OptimConfig(), seed=0)
    before = weights_digest(model.state_dict())
    with learner:
        measure_precision(learner, TinyBatches().batch(0, "joint"))
    assert weights_digest(model.state_dict()) == before
    assert learner.precision == "f32"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_where_bf16_is_hopeless_one_pass_tells(monkeypatch):
    """A processor that emulates bf16 takes ten times as long; nobody waits for four passes."""
    passes = []

    def seconds(learner, work):
        passes.append(learner.precision)
        return 30.0 if learner.precision == "bf16" else 1.0

    monkeypatch.setattr("wamlab.train.learner._seconds", seconds)
    model = make()
    learner = Learner(model, model.stages()[0], TinyProcessor(), OptimConfig(), seed=0)
    with learner:
        found = measure_precision(learner, TinyBatches().batch(0, "joint"))
    assert passes.count("bf16") == 1 < passes.count("f32")
    assert found == {"f32_ms": 1000.0, "bf16_ms": 30000.0, "choice": "f32"}


def test_bf16_trains_to_other_but_finite_weights(unbroken, tmp_path):
    go(tmp_path, replace(CONFIG, precision="bf16"))
    assert final(tmp_path) != final(unbroken)
    assert load_losses(tmp_path)[-1]["loss"] < load_losses(tmp_path)[0]["loss"]
    assert load_checkpoint(tmp_path).weights["actor.1.weight"].dtype == torch.float32


def test_nan_stops_names_the_step_and_keeps_the_batch(tmp_path):
    with pytest.raises(Diverged, match="'loss' is nan at step 7 of stage 'joint'") as caught:
        go(tmp_path, model=make(poison_at=7))
    assert "read it by `wamlab.train.evidence.load_batch`" in str(caught.value)
    assert "step-000005" in str(caught.value)
    saved = load_batch(tmp_path / "diverged-joint-000007")
    batch = TinyBatches().batch(7, "joint")
    assert torch.equal(saved[VIEW].values, torch.as_tensor(batch[VIEW].values))
    assert torch.equal(saved.role, torch.as_tensor(batch.role))
    assert saved.text.sentences == batch.text.sentences
    about = json.loads((tmp_path / "diverged-joint-000007" / "batch.json").read_text())["about"]
    assert (about["stage"], about["step"]) == ("joint", 7)
    assert all(v.isfinite().all() for v in load_checkpoint(tmp_path).trained().values())


def test_an_infinite_gradient_stops_before_the_weights_change():
    model = make()
    learner = Learner(model, model.stages()[0], TinyProcessor(), OptimConfig(), seed=0)
    model.actor[1].weight.register_hook(lambda grad: grad * math.inf)
    before = weights_digest(model.state_dict())
    with learner, pytest.raises(Diverged, match="gradient norm is"):
        learner.step(TinyBatches().batch(0, "joint"), 0)
    assert weights_digest(model.state_dict()) == before


def test_validation_uses_the_averaged_weights_and_changes_nothing(unbroken, tmp_path):
    config = replace(CONFIG, validate_every=10)
    go(tmp_path, config, validation=TinyBatches(4))
    found = [line for line in load_losses(tmp_path) if "validation/loss" in line]
    assert [line["step"] for line in found] == [10, 20]
    assert found[1]["validation/loss"] < found[0]["validation/loss"]
    assert final(tmp_path) == final(unbroken)


def test_log_spaced_checkpoints_stay(tmp_path):
    go(tmp_path, replace(CONFIG, checkpoint_every=3, keep_log_spaced=3))
    assert [path.name[-2:] for path in checkpoints(tmp_path)] == ["02", "05", "10", "18", "20"]
    assert milestones(20, 3) == {10, 5, 2}
    assert milestones(1, 3) == set()


def test_a_run_is_not_overwritten_or_resumed_as_another(unbroken):
    with pytest.raises(ValueError, match="holds a run already"):
        go(unbroken)
    with pytest.raises(ValueError, match=r"config.seed was 0 and is now 1"):
        go(unbroken, replace(CONFIG, seed=1), resume=True)
    with pytest.raises(ValueError, match=r"model.config.width was 16 and is now 8"):
        go(unbroken, model=make(width=8), resume=True)
    with pytest.raises(ValueError, match="dataset was None"):
        go(unbroken, about={"dataset": "abc"}, resume=True)
    assert go(unbroken, replace(CONFIG, log_every=7, keep=3), resume=True).status == "finished"


def test_two_processes_cannot_train_into_one_folder(tmp_path):
    caught: list[Exception] = []

    def second() -> None:
        try:
            go(tmp_path, resume=True)
        except DataError as error:
            caught.append(error)

    def start() -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    go(tmp_path, batches=Interrupting(3, start))
    assert "is being written by another process" in str(caught[0])


def test_a_damaged_newest_checkpoint_is_left_aside(unbroken, tmp_path):
    with pytest.raises(OSError, match="went away"):
        go(tmp_path, batches=Interrupting(12, fail))
    path = tmp_path / "checkpoints" / "step-000010" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    go(tmp_path, resume=True)
    assert final(tmp_path) == final(unbroken)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run.json cannot be read"):
        go(tmp_path, resume=True)


def test_no_whole_checkpoint_is_an_error(tmp_path):
    with pytest.raises(OSError, match="went away"):
        go(tmp_path, batches=Interrupting(6, fail))
    (tmp_path / "checkpoints" / "step-000005" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        go(tmp_path, resume=True)


def test_a_log_line_cut_short_by_a_crash_is_forgotten(unbroken, tmp_path):
    with pytest.raises(OSError, match="went away"):
        go(tmp_path, batches=Interrupting(12, fail))
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 12, "lo')
    go(tmp_path, resume=True)
    assert [line["step"] for line in load_losses(tmp_path)] == [5, 10, 15, 20]


def test_steps_are_split_by_share_and_none_is_empty():
    stages = make(staged=True).stages()
    assert split_steps(20, stages) == [5, 15]
    assert split_steps(2, stages) == [1, 1]
    with pytest.raises(ValueError, match="1 steps are too few for 2"):
        split_steps(1, stages)


def test_seeds_depend_on_every_part_and_on_nothing_else():
    seeds = {seed_of(0, "joint", step, use) for step in range(50) for use in ("noise", "shift")}
    assert len(seeds) == 100
    assert seed_of(0, "joint", 1) == 313481304293603564


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "either a number of steps or of minutes"),
        ({"steps": 5, "minutes": 1.0}, "either a number of steps or of minutes"),
        ({"steps": 0}, "steps is 0"),
        ({"minutes": -1.0}, "minutes is -1.0"),
        ({"steps": 5, "augment_shift": -1}, "no negative number"),
    ],
)
def test_impossible_configurations_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        TrainConfig(**values)


def test_a_missing_gpu_is_an_error(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="only the CPU"):
        go(tmp_path, device="cuda")
