"""Does what was imagined agree with what the imagined action does? On states, entity by entity.

The measures of `wamlab.metrics.joint` where positions are known instead of pixels, and those that
need positions. From one restored state, ``x^_i`` is where an entity was imagined, ``x*_i`` where it
went when the same action was executed, ``d`` their distance in metres:

    EIC      1 - mean_i d(x^_i, x*_i) / mean_{i != j} d(x^_i, x*_j)
    EIC_ref  1 - mean_i d(x^_i, x*_i) / mean_{r != s} d(x*_r, x*_s)     r, s: reference chunks
    EIC_cf   1 - mean_i d(x^_i, x*_i) / mean_{i, m} d(x^_i, x*_m)       m: imposed actions
    SKILL    1 - mean_i d(x^_i, x*_i) / mean_i d(x_now, x*_i)
    CMR      how often the own execution is the nearest of the K
    IEA      1 - sum |D^_kl - D_kl|^2 / sum |D_kl|^2                    D_kl: effect of k over l
    ICC      1 - mean_i |a~_i - a_i| / mean_{i != j} |a~_i - a_j|       a~: read off x^
    DWA      min_w L_w / L                                              L_w: distance to world w
    OCB      P(success imagined) - P(success)
    IUS      sum <made, demanded> / sum |demanded|^2                    changes of the action

EIC, IEA and ICC are 1 for coupled and right, 0 for no coupling, below 0 for worse than that. CMR
has its chance beside it, DWA is above 1 where the true world is nearest, OCB is 0 without bias, IUS
0 where imagination is not used; EIC_cf has no zero of its own. Ratios are of sums over states,
intervals a bootstrap over states. Beside a ratio stand, on the same states, a *static* future and
the *oracle* (the executions), both with the error of the reader of imagined frames where it is
known, the paired difference over static, and the curve over offsets.

Distances are averaged over the offsets ``at``: by default the last alone, for CMR and ICC all. A
state counts only where positions differ by more than ``gate`` metres, by default 10 mm for the hand
and 5 mm for an object; elsewhere the measure is undefined, never 1. Entities are never joined into
one vector: a robot that moves further hides every fault of an object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from wamlab.config import nearest
from wamlab.metrics.base import NotApplicable, Result, Row, summarise
from wamlab.metrics.joint import gate_metres
from wamlab.metrics.stats import Interval, bootstrap

Places = Float[np.ndarray, "n k t d"]
Steps = Float[np.ndarray, "n k h a"]
Inverse = Callable[[Float[np.ndarray, "n k h1 d"]], Steps]
"""Inverse dynamics that is right by construction: the actions between H + 1 positions."""

LAGS = (-2, -1, 0, 1, 2)
LEAST_EIC = 0.2


@dataclass(frozen=True)
class Paths:
    """One entity's paths from N restored states, K from each, in metres.

    ``start`` is where it stands now; ``imagined`` and ``executed`` where it is after ``offsets``
    actions. The K are the model's own samples, or sequences imposed on it or instructions given to
    it, all imagined with the same sampling noise. ``reread`` are the executions as the reader of
    imagined frames reads them off real ones: it is the attainable ceiling, and tells its error.

    Raises:
        ValueError: shapes that do not fit together, NaN or infinity, offsets that do not rise.
    """

    entity: str
    states: Sequence[str]
    offsets: Int[np.ndarray, " t"]
    start: Float[np.ndarray, "n d"]
    imagined: Places
    executed: Places
    reread: Places | None = None

    def __post_init__(self) -> None:
        if self.executed.ndim != 4 or not self.executed.size:
            raise ValueError(
                f"{self.entity}: expected executions (N, K, T, D), got {self.executed.shape}"
            )
        n, _, t, d = whole = self.executed.shape
        shapes = {"executed": whole, "imagined": whole, "start": (n, d)}
        for name, shape in (shapes if self.reread is None else {**shapes, "reread": whole}).items():
            _check_shape(f"{self.entity}: {name}", getattr(self, name), shape)
        _check_states(self.states, n)
        if len(self.offsets) != t or (np.diff(self.offsets, prepend=0) <= 0).any():
            raise ValueError(f"{self.entity}: expected {t} rising offsets above 0: {self.offsets}")

    @property
    def still(self) -> Places:
        """The start, for as long as the executions last."""
        return np.broadcast_to(self.start[:, None, None], self.executed.shape)

    def controls(self) -> dict[str, Places]:
        """What the controls show in the place of the imagination, read with the same error.

        Read without it, a static future would lie below itself wherever an error adds to a
        distance of 0, and a model that imagines nothing would seem to be above it.
        """
        error = 0 if self.reread is None else self.reread - self.executed
        return {"static": self.still + error, "oracle": self.executed + error}

    def columns(self, at: Sequence[int] | None) -> list[int]:
        """Where these offsets lie, None: the last; KeyError for one that the paths lack."""
        known = self.offsets.tolist()
        if missing := [offset for offset in at or () if offset not in known]:
            raise KeyError(f"no offset {missing[0]}{nearest(str(missing[0]), map(str, known))}")
        return [known.index(offset) for offset in at or known[-1:]]

    def motion(self) -> Float[np.ndarray, "n t"]:
        """How far the executions lead away from the start, on average over the K."""
        return _apart(self.executed, self.still).mean(axis=1)

    def spread(self) -> Float[np.ndarray, "n t"]:
        """How far apart the executions are, on average over the pairs."""
        return _others(_every(self.executed, self.executed))


def eic(paths: Paths, *, at: Sequence[int] | None = None, gate: float | None = None) -> Result:
    """Executed-imagination consistency of own samples against same-state shuffled pairs.

    ``details["consistent_until"]`` is the last offset at which it is 0.5 or more, 0 for none.
    """
    _need_several(paths, "EIC", "samples")

    def held(shown: Places) -> Float[np.ndarray, "n t 2"]:
        every = _every(shown, paths.executed)
        return np.stack([_own(every), _others(every)], axis=-1)

    metres = np.minimum(paths.motion(), paths.spread())
    found = _consistency("state_eic", paths, held, metres, paths.columns(at), gate)
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
    _check_beside(paths, "reference", reference)
    if reference.shape[1] < 2:
        raise NotApplicable("EIC_ref needs two reference chunks from one state, there is one")
    spread = _others(_every(reference, reference))

    def held(shown: Places) -> Float[np.ndarray, "n t 2"]:
        return np.stack([_apart(shown, paths.executed).mean(axis=1), spread], axis=-1)

    return _consistency("state_eic_ref", paths, held, spread, paths.columns(at), gate)


def eic_cf(
    paths: Paths, imposed: Places, *, at: Sequence[int] | None = None, gate: float | None = None
) -> Result:
    """The counterfactual form, against executions (N, M, T, D) of imposed actions."""
    _check_beside(paths, "imposed", imposed)

    def held(shown: Places) -> Float[np.ndarray, "n t 2"]:
        own = _apart(shown, paths.executed).mean(axis=1)
        return np.stack([own, _every(shown, imposed).mean(axis=(1, 2))], axis=-1)

    metres = _every(paths.executed, imposed).mean(axis=(1, 2))
    return _consistency("state_eic_cf", paths, held, metres, paths.columns(at), gate)


def skill(paths: Paths, *, at: Sequence[int] | None = None, gate: float | None = None) -> Result:
    """How much nearer the imagination is to what happened than the state now is."""

    def held(shown: Places) -> Float[np.ndarray, "n t 2"]:
        return np.stack([_apart(shown, paths.executed).mean(axis=1), paths.motion()], axis=-1)

    return _consistency("state_skill", paths, held, paths.motion(), paths.columns(at), gate)


def div(paths: Paths, *, at: Sequence[int] | None = None) -> Result:
    """How far apart the model's own actions lead from one state: the mean pairwise distance."""
    _need_several(paths, "DIV", "samples")
    values = paths.spread()[:, paths.columns(at)].mean(axis=1)
    return _average("state_div", "m", paths, values, floor=gate_metres(paths.entity))


