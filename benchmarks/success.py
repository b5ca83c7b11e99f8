"""Success, imagination and consistency on a protocol, by model and training seed.

    python benchmarks/success.py mw-6 --models uwm reactive --fix-steps
    python benchmarks/success.py mw-6 --models uwm reactive --seeds 0 1 2 --episodes 20 --middle 10

The first line times the recipe on an idle machine and writes how many steps its minutes are; every
cell then trains that many. A recipe that says its steps, as mw-demo does, needs no timing. Each
cell (model x seed x attempt) becomes one JSON file in ``benchmarks/results/<protocol>/``; one that
is there is not run again, one that was interrupted goes on. A second or third attempt says with
``--hypothesis`` what it expects, and with ``--set`` what it changes. ``--variant NAME`` makes of
what ``--set`` changes a system of its own, ``MODEL-NAME``, with its own cells and attempts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
from cells import Cell, Places, fix_steps, run_cell
from tqdm import tqdm

from wamlab.config import nearest
from wamlab.data.logs import write_json
from wamlab.recipes import protocols, recipe
from wamlab.recipes.run import Run

HERE = Path(__file__).parent


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    places = Places(args.results, args.work)
    if args.fix_steps:
        before = machine.state()  # once: after the first model the load is our own
        for model in args.models:
            fix(args, model, places, before)
        return
    wanted = [
        Cell(args.protocol, model, seed, args.attempt, args.hypothesis, args.variant)
        for seed in args.seeds
        for model in args.models
    ]
    runs = [(cell, run_of(args, cell, places)) for cell in wanted]
    for cell, (run, fixed) in tqdm(runs, desc=f"{args.protocol} cells"):
        if cell.result(places.results).exists():
            tqdm.write(f"{cell.name} is there: {cell.result(places.results)}")
            continue
        tqdm.write(str(run_cell(cell, run, places, middle=args.middle, fixed=fixed)))


def run_of(args: argparse.Namespace, cell: Cell, places: Places) -> tuple[Run, str]:
    """The resolved run of a cell, and how its number of steps was fixed.

    Raises:
        ValueError: nothing has fixed the number of steps.
    """
    run = asked(args, cell.model)
    steps, precision, fixed = args.steps, run.train.precision, f"--steps {args.steps}"
    if steps is None and run.train.steps is not None:
        steps, fixed = run.train.steps, "the recipe"
    if steps is None:
        path = steps_file(places, cell.protocol)
        table = json.loads(path.read_text()) if path.exists() else {}
        if (key := steps_key(cell.system, cell.attempt)) not in table:
            raise ValueError(
                f"the number of steps of {key} is not fixed in {path}{nearest(key, table)}: "
                "run with --fix-steps on an idle machine, or give --steps"
            )
        steps = table[key]["steps"]
        # A machine without bf16 arithmetic takes a minute for a second of another's training.
        if precision == "auto":
            precision = table[key]["precision"]["choice"]
        fixed = f"--fix-steps ({table[key]['minutes']:g} minutes)"
    train = dataclasses.replace(
        run.train,
        minutes=None,
        steps=steps,
        seed=cell.seed,
        precision=precision,
        keep_log_spaced=max(4, run.train.keep_log_spaced),
    )
    return dataclasses.replace(run, train=train), fixed


def asked(args: argparse.Namespace, model: str) -> Run:
    """The recipe with what the command line changes."""
    run = recipe(f"{args.protocol}/{model}").vary(args.assignments)
    episodes = args.episodes or run.rollout.episodes
    return dataclasses.replace(run, rollout=dataclasses.replace(run.rollout, episodes=episodes))


def fix(args: argparse.Namespace, model: str, places: Places, before: dict[str, Any]) -> None:
    """Time a model's recipe and write its number of steps, with the machine as it was ``before``.

    Raises:
        ValueError: they are fixed already, or the machine was busy.
    """
    system = Cell(args.protocol, model, 0, variant=args.variant).system
    path, key = steps_file(places, args.protocol), steps_key(system, args.attempt)
    table: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if key in table:
        raise ValueError(f"{path} fixes {table[key]['steps']} steps for {key} already")
    if not before["idle"] and not args.busy:
        raise ValueError("the machine was busy: its steps would be too few (--busy to go on)")
    found = fix_steps(asked(args, model), places, args.protocol, args.seconds)
    write_json(path, {**table, key: {**found, "machine": before}})
    print(f"{key}: {found['steps']} steps of {1000 * found['seconds_per_step']:.0f} ms, in {path}")


def steps_file(places: Places, protocol: str) -> Path:
    return places.results / protocol / "steps.json"


def steps_key(system: str, attempt: int) -> str:
    return f"{system}-attempt{attempt}"


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("protocol", choices=protocols())
    parser.add_argument("--models", nargs="+", default=["uwm"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, help="at the end, of each task")
    parser.add_argument("--middle", type=int, default=0, help="half-way, of each task")
    parser.add_argument("--attempt", type=int, default=1)
    parser.add_argument("--hypothesis", default="", help="what a later attempt expects, and why")
    parser.add_argument("--variant", default="", help="the name of what --set makes of a model")
    parser.add_argument("--set", dest="assignments", action="append", default=[])
    parser.add_argument("--steps", type=int, help="instead of those that --fix-steps has written")
    parser.add_argument("--fix-steps", action="store_true", help="time the recipe and do no more")
    parser.add_argument("--seconds", type=float, default=30.0, help="of timing for --fix-steps")
    parser.add_argument("--busy", action="store_true", help="time although the machine is busy")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
