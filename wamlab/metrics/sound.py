"""Whether logs hold what they say: no pose, action or loss that is NaN, no pose missing.

A number that is not finite would open a gate, lose a minimum or leave out an item somewhere in a
measure, and a measure would still have a value. So every measure asks here first (`metric`).
Frames are looked at where they are read (`wamlab.metrics.visual`): there are too many of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from wamlab.metrics.base import rollout_name, state_name
from wamlab.types import Branch, Episode, Probe, Recording

Part = tuple[str, Any]
"""What an array is, in words, and the array or None."""


def check_sound(logs: Sequence[Episode] | Sequence[Probe] | Sequence[Recording]) -> None:
    """Name the first thing that is wrong with these logs, and where.

    Raises:
        ValueError: NaN or infinity, or a branch without the poses of its probe's entities.
    """
    for one in logs:
        where, parts = _parts(one)
        for what, values in parts:
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"{where}: {what} hold NaN or infinity")
        if isinstance(one, Probe):
            _check_complete(one, where)


def _check_complete(probe: Probe, where: str) -> None:
    for branch in probe.branches:
        if lacking := sorted(probe.entities.keys() - branch.entities.keys()):
            raise ValueError(
                f"{where}: the branch {branch.label!r} lacks the poses of {lacking[0]!r}"
            )


def _parts(one: Episode | Probe | Recording) -> tuple[str, Iterator[Part]]:
    """How a log is called, and its parts."""
    if isinstance(one, Probe):
        return state_name(one), _of_probe(one)
    if isinstance(one, Episode):
        return rollout_name(one), _of_episode(one)
    return f"episode {one.episode}, step {one.step}", _of_recording(one)


def _of_probe(probe: Probe) -> Iterator[Part]:
    yield from _poses(probe.entities, "now")
    for branch in probe.branches:
        yield from _of_branch(branch)


def _of_branch(branch: Branch) -> Iterator[Part]:
    where = f"in branch {branch.label!r}"
    yield f"actions {where}", branch.action
    yield from _poses(branch.entities, where)
    for name in ("decoded", "redecoded", "extracted", "reextracted"):
        yield f"{name} actions {where}", getattr(branch, name)


def _of_episode(episode: Episode) -> Iterator[Part]:
    yield "executed actions", episode.action
    yield from _poses(episode.entities, "on the way")


def _of_recording(one: Recording) -> Iterator[Part]:
    yield "recorded actions", one.action
    for name, guess in {**one.guesses, **one.rivals}.items():
        yield f"actions of {name}", guess.action
    for query, found in one.likelihood.items():
        for part, values in vars(found).items():
            yield f"the {part} of the likelihood of {query}", values


def _poses(entities: Mapping[str, np.ndarray], where: str) -> Iterator[Part]:
    for name, poses in entities.items():
        yield f"poses of {name!r} {where}", poses
