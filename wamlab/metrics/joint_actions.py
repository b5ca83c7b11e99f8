"""Does an imagined future hold the action that came with it? Somebody reads one off its frames.

For inverse-cycle consistency that is a judge, inverse dynamics trained on demonstrations alone
(`wamlab.run.film.Judge`), who never saw a frame that a model imagined; for action-state consistency
it is the model itself. Where positions are known at every step, exact inverse dynamics take the
place of both: `wamlab.metrics.coupling.icc`.

Actions are in shares of half their range, so that dimensions of different units count alike and
models are measured in one unit. ``space`` says what the range is; without it, it is taken to be
from -1 to 1, that of every environment here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from wamlab.metrics.base import (
    NotApplicable,
    Result,
    by_stratum,
    imagining,
    metric,
    state_name,
    why_nothing_imagined,
)
from wamlab.metrics.coupling import LAGS
from wamlab.metrics.over_states import over_states, score, surely_above
from wamlab.metrics.paths import each_to_each, other_pairs, own_pairs
from wamlab.metrics.stats import FEWEST, interval_over
from wamlab.types import ActionSpace, Branch, Probe

SPREAD = 0.05
"""Own chunks of a state that differ by less, in shares of half the action's range, are one."""

FITS = 1e-6
"""A score above 0 by more than rounding."""

Chunks = Float[np.ndarray, "k j a"]


class Reader(NamedTuple):
    """Who has read: its name, and the fields of a branch with what it read off which frames."""

    name: str
    imagined: str
    happened: str


JUDGE = Reader("a judge", "decoded", "redecoded")
ITSELF = Reader("the model itself", "extracted", "reextracted")


@metric("icc", needs="probes")
def icc(
    probes: Sequence[Probe], *, space: ActionSpace | None = None, gate: float = SPREAD
) -> Result:
    """Inverse-cycle consistency: does the imagined future hold the action it was drawn with?

    ``1 - mean_i |a~_i - a_i| / mean_{i != j} |a~_i - a_j|`` over samples from one state, ``a~``
    what the judge reads off the imagined frames; distances are means over the chunk. 1 is coupled
    and right, 0 no coupling, and that of a static future. A state counts where the own chunks are
    further apart than ``gate``. ``details``: the ``ceiling`` is the same off what happened; unless
    it is surely above 0 there is no value. ``normalised`` is the value as a share of the ceiling,
    none where the value is surely above it: an action that was itself read off the imagination
    agrees with a second reader better than what really happened does, and is not better for that.
    Ceilings are of the model's own actions, so that values of models do not compare, only shares.
    ``lag`` is by how many steps the imagination comes late: another than 0 only where it surely
    fits better there. None where it fits at no lag, or where the executions themselves come late
    to the judge (``ceiling_lag``), as nothing can then be said.
    """
    states, undefined = _spread(probes, JUDGE, space, gate)
    if states and not surely_above(ceiling := _ratios(states, "happened"), score):
        why = (
            f"the judge cannot tell in {len(states)} states (at least {FEWEST} are needed): off "
            f"what happened it scores {score(ceiling):.2f}"
        )
        return Result("icc", why_not=why, undefined=undefined)
    found = _consistency("icc", states, undefined)
    return by_stratum(found, probes, lambda some: icc(some, space=space, gate=gate))


@metric("action_state_consistency", needs="probes")
def action_state_consistency(
    probes: Sequence[Probe], *, space: ActionSpace | None = None, gate: float = SPREAD
) -> Result:
    """Does a model that reads its own imagination find the action that it drew with it?

    As `icc`, with the model's own INVERSE in the place of the judge (after Is the Future
    Compatible?, arXiv 2605.07514, whose exact formula was not to be had; as a ratio to the actions
    of other samples, a static future scores 0 and not 1). The ``ceiling``, off what happened, says
    whether the model can read a future at all; ``normalised`` is there where it surely can.
    Agreement with oneself is not truth: a model that errs twice in the same way scores 1, and so
    does one whose action *is* read off its imagination by a deterministic extractor.
    """
    found = _consistency("action_state_consistency", *_spread(probes, ITSELF, space, gate))
    return by_stratum(
        found, probes, lambda some: action_state_consistency(some, space=space, gate=gate)
    )


