"""Intervals over tasks and training seeds, which are crossed: one policy plays every task.

Seeds are drawn once for all tasks, then tasks, then the episodes of each task and seed. Drawn anew
inside each task, the luck of one training would count as often as there are tasks. Every task
weighs the same and has the rate of all its drawn episodes; one that none of the drawn seeds has
played is left out of that draw. ``keep_tasks`` draws no tasks: "these tasks" and not "such tasks".

Tables (T, S, C) hold counts by task and seed; a row of zeros was not played. What is no count is
given episode by episode (`of_mean`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from wamlab.metrics.stats import LEVEL, ROUNDING, Interval, alike, joined, newcombe, wilson

DRAWS = 4000

Played = Int[np.ndarray, "t s 2"]
"""Successes and episodes."""
Paired = Int[np.ndarray, "t s 3"]
"""Starts that only the first solves, that only the second solves, and all that both have played."""


def of_rate(played: Played, *, keep_tasks: bool = False, seed: int = 0) -> Interval:
    """The interval of the mean of the tasks' rates.

    Where all draws are one it is Wilson's of all episodes, or, if tasks differ, those of the tasks,
    joined.
    """
    _, drawn = _drawn(_outcomes(played), np.random.default_rng(seed), keep_tasks)
    means = _mean_over_tasks(drawn[..., 0], drawn.sum(-1))
    if np.ptp(means) > ROUNDING:
        return _ends(means)
    counts = [(k, n) for k, n in played.sum(axis=1).tolist()]
    rates = [k / n for k, n in counts]
    if np.ptp(rates) > 0:
        return joined(rates, [wilson(*one) for one in counts])
    return wilson(sum(k for k, _ in counts), sum(n for _, n in counts))


def of_rate_over_blind(
    played: Played, blind: Int[np.ndarray, "t 2"], *, keep_tasks: bool = False, seed: int = 0
) -> Interval:
    """The interval of the mean of the tasks' rates, each less that of its blind trials.

    Trials (successes and number by task) are drawn for each drawn task. Where all draws are one it
    is Newcombe's of all episodes and trials, or, if tasks differ, those of the tasks, joined.
    """
    rng = np.random.default_rng(seed)
    task, drawn = _drawn(_outcomes(played), rng, keep_tasks)
    k, n = np.moveaxis(blind[task], -1, 0)
    size = drawn.sum(-1)
    less = drawn[..., 0] - size * rng.binomial(n, k / n) / n
    means = _mean_over_tasks(less, size)
    if np.ptp(means) > ROUNDING:
        return _ends(means)
    own, theirs = ([(k, n) for k, n in one.tolist()] for one in (played.sum(axis=1), blind))
    rates = np.array([(k / n, b / m) for (k, n), (b, m) in zip(own, theirs, strict=True)])
    if np.ptp(rates, axis=0).any():
        over = (rates[:, 0] - rates[:, 1]).tolist()
        return joined(over, [newcombe(*both) for both in zip(own, theirs, strict=True)])
    total = played.sum(axis=(0, 1)).tolist(), blind.sum(axis=0).tolist()
    return newcombe((total[0][0], total[0][1]), (total[1][0], total[1][1]))


def of_difference(paired: Paired, *, seed: int = 0) -> Interval:
    """The interval of the mean of the tasks' paired differences; pairs are drawn as pairs.

    Where all draws are one it is that of `stats.alike`.
    """
    only_first, only_second, n = np.moveaxis(paired, -1, 0)
    outcomes = np.stack([only_first, only_second, n - only_first - only_second], axis=-1)
    _, drawn = _drawn(outcomes, np.random.default_rng(seed), keep_tasks=False)
    means = _mean_over_tasks(drawn[..., 0] - drawn[..., 1], drawn.sum(-1))
    if np.ptp(means) > ROUNDING:
        return _ends(means)
    return alike(float(means[0]), int(n.sum()))


def of_mean(
    cells: Sequence[Sequence[Float[np.ndarray, " n"]]], *, seed: int = 0
) -> Interval | None:
    """The interval of the mean of the tasks' means, of values by task and seed (none: not played).

    None where all draws are one: of numbers without known ends nothing says how wide it would be.
    """
    rng = np.random.default_rng(seed)
    task, trained = _cells_drawn(len(cells), len(cells[0]), rng, keep_tasks=False)
    totals, n = np.zeros(task.shape), np.zeros(task.shape, int)
    for place, row in enumerate(cells):
        for label, values in enumerate(row):
            here = (task == place)[:, :, None] & (trained == label)[:, None, :]
            draw, position, _ = np.nonzero(here)
            if count := len(values):
                drawn = values[rng.integers(count, size=(len(draw), count))].sum(-1)
                np.add.at(totals, (draw, position), drawn)
                n += count * here.sum(-1)
    means = _mean_over_tasks(totals, n)
    return _ends(means) if np.ptp(means) > ROUNDING else None


def _outcomes(played: Played) -> Int[np.ndarray, "t s 2"]:
    """Successes and failures."""
    return np.stack([played[..., 0], played[..., 1] - played[..., 0]], axis=-1)


def _drawn(
    outcomes: Int[np.ndarray, "t s c"], rng: np.random.Generator, keep_tasks: bool
) -> tuple[Int[np.ndarray, "d t"], Int[np.ndarray, "d t c"]]:
    """Which tasks are drawn, and the outcomes of each under all drawn seeds."""
    tasks, seeds, _ = outcomes.shape
    task, trained = _cells_drawn(tasks, seeds, rng, keep_tasks)
    cells = outcomes[task[:, :, None], trained[:, None, :]]
    n = cells.sum(-1)
    return task, rng.multinomial(n, cells / np.maximum(n, 1)[..., None]).sum(axis=2)


def _cells_drawn(
    tasks: int, seeds: int, rng: np.random.Generator, keep_tasks: bool
) -> tuple[Int[np.ndarray, "d t"], Int[np.ndarray, "d s"]]:
    """Which tasks and which seeds are drawn."""
    task = np.broadcast_to(np.arange(tasks), (DRAWS, tasks))
    if not keep_tasks:
        task = rng.integers(tasks, size=(DRAWS, tasks))
    return task, rng.integers(seeds, size=(DRAWS, seeds))


def _mean_over_tasks(
    totals: Float[np.ndarray, "d t"] | Int[np.ndarray, "d t"], n: Int[np.ndarray, "d t"]
) -> Float[np.ndarray, " k"]:
    """The mean over the tasks of each draw that have episodes; a draw without any is left out."""
    known = (n > 0).sum(-1)
    return (totals / np.maximum(n, 1)).sum(-1)[known > 0] / known[known > 0]


def _ends(means: Float[np.ndarray, " k"]) -> Interval:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
