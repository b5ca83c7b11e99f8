"""How far apart two sets of frames are to a frozen network: Frechet and cosine measures.

The maths works on `Features`, an array (N, D) with the name of the extractor that made it, and a
result is called after that name: ``FD-MobileNetV2``. FID, FVD, KID and JEDi are these formulas on
one published network each; their names are never given to another.

    FD      |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), covariances with N - 1
            (Dowson and Landau 1982; Heusel et al., arXiv 1706.08500)
    FD_inf  FD on a line in 1/N through subsamples, at 0 (Chong and Forsyth, arXiv 1911.07023)
    MMD^2   `wamlab.metrics.kernels`

How many samples. FD is never below 0, so noise only adds: two samples of one distribution have an
FD of about `noise_floor`, which falls as 1/N and grows as D^2. Where N <= D the covariances are
singular as well. The authors of FID ask for more than D samples and at least 10,000 for D = 2048
(notes of their code, TTUR): `ENOUGH` a dimension, below which a result warns. MMD has no such bias;
what it lacks at small N is precision, which its interval shows.

Samples are independent, and frames of one state are not: 24 states of which 50 frames were taken
are as far from 24 others as single frames would be. Where ``states`` are given (the state of each
row, the same of both sets) they are what is counted, cut and averaged over. Sets of the same
states are not independent: a near copy is nearer than `noise_floor`, so that they have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Shaped

from wamlab.metrics.base import Result, Row, item_means
from wamlab.metrics.stats import interval_over

ENOUGH = 5
"""Samples a dimension from which a Frechet distance does not warn."""


class Extractor(Protocol):
    """A frozen network: uint8 RGB frames to features. Results are called after its name.

    ``resize`` says in words what it does to the size of a frame (``not resized``), ``shortest`` how
    many frames a clip has at least, 0 where single frames are read. Which there are:
    `wamlab.metrics.extractors`.
    """

    @property
    def name(self) -> str: ...

    @property
    def resize(self) -> str: ...

    @property
    def shortest(self) -> int: ...

    def __call__(self, frames: Shaped[np.ndarray, "n *t h w 3"]) -> Float[np.ndarray, "n d"]: ...


@dataclass(frozen=True)
class Features:
    """What the extractor of this name made of N frames or clips; kept as float64.

    ``seen`` says of which resolution they were, and how they were resized.

    Raises:
        ValueError: no rows, another number of dimensions, NaN or infinity.
    """

    extractor: str
    values: Float[np.ndarray, "n d"]
    seen: str = ""

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
        return [Features(self.extractor, one, self.seen) for one in np.array_split(drawn, count)]


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
    seen: str = ""

    @classmethod
    def of(cls, features: Features) -> Moments:
        mean = features.values.mean(axis=0)
        apart = features.values - mean
        return cls(features.extractor, len(features), mean, apart.T @ apart, features.seen)

    def __add__(self, other: Moments) -> Moments:
        check_alike(self, other)
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        scatter = self.scatter + other.scatter
        scatter += np.outer(apart * (self.count * other.count / count), apart)
        return Moments(self.extractor, count, mean, scatter, self.seen)

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


def extract(extractor: Extractor, frames: Shaped[np.ndarray, "n *t h w 3"]) -> Features:
    """What an extractor makes of uint8 RGB frames (N, H, W, 3), or of clips (N, T, H, W, 3).

    Raises:
        ValueError: frames of another kind, clips that are too short, or features that are not one
            row a frame.
    """
    shortest = extractor.shortest
    axes, rank = ("N, T, H, W, 3", 5) if shortest else ("N, H, W, 3", 4)
    if frames.dtype != np.uint8 or frames.ndim != rank or frames.shape[-1] != 3:
        given = f"{frames.shape} of {frames.dtype}"
        raise ValueError(f"{extractor.name} reads frames ({axes}) of uint8, got {given}")
    if shortest and frames.shape[1] < shortest:
        raise ValueError(
            f"{extractor.name} reads clips of {shortest} frames or more, got {frames.shape[1]}"
        )
    height, width = frames.shape[-3:-1]
    seen = f"{width} x {height} pixels, {extractor.resize}"
    features = Features(extractor.name, extractor(frames), seen)
    if len(features) != len(frames):
        raise ValueError(f"{extractor.name} gave {len(features)} rows for {len(frames)} frames")
    return features


def moments(extractor: Extractor, batches: Iterable[Shaped[np.ndarray, "n *t h w 3"]]) -> Moments:
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
    where covariances do not commute or are singular. What an eigenvalue of 0 came out as is taken
    as 0: the root of a rounding error is not small.
    """
    check_alike(first, second)
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * _roots(values)) @ vectors.T
    shared = _roots(np.linalg.eigvalsh(root @ second.covariance @ root))
    spread = np.trace(first.covariance) + np.trace(second.covariance)
    apart = float(np.square(first.mean - second.mean).sum())
    return max(0.0, apart + float(spread - 2 * shared.sum()))