def cmr(paths: Paths, *, at: Sequence[int] | None = None, merge: float | None = None) -> Result:
    """Coupled match rate: how often the imagination is nearest to its own execution.

    Executions no further apart than ``merge`` metres (None: the gate, below 0: merge none) are one:
    either is the own one. ``details["chance"]`` is the rate of a blind guess on the same states. A
    state whose executions are all one is undefined.
    """
    _need_several(paths, "CMR", "samples")
    merge = gate_metres(paths.entity) if merge is None else merge
    columns = paths.columns(paths.offsets.tolist() if at is None else at)
    apart = _every(paths.executed, paths.executed)[..., columns].mean(axis=-1)
    same = (apart <= merge) | np.eye(apart.shape[1], dtype=bool)
    found = _every(paths.imagined, paths.executed)[..., columns].mean(axis=-1).argmin(axis=2)
    matched = np.take_along_axis(same, found[..., None], axis=2).mean(axis=(1, 2))
    distinct = ~same.all(axis=(1, 2))
    chance = float(same[distinct].mean()) if distinct.any() else None
    values = np.where(distinct, matched, np.nan)
    why = f"the executions are one within {1000 * merge:.0f} mm"
    return _average("state_cmr", "rate", paths, values, why, details={"chance": chance})


def iea(paths: Paths, *, at: Sequence[int] | None = None, gate: float | None = None) -> Result:
    """Interventional effect agreement: do imposed actions differ in the imagination as in truth?

    ``paths`` hold the imposed sequences. ``details``: ``gain``, how much of the true effect was
    imagined (above 1 over-reaction, 0 blindness), and ``spurious``, the mean effect in metres that
    was imagined between sequences whose true effect is within the gate.
    """
    _need_several(paths, "IEA", "imposed sequences")
    return _agreement("state_iea", paths, at, gate)


