"""Which physics was imagined, with what outcome, and is the imagination used at all?

    DWA      min_w L_w / L                             L_w: mean distance of x^ to world w
    OCB      P(success imagined) - P(success)
    IUS      sum <made, demanded> / sum |demanded|^2   changes of the action

DWA is above 1 where the true world is nearest, OCB is 0 without bias, IUS is 0 where the
imagination is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from wamlab.config import nearest
from wamlab.metrics.base import NotApplicable, Result, summarise
from wamlab.metrics.coupling import eic
from wamlab.metrics.joint import gate_metres
from wamlab.metrics.over_states import closed, interval_of, over_states, share
from wamlab.metrics.paths import Paths, Places, Steps, apart, check_shape, check_states

LEAST_EIC = 0.2


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
        return Result("state_dwa", why_not=why, undefined=closed(opened, why), details=details)
    true = {paths.entity: paths.executed for paths in entities}
    away = {
        world: np.mean([_away(paths, where[paths.entity], at) for paths in entities], axis=0)
        for world, where in {"true": true, **worlds}.items()
        if world == "true" or leads[world].any()
    }
    rows = np.stack(list(away.values()), axis=1)[opened]
    distance = dict(zip(away, rows.mean(axis=0).tolist(), strict=True))
    details |= {"world": min(distance, key=lambda world: distance[world]), "distance": distance}
    undefined = closed(opened, why)
    if not distance["true"] > 0:
        why = "the imagination is exact: the margin has no end"
        return Result("state_dwa", why_not=why, undefined=undefined, details=details)
    states = list(compress(entities[0].states, opened))
    return over_states("state_dwa", states, rows, _margin, undefined=undefined, details=details)


def ocb(
    imagined: Bool[np.ndarray, "n k"], executed: Bool[np.ndarray, "n k"], states: Sequence[str]
) -> Result:
    """Outcome bias: how much more often success is imagined than met, by the same criterion.

    ``details``: Matthews' correlation (``mcc``) and ``markedness``, the success rate where success
    was imagined less that where failure was; None where one outcome is missing.
    """
    if not executed.size:
        raise NotApplicable("OCB needs outcomes; there are none")
    check_shape("imagined outcomes", imagined, executed.shape)
    check_states(states, len(executed))
    rows = np.stack([imagined & executed, imagined, executed], axis=-1).mean(axis=1)
    both, dreamt, met = (float(rate) for rate in rows.mean(axis=0))
    mcc = _matthews(rows)
    known = np.isfinite(mcc)
    marked = (both - dreamt * met) / (dreamt * (1 - dreamt)) if 0 < dreamt < 1 else None
    return over_states(
        "state_ocb",
        states,
        rows,
        lambda rows: float((rows[:, 1] - rows[:, 2]).mean()),
        unit="rate",
        details={
            "imagined": dreamt,
            "executed": met,
            "mcc": mcc if known else None,
            "mcc_interval": interval_of(rows, _matthews) if known else None,
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
        check_shape(f"{name} actions", actions, own.shape)
    check_states(states, len(own))
    made, axes = replaced - own, (1, 2, 3)
    rows = np.stack([(made * demanded).sum(axes), (demanded**2).sum(axes)], axis=-1)
    opened = np.sqrt((demanded**2).mean(axes)) > gate
    why = f"a change of {gate} or less is demanded"
    if not opened.any():
        return summarise("state_ius", "", [], [why] * len(opened))
    missed = ((made - demanded) ** 2).sum(axes)[opened].sum() / rows[opened, 1].sum()
    return over_states(
        "state_ius",
        list(compress(states, opened)),
        rows[opened],
        share,
        undefined=closed(opened, why),
        details={"agreement": 1 - float(missed)},
    )


def _leads_elsewhere(
    world: str, entities: Sequence[Paths], where: Mapping[str, Places], at: Sequence[int] | None
) -> Bool[np.ndarray, " n"]:
    """In which states a world leads some entity further than its gate from where it truly went."""
    found = []
    for paths in entities:
        if paths.entity not in where:
            raise KeyError(f"world {world!r} has no {paths.entity!r}{nearest(paths.entity, where)}")
        places = where[paths.entity]
        check_shape(f"world {world!r}: {paths.entity}", places, paths.executed.shape)
        away = apart(paths.executed, places)[..., paths.columns(at)].mean(axis=(1, 2))
        found.append(away > gate_metres(paths.entity))
    return np.logical_or.reduce(found)


def _away(paths: Paths, places: Places, at: Sequence[int] | None) -> Float[np.ndarray, " n"]:
    return apart(paths.imagined, places)[..., paths.columns(at)].mean(axis=(1, 2))


def _margin(rows: np.ndarray) -> float:
    """The nearest other world's distance over the true one's, from rows (N, 1 + W)."""
    own, *others = rows.sum(axis=0)
    return float(min(others) / own) if own > 0 else float("nan")


def _matthews(rows: np.ndarray) -> float:
    """Matthews' correlation from rates (N, 3) of both successes, the imagined and the executed."""
    both, dreamt, met = rows.mean(axis=0)
    spread = dreamt * (1 - dreamt) * met * (1 - met)
    return float((both - dreamt * met) / np.sqrt(spread)) if spread > 0 else float("nan")
