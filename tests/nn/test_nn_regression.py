"""The regression that teaches an encoder: its value, whom it listens to, and whom it teaches."""

from __future__ import annotations

import torch

from wamlab.nn.regression import ChunkRegression


def test_its_loss_is_the_mean_squared_error_of_what_is_taught() -> None:
    torch.manual_seed(0)
    regression = ChunkRegression(6, 3, 2)
    encoded, action = torch.randn(4, 6), torch.randn(4, 3, 2)
    error = (regression.read(encoded) - action).square()
    everything = torch.ones(4, 3, dtype=torch.bool)
    torch.testing.assert_close(regression.loss(encoded, action, everything), error.mean())

    taught = everything.clone()
    taught[0], taught[1, 2] = False, False
    action[0], action[1, 2] = torch.nan, torch.nan
    expected = error[taught].mean()
    torch.testing.assert_close(regression.loss(encoded, action, taught), expected)
    assert regression.loss(encoded, action, torch.zeros_like(taught)) == 0


def test_it_teaches_what_encoded_the_rows_and_no_other() -> None:
    torch.manual_seed(0)
    encoded = torch.randn(2, 6, requires_grad=True)
    taught = torch.tensor([[True, True, False], [False, False, False]])
    ChunkRegression(6, 3, 2).loss(encoded, torch.randn(2, 3, 2), taught).backward()
    assert encoded.grad is not None
    assert encoded.grad[0].abs().min() > 0
    assert encoded.grad[1].abs().max() == 0
