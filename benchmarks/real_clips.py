"""What trained cells make of real clips that training never saw, without executing anything.

    python benchmarks/real_clips.py mw-6 --models unipi uwm --seeds 0 1
    python benchmarks/real_clips.py mw-6 --models vpp --beside runs/benchmarks/mw-6/dynamics

Collects new demonstrations of the protocol's tasks, asks what `success.py` has trained about them
(`wam eval --dataset`), and writes one JSON file for each cell into
``benchmarks/results/<protocol>/real_clips/``: how much INVERSE explains of the actions and how much
it still does from the frames of another instant, how well FORWARD shows what the recorded action
did, and what future and action know of each other, in nats. ``--beside`` names a checkpoint whose
likelihoods stand for the half of a side that a model lacks (a cascade has no FORWARD).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import trained
from cells import Cell, Places, rounded

from wamlab.config import to_dict
from wamlab.data.logs import write_json
from wamlab.metrics.base import compute
from wamlab.metrics.information import SIDES, coupling_of_two
from wamlab.recipes.recorded import replay_recorded
from wamlab.recipes.run import DataConfig
from wamlab.recipes.work import acting_run, collect_data, expand
from wamlab.train.provenance import provenance
from wamlab.types import Recording

FIRST_START = 1000
"""Training starts from here on belong to no recipe's demonstrations."""


def unseen(data: DataConfig, folder: Path, episodes: int) -> Path:
    """Demonstrations of each task that no training saw, beside those of a protocol."""
    out = folder / "unseen"
    collect_data(dataclasses.replace(data, episodes=episodes, start=FIRST_START), out)
    return out


def result_path(cell: Cell, results: Path) -> Path:
    return results / cell.protocol / "real_clips" / f"{cell.name}.json"


@dataclasses.dataclass(frozen=True)
class Asked:
    """How many new episodes of each task, at how many instants, and what other checkpoint too."""

    episodes: int
    states: int
    beside: Path | None = None


def measure(cell: Cell, places: Places, asked: Asked) -> Path:
    """Ask a trained cell about new demonstrations, and write what came of it.

    Raises:
        CheckpointError: the cell has not been trained here.
    """
    protocol = places.work / cell.protocol
    run, _ = acting_run(protocol / cell.name, "cpu")
    before = machine.state()
    data = unseen(run.data, protocol, asked.episodes)
    recordings = ask(protocol / cell.name, data, asked)
    others = ask(asked.beside, data, asked) if asked.beside else []
    found = judged(cell, recordings, others, before)
    return write_json(result_path(cell, places.results), found)


def ask(checkpoint: Path, data: Path, asked: Asked) -> list[Recording]:
    """What a checkpoint answers at the instants of ``data``, logged beside it."""
    run, policy = acting_run(checkpoint, "cpu")
    episodes = asked.episodes * len(expand(run.data.envs))
    how = dataclasses.replace(run.open_loop, episodes=episodes, states=asked.states)
    run = dataclasses.replace(run, open_loop=how)
    return replay_recorded(run, policy, data, checkpoint / "unseen", trained_on=())


def judged(
    cell: Cell,
    recordings: Sequence[Recording],
    others: Sequence[Recording],
    before: dict[str, Any],
) -> dict[str, Any]:
    """The result of a cell, from its recordings and another checkpoint's."""
    sides = {side: compute("coupling_nats", recordings, side=side) for side in SIDES}
    halves = {
        side: coupling_of_two(recordings, others, side)
        for side, (alone, given) in SIDES.items()
        if sides[side].value is None and has(recordings, alone) and has(others, given)
    }
    return rounded(
        {
            **trained.which(cell),
            "instants": len(recordings),
            "episodes": len({one.episode for one in recordings}),
            "inverse_r2": to_dict(compute("recorded_inverse_r2", recordings)),
            "forward_psnr": to_dict(compute("recorded_moving_psnr", recordings, query="FORWARD")),
            "coupling_nats": to_dict(sides | halves),
            "given_by": dict.fromkeys(halves, others[0].policy if others else ""),
            "factorisation_gap": to_dict(compute("factorisation_gap", recordings)),
            "machine": before,
            "provenance": provenance(),
        }
    )


def has(recordings: Sequence[Recording], query: str) -> bool:
    return any(query in one.likelihood for one in recordings)


def main(words: Sequence[str] | None = None) -> None:
    parser = trained.parser(__doc__, ["unipi"])
    parser.add_argument("--episodes", type=int, default=4, help="new ones, of each task")
    parser.add_argument("--states", type=int, default=8, help="instants of each episode")
    parser.add_argument("--beside", type=Path, help="a checkpoint with what the models lack")
    args = parser.parse_args(words)
    places, asked = trained.places(args), Asked(args.episodes, args.states, args.beside)
    trained.each(args, result_path, lambda cell: measure(cell, places, asked))


if __name__ == "__main__":
    main()
