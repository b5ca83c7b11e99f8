"""Frames as pictures that live inside the page: filmstrips, and animations that loop."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from jaxtyping import Int, Shaped, UInt8
from PIL import Image

from wamlab.metrics.base import imagining, state_name
from wamlab.types import Episode, Guess, Probe, Recording

COLUMNS = 8
HOLD_MS = (900, 700, 1100)
ROLLOUT_FRAMES = 48
GAP = 2
SHEET_QUALITY = 88


@dataclass(frozen=True)
class Strip:
    """One view of one imagination: a filmstrip above, the real one below, and both moving."""

    view: str
    instants: list[str]
    imagined: str
    real: str
    moving: str
    still: str


@dataclass(frozen=True)
class Card:
    """One state as it is shown."""

    state: str
    env: str
    instruction: str
    strips: list[Strip]


def card(probe: Probe, sample: int = 0) -> Card:
    """The pictures of one probe's own branch that imagines."""
    branch = imagining(probe)[sample]
    strips = [
        _strip(view, probe.now[view][:1], imagined, branch.happened[view], branch.offsets)
        for view, imagined in (branch.imagined or {}).items()
    ]
    return Card(state_name(probe), probe.env, probe.instruction, strips)


def recorded_card(recording: Recording, query: str) -> Card:
    """The pictures of what a query imagined at a recorded instant."""
    guess = recording.guesses.get(query, Guess())
    offsets = guess.offsets if guess.offsets is not None else recording.offsets
    columns = [recording.offsets.tolist().index(offset) for offset in offsets]
    strips = [
        _strip(view, recording.now[view][:1], imagined, recording.ahead[view][columns], offsets)
        for view, imagined in (guess.imagined or {}).items()
    ]
    name = f"{recording.env}, episode {recording.episode}, step {recording.step}"
    return Card(name, recording.env, recording.instruction, strips)


def _strip(
    view: str,
    now: UInt8[np.ndarray, "1 h w 3"],
    imagined: Shaped[np.ndarray, "t h w 3"],
    happened: UInt8[np.ndarray, "t h w 3"],
    offsets: Int[np.ndarray, " t"],
) -> Strip:
    kept = _evenly(len(offsets), COLUMNS)
    seen = np.concatenate([now, as_bytes(imagined)[kept]])
    real = np.concatenate([now, happened[kept]])
    both = above(seen, real)
    instants = ["now", *(f"+{offsets[t]}" for t in kept)]
    return Strip(
        view, instants, png(filmstrip(seen)), png(filmstrip(real)), webp(both), png(both[-1])
    )


def rollout(episode: Episode) -> tuple[str, str]:
    """An episode as a looping animation of all views side by side, and its last frame."""
    frames = np.concatenate(list(episode.frames.values()), axis=2)
    frames = frames[_evenly(len(frames), ROLLOUT_FRAMES)]
    return webp(frames, hold=[80] * (len(frames) - 1) + [1200], lossless=False), png(frames[-1])


def above(
    upper: UInt8[np.ndarray, "t h w 3"], lower: UInt8[np.ndarray, "t h w 3"]
) -> UInt8[np.ndarray, "t h2 w 4"]:
    """Two films, one above the other, with a transparent gap between."""
    spaced = np.pad(_opaque(upper), ((0, 0), (0, GAP), (0, 0), (0, 0)))
    return np.concatenate([spaced, _opaque(lower)], axis=1)


def filmstrip(frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "h w2 4"]:
    """Frames from left to right with a transparent gap between."""
    spaced = np.pad(_opaque(frames), ((0, 0), (0, 0), (0, GAP), (0, 0)))
    return rearrange(spaced, "t h w c -> h (t w) c")[:, :-GAP]


def sheet(frames: UInt8[np.ndarray, "t h w 3"]) -> str:
    """Frames from left to right without a gap, as one picture."""
    return picture(rearrange(frames, "t h w c -> h (t w) c"))


def picture(frame: UInt8[np.ndarray, "h w 3"]) -> str:
    """A frame as the address of a WebP inside the page: small, and true to a few grey levels."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "WEBP", quality=SHEET_QUALITY, method=6)
    return _address("webp", file)


def png(frame: UInt8[np.ndarray, "..."]) -> str:
    """A frame (h, w, c), or a map (h, w), as the address of a PNG inside the page."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG", optimize=True)
    return _address("png", file)


def webp(
    frames: UInt8[np.ndarray, "t h w c"], hold: Sequence[int] | None = None, lossless: bool = True
) -> str:
    """Frames as the address of an animation that loops for ever; ``hold`` in ms per frame."""
    first, middle, last = HOLD_MS
    pictures = [Image.fromarray(frame) for frame in frames]
    file = io.BytesIO()
    pictures[0].save(
        file,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=list(hold or [first, *[middle] * (len(frames) - 2), last][: len(frames)]),
        loop=0,
        lossless=lossless,
        quality=80,
    )
    return _address("webp", file)


def as_bytes(frames: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
    """Frames as uint8; floats are taken to lie in [0, 1]."""
    if frames.dtype == np.uint8:
        return frames
    return np.rint(255 * np.clip(frames, 0, 1)).astype(np.uint8)


def _opaque(frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h w 4"]:
    return np.concatenate([frames, np.full_like(frames[..., :1], 255)], axis=-1)


def _evenly(n: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist()


def _address(kind: str, file: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
