"""Boxes: known depths of overlap, turned and apart, and the lowest corner."""

from __future__ import annotations

import numpy as np
import pytest

from wamlab.geometry.boxes import Boxes, lowest, overlap, rotations

UPRIGHT = np.eye(3)[None]
CUBE = Boxes(np.zeros((1, 3)), UPRIGHT, np.full((1, 3), 0.5))
NO_TURN = (1.0, 0.0, 0.0, 0.0)


def turn(axis: int, angle: float) -> tuple[float, ...]:
    return (np.cos(angle / 2), *(np.sin(angle / 2) * np.eye(3)[axis]))


def poses(*rows: tuple[tuple[float, ...], tuple[float, ...]]) -> np.ndarray:
    return np.array([(*place, *quaternion) for place, quaternion in rows])


def test_two_boxes_overlap_by_a_known_depth() -> None:
    here = poses(*[((0, 0, 0), NO_TURN)] * 4)
    there = poses(*[((x, 0.1, 0), NO_TURN) for x in (0.7, 0.95, 1.0, 1.4)])
    np.testing.assert_allclose(overlap(CUBE, here, CUBE, there), [0.3, 0.05, 0, 0], atol=1e-12)


def test_a_turned_box_reaches_further() -> None:
    """Turned by 45 degrees, half a unit cube's diagonal reaches along x."""
    reach = np.sqrt(2) / 2
    here = poses(((0, 0, 0), NO_TURN), ((0, 0, 0), NO_TURN))
    there = poses(((1.1, 0, 0), turn(2, np.pi / 4)), ((1.3, 0, 0), turn(2, np.pi / 4)))
    expected = [0.5 + reach - 1.1, 0]
    np.testing.assert_allclose(overlap(CUBE, here, CUBE, there), expected, atol=1e-12)


def test_only_a_crossed_axis_parts_two_edges() -> None:
    """Edge over edge: every face axis of both sees an overlap, their cross product none."""
    here = poses(((0, 0, 0), turn(0, np.pi / 4)))
    gap = np.sqrt(2) + 0.01
    there = poses(((0, 0, gap), turn(1, np.pi / 4)))
    assert overlap(CUBE, here, CUBE, there) == 0
    there[0, 2] = gap - 0.05
    np.testing.assert_allclose(overlap(CUBE, here, CUBE, there), 0.04, atol=1e-12)


def test_the_deepest_pair_of_boxes_counts_wherever_the_thing_is() -> None:
    two = Boxes(np.array([[0, 0, 0], [0, 2.0, 0]]), np.repeat(UPRIGHT, 2, 0), np.full((2, 3), 0.5))
    here = poses(((5, 0, 0), turn(2, np.pi / 2)))  # its second box is at x = 3
    there = poses(((2.25, 0, 0), NO_TURN))
    np.testing.assert_allclose(overlap(two, here, CUBE, there), 0.25, atol=1e-12)


def test_lowest_corner() -> None:
    rows = poses(((0, 0, 2), NO_TURN), ((0, 0, 2), turn(0, np.pi / 4)))
    np.testing.assert_allclose(lowest(CUBE, rows), [1.5, 2 - np.sqrt(2) / 2])
    with pytest.raises(ValueError, match="without boxes"):
        lowest(Boxes(np.zeros((0, 3)), np.zeros((0, 3, 3)), np.zeros((0, 3))), rows)


def test_rotations_need_no_unit_length_but_some() -> None:
    quarter = rotations(3 * np.array([turn(2, np.pi / 2)]))[0]
    np.testing.assert_allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    with pytest.raises(ValueError, match="length 0"):
        rotations(np.zeros((1, 4)))
