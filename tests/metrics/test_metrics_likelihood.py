"""The denoising bound where the truth is known: linear-Gaussian data and its best denoiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wamlab.generative import flow
from wamlab.generative.discrete import bin_nats, row_nats, to_bins
from wamlab.metrics.base import compute
from wamlab.metrics.likelihood import denoising_bound, nats, noise_levels, tightest
from wamlab.types import Denoised, Nats

ACTIONS, FRAMES = 3, 5
LEVELS = noise_levels(48, cleanest=0.001)


def world() -> np.ndarray:
    """The covariance of (action, future): ``o' = M a + noise`` with a correlated prior on a."""
    rng = np.random.default_rng(0)
    root = 0.4 * rng.normal(size=(ACTIONS, ACTIONS)) + 0.5 * np.eye(ACTIONS)
    act = root @ root.T
    moves = rng.normal(size=(FRAMES, ACTIONS))
    noise = np.diag(rng.uniform(0.2, 0.6, FRAMES) ** 2)
    return np.block([[act, act @ moves.T], [moves @ act, moves @ act @ moves.T + noise]])


JOINT = world()
A, F = slice(0, ACTIONS), slice(ACTIONS, None)


def given(sampled: slice, known: slice) -> np.ndarray:
    """The covariance of one part given the other."""
    cross = JOINT[sampled, known] @ np.linalg.inv(JOINT[known, known])
    return JOINT[sampled, sampled] - cross @ JOINT[known, sampled]


COVARIANCE = {
    "POLICY": JOINT[A, A],
    "VIDEO": JOINT[F, F],
    "JOINT": JOINT,
    "FORWARD": given(F, A),
    "INVERSE": given(A, F),
}


def entropy(covariance: np.ndarray) -> float:
    return 0.5 * float(np.linalg.slogdet(2 * np.pi * np.e * covariance)[1])


def expected(covariance: np.ndarray, levels: np.ndarray = LEVELS, waste: float = 1.0) -> Denoised:
    """The expected errors of the best denoiser, or of one that is ``waste`` times worse."""
    ratio = ((1 - levels) / levels) ** 2
    values = np.linalg.eigvalsh(covariance)
    errors = waste * (values / (1 + ratio[:, None] * values)).sum(1)
    return Denoised(levels, errors[None], np.array([values.sum()]), np.array([len(values)]))


@pytest.mark.parametrize("query", COVARIANCE)
def test_the_bound_of_the_best_denoiser_is_the_entropy(query: str) -> None:
    found = float(nats(expected(COVARIANCE[query]))[0])
    assert found == pytest.approx(entropy(COVARIANCE[query]), abs=1e-3)


def test_the_chain_rule_holds_on_the_linear_gaussian_toy() -> None:
    found = {query: float(nats(expected(c))[0]) for query, c in COVARIANCE.items()}
    assert found["POLICY"] + found["FORWARD"] == pytest.approx(found["JOINT"], abs=1e-3)
    assert found["VIDEO"] + found["INVERSE"] == pytest.approx(found["JOINT"], abs=1e-3)
    assert abs(found["POLICY"] - found["INVERSE"]) > 1


def test_it_is_a_bound_a_worse_denoiser_and_a_coarser_sampler_raise_it() -> None:
    best = expected(JOINT)
    truth = entropy(JOINT)
    worse = float(nats(expected(JOINT, waste=1.05))[0])
    steps = [
        float(denoising_bound(expected(JOINT, noise_levels(n, 0.001)), rule="steps")[0])
        for n in (32, 128, 40_000)
    ]
    assert worse > truth + 0.1
    assert steps[0] > steps[1] > steps[2] > float(nats(best)[0])
    assert steps[2] == pytest.approx(truth, abs=0.02)


def test_ends_that_are_cut_off_loosen_the_bound_and_never_break_it() -> None:
    """The prior term pays for the noisy end, the reconstruction for the clean one."""
    truth = entropy(JOINT)
    cuts = [
        LEVELS[LEVELS <= 0.8],
        LEVELS[LEVELS >= 0.1],
        LEVELS[(LEVELS <= 0.9) & (LEVELS >= 0.05)],
    ]
    for levels in cuts:
        loose = float(nats(expected(JOINT, levels))[0])
        assert truth < loose < truth + 2