def instruction_contrast(
    paths: Paths, *, at: Sequence[int] | None = None, gate: float | None = None
) -> Result:
    """Do futures imagined under other instructions differ as their executions do?

    ``paths`` hold one future by instruction, each beside the execution of its own action; the
    formula and the details are those of `iea`.
    """
    _need_several(paths, "the instruction contrast", "instructions")
    return _agreement("state_instruction_contrast", paths, at, gate)


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
    _need_several(paths, "ICC", "samples")
    n, k, t, _ = paths.executed.shape
    _check_shape("actions", actions, (n, k, t, actions.shape[-1]))
    if not np.array_equal(paths.offsets, np.arange(1, t + 1)):
        raise NotApplicable(f"ICC needs every offset from 1, got {paths.offsets.tolist()}")
    if bad := [lag for lag in lags if abs(lag) >= t]:
        raise ValueError(f"a lag of {bad[0]} steps in paths of {t}")

    def held(shown: Places, lag: int = 0) -> Float[np.ndarray, "n 1 2"]:
        read = inverse(np.concatenate([paths.still[:, :, :1], shown], axis=2))
        _check_shape("what inverse dynamics read", read, actions.shape)
        late, early = max(lag, 0), max(-lag, 0)
        every = _every(read[:, :, late : t - early], actions[:, :, early : t - late])
        every = every.mean(axis=-1, keepdims=True)
        return np.stack([_own(every), _others(every)], axis=-1)

    metres = np.minimum(paths.motion(), paths.spread())[:, -1:]
    found = _consistency("state_icc", paths, held, metres, [0], gate)
    if found.value is not None:
        opened = metres[:, 0] > found.details["gate"]
        by_lag = {lag: _score(held(paths.imagined, lag)[opened, 0]) for lag in lags}
        found.details.update(lags=by_lag, lag=max(by_lag, key=lambda lag: by_lag[lag]))
    return found


