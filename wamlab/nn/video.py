"""One factorised video denoiser, for every system that imagines by diffusion in pixels.

Frames are noised together (one level per clip) and denoised by a network that looks over the places
of an instant, then over the instants of a place (Ho et al., arXiv 2204.03458), reads the
instruction by cross-attention, and has the frames that a clip is generated from beside the noise at
every instant. Its layers are named, and any of them can be read instead of the frames (`taps`).

What is drawn. A frame is mostly the frame before. So clips are denoised about a ``centre``, the
frame that is left if nothing moves, and per pixel the network says three things: what moved, the
content there, and how far to trust what is seen through the noise:

    D(x) = centre + moved (keep (x - centre) + (1 - keep) content),    keep = trust skip

With ``moved = trust = 1`` this is the expectation of data N(centre + content, sigma_data^2), and
``skip``, the input and the level are EDM's. Its remaining factor ``out`` is not used, and the plain
squared error is minimised instead of EDM's weighted one: both ask the network for the noise itself,
768 numbers to a token of 192, which shows up in the frames when they cannot be had.

Shape legend: B rows, V views, T instants, C channels, H x W pixels, P places (tokens) of a frame,
D width, L words of the instruction, S width of their embedding, M channels of a map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from wamlab.config import nearest
from wamlab.generative import diffusion, flow
from wamlab.generative.noise import fill_absent, noise_like
from wamlab.nn.transformer import attention, mlp, sinusoids
from wamlab.types import Denoised, Text

CELL = 4  # pixels along a cell of the maps that are drawn from
PATCH = 16  # pixels along a token
MOVED_AT_START = -4.0
DRAWN = "drawn"
DRAWS = 5  # content in three colours, what moved, what is trusted


class Shown(NamedTuple):
    """What a clip is generated from: frames at every instant, and the words of the instruction.

    ``centre`` is the frame that is left if nothing moves; ``known`` are the views whose first frame
    there is (both are grey where it is not), ``heard`` the words that may be read.
    """

    frames_BVTCHW: Float[Tensor, "b v t c h w"]
    centre_BVTCHW: Float[Tensor, "b v t 3 h w"]
    known_BV: Bool[Tensor, "b v"]
    words_BLS: Float[Tensor, "b l s"]
    heard_BL: Bool[Tensor, "b l"]


class Attention(nn.Module):
    """Tokens that read a source, which may be themselves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x_BLD: Float[Tensor, "b l d"],
        source_BMD: Float[Tensor, "b m d"],
        mask: Bool[Tensor, "b 1 1 m"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        q = rearrange(self.q(x_BLD), "b l (h d) -> b h l d", h=self.heads)
        k, v = rearrange(self.kv(source_BMD), "b m (n h d) -> n b h m d", n=2, h=self.heads)
        return self.out(rearrange(attention(q, k, v, mask), "b h l d -> b l (h d)"))


class SpaceTimeBlock(nn.Module):
    """Attention over space, over time and to the words, then an MLP.

    All but the reading of words are scaled, shifted and gated by the level. The modulation is the
    same for all blocks but for a table (adaLN-single, Chen et al., arXiv 2310.00426).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.table = nn.Parameter(torch.zeros(9, width))
        self.space = Attention(width, heads)
        self.time = Attention(width, heads)
        self.read = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        nn.init.zeros_(self.read.out.weight)
        nn.init.zeros_(self.read.out.bias)

    def forward(
        self,
        x_BVTPD: Float[Tensor, "b v t p d"],
        modulation_B9D: Float[Tensor, "b 9 d"],
        words_BLD: Float[Tensor, "b l d"],
        heard: Bool[Tensor, "b 1 1 l"],
    ) -> Float[Tensor, "b v t p d"]:
        v, t, p = x_BVTPD.shape[1:4]
        modulation = (modulation_B9D + self.table)[:, :, None, None, None].unbind(1)
        (shift1, scale1, gate1), (shift2, scale2, gate2), (shift3, scale3, gate3) = (
            modulation[i : i + 3] for i in (0, 3, 6)
        )
        h = rearrange(self.norm(x_BVTPD) * (1 + scale1) + shift1, "b v t p d -> (b t) (v p) d")
        h = rearrange(self.space(h, h), "(b t) (v p) d -> b v t p d", t=t, v=v)
        x_BVTPD = x_BVTPD + gate1 * h
        h = rearrange(self.norm(x_BVTPD) * (1 + scale2) + shift2, "b v t p d -> (b v p) t d")
        h = rearrange(self.time(h, h), "(b v p) t d -> b v t p d", v=v, p=p)
        x_BVTPD = x_BVTPD + gate2 * h
        h = rearrange(self.norm(x_BVTPD), "b v t p d -> b (v t p) d")
        h = rearrange(self.read(h, words_BLD, heard), "b (v t p) d -> b v t p d", v=v, t=t)
        x_BVTPD = x_BVTPD + h
        return x_BVTPD + gate3 * self.mlp(self.norm(x_BVTPD) * (1 + scale3) + shift3)


class VideoNetwork(nn.Module):
    """The network F: the change of a clip, noised, to named feature maps, of which the last is F.

    In order: ``stem``, ``block1`` ... ``blockN`` (a place is a token), ``up`` (a place is a cell of
    4 x 4 pixels) and ``drawn``: content and, as logits, what moved and what is trusted. Nothing
    after the last map that is asked for is computed.

    Args:
        conditions: frames that are shown beside the noise at every instant.
    """

    def __init__(
        self,
        views: int,
        instants: int,
        *,
        image_size: int,
        text_dim: int,
        conditions: int = 1,
        width: int = 192,
        depth: int = 4,
        heads: int = 3,
        paint_width: int = 64,
        level_width: int = 64,
    ) -> None:
        super().__init__()
        if image_size % PATCH:
            raise ValueError(f"image_size {image_size} is not a multiple of the patch {PATCH}")
        self.side, cells = image_size // PATCH, PATCH // CELL
        pixels, half = 3 * (1 + conditions) * CELL**2, width // 2
        self.names = ("stem", *(f"block{i + 1}" for i in range(depth)), "up", DRAWN)
        self.level_width, self.spread_by = level_width, {"p": cells, "q": cells}
        self.enter = nn.Conv2d(pixels, paint_width, 1)
        self.stem = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(paint_width, half, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(half, width, 3, stride=2, padding=1),
        )
        self.no_frame = nn.Parameter(0.02 * torch.randn(width))
        self.place = nn.Parameter(0.02 * torch.randn(views, 1, self.side**2, width))
        self.instant = nn.Parameter(0.02 * torch.randn(instants, 1, width))
        self.norm_words = nn.LayerNorm(text_dim, elementwise_affine=False)
        self.hear = nn.Linear(text_dim, width)
        self.silence = nn.Parameter(0.02 * torch.randn(width))
        self.condition = mlp(level_width + width, width, width)
        self.modulate = nn.Linear(width, 9 * width)
        self.blocks = nn.ModuleList(SpaceTimeBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.spread = nn.Linear(width, paint_width * cells**2)
        self.mix = nn.Conv2d(paint_width, paint_width, 3, padding=1)
        self.draw = nn.Conv2d(paint_width, DRAWS * CELL**2, 3, padding=1)
        for zero in (self.modulate, self.draw):
            nn.init.zeros_(zero.weight)
            assert zero.bias is not None
            nn.init.zeros_(zero.bias)

    @property
    def tokens(self) -> int:
        """Tokens of one clip."""
        views, _, places, _ = self.place.shape
        return views * len(self.instant) * places

    def channels(self, name: str) -> int:
        """How many channels the map of this name has."""
        self._check([name])
        sizes = {"up": self.mix.out_channels, DRAWN: DRAWS}
        return sizes.get(name, self.place.shape[-1])

    def side_of(self, name: str) -> int:
        """How many places of the map of this name lie along the side of a frame."""
        self._check([name])
        pixels = {"up": CELL, DRAWN: 1}
        return self.side * PATCH // pixels.get(name, PATCH)

    def forward(
        self,
        change_BVTCHW: Float[Tensor, "b v t 3 h w"],
        shown: Shown,
        noise_level: Float[Tensor, " b"],
        *,
        taps: Sequence[str] = (DRAWN,),
    ) -> dict[str, Float[Tensor, "b v t m y x"]]:
        """The maps of these names.

        Raises:
            KeyError: no map has this name, with the nearest that there is.
        """
        self._check(taps)
        found = {}
        for name, features in self._layers(change_BVTCHW, shown, noise_level):
            if name in taps:
                found[name] = features
            if len(found) == len(set(taps)):
                break
        return found

    def _layers(
        self, change_BVTCHW: Tensor, shown: Shown, noise_level: Tensor
    ) -> Iterator[tuple[str, Tensor]]:
        lead = dict(zip("bvt", change_BVTCHW.shape[:3], strict=True))
        frames = torch.cat([change_BVTCHW, shown.frames_BVTCHW], dim=3)
        cells = rearrange(frames, "b v t c (y p) (x q) -> (b v t) y x (c p q)", p=CELL, q=CELL)
        entered = self.enter(cells.permute(0, 3, 1, 2))
        x_BVTPD = rearrange(self.stem(entered), "(b v t) d y x -> b v t (y x) d", **lead)
        yield "stem", self._map(x_BVTPD)

        unknown_BV111 = ~shown.known_BV[:, :, None, None, None]
        x_BVTPD = x_BVTPD + self.place + self.instant + unknown_BV111 * self.no_frame
        words_BLD, heard = self._words(shown)
        known = [sinusoids(noise_level, self.level_width), _mean(words_BLD, heard)]
        condition = F.silu(self.condition(torch.cat(known, dim=-1)))
        modulation_B9D = self.modulate(condition).unflatten(1, (9, -1))
        for i, block in enumerate(self.blocks):
            x_BVTPD = block(x_BVTPD, modulation_B9D, words_BLD, heard[:, None, None])
            yield f"block{i + 1}", self._map(x_BVTPD)

        told = rearrange(
            self.spread(self.norm(x_BVTPD)),
            "b v t (y x) (p q m) -> (b v t) m (y p) (x q)",
            y=self.side,
            **self.spread_by,
        )
        met = (entered + told).contiguous(memory_format=torch.channels_last)
        up = F.silu(self.mix(F.silu(met)))
        yield "up", rearrange(up, "(b v t) m y x -> b v t m y x", **lead)
        drawn = F.pixel_shuffle(self.draw(up), CELL)
        yield DRAWN, rearrange(drawn, "(b v t) m y x -> b v t m y x", **lead)

    def _words(self, shown: Shown) -> tuple[Float[Tensor, "b words d"], Bool[Tensor, "b words"]]:
        """Embedded words behind a learned one that is always there: all that is left of no text."""
        words = fill_absent(shown.words_BLS, shown.heard_BL)
        told = self.hear(self.norm_words(words))
        silence = self.silence.to(told.dtype).expand(len(told), 1, -1)
        always = shown.heard_BL.new_ones(len(told), 1)
        return torch.cat([silence, told], 1), torch.cat([always, shown.heard_BL], 1)

    def _map(self, x_BVTPD: Float[Tensor, "b v t p d"]) -> Float[Tensor, "b v t d y x"]:
        return rearrange(x_BVTPD, "b v t (y x) d -> b v t d y x", y=self.side)

    def _check(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.names:
                raise KeyError(f"the video network has no map {name!r}{nearest(name, self.names)}")


class VideoDenoiser(nn.Module):
    """The preconditioned denoiser D of whole clips, and its training loss.

    ``sigma_data`` is the deviation of what moves, in pixels of [-1, 1]. Training levels are
    log-normal about twice of it (as Stable Video Diffusion's for data of deviation one, arXiv
    2311.15127), but a share ``highest`` of the rows is trained at the highest level, where sampling
    begins and features are read.
    """

    def __init__(
        self,
        network: VideoNetwork,
        *,
        sigma_data: float = 0.5,
        low: float = 0.05,
        high: float = 80.0,
        highest: float = 0.25,
    ) -> None:
        super().__init__()
        self.network = network
        self.sigma_data, self.low, self.high, self.highest = sigma_data, low, high, highest

    def forward(
        self, x_BVTCHW: Float[Tensor, "b v t 3 h w"], sigma: Float[Tensor, " b"], shown: Shown
    ) -> Float[Tensor, "b v t 3 h w"]:
        """The expected clean clip."""
        return self.read(x_BVTCHW, sigma, shown)[0]

    def read(
        self,
        x_BVTCHW: Float[Tensor, "b v t 3 h w"],
        sigma: Float[Tensor, " b"],
        shown: Shown,
        taps: Sequence[str] = (),
    ) -> tuple[Float[Tensor, "b v t 3 h w"], dict[str, Float[Tensor, "b v t m y x"]]]:
        """The expected clean clip and the maps of these names, from one call of the network."""
        change, maps = self._change(x_BVTCHW - shown.centre_BVTCHW, sigma, shown, taps)
        return shown.centre_BVTCHW + change, maps

    def foresee(
        self, noise_BVTCHW: Float[Tensor, "b v t 3 h w"], shown: Shown, taps: Sequence[str]
    ) -> dict[str, Float[Tensor, "b v t m y x"]]:
        """The maps of these names at the highest level: one call, no clip."""
        pre = diffusion.precondition(self.level(noise_BVTCHW, self.high), self.sigma_data)
        into = self.high * flow.like(pre.input, noise_BVTCHW) * noise_BVTCHW
        return self.network(into, shown, pre.noise, taps=taps)

    def begin(
        self, noise_BVTCHW: Float[Tensor, "b v t 3 h w"], shown: Shown
    ) -> Float[Tensor, "b v t 3 h w"]:
        """The clip at the highest level, from which a sampler starts."""
        return shown.centre_BVTCHW + self.high * noise_BVTCHW

    def levels(self, steps: int, stop: float = 0.0) -> list[float]:
        return diffusion.karras(steps, self.low, self.high, stop=stop)

    def loss(
        self,
        clip_BVTCHW: Float[Tensor, "b v t 3 h w"],
        present_BVT: Bool[Tensor, "b v t"],
        shown: Shown,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Denoising of the frames that are present, in units of ``sigma_data``.

        One level for all frames of a clip. An absent frame is noise at the final level; what lies
        there must be finite.
        """
        sigma = self._draw_levels(len(clip_BVTCHW), generator).to(clip_BVTCHW.device)
        noise = noise_like(clip_BVTCHW, generator)
        final = diffusion.precondition(sigma, self.sigma_data).input.reciprocal()
        level = torch.where(present_BVT, sigma[:, None, None], final[:, None, None])
        change = _each(present_BVT) * (clip_BVTCHW - shown.centre_BVTCHW)
        noisy = torch.addcmul(change, _each(level), noise)
        error_BVT = (self._change(noisy, sigma, shown)[0] - change).square().mean((-3, -2, -1))
        return flow.masked_mean(error_BVT.flatten(1), present_BVT.flatten(1)) / self.sigma_data**2

    def recovered(
        self,
        clip_BVTCHW: Float[Tensor, "b v t 3 h w"],
        present_BVT: Bool[Tensor, "b v t"],
        shown: Shown,
        *,
        counted_BVT: Bool[Tensor, "b v t"] | None = None,
        levels: Float[Tensor, " l"],
        generator: Sequence[torch.Generator],
    ) -> Denoised:
        """How well the change about the centre is recovered, at the flow levels within training's.

        All frames that are present are seen through the noise, those that are ``counted`` (None:
        the same) are measured.
        """
        change = fill_absent(clip_BVTCHW - shown.centre_BVTCHW, present_BVT)
        levels, sigmas = diffusion.trained_levels(levels, self.low, self.high)
        found = diffusion.recoveries(
            lambda x, sigma: self._change(x, self.level(x, sigma), shown)[0],
            change,
            present_BVT,
            sigmas=sigmas,
            sigma_data=self.sigma_data,
            generator=generator,
        )
        counted = present_BVT if counted_BVT is None else counted_BVT
        return flow.recovered(levels, found, change, counted)

    def _change(
        self, change_BVTCHW: Tensor, sigma: Tensor, shown: Shown, taps: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """From a noised change about the centre to the expected change, and the maps."""
        pre = diffusion.precondition(sigma, self.sigma_data)
        into = flow.like(pre.input, change_BVTCHW) * change_BVTCHW
        maps = self.network(into, shown, pre.noise, taps=(*taps, DRAWN))
        content, moved, trust = maps[DRAWN].float().split([3, 1, 1], dim=3)
        moved = torch.sigmoid(moved + MOVED_AT_START)
        kept = moved * flow.like(pre.skip, trust) * torch.sigmoid(trust)
        drawn = torch.addcmul(kept * change_BVTCHW, moved - kept, content)
        return drawn, {name: maps[name] for name in taps}

    def level(self, x: Float[Tensor, "b *rest"], sigma: float) -> Float[Tensor, " b"]:
        """One level for all rows of ``x``."""
        return x.new_full((len(x),), sigma)

    def _draw_levels(self, rows: int, generator: torch.Generator) -> Float[Tensor, " b"]:
        drawn = self.sigma_data * diffusion.log_normal(rows, 0.7, 1.6, generator=generator)
        coin = torch.rand(rows, generator=generator, device=generator.device)
        return torch.where(coin < self.highest, self.high, drawn.clamp(self.low, self.high))


def words_of(
    text: Text, heard_B: Bool[Tensor, " b"] | None = None
) -> tuple[Float[Tensor, "b l s"], Bool[Tensor, "b l"]]:
    """The words of each instruction and which may be read: none where a row does not hear.

    Raises:
        ValueError: the instructions carry no token embeddings.
    """
    if text.tokens is None or text.mask is None:
        raise ValueError("the instructions of this observation were not encoded word by word")
    return text.tokens, text.mask if heard_B is None else text.mask & heard_B[:, None]


def _each(x_BVT: Shaped[Tensor, "b v t"]) -> Shaped[Tensor, "b v t 1 1 1"]:
    return x_BVT[..., None, None, None]


def _mean(words_BLD: Float[Tensor, "b l d"], heard_BL: Bool[Tensor, "b l"]) -> Tensor:
    kept = heard_BL[..., None].to(words_BLD.dtype)
    return (words_BLD * kept).sum(1) / kept.sum(1)
