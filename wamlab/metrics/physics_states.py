"""Physical commonsense of imagined places, from probes that a state reader has read.

The measures of `wamlab.metrics.physics` on where a thing was imagined at the model's offsets, from
where it stands now. Nobody touches anything in an imagination: touch is guessed from the distance
of the imagined hand. The floor of each is what the executions score as the same reader reads them:
its error looks like motion, and between two frames a hand may have come and gone. Only what lies
above the floor was imagined, and what never moves violates nothing: that nothing moves is for
`state_skill` to tell. Not measured here are interpenetration, for which a reader would have
to see how things are turned, and gravity: a few offsets hold no acceleration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from wamlab.metrics.base import Result, Row, metric, summarise
from wamlab.metrics.joint import OBJECT, ROBOT
from wamlab.metrics.joint_states import own_paths
from wamlab.metrics.paths import Paths
from wamlab.metrics.physics import Way, jump, motion_without_contact, near_hand, over_paths
from wamlab.types import Probe

REACH = 0.15
"""Metres from the hand's middle within which a thing may be touched: fingers are 0.1 long."""


@metric("imagined_jump", needs="probes", unit="m/step")
def imagined_jump(probes: Sequence[Probe], *, entity: str = OBJECT) -> Result:
    """The fastest imagined step of a thing, by executed action; the worst sample of each state."""
    paths = own_paths(probes, entity)
    per_action = 1 / int(paths.offsets[0])
    return _over("imagined_jump", "m/step", paths, lambda way: jump(way, per_action))


@metric("imagined_motion_without_contact", needs="probes", unit="m")
def imagined_motion_without_contact(probes: Sequence[Probe], *, reach: float = REACH) -> Result:
    """The imagined path of an object that no hand within ``reach`` metres explains."""
    hand, thing = own_paths(probes, ROBOT), own_paths(probes, OBJECT)
    both = dataclasses.replace(
        thing,
        start=np.concatenate([thing.start, hand.start], axis=-1),
        imagined=np.concatenate([thing.imagined, hand.imagined], axis=-1),
        executed=np.concatenate([thing.executed, hand.executed], axis=-1),
        reread=np.concatenate([_reread(thing), _reread(hand)], axis=-1),
        elsewhere={},
        shuffled=None,
        retrieved=None,
    )

    def unexplained(way: Way) -> float:
        place, fingers = np.split(way, 2, axis=-1)
        return motion_without_contact(place, near_hand(fingers, place, reach, grace=0))

    return _over("imagined_motion_without_contact", "m", both, unexplained)


def _over(name: str, unit: str, paths: Paths, measure: Callable[[Way], float]) -> Result:
    """The mean over states, above the same of the executions as they are read."""
    found = over_paths(paths, measure)
    real = over_paths(dataclasses.replace(paths, imagined=_reread(paths)), measure)
    rows = [Row(state, "", value) for state, value in found.items()]
    return summarise(name, unit, rows, floor=float(np.mean([*real.values()])))


def _reread(paths: Paths) -> np.ndarray:
    return paths.controls()["oracle"]