class _Read(NamedTuple):
    """The own chunks of a state, and those read off the frames, in the same units."""

    state: str
    own: Chunks
    imagined: Chunks
    happened: Chunks


def _consistency(name: str, states: Sequence[_Read], undefined: dict[str, int]) -> Result:
    if not states:
        why = "; ".join(f"{why} ({count})" for why, count in undefined.items())
        return Result(name, why_not=why, undefined=undefined)

    ceiling = _ratios(states, "happened")
    rows, top = _ratios(states, "imagined"), score(ceiling)
    beyond = surely_above(np.hstack([rows, ceiling]), _apart)
    late = _lag(states, "happened")
    return over_states(
        name,
        [one.state for one in states],
        rows,
        score,
        undefined=undefined,
        details={
            "ceiling": top,
            "normalised": score(rows) / top
            if surely_above(ceiling, score) and not beyond
            else None,
            "above_ceiling": beyond,
            "ceiling_interval": interval_over(ceiling, statistic=score),
            "lag": None if late else _lag(states, "imagined"),
            "ceiling_lag": late,
        },
    )


def _lag(states: Sequence[_Read], shown: str) -> int | None:
    """By how many steps what is read off comes late; None where it fits at no lag."""
    at = {lag: _ratios(states, shown, lag) for lag in LAGS}
    best = max(at, key=lambda lag: score(at[lag]))
    if score(at[best]) <= FITS:
        return None
    return best if surely_above(np.hstack([at[best], at[0]]), _apart) else 0


def _apart(rows: Float[np.ndarray, "n 4"]) -> float:
    """The score of the first two columns less that of the others."""
    return score(rows[:, :2]) - score(rows[:, 2:])


def _ratios(states: Sequence[_Read], shown: str, lag: int = 0) -> Float[np.ndarray, "n 2"]:
    """Both sides of the ratio, state by state."""
    return np.array([_held(getattr(one, shown), one.own, lag) for one in states])


def _spread(
    probes: Sequence[Probe], reader: Reader, space: ActionSpace | None, gate: float
) -> tuple[list[_Read], dict[str, int]]:
    """The states that were read, of which the own chunks differ by more than the gate.

    Raises:
        NotApplicable: none were read.
    """
    states = _read(probes, reader, space)
    opened = [one for one in states if _held(one.own, one.own)[1] > gate]
    closed = len(states) - len(opened)
    return opened, {f"own actions differ by {gate:g} or less": closed} if closed else {}


def _read(probes: Sequence[Probe], reader: Reader, space: ActionSpace | None) -> list[_Read]:
    """States with two samples or more, the actions in shares of half their range.

    Raises:
        NotApplicable: there are none.
    """
    if not any(imagining(probe) for probe in probes):
        raise NotApplicable(why_nothing_imagined(probes))
    each = [(one, [b for b in imagining(one) if _chunks(b, reader)]) for one in probes]
    found = [(one, branches) for one, branches in each if len(branches) > 1]
    if not found:
        count = sum(bool(branches) for _, branches in each)
        raise NotApplicable(
            f"{reader.name} has read {count} of {len(probes)} probes; it takes two samples from a "
            "state"
        )
    half = 1.0 if space is None else (np.array(space.high) - np.array(space.low)) / 2
    return [
        _Read(
            state_name(one),
            *(
                np.stack(chunks) / half
                for chunks in zip(*(_chunks(b, reader) for b in branches), strict=True)
            ),
        )
        for one, branches in found
    ]


def _chunks(branch: Branch, reader: Reader) -> tuple[np.ndarray, ...]:
    """The own action as far as was read, and what was read off the frames; empty if nothing was."""
    imagined, happened = (getattr(branch, name) for name in (reader.imagined, reader.happened))
    if imagined is None or happened is None:
        return ()
    return branch.action[: len(imagined)], imagined, happened


def _held(read: Chunks, own: Chunks, lag: int = 0) -> tuple[float, float]:
    """Both sides of the ratio for one state."""
    late, early = max(lag, 0), max(-lag, 0)
    steps = own.shape[1]
    shown, held = read[None, :, late : steps - early], own[None, :, early : steps - late]
    every = each_to_each(shown, held).mean(axis=-1, keepdims=True)
    return float(own_pairs(every)[0, 0]), float(other_pairs(every)[0, 0])
