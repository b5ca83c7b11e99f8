"""What several cells of a protocol say together: rates, differences and their intervals.

Every task weighs the same. Intervals over a protocol are cluster bootstraps: tasks are drawn, then
training seeds inside them, then episodes; blind trials are drawn anew for each task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from wamlab.metrics.stats import LEVEL, Interval, alike, mcnemar, newcombe, wilson
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
    """The mean of the tasks' rates; tasks, seeds inside them and episodes are drawn.

    Outcomes that are all alike have nothing to draw: their interval is Wilson's, of all episodes.
    """
    own = _by_task_and_seed(cells, middle)
    value = float(np.mean(own[..., 0].sum(1) / own[..., 1].sum(1)))
    if value in (0.0, 1.0):
        return Estimate(value, wilson(int(own[..., 0].sum()), int(own[..., 1].sum())))
    return Estimate(value, _ends(_drawn_rates(own, np.random.default_rng(seed))[0]))


def pooled_over_blind(cells: Sequence[Cell], *, seed: int = 0) -> Estimate:
    """The mean over tasks of `over_blind`; tasks, seeds, episodes and blind trials are drawn.

    Of outcomes that are all alike the interval is Newcombe's, of all episodes and blind trials.
    """
    own, rng = _by_task_and_seed(cells), np.random.default_rng(seed)
    blind = np.array([better_blind(cells, env) for env in tasks(cells)])
    value = float(np.mean(own[..., 0].sum(1) / own[..., 1].sum(1) - blind[:, 0] / blind[:, 1]))
    rates, task = _drawn_rates(own, rng)
    k, n = np.moveaxis(blind[task], -1, 0)
    drawn = rates - rng.binomial(n, k / n) / n
    if np.ptp(drawn) == 0:
        mine, theirs = own.sum((0, 1)).tolist(), blind.sum(0).tolist()
        return Estimate(value, newcombe(tuple(mine), tuple(theirs)))
    return Estimate(value, _ends(drawn))


def paired(first: Sequence[Cell], second: Sequence[Cell], *, seed: int = 0) -> Paired | None:
    """Two models on the starts and seeds that both have played, or None where there are none.

    Tasks, seeds inside them and pairs are drawn; every task weighs the same. Of pairs that are all
    alike the interval is that of `stats.alike`.
    """
    groups = _pairs(first, second)
    if not groups:
        return None
    rng = np.random.default_rng(seed)
    envs = list(groups)
    seeds = sorted({trained for group in groups.values() for trained in group})
    table = np.array([[groups[e].get(s, (0, 0, 0)) for s in seeds] for e in envs])
    only_first, only_second, n = table.sum(1).T
    value = float(np.mean((only_first - only_second) / n))
    task = rng.integers(len(envs), size=(DRAWS, len(envs)))
    trained = rng.integers(len(seeds), size=(*task.shape, len(seeds)))
    drawn = table[task[..., None], trained]
    size = drawn[..., 2]
    shares = drawn[..., :2] / np.maximum(size, 1)[..., None]
    won = rng.binomial(size, shares[..., 0])
    rest = shares[..., 1] / np.maximum(1 - shares[..., 0], 1e-12)
    lost = rng.binomial(size - won, np.minimum(rest, 1.0))
    differences = (won - lost).sum(-1) / np.maximum(size.sum(-1), 1)
    alone = int(only_first.sum()), int(only_second.sum())
    interval = _ends(differences) if np.ptp(differences) else alike(value, int(n.sum()))
    return Paired(Estimate(value, interval), *alone, mcnemar(*alone))


def over_states(
    results: Sequence[Mapping[str, Any]], seeds: Sequence[int], *, seed: int = 0
) -> Estimate | None:
    """The mean of one measure over states and seeds; starts are drawn, then seeds in them.

    Seeds reach different states from one start: what they share is the start.
    """
    by_start: dict[str, dict[int, float]] = {}
    for result, trained in zip(results, seeds, strict=True):
        for state, value in result["items"].items():
            by_start.setdefault(state.rpartition("-")[0], {})[trained] = value
    if not by_start:
        return None
    groups = [np.array(list(values.values())) for values in by_start.values()]
    value = float(np.concatenate(groups).mean())
    if len(groups) < 2:
        return Estimate(value, None)
    rng = np.random.default_rng(seed)
    count = np.array([len(group) for group in groups])
    padded = np.array([np.resize(group, count.max()) for group in groups])
    start = rng.integers(len(groups), size=(DRAWS, len(groups)))
    size = count[start][..., None]
    drawn = rng.integers(size, size=(*start.shape, count.max()))
    kept = np.arange(count.max()) < size
    picked = np.take_along_axis(padded[start], drawn, axis=-1) * kept
    means = picked.sum((1, 2)) / kept.sum((1, 2))
    return Estimate(value, _ends(means[:, None]))


def _by_task_and_seed(cells: Sequence[Cell], middle: bool = False) -> Int[np.ndarray, "t s 2"]:
    """Successes and episodes of every task and seed."""
    rows = [played(cell, middle=middle) for cell in cells]
    held = [row for row in rows if row]
    envs = tasks(cells, middle=middle)
    return np.array([[(row[env]["any"], row[env]["n"]) for row in held] for env in envs])


def _drawn_rates(
    own: Int[np.ndarray, "t s 2"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "d t"], Int[np.ndarray, "d t"]]:
    """Rates of drawn tasks, from drawn seeds and episodes; and which tasks they are."""
    task = rng.integers(len(own), size=(DRAWS, len(own)))
    trained = rng.integers(own.shape[1], size=(*task.shape, own.shape[1]))
    k, n = np.moveaxis(own[task[..., None], trained], -1, 0)
    return rng.binomial(n, k / n).sum(-1) / n.sum(-1), task


def _ends(drawn: Float[np.ndarray, "d t"]) -> Interval:
    """The percentile interval of the mean over tasks."""
    low, high = np.quantile(drawn.mean(-1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


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
