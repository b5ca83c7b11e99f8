"""How far apart two sets of frames are to a frozen network: Frechet, kernel and cosine measures.

The maths works on `Features`, an array (N, D) with the name of the extractor that made it, and a
result is called after that name: ``FD-MobileNetV2``. FID, FVD, KID and JEDi are these formulas on
one published network each; their names are never given to another.

    FD      |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), covariances with N - 1
            (Dowson and Landau 1982; Heusel et al., arXiv 1706.08500)
    FD_inf  FD on a line in 1/N through subsamples, at 0 (Chong and Forsyth, arXiv 1911.07023)
    MMD^2   mean k(x, x') + mean k(y, y') - 2 mean k(x, y), none with itself: unbiased
            (Gretton et al. 2012), with the polynomial kernels of `KERNELS`

How many samples. FD is never below 0, so noise only adds: two samples of one distribution have an
FD of about `noise_floor`, which falls as 1/N and grows as D^2. Where N <= D the covariances are
singular as well. The authors of FID ask for more than D samples and at least 10,000 for D = 2048
(notes of their code, TTUR): `ENOUGH` a dimension, below which a result warns. MMD has no such bias;
what it lacks at small N is precision, which its interval shows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from einops import rearrange
from jaxtyping import Float, Shaped
from scipy.special import stdtrit

from wamlab.config import nearest
from wamlab.metrics.base import Result
from wamlab.metrics.stats import LEVEL, Interval, bootstrap

ENOUGH = 5
"""Samples a dimension from which a Frechet distance does not warn."""

Kernel = Callable[[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]], Float[np.ndarray, "n m"]]

KERNELS: dict[str, Kernel] = {
    "cubic": lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3,
    "quadratic": lambda x, y: (x @ y.T / x.shape[1]) ** 2,
}
"""``cubic`` is KID's (Binkowski et al., arXiv 1801.01401, section 4), ``quadratic`` that of JEDi's
published code (Luo et al., arXiv 2410.05203), which quotes 100 times the biased estimate."""


class Extractor(Protocol):
    """A frozen network: uint8 RGB frames to features. Results are called after its name."""

    @property
    def name(self) -> str: ...

    def __call__(self, frames: Shaped[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]: ...


@dataclass(frozen=True)
class Features:
    """What the extractor of this name made of N frames; kept as float64.

    Raises:
        ValueError: no rows, another number of dimensions, NaN or infinity.
    """

    extractor: str
    values: Float[np.ndarray, "n d"]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or 0 in self.values.shape:
            shape = f"expected (N, D), got {self.values.shape}"
            raise ValueError(f"features of {self.extractor!r}: {shape}")
        if not np.isfinite(self.values).all():
            raise ValueError(f"features of {self.extractor!r} hold NaN or infinity")
        object.__setattr__(self, "values", self.values.astype(np.float64))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def size(self) -> int:
        """D."""
        return self.values.shape[1]

    def parts(self, count: int, rows: int, rng: np.random.Generator) -> list[Features]:
        """``rows`` rows drawn without repetition, in ``count`` parts as equal as can be."""
        drawn = rng.permutation(self.values)[:rows]
        return [Features(self.extractor, part) for part in np.array_split(drawn, count)]


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of features; the sum of two is that of both sets together.

    ``scatter`` sums the outer products of deviations from the mean, so that nothing cancels where
    the mean is large (Chan, Golub and LeVeque 1983).
    """

    extractor: str
    count: int
    mean: Float[np.ndarray, " d"]
    scatter: Float[np.ndarray, "d d"]

    @classmethod
    def of(cls, features: Features) -> Moments:
        mean = features.values.mean(axis=0)
        apart = features.values - mean
        return cls(features.extractor, len(features), mean, apart.T @ apart)

    def __add__(self, other: Moments) -> Moments:
        _check_alike(self, other)
        count = self.count + other.count
        apart = other.mean - self.mean
        between = np.outer(apart, apart) * (self.count * other.count / count)
        mean = self.mean + apart * (other.count / count)
        return Moments(self.extractor, count, mean, self.scatter + other.scatter + between)

    def __len__(self) -> int:
        return self.count

    @property
    def size(self) -> int:
        """D."""
        return len(self.mean)

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """With N - 1; ValueError for a single sample."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        return self.scatter / (self.count - 1)


@dataclass(frozen=True, kw_only=True)
class Comparison(Result):
    """A result about two sets of features: never without both N, and D.

    ``warning`` says in words where the samples are too few.
    """

    counts: tuple[int, int]
    size: int
    warning: str = ""

    def __str__(self) -> str:
        sizes = f"N = {self.counts[0]} and {self.counts[1]}, D = {self.size}"
        said = f"; {self.warning}" if self.warning else ""
        return f"{self.metric} = {self.value:.4g} ({sizes}){said}"


def extract(extractor: Extractor, frames: Shaped[np.ndarray, "n h w 3"]) -> Features:
    """What an extractor makes of uint8 RGB frames.

    Raises:
        ValueError: frames of another kind, or features that are not one row a frame.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        given = f"{frames.shape} of {frames.dtype}"
        raise ValueError(f"{extractor.name} reads frames (N, H, W, 3) of uint8, got {given}")
    features = Features(extractor.name, extractor(frames))
    if len(features) != len(frames):
        raise ValueError(f"{extractor.name} gave {len(features)} rows for {len(frames)} frames")
    return features


