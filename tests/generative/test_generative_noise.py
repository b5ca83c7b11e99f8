"""Noise by row, and absent entries."""

from __future__ import annotations

import torch

from wamlab.generative.noise import fill_absent, generators, noise_like, normal


def test_a_row_draws_the_same_whoever_shares_its_batch() -> None:
    together = normal((3, 2), generators([7, 8, 9]))
    alone = normal((3, 2), generators([8]))
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_noise_like_is_a_function_of_the_generator() -> None:
    x = torch.zeros(2, 3)
    first, again = (noise_like(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == x.shape


def test_absent_values_are_never_read_forward_or_backward() -> None:
    values = torch.tensor([[[1.0, 2.0]], [[float("nan"), float("inf")]]], requires_grad=True)
    present = torch.tensor([[True], [False]])
    filled = fill_absent(values, present, 9.0)
    filled.sum().backward()
    assert filled.tolist() == [[[1.0, 2.0]], [[9.0, 9.0]]]
    assert values.grad is not None
    assert values.grad.tolist() == [[[1.0, 1.0]], [[0.0, 0.0]]]
