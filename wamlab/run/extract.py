"""What a model reads off a future: its own INVERSE, asked about what it or the world shows.

In action-state consistency (Is the Future Compatible?, arXiv 2605.07514) nobody but the model is
asked; `wamlab.run.film.Judge` asks inverse dynamics that never saw an imagined frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from wamlab.models.base import Refusal
from wamlab.policy.raw import Answerer, shown_future
from wamlab.policy.seeds import draw_seed
from wamlab.run.reach import Reached
from wamlab.types import INVERSE, Branch, Frames

NOISE = 1
"""Sets the noise of an extraction apart from that of the sample: the same noise could bring the
same action back without a look at the future."""


def extract(
    policy: Answerer, at: Reached, shown: Sequence[Frames], views: Sequence[str], seed: int
) -> list[Float[np.ndarray, "h a"]]:
    """The model's own action for each of these futures, shown at its offsets.

    All have the same noise, so that they differ by what is shown alone.

    Raises:
        Refusal: the model does not answer INVERSE.
    """
    answer = policy.query(
        [at.observation] * len(shown),
        INVERSE,
        future=shown_future(shown, views, policy.offsets),
        seed=[seed] * len(shown),
        histories=[at.history] * len(shown),
    )
    assert answer.action is not None
    return [*answer.action.values]


def with_extracted(
    policy: Answerer, at: Reached, branches: Sequence[Branch], seed: int
) -> list[Branch]:
    """The branches with what the model itself reads off the imagined frames and the executed.

    They stay as they are where it does not answer INVERSE, or where not all the frames are shown
    that it asks for.
    """
    branches = [*branches]
    if not all(one.imagined and tuple(one.offsets) == policy.offsets for one in branches):
        return branches
    shown = [frames for one in branches for frames in (one.imagined or {}, one.happened)]
    try:
        chunks = extract(policy, at, shown, [*shown[0]], draw_seed(seed, at.seed, at.step, NOISE))
    except Refusal:
        return branches
    pairs = zip(branches, chunks[::2], chunks[1::2], strict=True)
    return [replace(one, extracted=read, reextracted=reread) for one, read, reread in pairs]
