"""Frames as a future in raw units, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from wamlab.policy.raw import FRAMES, RawPrediction, shown_future

SHOWN = [
    {view: np.full((2, 4, 4, 3), 10 * row + place, np.uint8) for place, view in enumerate("ab")}
    for row in range(3)
]


def test_what_is_shown_comes_back_row_by_row() -> None:
    future = shown_future(SHOWN, ["a", "b"], (8, 16))
    assert (future.space, future.codec) == (FRAMES, "uint8")
    assert future.values["image/b"].shape == (3, 2, 4, 4, 3)
    answer = RawPrediction(future=future)
    for row, frames in enumerate(SHOWN):
        for view in "ab":
            np.testing.assert_array_equal(answer.frames(row)[view], frames[view])
        assert answer.frame_offsets(row).tolist() == [8, 16]


def test_only_the_views_that_were_asked_for_are_shown() -> None:
    assert [*shown_future(SHOWN, ["b"], (8, 16)).values] == ["image/b"]
    with pytest.raises(KeyError, match="c"):
        shown_future(SHOWN, ["c"], (8, 16))
