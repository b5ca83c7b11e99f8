"""The resampler: a set of features of any size as a few tokens."""

from __future__ import annotations

import pytest
import torch

from wamlab.nn.resampler import Resampler


@pytest.fixture
def resampler() -> Resampler:
    torch.manual_seed(0)
    return Resampler(width=16, latents=3, depth=2, heads=4)


@pytest.mark.parametrize("count", [1, 9, 50])
def test_any_number_of_features_becomes_as_many_tokens_as_there_are_latents(
    resampler: Resampler, count: int
) -> None:
    assert resampler(torch.randn(2, count, 16)).shape == (2, 3, 16)


def test_features_are_a_set(resampler: Resampler) -> None:
    features = torch.randn(2, 9, 16)
    shuffled = features[:, torch.randperm(9)]
    torch.testing.assert_close(resampler(features), resampler(shuffled))


def test_every_latent_reads_every_feature(resampler: Resampler) -> None:
    features = torch.randn(1, 9, 16, requires_grad=True)
    weights = torch.randn(16)
    for token in resampler(features)[0]:
        (gradient,) = torch.autograd.grad(token @ weights, features, retain_graph=True)
        assert gradient.abs().amax(-1).gt(1e-6).all()


def test_latents_learn_to_say_different_things(resampler: Resampler) -> None:
    one, two, _ = resampler(torch.randn(1, 9, 16))[0]
    assert (one - two).abs().max() > 0.1


def test_it_learns_to_find_the_marked_feature(resampler: Resampler) -> None:
    """Where the mark lies is known to a token only if attention has gone there."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(9, 8, generator=generator)
    optimizer = torch.optim.Adam(resampler.parameters(), lr=3e-3)
    read = torch.nn.Linear(3 * 16, 8)
    optimizer.add_param_group({"params": read.parameters()})
    losses = []
    for _ in range(300):
        marked = torch.randint(9, (32,), generator=generator)
        marks = torch.zeros(32, 9, 8)
        marks[torch.arange(32), marked] = 2.0
        features = torch.cat([places.expand(32, -1, -1), marks], dim=-1)
        error = (read(resampler(features).flatten(1)) - places[marked]).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        losses.append(float(error.detach()))
    blind = places.var(0, correction=0).mean()
    assert sum(losses[-20:]) / 20 < 0.1 * float(blind)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 16 is not divisible by 3 heads"):
        Resampler(16, 3, 1, heads=3)
