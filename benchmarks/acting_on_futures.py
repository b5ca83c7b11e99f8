"""What is an imagined future worth while acting? Choosing between plans, and noticing failure.

    python benchmarks/acting_on_futures.py mw-6 --models uwm --seeds 0 --samples 8

Plays what `success.py` has trained on the starts that it was judged on, one way of choosing after
the other, every way with the same query: one sample, the plan on which the futures agree, the plan
on which the actions agree (so that agreement itself is not taken for foresight) and, where a model
values its plans, the best of them. Then a monitor watches the episodes of one sample: it is
surprised where frames arrive that were not imagined, its threshold comes from validation starts,
and a monitor that imagines that nothing moves stands beside it. One JSON file for each cell in
``benchmarks/results/<protocol>/acting/``; one that is there is not played again.

A model that nearly always succeeds leaves nothing to gain and no failure to notice: ``--step``
plays a checkpoint of its youth, where one was kept.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import machine
import numpy as np
import trained
from acting_tables import ONE
from cells import Cell, checkpoint_at, per_plan, rounded, tasks

from wamlab.data.logs import load_episodes, write_json
from wamlab.metrics.base import compute
from wamlab.metrics.surprise import frame_surprise
from wamlab.models.base import Refusal
from wamlab.policy.acting import acting_query
from wamlab.policy.agents import PolicyAgent
from wamlab.policy.executors import SELECTORS, Choice, ChunkExecutor, Executor
from wamlab.policy.policy import Policy
from wamlab.recipes.work import acting_run, expand
from wamlab.run.rollout import rollout
from wamlab.run.seats import MakeEnv, make_env
from wamlab.sim.env import Split
from wamlab.train.provenance import provenance
from wamlab.types import Episode, Frames, Query

CHOICES: tuple[Choice, ...] = ("consensus", "action-consensus", "value")
ALPHA = 0.1


@dataclass(frozen=True)
class Asked:
    """How much is played, from how many samples is chosen, and where the logs lie."""

    envs: Sequence[str]
    episodes: int
    calibration: int
    samples: int
    folder: Path
    seed: int = 0
    execute_steps: int | None = 8
    batch: int = 8
    workers: int = 2
    make: MakeEnv = make_env


def choosing(policy: Policy, asked: Asked) -> dict[str, Any]:
    """Success, start by start, and cost of every way to choose."""
    query = acting_query(policy.model, asked.samples, "consensus")
    chunks = ChunkExecutor(asked.execute_steps)
    play(policy, query, chunks, asked, "one-sample", keep_frames=None)
    logs, why_not = {ONE: load_episodes(asked.folder / "one-sample", frames=False)}, {}
    for choice in CHOICES:
        try:
            own = acting_query(policy.model, asked.samples, choice)
        except Refusal as reason:
            why_not[choice] = str(reason)
            continue
        executor = SELECTORS[choice](ChunkExecutor(asked.execute_steps), asked.samples)
        play(policy, own if choice == "value" else query, executor, asked, choice)
        logs[choice] = load_episodes(asked.folder / choice, frames=False)
    return {
        "success": {name: tasks(one) for name, one in logs.items()},
        "plan": {name: per_plan(one, asked.batch) for name, one in logs.items()},
        "why_not": why_not,
    }


def watching(policy: Policy, asked: Asked) -> dict[str, Any]:
    """How well surprise tells failures, the alarms before them, and the same without foresight.

    Takes the episodes of one sample that `choosing` has played.
    """
    query = acting_query(policy.model, asked.samples, "consensus")
    calibration = dataclasses.replace(asked, episodes=asked.calibration)
    chunks = ChunkExecutor(asked.execute_steps)
    play(policy, query, chunks, calibration, "calibration", split="validation", keep_frames=None)
    watched = load_episodes(asked.folder / "one-sample")
    calm = load_episodes(asked.folder / "calibration")
    found = {"imagined": _monitor(watched, calm), "ms_an_instant": _cost(watched)}
    for one in (*watched, *calm):
        forget(one)
    return {**found, "static": _monitor(watched, calm)}


def forget(episode: Episode) -> None:
    """Let every plan of an episode imagine that nothing will move."""
    for plan in episode.replans:
        if plan.imagined is not None:
            plan.imagined = {
                view: np.repeat(episode.frames[view][plan.step][None], len(frames), 0)
                for view, frames in plan.imagined.items()
            }


def _monitor(watched: Sequence[Episode], calm: Sequence[Episode]) -> dict[str, Any]:
    return {
        "auroc": trained.whole(compute("failure_auroc", watched)),
        "alarms": trained.whole(compute("alarms", watched, calibration=calm, alpha=ALPHA)),
    }


def _cost(episodes: Sequence[Episode], times: int = 200) -> float | None:
    """The median of what it takes to compare one instant, all views, in milliseconds."""
    took = []
    for imagined, planned_at, arrived in islice(_instants(episodes), times):
        began = time.perf_counter()
        frame_surprise(imagined, arrived, planned_at)
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took) if took else None


def _instants(episodes: Sequence[Episode]) -> Iterator[tuple[Frames, Frames, Frames]]:
    """The last imagined frames of every plan, those that it saw, and those that came last."""
    for one in episodes:
        for plan in one.replans:
            views = plan.imagined or {}
            if views:
                yield (
                    {view: frames[-1] for view, frames in views.items()},
                    {view: one.frames[view][plan.step] for view in views},
                    {view: one.frames[view][-1] for view in views},
                )


def play(
    policy: Policy,
    query: Query,
    executor: Executor,
    asked: Asked,
    name: str,
    *,
    split: Split = "evaluation",
    keep_frames: int | None = 0,
) -> None:
    """Play one condition into a folder of its name; what is there is not played again."""
    rollout(
        PolicyAgent(policy, executor, query, asked.seed),
        asked.envs,
        asked.episodes,
        split=split,
        batch=asked.batch,
        workers=asked.workers,
        out=asked.folder / name,
        keep_frames=keep_frames,
        stop_after=0,
        make=asked.make,
    )


def main(words: Sequence[str] | None = None) -> None:
    parser = trained.parser(__doc__, ["uwm"])
    parser.add_argument("--samples", type=int, default=8, help="to choose from")
    parser.add_argument("--episodes", type=int, default=20, help="of each task")
    parser.add_argument("--calibration", type=int, default=5, help="validation starts of each task")
    parser.add_argument("--step", type=int, help="of the kept checkpoint in the place of the last")
    args = parser.parse_args(words)
    places, before = trained.places(args), machine.state()
    path_of = partial(result_path, step=args.step)

    def measure(cell: Cell) -> Path:
        folder = places.work / cell.protocol / cell.name
        kept = folder if args.step is None else checkpoint_at(folder, args.step)
        run, policy = acting_run(kept, "cpu")
        asked = Asked(
            expand(run.data.envs),
            args.episodes,
            args.calibration,
            args.samples,
            folder / "acting" / ("last" if args.step is None else kept.name),
            run.train.seed,
            run.rollout.execute_steps,
            run.rollout.batch,
        )
        found: Mapping[str, Any] = {
            **trained.which(cell),
            "step": args.step,
            "samples": args.samples,
            "choosing": choosing(policy, asked),
            "watching": watching(policy, asked),
            "machine": before,
            "provenance": provenance(),
        }
        return write_json(path_of(cell, places.results), rounded(found))

    trained.each(args, path_of, measure)


def result_path(cell: Cell, results: Path, step: int | None = None) -> Path:
    youth = "" if step is None else f"-step{step}"
    return results / cell.protocol / "acting" / f"{cell.name}{youth}.json"


if __name__ == "__main__":
    main()
