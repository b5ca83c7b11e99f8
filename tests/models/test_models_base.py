"""What a model says of a future, takes as one and is asked of its sampler: nothing goes unread."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from wamlab.models.base import (
    ModelConfig,
    Refusal,
    Sampling,
    checked_sampler,
    given_codes,
    imagined,
    model_class,
)
from wamlab.nn.codec import KL, Pixels
from wamlab.types import ACTION, FUTURE, Future

CONFIG = ModelConfig(views=("top",), image_size=16, offsets=(4, 8))


def test_what_was_imagined_is_of_the_codec_that_the_model_names() -> None:
    frames = imagined(torch.zeros(3, 1, 2, 3, 16, 16), CONFIG, Pixels)
    codes = imagined(torch.zeros(3, 1, 2, 8, 2, 2), CONFIG, KL(16))
    assert (frames.space, frames.codec) == ("pixels", "pixels")
    assert (codes.space, codes.codec) == ("latent", "kl/1")
    assert codes.values["image/top"].shape == (3, 2, 8, 2, 2)
    assert codes.offsets.tolist() == [[4, 8]] * 3
    with pytest.raises(TypeError, match="codec"):
        imagined(torch.zeros(3, 1, 2, 3, 16, 16), CONFIG)


def given(instants: int = 2, view: str = "image/top", **parts: object) -> Tensor:
    values = {view: torch.arange(instants).float().expand(3, 3, 16, 16, -1).movedim(-1, 1)}
    own = {"space": "pixels", "codec": "pixels", "offsets": None}
    return given_codes(Future(**{**own, **parts}, values=values), CONFIG, Pixels)


@pytest.mark.parametrize("offsets", [None, torch.tensor([[4, 8]] * 3), np.array([[4, 8]] * 3)])
def test_what_was_imagined_can_be_given(offsets: object) -> None:
    codes = given(offsets=offsets)
    assert codes.shape == (3, 1, 2, 3, 16, 16)
    assert codes[0, 0, :, 0, 0, 0].tolist() == [0, 1]
    again = imagined(codes, CONFIG, Pixels)
    assert torch.equal(given_codes(again, CONFIG, Pixels), codes)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"offsets": torch.tensor([[4, 8], [4, 8], [8, 16]])}, r"at \(8, 16\), expected \(4, 8\)"),
        ({"offsets": np.array([[8, 4]] * 3)}, r"at \(8, 4\), expected \(4, 8\)"),
        ({"instants": 3}, "has 3 instants, expected 2"),
        ({"view": "image/tip"}, "lacks 'image/top'; did you mean 'image/tip'?"),
        ({"codec": "kl/1"}, "no future in pixels of the codec 'pixels' was passed: .* 'kl/1'"),
        ({"space": "latent"}, "no future in pixels of the codec 'pixels' was passed: .* latent"),
    ],
)
def test_a_future_of_another_kind_is_not_read_as_one_s_own(
    parts: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        given(**parts)


@pytest.mark.parametrize(
    ("name", "sampler", "said"),
    [
        ("unipi", {ACTION: Sampling(2)}, "unipi does not sample 'action' step by step; .* future"),
        ("unipi", {FUTURE: Sampling(wait=1)}, "'future' of unipi cannot wait"),
        ("vpp", {ACTION: Sampling(guidance=2.0)}, "vpp never drops what 'action' is told"),
        ("uwm", {"actoin": Sampling(2)}, "'actoin' step by step; did you mean 'action'?"),
        ("reactive", {ACTION: Sampling(wait=2)}, "'action' of reactive cannot wait"),
    ],
)
def test_what_a_sampler_cannot_do_is_refused(
    name: str, sampler: dict[str, Sampling], said: str
) -> None:
    kind = model_class(name)
    model = kind(kind.Config.tiny())
    query, *_ = model.queries
    with pytest.raises(Refusal, match=said):
        model.sample(None, query, sampler=sampler, generator=[])


def test_one_sampler_serves_several_models() -> None:
    both = dict.fromkeys((ACTION, FUTURE), Sampling(2, guidance=1.0, wait=0))
    kind = model_class("reactive")
    assert checked_sampler(kind(kind.Config.tiny()), both) == both
    assert checked_sampler(kind(kind.Config.tiny()), None) == {}
