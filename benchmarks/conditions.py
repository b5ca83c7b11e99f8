"""Success where something is other than in training: shifts, sentences, held-out tasks, chains.

    python benchmarks/conditions.py mw-6 --models uwm reactive --seeds 0 --episodes 5
    python benchmarks/conditions.py scene --models uwm reactive gr1 --seeds 0 --episodes 10

Plays what `success.py` has trained, on the same starts, and writes one JSON file for each cell and
condition into ``benchmarks/results/<protocol>/conditions/``; one that is there is not played again.
What a cell achieves as it was trained stands in its own file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import trained
from cells import Cell, Places, rounded, tasks
from tqdm import tqdm

from wamlab.config import nearest
from wamlab.data.logs import load_episodes, write_json
from wamlab.metrics.base import compute
from wamlab.recipes.work import acting_run, roll_out
from wamlab.sim.instructions import Sentence
from wamlab.sim.shifts import shifts
from wamlab.train.provenance import provenance


@dataclass(frozen=True)
class Condition:
    """What is other than in training: the suite ("": the protocol's own), what is said, a shift."""

    name: str
    suite: str = ""
    sentence: Sentence = 0
    shift: str = ""


SCENE = (
    Condition("paraphrase", sentence=1),
    Condition("swapped", sentence="swapped"),
    Condition("empty", sentence="empty"),
    Condition("held-out", suite="scene-held-out"),
    Condition("chains-2", suite="scene-chains-2"),
    Condition("chains-3", suite="scene-chains-3"),
)


def conditions(protocol: str) -> list[Condition]:
    """The conditions under which a protocol's systems are judged besides that of training."""
    if protocol == "scene":
        return [*SCENE]
    return [Condition(name, shift=name) for name in shifts()]


def chosen(protocol: str, names: Sequence[str]) -> list[Condition]:
    """The conditions of these names, or all.

    Raises:
        KeyError: the protocol has no such condition, with the nearest that it has.
    """
    known = {one.name: one for one in conditions(protocol)}
    for name in names:
        if name not in known:
            raise KeyError(f"{protocol} has no condition {name!r}{nearest(name, known)}")
    return [known[name] for name in names] or [*known.values()]


def result_path(cell: Cell, condition: Condition, results: Path) -> Path:
    return results / cell.protocol / "conditions" / f"{cell.name}-{condition.name}.json"


def play(cell: Cell, condition: Condition, places: Places, episodes: int) -> Path:
    """Roll a trained cell out under a condition and write what came of it.

    Raises:
        CheckpointError: the cell has not been trained here.
    """
    run_folder = places.work / cell.protocol / cell.name
    run, policy = acting_run(run_folder, "cpu")
    before, folder = machine.state(), run_folder / "conditions" / condition.name
    how = dataclasses.replace(
        run.rollout,
        episodes=episodes,
        sentence=condition.sentence,
        shift=condition.shift,
        keep_frames=0,
    )
    envs = [condition.suite] if condition.suite else run.data.envs
    roll_out(dataclasses.replace(run, rollout=how), policy, envs, folder, seed=run.train.seed)
    return write_json(
        result_path(cell, condition, places.results), judged(cell, condition, folder, before)
    )


def judged(
    cell: Cell, condition: Condition, folder: Path, before: dict[str, Any]
) -> dict[str, Any]:
    """The result of a cell under a condition, from its logs.

    ``told`` are the outcomes of the task that was said, which need not be the one that was asked.
    """
    logs = load_episodes(folder, frames=False)
    done = compute("tasks_done", logs)
    told = [
        dataclasses.replace(one, success=one.columns["told_done"])
        for one in logs
        if "told_done" in one.columns
    ]
    return rounded(
        {
            **trained.which(cell),
            "condition": condition.name,
            "suite": condition.suite,
            "sentence": condition.sentence,
            "shift": condition.shift,
            "success": tasks(logs),
            "told": tasks(told),
            "tasks_done": {"value": done.value, "n": done.n, "why_not": done.why_not},
            "machine": before,
            "provenance": provenance(),
        }
    )


def main(words: Sequence[str] | None = None) -> None:
    parser = trained.parser(__doc__, ["uwm"])
    parser.add_argument("--conditions", nargs="+", default=[], help="default: all of the protocol")
    parser.add_argument("--episodes", type=int, default=5, help="of each task")
    args = parser.parse_args(words)
    places = trained.places(args)
    wanted = [
        (cell, condition)
        for cell in trained.cells(args)
        for condition in chosen(args.protocol, args.conditions)
    ]
    for cell, condition in tqdm(wanted, desc=f"{args.protocol} conditions"):
        if result_path(cell, condition, places.results).exists():
            tqdm.write(f"{cell.name} under {condition.name} is there")
            continue
        tqdm.write(str(play(cell, condition, places, args.episodes)))


if __name__ == "__main__":
    main()
