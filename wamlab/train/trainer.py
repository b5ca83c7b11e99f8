"""The training loop: stages, budgets, checkpoints, and the way back from any interruption.

Everything after the first decisions (precision, number of steps) is a function of the step, so that
a run that was killed and resumed ends with the same bits as one that was not. That holds on a CPU
with the same number of threads. On CUDA the numbers drawn and the rows read are the same, but no
deterministic kernels are asked for, and some add up in an order that varies.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from wamlab.config import to_dict
from wamlab.data.commit import acquire_lock
from wamlab.data.manifest import check_open
from wamlab.models.base import Stage, WorldActionModel
from wamlab.train.budget import RESERVE, milestones, split_steps
from wamlab.train.checkpoint import (
    Checkpoint,
    CheckpointError,
    Savable,
    Snapshot,
    checkpoints,
    clean,
    load_checkpoint,
    load_weights,
    newest_verified,
    save_checkpoint,
)
from wamlab.train.device import choose_device
from wamlab.train.evidence import save_batch
from wamlab.train.interrupt import stop_requested
from wamlab.train.learner import (
    SIZED,
    Batches,
    Diverged,
    Learner,
    Normalizer,
    check_sizes,
    measure_precision,
    measure_step,
)
from wamlab.train.log import RunLog, rewind_log
from wamlab.train.optim import OptimConfig, load_optimizer_tensors, optimizer_tensors
from wamlab.train.provenance import provenance
from wamlab.train.record import (
    RECORD,
    SCHEMA,
    Record,
    StageRecord,
    check_same,
    read_record,
)
from wamlab.types import ActionSpace


class Processor(Normalizer, Savable, Protocol):
    """What training asks of a processor: to normalise batches and to save itself."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained; exactly one of ``steps`` and ``minutes`` is given.

    The budget is shared among the stages. ``augment_shift`` is in pixels. ``checkpoint_every``
    counts steps; of the checkpoints the newest ``keep`` stay, and besides them ``keep_log_spaced``
    of each stage, at 1/2, 1/4, 1/8, ... of its steps. ``validate_every`` 0 turns validation off.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 64
    seed: int = 0
    precision: Literal["auto", "f32", "bf16"] = "auto"
    checkpoint_every: int = 500
    keep: int = 2
    keep_log_spaced: int = 0
    log_every: int = 20
    augment_shift: int = 0
    validate_every: int = 0
    validate_batches: int = 2
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give either a number of steps or of minutes")
        counts = ("batch_size", "checkpoint_every", "keep", "log_every", "validate_batches")
        for name in ("steps", "minutes", *counts):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}, expected more than 0")
        if self.augment_shift < 0 or self.keep_log_spaced < 0 or self.validate_every < 0:
            raise ValueError(f"expected no negative number in {self}")


@dataclass(frozen=True)
class Result:
    """How a run ended: ``finished``, or ``stopped`` by a signal after a checkpoint was saved."""

    out: Path
    status: Literal["finished", "stopped"]
    step: int
    checkpoint: Path


def train(
    model: WorldActionModel,
    batches: Batches,
    processor: Processor,
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
    statistics: Mapping[str, Any] | None = None,
    action_space: ActionSpace | None = None,
    validation: Batches | None = None,
    about: Mapping[str, Any] | None = None,
    external: Mapping[str, str] | None = None,
    before_stage: Callable[[Stage, WorldActionModel], None] | None = None,
) -> Result:
    """Train ``model`` through all its stages; ``out`` then loads as a checkpoint.

    Args:
        batches: raw batches of ``config.batch_size`` rows, a function of (step, stage).
        resume: continue the run in ``out`` (on a CPU bit for bit), or begin it where there is none.
        statistics: what ``model.fit`` is given before step 0.
        validation: held-out batches, read when ``config.validate_every`` says so.
        about: provenance only the caller knows; a run resumes only on the same ``dataset``.
        external: digests of weights that the model uses and the checkpoint does not hold.
        before_stage: called when a stage is begun or resumed, in its time: what earlier stages
            have produced may prepare the data of this one.

    Raises:
        ValueError: ``out`` holds a run and ``resume`` is off, or it was another run; or the data
            have another action or state size than the model.
        DataError: another process is training into ``out``, or it is a dataset.
        Diverged: a loss or gradient is not finite; names step and stage and saves the batch.
        CheckpointError: a checkpoint could not be written or read.
    """
    out = Path(out)
    measured = {name: found for name, found in (statistics or {}).items() if name in SIZED}
    check_sizes(model, {name: len(found["q01"]) for name, found in measured.items()})
    check_open(out)
    with acquire_lock(out), stop_requested() as stop:
        clean(out)
        model.fit(statistics or {})
        model.to(choose_device(device))
        record = _open_record(model, config, out, resume, about)
        trainer = _Trainer(model, batches, processor, config, out, record, stop)
        trainer.validation, trainer.action_space = validation, action_space
        trainer.external, trainer.before_stage = dict(external or {}), before_stage
        trainer.log = RunLog(out, config.log_every, progress)
        try:
            return trainer.run()
        finally:
            trainer.log.close()


