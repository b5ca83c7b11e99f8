"""Flow matching against cases whose answers are known."""

from __future__ import annotations

import pytest
import torch

from wamlab.generative import flow
from wamlab.types import Stream


def test_interpolate_reaches_both_ends_exactly() -> None:
    x, noise = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    clean = flow.interpolate(x, noise, torch.zeros(2))
    pure = flow.interpolate(x, noise, torch.ones(2))
    assert torch.equal(clean, x)
    assert torch.equal(pure, noise)


def test_velocity_and_clean_are_inverse_views_of_one_prediction() -> None:
    x, noise = torch.randn(3, 5), torch.randn(3, 5)
    sigma = torch.tensor([0.1, 0.5, 1.0])
    x_sigma = flow.interpolate(x, noise, sigma)
    v = flow.velocity(x, noise)
    torch.testing.assert_close(flow.clean_from_velocity(x_sigma, v, sigma), x)
    torch.testing.assert_close(flow.velocity_from_clean(x_sigma, x, sigma), v)


def test_euler_is_exact_for_a_constant_velocity() -> None:
    x = torch.zeros(1, 2)
    end = flow.euler(lambda x, sigma: torch.full_like(x, 3.0), x, flow.levels(3))
    torch.testing.assert_close(end, torch.full((1, 2), -3.0))


def test_euler_is_off_by_a_step_for_a_linear_velocity() -> None:
    def field(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.full_like(x, 2 * sigma)

    assert float(flow.euler(field, torch.ones(1), flow.levels(5))) == pytest.approx(-0.2)


def test_euler_converges_at_first_order_for_a_quadratic_velocity() -> None:
    def field(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.full_like(x, 3 * sigma**2)

    def error(steps: int) -> float:
        return abs(float(flow.euler(field, torch.ones(1, dtype=torch.float64), flow.levels(steps))))

    assert error(10) / error(20) == pytest.approx(2, rel=0.1)


def test_the_exact_gaussian_field_carries_noise_to_the_data() -> None:
    mean, std = 0.7, 0.3
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = flow.euler(
        lambda x, sigma: flow.gaussian_velocity(x, sigma, mean, std), noise, flow.levels(1000)
    )
    # The map is affine and monotone, so that each point's end is known, not only the moments.
    torch.testing.assert_close(x, mean + std * noise, atol=1e-2, rtol=0)


def test_gaussian_velocity_is_the_conditional_expectation() -> None:
    generator = torch.Generator().manual_seed(1)
    x = 0.5 + 2 * torch.randn(400_000, generator=generator)
    noise = torch.randn(400_000, generator=generator)
    x_sigma = flow.interpolate(x, noise, torch.full((400_000,), 0.3))
    near = (x_sigma - 1).abs() < 0.05
    expected = flow.gaussian_velocity(torch.tensor(1.0), 0.3, 0.5, 2.0)
    assert float((noise - x)[near].mean()) == pytest.approx(
        float(expected), abs=0.05
    )  # 3.5 standard errors


def test_guidance_interpolates_and_extrapolates() -> None:
    u, c = torch.tensor(1.0), torch.tensor(3.0)
    assert [float(flow.guide(u, c, s)) for s in (0, 1, 2)] == [1.0, 3.0, 5.0]


def test_levels_run_from_noise_to_the_stop() -> None:
    assert flow.levels(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert flow.levels(2, stop=0.5) == [1.0, 0.75, 0.5]
    for steps, stop in ((0, 0.0), (4, 1.0), (4, -0.1)):
        with pytest.raises(ValueError, match="steps >= 1"):
            flow.levels(steps, stop)


def test_training_levels_have_both_atoms_in_the_shares_asked_for() -> None:
    sigma = flow.draw_levels(
        50_000, generator=torch.Generator().manual_seed(0), marginal=0.3, clean=0.1
    )
    assert float((sigma == 1).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float((sigma == 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    between = sigma[(sigma > 0) & (sigma < 1)]
    assert float(between.mean()) == pytest.approx(0.5, abs=0.01)


def test_masked_mean_never_reads_what_is_masked() -> None:
    values = torch.tensor([[1.0, 2.0], [float("nan"), 4.0]])[..., None].requires_grad_()
    mask = torch.tensor([[True, True], [False, True]])
    mean = flow.masked_mean(values, mask)
    mean.backward()
    assert float(mean.detach()) == pytest.approx(7 / 3)
    assert values.grad is not None
    assert float(values.grad[1, 0]) == 0
    assert float(flow.masked_mean(values.detach(), torch.zeros(2, 2, dtype=torch.bool))) == 0


def test_commit_keeps_what_is_decided() -> None:
    x, noise = torch.zeros(1, 4, 2), torch.ones(1, 4, 2)
    offsets = torch.arange(2)[None]
    prefix = Stream(torch.full((1, 2, 2), 5.0), offsets, torch.ones_like(offsets, dtype=torch.bool))
    assert torch.equal(flow.commit(x, None, noise, 0.5), x)
    assert flow.commit(x, prefix, noise, 0.5)[0, :, 0].tolist() == [3.0, 3.0, 0.0, 0.0]
    assert flow.commit(x, prefix, noise, 0.0)[0, :, 0].tolist() == [5.0, 5.0, 0.0, 0.0]
