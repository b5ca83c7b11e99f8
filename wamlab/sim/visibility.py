"""Can the start of a task be seen? Its pixels must change with the numbers that a start draws.

A policy that sees cannot beat a blind one where the goal is hidden, so such a task is not offered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wamlab.sim.env import RawObservation, start_seed
from wamlab.sim.metaworld import MetaWorld

SMALLEST_RANGE = 0.005
LEVELS = 10
MOST_STARTS = 60


@dataclass(frozen=True)
class Seen:
    """One drawn number of a start (metres), moved by half its range in several starts.

    ``pixels`` that changed by at least 10 of 255 levels over all views, per start, sorted;
    ``moves`` whether it moves the goal or an object, which is what makes it matter.
    """

    component: int
    span: float
    pixels: tuple[int, ...]
    moves: bool

    @property
    def visible(self) -> bool:
        return not self.moves or min(self.pixels) > 0


def measure(env: MetaWorld, *, starts: int = 8) -> list[Seen]:
    """What each number of the task's start changes in the rendered views."""
    low, high = env.start_bounds()
    components = np.flatnonzero(high - low >= SMALLEST_RANGE)
    return [_component(env, int(component), starts) for component in components]


def _component(env: MetaWorld, component: int, starts: int) -> Seen:
    low, high = env.start_bounds()
    pixels, moves = [], False
    for index in range(MOST_STARTS):
        env.reset(seed=start_seed("validation", index))
        vector = env.start
        before, was = env.observe(), _places(env)
        half = (high - low)[component] / 2
        vector[component] += half if vector[component] < low[component] + half else -half
        try:
            after = env.start_at(vector)
        except ValueError:
            continue  # some pairs of object and goal are refused: too near to each other
        pixels.append(_changed(env, before, after))
        moves |= bool(np.abs(_places(env) - was).max() > 1e-6)
        if len(pixels) == starts:
            return Seen(component, float(2 * half), tuple(sorted(pixels)), moves)
    raise RuntimeError(f"{env.name} refuses to move number {component} of its start")


def _places(env: MetaWorld) -> Float[np.ndarray, " n"]:
    """Goal, and what the scripted expert is told of objects."""
    return np.concatenate([env.goal, env.full_observation()[4:18]])


def _changed(env: MetaWorld, before: RawObservation, after: RawObservation) -> int:
    names = [f"image/{view}" for view in env.views]
    change = [np.abs(before[name].astype(int) - after[name]).max(axis=-1) for name in names]
    return int(sum((pixels >= LEVELS).sum() for pixels in change))