def dwa(
    entities: Sequence[Paths],
    worlds: Mapping[str, Mapping[str, Places]],
    *,
    at: Sequence[int] | None = None,
    least_eic: float | None = LEAST_EIC,
) -> Result:
    """Dynamics-world attribution: the world whose executions are nearest to what was imagined.

    The value is the margin of the true world over the nearest other, above 1 where the imagination
    follows the true one; ``details["world"]`` names the nearest, ``details["distance"]`` holds the
    distance of each in metres, averaged over entities. A state counts where some world leads some
    entity further than its gate from where it truly went, a world where it does so in some state.

    Args:
        entities: the own samples of each entity in the same states.
        worlds: by world and entity, where the same actions lead (N, K, T, D) in another physics
            (robot gain, slip, mass, ...).
        least_eic: without an entity of a higher EIC there is nothing to attribute; None lifts this.
    """
    if not entities or not worlds:
        raise NotApplicable("DWA needs entities and other worlds to compare")
    if len({tuple(paths.states) for paths in entities}) > 1:
        raise ValueError("the entities were not seen in the same states")
    details: dict[str, Any] = {}
    if least_eic is not None:
        found = {paths.entity: eic(paths, at=at).value for paths in entities}
        details["eic"] = found
        if not any(value is not None and value > least_eic for value in found.values()):
            why = f"no entity's EIC is above {least_eic}: nothing to attribute"
            undefined = {why: len(entities[0].states)}
            return Result("state_dwa", why_not=why, undefined=undefined, details=details)
    leads = {world: _leads_elsewhere(world, entities, worlds[world], at) for world in worlds}
    opened = np.logical_or.reduce(list(leads.values()))
    why = "no world leads an entity elsewhere"
    if not opened.any():
        return Result("state_dwa", why_not=why, undefined=_closed(opened, why), details=details)
    true = {paths.entity: paths.executed for paths in entities}
    away = {
        world: np.mean([_away(paths, where[paths.entity], at) for paths in entities], axis=0)
        for world, where in {"true": true, **worlds}.items()
        if world == "true" or leads[world].any()
    }
    rows = np.stack(list(away.values()), axis=1)[opened]
    distance = dict(zip(away, rows.mean(axis=0).tolist(), strict=True))
    details |= {"world": min(distance, key=lambda world: distance[world]), "distance": distance}
    undefined = _closed(opened, why)
    if not distance["true"] > 0:
        why = "the imagination is exact: the margin has no end"
        return Result("state_dwa", why_not=why, undefined=undefined, details=details)
    states = list(compress(entities[0].states, opened))
    return _over_states("state_dwa", states, rows, _margin, undefined=undefined, details=details)


def ocb(
    imagined: Bool[np.ndarray, "n k"], executed: Bool[np.ndarray, "n k"], states: Sequence[str]
) -> Result:
    """Outcome bias: how much more often success is imagined than met, by the same criterion.

    ``details``: Matthews' correlation (``mcc``) and ``markedness``, the success rate where success
    was imagined less that where failure was; None where one outcome is missing.
    """
    if not executed.size:
        raise NotApplicable("OCB needs outcomes; there are none")
    _check_shape("imagined outcomes", imagined, executed.shape)
    _check_states(states, len(executed))
    rows = np.stack([imagined & executed, imagined, executed], axis=-1).mean(axis=1)
    both, dreamt, met = (float(rate) for rate in rows.mean(axis=0))
    mcc = _matthews(rows)
    known = np.isfinite(mcc)
    marked = (both - dreamt * met) / (dreamt * (1 - dreamt)) if 0 < dreamt < 1 else None
    return _over_states(
        "state_ocb",
        states,
        rows,
        lambda rows: float((rows[:, 1] - rows[:, 2]).mean()),
        unit="rate",
        details={
            "imagined": dreamt,
            "executed": met,
            "mcc": mcc if known else None,
            "mcc_interval": _interval(rows, _matthews) if known else None,
            "markedness": marked,
        },
    )


