"""The exact extractor: which actions show these frames? The simulator is asked until one does.

An inverse dynamics model answers from what it has learned; this answers from what happens, and so
says what an imagined future would be worth to an extractor without errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from wamlab.sim.env import Env
from wamlab.types import Frames

Chunk = Float[np.ndarray, "h a"]


@dataclass(frozen=True)
class Search:
    """Cross-entropy search for the chunk that shows the wanted frames, coarse to fine in time.

    Each round draws ``population`` chunks of as many constant pieces as ``pieces`` says, around the
    ``elite`` of all that were tried. Deviations are shares of the space's range: ``spread`` at
    first, and ``floor`` at least. What counts is the mean squared error of pixels. Exact is what
    the simulator makes of a chunk; which chunk it was is found within millimetres near a good
    guess, and within centimetres far from one.
    """

    pieces: tuple[int, ...] = (1, 1, 1, 2, 2)
    population: int = 16
    elite: int = 3
    spread: float = 0.5
    floor: float = 0.1

    def __call__(
        self,
        sandbox: Sandbox,
        state: Float[np.ndarray, " q"],
        wanted: Frames,
        guess: Chunk,
        seed: int,
    ) -> Chunk:
        """The chunk that was nearest of all that were tried, ``guess`` among them."""
        rng = np.random.default_rng(seed)
        low, high = np.array(sandbox.env.space.low), np.array(sandbox.env.space.high)
        tried, errors = [guess], [sandbox.error(state, guess, wanted)]
        mean, spread = guess, np.broadcast_to(self.spread * (high - low), guess.shape)
        for count in self.pieces:
            piece = np.arange(len(guess)) * count // len(guess)
            noise = rng.standard_normal((self.population, count, len(low)))
            drawn = _by_piece(mean, piece) + _by_piece(spread, piece) * noise
            for chunk in drawn.clip(low, high).astype(np.float32)[:, piece]:
                # Nothing is asked of a chunk but whether it is among the elite.
                bound = sorted(errors)[self.elite - 1] if len(errors) >= self.elite else np.inf
                tried.append(chunk)
                errors.append(sandbox.error(state, chunk, wanted, bound=bound))
            best = np.stack([tried[place] for place in np.argsort(errors)[: self.elite]])
            mean, spread = best.mean(0), np.maximum(best.std(0), self.floor * (high - low))
        return tried[int(np.argmin(errors))]


def _by_piece(chunk: Chunk, piece: Int[np.ndarray, " h"]) -> Float[np.ndarray, "p a"]:
    """The mean of each piece of a chunk."""
    return np.stack([chunk[piece == k].mean(0) for k in range(piece[-1] + 1)])


@dataclass
class Sandbox:
    """A second copy of an environment, in which things are tried out."""

    env: Env
    views: tuple[str, ...]
    offsets: tuple[int, ...]

    def frames(
        self, state: Float[np.ndarray, " q"], steps: int, action: Any
    ) -> tuple[Frames, Chunk]:
        """Frames at the offsets after ``state``, and the actions; ``action(i)`` is the i-th."""
        self.env.set_state(state)
        shots: dict[str, list[np.ndarray]] = {view: [] for view in self.views}
        taken = []
        for step in range(1, steps + 1):
            taken.append(self.env.space.clip(action(step - 1)))
            self.env.step(taken[-1])
            if step in self.offsets:
                for view in self.views:
                    shots[view].append(self.env.render_view(view).copy())
        return {view: np.stack(seen) for view, seen in shots.items()}, np.stack(taken)

    def error(
        self,
        state: Float[np.ndarray, " q"],
        chunk: Chunk,
        wanted: Frames,
        bound: float = np.inf,
    ) -> float:
        """How far what ``chunk`` shows is from the wanted frames: mean squared, in grey levels.

        Rendering is what costs. So frames are rendered from the last offset back, where chunks
        differ most, and no more of them once those seen alone put the error above ``bound``; what
        is returned then is that part of it.
        """
        self.env.set_state(state)
        passed = {}
        for step, action in enumerate(chunk, 1):
            self.env.step(self.env.space.clip(action))
            if step in self.offsets:
                passed[step] = self.env.get_state()
        error = 0.0
        for place, offset in reversed([*enumerate(self.offsets)]):
            self.env.set_state(passed[offset])
            for view in self.views:
                seen = self.env.render_view(view).astype(np.float64)
                of_all = len(self.offsets) * len(self.views)
                error += float(((seen - wanted[view][place]) ** 2).mean()) / of_all
                if error > bound:
                    return error
        return error
