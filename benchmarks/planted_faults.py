"""Do the joint measures tell planted faults apart, with real rendering and a trained reader?

    python benchmarks/planted_faults.py
    python benchmarks/planted_faults.py --envs metaworld/push --states 12 --faults oracle late
    python benchmarks/planted_faults.py --judge runs/benchmarks/mw-6/judge

Probes every planted model of `planted.py` on the same states, reads the probes with one state
reader for each environment (trained where ``--work`` holds none), and writes the joint measures of
every fault to ``benchmarks/results/planted_faults.json``. Probes that are there are not made again.
With ``--judge`` inverse-cycle consistency is among the measures: inverse dynamics that were trained
on demonstrations of these environments (see `idm_turing.py`) read the actions off the frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import machine
import planted
import trained
from cells import rounded
from tqdm import tqdm

from wamlab.config import nearest, to_dict
from wamlab.data.logs import write_json
from wamlab.metrics.base import Result, compute
from wamlab.run.film import Judge
from wamlab.run.probe import probe
from wamlab.run.reading import judge_probes, read_probes_of, reader_of
from wamlab.train.provenance import provenance
from wamlab.types import Probe

RESULTS = Path(__file__).parent / "results" / "planted_faults.json"
ENVS = ("metaworld/dial-turn", "metaworld/door-unlock")
BY_ENTITY = (
    *("state_error", "state_eic", "state_eic_ref", "state_eic_cf", "state_skill"),
    *("state_cmr", "state_div", "state_iea", "state_dwa"),
    *("eic", "eic_cf", "skill"),
)
ENTITIES = ("robot", "object")
TOLD = (
    *("static", "oracle", "normalised", "over_static", "over_static_interval", "chance"),
    *("shuffled_action", "wrong_world", "wrong_world_is", "wrong_worlds"),
    *("gain", "spurious", "spurious_floor", "world", "distance", "grids", "unfitted"),
    *("fitted_gain", "fitted_gain_interval", "fitted_gain_is", "oracle_gain"),
    *("fitted_friction", "fitted_friction_interval", "fitted_friction_is", "oracle_friction"),
)
WHOLE = ("state_ocb", "state_ocb_imposed", "icc")
WHOLE_TOLD = (
    *("imagined", "executed", "mcc", "markedness"),
    *("static", "shuffled_action", "oracle", "oracle_interval", "oracle_mcc"),
    *("ceiling", "ceiling_interval", "normalised", "lag", "ceiling_lag"),
)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--envs", nargs="+", default=list(ENVS), metavar="ENV")
    parser.add_argument("--states", type=int, default=12, help="of each environment")
    parser.add_argument("--samples", type=int, default=4, help="own samples from each state")
    parser.add_argument("--faults", nargs="+", default=list(planted.FAULTS), metavar="FAULT")
    trained.offer_judge(parser)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/planted"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(words)
    if unknown := [name for name in args.faults if name not in planted.FAULTS]:
        parser.error(f"no fault {unknown[0]!r}{nearest(unknown[0], planted.FAULTS)}")
    before, readers = machine.state(), args.work / "readers"
    looking = Looking(args.work, readers, trained.judge(args))
    found = {
        fault: measured(probes_of(fault, args.envs, args.states, args.samples, looking))
        for fault in tqdm(args.faults, desc="faults")
    }
    record = {
        "faults": found,
        "what": {name: planted.FAULTS[name].what for name in args.faults},
        "reader_errors": {env: error_of(env, readers) for env in args.envs},
        "settings": {"envs": args.envs, "states": args.states, "samples": args.samples},
        "machine": before,
        "provenance": provenance(),
    }
    print(write_json(args.out, rounded(record)))


class Looking(NamedTuple):
    """Where probes and readers lie, and who reads actions off the frames, if anyone does."""

    work: Path
    readers: Path
    judge: Judge | None = None


def probes_of(
    fault: str, envs: Sequence[str], states: int, samples: int, looking: Looking
) -> list[Probe]:
    """The probes of one planted model, made and read."""
    found = []
    for env in envs:
        model, folder = planted.Planted(fault, env), looking.work / fault.replace(" ", "-") / env
        probe(model, env, states, samples, out=folder, make=model.make)
        read = read_probes_of(model, folder, looking.readers)
        found += read if looking.judge is None else judge_probes(looking.judge, folder)
        model.world.close()
    return found


def measured(probes: Sequence[Probe]) -> dict[str, Any]:
    """Every joint measure on states and its pixel variant, by entity where it is of one."""
    by_entity = {
        name: {one: plain(compute(name, probes, entity=one), TOLD) for one in ENTITIES}
        for name in BY_ENTITY
    }
    whole = {name: plain(compute(name, probes), WHOLE_TOLD) for name in WHOLE}
    return {**by_entity, **whole}


def plain(found: Result, told: Sequence[str]) -> dict[str, Any]:
    """A result without its items, with the details that a table shows."""
    kept = {name: found.details[name] for name in told if name in found.details}
    one = to_dict(found)
    names = ("value", "interval", "n", "why_not", "undefined", "floor")
    return {name: one[name] for name in names} | {"details": kept}


def error_of(env: str, readers: Path) -> dict[str, float]:
    """The error of the reader of an environment, on starts that it never saw."""
    return reader_of(env, ("corner", "gripper"), None, readers).error


if __name__ == "__main__":
    main()
