"""Action plausibility: what is achieved by the actions that a judge reads off imagined films.

Pure functions of the episodes that `wamlab.run.turing` (open loop) and `wamlab.run.decoded` (closed
loop) leave: those of a model's films, and those of the controls on the same starts. A rate of its
own says little: the judge errs (ceiling below 1), and some tasks are solved by any motion that
looks right (floor above 0). So every control stands beside the rate, paired by start, and the rate
is also given between floor and ceiling.

Over several models, how well the rates rank the policies themselves is SIMPLER's mean maximum rank
violation (Li et al., arXiv 2405.05941) and Pearson's correlation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from wamlab.config import nearest
from wamlab.metrics.base import NotApplicable, Result, metric
from wamlab.metrics.compare import Values, difference, success_values
from wamlab.metrics.stats import FEWEST, ROUNDING, Interval, bootstrap
from wamlab.metrics.success import success_any
from wamlab.types import Episode

FLOOR, CEILING = "shuffled", "ceiling"
ERASED = "object erased"

Controls = Mapping[str, Sequence[Episode]]
"""Episodes by control; see `wamlab.run.turing`."""


@metric("film_success", needs="episodes", unit="rate")
def film_success(episodes: Sequence[Episode], *, controls: Controls | None = None) -> Result:
    """The rate of starts that are solved by what a judge reads off a model's films.

    Wilson's interval per task, a cluster bootstrap over tasks and starts for all. ``details``:
    ``controls``, each with its own ``rate``, ``interval`` and ``n``, and the model ``less`` it,
    paired by start (see `wamlab.metrics.compare.Difference`); ``between``, the rate between floor
    (0) and ceiling (1); ``needs_object``, how much the ceiling loses without the objects: where
    that cannot be told from 0, films are judged by the robot alone.

    Without a floor and a ceiling a rate cannot be read, and is not given.
    """
    if controls is None:
        raise NotApplicable("nobody has read films: these episodes have no controls of the judge's")
    known = {name: list(logs) for name, logs in controls.items() if logs}
    for name in (FLOOR, CEILING):
        if name not in known:
            raise NotApplicable(f"the control {name!r} has no episode{nearest(name, known)}")
    found, own = success_any(episodes), success_values(episodes)
    if found.value is None:
        raise NotApplicable(found.why_not)
    values = {name: success_values(logs) for name, logs in known.items()}
    details: dict[str, Any] = {
        "controls": {name: _beside(own, name, logs) for name, logs in known.items()},
        "between": asdict(between(own, values[FLOOR], values[CEILING])),
        "needs_object": None,
    }
    if ERASED in known:
        sides = values[CEILING], values[ERASED]
        lost = difference("success", "rate", CEILING, ERASED, *sides, rate=True)
        details["needs_object"] = {"value": lost.value, "interval": lost.interval, "n": lost.n}
    return Result(
        "film_success",
        "rate",
        value=found.value,
        interval=found.interval,
        n=found.n,
        items=dict(own),
        details={**found.details, **details},
        parts=found.parts,
    )


@dataclass(frozen=True)
class Between:
    """A rate on the scale on which the floor is 0 and the ceiling 1, over ``n`` starts.

    ``value`` is None exactly where ``why_not`` says why.
    """

    value: float | None
    interval: Interval | None
    n: int
    why_not: str = ""


def between(own: Values, floor: Values, ceiling: Values) -> Between:
    """``(own - floor) / (ceiling - floor)`` on the starts that all three have played.

    Every task weighs the same; the interval draws tasks, then starts inside them, the three of a
    start together, and leaves out draws in which the ceiling is not above the floor. There is none
    where every draw is the same: nothing is left to resample, and the scale has no ends from which
    `wamlab.metrics.stats.alike` could take one. It has no value where the ceiling cannot be told
    from the floor: then the judge cannot tell a real film from a shuffled one, and nothing can be
    judged.
    """
    shared = sorted(own.keys() & floor.keys() & ceiling.keys())
    if len(shared) < 2:
        return Between(None, None, len(shared), f"{len(shared)} starts were played in all three")
    sides = _of(ceiling, shared), _of(floor, shared)
    gap = difference("success", "rate", CEILING, FLOOR, *sides, rate=True)
    if gap.higher != CEILING:
        return Between(None, None, len(shared), "the ceiling cannot be told from the floor")
    tasks = _tasks(shared)
    weight = [1 / tasks.count(task) for task in tasks]
    rows = np.array(
        [(own[i], floor[i], ceiling[i], w) for i, w in zip(shared, weight, strict=True)]
    )
    interval = bootstrap(rows, [tasks], statistic=_normalised)
    drawn = interval if interval.high - interval.low > ROUNDING else None
    return Between(_normalised(rows), drawn, len(shared))


@dataclass(frozen=True)
class Agreement:
    """How well one rate of each model tells another, over ``models`` and the starts they share.

    ``mmrv`` is 0 where the ranks are the same and at most 1; a correlation of fewer than three
    models, or of rates that are all alike, is None.
    """

    models: int
    mmrv: float
    mmrv_interval: Interval
    pearson: float | None
    pearson_interval: Interval | None


def agreement(predicted: Mapping[str, Values], measured: Mapping[str, Values]) -> Agreement:
    """Whether the models' film success (``predicted``) ranks them as their success does.

    Values by model, then ``task/seed``. Every task weighs the same; intervals draw tasks and starts
    inside them, all models together.

    Raises:
        ValueError: other models in the one than in the other, fewer than two, or fewer than
            `FEWEST` starts that all of them played in both.
    """
    if predicted.keys() != measured.keys() or len(predicted) < 2:
        raise ValueError(f"expected the same two or more models: {[*predicted]}, {[*measured]}")
    names = sorted(predicted)
    sides = [*(predicted[name] for name in names), *(measured[name] for name in names)]
    shared = sorted(set.intersection(*(set(one) for one in sides)))
    if len(shared) < FEWEST:
        played = f"{len(shared)} starts were played by all of {names}"
        raise ValueError(f"{played}, expected at least {FEWEST}")
    tasks = _tasks(shared)
    rows = np.array(
        [
            [*(one[item] for one in sides), 1 / tasks.count(task)]
            for item, task in zip(shared, tasks, strict=True)
        ]
    )

    def ranks(drawn: Float[np.ndarray, "n c"]) -> float:
        return mmrv(*np.split(_weighed(drawn), 2))

    def lies(drawn: Float[np.ndarray, "n c"]) -> float:
        found = pearson(*np.split(_weighed(drawn), 2))
        return float("nan") if found is None else found

    told = pearson(*np.split(_weighed(rows), 2)) if len(names) > 2 else None
    return Agreement(
        models=len(names),
        mmrv=ranks(rows),
        mmrv_interval=bootstrap(rows, [tasks], statistic=ranks),
        pearson=told,
        pearson_interval=None if told is None else bootstrap(rows, [tasks], statistic=lies),
    )


def mmrv(predicted: Float[np.ndarray, " m"], measured: Float[np.ndarray, " m"]) -> float:
    """SIMPLER's mean maximum rank violation: for each model its worst misordering, on average.

    ``mean_i max_j |r_i - r_j| [(s_i > s_j) != (r_i > r_j)]`` with ``s`` predicted and ``r``
    measured: a violation weighs what it costs in ``r``. Not symmetric in the two; a tie on one side
    counts once.
    """
    s, r = (np.asarray(one, float) for one in (predicted, measured))
    _check_pairs(s, r)
    violated = (s[:, None] > s[None]) != (r[:, None] > r[None])
    return float((np.abs(r[:, None] - r[None]) * violated).max(axis=1).mean())


def pearson(predicted: Float[np.ndarray, " m"], measured: Float[np.ndarray, " m"]) -> float | None:
    """Pearson's correlation; None where either side is constant and nothing can correlate."""
    s, r = (np.asarray(one, float) for one in (predicted, measured))
    _check_pairs(s, r)
    if np.ptp(s) == 0 or np.ptp(r) == 0:
        return None
    return float(np.corrcoef(s, r)[0, 1])