def ius(
    own: Steps, replaced: Steps, demanded: Steps, states: Sequence[str], *, gate: float
) -> Result:
    """Imagination-use sensitivity: how much of a demanded change of action is made.

    The imagination is replaced (by another sample's, a mirrored one, noise) before the action is
    decoded from it. 0: imagination is decoration; 1: the action follows. It is no score of quality.

    Args:
        own, replaced: the actions decoded from the own and from the replaced imagination.
        demanded: the change that exact inverse dynamics reads between the two imaginations.
        gate: the smallest demanded change that counts, root mean square, in the actions' unit.
    """
    for name, actions in {"own": own, "replaced": replaced, "demanded": demanded}.items():
        _check_shape(f"{name} actions", actions, own.shape)
    _check_states(states, len(own))
    made, axes = replaced - own, (1, 2, 3)
    rows = np.stack([(made * demanded).sum(axes), (demanded**2).sum(axes)], axis=-1)
    opened = np.sqrt((demanded**2).mean(axes)) > gate
    why = f"a change of {gate} or less is demanded"
    if not opened.any():
        return summarise("state_ius", "", [], [why] * len(opened))
    missed = ((made - demanded) ** 2).sum(axes)[opened].sum() / rows[opened, 1].sum()
    return _over_states(
        "state_ius",
        list(compress(states, opened)),
        rows[opened],
        _share,
        undefined=_closed(opened, why),
        details={"agreement": 1 - float(missed)},
    )


def ads(paths: Paths, *, at: Sequence[int] | None = None) -> Result:
    """Capped separation, for comparison: min(1, spread of imagined over spread of true paths).

    Blind to a mirrored and to an exaggerated effect. Imposed sequences, as are the three below.
    """
    _need_several(paths, "ADS", "imposed sequences")
    columns, gate = paths.columns(at), gate_metres(paths.entity)
    true = paths.spread()[:, columns].mean(axis=1)
    imagined = _others(_every(paths.imagined, paths.imagined))[:, columns].mean(axis=1)
    values = np.full(len(true), np.nan)
    np.divide(imagined, true, out=values, where=true > gate)
    return _average("state_ads", "", paths, np.minimum(values, 1), _within(gate))


def cda(paths: Paths, *, at: Sequence[int] | None = None) -> Result:
    """Mean cosine between imagined and true displacement, for comparison.

    Rewards the direction that all actions of a task share. Displacements within the gate have no
    direction and are left out.
    """
    columns, gate = paths.columns(at), gate_metres(paths.entity)
    imagined = (paths.imagined - paths.still)[:, :, columns]
    true = (paths.executed - paths.still)[:, :, columns]
    sizes = _size(imagined) * _size(true)
    cosines = (imagined * true).sum(axis=-1) / np.where(sizes > 0, sizes, 1)
    moved = _size(true) > gate
    counts = moved.sum(axis=(1, 2))
    values = np.where(counts, (cosines * moved).sum(axis=(1, 2)) / np.maximum(counts, 1), np.nan)
    return _average("state_cda", "", paths, values, _within(gate))


def distance_correlation(paths: Paths, *, at: Sequence[int] | None = None) -> Result:
    """Pearson's correlation of imagined and true pairwise distances in a state, for comparison."""
    _need_several(paths, "the correlation of distances", "imposed sequences")
    sides = []
    for places in (paths.imagined, paths.executed):
        distances = _size(_effects(places))[:, :, paths.columns(at)].mean(axis=-1)
        sides.append(distances - distances.mean(axis=1, keepdims=True))
    scale = np.sqrt((sides[0] ** 2).sum(axis=1) * (sides[1] ** 2).sum(axis=1))
    values = np.full(len(scale), np.nan)
    np.divide((sides[0] * sides[1]).sum(axis=1), scale, out=values, where=scale > 0)
    why = "the distances do not vary"
    return _average("state_distance_correlation", "", paths, values, why)


