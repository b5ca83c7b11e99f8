"""Are imagined futures so real that acting on them solves the task? The IDM Turing test.

    wam train mw-6/inverse --data runs/benchmarks/mw-6/data --out runs/benchmarks/mw-6/judge
    python benchmarks/idm_turing.py mw-6 --judge runs/benchmarks/mw-6/judge --models uwm unipi

One judge, trained on demonstrations alone, reads the actions off what every model imagines (see
`wamlab.run.turing`): off films of whole episodes, executed open loop, and window by window in the
closed loop (`wamlab.run.decoded`). The controls are the judge's own and are played once; every
result holds them, floor and ceiling first. ``--readers`` tells a model that reads the robot's state
what it would be in its own imagined frames; without, it is absent there, which no model has seen in
training. Plays what `success.py` has trained, on the same starts,
and writes one JSON file for each cell into ``benchmarks/results/<protocol>/turing/``; one that is
there is not played again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import trained
from cells import Cell, rounded, tasks
from tqdm import tqdm

from wamlab.data.logs import load_episodes, write_json
from wamlab.metrics.base import compute
from wamlab.metrics.plausibility import CEILING, FLOOR
from wamlab.metrics.rivals import Clips
from wamlab.policy.executors import ChunkExecutor
from wamlab.policy.policy import Policy
from wamlab.recipes.clips import clips_of
from wamlab.recipes.work import acting_run, expand, open_caches
from wamlab.report.words import between, percent
from wamlab.run.decoded import SHOWN, DecodedAgent
from wamlab.run.film import Judge, ReadState
from wamlab.run.reading import state_reading
from wamlab.run.rollout import rollout
from wamlab.run.seats import MakeEnv, make_env
from wamlab.run.turing import CONTROLS, IMAGINED, Turing
from wamlab.train.provenance import provenance

LOOPS: Mapping[str, Sequence[str]] = {"open": CONTROLS, "closed": [*SHOWN][1:]}
"""The controls of either loop."""


@dataclass(frozen=True)
class Court:
    """A judge, the starts on which it judges, and where its logs lie."""

    judge: Judge
    envs: Sequence[str]
    episodes: int
    folder: Path
    clips: Clips
    execute_steps: int | None = 8
    batch: int = 8
    make: MakeEnv = make_env
    readers: Path | None = None

    def controls(self) -> dict[str, dict[str, Path]]:
        """The logs of every control, by loop; what is there is not played again."""
        return {
            loop: {name: self.play(loop, name, self.folder / loop / name) for name in names}
            for loop, names in LOOPS.items()
        }

    def play(self, loop: str, shown: str, out: Path, policy: Policy | None = None) -> Path:
        """Play a condition, with a policy that imagines where it is `IMAGINED`."""
        if loop == "open":
            test = Turing(self.judge, self.envs, self.episodes, make=self.make)
            if policy is None:
                test.control(shown, out, clips=self.clips)
            else:
                test.imagined(policy, out, read_state=self._state(policy))
            return out
        agent = DecodedAgent(
            policy or self.judge.policy,
            ChunkExecutor(self.execute_steps),
            judge=self.judge,
            shown=shown,
            clips=self.clips,
            make=self.make,
        )
        with closing(agent):
            rollout(
                agent,
                self.envs,
                self.episodes,
                batch=self.batch,
                out=out,
                keep_frames=0,
                stop_after=0,
                make=self.make,
            )
        return out

    def _state(self, policy: Policy) -> ReadState | None:
        """Who reads the robot's state off what a policy imagines, where it would like to know."""
        if self.readers is None or not policy.model.config.state_dim:
            return None
        return state_reading(policy, policy.model.config.views, self.readers, self.make)


def judged(court: Court, policy: Policy, folder: Path) -> dict[str, Any]:
    """What a policy's films are worth in both loops, beside all controls."""
    controls = court.controls()
    found = {}
    for loop, logs in controls.items():
        own = load_episodes(court.play(loop, IMAGINED, folder / loop, policy), frames=False)
        beside = {name: load_episodes(path, frames=False) for name, path in logs.items()}
        result = compute("film_success", own, controls=beside)
        found[loop] = {**trained.whole(result), "success": tasks(own)}
    return found


def line(name: str, loop: str, found: Mapping[str, Any]) -> str:
    """A result in a line, its ceiling and floor always with it."""
    if found["value"] is None:
        return f"{name}, {loop} loop: {found['why_not']}"
    controls, scale = found["details"]["controls"], found["details"]["between"]
    beside = ", ".join(
        f"{what} {percent(controls[key]['rate'])} of {controls[key]['n']}"
        for what, key in (("ceiling", CEILING), ("floor", FLOOR))
    )
    if scale["value"] is None:
        said = scale["why_not"]
    else:
        said = f"between the two {percent(scale['value'])} ({between(scale['interval'], 2)})"
    own = f"{percent(found['value'])} of {found['n']}"
    return f"{name}, {loop} loop: {own} ({between(found['interval'], 2)}); {beside}; {said}"


def main(words: Sequence[str] | None = None) -> None:
    parser = trained.parser(__doc__, ["uwm", "unipi"])
    parser.add_argument(
        "--judge", type=Path, required=True, help="a checkpoint that answers INVERSE"
    )
    parser.add_argument("--episodes", type=int, default=20, help="of each task")
    parser.add_argument("--readers", type=Path, help="a folder with state readers; see wam probe")
    args = parser.parse_args(words)
    places, before = trained.places(args), machine.state()
    run, policy = acting_run(args.judge, "cpu")
    judge, work = Judge(policy), places.work / args.protocol
    court = Court(
        judge,
        expand(run.data.envs),
        args.episodes,
        work / "turing" / policy.digest,
        clips_of(open_caches(run, [work / "data"]), run.model),
        run.rollout.execute_steps,
        run.rollout.batch,
        readers=args.readers,
    )

    def play(cell: Cell) -> Path:
        folder, began = work / cell.name, time.perf_counter()
        _, own = acting_run(folder, "cpu")
        found = judged(court, own, folder / "turing" / policy.digest)
        for loop, one in found.items():
            tqdm.write(line(cell.name, loop, one))
        known = {"judge": {"system": judge.name, "weights": policy.digest}, "loops": found}
        minutes = (time.perf_counter() - began) / 60
        beside = {"minutes": minutes, "machine": before, "provenance": provenance()}
        return write_json(
            result_path(cell, places.results),
            rounded({**trained.which(cell), **known, **beside}),
        )

    trained.each(args, result_path, play)


def result_path(cell: Cell, results: Path) -> Path:
    return results / cell.protocol / "turing" / f"{cell.name}.json"


if __name__ == "__main__":
    main()