def moments(extractor: Extractor, batches: Iterable[Shaped[np.ndarray, "n h w 3"]]) -> Moments:
    """The moments of frames that never lie in memory together; ValueError for no batches."""
    total: Moments | None = None
    for frames in batches:
        part = Moments.of(extract(extractor, frames))
        total = part if total is None else total + part
    if total is None:
        raise ValueError(f"no batches of frames for {extractor.name}")
    return total


def frechet(first: Moments, second: Moments) -> float:
    """The squared Frechet distance of the Gaussians; ValueError for what cannot be compared.

    Tr (S1 S2)^(1/2) is that of the symmetric (R S2 R)^(1/2) with R = S1^(1/2): real, and exact
    where covariances do not commute or are singular.
    """
    _check_alike(first, second)
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ second.covariance @ root).clip(min=0)
    spread = np.trace(first.covariance) + np.trace(second.covariance)
    apart = float(np.square(first.mean - second.mean).sum())
    return max(0.0, apart + float(spread - 2 * np.sqrt(shared).sum()))


def noise_floor(first: Moments, second: Moments) -> float:
    """What two samples of these sizes have as `frechet` where both are of one Gaussian.

    With eigenvalues l of the mean covariance, to first order in 1/N:
    ``(1/N1 + 1/N2)/2 (sum_ij l_i l_j / (l_i + l_j) + 5/2 sum_i l_i)``, for one l the known
    ``l (D^2 + 5 D) / (2 N)``. Heavier tails give more, and so does an N that is not well above D.
    """
    _check_alike(first, second)
    values = np.linalg.eigvalsh((first.covariance + second.covariance) / 2).clip(min=0)
    sums = values[:, None] + values
    pairs = np.divide(np.outer(values, values), sums, out=np.zeros_like(sums), where=sums > 0)
    inverse = (1 / first.count + 1 / second.count) / 2
    return float(inverse * (pairs.sum() + 2.5 * values.sum()))


def mmd(first: Features, second: Features, kernel: str = "cubic") -> float:
    """The unbiased squared maximum mean discrepancy; below 0 by chance where there is none.

    Raises:
        KeyError: an unknown kernel, with the nearest one.
        ValueError: features that cannot be compared, or a single sample.
    """
    _check_alike(first, second)
    if kernel not in KERNELS:
        raise KeyError(f"no kernel {kernel!r}{nearest(kernel, KERNELS)}")
    if min(len(first), len(second)) < 2:
        raise ValueError(f"MMD of {len(first)} and {len(second)} samples: expected at least 2")
    k, x, y = KERNELS[kernel], first.values, second.values
    return _mean_of_others(k(x, x)) + _mean_of_others(k(y, y)) - 2 * float(k(x, y).mean())


