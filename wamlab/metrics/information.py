"""Coupling in nats: how much a model's future and action know of each other, from its own losses.

What a future ``o'`` tells of an action ``a`` is how much less surprising the action is once the
future is given, and the other way round the same:

    I(a; o' | o, l) = H(a | o, l) - H(a | o', o, l) = H(o' | o, l) - H(o' | a, o, l)

Each entropy is the integral of the error of the best denoiser over the signal-to-noise ratio ``g``
(I-MMSE: Guo, Shamai and Verdu 2005), so their difference is that of two errors on the same noise:

    I(a; o' | o, l) = 1/2 integral [ mmse(a_g | o, l) - mmse(a_g | o', o, l) ] dg

and with the future in the place of the action on the other side (Franzese et al., MINDE, arXiv
2310.09031, estimate mutual information so from scores). A model with independent noise levels has
all four denoisers: POLICY less INVERSE is the side of the action, VIDEO less FORWARD that of the
future. It takes recordings and no simulator. Tokens give both differences exactly. A cascade has
half of a side (VIDEO; `vpp` also POLICY): another network has to give the other half (`completed`).

Levels must be the same in both errors of a difference, also where they end: cut at different levels
they differ by what was cut and not by what is known. From the cleanest level ``g_L`` on the
difference of a Gaussian's errors falls as ``1/g^2``, so ``g_L/2`` times its last value stands for
the rest; that is the reconstruction term of `wamlab.metrics.likelihood`.

What it is not. With learned denoisers it is an estimate and no bound: each error is too large, and
the difference of two such may lie on either side. A model whose denoiser profits little from what
it is given seems less coupled than the world is; one that is wrong about what it is given is below
0. It says what the *denoisers* know, of recorded pairs; whether the *samples* belong together, only
executed pairs say (`wamlab.metrics.joint`). Both sides are the same number for one distribution:
their difference is the factorisation gap ``(L_POLICY + L_FORWARD) - (L_VIDEO + L_INVERSE)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from wamlab.metrics.base import NotApplicable, Result, Row, metric, summarise
from wamlab.metrics.compare import at_shared_instants
from wamlab.metrics.likelihood import at_shared_levels, comparable, gathered, stop
from wamlab.types import Denoised, Likelihood, Recording


class Side(NamedTuple):
    """A stream's queries: with the other stream marginalised, and with it given."""

    alone: str
    given: str


SIDES = {"action": Side("POLICY", "INVERSE"), "future": Side("VIDEO", "FORWARD")}


def information(alone: Likelihood, given: Likelihood) -> Float[np.ndarray, " b"]:
    """What each row's other stream tells of the sampled one, in nats.

    Both bounds stop at the same level: the noisier of the two at which they are tightest.

    Raises:
        ValueError: one is exact and one a bound, other levels, or other dimensions.
    """
    if not np.array_equal(alone.dims, given.dims):
        raise ValueError(f"dimensions {alone.dims} alone, but {given.dims} given the other stream")
    without, knowing = comparable(alone, given)
    return without - knowing


@metric("coupling_nats", needs="recordings", unit="nats")
def coupling_nats(recordings: Sequence[Recording], *, side: str = "action") -> Result:
    """``I(a; o' | o, l)`` of what was recorded, seen from the ``action`` or from the ``future``.

    An estimate, not a bound. ``details``: dimensions of the side, and the levels that were used
    (none: it is exact).

    Raises:
        KeyError: another side.
    """
    queries = SIDES[side]
    whole = _measured(recordings, queries)
    alone, given = (gathered(whole, query)[1] for query in queries)
    details = {"dims": int(alone.dims.max()), "levels": []}
    if isinstance(alone, Denoised) and isinstance(given, Denoised):
        details["levels"] = alone.levels[: stop(alone, given)].tolist()
    rows = _rows(whole, information(alone, given))
    return summarise("coupling_nats", "nats", rows, details=details)


