"""What each command does: a few lines that call one room."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wamlab.data.manifest import Problem
    from wamlab.policy.policy import Policy
    from wamlab.recipes.run import Run

Options = argparse.Namespace


def demo(options: Options) -> None:
    from wamlab.cli.demo import demonstrate

    demonstrate(Path(options.out), quick=options.quick, seed=options.seed, device=options.device)


def list(options: Options) -> None:
    from wamlab.cli.listing import show

    show(options.what, options.json)


def collect(options: Options) -> None:
    from wamlab.recipes.run import DataConfig
    from wamlab.recipes.work import collect_data

    data = DataConfig(envs=tuple(options.env), episodes=options.episodes, start=options.start)
    for count in collect_data(data, options.out):
        print(count)


def data_inspect(options: Options) -> None:
    from wamlab.data.inspect import inspect

    beside = Path(f"{options.path.rstrip('/')}-inspected")
    print(inspect(options.path, options.out or beside))


def data_check(options: Options) -> int:
    from wamlab.data.check import check

    if not Path(options.path).is_dir():
        raise FileNotFoundError(f"{options.path}: no such folder")
    return _problems(options.path, check(options.path))


def train(options: Options) -> None:
    from wamlab.recipes import recipe

    run = recipe(options.recipe, options.data).with_budget(
        minutes=options.minutes, steps=options.steps
    )
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, seed=options.seed))
    run = _on_data(_vary_training(run, options.assignments), options.data)
    print(json.dumps(run.to_dict(), indent=1))
    from wamlab.recipes.work import plan_run, train_run

    if options.dry_run:
        print(plan_run(run, options.data, device=options.device))
        return
    result = train_run(run, options.data, options.out, resume=options.resume, device=options.device)
    print(f"{result.status} at step {result.step}: {result.checkpoint}")


def eval(options: Options) -> None:
    from wamlab.recipes.work import acting_run

    if options.env and options.states:
        raise ValueError("--states counts instants of recorded episodes: it goes with --dataset")
    options.out = options.out or _run_folder(options.checkpoint)
    run, policy = acting_run(options.checkpoint, options.device)
    (_eval_env if options.env else _eval_dataset)(options, run, policy)


def _eval_env(options: Options, run: Run, policy: Policy) -> None:
    from wamlab.metrics.success import success_any
    from wamlab.recipes.work import roll_out, save_blind_rows

    rollouts = dataclasses.replace(run.rollout, **_given(options, "episodes"))
    run = dataclasses.replace(run, rollout=rollouts)
    run = _vary(run, options.assignments, "eval", ("rollout.*",))
    episodes = roll_out(
        run, policy, options.env, options.out, checkpoint=options.checkpoint, seed=options.seed
    )
    if not run.rollout.shift:  # the rows were measured without one
        save_blind_rows(options.env, options.out)
    result = success_any(episodes)
    found = result.why_not if result.value is None else f"{result.value:.3f}"
    print(f"success {found} over {len(episodes)} episodes: {options.out}")


def _eval_dataset(options: Options, run: Run, policy: Policy) -> None:
    from wamlab.recipes.recorded import read_datasets, read_places, replay_recorded
    from wamlab.report.open_loop import judged
    from wamlab.report.words import on_recorded

    wanted = dataclasses.replace(run.open_loop, **_given(options, "episodes", "states"))
    run = dataclasses.replace(run, open_loop=wanted)
    reads = ("open_loop.*", "data.alignment", "data.resize")
    run = _vary(run, options.assignments, "eval --dataset", reads)
    found = replay_recorded(
        run,
        policy,
        options.dataset,
        options.out,
        read_datasets(options.checkpoint),
        places=read_places(options.checkpoint),
        seed=options.seed,
    )
    print(f"{on_recorded(judged(found) or {})} {options.out}")


def probe(options: Options) -> None:
    from wamlab.data.logs import load_reader_errors
    from wamlab.policy.policy import load
    from wamlab.recipes.work import (
        acting_run,
        check_probes,
        execute_imagination,
        show_rivals,
    )
    from wamlab.report.words import reader_error
    from wamlab.run.film import Judge
    from wamlab.run.reading import judge_probes, read_probes_of

    options.out = options.out or _run_folder(options.checkpoint)
    run, policy = acting_run(options.checkpoint, options.device)
    wanted = dataclasses.replace(run.probe, **_given(options, "states", "samples"))
    run = dataclasses.replace(run, probe=wanted)
    run = _vary(run, options.assignments, "probe", ("probe.*",))
    _check_there(options.data)
    check_probes(run, policy, options.env, options.out)
    judge = None if options.judge is None else Judge(load(options.judge, options.device))
    probes = execute_imagination(run, policy, options.env, options.out, seed=options.seed)
    branches = sum(len(probe.branches) for probe in probes)
    print(f"{len(probes)} states, {branches} executed chunks: {options.out}")
    if options.data:
        show_rivals(run, probes, options.data, options.out)
    if options.readers is not None:
        titles = [one.reader for one in read_probes_of(policy, options.out, options.readers)]
        print(f"{sum(map(bool, titles))} of them read by the state readers in {options.readers}")
        for title, error in load_reader_errors(options.out).items():
            if title in titles:
                print(f"{title}, on starts that it never saw: {reader_error(error)}")
    if judge is not None:
        read = sum(bool(one.judge) for one in judge_probes(judge, options.out))
        print(f"{read} of them judged by {judge.title}")


def imagine(options: Options) -> None:
    from wamlab.policy.policy import load
    from wamlab.recipes.work import expand
    from wamlab.run.imagine import imagine as animate

    envs = expand([options.env])
    if len(envs) > 1:
        raise ValueError(f"one future is imagined in one environment; {options.env} is {envs}")
    (env,) = envs
    animate(load(options.checkpoint, options.device), env, options.out, seed=options.seed)
    print(options.out)


def report(options: Options) -> None:
    from wamlab.report.build import build

    _check_folders([options.folder])
    print(build(options.folder, options.features))


def compare(options: Options) -> None:
    from wamlab.report import compare

    _check_folders(options.folders)
    found = compare.compare(options.folders)
    if options.json:
        print(json.dumps(compare.plain(found), indent=1))
    else:
        print("\n".join(compare.sentences(found)) or "These runs share nothing to compare.")
    if options.out:
        page = compare.write_page(found, options.out)
        print(f"page: {page}", file=sys.stderr if options.json else sys.stdout)


def export(options: Options) -> None:
    from wamlab.report.rrd import export as record

    print(record(options.log, options.out))


def verify(options: Options) -> int:
    from wamlab.data.manifest import verify_manifest

    path = Path(options.path)
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}")
    folders = sorted((path / "checkpoints").glob("[!.]*")) or [path]
    return max(_problems(str(folder), verify_manifest(folder)) for folder in folders)


def weights(options: Options) -> None:
    from wamlab.nn.weights import WEIGHTS, convert, find, path_of

    if options.name is None:
        if options.source:
            raise ValueError("--from is the file of one of them: name which")
        for name, one in WEIGHTS.items():
            there = str(path_of(name)) if path_of(name).is_file() else f"{one.install}, then this"
            print(f"{name}: {one.about}. Licence: {one.licence}. {there}")
        return
    print(f"licence: {find(options.name).licence}")
    print(convert(options.name, options.source))


def _given(options: Options, *names: str) -> dict[str, Any]:
    """The counts of these that were asked for; of the others the run's own hold."""
    return {n: getattr(options, n) for n in names if getattr(options, n) is not None}


