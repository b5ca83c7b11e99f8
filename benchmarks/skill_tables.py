"""How the measures of `imagination_and_skill.py` go with success, over checkpoints and seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from findings import MISSING, Finding, verdict
from jaxtyping import Float
from pooling import Cell
from tables import SEEDS, Found
from wording import command, machine, table

from wamlab.metrics.stats import (
    Interval,
    bootstrap,
    grouped_spearman,
    partial_spearman,
    spearman,
)
from wamlab.report.words import between, count, number, title

CHECKPOINTS = 8
FEWEST = 8
"""Checkpoints that a measure must have a value at; fewer make no correlation."""
RISK = 0.05


class Correlation(NamedTuple):
    """Of one measure with success, and the same with the training step held.

    ``same_step`` is that among checkpoints of the same step, with its permutation p-value: NaN
    where no step has several seeds that differ. ``points`` hold the measure, success and step of
    each checkpoint, ``seeds`` whose it is.
    """

    points: Float[np.ndarray, "n 3"]
    seeds: Sequence[int]
    plain: float
    given_step: float
    same_step: float
    same_step_p: float

    @property
    def sure(self) -> bool:
        """Whether chance within a step would seldom do as much."""
        return self.same_step_p < RISK

    @property
    def clarity(self) -> tuple[bool, float]:
        """The clearest first: what is sure, then what is strongest with the step held."""
        return self.sure, abs(self.given_step)


def finding(found: Found) -> Finding:
    """Whether it was measured, whatever came of it."""
    asked = (
        f"within `uwm`, {CHECKPOINTS} log-spaced checkpoints x {SEEDS} seeds: Spearman of every "
        "measure with success, and given the step (exploratory)"
    )
    groups = _groups(found.skill)
    if not groups:
        return Finding("skill", asked, "", MISSING)
    said = []
    for (protocol, model), cells in groups.items():
        known = correlations(cells)
        sure = [name for name, one in known.items() if one.sure]
        said.append(
            f"`{model}` on `{protocol}`, {count(len(cells), 'seed')}: of {len(known)} measures "
            f"{len(sure)} go with success among checkpoints of the same step (p < {RISK}; chance "
            f"alone would make {number(RISK * len(known), 0)})"
        )
    complete = any(
        len(cells) >= SEEDS and min(len(c["checkpoints"]) for c in cells) >= CHECKPOINTS
        for cells in groups.values()
    )
    return Finding("skill", asked, "; ".join(said), verdict(True, complete))


def tables(found: Found) -> str:
    """A table for each model and protocol, the clearest first."""
    groups = _groups(found.skill)
    if not groups:
        return "Not measured (`python benchmarks/imagination_and_skill.py mw-6`).\n"
    texts = [
        "Exploratory: checkpoints of one training run are not independent, there are few seeds, "
        "and of so many measures some will go with success by chance. Rank correlation (Spearman) "
        "over all checkpoints; beside it the same with the training step held, because whatever is "
        "trained longer is better at both. Intervals resample checkpoints inside these seeds, and "
        "are too narrow where success hardly ever departs from the order of the steps. Last, the "
        "correlation among checkpoints of the same step alone, which no course of training can "
        "make, with the p-value of exchanging the seeds' successes there. It takes the checkpoints "
        "of a seed for independent: where one seed stays ahead of the others, they are few.\n"
    ]
    for (protocol, model), cells in groups.items():
        known = correlations(cells)
        order = sorted(known, key=lambda name: known[name].clarity, reverse=True)
        texts += [
            f"### `{model}` on `{protocol}`\n",
            _course(cells),
            table(
                [
                    "measure",
                    "checkpoints",
                    "with success",
                    "with the step held",
                    "at the same step",
                ],
                [[title(name), *_cells(known[name])] for name in order],
            ),
            *(f"`{command(cell)}`, {machine(cell)}\n" for cell in cells),
        ]
    return "\n".join(texts)


def correlations(cells: Sequence[Cell]) -> dict[str, Correlation]:
    """Of every measure that has values enough and changes."""
    rows = [(cell["seed"], one) for cell in cells for one in cell["checkpoints"]]
    names = dict.fromkeys(name for _, one in rows for name in one["measures"])
    found = {name: _correlation(rows, name) for name in names}
    return {name: one for name, one in found.items() if one is not None}


def _correlation(rows: Sequence[tuple[int, Mapping[str, Any]]], name: str) -> Correlation | None:
    known = [(seed, one) for seed, one in rows if name in one["measures"]]
    if len(known) < FEWEST:
        return None
    seeds = [seed for seed, _ in known]
    points = np.array([[one["measures"][name], _rate(one), one["step"]] for _, one in known])
    own = plain(points), given_step(points)
    if not np.isfinite(own).all():
        return None
    return Correlation(points, seeds, *own, *grouped_spearman(*points.T))


def ends(one: Correlation, statistic: Callable[[np.ndarray], float]) -> Interval:
    """The interval of ``plain`` or ``given_step`` over checkpoints inside these seeds."""
    return bootstrap(one.points, [one.seeds], statistic=statistic, keep_outer=True)


def plain(points: Float[np.ndarray, "n 3"]) -> float:
    return spearman(points[:, 0], points[:, 1])


def given_step(points: Float[np.ndarray, "n 3"]) -> float:
    return partial_spearman(points[:, 0], points[:, 1], points[:, 2])


def _rate(one: Mapping[str, Any]) -> float:
    """Every task weighs the same."""
    return float(np.mean([row["any"] / row["n"] for row in one["success"].values()]))


def _course(cells: Sequence[Cell]) -> str:
    """Success at each step, seed by seed."""
    steps = sorted({one["step"] for cell in cells for one in cell["checkpoints"]})
    rows = []
    for cell in cells:
        at = {one["step"]: number(100 * _rate(one), 0) for one in cell["checkpoints"]}
        rows.append([str(cell["seed"]), *(at.get(step, "–") for step in steps)])
    return table(["success in % of seed, at step", *map(str, steps)], rows)


def _cells(one: Correlation) -> list[str]:
    return [
        str(len(one.points)),
        f"{number(one.plain, 2, sign=True)} ({between(ends(one, plain))})",
        f"{number(one.given_step, 2, sign=True)} ({between(ends(one, given_step))})",
        "–"
        if np.isnan(one.same_step)
        else f"{number(one.same_step, 2, sign=True)} (p {number(one.same_step_p)})",
    ]


def _groups(skill: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in sorted(skill, key=lambda one: one["seed"]):
        groups.setdefault((cell["protocol"], cell["model"]), []).append(cell)
    return groups
