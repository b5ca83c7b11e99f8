"""Codecs: what turns frames into what a model predicts, and back.

Of all choices in a world model this one moves the numbers most, so it is a named part of the model
and never a default that nobody sees. Learned codecs are trained as a stage on the dataset itself,
in minutes; afterwards they are frozen, and their digest is the key of cached codes.

All models that imagine do so in `Pixels`, and `uwm` in those of `KL` where it is asked to
(``codec="kl"``). No model of the library predicts tokens of `VQ` or `Features`: they are for yours.

Shape legend: N frames, B rows of T frames, C channels of a code, h x w its cells, K codes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from wamlab.generative.flow import masked_mean
from wamlab.generative.noise import fill_absent, noise_like
from wamlab.nn.mobilenet import as_imagenet, pretrained
from wamlab.nn.vision import ResidualBlock
from wamlab.types import Refusal

STRIDE = 8
"""Pixels along a cell of the learned codecs' maps."""
LOG_VARIANCE_AT_START = -6.0
MEMORY = 100
"""Steps over which statistics of latents are averaged."""


class Codec(nn.Module):
    """Frames (*, 3, H, W) in [-1, 1] to codes (*, *shape), and where it can, back.

    ``name`` holds the version too: it changes when the same weights would mean something else.
    ``space`` is that of a future made of its codes. ``shape`` ends in the cells of a code's map:
    (C, h, w), or (h, w) where a cell is the index of a token.
    """

    name: ClassVar[str]
    space: ClassVar[str]

    def __init__(self, image_size: int, stride: int, channels: int | None) -> None:
        super().__init__()
        if image_size % stride:
            raise ValueError(
                f"image_size {image_size} must be a multiple of {stride}, a cell of {self.name!r}"
            )
        side = image_size // stride
        self.image_size, self.stride = image_size, stride
        self.shape = (side, side) if channels is None else (channels, side, side)

    @property
    def digest(self) -> str:
        """SHA-256 of the name, the shape and every weight and statistic."""
        total = hashlib.sha256(f"{self.name} {self.image_size} {self.shape}".encode())
        for name, value in sorted(self.state_dict().items()):
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            total.update(f"\0{name} {value.dtype} {tuple(value.shape)}\0".encode() + raw.tobytes())
        return total.hexdigest()

    def encode(self, frames: Float[Tensor, "*lead 3 h w"]) -> Shaped[Tensor, "..."]:
        """The code of each frame: the same whenever it is asked for, nothing is drawn."""
        flat = frames.reshape(-1, *frames.shape[-3:])
        return self._encode(flat).reshape(*frames.shape[:-3], *self.shape)

    def decode(self, codes: Shaped[Tensor, "..."]) -> Float[Tensor, "*lead 3 h w"]:
        """The frames of codes, not clipped to [-1, 1].

        Raises:
            Refusal: this codec has no way back.
        """
        lead, size = codes.shape[: -len(self.shape)], self.image_size
        return self._decode(codes.reshape(-1, *self.shape)).reshape(*lead, 3, size, size)

    def _encode(self, frames: Float[Tensor, "n 3 h w"]) -> Shaped[Tensor, "n *shape"]:
        raise NotImplementedError

    def _decode(self, codes: Shaped[Tensor, "n *shape"]) -> Float[Tensor, "n 3 h w"]:
        raise Refusal(f"{self.name} keeps {self.space}, from which no pixels can be made")