def _vary(run: Run, assignments: Sequence[str], command: str, reads: Sequence[str]) -> Run:
    """The run with these fields changed, of those that a command ``reads``.

    Raises:
        ValueError: a field that it would not read, or a value that does not fit.
    """
    varied = run.vary(assignments)
    for name in (assignment.partition("=")[0].strip() for assignment in assignments):
        if not any(fnmatchcase(name, read) for read in reads):
            taken = f"`wam {command}` takes {', '.join(reads)}"
            raise ValueError(f"{name} was decided in training; {taken}")
    return varied


def _vary_training(run: Run, assignments: Sequence[str]) -> Run:
    """The run with these fields changed.

    Raises:
        ValueError: one that was decided when the demonstrations were collected.
    """
    from wamlab.recipes.run import COLLECTED

    _check_budget(run, assignments)
    varied = run.vary(assignments)
    fields = [field.name for field in dataclasses.fields(run.data)]
    for name in COLLECTED:
        if getattr(varied.data, name) != getattr(run.data, name):
            taken = ", ".join(f"data.{one}" for one in fields if one not in COLLECTED)
            raise ValueError(
                f"data.{name} says how demonstrations are collected (`wam collect`), and --data "
                f"are: training takes {taken}"
            )
    return varied


def _check_budget(run: Run, assignments: Sequence[str]) -> None:
    """Raise ValueError for a second budget beside the run's own, which has a flag to replace it."""
    for name, _, value in (assignment.partition("=") for assignment in assignments):
        for one, other in (("minutes", "steps"), ("steps", "minutes")):
            own = getattr(run.train, other)
            if name.strip() == f"train.{one}" and own is not None and value.strip() != "none":
                raise ValueError(f"the run has {other}={own:g}: use --{one} {value.strip()}")


def _on_data(run: Run, datasets: Sequence[str]) -> Run:
    """The run as these datasets make it; says so where they are not those of its recipe."""
    from wamlab.recipes.work import on_data

    _check_there(datasets)
    found = on_data(run, datasets)
    if run.data.envs and found is not run:
        there, asked = (", ".join(one.data.envs) for one in (found, run))
        told = f"hold {there}" if there else "name no environment"
        print(f"the data {told}; {run.recipe} is meant for {asked}", file=sys.stderr)
    return found


def _check_folders(folders: Sequence[str]) -> None:
    for folder in folders:
        if not Path(folder).exists():
            raise FileNotFoundError(f"there is no folder {folder}")


def _check_there(datasets: Sequence[str]) -> None:
    """Fail now where one is none, and not after minutes of other work; its bytes are read later."""
    from wamlab.data.commit import steady
    from wamlab.data.layout import read_layout

    for path in map(Path, datasets):
        steady(path, partial(read_layout, path))


def _run_folder(checkpoint: str) -> str:
    """Where logs go by default: the run's folder; a checkpoint is never written into."""
    if not Path(checkpoint).exists():
        raise FileNotFoundError(f"{checkpoint} does not exist")
    if not (Path(checkpoint) / "run.json").is_file():
        raise ValueError(f"{checkpoint} is no run folder to put the logs into: give --out")
    return checkpoint


def _problems(path: str, found: Sequence[Problem]) -> int:
    for problem in found:
        print(f"{path}: {problem}")
    if not found:
        print(f"{path}: nothing is wrong")
    return 1 if any(problem.severity == "error" for problem in found) else 0
