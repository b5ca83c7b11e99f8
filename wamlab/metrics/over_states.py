"""Statistics over states: ratios of sums, their gates, controls, curves and intervals.

A ratio is one of sums over states, its interval a bootstrap over states. Beside it stand, on the
same states, the paired difference over a static future, the value *normalised* between static and
oracle (0 and 1), the curve over offsets, and what controls score in the place of the imagination,
all with the error of the reader of imagined frames where it is known:

    static            nothing ever moves
    oracle            the executions: the attainable ceiling
    retrieval         the nearest training clip, where one was saved before the probes were read
    shuffled_action   the executions of the own actions, the steps of each in another order
    wrong_world       the executions in another physics: of all worlds that mostly lead elsewhere
                      the one that scores best, which ``wrong_world_is``; all are ``wrong_worlds``

The last three stand where the probes hold them. The same-state shuffled pairing is 0 by
construction in EIC and ICC, and so is in EIC whatever shows all samples of a state the same.
Another order of actions that ends where it should is told from the oracle by the curve alone.

A state counts only where positions differ by more than ``gate`` metres, by default 10 mm for the
hand and 5 mm for an object; elsewhere the measure is undefined, never 1. Where the oracle is not
above the static future, the reader's error is as large as what is to be measured, and a model that
imagines nothing would be the best: then there is no value either, nor where fewer than `FEWEST`
states say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from wamlab.metrics.base import Result, Row, summarise, wrong_world
from wamlab.metrics.joint import gate_metres
from wamlab.metrics.paths import Paths, Places
from wamlab.metrics.stats import FEWEST, bootstrap, interval_over


def consistency(
    name: str,
    paths: Paths,
    held: Callable[[Places], Float[np.ndarray, "n t 2"]],
    metres: Float[np.ndarray, "n t"],
    columns: Sequence[int],
    gate: float | None,
) -> Result:
    """One less a ratio of sums over the states that open the gate, beside the controls.

    ``held`` gives both sides of the ratio by state and offset for whatever is shown, ``metres``
    what has to be above the gate.
    """
    gate = gate_metres(paths.entity) if gate is None else gate
    opened = metres[:, columns].mean(axis=1) > gate
    undefined = closed(opened, within(gate))
    if not opened.any():
        why = f"no state opens the gate ({within(gate)}: {len(opened)})"
        return Result(name, why_not=why, undefined=undefined)
    model = held(paths.imagined)
    rows = model[opened][:, columns].mean(axis=1)
    pairs = lambda shown: held(shown)[opened][:, columns].mean(axis=1)  # noqa: E731
    static, oracle = (pairs(shown) for shown in paths.controls().values())
    if not rows[:, 1].sum() > 0:
        why = "what was imagined equals every other execution"
        return Result(name, why_not=why, undefined=undefined)
    over = lambda rows: score(rows[:, 0]) - score(rows[:, 1])  # noqa: E731
    seen = np.stack([oracle, static], axis=1)
    # Where nothing was read, the executions are exact however few they are.
    if not (over(seen) > 0 if paths.reread is None else surely_above(seen, over)):
        scored = f"score {score(oracle):.2f}, a static future {score(static):.2f}"
        return Result(name, why_not=cannot_tell(len(seen), scored), undefined=undefined)
    paired = np.stack([rows, static], axis=1)
    states = list(compress(paths.states, opened))
    return over_states(
        name,
        states,
        rows,
        score,
        sides={s: (float(own), float(other)) for s, (own, other) in zip(states, rows, strict=True)},
        undefined=undefined,
        details={
            "gate": gate,
            "static": score(static),
            "oracle": score(oracle),
            "normalised": over(paired) / over(seen),
            "over_static": over(paired),
            "over_static_interval": interval_over(paired, statistic=over),
            **further(paths, lambda shown: score(pairs(shown))),
            "curve": _curve(paths, model, metres > gate),
        },
    )


def further(
    paths: Paths,
    scored: Callable[[Places], float],
    goodness: Callable[[float], float] = lambda score: score,
) -> dict[str, Any]:
    """The details of the controls that only some probes hold, as far as they have a score.

    ``goodness`` is higher for a better score.
    """
    scores = lambda shown: {  # noqa: E731
        name: value for name, one in shown.items() if np.isfinite(value := scored(one))
    }
    worlds = scores(paths.wrong_worlds())
    return {**scores(paths.further_controls()), **wrong_world(worlds, goodness)}


def cannot_tell(states: int, scored: str) -> str:
    """Why there is no value where the reader's error is as large as what is to be measured."""
    return (
        f"the reader cannot tell in {states} states (at least {FEWEST} are needed): the "
        f"executions themselves, as it reads them, {scored}"
    )


def _curve(
    paths: Paths, model: Float[np.ndarray, "n t 2"], opened: Bool[np.ndarray, "n t"]
) -> dict[int, float]:
    """The score at each offset at which some state opens the gate."""
    if model.shape[1] < len(paths.offsets):
        return {}
    return {
        int(offset): score(model[opened[:, t], t])
        for t, offset in enumerate(paths.offsets)
        if model[opened[:, t], t, 1].sum() > 0
    }


def over_states(
    name: str,
    states: Sequence[str],
    rows: Float[np.ndarray, "n c"],
    statistic: Callable[[np.ndarray], float],
    **extra: Any,
) -> Result:
    """A statistic over states, of each state alone, and its bootstrap interval."""
    alone = {state: statistic(row[None]) for state, row in zip(states, rows, strict=True)}
    return Result(
        name,
        value=statistic(rows),
        interval=interval_over(rows, statistic=statistic),
        n=len(rows),
        items={state: value for state, value in alone.items() if np.isfinite(value)},
        **extra,
    )


def average(
    name: str, unit: str, paths: Paths, values: Float[np.ndarray, " n"], why: str = "", **extra: Any
) -> Result:
    """The mean over states; a state without a value is undefined for the reason ``why``.

    What a reader saw has no value either where fewer than `FEWEST` states have one.
    """
    known = np.isfinite(values)
    unknown = [why] * int((~known).sum())
    if paths.reread is not None and 0 < known.sum() < FEWEST:
        few = f"{known.sum()} of {len(values)} states have a value (at least {FEWEST} are needed)"
        return Result(name, unit, why_not=few, undefined=dict(Counter(unknown)))
    pairs = zip(compress(paths.states, known), values[known], strict=True)
    rows = [Row(state, "", float(value)) for state, value in pairs]
    return summarise(name, unit, rows, unknown, **extra)


def score(pairs: np.ndarray) -> float:
    """One less the ratio of sums of pairs (N, 2)."""
    return 1 - share(pairs)


def share(pairs: np.ndarray) -> float:
    part, whole = pairs.sum(axis=0)
    return float(part / whole) if whole > 0 else float("nan")


def surely_above(rows: np.ndarray, statistic: Callable[[np.ndarray], float]) -> bool:
    """Whether a statistic over states is above 0 with its interval, of `FEWEST` states or more."""
    return len(rows) >= FEWEST and bootstrap(rows, statistic=statistic).low > 0


def closed(opened: Bool[np.ndarray, " n"], why: str) -> dict[str, int]:
    return {} if opened.all() else {why: int((~opened).sum())}


def within(gate: float) -> str:
    return f"positions differ by {1000 * gate:.0f} mm or less"
