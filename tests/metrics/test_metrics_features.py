from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.linalg import sqrtm

from wamlab.config import to_dict
from wamlab.metrics.base import Result
from wamlab.metrics.extractors import make_extractor
from wamlab.metrics.features import (
    ENOUGH,
    Features,
    Moments,
    cosine,
    extract,
    fd,
    fd_infinity,
    frechet,
    moments,
    noise_floor,
    similarity,
)
from wamlab.metrics.kernels import KERNELS, kernel_distance, mmd

# Two samples of one N(0, I) in 400 dimensions: N, and the distance that sampling alone makes.
SMALL_N = [
    (16, 723), (50, 587), (100, 481), (256, 299), (512, 158), (1024, 79.2), (2048, 39.3),
    (5000, 16.2),
]  # fmt: skip


class Grid:
    """Mean colours of a 2 x 2 grid: a real function of pixels, with 12 features."""

    name, resize, shortest = "grid", "not resized", 0

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        n, height, width, _ = frames.shape
        cells = frames.reshape(n, 2, height // 2, 2, width // 2, 3).mean(axis=(2, 4))
        return (cells / 255).reshape(n, -1)


class Short(Grid):
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return super().__call__(frames)[1:]


class Broken(Grid):
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return super().__call__(frames) * np.nan


def features(values: np.ndarray, name: str = "grid") -> Features:
    return Features(name, np.asarray(values, float))


def of(values: np.ndarray) -> Moments:
    return Moments.of(features(values))


def gaussian(mean: np.ndarray, covariance: np.ndarray, count: int = 50) -> Moments:
    """Moments that are these exactly."""
    return Moments("grid", count, np.asarray(mean, float), np.asarray(covariance) * (count - 1.0))


def normal(n: int, size: int, seed: int, shift: float = 0.0) -> Features:
    return features(np.random.default_rng(seed).normal(shift, 1, (n, size)))


def covariance(size: int, seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(size, size))
    return root @ root.T


def frames(n: int, seed: int, brighter: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 200, (n, 8, 8, 3)) + brighter).astype(np.uint8)


@pytest.fixture(scope="module")
def wave() -> tuple[Features, Features]:
    """The unit check: seven features of three dimensions a side."""
    i, j = np.mgrid[:7, :3]
    return features(np.sin(1 + 1.3 * i + 0.7 * j)), features(
        1.5 * np.cos(2 + 0.9 * i + 1.1 * j) + 0.2 * j
    )


def test_the_unit_check_has_its_values(wave):
    first, second = wave
    assert frechet(Moments.of(first), Moments.of(second)) == pytest.approx(0.9700688375, abs=1e-10)
    assert mmd(first, second) == pytest.approx(-0.2981513221, abs=1e-10)


def test_equal_sets_are_at_distance_0_also_where_the_covariance_is_singular(wave):
    few = normal(10, 60, seed=1)
    for one in (*wave, few):
        assert frechet(Moments.of(one), Moments.of(one)) == pytest.approx(0, abs=1e-5)


def test_shifted_gaussians_differ_by_the_square_of_the_shift():
    shape = covariance(5, seed=2)
    shift = np.array([1.0, -2, 0, 0.5, 3])
    assert frechet(gaussian(np.zeros(5), shape), gaussian(shift, shape)) == pytest.approx(14.25)


def test_a_scaled_covariance_has_its_closed_form():
    shape = covariance(5, seed=3)
    scaled = gaussian(np.zeros(5), 9 * shape)
    assert frechet(gaussian(np.zeros(5), shape), scaled) == pytest.approx(4 * np.trace(shape))


def test_commuting_covariances_compare_their_standard_deviations():
    turn = np.linalg.qr(covariance(4, seed=4))[0]
    first, second = np.array([1.0, 4, 9, 0]), np.array([4.0, 1, 16, 25])
    pair = [gaussian(np.zeros(4), turn @ np.diag(values) @ turn.T) for values in (first, second)]
    assert frechet(*pair) == pytest.approx(1 + 1 + 1 + 25)


