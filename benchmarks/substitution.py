"""Oracle substitution: does a cascade fail in imagining, or in extracting the action?

    python benchmarks/substitution.py mw-6 --models unipi --seeds 0 --episodes 5

Plays what `success.py` has trained, on the same starts, with either half in another's hands (see
`wamlab.run.substitution`), and writes one JSON file for each cell and pair of halves into
``benchmarks/results/<protocol>/substitutions/``; one that is there is not played again. An exact
extractor searches the simulator and takes seconds a plan, an hour or two a cell, so those cells
come last, and stop at the first success, as do all others here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import trained
from cells import Cell, Places, rounded, tasks
from tqdm import tqdm

from wamlab.data.logs import load_episodes, write_json
from wamlab.policy.acting import executor_for
from wamlab.recipes.clips import clips_of
from wamlab.recipes.run import Run
from wamlab.recipes.work import acting_run, expand, open_caches
from wamlab.run.rollout import rollout
from wamlab.run.substitution import SubstitutedAgent
from wamlab.sim.registry import instruction_of
from wamlab.train.provenance import provenance


@dataclass(frozen=True)
class Halves:
    """Who imagines, and who extracts."""

    future: str
    extractor: str

    @property
    def name(self) -> str:
        return f"{self.future}-{self.extractor}".replace(" ", "-").replace("'", "")


HALVES = (
    Halves("learned", "learned"),
    Halves("true", "learned"),
    Halves("another instruction's", "learned"),
    Halves("static", "learned"),
    Halves("shuffled", "learned"),
    Halves("true", "exact"),
    Halves("learned", "exact"),
    Halves("another instruction's", "exact"),
    Halves("static", "exact"),
)


def result_path(cell: Cell, halves: Halves, results: Path) -> Path:
    return results / cell.protocol / "substitutions" / f"{cell.name}-{halves.name}.json"


def play(cell: Cell, halves: Halves, places: Places, episodes: int) -> Path:
    """Roll a trained cell out with these halves and write what came of it.

    Raises:
        CheckpointError: the cell has not been trained here.
    """
    run_folder = places.work / cell.protocol / cell.name
    run, policy = acting_run(run_folder, "cpu")
    envs, seed = expand(run.data.envs), run.train.seed
    before, folder = machine.state(), run_folder / "substitutions" / halves.name
    clips = None
    if halves.future == "shuffled":
        caches = open_caches(run, [places.work / cell.protocol / "data"])
        clips = clips_of(caches, run.model)
    agent = SubstitutedAgent(
        policy,
        executor_for(policy.model, policy.space, execute_steps=run.rollout.execute_steps),
        seed=seed,
        future=halves.future,
        extractor=halves.extractor,
        others=others(envs),
        clips=clips,
    )
    with closing(agent):
        rollout(
            agent,
            envs,
            episodes,
            batch=run.rollout.batch,
            out=folder,
            keep_frames=0,
            stop_after=0,
        )
    return write_json(
        result_path(cell, halves, places.results), judged(cell, halves, folder, run, before)
    )


def others(envs: Sequence[str]) -> Mapping[str, str]:
    """For each task the instruction of the next one."""
    return {name: instruction_of(envs[(i + 1) % len(envs)]) for i, name in enumerate(envs)}


def judged(
    cell: Cell, halves: Halves, folder: Path, run: Run, before: dict[str, Any]
) -> dict[str, Any]:
    """The result of a cell with these halves, from its logs."""
    return rounded(
        {
            **trained.which(cell),
            "future": halves.future,
            "extractor": halves.extractor,
            "execute_steps": run.rollout.execute_steps,
            "success": tasks(load_episodes(folder, frames=False)),
            "machine": before,
            "provenance": provenance(),
        }
    )


def main(words: Sequence[str] | None = None) -> None:
    parser = trained.parser(__doc__, ["unipi"])
    parser.add_argument("--episodes", type=int, default=5, help="of each task")
    names = [halves.name for halves in HALVES]
    parser.add_argument(
        "--halves", nargs="+", choices=names, default=names, metavar="HALVES", help=", ".join(names)
    )
    args = parser.parse_args(words)
    places = trained.places(args)
    chosen = [halves for halves in HALVES if halves.name in args.halves]
    wanted = [(cell, halves) for cell in trained.cells(args) for halves in chosen]
    for cell, halves in tqdm(wanted, desc=f"{args.protocol} substitutions"):
        if result_path(cell, halves, places.results).exists():
            tqdm.write(f"{cell.name} with {halves.name} is there")
            continue
        tqdm.write(str(play(cell, halves, places, args.episodes)))


if __name__ == "__main__":
    main()