class Pixels(Codec):
    """Square patches of pixels as the channels of a cell; nothing is lost, decoding is exact."""

    name, space = "pixels", "pixels"

    def __init__(self, image_size: int, patch: int = 1) -> None:
        super().__init__(image_size, patch, 3 * patch**2)

    def _encode(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h2 w2"]:
        return F.pixel_unshuffle(frames, self.stride)

    def _decode(self, codes: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h2 w2"]:
        return F.pixel_shuffle(codes, self.stride)


class KL(Codec):
    """A small convolutional autoencoder with a normal posterior in each cell (arXiv 1312.6114).

    The weight of its KL divergence is small (as in arXiv 2112.10752, section 3.1): it keeps latents
    near each other, not near a standard normal. A code is the posterior's mean, standardised.
    """

    name, space = "kl/1", "latent"

    def __init__(
        self, image_size: int, *, channels: int = 8, width: int = 16, weight: float = 1e-4
    ) -> None:
        super().__init__(image_size, STRIDE, channels)
        self.weight = weight
        self.encoder, self.decoder = Encoder(width, 2 * channels), Decoder(channels, width)
        self.standard = Standard(channels)
        with torch.no_grad():
            # Noise as large as the untrained means would hide them from the decoder.
            self.encoder.bias[channels:] = LOG_VARIANCE_AT_START

    def loss(
        self,
        frames: Float[Tensor, "b t 3 h w"],
        recorded: Bool[Tensor, "b t"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """``loss``, and of it ``reconstruction`` (mean square) and ``kl`` (nats an entry)."""
        frames = fill_absent(frames, recorded)
        mean, log_variance = self.encoder(frames.flatten(0, 1)).chunk(2, dim=1)
        log_variance = log_variance.clamp(-20, 10)
        if self.training:
            self.standard.follow(mean.detach()[recorded.flatten()])
        latent = mean + (log_variance / 2).exp() * noise_like(mean, generator)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
        kl = masked_mean(kl.unflatten(0, recorded.shape), recorded)
        drawn = self.decoder(latent).unflatten(0, recorded.shape)
        reconstruction = masked_mean((drawn - frames).square(), recorded)
        loss = reconstruction + self.weight * kl
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}

    def _encode(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h2 w2"]:
        return self.standard(self.encoder(frames).chunk(2, dim=1)[0])

    def _decode(self, codes: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h2 w2"]:
        return self.decoder(self.standard.undo(codes))


class VQ(Codec):
    """A small tokeniser: each cell is the nearest of K learned vectors (arXiv 1711.00937).

    The codebook follows the encoder as a moving average (there, appendix A.1) and the gradient of
    the decoder passes straight through the choice. A code on which nothing fell for long, at first
    every one, is put where one of the batch's cells lies.
    """

    name, space = "vq/1", "tokens"
    codebook: Float[Tensor, "k c"]
    usage: Float[Tensor, " k"]
    sums: Float[Tensor, "k c"]

    def __init__(
        self,
        image_size: int,
        *,
        codes: int = 256,
        channels: int = 16,
        width: int = 16,
        commitment: float = 0.25,
        decay: float = 0.99,
        least: float = 0.3,
    ) -> None:
        """``least``: cells a step, on average, below which a code is put elsewhere."""
        super().__init__(image_size, STRIDE, None)
        self.commitment, self.decay, self.least = commitment, decay, least
        self.encoder, self.decoder = Encoder(width, channels), Decoder(channels, width)
        self.register_buffer("codebook", torch.zeros(codes, channels))
        self.register_buffer("usage", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, channels))

    def loss(
        self,
        frames: Float[Tensor, "b t 3 h w"],
        recorded: Bool[Tensor, "b t"],
        generator: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """``loss``, ``reconstruction``, ``commitment`` (mean squares), and ``codes`` in use."""
        frames = fill_absent(frames, recorded)
        cells = rearrange(self.encoder(frames.flatten(0, 1)), "n c h w -> n h w c")
        seen = cells.detach()[recorded.flatten()].flatten(0, 2)
        learns = self.training and len(seen) > 0
        if learns:
            self._revive(seen, generator)
        nearest = self.codebook[self.nearest(cells)]
        if learns:
            self._follow(seen)
        straight = cells + (nearest - cells).detach()
        drawn = self.decoder(rearrange(straight, "n h w c -> n c h w"))
        drawn = drawn.unflatten(0, recorded.shape)
        reconstruction = masked_mean((drawn - frames).square(), recorded)
        apart = (cells - nearest).square().unflatten(0, recorded.shape)
        commitment = masked_mean(apart, recorded)
        loss = reconstruction + self.commitment * commitment
        used = (self.usage >= self.least).sum().float()
        return {
            "loss": loss, "reconstruction": reconstruction, "commitment": commitment, "codes": used
        }  # fmt: skip

    def nearest(self, cells: Float[Tensor, "*cells c"]) -> Int[Tensor, "*cells"]:
        """The index of the code that is nearest to each cell."""
        flat = cells.reshape(-1, cells.shape[-1])
        return torch.cdist(flat.float(), self.codebook).argmin(-1).reshape(cells.shape[:-1])

    @torch.no_grad()
    def _revive(self, seen: Float[Tensor, "n c"], generator: torch.Generator) -> None:
        rows = (len(self.usage),)
        drawn = torch.randint(len(seen), rows, generator=generator, device=generator.device)
        chosen = seen[drawn.to(seen.device)]
        dead = self.usage < self.least
        self.usage.masked_fill_(dead, 1.0)
        for kept in (self.codebook, self.sums):
            kept.copy_(torch.where(dead[:, None], chosen, kept))

    @torch.no_grad()
    def _follow(self, seen: Float[Tensor, "n c"]) -> None:
        with torch.autocast(seen.device.type, enabled=False):
            chosen = F.one_hot(self.nearest(seen), len(self.usage)).float()
            self.usage.lerp_(chosen.sum(0), 1 - self.decay)
            self.sums.lerp_(chosen.T @ seen, 1 - self.decay)
            self.codebook.copy_(self.sums / self.usage[:, None])

    def _encode(self, frames: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n h2 w2"]:
        return self.nearest(rearrange(self.encoder(frames), "n c h w -> n h w c"))

    def _decode(self, codes: Int[Tensor, "n h w"]) -> Float[Tensor, "n 3 h2 w2"]:
        return self.decoder(rearrange(self.codebook[codes], "n h w c -> n c h w"))


class Features(Codec):
    """Frozen features of MobileNetV2: the last block at a sixteenth of the size, standardised.

    Args:
        weights: a torchvision state dict; the installed package's own when None.

    Raises:
        MissingWeights: no file is given and none was converted; the message says how.
    """

    name, space = "mobilenet_v2/1", "features"
    BLOCKS, CHANNELS, CELL = 14, 96, 16

    def __init__(self, image_size: int, weights: str | Path | None = None) -> None:
        super().__init__(image_size, self.CELL, self.CHANNELS)
        self.trunk = pretrained(weights).features[: self.BLOCKS].requires_grad_(False)
        self.standard = Standard(self.CHANNELS)

    def train(self, mode: bool = True) -> Features:
        """Frozen: its normalisation never learns, whatever the mode."""
        return super().train(False)

    def fit(self, frames: Float[Tensor, "n 3 h w"]) -> None:
        """Let frames of the dataset say what the mean and the size of features are."""
        self.standard.follow(self.trunk(as_imagenet(frames)))

    def _encode(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h2 w2"]:
        return self.standard(self.trunk(as_imagenet(frames)).float())


class Standard(nn.Module):
    """Codes of about zero mean and unit size per channel, by statistics of what was seen.

    Noise of a diffusion or flow model has unit size; beside latents of another size its levels
    would mean something else, and a clip at 1 would cut them off.
    """

    seen: Float[Tensor, ""]
    mean: Float[Tensor, "c 1 1"]
    square: Float[Tensor, "c 1 1"]

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("square", torch.ones(channels, 1, 1))

    @torch.no_grad()
    def follow(self, x: Float[Tensor, "n c h w"]) -> None:
        """Take these into the statistics: a plain average at first, then over `MEMORY` steps."""
        if not len(x):
            return
        self.seen += 1
        weight = torch.clamp(1 / self.seen, min=1 / MEMORY)
        self.mean.lerp_(x.mean((0, 2, 3))[:, None, None], weight)
        self.square.lerp_(x.square().mean((0, 2, 3))[:, None, None], weight)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return (x - self.mean) / self._size()

    def undo(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x * self._size() + self.mean

    def _size(self) -> Float[Tensor, "c 1 1"]:
        return (self.square - self.mean.square()).clamp(min=1e-6).sqrt()


class Encoder(nn.Module):
    """Frames to a map of an eighth of their size."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, width, 3, padding=1),
            ResidualBlock(width, 2 * width, stride=2),
            ResidualBlock(2 * width, 4 * width, stride=2),
            nn.Conv2d(4 * width, channels, 1),
        )

    @property
    def bias(self) -> Float[Tensor, " c"]:
        """Of the last layer."""
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        return last.bias

    def forward(self, frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h2 w2"]:
        return self.layers(frames.contiguous(memory_format=torch.channels_last)).float()


class Decoder(nn.Module):
    """A map to frames of eight times its size."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 4 * width, 3, padding=1),
            ResidualBlock(4 * width, 4 * width),
            nn.Conv2d(4 * width, 8 * width, 1),
            nn.PixelShuffle(2),
            ResidualBlock(2 * width, 2 * width),
            nn.Conv2d(2 * width, 4 * width, 1),
            nn.PixelShuffle(2),
            ResidualBlock(width, width),
            nn.Conv2d(width, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, codes: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h2 w2"]:
        return self.layers(codes.contiguous(memory_format=torch.channels_last)).float()
