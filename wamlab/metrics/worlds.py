"""Which physics was imagined, and with what outcome?

    DWA      min_w L_w / L                             L_w: mean distance of x^ to world w
    OCB      P(success imagined) - P(success)

DWA is above 1 where the true world is nearest, OCB is 0 without bias.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress, pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from wamlab.metrics.base import NotApplicable, Result, wrong_world
from wamlab.metrics.coupling import eic
from wamlab.metrics.joint import gate_metres
from wamlab.metrics.over_states import cannot_tell, closed, over_states, surely_above
from wamlab.metrics.paths import Paths, Places, apart, check_shape, check_states
from wamlab.metrics.stats import Interval, alike, interval_over

LEAST_EIC = 0.2
TRUE = "true"


def dwa(
    paths: Paths, *, at: Sequence[int] | None = None, least_eic: float | None = LEAST_EIC
) -> Result:
    """Dynamics-world attribution: how much nearer the true world is than the nearest other.

    The value is the margin of the true world over the nearest other, above 1 where the imagination
    follows the true one; ``details["world"]`` names the nearest, ``details["distance"]`` holds the
    distance of each in metres, over all offsets unless ``at`` says which. A state counts where some
    world leads the entity further than its gate from where it truly went, a world where it does so
    in some state. ``static`` and ``oracle`` are the margins of a still future and of the executions
    as they were read (None: exact, without an end), ``retrieval`` and ``shuffled_action`` those of
    these controls where the probes hold them; unless that of the oracle is surely above 1 there is
    no value.

    Worlds that are called by a parameter and its factor ("gain 0.7"; it is 1 in the true world)
    make a family, in which ``fitted_<parameter>`` is where the imagination lies nearest, with its
    interval: see `fitted`.

    Args:
        least_eic: without a higher EIC there is nothing to attribute; None lifts this.
    """
    if not paths.elsewhere:
        raise NotApplicable("DWA needs executions of the same actions in other worlds")
    details: dict[str, Any] = {}
    if least_eic is not None:
        coupled = eic(paths, at=at)
        details["eic"] = coupled.value
        if coupled.value is None or not coupled.value > least_eic:
            return _uncoupled(coupled, least_eic, details)
    columns = paths.columns(paths.offsets.tolist() if at is None else at)
    gate, why = gate_metres(paths.entity), "no world leads the entity elsewhere"
    leads = {world: paths.away(one, columns) > gate for world, one in paths.elsewhere.items()}
    opened = np.logical_or.reduce(list(leads.values()))
    undefined = closed(opened, why)
    if not opened.any():
        return Result("state_dwa", why_not=why, undefined=undefined, details=details)
    cut = lambda places: places[opened][:, :, columns]  # noqa: E731
    others = {world: one for world, one in paths.elsewhere.items() if leads[world].any()}
    worlds = {world: cut(one) for world, one in {TRUE: paths.executed, **others}.items()}
    shown = {"model": paths.imagined, **paths.controls()}
    rows, static, oracle = (_distances(cut(one), worlds) for one in shown.values())
    exact = not oracle[:, 0].any()
    if not exact and not surely_above(oracle, lambda rows: margin(rows) - 1):
        scored = f"have a margin of {margin(oracle):.2f}, which is not surely above 1"
        why = cannot_tell(len(oracle), scored)
        return Result("state_dwa", why_not=why, undefined=undefined, details=details)
    distance = dict(zip(worlds, rows.mean(axis=0).tolist(), strict=True))
    details |= {
        "world": min(distance, key=lambda world: distance[world]),
        "distance": distance,
        "static": margin(static),
        "oracle": None if exact else margin(oracle),
        **{
            name: margin(_distances(cut(one), worlds))
            for name, one in paths.further_controls().items()
        },
        **fitted(cut(paths.imagined), cut(shown["oracle"]), worlds, [*paths.elsewhere]),
    }
    if not distance[TRUE] > 0:
        why = "the imagination is exact: the margin has no end"
        return Result("state_dwa", why_not=why, undefined=undefined, details=details)
    states = list(compress(paths.states, opened))
    return over_states("state_dwa", states, rows, margin, undefined=undefined, details=details)


def dwa_imposed(paths: Paths, *, at: Sequence[int] | None = None) -> Result:
    """In which world imposed actions are imagined to act: `dwa` of what a model did not plan.

    It is for models that only foresee as well. EIC is here between the imposed sequences.
    """
    return replace(dwa(paths, at=at), metric="state_dwa_imposed")


def fitted(
    imagined: Places, reread: Places, worlds: Mapping[str, Places], known: Sequence[str] = ()
) -> dict[str, Any]:
    """The value of each parameter at which the imagination is nearest, with its interval.

    Between two neighbouring worlds of a family every place is taken to lie on the line between its
    places in the two, so that the mean squared distance is a parabola there; the least of all is
    exact where places are linear in the parameter, as a robot's are in its gain. Nothing is said of
    values outside the grid: an estimate at its end, or with an interval to it, may lie beyond, and
    ``fitted_<parameter>_is`` says so. The interval is a bootstrap over states.

    Args:
        imagined: places (N, K, T, D).
        reread: the executions as they were read; ``oracle_<parameter>``, where they lie nearest, is
            1 but for the reader's error.
        worlds: by name where the same actions lead, the true world under `TRUE`.
        known: the names of all worlds, those too that are left out because they lead nowhere else;
            ``unfitted`` says of their parameters that they have no estimate.
    """
    families: dict[str, dict[float, Places]] = defaultdict(lambda: {1.0: worlds[TRUE]})
    for world, places in worlds.items():
        if parsed := factor(world):
            families[parsed[0]][parsed[1]] = places
    details: dict[str, Any] = {}
    if missing := {parsed[0] for world in known if (parsed := factor(world))} - set(families):
        details["unfitted"] = dict.fromkeys(sorted(missing), "no value of it leads elsewhere")
    for parameter, family in families.items():
        grid = sorted(family)
        nearest = lambda rows, grid=grid: _nearest(rows, grid)  # noqa: E731
        rows, read = (
            _projections(one, [family[value] for value in grid]) for one in (imagined, reread)
        )
        name, value = f"fitted_{parameter}", nearest(rows)
        interval = interval_over(rows, statistic=nearest)
        details |= {name: value, f"{name}_interval": interval, f"oracle_{parameter}": nearest(read)}
        details.setdefault("grids", {})[parameter] = grid
        if {grid[0], grid[-1]} & {value, *(interval or ())}:
            details[f"{name}_is"] = "at an end of the grid"
    return details


def factor(world: str) -> tuple[str, float] | None:
    """The parameter and its factor that a world is called by, None of one that is not."""
    parameter, _, value = world.rpartition(" ")
    try:
        return (parameter, float(value)) if parameter else None
    except ValueError:
        return None


def ocb(
    imagined: Bool[np.ndarray, "n k"],
    executed: Bool[np.ndarray, "n k"],
    states: Sequence[str],
    *,
    reread: Bool[np.ndarray, "n k"] | None = None,
    controls: Mapping[str, Bool[np.ndarray, "n k"]] | None = None,
    elsewhere: Mapping[str, Bool[np.ndarray, "n k"]] | None = None,
    others: Bool[np.ndarray, "n m"] | None = None,
) -> Result:
    """Outcome bias: how much more often success is imagined than met, by the same criterion.

    ``details``: Matthews' correlation (``mcc``) and ``markedness``, the success rate where success
    was imagined less that where failure was; None where one outcome is missing. ``oracle`` is the
    bias of the reader alone, on the real frames of the same executions, with its interval and
    ``oracle_mcc``; every control has its bias under its own name.

    Args:
        reread: the outcomes that the reader of imagined frames sees in the real ones.
        controls: outcomes in the place of the imagined ones, by name.
        elsewhere: outcomes of the same actions in other worlds. Of those in which some outcome is
            another, the least bias is ``wrong_world``, and ``wrong_world_is`` names it.
        others: the outcomes of other executions from these states. Both outcomes have to be among
            the executions, or a criterion that never speaks would be without bias; interventions
            are there to fail, and the own actions may show success in their place.
    """
    if not executed.size:
        raise NotApplicable("OCB needs outcomes; there are none")
    check_shape("imagined outcomes", imagined, executed.shape)
    check_states(states, len(executed))
    met = executed if others is None else np.concatenate([executed, others], axis=1)
    if met.all() or not met.any():
        raise NotApplicable(
            f"OCB needs both outcomes among the executions: {int(met.sum())} of {met.size} succeed"
        )
    rows = _outcomes(imagined, executed)
    both, dreamt, succeeded = (float(rate) for rate in rows.mean(axis=0))
    marked = (both - dreamt * succeeded) / (dreamt * (1 - dreamt)) if 0 < dreamt < 1 else None
    details: dict[str, Any] = {
        "imagined": dreamt,
        "executed": succeeded,
        **_correlation("mcc", rows),
        "markedness": marked,
    }
    details |= _biases(executed, controls or {}, elsewhere or {})
    if reread is not None:
        check_shape("outcomes as read", reread, executed.shape)
        read = _outcomes(reread, executed)
        details |= {
            "oracle": _bias(read),
            "oracle_interval": _bias_interval(read),
            **_correlation("oracle_mcc", read),
        }
    found = over_states("state_ocb", states, rows, _bias, unit="rate", details=details)
    return replace(found, interval=_bias_interval(rows))


def _biases(
    executed: Bool[np.ndarray, "n k"],
    controls: Mapping[str, Bool[np.ndarray, "n k"]],
    elsewhere: Mapping[str, Bool[np.ndarray, "n k"]],
) -> dict[str, Any]:
    """The bias of every control, were it shown in the place of the imagination."""
    for name, shown in {**controls, **elsewhere}.items():
        check_shape(f"outcomes of {name}", shown, executed.shape)
    bias = {name: _bias(_outcomes(shown, executed)) for name, shown in controls.items()}
    worlds = {
        world: _bias(_outcomes(outcomes, executed))
        for world, outcomes in elsewhere.items()
        if (outcomes != executed).any()
    }
    return {**bias, **wrong_world(worlds, lambda one: -abs(one))}


def _uncoupled(coupled: Result, least_eic: float, details: dict[str, Any]) -> Result:
    said = coupled.why_not or f"EIC is {coupled.value:.2f}"
    why = f"EIC is not above {least_eic}, there is nothing to attribute: {said}"
    undefined = {f"EIC is not above {least_eic}": coupled.n + sum(coupled.undefined.values())}
    return Result("state_dwa", why_not=why, undefined=undefined, details=details)


def _distances(shown: Places, worlds: Mapping[str, Places]) -> Float[np.ndarray, "n w"]:
    """The mean distance to each world by state, in metres."""
    return np.stack([apart(shown, one).mean(axis=(1, 2)) for one in worlds.values()], axis=1)


def margin(rows: Float[np.ndarray, "n w"]) -> float:
    """The nearest other world's distance over the true one's, from rows with the true one first."""
    own, *others = rows.sum(axis=0)
    return float(min(others) / own) if own > 0 else float("nan")


def _projections(imagined: Places, grid: Sequence[Places]) -> Float[np.ndarray, "n s 3"]:
    """By state and segment of the grid the parabola a - 2 b t + c t^2 of the squared distance."""
    return np.stack(
        [
            np.stack(
                [
                    (one * other).sum(axis=-1).mean(axis=(1, 2))
                    for one, other in (
                        (imagined - low, imagined - low),
                        (imagined - low, high - low),
                        (high - low, high - low),
                    )
                ],
                axis=-1,
            )
            for low, high in pairwise(grid)
        ],
        axis=1,
    )


def _nearest(rows: Float[np.ndarray, "n s 3"], grid: Sequence[float]) -> float:
    """Where on the grid the sum of the parabolas of all states is least."""
    a, b, c = np.moveaxis(rows.sum(axis=0), -1, 0)
    t = np.clip(np.divide(b, c, out=np.zeros_like(b), where=c > 0), 0, 1)
    best = int((a - 2 * b * t + c * t**2).argmin())
    return float(grid[best] + t[best] * (grid[best + 1] - grid[best]))


def _outcomes(
    imagined: Bool[np.ndarray, "n k"], executed: Bool[np.ndarray, "n k"]
) -> Float[np.ndarray, "n 3"]:
    """By state the rates of both successes, of the imagined and of the executed one."""
    return np.stack([imagined & executed, imagined, executed], axis=-1).mean(axis=1)


def _bias(rows: Float[np.ndarray, "n 3"]) -> float:
    return float((rows[:, 1] - rows[:, 2]).mean())


def _bias_interval(rows: Float[np.ndarray, "n 3"]) -> Interval | None:
    """Over states; where all states say the same, nothing is left to resample (see `alike`)."""
    biases = rows[:, 1] - rows[:, 2]
    if len(rows) > 1 and (biases == biases[0]).all() and biases[0] in (-1, 0, 1):
        return alike(float(biases[0]), len(rows))
    return interval_over(rows, statistic=_bias)


def _correlation(name: str, rows: Float[np.ndarray, "n 3"]) -> dict[str, Any]:
    """Matthews' correlation with its interval; None where one outcome is missing."""
    value = _matthews(rows)
    if not np.isfinite(value):
        return {name: None, f"{name}_interval": None}
    return {name: value, f"{name}_interval": interval_over(rows, statistic=_matthews)}


def _matthews(rows: np.ndarray) -> float:
    """Matthews' correlation from rates (N, 3) of both successes, the imagined and the executed."""
    both, dreamt, met = rows.mean(axis=0)
    spread = dreamt * (1 - dreamt) * met * (1 - met)
    return float((both - dreamt * met) / np.sqrt(spread)) if spread > 0 else float("nan")