def noise_floor(first: Moments, second: Moments) -> float:
    """What two samples of these sizes have as `frechet` where both are of one Gaussian.

    With eigenvalues l of the mean covariance, to first order in 1/N:
    ``(1/N1 + 1/N2)/2 (sum_ij l_i l_j / (l_i + l_j) + 5/2 sum_i l_i)``, for one l the known
    ``l (D^2 + 5 D) / (2 N)``. Heavier tails give more, and so does an N that is not well above D.
    """
    check_alike(first, second)
    values = np.linalg.eigvalsh((first.covariance + second.covariance) / 2).clip(min=0)
    sums = values[:, None] + values
    pairs = np.divide(np.outer(values, values), sums, out=np.zeros_like(sums), where=sums > 0)
    inverse = (1 / first.count + 1 / second.count) / 2
    return float(inverse * (pairs.sum() + 2.5 * values.sum()))


def cosine(first: Features, second: Features) -> Float[np.ndarray, " n"]:
    """The cosine between the two features of each pair.

    Raises:
        ValueError: features that cannot be paired, or one of length 0, which points nowhere.
    """
    check_alike(first, second)
    if len(first) != len(second):
        raise ValueError(f"expected pairs of features, got {len(first)} and {len(second)}")
    lengths = [np.linalg.norm(one.values, axis=1) for one in (first, second)]
    if 0.0 in np.concatenate(lengths):
        raise ValueError(f"a feature of {first.extractor!r} has length 0 and points nowhere")
    return (first.values * second.values).sum(axis=1) / np.prod(lengths, axis=0)


def fd(real: Moments, shown: Moments, *, states: int | None = None) -> Comparison:
    """The Frechet distance, ``FD-<extractor>``, with its noise floor and, if N is small, a warning.

    ``states`` is how many states the rows of both sides are of, None where every row is its own.
    With them there is no floor: the sides are not independent samples.

    Raises:
        ValueError: features that cannot be compared, or a single sample.
    """
    n, size, warnings = states or min(len(real), len(shown)), real.size, []
    wanted = f"{ENOUGH * size} wanted"
    if n <= size:
        few = f"{states} states are" if states else "N is"
        warnings.append(f"{few} not above D: the covariance is singular, {wanted}")
    elif n < ENOUGH * size:
        one = "states" if states else "samples"
        warnings.append(f"fewer than {ENOUGH} {one} a dimension, {wanted}")
    if len(real) != len(shown):
        warnings.append("unequal N: comparable only with rows of the same two")
    value, floor = frechet(real, shown), None if states else noise_floor(real, shown)
    return comparison("FD", real, shown, value=value, floor=floor, warning="; ".join(warnings))


def fd_infinity(
    real: Features,
    shown: Features,
    states: Sequence[str] = (),
    *,
    sizes: Sequence[int] = (),
    seed: int = 0,
) -> Comparison:
    """The Frechet distance that endlessly many states would have, ``FD-infinity-<extractor>``.

    A straight line in 1/N through subsamples of both sets, read at 0: below 0 by chance where there
    is none. N counts states, whose rows stay together and beside those of the same state in the
    other set; of each there are as many rows as before. Without ``states`` every row is its own,
    and the sets are cut apart from each other. ``sizes`` are five from a fifth of the smaller set
    to all of it unless given; at each the sets are cut into as many parts as they hold, and
    ``details`` hold the mean distance. The line is straight only well above D (the authors start at
    5000 samples for D = 2048): a first size below 2 D warns.

    Raises:
        ValueError: features that cannot be compared, another number of states than of rows, or not
            two sizes from 2 to the smaller set.
    """
    check_alike(real, shown)
    if len(states) and not len(states) == len(real) == len(shown):
        rows = f"{len(real)} and {len(shown)} features"
        raise ValueError(f"expected the state of each of {rows}, got {len(states)}")
    n = len(set(states)) if len(states) else min(len(real), len(shown))
    fifths = np.linspace(max(2, n / 5), n, 5).round().astype(int).tolist()
    taken = sorted(set(sizes or fifths))
    if len(taken) < 2 or not 2 <= taken[0] <= taken[-1] <= n:
        whole = f"the {n} states" if len(states) else f"the smaller set's {n}"
        raise ValueError(f"expected two sizes or more from 2 to {whole}, got {taken}")
    rng = np.random.default_rng(seed)
    distances = {size: _mean_distance(real, shown, states, size, rng) for size in taken}
    value = float(np.polyfit(1 / np.array(taken), [*distances.values()], 1)[1])
    one = "states" if len(states) else "samples"
    bent = f"the line starts at {taken[0]} {one}, below 2 D = {2 * real.size}, where it bends"
    warning, details = bent if taken[0] < 2 * real.size else "", {"distances": distances}
    return comparison("FD-infinity", real, shown, value=value, details=details, warning=warning)


