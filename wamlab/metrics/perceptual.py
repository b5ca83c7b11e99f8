"""Imagined frames beside executed ones to a frozen network: LPIPS, and distances of features.

Everything is compared at the resolution of the prediction; what an extractor does to it stands in
``details`` (``frames``). Frames lie in [0, 1] or are uint8; networks are fed as their papers say.
Beside each number stands what the frame now scores, were it shown instead (``last frame``): without
it none of them means anything.

LPIPS over what moves takes the moving mask of `wamlab.metrics.visual`. It is not the LPIPS of a
picture: a network's features see far, so that it says where a difference is felt.

Feature distances compare the sets of all imagined and all executed frames of the own branches. N is
that of frames, and stands in every result; frames of one state are alike, so N says too much:
``states`` stands beside it, and is what a noise floor, a warning and an interval are of.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from wamlab.metrics.base import (
    NotApplicable,
    Played,
    Result,
    Row,
    imagining,
    metric,
    rollout_name,
    state_name,
    summarise,
    who_played,
    why_nothing_imagined,
)
from wamlab.metrics.extractors import Remembering, make_extractor
from wamlab.metrics.features import (
    Comparison,
    Extractor,
    Features,
    Moments,
    centred_distance,
    extract,
    fd,
    fd_infinity,
    similarity,
)
from wamlab.metrics.kernels import kernel_distance as mean_over_blocks
from wamlab.metrics.visual import (
    FEWEST_PIXELS,
    MOVE_FLOOR,
    Compared,
    compared,
    executed,
    named,
    pairs,
    unit,
)
from wamlab.types import Episode, Probe

BATCH = 32
BLOCKS = 10
DEFAULT = "AlexNet"
"""The extractor of feature distances, unless one is given: its 256 features suit the hundreds of
frames that probes hold, and LPIPS needs its weights anyway."""

Measure = Callable[[Features, Features, Sequence[str]], Comparison]


@dataclass(frozen=True)
class Pair:
    """An imagined frame beside the executed one, and the state or episode they belong to."""

    item: str
    part: str
    frames: Compared


@metric("lpips", needs="probes")
def lpips(probes: Sequence[Probe], *, network: str = "alex", net: Any = None) -> Result:
    """LPIPS of whole imagined frames against what happened, ``LPIPS-<network>``; lower is better.

    Args:
        network: ``alex`` or ``vgg``.
        net: a `wamlab.nn.lpips.LPIPS`; the published one of ``network`` when None.
    """
    return _perceived("LPIPS", _in_probes(probes), network, net)


@metric("moving_lpips", needs="probes")
def moving_lpips(probes: Sequence[Probe], *, network: str = "alex", net: Any = None) -> Result:
    """LPIPS over the places that moved in reality or in the imagination; options as `lpips`."""
    return _perceived("moving-LPIPS", _in_probes(probes), network, net, moving=True)


@metric("acting_lpips", needs="episodes")
def acting_lpips(episodes: Sequence[Episode], *, network: str = "alex", net: Any = None) -> Result:
    """LPIPS of what was imagined while acting against what arrived; options as `lpips`.

    Only offsets up to the next plan count: beyond them other actions were executed.
    """
    played = who_played(episodes)
    return _perceived("acting-LPIPS", _in_episodes(episodes), network, net, played=played)


@metric("frechet_distance", needs="probes")
def frechet_distance(
    probes: Sequence[Probe], *, extractor: str | Extractor = DEFAULT, view: str = ""
) -> Result:
    """The Frechet distance of imagined from executed frames, ``FD-<extractor>``.

    Args:
        extractor: an extractor, or the name of one that needs no file (see `make_extractor`).
        view: only this view; all when empty.
    """

    def measure(real: Features, shown: Features, states: Sequence[str]) -> Comparison:
        return fd(Moments.of(real), Moments.of(shown), states=len(set(states)))

    return _over_sets(probes, extractor, view, measure)


@metric("frechet_infinity", needs="probes")
def frechet_infinity(
    probes: Sequence[Probe], *, extractor: str | Extractor = DEFAULT, view: str = ""
) -> Result:
    """The Frechet distance that endlessly many states would have, ``FD-infinity-<extractor>``.

    Options as `frechet_distance`. Below 0 by chance where there is none.
    """
    return _over_sets(probes, extractor, view, fd_infinity)


@metric("kernel_distance", needs="probes")
def kernel_distance(
    probes: Sequence[Probe],
    *,
    extractor: str | Extractor = DEFAULT,
    view: str = "",
    kernel: str = "cubic",
) -> Result:
    """The unbiased MMD^2 of imagined from executed frames, ``MMD-<kernel>-<extractor>``.

    Pairs of one state are left out, blocks are whole states; options as `frechet_distance`.
    """

    def measure(real: Features, shown: Features, states: Sequence[str]) -> Comparison:
        count = len(set(states))
        if count < 4:
            raise NotApplicable(f"{count} states, expected 4 or more: two blocks of two")
        blocks = min(BLOCKS, count // 2)
        return mean_over_blocks(real, shown, kernel=kernel, blocks=blocks, states=states)

    return _over_sets(probes, extractor, view, measure)


@metric("feature_similarity", needs="probes")
def feature_similarity(
    probes: Sequence[Probe], *, extractor: str | Extractor = DEFAULT, view: str = ""
) -> Result:
    """The mean cosine of each imagined frame with the executed one, ``cosine-<extractor>``.

    On DINOv2 this is DINO similarity. Options as `frechet_distance`.
    """
    return _over_sets(probes, extractor, view, similarity)


@metric("feature_distance", needs="probes")
def feature_distance(
    probes: Sequence[Probe], *, extractor: str | Extractor = DEFAULT, view: str = ""
) -> Result:
    """The mean centred distance of each imagined frame from the executed one.

    Called ``centred-distance-<extractor>``; on DreamSim's ensemble this is DreamSim. Options as
    `frechet_distance`.
    """
    return _over_sets(probes, extractor, view, centred_distance)


def _in_probes(probes: Sequence[Probe]) -> Iterator[Pair]:
    if not any(imagining(probe) for probe in probes):
        raise NotApplicable(why_nothing_imagined(probes))
    for probe in probes:
        for part, frames in pairs(probe):
            yield Pair(state_name(probe), part, frames)


def _in_episodes(episodes: Sequence[Episode]) -> Iterator[Pair]:
    """What each plan imagined of the time up to the next one."""
    told = False
    for episode in episodes:
        name = rollout_name(episode)
        plans = episode.replans
        for plan, following in zip(plans, [*plans[1:], None], strict=False):
            end = len(episode) if following is None else following.step
            if not plan.imagined or plan.imagined_offsets is None:
                continue
            offsets = np.asarray(plan.imagined_offsets)
            lived = plan.step + offsets <= end
            for view, shown in plan.imagined.items():
                if view not in episode.frames:
                    raise NotApplicable(f"no frames of view {view!r} were kept in the episodes")
                arrived = episode.frames[view][plan.step + offsets[lived]]
                now, seen = episode.frames[view][plan.step], shown[lived]
                for part, frames in compared(
                    view, offsets[lived], now, seen, arrived, seen, MOVE_FLOOR, item=name
                ):
                    told = True
                    yield Pair(name, part, frames)
    if not told:
        raise NotApplicable("no plan of these episodes imagined a frame up to the next plan")


def _perceived(
    name: str,
    found: Iterator[Pair],
    network: str,
    net: Any,
    *,
    moving: bool = False,
    played: Played | None = None,
) -> Result:
    """LPIPS of all pairs and, beside it, of the frame now in the imagination's place."""
    net = _published(network) if net is None else net
    every = [*found]
    whole = [pair for pair in every if not moving or pair.frames.moving.sum() >= FEWEST_PIXELS]
    few = [f"fewer than {FEWEST_PIXELS} such pixels in a frame"] * (len(every) - len(whole))
    if not whole:
        raise NotApplicable(f"{few[0]} ({len(few)})")
    sizes = dict.fromkeys(pair.frames.real.shape[:2] for pair in whole)
    rows: list[Row] = []
    still: list[Row] = []
    for size in sizes:
        group = [pair for pair in whole if pair.frames.real.shape[:2] == size]
        for start in range(0, len(group), BATCH):
            batch = group[start : start + BATCH]
            shown, now = _distances(net, [pair.frames for pair in batch], moving)
            rows += [Row(p.item, p.part, float(d)) for p, d in zip(batch, shown, strict=True)]
            still += [Row(p.item, p.part, float(d)) for p, d in zip(batch, now, strict=True)]
    seen = " and ".join(f"{width} x {height} pixels, not resized" for height, width in sizes)
    unmoved = summarise("", "", still, played=played).value
    details = {"frames": seen, "last frame": unmoved}
    return summarise(f"{name}-{net.network}", "", rows, few, played=played, details=details)