@metric("factorisation_gap", needs="recordings", unit="nats")
def factorisation_gap(recordings: Sequence[Recording]) -> Result:
    """The side of the action less that of the future: 0 where both are of one distribution."""
    whole = _measured(recordings, [query for side in SIDES.values() for query in side])
    action, future = (
        information(*(gathered(whole, query)[1] for query in side)) for side in SIDES.values()
    )
    return summarise("factorisation_gap", "nats", _rows(whole, action - future))


def completed(ones: Sequence[Recording], others: Sequence[Recording], side: str) -> list[Recording]:
    """The instants of both networks with the likelihoods of one side, at the levels both have.

    With the other stream marginalised the likelihood is that of ``ones``, with it given that of
    ``others``. What each network errs more than the best one does not cancel in the difference of
    two: it is an estimate of what the recordings hold, and says of neither what it knows. Both
    should see the same of the observation, which is not checked.

    Raises:
        KeyError: another side.
        NotApplicable: no instant has both, one of them is not a denoiser's, or they are not of the
            same numbers: other offsets or views, actions in another scale, futures in codes.
    """
    alone, given = SIDES[side]
    first, second = at_shared_instants(
        [one for one in ones if alone in one.likelihood],
        [other for other in others if given in other.likelihood],
    )
    if not first:
        raise NotApplicable(
            f"no instant has {alone} of the one network and {given} of the other: both must be "
            "asked for likelihoods, and at the same instants of the same dataset"
        )
    found = []
    for one, other in zip(first, second, strict=True):
        _check_asked_alike(one, other, side)
        pair = _of_both(one.likelihood[alone], other.likelihood[given])
        if side == "future" and int(pair[0].dims[0]) != sum(a.size for a in one.ahead.values()):
            raise NotApplicable("futures in codes: nothing shows that two networks code alike")
        found.append(replace(one, likelihood=dict(zip((alone, given), pair, strict=True))))
    return found


def coupling_of_two(ones: Sequence[Recording], others: Sequence[Recording], side: str) -> Result:
    """`coupling_nats` by a side of which each of two networks has one half (`completed`)."""
    try:
        return coupling_nats(completed(ones, others, side), side=side)
    except NotApplicable as why:
        return Result("coupling_nats", "nats", why_not=str(why))


def _check_asked_alike(one: Recording, other: Recording, side: str) -> None:
    """Raise NotApplicable where two networks were not asked about the same numbers."""
    held = [
        ("their futures are at the offsets", one.offsets.tolist(), other.offsets.tolist()),
        ("their futures are of the views", sorted(one.ahead), sorted(other.ahead)),
    ]
    if side == "action":
        held.append(("they scale actions by", *(x.action_scale.tolist() for x in (one, other))))
    for what, first, second in held:
        if first != second:
            raise NotApplicable(f"two networks do not compare: {what} {first} and {second}")


def _of_both(alone: Likelihood, given: Likelihood) -> list[Denoised]:
    """Both at the levels that both have.

    A network may denoise the change about the frame now in the place of the frame: that is the same
    number, seen from elsewhere, and what is left at the noisiest level is bounded by the smaller.
    """
    if not (isinstance(alone, Denoised) and isinstance(given, Denoised)):
        raise NotApplicable("of two networks' tokens nothing shows that they are the same tokens")
    if not np.array_equal(alone.dims, given.dims):
        raise NotApplicable(
            f"one network samples {int(alone.dims[0])} numbers, the other {int(given.dims[0])}"
        )
    energy = np.minimum(alone.energy, given.energy)
    return [
        Denoised(one.levels, one.errors, energy, one.dims) for one in at_shared_levels(alone, given)
    ]


def _measured(recordings: Sequence[Recording], queries: Sequence[str]) -> list[Recording]:
    """The recordings with the likelihoods of all these queries."""
    whole = [one for one in recordings if set(queries) <= set(one.likelihood)]
    if not whole:
        raise NotApplicable(f"it takes the likelihoods of {', '.join(queries)}")
    return whole


def _rows(recordings: Sequence[Recording], values: Float[np.ndarray, " b"]) -> list[Row]:
    pairs = zip(recordings, values, strict=True)
    return [Row(f"episode {one.episode}", one.env, float(value)) for one, value in pairs]
