"""Extractors: how frames reach a network, what is read from a user's file, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wamlab.metrics.extractors import (
    EXTRACTORS,
    OFFLINE,
    WANTED,
    Intake,
    Network,
    Remembering,
    make_extractor,
    scripted,
)
from wamlab.metrics.features import centred_distance, extract, fd_infinity, similarity
from wamlab.nn.weights import MissingWeights


class Means(nn.Module):
    """The mean colour of a frame: shows what reached the network."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean((2, 3))


class Video(nn.Module):
    """The first and the last frame's mean colour, if called as the published I3D is."""

    def forward(
        self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        assert return_features
        assert not rescale
        assert not resize
        assert x.size(3) == 224
        assert x.size(4) == 224
        return torch.cat([x[:, :, 0].mean((2, 3)), x[:, :, -1].mean((2, 3))], dim=1)


class Bytes(nn.Module):
    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        assert return_features
        assert images.dtype == torch.uint8
        return images.float().mean((2, 3))


def frames(n: int = 4, height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scripts")
    found = {}
    for module in (Means(), Video(), Bytes()):
        name = type(module).__name__.lower()
        found[name] = folder / f"{name}.pt"
        torch.jit.script(module).save(str(found[name]))
    return found


def test_every_name_is_offline_or_says_what_it_is_read_from() -> None:
    assert OFFLINE == ("AlexNet", "VGG16", "MobileNetV2")
    assert {*OFFLINE, *WANTED} == {*EXTRACTORS}
    for name in WANTED:
        with pytest.raises(MissingWeights, match=f"no package ships {name}: give weights=") as said:
            make_extractor(name)
        assert "without a file there are AlexNet, VGG16, MobileNetV2" in str(said.value)
        assert any(licence in str(said.value) for licence in ("Apache-2.0", "MIT"))
    with pytest.raises(KeyError, match="no extractor 'Dinov2'; did you mean 'DINOv2'"):
        make_extractor("Dinov2")


@pytest.mark.parametrize(
    ("scale", "black", "white"),
    [("unit", 0, 1), ("symmetric", -1, 1), ("bytes", 0, 255), ("imagenet", -2.1179, 2.2489)],
)
def test_pixels_come_on_the_scale_that_is_asked_for(scale: Any, black: float, white: float) -> None:
    ends = np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)])
    seen = Intake(None, scale)(torch.tensor(ends))
    assert seen.shape == (2, 3, 8, 8)
    assert float(seen[0, 0, 0, 0]) == pytest.approx(black, abs=1e-4)
    assert float(seen[1, 0, 0, 0]) == pytest.approx(white, abs=1e-4)


def test_one_rule_of_resizing_is_kept_and_said() -> None:
    """Bilinear, antialiased: down by 2 a checkerboard is grey; up by 2 it is interpolated."""
    board = np.indices((16, 16)).sum(0) % 2 * 255
    checks = torch.tensor(np.repeat(board[None, :, :, None], 3, axis=3).astype(np.uint8))
    small = Intake(8, "unit")(checks)
    assert float((small - 0.5).abs().max()) < 0.15
    picture = torch.tensor(frames(1, 16, 16))
    large = Intake(32, "unit")(picture)
    plain = nn.functional.interpolate(
        picture.permute(0, 3, 1, 2) / 255, (32, 32), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(large, plain, atol=1e-6, rtol=0)
    assert str(Intake(8, "unit")) == "resized to 8 x 8 (bilinear, antialiased)"
    assert str(Intake(None, "unit")) == "not resized"
    assert str(Intake(None, "bytes")) == "resized by the network itself"
    cut = Intake(8, "unit", crop=True)
    assert str(cut) == "resized to 8 x 8 (bilinear, antialiased, short side, then its middle)"


def test_the_middle_is_cut_out_of_a_wide_frame() -> None:
    wide = np.zeros((1, 16, 32, 3), np.uint8)
    wide[:, :, 8:24] = 255
    assert float(Intake(16, "unit", crop=True)(torch.tensor(wide)).min()) == 1
    assert float(Intake(16, "unit")(torch.tensor(wide)).min()) == 0


def test_batches_do_not_change_what_comes_out(archives: dict[str, Path]) -> None:
    seen = frames(10)
    found = [
        Network("means", Intake(None, "unit"), lambda: Means(), batch=batch)(seen)
        for batch in (1, 3, 32)
    ]
    np.testing.assert_allclose(found[0], seen.mean((1, 2)) / 255, rtol=1e-5)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-6)


