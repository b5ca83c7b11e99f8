"""EDM against cases whose answers are known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from wamlab.generative import diffusion, flow
from wamlab.generative.noise import generators
from wamlab.types import Stream

MEAN, STD = 0.7, 0.3
SIGMAS = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64)


def exact(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return diffusion.gaussian_denoiser(x, sigma, MEAN, STD)


def start(points: int = 20_000) -> torch.Tensor:
    """Noise at level 80, of mean 0 and deviation 80 exactly."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(points, generator=generator, dtype=torch.float64)
    return 80 * (noise - noise.mean()) / noise.std()


def arrival(x: torch.Tensor) -> torch.Tensor:
    """Where the exact flow carries a point at level 80: the path of a Gaussian is a scaling."""
    return MEAN + (x - MEAN) * STD / math.sqrt(STD**2 + 80**2)


def test_preconditioning_gives_inputs_and_targets_of_variance_one() -> None:
    for sigma_data in (0.5, 1.0):
        skip, out, into, noise = diffusion.precondition(SIGMAS, sigma_data)
        torch.testing.assert_close(into**2 * (SIGMAS**2 + sigma_data**2), torch.ones_like(SIGMAS))
        # The target of F is (x - skip (x + sigma noise)) / out, with x of deviation sigma_data.
        variance = ((1 - skip) ** 2 * sigma_data**2 + skip**2 * SIGMAS**2) / out**2
        torch.testing.assert_close(variance, torch.ones_like(SIGMAS))
        torch.testing.assert_close(
            diffusion.weight(SIGMAS, sigma_data) * out**2, torch.ones_like(SIGMAS)
        )
        torch.testing.assert_close(noise, SIGMAS.log() / 4)


def test_with_data_of_deviation_one_it_is_the_preconditioning_of_stable_video_diffusion() -> None:
    skip, out, into, _ = diffusion.precondition(SIGMAS, 1.0)
    torch.testing.assert_close(skip, 1 / (SIGMAS**2 + 1))
    torch.testing.assert_close(out, SIGMAS / (SIGMAS**2 + 1).sqrt())
    torch.testing.assert_close(into, 1 / (SIGMAS**2 + 1).sqrt())
    torch.testing.assert_close(diffusion.weight(SIGMAS, 1.0), (SIGMAS**2 + 1) / SIGMAS**2)


def test_the_skip_is_the_exact_denoiser_of_centred_gaussian_data() -> None:
    """A network that says 0 is right there, and its sampler draws the data."""
    x = torch.linspace(-3, 3, 5, dtype=torch.float64)
    for sigma in SIGMAS.tolist():
        skip = diffusion.precondition(torch.tensor([sigma], dtype=torch.float64), STD).skip
        torch.testing.assert_close(skip * x, diffusion.gaussian_denoiser(x, sigma, 0.0, STD))


def test_euler_carries_noise_to_gaussian_data_point_by_point() -> None:
    x = start()
    end = diffusion.euler(exact, x, diffusion.karras(1000, 0.002, 80.0))
    torch.testing.assert_close(end, arrival(x), atol=1e-2, rtol=0)
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(end.std()) == pytest.approx(STD, rel=0.01)


def test_euler_converges_at_first_order() -> None:
    x = torch.tensor([57.0], dtype=torch.float64)

    def error(steps: int) -> float:
        sigmas = [80 * (1 - i / steps) + 1.0 * i / steps for i in range(steps + 1)]
        true = MEAN + (x - MEAN) * math.sqrt((STD**2 + 1) / (STD**2 + 80**2))
        return float((diffusion.euler(exact, x, sigmas) - true).abs())

    assert error(1000) / error(2000) == pytest.approx(2, rel=0.1)


def test_euler_is_ddim_and_its_last_step_is_the_denoiser() -> None:
    x, calls = start(100), []

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        return exact(x, sigma)

    end = diffusion.euler(denoise, x, [80.0, 1.0, 0.0])
    noise = (x - exact(x, 80.0)) / 80  # DDIM: keep the noise that was seen, put it back smaller
    middle = exact(x, 80.0) + 1.0 * noise
    torch.testing.assert_close(end, exact(middle, 1.0))
    assert calls == [80.0, 1.0]


def test_guided_denoisers_sample_the_guided_gaussian() -> None:
    """Guiding N(-m, s) by N(m, s) at scale s: both scores are linear, so the mean moves alone."""
    scale = 2.0

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        u, c = (diffusion.gaussian_denoiser(x, sigma, mean, STD) for mean in (-0.2, 0.2))
        return flow.guide(u, c, scale)

    end = diffusion.euler(denoise, start(), diffusion.karras(1000, 0.002, 80.0))
    assert float(end.mean()) == pytest.approx(-0.2 + scale * 0.4, abs=0.01)
    assert float(end.std()) == pytest.approx(STD, rel=0.01)