def test_sixteen_levels_are_enough_for_a_hundredth_of_a_nat_per_dimension() -> None:
    found = float(nats(expected(JOINT, noise_levels()))[0])
    assert found == pytest.approx(entropy(JOINT), abs=0.01 * len(JOINT))


def test_the_errors_are_those_of_the_librarys_path() -> None:
    """Drawn noise, the path of `flow.interpolate` and the best denoiser written for it."""
    generator = torch.Generator().manual_seed(0)
    rows, covariance = 20_000, torch.from_numpy(JOINT)
    root = torch.linalg.cholesky(covariance)
    x = torch.randn(rows, len(JOINT), generator=generator, dtype=torch.float64) @ root.T
    levels = torch.from_numpy(noise_levels(24, 0.005))
    shown = []
    for level in levels.tolist():
        sigma = torch.full((rows,), level, dtype=torch.float64)
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        keep, spread = 1 - level, level**2 * torch.eye(len(JOINT))
        gain = keep * covariance @ torch.linalg.inv(keep**2 * covariance + spread)
        shown.append(flow.interpolate(x, noise, sigma) @ gain.T)
    there = torch.ones_like(x, dtype=torch.bool)
    found = flow.recovered(levels, shown, x, there)
    best = expected(JOINT, levels.numpy())
    assert found.errors.mean(0).tolist() == pytest.approx(best.errors[0], rel=0.02)
    assert float(found.energy.mean()) == pytest.approx(best.energy[0], rel=0.02)
    there[:, ACTIONS:] = False
    absent = flow.recovered(levels, [s.masked_fill(~there, torch.nan) for s in shown], x, there)
    assert absent.dims.tolist()[:2] == [ACTIONS, ACTIONS]
    assert bool(torch.isfinite(absent.errors).all())


def test_levels_at_which_a_network_only_adds_its_own_error_are_left_out() -> None:
    """A denoiser that is never better than 0.01 in square: below that noise it says nothing."""
    best = expected(JOINT)
    blunt = Denoised(best.levels, best.errors + 0.01, best.energy, best.dims)
    kept = tightest(blunt)
    assert 0.02 < kept.levels[-1] < 0.3
    assert len(tightest(best).levels) == len(best.levels)
    assert entropy(JOINT) < nats(blunt)[0] < denoising_bound(blunt)[0] - 10


def test_bad_levels_are_named() -> None:
    found = expected(JOINT)
    for levels in (LEVELS[::-1], LEVELS * 2, LEVELS[:1], LEVELS - 0.001):
        errors = found.errors[:, : len(levels)]
        with pytest.raises(ValueError, match="levels that fall"):
            denoising_bound(Denoised(levels, errors, found.energy, found.dims))
    with pytest.raises(ValueError, match="2 levels or more"):
        noise_levels(1)


def test_tokens_are_exact_and_bins_are_comparable_with_values() -> None:
    """Uniform values in K bins: log K nats a token, log of the range a value."""
    generator = torch.Generator().manual_seed(0)
    low, high, bins = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0]), 16
    values = low + torch.rand(6, 7, 2, generator=generator) * (high - low)
    tokens = to_bins(values, low, high, bins)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, 3:] = False
    flat = row_nats(torch.zeros(*tokens.shape, bins), tokens, mask)
    assert flat.tolist() == pytest.approx([6 * np.log(16)] + [14 * np.log(16)] * 5)
    as_values = flat[1:] + 7 * bin_nats(low, high, bins).sum()
    assert as_values.tolist() == pytest.approx([7 * np.log(2 * 4)] * 5, abs=1e-4)
    sure = torch.nn.functional.one_hot(tokens, bins) * 50.0
    assert row_nats(sure, tokens, mask).max() < 1e-6
    assert nats(Nats(flat.numpy(), mask.flatten(1).sum(1).numpy()))[0] == pytest.approx(flat[0])


def test_without_a_likelihood_there_is_no_number() -> None:
    assert "there are no recordings" in compute("nats_per_dim", []).why_not