def test_a_torchscript_file_is_an_extractor_with_its_own_name(archives: dict[str, Path]) -> None:
    network = make_extractor("SSCD", archives["means"])
    assert network.name == "SSCD:means"
    features = extract(network, frames())
    assert features.seen == "32 x 32 pixels, resized to 320 x 320 (bilinear, antialiased)"
    own = scripted("Own", archives["means"], Intake(None, "unit"))
    np.testing.assert_allclose(
        extract(own, frames()).values, frames().mean((1, 2)) / 255, rtol=1e-5
    )
    inception = make_extractor("Inception", archives["bytes"])
    np.testing.assert_allclose(
        extract(inception, frames()).values, frames().mean((1, 2)), rtol=1e-5
    )


def test_i3d_reads_clips_as_its_published_file_wants_them(archives: dict[str, Path]) -> None:
    network = make_extractor("I3D", archives["video"])
    clips = np.zeros((3, 10, 16, 16, 3), np.uint8)
    clips[:, -1] = 255
    features = extract(network, clips)
    np.testing.assert_allclose(features.values, [[-1] * 3 + [1] * 3] * 3, atol=1e-6)
    with pytest.raises(ValueError, match="I3D:video reads clips of 10 frames or more, got 9"):
        extract(network, clips[:, :9])
    with pytest.raises(ValueError, match=r"I3D:video reads frames \(N, T, H, W, 3\) of uint8"):
        extract(network, clips[0])


def test_a_pickle_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'harmed'}",)

    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "text.pt").write_text("no archive")
    for name in ("evil.pt", "text.pt"):
        with pytest.raises(ValueError, match=f"{name} is no TorchScript archive, and a pickle is"):
            make_extractor("I3D", tmp_path / name)
    assert not (tmp_path / "harmed").exists()
    with pytest.raises(MissingWeights, match="there is no TorchScript file of DreamSim at"):
        make_extractor("DreamSim", tmp_path / "none.pt")
    with pytest.raises(ValueError, match="AlexNet has the weights of LPIPS and takes no file"):
        make_extractor("AlexNet", tmp_path / "text.pt")


def test_what_is_no_row_a_frame_is_named() -> None:
    maps = Network("maps", Intake(None, "unit"), lambda: lambda pixels: pixels)
    with pytest.raises(ValueError, match=r"maps gives \(4, 3, 32, 32\), expected \(N, D\)"):
        extract(maps, frames())


def test_dinov2_gives_its_class_token_or_the_mean_of_its_patches(tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    net = Dinov2Model(Dinov2Config(**sizes, image_size=28, patch_size=14)).eval()
    net.save_pretrained(tmp_path / "dino-tiny")
    seen = frames(2, 28, 28)
    with torch.no_grad():
        tokens = net(Intake(28, "imagenet")(torch.tensor(seen))).last_hidden_state
    assert tokens.shape == (2, 1 + 4, 24)
    token, patches = (
        make_extractor("DINOv2", tmp_path / "dino-tiny", tokens=kind, side=28)
        for kind in ("class", "patches")
    )
    np.testing.assert_allclose(extract(token, seen).values, tokens[:, 0], atol=1e-5)
    np.testing.assert_allclose(extract(patches, seen).values, tokens[:, 1:].mean(1), atol=1e-5)
    assert (token.name, patches.name) == ("DINOv2:dino-tiny", "DINOv2-patches:dino-tiny")
    alike = similarity(extract(token, seen), extract(token, seen))
    assert (alike.metric, alike.value) == ("cosine-DINOv2:dino-tiny", pytest.approx(1))
    with pytest.raises(ValueError, match="tokens of DINOv2 are 'class' or 'patches', got 'cls'"):
        make_extractor("DINOv2", tmp_path / "dino-tiny", tokens="cls")
    with pytest.raises(ValueError, match="is a dinov2, expected vjepa2 for V-JEPA2"):
        extract(make_extractor("V-JEPA2", tmp_path / "dino-tiny"), np.stack([frames(16)]))


def test_weights_of_a_folder_that_come_as_a_pickle_are_refused(tmp_path: Path) -> None:
    from transformers import Dinov2Config

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    Dinov2Config(**sizes, image_size=28, patch_size=14).save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        extract(make_extractor("DINOv2", tmp_path), frames(1))


def test_vjepa2_reads_a_clip(tmp_path: Path) -> None:
    from transformers import VJEPA2Config, VJEPA2Model

    torch.manual_seed(0)
    encoder = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    predictor = {f"pred_{name}": size for name, size in encoder.items()}
    config = VJEPA2Config(**encoder, **predictor, crop_size=32, patch_size=16, frames_per_clip=4)
    VJEPA2Model(config).save_pretrained(tmp_path / "jepa-tiny")
    network = make_extractor("V-JEPA2", tmp_path / "jepa-tiny", side=32, shortest=4)
    clips = np.stack([frames(4, seed=1), frames(4, seed=2), frames(4, seed=1)])
    features = extract(network, clips)
    assert (features.extractor, features.values.shape) == ("V-JEPA2:jepa-tiny", (3, 24))
    np.testing.assert_allclose(features.values[0], features.values[2], atol=1e-6)
    assert np.abs(features.values[0] - features.values[1]).max() > 1e-4
    reversed_ = extract(network, clips[:, ::-1].copy())
    assert np.abs(features.values - reversed_.values).max() > 1e-5


def random_network(name: str, seed: int) -> Network:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten())
    return Network(name, Intake(16, "unit"), lambda: net.eval())


