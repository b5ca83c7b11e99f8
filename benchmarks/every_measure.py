"""The whole vector of a trained cell: every axis, with intervals and controls.

    python benchmarks/every_measure.py mw-6 --models uwm --seeds 0 --states 50 --samples 8
    python benchmarks/every_measure.py mw-6 --models gr1 vpp unipi --seeds 0 --states 24 --samples 6

Probes what `success.py` has trained from states that are spread over its tasks, reads the probes
(one state reader for each task, shared by all models of the protocol; ``--judge`` reads the actions
off them, see `idm_turing.py`), shows the rivals, and writes what a report would say of the offsets
at which all models are compared to ``benchmarks/results/<protocol>/measured/<cell>.json``, with the
minutes of each part, of all runs together if it was interrupted. Probes that are there are not made
again, nor are those that were read read again.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine
import trained
from cells import Cell, Places, rounded, without_items

from wamlab.data.logs import read_json, write_json
from wamlab.metrics.joint import SEQUENCES
from wamlab.policy.policy import Policy
from wamlab.recipes.run import Run
from wamlab.recipes.work import acting_run, execute_imagination, expand, show_rivals
from wamlab.report.results import results
from wamlab.run.film import Judge
from wamlab.run.reading import judge_probes, read_probes_of
from wamlab.train.provenance import provenance
from wamlab.types import STRATA, Probe

MINUTES = "minutes.json"


def measure(
    cell: Cell, places: Places, states: int, samples: int, judge: Judge | None = None
) -> Path:
    """Probe, read and measure one cell.

    Raises:
        CheckpointError: the cell has not been trained here.
    """
    protocol = places.work / cell.protocol
    folder = protocol / cell.name
    run, policy = acting_run(folder, "cpu")
    envs = expand(run.data.envs)
    wanted = dataclasses.replace(
        run.probe,
        states=math.ceil(states / len(envs)),
        samples=samples,
        imposed=SEQUENCES,
        strata=STRATA,
    )
    run, out = dataclasses.replace(run, probe=wanted), folder / "measured"
    before = machine.state()
    probes = probe_and_read(run, policy, out, protocol, judge)
    with timed(out, "measuring"):
        found = results(out, compared=True)
    return write_json(
        result_path(cell, places.results),
        rounded(
            {
                **trained.which(cell),
                **vector(found),
                "settings": {"states": len(probes), "samples": samples},
                "minutes": minutes_of(out),
                "machine": before,
                "provenance": provenance(),
            }
        ),
    )


def probe_and_read(
    run: Run, policy: Policy, out: Path, protocol: Path, judge: Judge | None
) -> Sequence[Probe]:
    """Log in ``out`` all that a measure of the imagination can need.

    Readers and demonstrations are those of the ``protocol`` folder.
    """
    with timed(out, "probing"):
        probes = execute_imagination(run, policy, expand(run.data.envs), out, seed=run.train.seed)
    with timed(out, "rivals"):
        show_rivals(run, probes, [protocol / "data"], out)
    with timed(out, "reading"):
        probes = read_probes_of(policy, out, protocol / "readers")
    if judge is not None:
        with timed(out, "judging"):
            probes = judge_probes(judge, out)
    return probes


def result_path(cell: Cell, results: Path) -> Path:
    return results / cell.protocol / "measured" / f"{cell.name}.json"


def vector(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a report says of the imagination, without the values of single states."""
    by_name = {name: _plain(found[name]) for name in ("fidelity", "perceptual", "rivals")}
    joint = {entity: _plain(measures) for entity, measures in found["joint"].items()}
    axes = {axis: _plain(measures) for axis, measures in found["axes"].items()}
    return {**by_name, "joint": joint, "axes": axes, "census": found["probes"]}


@contextmanager
def timed(folder: Path, part: str) -> Iterator[None]:
    """Add to the minutes of wall clock that a part has taken in this folder."""
    began = time.perf_counter()
    try:
        yield
    finally:
        known, took = minutes_of(folder), (time.perf_counter() - began) / 60
        write_json(folder / MINUTES, {**known, part: known.get(part, 0.0) + took})


def minutes_of(folder: Path) -> dict[str, float]:
    path = folder / MINUTES
    return read_json(path) if path.exists() else {}


def main(words: Sequence[str] | None = None) -> None:
    parser = trained.parser(__doc__, ["uwm"])
    parser.add_argument("--states", type=int, default=24, help="spread over the tasks")
    parser.add_argument("--samples", type=int, default=6, help="own samples from each state")
    trained.offer_judge(parser)
    args = parser.parse_args(words)
    places, judge = trained.places(args), trained.judge(args)

    def play(cell: Cell) -> Path:
        return measure(cell, places, args.states, args.samples, judge)

    trained.each(args, result_path, play)


def _plain(measures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {**without_items(one), "parts": _plain(one.get("parts", {}))}
        for name, one in measures.items()
    }


if __name__ == "__main__":
    main()
