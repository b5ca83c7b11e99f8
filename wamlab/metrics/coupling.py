"""Does what was imagined agree with what the imagined action does? On states, entity by entity.

The measures of `wamlab.metrics.joint` where positions are known instead of pixels, and those that
need positions. From one restored state, ``x^_i`` is where an entity was imagined, ``x*_i`` where it
went when the same action was executed, ``d`` their distance in metres:

    EIC      1 - mean_i d(x^_i, x*_i) / mean_{i != j} d(x^_i, x*_j)
    EIC_ref  1 - mean_i d(x^_i, x*_i) / mean_{r != s} d(x*_r, x*_s)     r, s: reference chunks
    EIC_cf   1 - mean_i d(x^_i, x*_i) / mean_{i, m} d(x^_i, x*_m)       m: imposed actions
    SKILL    1 - mean_i d(x^_i, x*_i) / mean_i d(x_now, x*_i)
    CMR      how often the own execution is the nearest of the K
    ICC      1 - mean_i |a~_i - a_i| / mean_{i != j} |a~_i - a_j|       a~: read off x^

EIC and ICC are 1 for coupled and right, 0 for no coupling, below 0 for worse than that. CMR has its
chance beside it; EIC_cf has no zero of its own. Distances are averaged over the offsets ``at``: by
default the last alone, for CMR, ICC and DWA all. Gates and controls: `wamlab.metrics.over_states`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from wamlab.metrics.base import NotApplicable, Result, Row, summarise
from wamlab.metrics.joint import gate_metres
from wamlab.metrics.over_states import (
    average,
    cannot_tell,
    consistency,
    further,
    score,
    surely_above,
)
from wamlab.metrics.paths import (
    Paths,
    Places,
    Steps,
    apart,
    check_beside,
    check_shape,
    each_to_each,
    need_several,
    other_pairs,
    own_pairs,
)
from wamlab.metrics.stats import interval_over

Inverse = Callable[[Float[np.ndarray, "n k h1 d"]], Steps]
"""Inverse dynamics that is right by construction: the actions between H + 1 positions."""

LAGS = (-2, -1, 0, 1, 2)


def eic(paths: Paths, *, at: Sequence[int] | None = None, gate: float | None = None) -> Result:
    """Executed-imagination consistency of own samples against same-state shuffled pairs.

    ``details["consistent_until"]`` is the last offset at which it is 0.5 or more, 0 for none.
    """
    need_several(paths, "EIC", "samples")

    def held(shown: Places) -> Float[np.ndarray, "n t 2"]:
        every = each_to_each(shown, paths.executed)
        return np.stack([own_pairs(every), other_pairs(every)], axis=-1)

    metres = np.minimum(paths.motion(), paths.spread())
    found = consistency("state_eic", paths, held, metres, paths.columns(at), gate)
    curve = found.details.get("curve", {})
    until = max((offset for offset, value in curve.items() if value >= 0.5), default=0)
    found.details["consistent_until"] = until
    return found


def eic_ref(
    paths: Paths, reference: Places, *, at: Sequence[int] | None = None, gate: float | None = None
) -> Result:
    """EIC over a denominator that is the same for every model.

    In `eic` a noisier policy earns a higher score for the same error. Here the error is measured by
    the spread of executions (N, R, T, D) of a fixed reference set of R action chunks per state.
    """
    check_beside(paths, "reference", reference)
    if reference.shape[1] < 2:
        raise NotApplicable("EIC_ref needs two reference chunks from one state, there is one")
    spread = other_pairs(each_to_each(reference, reference))

    def held(shown: Places) -> Float[np.ndarray, "n t 2"]:
        return np.stack([apart(shown, paths.executed).mean(axis=1), spread], axis=-1)

    return consistency("state_eic_ref", paths, held, spread, paths.columns(at), gate)


def eic_cf(
    paths: Paths, imposed: Places, *, at: Sequence[int] | None = None, gate: float | None = None
) -> Result:
    """The counterfactual form: what was imagined against executions of imposed actions.

    ``imposed`` are those executions (N, M, T, D).
    """
    check_beside(paths, "imposed", imposed)

    def held(shown: Places) -> Float[np.ndarray, "n t 2"]:
        own = apart(shown, paths.executed).mean(axis=1)
        return np.stack([own, each_to_each(shown, imposed).mean(axis=(1, 2))], axis=-1)

    metres = each_to_each(paths.executed, imposed).mean(axis=(1, 2))
    return consistency("state_eic_cf", paths, held, metres, paths.columns(at), gate)


def skill(paths: Paths, *, at: Sequence[int] | None = None, gate: float | None = None) -> Result:
    """How much nearer the imagination is to what happened than the state now is."""

    def held(shown: Places) -> Float[np.ndarray, "n t 2"]:
        return np.stack([apart(shown, paths.executed).mean(axis=1), paths.motion()], axis=-1)

    return consistency("state_skill", paths, held, paths.motion(), paths.columns(at), gate)


def error(paths: Paths, *, at: Sequence[int] | None = None) -> Result:
    """How far the imagined place is from the one that the own action led to, metres.

    The floor is the reader's error on the real frames of the same executions.
    """
    columns = paths.columns(at)
    found = {
        name: paths.away(shown, columns)
        for name, shown in {"model": paths.imagined, **paths.controls()}.items()
    }
    rows = zip(paths.states, found["model"], strict=True)
    return summarise(
        "state_error",
        "m",
        [Row(state, "", float(value)) for state, value in rows],
        floor=float(found["oracle"].mean()),
        details={
            "moved": float(paths.motion()[:, columns].mean()),
            "static": float(found["static"].mean()),
            **further(paths, lambda shown: float(paths.away(shown, columns).mean()), operator.neg),
        },
    )


def div(paths: Paths, *, at: Sequence[int] | None = None) -> Result:
    """How far apart the model's own actions lead from one state: the mean pairwise distance."""
    need_several(paths, "DIV", "samples")
    values = paths.spread()[:, paths.columns(at)].mean(axis=1)
    return average("state_div", "m", paths, values, floor=gate_metres(paths.entity))


