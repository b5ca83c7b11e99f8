"""A frame as a vector, and an observation with parts missing."""

from __future__ import annotations

import pytest
import torch

from wamlab.nn.vision import ObservationEncoder, Stem
from wamlab.types import Batch, Stream, Text


@pytest.mark.parametrize("image_size", [32, 30])
def test_a_stem_tells_where_a_thing_is(image_size: int) -> None:
    torch.manual_seed(0)
    stem = Stem(image_size, 8, 12)
    frame, moved = torch.zeros(2, 1, 3, image_size, image_size)
    frame[..., 4:8, 4:8], moved[..., 4:8, 8:12] = 1, 1
    assert stem(frame).shape == (1, 12)
    assert not torch.allclose(stem(frame), stem(moved), atol=1e-2)


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
        ("corner",), image_size=16, state_dim=4, text_dim=6, width=16, stem_width=8
    )
    whole = encoder(observation(True, True, 0.0))
    for seen, sensed in ((False, True), (True, False)):
        nan = encoder(observation(seen, sensed, float("nan")))
        huge = encoder(observation(seen, sensed, 1e6))
        assert torch.equal(nan, huge)
        torch.testing.assert_close(nan[0], whole[0])
        assert not torch.allclose(nan[1], whole[1])
