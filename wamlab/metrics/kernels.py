"""How far apart two sets of features are by a kernel: the maximum mean discrepancy.

    MMD^2   mean k(x, x') + mean k(y, y') - 2 mean k(x, y), none with itself: unbiased
            (Gretton et al. 2012), with the polynomial kernels of `KERNELS`

Frames of one state are alike, and an imagined frame is like the one that was executed. Where states
are given, only pairs from different states count in all three means: what is left compares
independent draws of both distributions, and stays unbiased.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import stdtrit

from wamlab.config import nearest
from wamlab.metrics.features import Comparison, Features, check_alike, comparison
from wamlab.metrics.stats import LEVEL, Interval

Kernel = Callable[[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]], Float[np.ndarray, "n m"]]

KERNELS: dict[str, Kernel] = {
    "cubic": lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3,
    "quadratic": lambda x, y: (x @ y.T / x.shape[1]) ** 2,
}
"""``cubic`` is KID's (Binkowski et al., arXiv 1801.01401, section 4), ``quadratic`` that of JEDi's
published code (Luo et al., arXiv 2410.05203), which quotes 100 times the biased estimate."""


def mmd(
    first: Features, second: Features, kernel: str = "cubic", states: Sequence[Any] = ()
) -> float:
    """The unbiased squared maximum mean discrepancy; below 0 by chance where there is none.

    ``states`` label the rows, which then are pairs; pairs of one state are left out.

    Raises:
        KeyError: an unknown kernel, with the nearest one.
        ValueError: features that cannot be compared, a single sample or a single state.
    """
    check_alike(first, second)
    if kernel not in KERNELS:
        raise KeyError(f"no kernel {kernel!r}{nearest(kernel, KERNELS)}")
    if min(len(first), len(second)) < 2:
        raise ValueError(f"MMD of {len(first)} and {len(second)} samples: expected at least 2")
    k, x, y = KERNELS[kernel], first.values, second.values
    if not len(states):
        others = (~np.eye(len(one), dtype=bool) for one in (x, y))
        return _mean(k(x, x), next(others)) + _mean(k(y, y), next(others)) - 2 * _mean(k(x, y))
    apart = _in_different(states, len(x), len(y))
    return _mean(k(x, x), apart) + _mean(k(y, y), apart) - 2 * _mean(k(x, y), apart)


def kernel_distance(
    real: Features,
    shown: Features,
    *,
    kernel: str = "cubic",
    blocks: int = 10,
    states: Sequence[Any] = (),
    seed: int = 0,
) -> Comparison:
    """The squared MMD as the mean over blocks, ``MMD-<kernel>-<extractor>``.

    Both sets are shuffled and cut into ``blocks`` parts that share no sample (whole states, where
    ``states`` label the rows of both), so the spread of the parts gives a true standard error (in
    ``details``) and a Student interval. KID's code draws blocks of 1000 that overlap, and quotes
    their spread.

    Raises:
        KeyError: an unknown kernel, with the nearest one.
        ValueError: features that cannot be compared, or fewer than 2 blocks of 2 samples or states.
    """
    check_alike(real, shown)
    n = len(set(states)) if len(states) else min(len(real), len(shown))
    if not 4 <= 2 * blocks <= n:
        what = "states" if len(states) else "samples"
        raise ValueError(f"{blocks} blocks of {n} {what}: expected 2 or more, with 2 in each")
    rng = np.random.default_rng(seed)
    if len(states):
        values = np.array([*_by_states(real, shown, kernel, blocks, states, rng)])
    else:
        parts = (one.parts(blocks, len(one), rng) for one in (real, shown))
        values = np.array([mmd(a, b, kernel) for a, b in zip(*parts, strict=True)])
    value, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(blocks))
    half = float(stdtrit(blocks - 1, (1 + LEVEL) / 2)) * error
    found = {"interval": Interval(value - half, value + half), "value": value}
    warning = "cannot be told from 0 at this N" if abs(value) <= half else ""
    details = {"standard_error": error, "blocks": blocks}
    return comparison(f"MMD-{kernel}", real, shown, **found, details=details, warning=warning)


def _by_states(
    real: Features,
    shown: Features,
    kernel: str,
    blocks: int,
    states: Sequence[Any],
    rng: np.random.Generator,
) -> Iterator[float]:
    """The MMD of each block of whole states."""
    _in_different(states, len(real), len(shown))
    labels = np.unique(np.asarray(states), return_inverse=True)[1]
    for block in np.array_split(rng.permutation(labels.max() + 1), blocks):
        rows = np.isin(labels, block)
        a, b = (Features(one.extractor, one.values[rows], one.seen) for one in (real, shown))
        yield mmd(a, b, kernel, labels[rows].tolist())


def _in_different(states: Sequence[Any], *lengths: int) -> Bool[np.ndarray, "n n"]:
    """Which pairs of rows are of different states."""
    if {len(states)} != set(lengths):
        raise ValueError(f"{len(states)} states label {' and '.join(map(str, lengths))} samples")
    labels = np.unique(np.asarray(states), return_inverse=True)[1]
    if labels.max() == 0:
        raise ValueError("all samples are of one state: expected at least 2 states")
    return labels[:, None] != labels


def _mean(kernel: Float[np.ndarray, "n m"], apart: Bool[np.ndarray, "n m"] | None = None) -> float:
    return float(kernel.mean() if apart is None else kernel[apart].mean())
