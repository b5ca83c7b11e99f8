"""The video denoiser: what reaches what, what its maps are, and what it draws at the start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wamlab.nn.audit import stirred
from wamlab.nn.calls import record_calls
from wamlab.nn.video import DRAWN, Shown, VideoDenoiser, VideoNetwork, words_of
from wamlab.types import Text

VIEWS, INSTANTS, SIZE, WORDS = 2, 3, 32, 5


def network(depth: int = 2) -> VideoNetwork:
    torch.manual_seed(0)
    return VideoNetwork(
        VIEWS, INSTANTS, image_size=SIZE, text_dim=8, width=32, depth=depth, heads=2,
        paint_width=16, level_width=16,
    )  # fmt: skip


def denoiser() -> VideoDenoiser:
    """One whose zero-initialised layers were moved, so that every path carries something."""
    return VideoDenoiser(stirred(network()))


def clip(rows: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, VIEWS, INSTANTS, 3, SIZE, SIZE, generator=generator) * 2 - 1


def shown(rows: int = 2, seed: int = 1) -> Shown:
    first = clip(rows, seed)[:, :, :1].expand(-1, -1, INSTANTS, -1, -1, -1)
    generator = torch.Generator().manual_seed(seed)
    words = torch.randn(rows, WORDS, 8, generator=generator)
    heard = torch.tensor([[True] * 3 + [False] * (WORDS - 3)] * rows)
    return Shown(first, first, torch.ones(rows, VIEWS, dtype=torch.bool), words, heard)


def level(sigma: float, rows: int = 2) -> Tensor:
    return torch.full((rows,), sigma)


def test_a_new_denoiser_draws_the_centre() -> None:
    video, here = VideoDenoiser(network()), shown()
    for sigma in (0.05, 0.5, 80.0):
        drawn = video(here.centre_BVTCHW + sigma * torch.randn(clip().shape), level(sigma), here)
        # A gate of sigmoid(-4) lets 1.8 % of half of what the best linear denoiser keeps through.
        assert (drawn - here.centre_BVTCHW).abs().mean() < 0.01


def test_where_all_moves_and_all_is_trusted_it_is_the_gaussian_denoiser_about_the_content() -> None:
    video, here, x = VideoDenoiser(network()), shown(), clip(seed=3)
    bias = video.network.draw.bias
    with torch.no_grad():
        bias.view(5, -1)[:3], bias.view(5, -1)[3:] = 0.3, 50.0
    drawn = video(x, level(0.25), here)
    mean = here.centre_BVTCHW + 0.3
    torch.testing.assert_close(drawn, mean + 0.5**2 / (0.5**2 + 0.25**2) * (x - mean))


def test_every_map_has_its_name_its_shape_and_its_channels() -> None:
    net, here = network(), shown()
    maps = net(clip(), here, level(0.0), taps=net.names)
    assert list(maps) == ["stem", "block1", "block2", "up", "drawn"]
    for name, side in (("stem", 2), ("block1", 2), ("block2", 2), ("up", 8), (DRAWN, 32)):
        assert net.side_of(name) == side
        assert maps[name].shape == (2, VIEWS, INSTANTS, net.channels(name), side, side)
    with pytest.raises(KeyError, match="no map 'block3'; did you mean 'block2'"):
        net(clip(), here, level(0.0), taps=("block3",))


def test_nothing_after_the_last_map_that_is_read_is_computed() -> None:
    net, here, ran = network(), shown(), []
    for name in ("mix", "draw"):
        getattr(net, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    net.blocks[1].register_forward_hook(lambda *_: ran.append("block2"))
    net(clip(), here, level(0.0), taps=("block1", "stem"))
    assert ran == []
    net(clip(), here, level(0.0), taps=("up",))
    assert ran == ["block2", "mix"]


@pytest.mark.parametrize(("part", "crosses"), [("space", False), ("time", True)])
def test_space_stays_within_an_instant_and_time_within_a_place(part: str, crosses: bool) -> None:
    """With the other kind of attention silenced, a change at one instant reaches others or not."""
    net, here = stirred(network()), shown()
    silenced = "time" if part == "space" else "space"
    with torch.no_grad():
        for block in net.blocks:
            for parameter in getattr(block, silenced).out.parameters():
                parameter.zero_()
    before, changed = clip(), clip()
    changed[:, 0, 1] += 1.0  # one view at the second instant
    one, two = (net(x, here, level(0.0), taps=("block2",))["block2"] for x in (before, changed))
    moved_VT = ((one - two).abs().amax(dim=(0, 3, 4, 5)) > 1e-6).tolist()
    if crosses:
        assert moved_VT == [[True] * 3, [False] * 3]
    else:
        assert moved_VT == [[False, True, False]] * 2


def test_the_frame_shown_at_an_instant_is_read_there() -> None:
    video, here = denoiser(), shown()
    other = here.frames_BVTCHW.clone()
    other[:, :, -1] = 0.0
    x = clip()
    one, two = (video(x, level(80.0), here._replace(frames_BVTCHW=f)) for f in (here[0], other))
    assert float((one - two)[:, :, -1].detach().abs().max()) > 1e-3


def test_words_are_read_and_those_that_are_masked_are_not() -> None:
    video, here, x = denoiser(), shown(), clip()
    base = video(x, level(1.0), here)
    for word, read in ((0, True), (4, False)):
        words = here.words_BLS.clone()
        words[:, word] = torch.nan if not read else 3.0
        changed = video(x, level(1.0), here._replace(words_BLS=words))
        assert torch.equal(base, changed) != read
    silent = here._replace(heard_BL=torch.zeros_like(here.heard_BL))
    assert torch.isfinite(video(x, level(1.0), silent)).all()


def test_an_unknown_first_frame_is_said_to_be_one() -> None:
    video, here, x = denoiser(), shown(), clip()
    unknown = torch.tensor([[False, True]] * 2)
    one, two = video(x, level(1.0), here), video(x, level(1.0), here._replace(known_BV=unknown))
    assert not torch.equal(one, two)


def test_absent_frames_teach_nothing_and_are_noise_whatever_the_level() -> None:
    video, here = denoiser(), shown()
    present = torch.ones(2, VIEWS, INSTANTS, dtype=torch.bool)
    present[0, :, 2] = False
    losses = []
    for there in (0.0, 0.9):
        frames = clip()
        frames[0, :, 2] = there
        with record_calls(video.network) as calls:
            losses.append(video.loss(frames, present, here, torch.Generator().manual_seed(0)))
    assert torch.equal(*losses)
    into = calls.calls[0]["change_BVTCHW"]
    assert float(into[0, :, 2].std()) == pytest.approx(1.0, abs=0.05)


def test_all_frames_of_a_clip_are_noised_alike_at_the_level_the_network_is_told() -> None:
    """Clips equal to their centre: what enters is nothing but noise, as strong as the level says.

    A deviation of 6144 values is off by 0.9 %; the levels of eight rows differ by far more.
    """
    rows, video = 8, denoiser()
    video.highest = 0.0
    here, present = shown(rows), torch.ones(rows, VIEWS, INSTANTS, dtype=torch.bool)
    with record_calls(video.network) as calls:
        video.loss(here.centre_BVTCHW, present, here, torch.Generator().manual_seed(0))
    (call,) = calls.calls
    found_BT = call["change_BVTCHW"].transpose(1, 2).flatten(2).std(-1)
    sigma = (4 * call["noise_level"]).exp()
    told = sigma / (sigma**2 + video.sigma_data**2).sqrt()
    assert float(told.max() / told.min()) > 1.5
    torch.testing.assert_close(found_BT, told[:, None].expand(-1, INSTANTS), rtol=0.05, atol=0.0)


def test_the_drawn_levels_are_one_a_clip_and_the_highest_has_its_share() -> None:
    video, rows = denoiser(), 400
    sigma = video._draw_levels(rows, torch.Generator().manual_seed(0))
    assert sigma.shape == (rows,)
    assert float((sigma == video.high).float().mean()) == pytest.approx(video.highest, abs=0.07)
    assert float(sigma.min()) >= video.low
    # About twice the deviation of what moves, as far as it is not the highest.
    rest = sigma[sigma < video.high].log()
    assert float(rest.median().exp()) == pytest.approx(2 * video.sigma_data, rel=0.35)


def test_the_highest_level_is_read_as_the_sampler_s_first_call_sees_it() -> None:
    video, here = denoiser(), shown()
    noise = torch.randn(clip().shape)
    maps = video.foresee(noise, here, ("block2", "up"))
    _, first = video.read(video.begin(noise, here), level(video.high), here, ("block2", "up"))
    for name in maps:
        torch.testing.assert_close(maps[name], first[name], rtol=1e-3, atol=1e-4)


def test_bad_sizes_and_bare_sentences_are_named() -> None:
    with pytest.raises(ValueError, match="image_size 30 is not a multiple of the patch 16"):
        VideoNetwork(1, 1, image_size=30, text_dim=8)
    with pytest.raises(ValueError, match="width 32 is not divisible by 5 heads"):
        VideoNetwork(1, 1, image_size=32, text_dim=8, width=32, heads=5)
    with pytest.raises(ValueError, match="not encoded word by word"):
        words_of(Text(["push"]))
