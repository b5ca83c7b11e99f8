"""What the benchmarks of trained cells share: which cells are asked for, and their names."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cells import Cell, Places
from tqdm import tqdm

from wamlab.metrics.base import Result
from wamlab.policy.policy import load
from wamlab.recipes import protocols
from wamlab.run.film import Judge

HERE = Path(__file__).parent


def parser(description: str | None, models: Sequence[str]) -> argparse.ArgumentParser:
    """The arguments that name cells which `success.py` has trained, and where they lie."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("protocol", choices=protocols())
    found.add_argument("--models", nargs="+", default=[*models])
    found.add_argument("--seeds", nargs="+", type=int, default=[0])
    found.add_argument("--attempt", type=int, default=1)
    found.add_argument("--variant", default="", help="of the models, as success.py names it")
    found.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    found.add_argument("--results", type=Path, default=HERE / "results")
    return found


def offer_judge(found: argparse.ArgumentParser) -> None:
    """Let a judge of films be named; see `judge`."""
    found.add_argument("--judge", type=Path, help="a checkpoint that reads actions off frames")


def cells(args: argparse.Namespace) -> list[Cell]:
    """The cells that the arguments name, seed by seed."""
    why = "as success.py trained it" if args.attempt > 1 else ""
    return [
        Cell(args.protocol, model, seed, args.attempt, why, args.variant)
        for seed in args.seeds
        for model in args.models
    ]


def places(args: argparse.Namespace) -> Places:
    return Places(args.results, args.work)


def judge(args: argparse.Namespace) -> Judge | None:
    """The judge that the arguments name, if they name one."""
    return None if args.judge is None else Judge(load(args.judge, "cpu"))


def each(
    args: argparse.Namespace,
    path_of: Callable[[Cell, Path], Path],
    play: Callable[[Cell], Path],
) -> None:
    """Play every cell that is asked for and whose result is not there yet."""
    for cell in tqdm(cells(args), desc=f"{args.protocol} cells"):
        if path_of(cell, args.results).exists():
            tqdm.write(f"{cell.name} is there")
            continue
        tqdm.write(str(play(cell)))


def whole(result: Result) -> dict[str, Any]:
    """A result as it is kept: without its parts and the values of single states or starts."""
    return {k: v for k, v in asdict(result).items() if k not in ("parts", "items", "sides")}


def which(cell: Cell) -> Mapping[str, Any]:
    """The cell in a result's own fields."""
    return {
        "protocol": cell.protocol,
        "model": cell.system,
        "seed": cell.seed,
        "attempt": cell.attempt,
    }
