"""What several cells of a protocol say together: rates, differences and their intervals.

Every task weighs the same. Intervals over a protocol are bootstraps in which training seeds are
drawn once for all tasks, then tasks, episodes and blind trials: see `wamlab.metrics.pooled`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from wamlab.metrics.pooled import of_difference, of_rate, of_rate_over_blind
from wamlab.metrics.stats import LEVEL, Interval, mcnemar, newcombe, wilson
from wamlab.metrics.success import BLIND_ROWS

Cell = Mapping[str, Any]
Counts = tuple[int, int]
DRAWS = 4000


class Estimate(NamedTuple):
    """A number with its interval, None where there is too little for one."""

    value: float
    interval: Interval | None


class Paired(NamedTuple):
    """One model less another on the same starts, and the starts that only one of them solves."""

    difference: Estimate
    only_first: int
    only_second: int
    p: float


def select(cells: Sequence[Cell], protocol: str, model: str, attempt: int) -> list[Cell]:
    """The cells of one attempt, by seed."""
    wanted = (protocol, model, attempt)
    found = [c for c in cells if (c["protocol"], c["model"], c["attempt"]) == wanted]
    return sorted(found, key=lambda cell: cell["seed"])


def attempts(cells: Sequence[Cell], protocol: str, model: str) -> list[int]:
    return sorted({c["attempt"] for c in cells if (c["protocol"], c["model"]) == (protocol, model)})


def newest(cells: Sequence[Cell]) -> list[Cell]:
    """Of each system on each protocol those of its last attempt."""
    return [c for c in cells if c["attempt"] == attempts(cells, c["protocol"], c["model"])[-1]]


def played(cell: Cell, *, middle: bool = False) -> Mapping[str, Any]:
    """A cell's outcomes by task; empty where it was not played."""
    return (cell["middle"] or {"success": {}})["success"] if middle else cell["success"]


def tasks(cells: Sequence[Cell], *, middle: bool = False) -> list[str]:
    return list(dict.fromkeys(env for cell in cells for env in played(cell, middle=middle)))


def counts(cells: Sequence[Cell], env: str, *, middle: bool = False, key: str = "any") -> Counts:
    """Successes and episodes of a task, all seeds together."""
    rows = [
        played(cell, middle=middle)[env] for cell in cells if env in played(cell, middle=middle)
    ]
    return sum(row[key] for row in rows), sum(row["n"] for row in rows)


def rate(successes: Counts) -> Estimate:
    return Estimate(successes[0] / successes[1], wilson(*successes))


def better_blind(cells: Sequence[Cell], env: str) -> Counts:
    """The blind row of a task that solves more: a test against the other would be too easy."""
    rows = [tuple(cells[0]["blind"][env][name]) for name in BLIND_ROWS]
    return max(rows, key=lambda row: row[0] / row[1])


def over_blind(cells: Sequence[Cell], env: str) -> Estimate:
    """A task's rate less the better blind row; the interval is Newcombe's for two rates."""
    own, blind = counts(cells, env), better_blind(cells, env)
    return Estimate(own[0] / own[1] - blind[0] / blind[1], newcombe(own, blind))


def pooled(cells: Sequence[Cell], *, middle: bool = False, seed: int = 0) -> Estimate:
    """The mean of the tasks' rates; seeds, tasks and episodes are drawn."""
    own = _by_task_and_seed(cells, middle)
    return Estimate(float(_rates(own).mean()), of_rate(own, seed=seed))


def pooled_over_blind(cells: Sequence[Cell], *, seed: int = 0) -> Estimate:
    """The mean over tasks of `over_blind`; seeds, tasks, episodes and blind trials are drawn."""
    own = _by_task_and_seed(cells)
    blind = np.array([better_blind(cells, env) for env in tasks(cells)])
    value = float(np.mean(_rates(own) - blind[:, 0] / blind[:, 1]))
    return Estimate(value, of_rate_over_blind(own, blind, seed=seed))


def paired(first: Sequence[Cell], second: Sequence[Cell], *, seed: int = 0) -> Paired | None:
    """Two models on the starts and seeds that both have played, or None where there are none.

    Seeds, tasks and pairs are drawn; every task weighs the same.
    """
    groups = _pairs(first, second)
    if not groups:
        return None
    seeds = sorted({trained for group in groups.values() for trained in group})
    table = np.array([[group.get(s, (0, 0, 0)) for s in seeds] for group in groups.values()])
    only_first, only_second, n = table.sum(axis=1).T
    value = float(np.mean((only_first - only_second) / n))
    alone = int(only_first.sum()), int(only_second.sum())
    return Paired(Estimate(value, of_difference(table, seed=seed)), *alone, mcnemar(*alone))


def over_states(
    results: Sequence[Mapping[str, Any]], seeds: Sequence[int], *, seed: int = 0
) -> Estimate | None:
    """The mean of one measure over states and seeds; seeds are drawn, then starts.

    Seeds reach different states from one start: what they share is the start.
    """
    by_start: dict[str, dict[int, float]] = {}
    for result, trained in zip(results, seeds, strict=True):
        for state, value in result["items"].items():
            by_start.setdefault(state.rpartition("-")[0], {})[trained] = value
    if not by_start:
        return None
    columns = sorted({trained for row in by_start.values() for trained in row})
    absent = float("nan")
    table = np.array([[row.get(s, absent) for s in columns] for row in by_start.values()])
    value = float(np.nanmean(table))
    if len(table) < 2:
        return Estimate(value, None)
    rng = np.random.default_rng(seed)
    trained = rng.integers(len(columns), size=(DRAWS, 1, len(columns)))
    start = rng.integers(len(table), size=(DRAWS, len(table), 1))
    drawn = table[start, trained]
    known = np.isfinite(drawn).sum(axis=(1, 2))
    means = np.nansum(drawn, axis=(1, 2))[known > 0] / known[known > 0]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, Interval(float(low), float(high)))


def _by_task_and_seed(cells: Sequence[Cell], middle: bool = False) -> Int[np.ndarray, "t s 2"]:
    """Successes and episodes of every task and seed; zeros where a seed was not played."""
    rows = [row for cell in cells if (row := played(cell, middle=middle))]
    absent = {"any": 0, "n": 0}
    known = [[row.get(env, absent) for row in rows] for env in tasks(cells, middle=middle)]
    return np.array([[(one["any"], one["n"]) for one in task] for task in known])


def _rates(own: Int[np.ndarray, "t s 2"]) -> Float[np.ndarray, " t"]:
    """The rate of each task, all seeds together."""
    successes, n = own.sum(axis=1).T
    return successes / n


def _pairs(
    first: Sequence[Cell], second: Sequence[Cell]
) -> dict[str, dict[int, tuple[int, int, int]]]:
    """By task and seed: starts that only the first solves, only the second, and all in common."""
    others = {cell["seed"]: cell["success"] for cell in second}
    found: dict[str, dict[int, tuple[int, int, int]]] = {}
    for cell in first:
        for env, own in cell["success"].items():
            other = others.get(cell["seed"], {}).get(env)
            if other and other["first_start"] == own["first_start"]:
                both = list(zip(own["outcomes"], other["outcomes"], strict=False))
                counts = both.count(("1", "0")), both.count(("0", "1")), len(both)
                found.setdefault(env, {})[cell["seed"]] = counts
    return found
