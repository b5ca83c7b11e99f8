"""One cell of a protocol: a model, a seed and an attempt, from demonstrations to one JSON file.

A cell's folder is a run folder as `wam` leaves it, with the rollouts of the half-trained checkpoint
in ``middle/``. Everything in the JSON is computed from these logs.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine

from wamlab.config import nearest, to_dict
from wamlab.data.logs import load_episodes, load_losses, read_json, write_json
from wamlab.policy.policy import load
from wamlab.recipes.run import COLLECTED, DataConfig, Run
from wamlab.recipes.work import (
    build_model,
    collect_data,
    execute_imagination,
    feed,
    fit_processor,
    open_caches,
    roll_out,
    save_blind_rows,
    serve_latents,
    show_rivals,
    train_run,
)
from wamlab.report.results import results
from wamlab.train.budget import RESERVE
from wamlab.train.feed import Feed
from wamlab.train.learner import Learner, measure_precision, measure_step
from wamlab.train.plan import training_flops
from wamlab.train.provenance import provenance
from wamlab.train.record import Record, read_record
from wamlab.types import FUTURE, Episode

SCHEMA = 1
ATTEMPTS = 3
MIDDLE = "middle"


@dataclass(frozen=True)
class Cell:
    """Which cell it is, and why it is tried: a later attempt says what it expects to change.

    A ``variant`` of a model is a system of its own.
    """

    protocol: str
    model: str
    seed: int
    attempt: int = 1
    hypothesis: str = ""
    variant: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.attempt <= ATTEMPTS:
            raise ValueError(f"attempt {self.attempt}: a protocol allows attempts 1 to {ATTEMPTS}")
        if self.attempt > 1 and not self.hypothesis:
            raise ValueError(f"attempt {self.attempt} needs a written hypothesis")

    @property
    def system(self) -> str:
        return f"{self.model}-{self.variant}" if self.variant else self.model

    @property
    def name(self) -> str:
        return f"{self.system}-seed{self.seed}-attempt{self.attempt}"

    def result(self, results: Path) -> Path:
        return results / self.protocol / f"{self.name}.json"


@dataclass(frozen=True)
class Places:
    """Where things lie: results to keep, and runs to work in."""

    results: Path
    work: Path


def run_cell(cell: Cell, run: Run, places: Places, *, middle: int, fixed: str) -> Path:
    """Carry a cell out, from wherever it stood, and write its result.

    ``middle`` episodes of each task are played with the half-trained checkpoint; ``fixed`` says
    how the number of steps was fixed.
    """
    folder = places.work / cell.protocol / cell.name
    data = demonstrations(run.data, places.work / cell.protocol / "data")
    train_cell(run, data, folder)
    play(run, folder, middle)
    imagine(run, data, folder)
    found = judged(cell, run, folder, data, fixed=fixed)
    return write_json(cell.result(places.results), found)


def train_cell(run: Run, data: Path, folder: Path) -> None:
    """Train, or go on with training, and keep what the machine was like.

    Raises:
        SystemExit: a signal asked to stop; a checkpoint was saved.
    """
    before = machine.state()
    result = train_run(run, [data], folder, resume=True, device="cpu")
    if result.status != "finished":
        raise SystemExit(f"{folder} stopped at step {result.step}; it goes on when run again")
    note_machine(folder, before)


def play(run: Run, folder: Path, middle: int) -> None:
    """Rollouts of the trained and of the half-trained policy on the same starts."""
    envs, seed = run.data.envs, run.train.seed
    roll_out(run, load(folder, "cpu"), envs, folder, checkpoint=folder, seed=seed)
    save_blind_rows(envs, folder)
    if middle:
        rollouts = dataclasses.replace(run.rollout, episodes=middle, keep_frames=0)
        half_run = dataclasses.replace(run, rollout=rollouts)
        half = load(middle_checkpoint(folder), "cpu")
        roll_out(half_run, half, envs, folder / MIDDLE, seed=seed)


def imagine(run: Run, data: Path, folder: Path) -> None:
    """Probes of a model that imagines, and what each rival shows for each of them."""
    policy = load(folder, "cpu")
    if any(FUTURE in query.sampled for query in policy.model.queries):
        probes = execute_imagination(run, policy, run.data.envs, folder, seed=run.train.seed)
        show_rivals(run, probes, [data], folder)


def demonstrations(config: DataConfig, folder: Path) -> Path:
    """The demonstrations that all cells of a protocol share.

    Raises:
        ValueError: the folder holds some that were collected otherwise.
    """
    note, whole = folder.with_name(f"{folder.name}.json"), to_dict(config)
    asked = {name: whole[name] for name in COLLECTED}
    if note.exists():
        there = {name: value for name, value in read_json(note).items() if name in COLLECTED}
        if there != asked:
            raise ValueError(f"{folder} holds demonstrations of {there}, asked for {asked}")
    write_json(note, asked)
    collect_data(config, folder)
    return folder


def note_machine(folder: Path, before: Mapping[str, Any]) -> None:
    """Keep what the machine was like in training, once: a finished cell may be judged again."""
    path = folder / "machine.json"
    if not path.exists():
        write_json(path, {"before": before, "after": machine.state()})


def checkpoint_at(folder: Path, step: int) -> Path:
    """Where a run keeps the checkpoint of a step, counted over all stages."""
    return folder / "checkpoints" / f"step-{step:06d}"


def middle_checkpoint(folder: Path) -> Path:
    """The checkpoint at half of the last stage's steps, which training kept.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = checkpoint_at(folder, middle_step(read_record(folder)))
    if not path.is_dir():
        there = nearest(path.name, [found.name for found in path.parent.glob("step-*")])
        raise FileNotFoundError(f"{path} was not kept{there}")
    return path