def cf_mae(paths: Paths, *, at: Sequence[int] | None = None) -> Result:
    """Mean absolute error of imagined effects per coordinate, for comparison; it has no zero."""
    _need_several(paths, "cf-MAE", "imposed sequences")
    missed = (_effects(paths.imagined) - _effects(paths.executed))[:, :, paths.columns(at)]
    return _average("state_cf_mae", "m", paths, np.abs(missed).mean(axis=(1, 2, 3)))


def _consistency(
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
    undefined = _closed(opened, _within(gate))
    if not opened.any():
        why = f"no state opens the gate ({_within(gate)}: {len(opened)})"
        return Result(name, why_not=why, undefined=undefined)
    model = held(paths.imagined)
    rows = model[opened][:, columns].mean(axis=1)
    static, oracle = (
        held(shown)[opened][:, columns].mean(axis=1) for shown in paths.controls().values()
    )
    if not rows[:, 1].sum() > 0:
        why = "what was imagined equals every other execution"
        return Result(name, why_not=why, undefined=undefined)
    over = lambda rows: _score(rows[:, 0]) - _score(rows[:, 1])  # noqa: E731
    paired = np.stack([rows, static], axis=1)
    return _over_states(
        name,
        list(compress(paths.states, opened)),
        rows,
        _score,
        undefined=undefined,
        details={
            "gate": gate,
            "static": _score(static),
            "oracle": _score(oracle),
            "over_static": over(paired),
            "over_static_interval": _interval(paired, over),
            "curve": _curve(paths, model, metres > gate),
        },
    )


def _curve(
    paths: Paths, model: Float[np.ndarray, "n t 2"], opened: Bool[np.ndarray, "n t"]
) -> dict[int, float]:
    """The score at each offset at which some state opens the gate."""
    if model.shape[1] < len(paths.offsets):
        return {}
    return {
        int(offset): _score(model[opened[:, t], t])
        for t, offset in enumerate(paths.offsets)
        if model[opened[:, t], t, 1].sum() > 0
    }


def _agreement(name: str, paths: Paths, at: Sequence[int] | None, gate: float | None) -> Result:
    true, columns = _effects(paths.executed), paths.columns(at)

    def held(shown: Places) -> Float[np.ndarray, "n t 2"]:
        missed = _effects(shown) - true
        return np.stack([(missed**2).sum(axis=(1, 3)), (true**2).sum(axis=(1, 3))], axis=-1)

    metres = _size(true).mean(axis=1)
    found = _consistency(name, paths, held, metres, columns, gate)
    gate = gate_metres(paths.entity) if gate is None else gate
    true, made = true[:, :, columns], _effects(paths.imagined)[:, :, columns]
    none = _size(true) <= gate
    found.details["spurious"] = float(_size(made)[none].mean()) if none.any() else None
    if found.value is not None:
        opened = metres[:, columns].mean(axis=1) > gate
        sums = np.stack([(made * true).sum(axis=(1, 2, 3)), (true**2).sum(axis=(1, 2, 3))], axis=-1)
        found.details["gain"] = _share(sums[opened])
        found.details["gain_interval"] = _interval(sums[opened], _share)
    return found


def _leads_elsewhere(
    world: str, entities: Sequence[Paths], where: Mapping[str, Places], at: Sequence[int] | None
) -> Bool[np.ndarray, " n"]:
    """In which states a world leads some entity further than its gate from where it truly went."""
    found = []
    for paths in entities:
        if paths.entity not in where:
            raise KeyError(f"world {world!r} has no {paths.entity!r}{nearest(paths.entity, where)}")
        places = where[paths.entity]
        _check_shape(f"world {world!r}: {paths.entity}", places, paths.executed.shape)
        away = _apart(paths.executed, places)[..., paths.columns(at)].mean(axis=(1, 2))
        found.append(away > gate_metres(paths.entity))
    return np.logical_or.reduce(found)


def _away(paths: Paths, places: Places, at: Sequence[int] | None) -> Float[np.ndarray, " n"]:
    return _apart(paths.imagined, places)[..., paths.columns(at)].mean(axis=(1, 2))


def _margin(rows: np.ndarray) -> float:
    """The nearest other world's distance over the true one's, from rows (N, 1 + W)."""
    own, *others = rows.sum(axis=0)
    return float(min(others) / own) if own > 0 else float("nan")


def _matthews(rows: np.ndarray) -> float:
    """Matthews' correlation from rates (N, 3) of both successes, the imagined and the executed."""
    both, dreamt, met = rows.mean(axis=0)
    spread = dreamt * (1 - dreamt) * met * (1 - met)
    return float((both - dreamt * met) / np.sqrt(spread)) if spread > 0 else float("nan")


def _over_states(
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
        interval=_interval(rows, statistic),
        n=len(rows),
        items={state: value for state, value in alone.items() if np.isfinite(value)},
        **extra,
    )


def _average(
    name: str, unit: str, paths: Paths, values: Float[np.ndarray, " n"], why: str = "", **extra: Any
) -> Result:
    """The mean over states; a state without a value is undefined for the reason ``why``."""
    known = np.isfinite(values)
    pairs = zip(compress(paths.states, known), values[known], strict=True)
    rows = [Row(state, "", float(value)) for state, value in pairs]
    return summarise(name, unit, rows, [why] * int((~known).sum()), **extra)


def _size(vectors: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n"]:
    return np.sqrt((vectors**2).sum(axis=-1))


def _apart(first: Places, second: Places) -> Float[np.ndarray, "n k t"]:
    return _size(first - second)


def _every(first: Places, second: Float[np.ndarray, "n l t d"]) -> Float[np.ndarray, "n k l t"]:
    """The distance of each of the first to each of the second of the same state."""
    return _size(first[:, :, None] - second[:, None])


def _own(every: Float[np.ndarray, "n k k t"]) -> Float[np.ndarray, "n t"]:
    return np.einsum("nkkt->nt", every) / every.shape[1]


def _others(every: Float[np.ndarray, "n k k t"]) -> Float[np.ndarray, "n t"]:
    return every[:, ~np.eye(every.shape[1], dtype=bool)].mean(axis=1)


def _effects(places: Places) -> Float[np.ndarray, "n p t d"]:
    """What each differs by from each other of the same state, every pair once."""
    first, second = np.triu_indices(places.shape[1], 1)
    return places[:, first] - places[:, second]


def _score(pairs: np.ndarray) -> float:
    """One less the ratio of sums of pairs (N, 2)."""
    return 1 - _share(pairs)


def _share(pairs: np.ndarray) -> float:
    part, whole = pairs.sum(axis=0)
    return float(part / whole) if whole > 0 else float("nan")


def _interval(rows: np.ndarray, statistic: Callable[[np.ndarray], float]) -> Interval | None:
    return bootstrap(rows, statistic=statistic) if len(rows) > 1 else None


def _closed(opened: Bool[np.ndarray, " n"], why: str) -> dict[str, int]:
    return {} if opened.all() else {why: int((~opened).sum())}


def _within(gate: float) -> str:
    return f"positions differ by {1000 * gate:.0f} mm or less"


def _need_several(paths: Paths, what: str, which: str) -> None:
    if paths.executed.shape[1] < 2:
        raise NotApplicable(f"{what} needs two {which} from one state; the paths hold one")


def _check_beside(paths: Paths, name: str, places: Places) -> None:
    """Any number of other executions from the same states, at the same offsets."""
    n, _, t, d = paths.executed.shape
    if places.ndim == 4 and not places.shape[1]:
        raise NotApplicable(f"there are no {name} executions")
    _check_shape(f"{paths.entity}: {name}", places, (n, *places.shape[1:2], t, d))


def _check_states(states: Sequence[str], n: int) -> None:
    if len(states) != n or len(set(states)) != n:
        raise ValueError(f"expected the different names of {n} states, got {list(states)}")


def _check_shape(what: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{what}: expected shape {shape}, got {array.shape}")
    if array.dtype != bool and not np.isfinite(array).all():
        raise ValueError(f"{what}: expected finite numbers, got NaN or infinity")