def cmr(paths: Paths, *, at: Sequence[int] | None = None, merge: float | None = None) -> Result:
    """Coupled match rate: how often the imagination is nearest to its own execution.

    Executions no further apart than ``merge`` metres (None: the gate, below 0: merge none) are one:
    either is the own one. ``details["shuffled"]`` is the rate at which the imaginations of the
    state's other samples match it, which who is not coupled has for its value as well (a still
    picture always matches the same one), and ``normalised`` is the value between this and the
    oracle. ``chance`` is the rate of a blind guess on the same states. A state whose executions are
    all one is undefined, and so is all where the oracle, as it was read, does not match its own
    above others.
    """
    need_several(paths, "CMR", "samples")
    merge = gate_metres(paths.entity) if merge is None else merge
    columns = paths.columns(paths.offsets.tolist() if at is None else at)
    apart = each_to_each(paths.executed, paths.executed)[..., columns].mean(axis=-1)
    same = (apart <= merge) | np.eye(apart.shape[1], dtype=bool)
    distinct = ~same.all(axis=(1, 2))

    def matches(shown: Places) -> Float[np.ndarray, "n 2"]:
        """How often what is nearest to an imagination is one with its own execution, and with
        another's."""
        nearest = each_to_each(shown, paths.executed)[..., columns].mean(axis=-1).argmin(axis=2)
        pairs = np.take_along_axis(same, nearest[:, None, :], axis=2).astype(float)[..., None]
        return np.concatenate([own_pairs(pairs), other_pairs(pairs)], axis=-1)

    def matched(shown: Places) -> Float[np.ndarray, " n"]:
        return matches(shown)[:, 0]

    own, chance = matches(paths.imagined), same.mean(axis=(1, 2))
    values = own[:, 0]
    why = f"the executions are one within {1000 * merge:.0f} mm"
    found = average("state_cmr", "rate", paths, np.where(distinct, values, np.nan), why)
    if found.value is None:
        return found
    static, oracle = (matches(shown) for shown in paths.controls().values())
    over = lambda rows: float((rows[:, 0] - rows[:, 1]).mean())  # noqa: E731
    seen, above = oracle[distinct], own[distinct]
    paired = np.stack([values, static[:, 0]], axis=1)[distinct]
    rate = lambda rates: float(rates[distinct].mean())  # noqa: E731
    # Where nothing was read, every execution matches itself.
    if paths.reread is not None and not surely_above(seen, over):
        scored = f"match at a rate of {rate(oracle[:, 0]):.2f}, others {rate(oracle[:, 1]):.2f}"
        why = cannot_tell(len(seen), scored)
        return Result("state_cmr", "rate", why_not=why, undefined=found.undefined)
    found.details.update(
        chance=rate(chance),
        shuffled=rate(own[:, 1]),
        static=rate(static[:, 0]),
        oracle=rate(oracle[:, 0]),
        normalised=over(above) / over(seen),
        over_static=over(paired),
        over_static_interval=interval_over(paired, statistic=over),
        **further(paths, lambda shown: rate(matched(shown))),
    )
    return found


def icc(
    paths: Paths,
    actions: Steps,
    inverse: Inverse,
    *,
    lags: Sequence[int] = LAGS,
    gate: float | None = None,
) -> Result:
    """Inverse-cycle consistency: does the imagined motion hold the action it was drawn with?

    Args:
        paths: the robot's, at every offset from 1 to H.
        actions: the model's own, in the inverse dynamics' units.
        inverse: from positions (N, K, H+1, D), the start first, to actions (N, K, H, A).
        lags: by how many steps the imagination may come late; ``details["lag"]`` is the best one
            and must be 0. The oracle beside the value is the ceiling of the inverse dynamics.
    """
    need_several(paths, "ICC", "samples")
    n, k, t, _ = paths.executed.shape
    check_shape("actions", actions, (n, k, t, actions.shape[-1]))
    if not np.array_equal(paths.offsets, np.arange(1, t + 1)):
        raise NotApplicable(f"ICC needs every offset from 1, got {paths.offsets.tolist()}")
    if bad := [lag for lag in lags if abs(lag) >= t]:
        raise ValueError(f"a lag of {bad[0]} steps in paths of {t}")

    def held(shown: Places, lag: int = 0) -> Float[np.ndarray, "n 1 2"]:
        read = inverse(np.concatenate([paths.still[:, :, :1], shown], axis=2))
        check_shape("what inverse dynamics read", read, actions.shape)
        late, early = max(lag, 0), max(-lag, 0)
        every = each_to_each(read[:, :, late : t - early], actions[:, :, early : t - late])
        every = every.mean(axis=-1, keepdims=True)
        return np.stack([own_pairs(every), other_pairs(every)], axis=-1)

    metres = np.minimum(paths.motion(), paths.spread())[:, -1:]
    found = consistency("state_icc", paths, held, metres, [0], gate)
    if found.value is not None:
        opened = metres[:, 0] > found.details["gate"]
        by_lag = {lag: score(held(paths.imagined, lag)[opened, 0]) for lag in lags}
        found.details.update(lags=by_lag, lag=max(by_lag, key=lambda lag: by_lag[lag]))
    return found