def judged(cell: Cell, run: Run, folder: Path, data: Path, *, fixed: str) -> dict[str, Any]:
    """The cell's result, from its logs; imagined futures where models are compared."""
    record, found = read_record(folder), results(folder, compared=True)
    episodes = load_episodes(folder, frames=False)
    half = load_episodes(folder / MIDDLE, frames=False)
    return rounded(
        {
            "schema": SCHEMA,
            "protocol": cell.protocol,
            "model": cell.system,
            "seed": cell.seed,
            "attempt": cell.attempt,
            "hypothesis": cell.hypothesis,
            "steps": record.step,
            "steps_fixed_by": fixed,
            "samples": record.step * run.train.batch_size,
            "gflop_per_sample": gflops(run, data),
            "precision": record.precision,
            "training_seconds": training_seconds(load_losses(folder), run.train.batch_size),
            "machine_in_training": read_json(folder / "machine.json"),
            "plan": per_plan(episodes, run.rollout.batch),
            "success": tasks(episodes),
            "middle": {"step": middle_step(record), "success": tasks(half)} if half else None,
            "blind": found["blind"],
            "imagination": {**found["fidelity"], "census": found["probes"]},
            "over_rivals": found["rivals"],
            "joint": {
                entity: {name: without_items(one) for name, one in measures.items()}
                for entity, measures in found["joint"].items()
            },
            "run": run.to_dict(),
            "dataset": record.provenance["dataset"],
            "trained": {name: record.provenance[name] for name in ("commit", "time")},
            "provenance": provenance(),
        }
    )


def without_items(result: Mapping[str, Any]) -> dict[str, Any]:
    """A ratio of sums is not pooled from the ratios of its states: they stay in the run folder."""
    return {name: value for name, value in result.items() if name != "items"}