def _open_record(
    model: WorldActionModel,
    config: TrainConfig,
    out: Path,
    resume: bool,
    about: Mapping[str, Any] | None,
) -> Record:
    names = [stage.name for stage in model.stages()]
    counts: list[int | None] = [None] * len(names)
    if config.steps is not None:
        counts = [*split_steps(config.steps, model.stages())]
    asked = Record(
        SCHEMA,
        {"name": model.name, "config": to_dict(model.config)},
        to_dict(config),
        [StageRecord(name, steps) for name, steps in zip(names, counts, strict=True)],
        provenance=provenance(
            seed=config.seed,
            device=str(model.device),
            threads=torch.get_num_threads(),
            **(about or {}),
        ),
    )
    if not (out / RECORD).exists():
        if checkpoints(out):
            raise ValueError(f"{out} holds checkpoints but no {RECORD}: it cannot be continued")
        asked.save(out)
        return asked
    if not resume:
        raise ValueError(f"{out} holds a run already: resume it, or choose another folder")
    there = read_record(out)
    check_same(asked, there, out)
    return there


@dataclass
class _Trainer:
    model: WorldActionModel
    batches: Batches
    processor: Processor
    config: TrainConfig
    out: Path
    record: Record
    stop: threading.Event
    validation: Batches | None = None
    action_space: ActionSpace | None = None
    external: dict[str, str] = field(default_factory=dict)
    before_stage: Callable[[Stage, WorldActionModel], None] | None = None
    log: RunLog = field(init=False)

    def run(self) -> Result:
        stages = self.model.stages()
        checkpoint = self._newest()
        at = checkpoint.position() if checkpoint else {"stage": 0, "stage_step": 0}
        rewind_log(self.out, checkpoint.step if checkpoint else 0)
        if checkpoint:
            load_weights(self.model, checkpoint.trained())
            self.log.say(f"resuming from {checkpoint.folder}")
            self._warn_of_other_bits()
        folder = checkpoint.folder if checkpoint else self.out
        for index in range(at["stage"], len(stages)):
            first = index == at["stage"]
            learner = self._learner(index, stages[index])
            with learner, self._evidence(stages[index].name):
                self._decide(learner, index)
                if first and checkpoint and at["stage_step"]:
                    learner.average.load(checkpoint.weights)
                    load_optimizer_tensors(self.model, learner.optimizer, checkpoint.optimizer())
                folder = self._stage(learner, index, at["stage_step"] if first else 0)
            if self.stop.is_set() and self.record.status == "stopped":
                return Result(self.out, "stopped", self.record.step, folder)
        self.record.status, self.record.step = "finished", self._base(len(stages))
        self.record.save(self.out)
        self.model.eval()
        return Result(self.out, "finished", self.record.step, folder)

    def _newest(self) -> Checkpoint | None:
        if not (there := checkpoints(self.out)):
            return None
        newest = newest_verified(self.out)
        if newest is None:
            raise CheckpointError(f"none of the {len(there)} checkpoints in {self.out} is whole")
        if newest != there[-1]:
            self.log.say(f"{there[-1]} is damaged and left aside")
        return load_checkpoint(newest, verify=False, model=self.model.name)

    def _warn_of_other_bits(self) -> None:
        """A sum depends on how threads share it: the same bits need the same CPU threads."""
        now = {"device": str(self.model.device), "threads": torch.get_num_threads()}
        for name, value in now.items():
            if (before := self.record.provenance.get(name)) != value:
                self.log.say(f"{name} was {before} and is {value}: the bits will differ")

    def _learner(self, index: int, stage: Stage) -> Learner:
        return Learner(
            self.model,
            stage,
            self.processor,
            self.config.optim,
            seed=self.config.seed,
            augment_shift=self.config.augment_shift,
            steps=self.record.stages[index].steps or 1,
        )

    def _decide(self, learner: Learner, index: int) -> None:
        """Precision and number of steps: measured once, then read from the record."""
        start, entry = time.perf_counter(), self.record.stages[index]
        if self.before_stage is not None:
            self.before_stage(learner.stage, self.model)
        if not self.record.precision:
            self.record.precision = self._precision(learner)
        learner.precision = self.record.precision["choice"]
        if entry.steps is None:
            budget = self._seconds(index)
            seconds = measure_step(learner, self.batches, min(20.0, RESERVE * budget))
            left = (1 - RESERVE) * budget - (time.perf_counter() - start)
            entry.steps, entry.seconds_per_step = max(1, int(left / seconds)), seconds
            self.log.say(
                f"stage {entry.name}: {1000 * seconds:.0f} ms a step, so {entry.steps} steps "
                f"in the {budget / 60:.1f} minutes of this stage"
            )
        learner.steps = entry.steps
        digest = learner.frozen_digest()
        if entry.frozen not in (None, digest):
            raise CheckpointError(f"frozen weights differ from those at the start of {entry.name}")
        entry.frozen, self.record.status = digest, "training"
        self.record.save(self.out)

    def _precision(self, learner: Learner) -> dict[str, Any]:
        if self.config.precision != "auto":
            return {"choice": self.config.precision}
        raw = self.batches.batch(0, learner.stage.name)
        found = measure_precision(learner, raw)
        self.log.say(
            f"forward and backward: f32 {found['f32_ms']:.0f} ms, bf16 {found['bf16_ms']:.0f} ms; "
            f"training in {found['choice']}"
        )
        return found

    def _seconds(self, index: int) -> float:
        stages = self.model.stages()
        share = stages[index].share / sum(stage.share for stage in stages)
        return 60 * (self.config.minutes or 0.0) * share

    def _base(self, index: int) -> int:
        """Steps of all stages before this one."""
        return sum(entry.steps or 0 for entry in self.record.stages[:index])

    def _stage(self, learner: Learner, index: int, start: int) -> Path:
        """Train from step ``start`` to the stage's end, or until a signal asks to stop."""
        stage, base, steps = learner.stage, self._base(index), learner.steps
        kept = milestones(steps, self.config.keep_log_spaced)
        self.log.begin(stage.name, start, steps)
        for step in range(start, steps):
            self._step(learner, base, step)
            done = step + 1
            if done < steps and (
                self.stop.is_set() or done % self.config.checkpoint_every == 0 or done in kept
            ):
                folder = self._save(learner, index, done)
                if self.stop.is_set():
                    self.record.status, self.record.step = "stopped", base + done
                    self.record.save(self.out)
                    return folder
        return self._end(learner, index)

    def _step(self, learner: Learner, base: int, step: int) -> None:
        name, asked = learner.stage.name, time.perf_counter()
        raw = self.batches.batch(step, name)
        waited = time.perf_counter() - asked
        report = learner.step(raw, step)
        self.log.add(report, len(raw), waited)
        done, last = step + 1, step + 1 == learner.steps
        if done % self.config.log_every == 0 or last:
            self.log.line(base + done, name, done, report.lr)
        every = self.config.validate_every
        if self.validation is not None and every and (done % every == 0 or last):
            losses = learner.validate(self.validation, self.config.validate_batches)
            values = {f"validation/{key}": value for key, value in losses.items()}
            self.log.write({"step": base + done, "stage": name, "stage_step": done, **values})

    @contextmanager
    def _evidence(self, stage: str) -> Iterator[None]:
        """Keep the batch at which a loss or gradient was not finite."""
        try:
            yield
        except Diverged as error:
            folder = self.out / f"diverged-{stage}-{error.step:06d}"
            about = {"stage": stage, "step": error.step, "seed": self.config.seed}
            save_batch(error.batch, folder, error=str(error), **about)
            newest = newest_verified(self.out) or "none"
            text = (
                f"{error}; its batch is saved in {folder}, read it by "
                f"`wamlab.train.evidence.load_batch`; the newest checkpoint is {newest}"
            )
            raise Diverged(text, error.batch, error.step) from error

    def _end(self, learner: Learner, index: int) -> Path:
        """The averaged weights become the stage's result, on which the next one builds."""
        entry = self.record.stages[index]
        if learner.frozen_digest() != entry.frozen:
            raise RuntimeError(f"stage {entry.name} changed weights that it declares frozen")
        learner.average.adopt()
        entry.produces, entry.digest = learner.stage.produces, learner.produced_digest()
        self.record.step = self._base(index + 1)
        self.record.save(self.out)
        return self._save(learner, index, learner.steps)

    def _save(self, learner: Learner, index: int, done: int) -> Path:
        ended = done == learner.steps
        state = self.model.state_dict()
        here = {"stage": index + 1, "stage_step": 0} if ended else {}
        snapshot = Snapshot(
            step=self._base(index) + done,
            model=self.model.name,
            model_config=self.record.model["config"],
            weights=state if ended else learner.average.weights(self.model),
            trained=state,
            optimizer={} if ended else optimizer_tensors(self.model, learner.optimizer),
            position={"stage": index, "stage_step": done, "seed": self.config.seed, **here},
            processor=self.processor,
            action_space=self.action_space,
            run=to_dict(self.record),
            provenance=self.record.provenance,
            external=self.external,
        )
        return save_checkpoint(
            self.out, snapshot, keep=self.config.keep, protect=self._protected(index)
        )

    def _protected(self, index: int) -> set[int]:
        """Global steps of stage ends and of log-spaced checkpoints so far."""
        steps = set()
        for number, entry in enumerate(self.record.stages[: index + 1]):
            base, count = self._base(number), entry.steps or 0
            steps |= {base + part for part in milestones(count, self.config.keep_log_spaced)}
            steps.add(base + count)
        return steps
