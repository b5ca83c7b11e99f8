"""Likelihood of what was recorded, in nats: a bound from denoising errors, or exact for tokens.

The path of the library, ``x_sigma = (1 - sigma) x + sigma noise``, is a Gaussian channel with the
signal-to-noise ratio ``g = ((1 - sigma) / sigma)^2``. Take levels with ``g_0 < ... < g_L`` and any
prediction ``x^(x_sigma)`` of the clean values, of expected squared error ``e(g)`` in D dimensions:

    -log p(x)  <=  g_0 |x|^2 / 2                                      prior
                 + 1/2 integral_{g_0}^{g_L} e(g) dg                   denoising
                 + D/2 log(2 pi / g_L) + g_L/2 e(g_L)                 reconstruction

(Kingma et al., Variational Diffusion Models, arXiv 2107.00630: the loss as an integral over the
ratio.) The prior is ``KL(N((1 - sigma) x, sigma^2), N(0, sigma^2))`` at the noisiest level, exactly
0 at level 1; the reconstruction is ``-log N(x; x^, 1/g_L)`` at the cleanest. With the conditional
mean as prediction the integral is the information that the channel carries (I-MMSE: Guo, Shamai and
Verdu 2005), and the bound falls to the entropy as ``g_L`` grows.

What is a bound and what an estimate. A learned prediction has a larger error than the conditional
mean, so in expectation the number is never below the true cross-entropy: it bounds the likelihood
under the model whose sampler takes infinitely many steps (not under one that takes four). It is
estimated: ``e`` by the draws of noise at hand, the integral by the trapezoid rule in ``log g``, in
which a denoising error is smooth. ``rule="steps"`` takes each interval's error at its noisier end
instead: the bound of the sampler that visits just these levels, free of quadrature, and loose.

What is compared. Units are the model's normalised ones. No dimension can count for less than
``1/2 log(2 pi / g_L)``: values that are truly discrete (a gripper, a byte) gain without end as the
cleanest level falls. So numbers compare where the same levels were on offer; `tightest` says at
which of them the bound stops. A denoiser of the path ``x + sigma noise`` sees the same ratios, but
only those that it was trained at: the video networks of the cascades stop at ``sigma = 0.05`` where
the others go on to 0.01.

The chain rule ``L_JOINT = L_POLICY + L_FORWARD = L_VIDEO + L_INVERSE`` holds between the entropies.
What is left over between bounds says how far the five answers of one network are from being those
of one distribution. All three are cut at one level (`comparable`): at different ones they would
differ by what was cut. The cut itself leaves something over, below 0: FORWARD is told the clean
action, while in JOINT's last noise the future knows a noisy one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from wamlab.metrics.base import NotApplicable, Result, Row, metric, summarise
from wamlab.types import Denoised, Likelihood, Nats, Recording

CLEANEST = 0.01
NOISIEST = 0.98
CHAINS = {"by policy": ("POLICY", "FORWARD"), "by video": ("VIDEO", "INVERSE")}


def noise_levels(count: int = 16, cleanest: float = CLEANEST) -> Float[np.ndarray, " l"]:
    """Level 1, then ``count`` levels down to ``cleanest``, evenly spaced in log signal-to-noise.

    A cleanest level of 0.01 in [-1, 1] is about one grey level of a byte.

    Raises:
        ValueError: fewer than two levels, or a cleanest level outside (0, 0.98).
    """
    if count < 2 or not 0 < cleanest < NOISIEST:
        raise ValueError(
            f"expected 2 levels or more down to 0 < sigma < {NOISIEST}, got {count} "
            f"down to {cleanest}"
        )
    odds = np.geomspace((1 - NOISIEST) / NOISIEST, (1 - cleanest) / cleanest, count)
    return np.concatenate([[1.0], 1 / (1 + odds)])


def denoising_bound(
    found: Denoised, *, rule: Literal["trapezoid", "steps"] = "trapezoid"
) -> Float[np.ndarray, " b"]:
    """The bound of the module on ``-log p`` of each row, in nats.

    Raises:
        ValueError: fewer than two levels, or levels that do not fall within (0, 1].
    """
    levels, errors = np.asarray(found.levels, np.float64), np.asarray(found.errors, np.float64)
    if len(levels) < 2 or levels[0] > 1 or levels[-1] <= 0 or (np.diff(levels) >= 0).any():
        raise ValueError(f"expected levels that fall from at most 1 to above 0, got {levels}")
    ratio = ((1 - levels) / levels) ** 2
    noisier, cleaner = errors[:, :-1], errors[:, 1:]
    pieces = np.diff(ratio) * noisier
    if rule == "trapezoid":
        known = ratio[:-1] > 0  # level 1 has no logarithm: its interval keeps the noisier error
        spacing = np.log(ratio[1:][known] / ratio[:-1][known])
        ends = ratio[:-1] * noisier + ratio[1:] * cleaner
        pieces[:, known] = spacing * ends[:, known] / 2
    prior = ratio[0] * np.asarray(found.energy, np.float64) / 2
    reconstruction = np.asarray(found.dims) * np.log(2 * np.pi / ratio[-1]) / 2
    return prior + pieces.sum(axis=1) / 2 + reconstruction + ratio[-1] * errors[:, -1] / 2


def noisiest(found: Denoised, count: int) -> Denoised:
    """What was found at the noisiest ``count`` levels."""
    return Denoised(found.levels[:count], found.errors[:, :count], found.energy, found.dims)


def tightest(found: Denoised) -> Denoised:
    """``found`` without the cleanest levels, as far as that lowers the mean bound of its rows.

    The bound holds at whatever level one stops, so the lowest is a bound too (picked among few, on
    the rows at hand). A network's clean prediction has an error of its own, and at levels whose
    noise is fainter than that error it only adds nats.
    """
    cuts = [noisiest(found, count) for count in range(2, len(found.levels) + 1)]
    return min(cuts, key=lambda cut: float(denoising_bound(cut).mean()))


def nats(found: Likelihood) -> Float[np.ndarray, " b"]:
    """``-log p`` of each row in nats: exact, or the tightest bound."""
    if isinstance(found, Nats):
        return np.asarray(found.nats, np.float64)
    return denoising_bound(tightest(found))


def comparable(*found: Likelihood) -> list[Float[np.ndarray, " b"]]:
    """``-log p`` of each row in nats, each likelihood's, so that they can be subtracted.

    Exact, or bounds over the same levels: as many as the bound that stops first is tightest over.

    Raises:
        ValueError: one is exact and one a bound, or other levels.
    """
    bounds = [one for one in found if isinstance(one, Denoised)]
    if not bounds:
        return [nats(one) for one in found]
    if len(bounds) < len(found):
        raise ValueError("one likelihood is exact and another a bound: they do not compare")
    kept = stop(*bounds)
    return [denoising_bound(noisiest(one, kept)) for one in bounds]


def at_shared_levels(*found: Denoised) -> list[Denoised]:
    """What was found at the levels that all have: denoisers are not trained at the same.

    Raises:
        NotApplicable: they share fewer than two.
    """
    first = np.asarray(found[0].levels, np.float64)
    near = [np.isclose(first[:, None], one.levels, rtol=1e-6, atol=0) for one in found]
    shared = np.all([each.any(axis=1) for each in near], axis=0)
    if shared.sum() < 2:
        raise NotApplicable(f"denoisers that share {shared.sum()} noise levels do not compare")
    places = [each[shared].argmax(axis=1) for each in near]
    return [
        Denoised(first[shared], one.errors[:, kept], one.energy, one.dims)
        for one, kept in zip(found, places, strict=True)
    ]


def stop(*bounds: Denoised) -> int:
    """How many levels all bounds of a difference are taken over.

    Raises:
        ValueError: they were not measured at the same levels.
    """
    first = bounds[0].levels
    for other in (one.levels for one in bounds):
        if not np.array_equal(first, other):
            counts = [f"{len(one)} levels down to {one[-1]:g}" for one in (first, other)]
            raise ValueError(f"{counts[0]} of one likelihood, but {counts[1]} of another")
    return min(len(tightest(one).levels) for one in bounds)


@metric("nats_per_dim", needs="recordings", unit="nats")
def nats_per_dim(recordings: Sequence[Recording], *, query: str = "POLICY") -> Result:
    """``-log p`` of what was recorded per dimension, in the model's units; lower is better.

    ``details`` hold the number of dimensions, the mean total and the levels that were used (none:
    it is exact).
    """
    logged, found = gathered(recordings, query)
    if not (found.dims > 0).any():
        raise NotApplicable(f"nothing that {query} samples was recorded")
    total = nats(found)
    rows = [
        Row(f"episode {one.episode}", one.env, float(each / size))
        for one, each, size in zip(logged, total, found.dims, strict=True)
        if size
    ]
    levels = [] if isinstance(found, Nats) else tightest(found).levels.tolist()
    details = {"dims": int(found.dims.max()), "levels": levels, "total": float(total.mean())}
    return summarise("nats_per_dim", "nats", rows, details=details)


@metric("chain_gap", needs="recordings", unit="nats")
def chain_gap(recordings: Sequence[Recording], *, chain: str = "by policy") -> Result:
    """What the chain rule leaves over, per dimension of the joint: 0 for one distribution.

    ``by policy``: ``(L_POLICY + L_FORWARD - L_JOINT) / D``; ``by video`` with VIDEO and INVERSE.
    All three bounds stop at the same level.
    """
    wanted = ("JOINT", *CHAINS[chain])
    whole = [one for one in recordings if set(wanted) <= set(one.likelihood)]
    if not whole:
        raise NotApplicable(f"it takes the likelihoods of {', '.join(wanted)}")
    found = [gathered(whole, name)[1] for name in wanted]
    joint, first, second = comparable(*found)
    gaps = (first + second - joint) / found[0].dims
    pairs = zip(whole, gaps, strict=True)
    rows = [Row(f"episode {one.episode}", one.env, float(gap)) for one, gap in pairs]
    return summarise("chain_gap", "nats", rows)


def gathered(recordings: Sequence[Recording], query: str) -> tuple[list[Recording], Likelihood]:
    """The recordings whose likelihood was logged, and their rows as one."""
    logged = [one for one in recordings if query in one.likelihood]
    if not logged:
        raise NotApplicable(f"no likelihood of {query} was logged: the model has none")
    parts = [one.likelihood[query] for one in logged]
    first = parts[0]
    together = {name: [np.asarray(getattr(part, name)) for part in parts] for name in vars(first)}
    if isinstance(first, Nats):
        return logged, Nats(*(np.concatenate(rows) for rows in together.values()))
    levels = together.pop("levels")
    if any(not np.array_equal(levels[0], other) for other in levels):
        raise NotApplicable("the recordings were measured at different levels")
    return logged, Denoised(levels[0], *(np.concatenate(rows) for rows in together.values()))