def test_levels_run_from_the_highest_to_the_lowest_and_then_to_zero() -> None:
    for grid in (diffusion.karras, diffusion.exponential):
        sigmas = grid(5, 0.02, 80.0)
        assert len(sigmas) == 6
        assert sigmas == sorted(sigmas, reverse=True)
        assert [sigmas[0], sigmas[4], sigmas[5]] == [pytest.approx(80), pytest.approx(0.02), 0.0]
        assert grid(1, 0.02, 80.0) == [pytest.approx(80), 0.0]
        stopped = grid(4, 0.02, 80.0, stop=1.0)
        assert [len(stopped), stopped[-1]] == [5, pytest.approx(1.0)]
    sigmas = diffusion.exponential(5, 0.02, 80.0)
    ratios = [there / here for here, there in pairwise(sigmas[:-1])]
    assert ratios == [pytest.approx((0.02 / 80) ** 0.25)] * 4
    middle = ((80 ** (1 / 7) + 0.02 ** (1 / 7)) / 2) ** 7
    assert diffusion.karras(3, 0.02, 80.0)[1] == pytest.approx(middle)
    for steps, low, high, stop in ((0, 0.1, 1, 0), (1, 0, 1, 0), (1, 2, 1, 0), (1, 0.1, 1, 1)):
        with pytest.raises(ValueError, match="steps >= 1"):
            diffusion.karras(steps, low, high, stop=stop)


def test_training_levels_have_their_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    logs = diffusion.log_normal(100_000, 0.7, 1.6, generator=generator).log()
    assert float(logs.mean()) == pytest.approx(0.7, abs=0.02)
    assert float(logs.std()) == pytest.approx(1.6, rel=0.01)

    sigma = diffusion.log_logistic(100_000, math.log(0.5), 0.5, 1e-3, 80.0, generator=generator)
    assert 1e-3 <= float(sigma.min()) < float(sigma.max()) <= 80
    assert float(sigma.median()) == pytest.approx(0.5, rel=0.02)
    # A quarter and three quarters lie at +-scale ln 3 around the median of the logarithm.
    quarter = float(sigma.log().quantile(0.75) - sigma.log().median())
    assert quarter == pytest.approx(0.5 * math.log(3), rel=0.03)
    narrow = diffusion.log_logistic(1000, 0.0, 0.5, 1.0, 2.0, generator=generator)
    assert 1 <= float(narrow.min()) < float(narrow.max()) <= 2


def test_noise_is_added_row_by_row_and_committed_actions_keep_their_level() -> None:
    x, noise = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    noisy = diffusion.add_noise(x, noise, torch.tensor([0.0, 2.0]))
    assert torch.equal(noisy[0], x[0])
    torch.testing.assert_close(noisy[1], x[1] + 2 * noise[1])

    offsets = torch.arange(2).expand(2, -1)
    prefix = Stream(torch.full((2, 2, 3), 0.3), offsets, torch.ones_like(offsets, dtype=torch.bool))
    held = diffusion.commit(noisy, prefix, noise, 0.5)
    torch.testing.assert_close(held[:, :2], 0.3 + 0.5 * noise[:, :2])
    assert torch.equal(held[:, 2:], noisy[:, 2:])
    assert torch.equal(diffusion.commit(noisy, None, noise, 0.5), noisy)


def test_flow_levels_become_trained_sigmas_of_the_same_ratio() -> None:
    levels, sigmas = diffusion.trained_levels(torch.tensor([1.0, 0.99, 0.8, 0.5, 0.01]), 0.05, 80.0)
    assert sigmas == pytest.approx([80, 4, 1, 0.05])
    ratio = ((1 - levels) / levels) ** 2
    assert ratio.tolist() == pytest.approx([sigma**-2 for sigma in sigmas])


def test_the_exact_denoiser_recovers_as_well_as_a_normal_can_be() -> None:
    """The error at sigma is the posterior's variance; an absent entry is noise and is not read."""
    x = MEAN + STD * torch.randn(4, 5000, 1, generator=torch.Generator().manual_seed(0))
    x[1, 0], present = torch.nan, torch.ones(4, 5000, dtype=torch.bool)
    present[1, 0] = False
    seen: list[torch.Tensor] = []

    def denoise(noisy: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append(noisy)
        return exact(noisy, sigma)

    sigmas = [80.0, 0.3, 0.05]
    found = diffusion.recoveries(
        denoise, x, present, sigmas=sigmas, sigma_data=0.5, generator=generators(range(4))
    )
    assert all(bool(noisy.isfinite().all()) for noisy in seen)
    for sigma, clean in zip(sigmas, found, strict=True):
        error = float((clean - x)[present].square().mean())
        assert error == pytest.approx(1 / (1 / STD**2 + 1 / sigma**2), rel=0.05)
