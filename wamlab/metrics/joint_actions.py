"""Inverse-cycle consistency of probes off which a judge has read the actions.

A judge is inverse dynamics trained on demonstrations alone (`wamlab.run.film.Judge`): it never saw
a frame that a model imagined. Where positions are known at every step, exact inverse dynamics take
its place: `wamlab.metrics.coupling.icc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from wamlab.metrics.base import (
    NotApplicable,
    Result,
    imagining,
    metric,
    state_name,
    why_nothing_imagined,
)
from wamlab.metrics.coupling import LAGS
from wamlab.metrics.over_states import FEWEST, interval_of, over_states, score, surely_above
from wamlab.metrics.paths import each_to_each, other_pairs, own_pairs
from wamlab.types import Branch, Probe

SPREAD = 0.1
"""Own chunks of a state that differ by less, in standard deviations, are one chunk."""

Chunks = Float[np.ndarray, "k j a"]


@metric("icc", needs="probes")
def icc(probes: Sequence[Probe], *, gate: float = SPREAD) -> Result:
    """Inverse-cycle consistency: does the imagined future hold the action it was drawn with?

    ``1 - mean_i |a~_i - a_i| / mean_{i != j} |a~_i - a_j|`` over samples from one state, ``a~``
    what the judge reads off the imagined frames; distances are means over the chunk, in standard
    deviations of the own actions. 1 is coupled and right, 0 no coupling, and that of a static
    future. ``details``: the ``ceiling`` is the same off what happened; without one above 0 there is
    no value. ``lag`` is by how many steps the imagination fits best if it comes late, beside that
    of the ceiling: a judge that looks at few frames cannot tell lags apart.
    """
    if not any(imagining(probe) for probe in probes):
        raise NotApplicable(why_nothing_imagined(probes))
    states = _judged(probes)
    opened = [one for one in states if _held(one.own, one.own)[1] > gate]
    why = f"own actions differ by {gate:g} or less"
    undefined = {why: len(states) - len(opened)} if len(opened) < len(states) else {}
    if not opened:
        return Result("icc", why_not=f"{why} ({len(states)})", undefined=undefined)

    def rows(read: str, lag: int = 0) -> Float[np.ndarray, "n 2"]:
        return np.array([_held(getattr(one, read), one.own, lag) for one in opened])

    def lag_of(read: str) -> int:
        return max(LAGS, key=lambda lag: score(rows(read, lag)))

    ceiling = rows("executed")
    if not surely_above(ceiling, score):
        why = (
            f"the judge cannot tell in {len(opened)} states (at least {FEWEST} are needed): off "
            f"what happened it scores {score(ceiling):.2f}"
        )
        return Result("icc", why_not=why, undefined=undefined)
    return over_states(
        "icc",
        [one.name for one in opened],
        rows("imagined"),
        score,
        undefined=undefined,
        details={
            "ceiling": score(ceiling),
            "ceiling_interval": interval_of(ceiling, score),
            "lag": lag_of("imagined"),
            "ceiling_lag": lag_of("executed"),
        },
    )


class _Judged(NamedTuple):
    """The own chunks of a state, and what the judge read off the frames, in the same units."""

    name: str
    own: Chunks
    imagined: Chunks
    executed: Chunks


def _judged(probes: Sequence[Probe]) -> list[_Judged]:
    """States with two samples or more; a dimension that never changes is left out.

    Raises:
        NotApplicable: there are none, or nothing ever changes.
    """
    found = [(one, _decoded(one)) for one in probes]
    found = [(one, branches) for one, branches in found if len(branches) > 1]
    if not found:
        count = sum(bool(one.judge) for one in probes)
        raise NotApplicable(
            f"a judge has read {count} of {len(probes)} probes; it takes two samples from a state"
        )
    scale = np.concatenate([b.action for _, branches in found for b in branches]).std(axis=0)
    changes = scale > 0
    if not changes.any():
        raise NotApplicable("the own actions are all the same")
    return [
        _Judged(
            state_name(one),
            *(
                np.stack(chunks)[..., changes] / scale[changes]
                for chunks in zip(*map(_chunks, branches), strict=True)
            ),
        )
        for one, branches in found
    ]


def _decoded(probe: Probe) -> list[Branch]:
    return [b for b in imagining(probe) if b.decoded is not None and b.redecoded is not None]


def _chunks(branch: Branch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The own action as far as the judge reads, what it read off the imagined, and the executed."""
    assert branch.decoded is not None
    assert branch.redecoded is not None
    return branch.action[: len(branch.decoded)], branch.decoded, branch.redecoded


def _held(read: Chunks, own: Chunks, lag: int = 0) -> tuple[float, float]:
    """Both sides of the ratio for one state."""
    late, early = max(lag, 0), max(-lag, 0)
    steps = own.shape[1]
    shown, held = read[None, :, late : steps - early], own[None, :, early : steps - late]
    every = each_to_each(shown, held).mean(axis=-1, keepdims=True)
    return float(own_pairs(every)[0, 0]), float(other_pairs(every)[0, 0])