def cosine(first: Features, second: Features) -> Float[np.ndarray, " n"]:
    """The cosine between the two features of each pair.

    Raises:
        ValueError: features that cannot be paired, or one of length 0, which points nowhere.
    """
    _check_alike(first, second)
    if len(first) != len(second):
        raise ValueError(f"expected pairs of features, got {len(first)} and {len(second)}")
    lengths = [np.linalg.norm(one.values, axis=1) for one in (first, second)]
    if 0.0 in np.concatenate(lengths):
        raise ValueError(f"a feature of {first.extractor!r} has length 0 and points nowhere")
    return (first.values * second.values).sum(axis=1) / np.prod(lengths, axis=0)


def fd(real: Moments, shown: Moments) -> Comparison:
    """The Frechet distance, ``FD-<extractor>``, with its noise floor and, if N is small, a warning.

    Raises:
        ValueError: features that cannot be compared, or a single sample.
    """
    n, size, warnings = min(len(real), len(shown)), real.size, []
    if n <= size:
        warnings.append(f"N is not above D: the covariance is singular, {ENOUGH * size} wanted")
    elif n < ENOUGH * size:
        warnings.append(f"fewer than {ENOUGH} samples a dimension, {ENOUGH * size} wanted")
    if len(real) != len(shown):
        warnings.append("unequal N: comparable only with rows of the same two")
    value, floor = frechet(real, shown), noise_floor(real, shown)
    return _compared("FD", real, shown, value=value, floor=floor, warning="; ".join(warnings))


def fd_infinity(
    real: Features, shown: Features, *, sizes: Sequence[int] = (), seed: int = 0
) -> Comparison:
    """The Frechet distance of endless samples, ``FD-infinity-<extractor>``.

    A straight line in 1/N through subsamples of both sets, read at 0: below 0 by chance where there
    is none. ``sizes`` are five from a fifth of the smaller set to all of it unless given; at each
    the sets are cut into as many parts as they hold, and ``details`` hold the mean distance. The
    line is straight only well above D (the authors start at 5000 samples for D = 2048): a first
    size below 2 D warns.

    Raises:
        ValueError: features that cannot be compared, or not two sizes from 2 to the smaller set.
    """
    _check_alike(real, shown)
    n = min(len(real), len(shown))
    taken = sorted(set(sizes or np.linspace(n / 5, n, 5).round().astype(int).tolist()))
    if len(taken) < 2 or not 2 <= taken[0] <= taken[-1] <= n:
        raise ValueError(f"expected two sizes or more from 2 to the smaller set's {n}, got {taken}")
    rng = np.random.default_rng(seed)
    distances = {size: _mean_distance(real, shown, size, rng) for size in taken}
    value = float(np.polyfit(1 / np.array(taken), [*distances.values()], 1)[1])
    bent = f"the line starts at {taken[0]} samples, below 2 D = {2 * real.size}, where it bends"
    warning, details = bent if taken[0] < 2 * real.size else "", {"distances": distances}
    return _compared("FD-infinity", real, shown, value=value, details=details, warning=warning)


def kernel_distance(
    real: Features, shown: Features, *, kernel: str = "cubic", blocks: int = 10, seed: int = 0
) -> Comparison:
    """The squared MMD as the mean over blocks, ``MMD-<kernel>-<extractor>``.

    Both sets are shuffled and cut into ``blocks`` parts that share no sample, so the spread of the
    parts gives a true standard error (in ``details``) and a Student interval. KID's code draws
    blocks of 1000 that overlap, and quotes their spread.

    Raises:
        KeyError: an unknown kernel, with the nearest one.
        ValueError: features that cannot be compared, or fewer than 2 blocks of 2 samples.
    """
    _check_alike(real, shown)
    n = min(len(real), len(shown))
    if not 4 <= 2 * blocks <= n:
        raise ValueError(f"{blocks} blocks of {n} samples: expected 2 or more, with 2 in each")
    rng = np.random.default_rng(seed)
    parts = (one.parts(blocks, len(one), rng) for one in (real, shown))
    values = np.array([mmd(a, b, kernel) for a, b in zip(*parts, strict=True)])
    value, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(blocks))
    half = float(stdtrit(blocks - 1, (1 + LEVEL) / 2)) * error
    found = {"interval": Interval(value - half, value + half), "value": value}
    warning = "cannot be told from 0 at this N" if abs(value) <= half else ""
    details = {"standard_error": error, "blocks": blocks}
    return _compared(f"MMD-{kernel}", real, shown, **found, details=details, warning=warning)


