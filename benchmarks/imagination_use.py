"""Does a model act on what it imagines? Its futures are replaced before the action is decoded.

    python benchmarks/imagination_use.py mw-6 --models uwm unipi --states 6 --search

The change of action against the change that an exact extractor demands, and success when a policy
acts throughout on the futures of something else (see `wamlab.run.use`). Plays what `success.py` has
trained and writes one JSON file for each cell into ``benchmarks/results/<protocol>/use/``; one that
is there is not played again. ``--search`` looks for imagined futures in the simulator and takes
seconds a state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import machine
import trained
from cells import Cell, rounded, tasks

from wamlab.data.logs import load_episodes, write_json
from wamlab.metrics.base import compute
from wamlab.metrics.use import REFERENCE, success_change
from wamlab.policy.executors import ChunkExecutor
from wamlab.policy.policy import Policy
from wamlab.recipes.work import acting_run, expand
from wamlab.run.rollout import rollout
from wamlab.run.search import Search
from wamlab.run.seats import MakeEnv, make_env
from wamlab.run.use import NOISE, SAMPLE, ReplacedAgent, use
from wamlab.sim.registry import instruction_of
from wamlab.train.provenance import provenance

OWN = "learned"
REPLACED = (SAMPLE, "another instruction's", "static", NOISE)


@dataclass(frozen=True)
class Asked:
    """How much is played, and where the logs lie."""

    envs: Sequence[str]
    states: int
    episodes: int
    folder: Path
    seed: int = 0
    search: Search | None = None
    execute_steps: int | None = 8
    batch: int = 8
    make: MakeEnv = make_env


def changes(policy: Policy, asked: Asked) -> dict[str, Any]:
    """How the action changes with the future, by the future that took the place of another."""
    probes = use(
        policy,
        asked.envs,
        asked.states,
        others=following(asked.envs),
        seed=asked.seed,
        search=asked.search,
        out=asked.folder,
        make=asked.make,
    )
    return {
        future: trained.whole(compute("imagination_use", probes, space=policy.space, future=future))
        for future in REFERENCE
    }


def losses(policy: Policy, asked: Asked, said: Mapping[str, str]) -> dict[str, Any]:
    """Success when acting on each future, and what is lost against acting on the own one.

    ``said`` is for each environment the sentence of another.
    """
    played = {}
    for future in (OWN, *REPLACED):
        out = asked.folder / "rollouts" / future.replace(" ", "-").replace("'", "")
        agent = ReplacedAgent(
            policy,
            ChunkExecutor(asked.execute_steps),
            seed=asked.seed,
            future=future,
            others=said,
            make=asked.make,
        )
        with closing(agent):
            rollout(
                agent,
                asked.envs,
                asked.episodes,
                batch=asked.batch,
                out=out,
                keep_frames=0,
                stop_after=0,
                make=asked.make,
            )
        played[future] = load_episodes(out, frames=False)
    lost = success_change(played[OWN], {name: played[name] for name in REPLACED})
    return {
        "success": {name: tasks(logs) for name, logs in played.items()},
        "lost": {name: asdict(one) for name, one in lost.items()},
    }


def following(envs: Sequence[str]) -> dict[str, str]:
    """For each task the next one."""
    return {name: envs[(i + 1) % len(envs)] for i, name in enumerate(envs)}


def main(words: Sequence[str] | None = None) -> None:
    parser = trained.parser(__doc__, ["uwm", "unipi"])
    parser.add_argument("--states", type=int, default=6, help="of each task")
    parser.add_argument("--episodes", type=int, default=5, help="of each task")
    parser.add_argument("--search", action="store_true", help="for imagined futures as well")
    args = parser.parse_args(words)
    places = trained.places(args)

    def play(cell: Cell) -> Path:
        before, folder = machine.state(), places.work / args.protocol / cell.name
        began = time.perf_counter()
        run, policy = acting_run(folder, "cpu")
        asked = Asked(
            expand(run.data.envs),
            args.states,
            args.episodes,
            folder / "use",
            run.train.seed,
            Search() if args.search else None,
            run.rollout.execute_steps,
            run.rollout.batch,
        )
        said = {name: instruction_of(other) for name, other in following(asked.envs).items()}
        found = {"use": changes(policy, asked), **losses(policy, asked, said)}
        minutes = (time.perf_counter() - began) / 60
        beside = {"minutes": minutes, "machine": before, "provenance": provenance()}
        return write_json(
            result_path(cell, places.results),
            rounded({**trained.which(cell), **found, **beside}),
        )

    trained.each(args, result_path, play)


def result_path(cell: Cell, results: Path) -> Path:
    return results / cell.protocol / "use" / f"{cell.name}.json"


if __name__ == "__main__":
    main()
