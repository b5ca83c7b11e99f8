"""What goes into a policy and comes out of it, in raw units, and whatever else answers so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from wamlab.types import IMAGE, ActionSpace, Frames, Future, Prediction

INSTRUCTION = "instruction"
FRAMES = "frames"
"""The space of a future in raw units: uint8 (B, T, H, W, 3) by image stream."""
ABSENT = "absent"
"""In the place of a state that nobody knows. None is none: a sensor that failed gives it, too."""


@dataclass
class RawPrediction(Prediction):
    """An answer in raw units, as numpy arrays.

    ``action`` is clipped to the space; ``clipped`` (B,) counts the entries of each row that had to
    be. A ``future`` in the space ``frames`` holds uint8 (B, T, H, W, 3) by image stream; where it
    stays in the model's own space, ``undecoded`` says why.
    """

    clipped: Int[np.ndarray, " b"] | None = None
    undecoded: str = ""

    def select(self, rows: Any) -> RawPrediction:
        clipped = None if self.clipped is None else self.clipped[rows]
        return RawPrediction(
            **{**vars(super().select(rows)), "clipped": clipped, "undecoded": self.undecoded}
        )

    def frames(self, row: int) -> Frames | None:
        """One row's imagined frames by view name, or None where there are none."""
        if self.future is None or self.future.space != FRAMES:
            return None
        return {
            name.removeprefix(IMAGE): values[row] for name, values in self.future.values.items()
        }

    def frame_offsets(self, row: int) -> Int[np.ndarray, " t"] | None:
        """When this row's imagined frames are, in ticks from now; None when unclocked."""
        if self.future is None or self.future.offsets is None:
            return None
        return np.asarray(self.future.offsets[row])


class Answerer(Protocol):
    """Whatever answers a query: a `Policy`, or one behind a wire."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """Which weights answer."""
        ...

    @property
    def space(self) -> ActionSpace: ...

    @property
    def offsets(self) -> tuple[int, ...]: ...

    @property
    def chunk(self) -> int: ...

    @property
    def depth(self) -> int: ...

    def query(self, *question: Any, **options: Any) -> RawPrediction: ...


def shown_future(shown: Sequence[Frames], views: Sequence[str], offsets: Sequence[int]) -> Future:
    """Frames (T, H, W, 3) of each row, at T ``offsets``, as a future to give or to answer with."""
    values = {f"{IMAGE}{view}": np.stack([one[view] for one in shown]) for view in views}
    return Future(FRAMES, "uint8", values, np.tile(np.array(offsets), (len(shown), 1)))


def check_space(answerer: Answerer, name: str, space: ActionSpace) -> None:
    """Raise ValueError where the environment ``name`` takes other actions than are answered."""
    if space != answerer.space:
        raise ValueError(
            f"{answerer.name} was trained on the action space {answerer.space}, {name} has {space}"
        )


Through = Callable[[Frames], Frames]
"""Real frames (T, H, W, 3) of every view, there and back through a codec."""


def codec_of(asked: Any) -> Through:
    """What the codec of whatever is asked makes of real frames (T, H, W, 3), there and back.

    A policy knows (`Policy.through_codec`); others, such as one behind a wire, imagine in pixels.
    """
    return getattr(asked, "through_codec", lambda frames: frames)