def _beside(own: Values, name: str, logs: Sequence[Episode]) -> dict[str, Any]:
    """A control's own rate, and the model less it on the starts that both have."""
    rate, less = (
        success_any(logs),
        difference("success", "rate", "model", name, own, success_values(logs), rate=True),
    )
    return {
        "rate": rate.value,
        "interval": rate.interval,
        "n": rate.n,
        "parts": {env: [part.details["successes"], part.n] for env, part in rate.parts.items()},
        "less": asdict(less),
    }


def _normalised(rows: Float[np.ndarray, "n 4"]) -> float:
    own, floor, ceiling = _weighed(rows)
    return float((own - floor) / (ceiling - floor)) if ceiling > floor else float("nan")


def _weighed(rows: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " c1"]:
    """The means of all columns but the last, which is the weight."""
    return (rows[:, :-1] * rows[:, -1:]).sum(0) / rows[:, -1].sum()


def _of(values: Values, items: Sequence[str]) -> Values:
    return {item: values[item] for item in items}


def _tasks(items: Sequence[str]) -> list[str]:
    return [item.rpartition("/")[0] for item in items]


def _check_pairs(one: np.ndarray, other: np.ndarray) -> None:
    if one.shape != other.shape or one.ndim != 1 or len(one) < 2:
        raise ValueError(f"expected two or more models, got {one.shape} and {other.shape}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("a rate is NaN or infinite")
