"""`wam demo`: the main job, from demonstrations to a report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wamlab.recipes.run import Run

MODEL = "uwm"
LONGEST = 8.0
"""Minutes of training; the rest of a demo takes about six on two cores without bf16."""


def demonstrate(out: Path, *, quick: bool, seed: int, device: str) -> Path:
    """Go the whole way in ``out``; a demo that was interrupted goes on where it stood."""
    from wamlab.policy.policy import load
    from wamlab.recipes import mw_demo
    from wamlab.recipes.work import (
        collect_data,
        execute_imagination,
        roll_out,
        save_blind_rows,
        show_rivals,
        train_run,
    )
    from wamlab.report.build import build

    run = (mw_demo.quick if quick else mw_demo.run)(MODEL)
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, seed=seed))
    data, folder, envs = out / "data", out / MODEL, run.data.envs
    with chapter("1/5 demonstrations"):
        collect_data(run.data, data)
    with chapter(f"2/5 training {MODEL}"):
        run = in_time(run, data, folder, device)
        train_run(run, [data], folder, resume=True, device=device)
        policy = load(folder, device)
    with chapter("3/5 rollouts on unseen starts"):
        roll_out(run, policy, envs, folder, checkpoint=folder, seed=seed)
        save_blind_rows(envs, folder)
    with chapter("4/5 executing the imagination"):
        probes = execute_imagination(run, policy, envs, folder, seed=seed)
        show_rivals(run, probes, [data], folder)
    with chapter("5/5 report"):
        page = build(folder)
    print(f"report: {page}")
    return page


def in_time(run: Run, data: Path, folder: Path, device: str) -> Run:
    """The run with its own steps, or with `LONGEST` minutes where this machine would take longer.

    What was decided when the run in ``folder`` was begun stays decided.
    """
    from wamlab.recipes.work import plan_run, run_of

    if (folder / "run.json").is_file() and (begun := run_of(folder)) is not None:
        return run.with_budget(minutes=begun.train.minutes, steps=begun.train.steps)
    minutes = plan_run(run, [data], device=device).minutes
    if minutes <= LONGEST:
        return run
    print(
        f"{run.train.steps} steps would take {minutes:.0f} minutes here; training for {LONGEST:g} "
        f"instead (wam train {run.recipe} takes them all)",
        flush=True,
    )
    return run.with_budget(minutes=LONGEST)


@contextmanager
def chapter(title: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    print(title, flush=True)
    start = time.perf_counter()
    yield
    print(f"{title}: {time.perf_counter() - start:.0f} s", flush=True)
