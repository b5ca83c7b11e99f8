"""Rigid sets of boxes in space, and how deep two of them go into one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

PARALLEL = 1e-6
"""Below this length a cross product of two axes separates nothing: they are parallel."""

Poses = Float[np.ndarray, "t 7"]


@dataclass(frozen=True)
class Boxes:
    """The boxes that a thing fills: centres (b, 3), axes as rows (b, 3, 3), half sizes (b, 3).

    Metres, in the thing's own frame.
    """

    centre: Float[np.ndarray, "b 3"]
    axes: Float[np.ndarray, "b 3 3"]
    half: Float[np.ndarray, "b 3"]

    def __len__(self) -> int:
        return len(self.half)

    def at(self, poses: Poses) -> tuple[Float[np.ndarray, "t b 3"], Float[np.ndarray, "t b 3 3"]]:
        """Centres and axes in the world, for poses in metres and w-x-y-z quaternions."""
        turn = rotations(poses[:, 3:])
        centre = np.einsum("tij,bj->tbi", turn, self.centre) + poses[:, None, :3]
        return centre, np.einsum("tij,bkj->tbki", turn, self.axes)


def overlap(
    first: Boxes, first_poses: Poses, second: Boxes, second_poses: Poses
) -> Float[np.ndarray, " t"]:
    """How deep, in metres, the boxes of two things go into one another; 0 where they are apart.

    The depth of two boxes is the shortest way out along the 15 axes of the separating axis theorem
    (Gottschalk et al. 1996); that of two things is the deepest of their pairs.
    """
    (p, a), (q, b) = first.at(first_poses), second.at(second_poses)
    a, b = a[:, :, None], b[:, None]  # (t, boxes of the first, of the second, axis, xyz)
    pairs = np.broadcast_shapes(a.shape[:3], b.shape[:3])
    crossed = np.cross(a[..., :, None, :], b[..., None, :, :]).reshape(*pairs, 9, 3)
    own = (np.broadcast_to(axes, (*pairs, 3, 3)) for axes in (a, b))
    ways = np.concatenate([*own, crossed], axis=-2)
    length = np.linalg.norm(ways, axis=-1)
    ways /= np.where(length > PARALLEL, length, 1)[..., None]
    reach = _reach(ways, a, first.half[:, None]) + _reach(ways, b, second.half)
    between = (q[:, None] - p[:, :, None])[..., None, :]
    depth = reach - np.abs((ways * between).sum(axis=-1))
    depth = np.where(length > PARALLEL, depth, np.inf).min(axis=-1)
    return np.maximum(depth.max(axis=(1, 2)), 0)


def lowest(boxes: Boxes, poses: Poses) -> Float[np.ndarray, " t"]:
    """The height in metres of the lowest corner, z up.

    Raises:
        ValueError: a thing without boxes.
    """
    if not len(boxes):
        raise ValueError("a thing without boxes has no lowest corner")
    centre, axes = boxes.at(poses)
    hanging = (np.abs(axes[..., 2]) * boxes.half).sum(axis=-1)
    return (centre[..., 2] - hanging).min(axis=1)


def rotations(quaternions: Float[np.ndarray, "t 4"]) -> Float[np.ndarray, "t 3 3"]:
    """Rotation matrices of w-x-y-z quaternions, which need not be of unit length.

    Raises:
        ValueError: a quaternion of length 0, which turns nothing to nowhere.
    """
    length = np.linalg.norm(quaternions, axis=1, keepdims=True)
    if not length.all():
        raise ValueError("a quaternion of length 0 is no orientation")
    w, x, y, z = (quaternions / length).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def _reach(
    ways: Float[np.ndarray, "t b c k 3"],
    axes: Float[np.ndarray, "t b2 c2 3 3"],
    half: Float[np.ndarray, "*b 3"],
) -> Float[np.ndarray, "t b c k"]:
    """How far a box reaches from its centre along each way."""
    return (np.abs(ways @ np.swapaxes(axes, -1, -2)) * half[..., None, :]).sum(axis=-1)
