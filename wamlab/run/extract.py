"""What a model reads off its own imagination: its INVERSE, asked about its own joint samples.

In action-state consistency (Is the Future Compatible?, arXiv 2605.07514) nobody but the model is
asked; `wamlab.run.film.Judge` asks inverse dynamics that never saw an imagined frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from wamlab.models.base import Refusal
from wamlab.policy.policy import FRAMES, RawPrediction
from wamlab.policy.seeds import draw_seed
from wamlab.run.reach import Reached
from wamlab.types import IMAGE, INVERSE, Branch, Frames, Future

NOISE = 1
"""Sets the noise of an extraction apart from that of the sample: the same noise could bring the
same action back without a look at the future."""


class Extractor(Protocol):
    """Whatever answers INVERSE: a `Policy`, or one behind a wire."""

    @property
    def offsets(self) -> tuple[int, ...]: ...

    def query(self, *question: Any, **options: Any) -> RawPrediction: ...


def extract(policy: Extractor, at: Reached, branches: Sequence[Branch], seed: int) -> list[Branch]:
    """The branches with the actions that the model itself reads off the imagined and the executed.

    All of them are drawn with the same noise, so that they differ by what is shown alone. They stay
    as they are where the model does not answer INVERSE, or where not all the frames that it asks
    for are shown.
    """
    shown = [
        frames
        for branch in branches
        if branch.imagined is not None
        for frames in (branch.imagined, branch.happened)
    ]
    if not shown or any(tuple(one.offsets) != policy.offsets for one in branches if one.imagined):
        return [*branches]
    try:
        answer = policy.query(
            [at.observation] * len(shown),
            INVERSE,
            future=_future(shown, policy.offsets),
            seed=[draw_seed(seed, at.seed, at.step, NOISE)] * len(shown),
            histories=[at.history] * len(shown),
        )
    except Refusal:
        return [*branches]
    assert answer.action is not None
    chunks = iter(answer.action.values)
    return [
        branch
        if branch.imagined is None
        else replace(branch, extracted=next(chunks), reextracted=next(chunks))
        for branch in branches
    ]


def _future(shown: Sequence[Frames], offsets: Sequence[int]) -> Future:
    frames = {f"{IMAGE}{view}": np.stack([one[view] for one in shown]) for view in shown[0]}
    return Future(FRAMES, "uint8", frames, np.tile(np.array(offsets), (len(shown), 1)))
