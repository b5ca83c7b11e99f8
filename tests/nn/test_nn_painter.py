"""The painter: it starts from the present, moves it exactly, and paints over it where it must."""

from __future__ import annotations

import torch
from torch import Tensor

from wamlab.nn.codec import Pixels
from wamlab.nn.painter import GATE_AT_START, Painter

SIZE, PATCH, WIDTH, VIEWS, INSTANTS, GRAIN = 32, 16, 12, 2, 3, 4


def painter() -> Painter:
    torch.manual_seed(0)
    return Painter(
        Pixels(SIZE), grain=GRAIN, views=VIEWS, instants=INSTANTS, patch=PATCH, width=WIDTH,
        paint_width=8,
    )  # fmt: skip


def present() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.rand(2, VIEWS, 3, SIZE, SIZE, generator=generator) - 1


def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, VIEWS * (SIZE // PATCH) ** 2, WIDTH, generator=generator)


def saying(content: float, gate: float) -> Painter:
    """One that says the same at every cell of every instant."""
    it = painter()
    assert it.draw.bias is not None
    one = torch.tensor([*[content] * 3, gate - GATE_AT_START])
    # The pixels of a cell lie side by side among the channels: see pixel_shuffle.
    it.draw.bias.data = one.repeat(INSTANTS).repeat_interleave(GRAIN**2)
    return it


def test_an_untrained_painter_shows_the_present_nearly_alone() -> None:
    now = present()
    shown = painter()(tokens(), now)
    assert shown.shape == (2, VIEWS, INSTANTS, 3, SIZE, SIZE)
    kept = 1 - torch.sigmoid(torch.tensor(GATE_AT_START))
    torch.testing.assert_close(shown, (kept * now)[:, :, None].expand_as(shown))


def test_a_closed_gate_keeps_the_present_exactly() -> None:
    now = present()
    shown = saying(content=0.7, gate=-200)(tokens(), now)
    assert torch.equal(shown, now[:, :, None].expand_as(shown))


def test_an_open_gate_shows_content_and_nothing_of_the_present() -> None:
    shown = saying(content=0.7, gate=40)(tokens(), present())
    torch.testing.assert_close(shown, torch.full_like(shown, 0.7))


def test_a_token_paints_its_own_patch_and_no_farther_than_a_cell_beyond() -> None:
    it, now, told = painter(), present(), tokens()
    torch.nn.init.normal_(it.draw.weight)
    other = told.clone()
    other[:, 0] += 1
    changed = (it(other, now) != it(told, now)).any(dim=(0, 2, 3))
    reach = PATCH + 2 * GRAIN
    assert changed[0, :PATCH, :PATCH].any()
    assert not changed[0, reach:].any()
    assert not changed[0, :, reach:].any()
    assert not changed[1].any()
