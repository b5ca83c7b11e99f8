"""What trained cells make of real clips that training never saw, without executing anything.

    python benchmarks/real_clips.py mw-6 --models unipi uwm --seeds 0 1

Collects new demonstrations of the protocol's tasks, asks what `success.py` has trained about them
(`wam eval --dataset`), and writes one JSON file for each cell into
``benchmarks/results/<protocol>/real_clips/``: how much INVERSE explains of the actions and how much
it still does from the frames of another instant, how well FORWARD shows what the recorded action
did, and what future and action know of each other, in nats.
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
from wamlab.metrics.information import SIDES
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


def measure(cell: Cell, places: Places, episodes: int, states: int) -> Path:
    """Ask a trained cell about new demonstrations, and write what came of it.

    Raises:
        CheckpointError: the cell has not been trained here.
    """
    run_folder = places.work / cell.protocol / cell.name
    run, policy = acting_run(run_folder, "cpu")
    before, tasks = machine.state(), len(expand(run.data.envs))
    data = unseen(run.data, places.work / cell.protocol, episodes)
    how = dataclasses.replace(run.open_loop, episodes=episodes * tasks, states=states)
    asked = dataclasses.replace(run, open_loop=how)
    recordings = replay_recorded(asked, policy, data, run_folder / "unseen", trained_on=())
    found = judged(cell, recordings, before)
    return write_json(result_path(cell, places.results), found)


def judged(cell: Cell, recordings: Sequence[Recording], before: dict[str, Any]) -> dict[str, Any]:
    """The result of a cell, from its recordings."""
    sides = {side: compute("coupling_nats", recordings, side=side) for side in SIDES}
    return rounded(
        {
            **trained.which(cell),
            "instants": len(recordings),
            "episodes": len({one.episode for one in recordings}),
            "inverse_r2": to_dict(compute("recorded_inverse_r2", recordings)),
            "forward_psnr": to_dict(compute("recorded_moving_psnr", recordings, query="FORWARD")),
            "coupling_nats": to_dict(sides),
            "factorisation_gap": to_dict(compute("factorisation_gap", recordings)),
            "machine": before,
            "provenance": provenance(),
        }
    )


def main(words: Sequence[str] | None = None) -> None:
    parser = trained.parser(__doc__, ["unipi"])
    parser.add_argument("--episodes", type=int, default=4, help="new ones, of each task")
    parser.add_argument("--states", type=int, default=8, help="instants of each episode")
    args = parser.parse_args(words)
    places = trained.places(args)
    trained.each(args, result_path, lambda cell: measure(cell, places, args.episodes, args.states))


if __name__ == "__main__":
    main()