def _distances(
    net: Any, batch: Sequence[Compared], moving: bool
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """LPIPS of what was shown, and of the frame now, from what is real."""
    import torch

    def tensor(frames: Sequence[np.ndarray]) -> Any:
        return torch.tensor(np.stack(frames), dtype=torch.float32).permute(0, 3, 1, 2) * 2 - 1

    real = tensor([one.real for one in batch])
    masks = torch.tensor(np.stack([one.moving for one in batch]))[:, None] if moving else None
    found = []
    with torch.inference_mode():
        for side in ([one.shown for one in batch], [one.now for one in batch]):
            try:
                found.append(net(tensor(side), real, masks).reshape(-1).double().numpy())
            except ValueError as reason:
                raise NotApplicable(str(reason)) from None
    return found[0], found[1]


def _published(network: str) -> Any:
    from wamlab.nn.weights import MissingWeights, folder

    try:
        return _loaded(network, folder())
    except MissingWeights as reason:
        raise NotApplicable(str(reason)) from None


@functools.cache
def _loaded(network: str, folder: Path) -> Any:
    """The published network from where its weights lie now."""
    from wamlab.nn.lpips import pretrained

    return pretrained(network)


def _over_sets(
    probes: Sequence[Probe], extractor: str | Extractor, view: str, measure: Measure
) -> Result:
    """A measure of the imagined against the executed frames, with that of the frame now beside."""
    from wamlab.nn.weights import MissingWeights

    try:
        named = make_extractor(extractor) if isinstance(extractor, str) else extractor
    except MissingWeights as reason:
        raise NotApplicable(str(reason)) from None
    network = named if isinstance(named, Remembering) else Remembering(named)
    sets = _sets(probes, network, view)
    try:
        true = extract(network, sets.real)
        shown, now = (extract(network, frames) for frames in (sets.shown, sets.now))
        found, still = (measure(true, side, sets.states) for side in (shown, now))
    except (MissingWeights, ValueError) as reason:
        raise NotApplicable(str(reason)) from None
    details = {**found.details, "states": len(set(sets.states)), "last frame": still.value}
    return dataclasses.replace(found, details=details)


Stack = Shaped[np.ndarray, "n *t h w 3"]


@dataclass(frozen=True)
class Sets:
    """Executed and imagined frames (or clips), the frames now, and the state of each."""

    real: Stack
    shown: Stack
    now: Stack
    states: list[str]


def _sets(probes: Sequence[Probe], extractor: Extractor, view: str) -> Sets:
    """What an extractor is to read of all own branches."""
    if not any(imagining(probe) for probe in probes):
        raise NotApplicable(why_nothing_imagined(probes))
    clips = [*_clips(probes, view)]
    if not clips:
        raise NotApplicable(f"nothing was imagined of view {view!r}" if view else "no frame ahead")
    states = [state for state, *_ in clips]
    shapes = sorted({one.shape for _, *sides in clips for one in sides})
    if len(shapes) > 1:
        raise NotApplicable(f"frames of several shapes, {shapes}: give one view")
    count = shapes[0][0]
    if 0 < count < extractor.shortest:
        wanted = f"{extractor.name} reads clips of {extractor.shortest} frames or more"
        raise NotApplicable(f"{wanted}; {count} were imagined")
    join = np.stack if extractor.shortest else np.concatenate
    real, shown, now = (join([clip[side] for clip in clips]) for side in (1, 2, 3))
    labels = states if extractor.shortest else [s for s in states for _ in range(count)]
    return Sets(real, shown, now, labels)


def _clips(
    probes: Sequence[Probe], view: str
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """State, executed, imagined and unmoved frames ahead, of each own branch and view."""
    for probe in probes:
        for branch in imagining(probe):
            ahead = branch.offsets > 0
            for name, imagined in (branch.imagined or {}).items():
                if (not view or name == view) and ahead.any():
                    sides = {
                        "real": executed(probe, branch, name)[ahead],
                        "imagined": imagined[ahead],
                    }
                    real, shown = (
                        _bytes(unit(side, named(state_name(probe), name, f"{which} frames")))
                        for which, side in sides.items()
                    )
                    now = np.repeat(_bytes(unit(probe.now[name])), len(real), axis=0)
                    yield state_name(probe), real, shown, now


def _bytes(frames: Float[np.ndarray, "n h w 3"]) -> Shaped[np.ndarray, "n h w 3"]:
    return np.rint(255 * frames).astype(np.uint8)