def similarity(real: Features, shown: Features, states: Sequence[str] = ()) -> Comparison:
    """The mean cosine of pairs, ``cosine-<extractor>``, row by row; 1 where they are alike.

    The mean is over ``states``, and so is its interval; over rows where none are given.

    Raises:
        ValueError: as `cosine`.
    """
    return _over_states("cosine", real, shown, cosine(real, shown), states)


def centred(features: Features) -> Features:
    """The same less the mean over D of each row."""
    means = features.values.mean(axis=1, keepdims=True)
    return Features(features.extractor, features.values - means, features.seen)


def centred_distance(real: Features, shown: Features, states: Sequence[str] = ()) -> Comparison:
    """The mean of ``1 - cos`` of pairs whose own mean over D was taken off each feature.

    On the ensemble of DreamSim (Fu et al., arXiv 2306.09344) this is DreamSim: 0 where two frames
    are alike, at most 2. How long a feature was before does not matter. ``states`` as in
    `similarity`.

    Raises:
        ValueError: as `cosine`; a feature that is the same in all of D points nowhere.
    """
    apart = 1 - cosine(centred(real), centred(shown))
    return _over_states("centred-distance", real, shown, apart, states)


def comparison(
    measure: str, real: Features | Moments, shown: Features | Moments, **found: Any
) -> Comparison:
    """A result that is called after the extractor and shows both N, and D."""
    n, name = (len(real), len(shown)), f"{measure}-{real.extractor}"
    details = {**found.pop("details", {}), **({"frames": real.seen} if real.seen else {})}
    return Comparison(name, n=min(n), counts=n, size=real.size, details=details, **found)


def _over_states(
    measure: str,
    real: Features,
    shown: Features,
    values: Float[np.ndarray, " n"],
    states: Sequence[str],
) -> Comparison:
    """The mean over states of a number of each pair."""
    labels = states if len(states) else [*map(str, range(len(values)))]
    rows = [Row(state, "", float(value)) for state, value in zip(labels, values, strict=True)]
    items = item_means(rows)
    means = np.array([*items.values()])
    found = {"value": float(means.mean()), "interval": interval_over(means)}
    return comparison(measure, real, shown, **found, items=items if len(states) else {})


def _mean_distance(
    real: Features, shown: Features, states: Sequence[str], size: int, rng: np.random.Generator
) -> float:
    """The mean Frechet distance of all disjoint parts of this size, drawn from both sets."""
    if len(states):
        pairs = _of_states(real, shown, states, size, rng)
    else:
        count = min(len(real), len(shown)) // size
        pairs = zip(*(one.parts(count, count * size, rng) for one in (real, shown)), strict=True)
    return float(np.mean([frechet(Moments.of(a), Moments.of(b)) for a, b in pairs]))


def _of_states(
    real: Features, shown: Features, states: Sequence[str], size: int, rng: np.random.Generator
) -> Iterator[tuple[Features, Features]]:
    """Disjoint parts of so many whole states, the same ones of both sets."""
    labels = np.unique(np.asarray(states), return_inverse=True)[1]
    drawn = rng.permutation(labels.max() + 1)
    count = len(drawn) // size
    for part in np.array_split(drawn[: count * size], count):
        rows = np.isin(labels, part)
        a, b = (Features(one.extractor, one.values[rows], one.seen) for one in (real, shown))
        yield a, b


def _roots(values: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """The roots of eigenvalues, 0 below what rounding makes of 0."""
    least = max(values.max(), 0.0) * len(values) * np.finfo(float).eps
    return np.sqrt(np.where(values > least, values, 0.0))


def check_alike(first: Features | Moments, second: Features | Moments) -> None:
    """Raise ValueError unless both come from one extractor and frames of one size, with one D."""
    if first.extractor != second.extractor:
        raise ValueError(f"features of {first.extractor!r} beside those of {second.extractor!r}")
    if first.size != second.size:
        raise ValueError(f"features of {first.size} beside those of {second.size} dimensions")
    if first.seen != second.seen:
        raise ValueError(f"features of frames of {first.seen!r} beside those of {second.seen!r}")