def similarity(real: Features, shown: Features, clusters: Sequence[Any] = ()) -> Comparison:
    """The mean cosine of pairs, ``cosine-<extractor>``, row by row; 1 where they are alike.

    ``clusters`` are labels of the pairs, as in `bootstrap`: frames of one state go together.

    Raises:
        ValueError: as `cosine`.
    """
    values = cosine(real, shown)
    interval = bootstrap(values, clusters) if len(values) > 1 else None
    return _compared("cosine", real, shown, value=float(values.mean()), interval=interval)


class MobileNetV2:
    """The published ImageNet network: 1280 features of a frame, averaged over places.

    Frames are resized to the 224 x 224 pixels of its training (bilinear, antialiased). The weights
    are looked up and torch is imported at the first frames.

    Args:
        weights: a torchvision state dict, which the name then names; the installed package's own
            when None.
    """

    SIDE, BATCH = 224, 32

    def __init__(self, weights: str | Path | None = None) -> None:
        self.name = "MobileNetV2" + (f":{Path(weights).stem}" if weights else "")
        self.weights = weights

    def __call__(self, frames: Shaped[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        import torch
        from torch.nn.functional import interpolate

        from wamlab.nn.mobilenet import as_imagenet

        found, side = [], (self.SIDE, self.SIDE)
        with torch.no_grad():
            for batch in torch.tensor(frames).split(self.BATCH):
                pixels = rearrange(batch, "n h w c -> n c h w") / 127.5 - 1
                resized = interpolate(pixels, side, mode="bilinear", antialias=True)
                found.append(self._net.features(as_imagenet(resized)).mean((2, 3)))
        return torch.cat(found).numpy()

    @functools.cached_property
    def _net(self) -> Any:
        from wamlab.nn.mobilenet import pretrained

        return pretrained(self.weights)


EXTRACTORS: dict[str, Callable[..., Extractor]] = {"MobileNetV2": MobileNetV2}


def make_extractor(name: str, **options: Any) -> Extractor:
    """The extractor of this name with its own options; KeyError says the nearest name."""
    if name not in EXTRACTORS:
        raise KeyError(f"no extractor {name!r}{nearest(name, EXTRACTORS)}")
    return EXTRACTORS[name](**options)


def _compared(
    measure: str, real: Features | Moments, shown: Features | Moments, **found: Any
) -> Comparison:
    """A result that is called after the extractor and shows both N, and D."""
    n, name = (len(real), len(shown)), f"{measure}-{real.extractor}"
    return Comparison(name, n=min(n), counts=n, size=real.size, **found)


def _mean_distance(real: Features, shown: Features, size: int, rng: np.random.Generator) -> float:
    """The mean Frechet distance of all disjoint parts of this size, drawn from both sets."""
    count = min(len(real), len(shown)) // size
    parts = [map(Moments.of, one.parts(count, count * size, rng)) for one in (real, shown)]
    return float(np.mean([frechet(a, b) for a, b in zip(*parts, strict=True)]))


def _mean_of_others(kernel: Float[np.ndarray, "n n"]) -> float:
    """The mean over all pairs of two different samples."""
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _check_alike(first: Features | Moments, second: Features | Moments) -> None:
    """Raise ValueError unless both come from one extractor and have the same D."""
    if first.extractor != second.extractor:
        raise ValueError(f"features of {first.extractor!r} beside those of {second.extractor!r}")
    if first.size != second.size:
        raise ValueError(f"features of {first.size} beside those of {second.size} dimensions")
