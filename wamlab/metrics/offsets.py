"""Where models are compared: at the offsets at which all of them imagine, and at no others.

A frame soon is easier to imagine than a late one: who imagines more often would be measured on an
easier mean. What a model imagines at offsets of its own stands in its own report alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from wamlab.metrics.base import imagining, state_name
from wamlab.metrics.visual import RivalFrames
from wamlab.types import Branch, Frames, Guess, Probe, Reading, Recording

COMMON = (8, 16)
"""At which the models of the recipes are compared, in steps."""

Offsets = Sequence[int] | Int[np.ndarray, " t"]


def shared(each: Iterable[Offsets]) -> tuple[int, ...]:
    """The offsets that all of these hold, rising; none of nothing."""
    sets = [{int(offset) for offset in offsets} for offsets in each]
    return tuple(sorted(set.intersection(*sets))) if sets else ()


def imagined_offsets(probes: Iterable[Probe]) -> tuple[int, ...]:
    """The offsets at which all of these imagine, of those that imagine anything."""
    return shared(branch.offsets for probe in probes for branch in imagining(probe))


def comparable(probes: Iterable[Probe]) -> tuple[int, ...]:
    """Those of the `COMMON` offsets at which all of these imagine; all that they share if none."""
    own = imagined_offsets(probes)
    return tuple(offset for offset in COMMON if offset in own) or own


def at_offsets(probes: Sequence[Probe], offsets: Sequence[int]) -> list[Probe]:
    """The probes as if nothing had been looked at but at these offsets.

    Raises:
        ValueError: a branch was not looked at at one of them.
    """
    return [
        replace(
            probe,
            branches=[_branch(probe, branch, offsets) for branch in probe.branches],
            retrieved=_reading(probe.retrieved, _kept(_own_offsets(probe), offsets)),
        )
        for probe in probes
    ]


def rivals_at(
    rivals: RivalFrames, probes: Sequence[Probe], offsets: Sequence[int]
) -> dict[str, dict[str, Frames]]:
    """What rivals showed for these probes, which are whole, at these offsets alone."""
    kept = {state_name(probe): _kept(_own_offsets(probe), offsets) for probe in probes}
    return {
        state: {name: _frames(shown, kept[state]) for name, shown in by_name.items()}
        for state, by_name in rivals.items()
    }


def guessed_alike(runs: Mapping[str, Sequence[Recording]]) -> dict[str, list[Recording]]:
    """The recordings of several runs, with guesses of as many actions and at the same offsets."""
    guesses = [one for logs in runs.values() for log in logs for one in log.guesses.values()]
    steps = min((len(one.action) for one in guesses if one.action is not None), default=0)
    offsets = shared(one.offsets for one in guesses if one.imagined and one.offsets is not None)
    return {
        run: [
            replace(log, guesses={q: _guess(one, steps, offsets) for q, one in log.guesses.items()})
            for log in logs
        ]
        for run, logs in runs.items()
    }


def _own_offsets(probe: Probe) -> Offsets:
    """Where the model imagines, and with it its rivals; nowhere if it does not."""
    own = imagining(probe)
    return own[0].offsets if own else ()


def _branch(probe: Probe, branch: Branch, offsets: Sequence[int]) -> Branch:
    kept = _kept(branch.offsets, offsets)
    if branch.happened and kept.sum() < len(offsets):
        raise ValueError(
            f"{state_name(probe)}: the branch {branch.label!r} was looked at at the offsets "
            f"{branch.offsets.tolist()}, expected {list(offsets)} among them"
        )
    return replace(
        branch,
        offsets=branch.offsets[kept],
        happened=_frames(branch.happened, kept),
        imagined=None if branch.imagined is None else _frames(branch.imagined, kept),
        recoded=None if branch.recoded is None else _frames(branch.recoded, kept),
        masks={name: mask[kept] for name, mask in branch.masks.items()},
        read=_reading(branch.read, kept),
        reread=_reading(branch.reread, kept),
    )


def _guess(guess: Guess, steps: int, offsets: Sequence[int]) -> Guess:
    action = None if guess.action is None else guess.action[:steps]
    if guess.imagined is None or guess.offsets is None:
        return replace(guess, action=action)
    kept = _kept(guess.offsets, offsets)
    shown = _frames(guess.imagined, kept) if offsets else None
    return replace(guess, action=action, imagined=shown, offsets=guess.offsets[kept])


def _kept(mine: Offsets, offsets: Sequence[int]) -> Bool[np.ndarray, " t"]:
    return np.isin(mine, offsets)


def _frames(frames: Frames, kept: Bool[np.ndarray, " t"]) -> Frames:
    return {view: shown[kept] for view, shown in frames.items()}


def _reading(read: Reading | None, kept: Bool[np.ndarray, " t"]) -> Reading | None:
    if read is None:
        return None
    return Reading(
        {name: places[kept] for name, places in read.places.items()},
        read.success[kept],
        None if read.state is None else read.state[kept],
    )