def tasks(episodes: Sequence[Episode]) -> dict[str, dict[str, Any]]:
    """Successes by task. ``outcomes`` is one digit for each start, in order: 1 is a success."""
    groups: dict[str, list[Episode]] = {}
    for episode in sorted(episodes, key=lambda episode: episode.seed):
        groups.setdefault(episode.env, []).append(episode)
    return {
        env: {
            "n": len(group),
            "any": sum(one.success_any for one in group),
            "last": sum(one.success_last for one in group),
            "at_reset": sum(one.success_at_reset for one in group),
            "first_start": group[0].seed,
            "outcomes": "".join(str(int(one.success_any)) for one in group),
        }
        for env, group in groups.items()
    }


def per_plan(episodes: Sequence[Episode], rows: int) -> dict[str, Any]:
    """What one decision took. ``ms`` is the wall clock of a call that up to ``rows`` rows share."""
    replans = [replan for episode in episodes for replan in episode.replans]
    return {
        "calls": statistics.median(replan.calls for replan in replans),
        "ms_p50": statistics.median(replan.ms for replan in replans),
        "rows_at_most": rows,
        "plans": len(replans),
    }


def training_seconds(log: Sequence[Mapping[str, Any]], batch_size: int) -> float:
    """The wall clock of a run's steps from its log, in one piece or in several."""
    seconds, before = 0.0, 0
    for line in log:
        if "samples_per_s" in line:
            seconds += (line["step"] - before) * batch_size / line["samples_per_s"]
            before = line["step"]
    return seconds


def middle_step(record: Record) -> int:
    *earlier, last = [stage.steps or 0 for stage in record.stages]
    return sum(earlier) + (last >> 1)


def gflops(run: Run, data: Path) -> dict[str, float]:
    """Counted FLOPs of a training step per sample, by stage, in 1e9."""
    counts = {}
    for learner, batches in learners(run, data, stand_in=True):
        with learner:
            part = batches.batch(0, learner.stage.name).select([0, 1, 2, 3])
            counts[learner.stage.name] = training_flops(learner, part) / len(part) / 1e9
    return counts


def fix_steps(run: Run, places: Places, protocol: str, seconds: float) -> dict[str, Any]:
    """How many steps this machine takes in the recipe's minutes: real batches, whole steps.

    Raises:
        ValueError: the recipe already names a number of steps.
    """
    if run.train.minutes is None:
        raise ValueError(f"{run.recipe} is measured in steps: there is nothing to fix")
    data = demonstrations(run.data, places.work / protocol / "data")
    found: dict[str, Any] = {}
    taken = 0.0
    for learner, batches in learners(run, data):
        with learner:
            first = batches.batch(0, learner.stage.name)
            found = found or measure_precision(learner, first)
            learner.precision = found["choice"]
            each = measure_step(learner, batches, seconds)
            total = sum(stage.share for stage in learner.model.stages())
            taken += each * learner.stage.share / total
    budget = 60 * (1 - RESERVE) * run.train.minutes
    return rounded(
        {
            "steps": int(budget / taken),
            "minutes": run.train.minutes,
            "seconds_per_step": taken,
            "batch_size": run.train.batch_size,
            "precision": found,
            "model": to_dict(run.model),
            "provenance": provenance(),
        }
    )


def learners(run: Run, data: Path, *, stand_in: bool = False) -> Iterator[tuple[Learner, Feed]]:
    """A learner for every stage of a run's model, as training makes it, and what it reads.

    With ``stand_in`` nothing is encoded for a stage that reads codes.
    """
    caches = open_caches(run, [data])
    model, processor = build_model(run), fit_processor(run, caches)
    model.fit(processor.model_statistics())
    with feed(run, caches, model) as batches:
        for stage in model.stages():
            serve_latents(run, batches, stage, model, stand_in=stand_in)
            learner = Learner(
                model,
                stage,
                processor,
                run.train.optim,
                seed=run.train.seed,
                augment_shift=run.train.augment_shift,
            )
            yield learner, batches


def rounded(value: Any, digits: int = 5) -> Any:
    """The same JSON value with every number at ``digits`` significant digits."""
    if isinstance(value, dict):
        return {str(key): rounded(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
