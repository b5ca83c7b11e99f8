"""What a model says of a future: the instants and the codec, which has no default."""

from __future__ import annotations

import pytest
import torch

from wamlab.models.base import ModelConfig, imagined
from wamlab.nn.codec import KL, Pixels


def test_what_was_imagined_is_of_the_codec_that_the_model_names() -> None:
    config = ModelConfig(views=("top",), image_size=16, offsets=(4, 8))
    frames = imagined(torch.zeros(3, 1, 2, 3, 16, 16), config, Pixels)
    codes = imagined(torch.zeros(3, 1, 2, 8, 2, 2), config, KL(16))
    assert (frames.space, frames.codec) == ("pixels", "pixels")
    assert (codes.space, codes.codec) == ("latent", "kl/1")
    assert codes.values["image/top"].shape == (3, 2, 8, 2, 2)
    assert codes.offsets.tolist() == [[4, 8]] * 3
    with pytest.raises(TypeError, match="codec"):
        imagined(torch.zeros(3, 1, 2, 3, 16, 16), config)
