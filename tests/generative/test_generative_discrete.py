"""Bins come back within half a bin, the masked loss is the textbook's, draws belong to rows."""

from __future__ import annotations

import math

import pytest
import torch

from wamlab.generative.discrete import draw, from_bins, masked_cross_entropy, to_bins

LOW, HIGH = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0])


def test_round_trip_is_within_half_a_bin_and_centres_are_fixed_points() -> None:
    values = LOW + torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) * (HIGH - LOW)
    back = from_bins(to_bins(values, LOW, HIGH, 16), LOW, HIGH, 16)
    assert ((back - values).abs() <= (HIGH - LOW) / 32 + 1e-6).all()
    tokens = torch.arange(16)[:, None].repeat(1, 2)
    assert torch.equal(to_bins(from_bins(tokens, LOW, HIGH, 16), LOW, HIGH, 16), tokens)


def test_known_bins_and_centres() -> None:
    values = torch.tensor([[-1.0, 0.0], [-0.51, 0.99], [0.0, 2.0], [1.0, 4.0], [9.0, -9.0]])
    assert to_bins(values, LOW, HIGH, 4).tolist() == [[0, 0], [0, 0], [2, 2], [3, 3], [3, 0]]
    centres = from_bins(torch.tensor([[0, 0], [3, 3]]), LOW, HIGH, 4)
    assert centres.tolist() == [[-0.75, 0.5], [0.75, 3.5]]


def test_cross_entropy_of_known_logits() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]]))
    tokens = torch.tensor([[0, 2]])
    both = masked_cross_entropy(logits, tokens, torch.tensor([[True, True]]))
    assert both.item() == pytest.approx(-(math.log(0.5) + math.log(0.7)) / 2)
    weighted = masked_cross_entropy(
        logits, tokens, torch.tensor([[True, True]]), torch.tensor([[1.0, 0.04]])
    )
    assert weighted.item() == pytest.approx(-(math.log(0.5) + 0.04 * math.log(0.7)) / 1.04)


def test_masked_tokens_are_not_read_and_an_empty_mask_gives_zero() -> None:
    logits = torch.randn(1, 2, 3, requires_grad=True)
    mask = torch.tensor([[True, False]])
    one = masked_cross_entropy(logits, torch.tensor([[1, 2]]), mask)
    two = masked_cross_entropy(logits, torch.tensor([[1, 999_999]]), mask)
    assert torch.equal(one, two)
    nothing = masked_cross_entropy(logits, torch.tensor([[1, 2]]), torch.zeros_like(mask))
    nothing.backward()
    assert nothing.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_draws_have_the_right_frequencies() -> None:
    probabilities = torch.tensor([0.7, 0.2, 0.1])
    logits = probabilities.log().expand(1, 20_000, 3)
    tokens = draw(logits, [torch.Generator().manual_seed(1)])
    found = torch.bincount(tokens.flatten(), minlength=3) / tokens.numel()
    torch.testing.assert_close(found, probabilities, atol=0.012, rtol=0)
    assert (draw(logits, [torch.Generator()], temperature=0.0) == 0).all()


def test_a_row_draws_the_same_whoever_shares_its_batch() -> None:
    logits = torch.zeros(3, 8, 5)
    together = draw(logits, [torch.Generator().manual_seed(s) for s in (4, 5, 6)])
    alone = draw(logits[:1], [torch.Generator().manual_seed(5)])
    assert torch.equal(together[1:2], alone)


def test_bad_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="low < high"):
        to_bins(torch.zeros(1, 2), LOW, LOW, 4)
    with pytest.raises(ValueError, match="at least one bin, got 0"):
        from_bins(torch.zeros(1, 2, dtype=torch.long), LOW, HIGH, 0)
    with pytest.raises(ValueError, match="temperature is at least 0"):
        draw(torch.zeros(1, 2), [torch.Generator()], temperature=-1.0)