def test_covariances_that_do_not_commute_agree_with_a_matrix_root():
    for seed in range(3):
        a, b = covariance(8, seed), covariance(8, seed + 10)
        root = sqrtm(a @ b)
        want = np.trace(a + b) - 2 * np.trace(root).real
        assert not np.allclose(a @ b, b @ a)
        pair = gaussian(np.zeros(8), a), gaussian(np.zeros(8), b)
        assert frechet(*pair) == pytest.approx(want, rel=1e-8)
        assert frechet(*pair) == pytest.approx(frechet(*pair[::-1]), rel=1e-8)


def test_covariances_of_one_direction_each_meet_at_their_angle():
    u, v = np.array([3.0, 0, 0]), np.array([1.0, 2, 2])
    pair = gaussian(np.zeros(3), np.outer(u, u)), gaussian(np.zeros(3), np.outer(v, v))
    assert frechet(*pair) == pytest.approx(9 + 9 - 2 * 3, abs=1e-6)


def test_streamed_moments_are_those_of_the_whole():
    values = np.random.default_rng(5).normal(1e7, 1, (90, 6))
    parts = [of(part) for part in np.split(values, [1, 20, 70])]
    forth = parts[0] + parts[1] + parts[2] + parts[3]
    back = parts[3] + (parts[2] + (parts[1] + parts[0]))
    for total in (forth, back):
        assert total.count == 90
        np.testing.assert_allclose(total.mean, values.mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(total.covariance, np.cov(values.T), atol=1e-7)
    naive = (values.T @ values - 90 * np.outer(*[values.mean(axis=0)] * 2)) / 89
    assert np.abs(naive - np.cov(values.T)).max() > 1e-3


def test_frames_in_batches_give_the_moments_of_all_frames():
    seen = frames(30, seed=6)
    streamed = moments(Grid(), (seen[i : i + 7] for i in range(0, 30, 7)))
    whole = Moments.of(extract(Grid(), seen))
    assert (streamed.count, streamed.extractor) == (30, "grid")
    np.testing.assert_allclose(streamed.covariance, whole.covariance, rtol=1e-12)


@pytest.mark.parametrize(("n", "bias"), SMALL_N)
def test_a_small_sample_has_the_distance_that_sampling_alone_makes(n, bias):
    pair = Moments.of(normal(n, 400, seed=n)), Moments.of(normal(n, 400, seed=n + 1))
    assert frechet(*pair) == pytest.approx(bias, rel=0.03)


def test_the_noise_floor_is_what_two_samples_of_one_gaussian_give():
    size, n = 40, 1000
    flat = gaussian(np.zeros(size), 3 * np.eye(size), n)
    assert noise_floor(flat, flat) == pytest.approx(3 * (size**2 + 5 * size) / (2 * n))
    scales = np.exp(-np.arange(size) / 8)
    rng = np.random.default_rng(7)
    pairs = [[of(rng.normal(size=(n, size)) * scales) for _ in "ab"] for _ in range(20)]
    mean = np.mean([frechet(*pair) for pair in pairs])
    assert noise_floor(*pairs[0]) == pytest.approx(mean, rel=0.1)


def test_a_near_copy_is_nearer_than_samples_of_one_distribution_and_so_has_no_floor():
    real = normal(24, 64, 1)
    near = features(real.values + 0.1 * normal(24, 64, 2).values)
    pair = Moments.of(real), Moments.of(near)
    assert frechet(*pair) < 0.05 * noise_floor(*pair)
    assert fd(*pair, states=24).floor is None
    assert fd(*pair).floor == noise_floor(*pair)


def test_fd_infinity_takes_away_what_the_sample_size_adds():
    size, n = 30, 600
    true = size * 0.1**2
    pairs = [(normal(n, size, seed), normal(n, size, seed + 50, shift=0.1)) for seed in range(8)]
    found = [fd_infinity(*pair) for pair in pairs]
    plain = np.mean([frechet(*map(Moments.of, pair)) for pair in pairs])
    assert np.mean([one.value for one in found]) == pytest.approx(true, abs=0.06)
    assert plain > true + 0.6
    assert list(found[0].details["distances"]) == [120, 240, 360, 480, 600]
    assert found[0] == fd_infinity(*pairs[0])
    assert found[0].warning == ""


def test_the_quadratic_kernel_has_the_value_that_the_code_of_jedi_prints():
    x = np.arange(1.0, 10).reshape(3, 3)
    y = np.array([[7.0, 6, 5], [4, 3, 2], [1, 1, 8], [0, 2, 5]])
    k = KERNELS["quadratic"]
    biased = k(x, x).mean() + k(y, y).mean() - 2 * k(x, y).mean()
    assert biased == pytest.approx(270.7, abs=0.03)


def test_mmd_is_the_mean_over_pairs_of_different_samples(wave):
    first, second = wave
    kernel = lambda a, b: (sum(a * b) / 3) ** 2  # noqa: E731
    within = [
        np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
        for x in (first.values, second.values)
    ]
    across = np.mean([kernel(a, b) for a in first.values for b in second.values])
    assert mmd(first, second, "quadratic") == pytest.approx(sum(within) - 2 * across)


@pytest.mark.parametrize(("n", "draws"), [(16, 300), (256, 100)])
def test_mmd_is_unbiased_however_small_the_sample(n, draws):
    pairs = [(normal(n, 400, seed), normal(n, 400, seed + 1000)) for seed in range(draws)]
    found = np.array([mmd(*pair) for pair in pairs])
    assert abs(found.mean()) < 3 * found.std() / np.sqrt(draws)
    # Of two samples of N(0, I) to first order in 1/D: the kernel varies by 9/D + 36/D^2.
    spread = np.sqrt(8 * (9 / 400 + 36 / 400**2)) / n
    assert found.std() == pytest.approx(spread, rel=0.2)


def test_the_standard_error_of_blocks_is_the_spread_of_repetitions():
    found = [
        kernel_distance(normal(200, 10, seed), normal(200, 10, seed + 500, shift=0.3))
        for seed in range(60)
    ]
    errors = [one.details["standard_error"] for one in found]
    assert np.std([one.value for one in found]) == pytest.approx(np.mean(errors), rel=0.25)
    true = kernel_distance(normal(8000, 10, 1), normal(8000, 10, 2, shift=0.3)).value
    assert 0.88 < np.mean([true in one.interval for one in found]) <= 1


def test_kernel_distances_tell_sets_apart_and_say_when_they_cannot():
    apart = kernel_distance(normal(200, 10, 3), normal(200, 10, 4, shift=0.5), kernel="quadratic")
    alike = kernel_distance(normal(200, 10, 3), normal(150, 10, 5))
    assert apart.metric == "MMD-quadratic-grid"
    assert apart.interval.low > 0
    assert apart.warning == ""
    assert 0.0 in alike.interval
    assert alike.warning == "cannot be told from 0 at this N"
    assert (alike.counts, alike.n, alike.details["blocks"]) == ((200, 150), 150, 10)


def test_the_cosine_of_pairs_knows_angles_and_not_lengths():
    first = features([[1, 0], [1, 0], [0, 2], [1, 1]])
    second = features([[5, 0], [0, 3], [0, -1], [1, 0]])
    np.testing.assert_allclose(cosine(first, second), [1, 0, -1, np.sqrt(0.5)], atol=1e-12)
    result = similarity(first, second)
    assert result.metric == "cosine-grid"
    assert result.value == pytest.approx(np.sqrt(0.5) / 4)


def test_the_pairing_matters_to_the_cosine_and_clusters_widen_its_interval():
    seen = extract(Grid(), np.repeat(frames(10, seed=8), 4, axis=0))
    centred = features(seen.values - seen.values.mean(axis=0))
    other = features(np.roll(centred.values, 4, axis=0))
    assert similarity(centred, centred).value == pytest.approx(1)
    assert similarity(centred, other).value < 0.5
    width = lambda one: one.interval.high - one.interval.low  # noqa: E731
    states = [str(state) for state in np.repeat(np.arange(10), 4)]
    assert width(similarity(centred, other, states)) > 1.5 * width(similarity(centred, other))


def test_a_result_is_called_after_its_extractor_and_shows_both_n_and_d():
    real, shown = (Moments.of(extract(Grid(), frames(80, seed))) for seed in (1, 2))
    result = fd(real, shown)
    assert isinstance(result, Result)
    assert str(result) == f"FD-grid = {result.value:.4g} (N = 80 and 80, D = 12)"
    assert 0.3 * result.floor < result.value < 3 * result.floor
    plain = to_dict(result)
    assert (plain["metric"], plain["counts"], plain["size"]) == ("FD-grid", [80, 80], 12)
    with pytest.raises(TypeError, match="counts"):
        type(result)("FD-grid", value=1.0)


def test_the_distance_grows_as_frames_do_differ():
    real = moments(Grid(), [frames(80, seed=1)])
    values = [fd(real, moments(Grid(), [frames(80, 2, more)])).value for more in (0, 10, 20, 40)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(12 * (40 / 255) ** 2, rel=0.1)


@pytest.mark.parametrize(
    ("n", "m", "said"),
    [
        (12, 12, "N is not above D: the covariance is singular, 60 wanted"),
        (59, 59, "fewer than 5 samples a dimension, 60 wanted"),
        (60, 60, ""),
        (70, 60, "unequal N: comparable only with rows of the same two"),
    ],
)
def test_too_few_samples_are_said_in_words(n, m, said):
    result = fd(Moments.of(normal(n, 12, 1)), Moments.of(normal(m, 12, 2)))
    assert ENOUGH == 5
    assert result.warning == said
    assert str(result).endswith(f"(N = {n} and {m}, D = 12)" + (f"; {said}" if said else ""))


def test_many_rows_of_one_state_are_no_further_evidence():
    """24 states a side, 50 equal rows of each: as far apart as the 24 rows alone."""
    few = normal(24, 8, 1), normal(24, 8, 2)
    many = [features(np.repeat(one.values, 50, axis=0)) for one in few]
    states = [str(state) for state in np.repeat(np.arange(24), 50)]
    as_rows = fd(*map(Moments.of, many))
    found = fd(*map(Moments.of, many), states=24)
    assert found.value == as_rows.value == pytest.approx(fd(*map(Moments.of, few)).value, rel=0.1)
    assert found.warning == "fewer than 5 states a dimension, 40 wanted"
    assert (found.floor, as_rows.floor > 0) == (None, True)
    nearly = fd(*map(Moments.of, many), states=8).warning
    assert nearly == "8 states are not above D: the covariance is singular, 40 wanted"
    line = fd_infinity(*many, states)
    assert list(line.details["distances"]) == [5, 10, 14, 19, 24]
    assert line.details["distances"][24] == pytest.approx(found.value)
    assert line.warning == "the line starts at 5 states, below 2 D = 16, where it bends"


def test_endless_states_are_reached_over_states_and_not_over_their_rows():
    """One distribution on both sides, of which each state shows 20 equal rows."""
    pairs = [(normal(200, 8, seed), normal(200, 8, seed + 50)) for seed in range(8)]
    states = [str(state) for state in np.repeat(np.arange(200), 20)]
    many = [[features(np.repeat(one.values, 20, axis=0)) for one in pair] for pair in pairs]
    over_states = np.mean([fd_infinity(*pair, states).value for pair in many])
    over_rows = np.mean([fd_infinity(*pair).value for pair in many])
    assert over_states == pytest.approx(0, abs=0.03)
    assert over_rows > 0.15
    same = many[0][0]
    assert fd_infinity(same, same, states).value == pytest.approx(0, abs=1e-9)


def test_a_line_that_starts_too_early_is_said_in_words():
    result = fd_infinity(normal(100, 12, 1), normal(100, 12, 2))
    assert result.metric == "FD-infinity-grid"
    assert result.warning == "the line starts at 20 samples, below 2 D = 24, where it bends"
    straight = fd_infinity(normal(100, 12, 1), normal(100, 12, 2), sizes=(24, 50, 100))
    assert straight.warning == ""


def test_the_adapter_of_a_published_network_has_its_name_before_its_weights():
    network = make_extractor("MobileNetV2")
    assert network.name == "MobileNetV2"
    assert "_net" not in vars(network)
    assert make_extractor("MobileNetV2", weights="mine/robot.pth").name == "MobileNetV2:robot"


def test_one_sample_has_no_covariance_and_no_moments_come_from_nothing():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        fd(of(np.ones((1, 3))), of(np.ones((4, 3))))
    with pytest.raises(ValueError, match="no batches of frames for grid"):
        moments(Grid(), [])


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: features([[1.0, np.nan]]), "features of 'grid' hold NaN or infinity"),
        (lambda: features([[1.0, np.inf]]), "NaN or infinity"),
        (lambda: features(np.ones(3)), r"expected \(N, D\), got \(3,\)"),
        (lambda: features(np.ones((0, 3))), r"expected \(N, D\), got \(0, 3\)"),
        (lambda: frechet(of(np.ones((4, 3))), of(np.ones((4, 2)))), "3 beside those of 2 dim"),
        (lambda: of(np.ones((4, 3))) + of(np.ones((4, 2))), "3 beside those of 2 dimensions"),
        (
            lambda: mmd(features(np.ones((4, 3))), features(np.ones((4, 3)), "other")),
            "features of 'grid' beside those of 'other'",
        ),
        (lambda: mmd(normal(1, 3, 0), normal(4, 3, 1)), "MMD of 1 and 4 samples: .* at least 2"),
        (lambda: kernel_distance(normal(19, 3, 0), normal(40, 3, 1)), "10 blocks of 19 samples"),
        (lambda: kernel_distance(normal(9, 3, 0), normal(9, 3, 1), blocks=1), "1 blocks of 9"),
        (lambda: fd_infinity(normal(2, 3, 0), normal(9, 3, 1)), r"from 2 to the smaller set's 2"),
        (
            lambda: fd_infinity(normal(4, 3, 0), normal(4, 3, 1), [*"aabb"]),
            "to the 2 states",
        ),
        (lambda: fd_infinity(normal(4, 3, 0), normal(9, 3, 1), [*"abcd"]), "4 and 9 features, got"),
        (lambda: fd_infinity(normal(9, 3, 0), normal(9, 3, 1), sizes=[9]), r"got \[9\]"),
        (lambda: fd_infinity(normal(9, 3, 0), normal(9, 3, 1), sizes=[4, 10]), r"got \[4, 10\]"),
        (lambda: cosine(normal(3, 3, 0), normal(4, 3, 1)), "expected pairs of features, got 3 and"),
        (lambda: cosine(normal(2, 3, 0), features(np.zeros((2, 3)))), "length 0"),
        (lambda: extract(Grid(), np.ones((2, 8, 8, 3))), r"of uint8, got \(2, 8, 8, 3\) of float"),
        (lambda: extract(Grid(), np.ones((8, 8, 3), np.uint8)), r"got \(8, 8, 3\) of uint8"),
        (lambda: extract(Short(), frames(4, 0)), "grid gave 3 rows for 4 frames"),
        (lambda: extract(Broken(), frames(4, 0)), "features of 'grid' hold NaN"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_name_has_its_nearest():
    with pytest.raises(KeyError, match="no kernel 'cubik'; did you mean 'cubic'"):
        mmd(normal(4, 3, 0), normal(4, 3, 1), "cubik")
    with pytest.raises(KeyError, match="no extractor 'MobilNet'; did you mean 'MobileNetV2'"):
        make_extractor("MobilNet")


def test_features_are_kept_as_float64_whatever_the_extractor_gives():
    single = Features("grid", np.ones((3, 2), np.float32))
    assert single.values.dtype == np.float64
    assert dataclasses.asdict(single)["extractor"] == "grid"