def test_dreamsim_is_1_less_the_correlation_of_what_its_file_gives() -> None:
    """Written out: features less their own mean; 1 less the cosine."""
    network = random_network("DreamSim:mine", 0)
    first, second = (extract(network, frames(5, seed=seed)) for seed in (1, 2))
    values = [
        1 - np.corrcoef(*pair)[0, 1] for pair in zip(first.values, second.values, strict=True)
    ]
    result = centred_distance(first, second)
    assert result.metric == "centred-distance-DreamSim:mine"
    assert result.value == pytest.approx(np.mean(values), rel=1e-6)
    assert centred_distance(first, first).value == pytest.approx(0, abs=1e-6)
    inverted = centred_distance(first, extract(network, 255 - frames(5, seed=1)))
    assert inverted.value > result.value > 0


def test_what_was_seen_once_is_remembered() -> None:
    class Counting(Network):
        count = 0

        def __call__(self, seen: np.ndarray) -> np.ndarray:
            self.count += len(seen)
            return super().__call__(seen)

    counting = Counting("means", Intake(None, "unit"), lambda: Means())
    network = Remembering(counting)
    seen = frames(6)
    twice = network(np.concatenate([seen, seen[::-1]]))
    np.testing.assert_array_equal(twice[:6], twice[6:][::-1])
    np.testing.assert_allclose(network(seen[2:4]), seen[2:4].mean((1, 2)) / 255, rtol=1e-5)
    assert counting.count == 6
    # The same bytes in another shape are another frame.
    network(seen.reshape(6, 16, 64, 3))
    assert counting.count == 12
    assert (network.name, network.resize, network.shortest) == ("means", "not resized", 0)


def test_features_of_frames_of_two_sizes_are_not_compared() -> None:
    network = Network("means", Intake(8, "unit"), lambda: Means())
    small, large = extract(network, frames(4)), extract(network, frames(4, 64, 64))
    with pytest.raises(ValueError, match=r"frames of '32 x 32 pixels.* beside those of '64 x 64"):
        similarity(small, large)
    lines = extract(network, frames(20))
    assert fd_infinity(lines, lines).details["frames"] == lines.seen


def test_the_published_networks_work_offline(published: Callable[[str], None]) -> None:
    published("mobilenet-v2")
    published("lpips-alex")
    data = pytest.importorskip("skimage.data")
    cat, coffee = data.chelsea()[:256, 60:316], data.coffee()[60:316, 100:356]
    noise = np.random.default_rng(0).normal(0, 6, cat.shape)
    noisy = np.clip(cat + noise, 0, 255).astype(np.uint8)
    seen = np.stack([cat, cat[:, ::-1], noisy, coffee])
    sizes = {"MobileNetV2": 1280, "AlexNet": 256}
    for name, size in sizes.items():
        features = extract(make_extractor(name), seen)
        assert features.size == size
        unit = features.values / np.linalg.norm(features.values, axis=1)[:, None]
        flipped, noised, other = unit[1:] @ unit[0]
        assert other < min(flipped, noised)
        assert min(flipped, noised) > 0.75
