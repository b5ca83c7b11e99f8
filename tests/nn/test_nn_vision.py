"""Keypoints, and an observation with parts missing."""

from __future__ import annotations

import torch

from wamlab.nn.vision import KeypointStem, ObservationEncoder, spatial_softmax
from wamlab.types import Batch, Stream, Text


def test_spatial_softmax_finds_a_peak() -> None:
    features = torch.zeros(1, 1, 5, 9)
    features[0, 0, 4, 2] = 100
    torch.testing.assert_close(spatial_softmax(features)[0, 0], torch.tensor([-0.5, 1.0]))


def test_spatial_softmax_of_nothing_is_the_centre() -> None:
    torch.testing.assert_close(spatial_softmax(torch.zeros(1, 2, 4, 4)), torch.zeros(1, 2, 2))


def test_a_stem_follows_what_moves() -> None:
    torch.manual_seed(0)
    stem = KeypointStem(8, 4)
    frame, moved = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    frame[..., 4:8, 4:8], moved[..., 20:24, 20:24] = 1, 1
    assert stem(frame).shape == (1, stem.size)
    assert not torch.allclose(stem(frame), stem(moved), atol=1e-3)


def observation(seen: bool, sensed: bool, poison: float) -> Batch:
    offsets = torch.zeros(2, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(2, 1, 3, 16, 16, generator=generator)
    state = torch.randn(2, 1, 4, generator=generator)
    if not seen:
        frames[1] = poison
    if not sensed:
        state[1] = poison
    streams = {
        "image/corner": Stream(frames, offsets, torch.tensor([[True], [seen]])),
        "state": Stream(state, offsets, torch.tensor([[True], [sensed]])),
    }
    pooled = torch.randn(2, 6, generator=generator)
    return Batch(
        streams, Text(["a", "b"], pooled), torch.ones(2, 4, dtype=torch.bool), torch.ones(2)
    )


def test_what_is_absent_is_a_learned_placeholder_and_never_read() -> None:
    encoder = ObservationEncoder(
        ("corner",), state_dim=4, text_dim=6, width=16, stem_width=8, keypoints=4
    )
    whole = encoder(observation(True, True, 0.0))
    for seen, sensed in ((False, True), (True, False)):
        nan = encoder(observation(seen, sensed, float("nan")))
        huge = encoder(observation(seen, sensed, 1e6))
        assert torch.equal(nan, huge)
        torch.testing.assert_close(nan[0], whole[0])
        assert not torch.allclose(nan[1], whole[1])
