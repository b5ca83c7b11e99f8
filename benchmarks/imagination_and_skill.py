"""Does imagination predict skill? Every kept checkpoint is played, and its imagination judged.

    python benchmarks/success.py mw-6 --models uwm --seeds 0 1 2 --set train.keep_log_spaced=8
    python benchmarks/imagination_and_skill.py mw-6 --models uwm --seeds 0 1 2

From the checkpoints that `success.py` has kept of a cell, log-spaced over its last stage: success
on the same unseen starts, and every measure of the imagination on the same states, read as by
`every_measure.py` (with ``--judge`` also for actions). One JSON file for each cell in
``benchmarks/results/<protocol>/skill/``; what was played and probed is not made again. The page of
results correlates the two over checkpoints and seeds, and given the training step, for all that is
longer trained is better at both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import machine
import trained
from cells import Cell, Places, checkpoint_at, rounded, tasks
from every_measure import probe_and_read, vector
from tqdm import tqdm

from wamlab.data.logs import load_episodes, write_json
from wamlab.policy.policy import load
from wamlab.recipes.run import Run
from wamlab.recipes.work import acting_run, expand, roll_out
from wamlab.report.results import write_results
from wamlab.run.film import Judge
from wamlab.train.budget import milestones
from wamlab.train.provenance import provenance
from wamlab.train.record import read_record

SUCCESS = "policy success"


@dataclasses.dataclass(frozen=True)
class Asked:
    """Of each task so many starts to play, and so many states with so many samples to probe."""

    episodes: int
    states: int
    samples: int

    def of(self, run: Run) -> Run:
        """The run that plays and probes so much, and keeps no frames of what it plays."""
        rollouts = dataclasses.replace(run.rollout, episodes=self.episodes, keep_frames=0)
        probes = dataclasses.replace(run.probe, states=self.states, samples=self.samples)
        return dataclasses.replace(run, rollout=rollouts, probe=probes)


def measure(cell: Cell, places: Places, asked: Asked, judge: Judge | None = None) -> Path:
    """Play and measure every kept checkpoint of a cell.

    Raises:
        CheckpointError: the cell has not been trained here.
    """
    before, protocol = machine.state(), places.work / cell.protocol
    folder = protocol / cell.name
    run, _ = acting_run(folder, "cpu")
    found = [
        checkpoint(asked.of(run), path, folder / "skill" / path.name, protocol, judge)
        for path in tqdm(kept(folder, run.train.keep_log_spaced), desc=cell.name)
    ]
    said = {"asked": dataclasses.asdict(asked), "checkpoints": found}
    beside = {"machine": before, "provenance": provenance()}
    return write_json(
        result_path(cell, places.results), rounded({**trained.which(cell), **said, **beside})
    )


def kept(folder: Path, count: int) -> list[Path]:
    """The log-spaced checkpoints of a run's last stage and its end, and not the newest besides."""
    *earlier, last = [stage.steps or 0 for stage in read_record(folder).stages]
    steps = sorted({*milestones(last, count), last})
    return [checkpoint_at(folder, sum(earlier) + step) for step in steps]


def checkpoint(
    run: Run, path: Path, out: Path, protocol: Path, judge: Judge | None
) -> dict[str, Any]:
    """The success and the measures of one checkpoint, from its logs in ``out``.

    What is logged there is not made again, but it is measured again.

    Raises:
        ValueError: the logs are of another setting, or there are more of them than are asked for.
    """
    policy, envs = load(path, "cpu"), expand(run.data.envs)
    roll_out(run, policy, envs, out, seed=run.train.seed)
    probes = probe_and_read(run, policy, out, protocol, judge)
    episodes = load_episodes(out, frames=False)
    _check_count(out, "episodes", len(episodes), len(envs) * run.rollout.episodes)
    _check_count(out, "probes", len(probes), len(envs) * run.probe.states)
    return {
        "step": int(path.name.removeprefix("step-")),
        "success": tasks(episodes),
        "measures": values(write_results(out)),
    }


def _check_count(out: Path, what: str, there: int, asked: int) -> None:
    if there > asked:
        raise ValueError(f"{out} holds {there} {what}, asked for {asked}: give another --work")


def values(found: Mapping[str, Any]) -> dict[str, float]:
    """Every measure of the imagination that has a value, by a name that is read alone."""
    parts = vector(found)
    named = {
        **parts["fidelity"],
        **parts["perceptual"],
        **{f"moving_psnr over {name}": one for name, one in parts["rivals"].items()},
        **{
            f"{name}, {entity}": one
            for entity, measures in parts["joint"].items()
            for name, one in measures.items()
        },
        **{
            name: one
            for axis, measures in parts["axes"].items()
            if axis != SUCCESS
            for name, one in measures.items()
        },
    }
    return {name: one["value"] for name, one in named.items() if one["value"] is not None}


def main(words: Sequence[str] | None = None) -> None:
    parser = trained.parser(__doc__, ["uwm"])
    parser.add_argument("--episodes", type=int, default=10, help="of each task")
    parser.add_argument("--states", type=int, default=4, help="of each task")
    parser.add_argument("--samples", type=int, default=4, help="own samples from each state")
    trained.offer_judge(parser)
    args = parser.parse_args(words)
    places, asked = trained.places(args), Asked(args.episodes, args.states, args.samples)
    judge = trained.judge(args)
    trained.each(args, result_path, lambda cell: measure(cell, places, asked, judge))


def result_path(cell: Cell, results: Path) -> Path:
    return results / cell.protocol / "skill" / f"{cell.name}.json"


if __name__ == "__main__":
    main()
