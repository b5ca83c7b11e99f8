"""Executors of geometric plans: a point in space is gone to by delta actions, by no given time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wamlab.policy.executors import START, Rows, Stall
from wamlab.policy.raw import RawPrediction
from wamlab.sim.env import RawObservation
from wamlab.types import STATE, ActionSpace, Waypoints


@dataclass(frozen=True)
class Reach:
    """How a pose becomes a delta action: the position's slots, and metres per unit of action.

    The first dimensions of ``state`` are the position that waypoints speak of, the first of the
    action its change, and the last of the action the gripper.
    """

    space: ActionSpace
    scale: float
    open_gripper: float = -1.0
    closed_gripper: float = 1.0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale is metres per unit of action and positive, got {self.scale}")

    def towards(
        self, observation: RawObservation, pose: Float[np.ndarray, " p"], gripper: float
    ) -> Float[np.ndarray, " a"]:
        """One clipped action towards ``pose``, with the gripper held at ``gripper``."""
        size = len(pose)
        if size >= self.space.size or set(self.space.mode[:size]) != {"delta"}:
            raise ValueError(
                f"a pose of {size} numbers cannot be reached by {self.space.names} "
                f"({self.space.mode}): it needs {size} delta dimensions and a gripper"
            )
        action = np.zeros(self.space.size, np.float32)
        action[:size] = (pose - observation[STATE][:size]) / self.scale
        action[-1] = gripper
        return self.space.clip(action)

    def distance(self, observation: RawObservation, pose: Float[np.ndarray, " p"]) -> float:
        return float(np.linalg.norm(pose - observation[STATE][: len(pose)]))


@dataclass
class _Route:
    poses: Float[np.ndarray, "w p"]
    tolerance: Float[np.ndarray, " w"]
    gripper: Float[np.ndarray, " w"]
    stall: Stall
    index: int = 0

    @property
    def done(self) -> bool:
        return self.index == len(self.poses)


class WaypointExecutor:
    """Goes to a plan's waypoints one after the other; replans at the end of them or on a stall.

    A waypoint is reached within its own tolerance. The row stalls when ``patience`` steps brought
    it no nearer by ``progress`` metres. The gripper command of the waypoint ahead is held.
    """

    samples = 1

    def __init__(self, reach: Reach, *, patience: int = 15, progress: float = 1e-3) -> None:
        self.reach, self.patience, self.progress = reach, patience, progress
        self._rows: Rows[_Route] = Rows()

    def reset(self, row: int) -> None:
        self._rows.reset(row)

    def due(self, row: int, observation: RawObservation) -> str | None:
        route = self._rows.get(row)
        if route is None:
            return START
        if _advance(route, self.reach, observation):
            return f"stalled before waypoint {route.index}"
        return "all waypoints reached" if route.done else None

    def accept(self, row: int, plan: RawPrediction) -> int:
        self._rows[row] = _route(_waypoints(plan), Stall(self.patience, self.progress))
        return 0

    def action(self, row: int, observation: RawObservation) -> Float[np.ndarray, " a"]:
        route = self._rows[row]
        ahead = min(route.index, len(route.poses) - 1)
        return self.reach.towards(observation, route.poses[ahead], float(route.gripper[ahead]))


@dataclass
class _Grasp:
    approach: _Route
    lift: _Route
    phase: str = "approach"
    clock: int = 0


class TwoPhaseGrasp:
    """Approaches the first waypoint with an open gripper, closes it there, then lifts.

    The lift follows the plan's further waypoints with a closed gripper; where the plan has only
    the grasp, it goes ``lift`` metres up (the third coordinate). A stall in the approach asks for a
    new plan, a stall in the lift too: the grasp is then begun anew.
    """

    samples = 1

    def __init__(
        self,
        reach: Reach,
        *,
        close_steps: int = 8,
        lift: float = 0.15,
        patience: int = 15,
        progress: float = 1e-3,
    ) -> None:
        self.reach, self.close_steps, self.lift = reach, close_steps, lift
        self.patience, self.progress = patience, progress
        self._rows: Rows[_Grasp] = Rows()

    def reset(self, row: int) -> None:
        self._rows.reset(row)

    def phase(self, row: int) -> str:
        """``approach``, ``close`` or ``lift``."""
        return self._rows[row].phase

    def due(self, row: int, observation: RawObservation) -> str | None:
        grasp = self._rows.get(row)
        if grasp is None:
            return START
        if grasp.phase == "close":
            grasp.phase = "close" if grasp.clock < self.close_steps else "lift"
        if grasp.phase == "close":
            return None
        route = grasp.approach if grasp.phase == "approach" else grasp.lift
        if _advance(route, self.reach, observation):
            return f"stalled in {grasp.phase}"
        if route.done and grasp.phase == "lift":
            return "lifted"
        if route.done:
            grasp.phase = "close"
        return None

    def accept(self, row: int, plan: RawPrediction) -> int:
        points = _waypoints(plan)
        poses, tolerance = points.poses[0], points.tolerance[0]
        after, slack = poses[1:], tolerance[1:]
        if not len(after):
            after, slack = poses[:1].copy(), tolerance[:1]
            after[0, 2] += self.lift
        stall = lambda: Stall(self.patience, self.progress)  # noqa: E731
        opened = np.full(1, self.reach.open_gripper)
        closed = np.full(len(after), self.reach.closed_gripper)
        self._rows[row] = _Grasp(
            _Route(poses[:1], tolerance[:1], opened, stall()), _Route(after, slack, closed, stall())
        )
        return 0

    def action(self, row: int, observation: RawObservation) -> Float[np.ndarray, " a"]:
        grasp = self._rows[row]
        if grasp.phase == "close":
            grasp.clock += 1
            pose = observation[STATE][: grasp.approach.poses.shape[1]]
            return self.reach.towards(observation, pose, self.reach.closed_gripper)
        route = grasp.approach if grasp.phase == "approach" else grasp.lift
        ahead = min(route.index, len(route.poses) - 1)
        return self.reach.towards(observation, route.poses[ahead], float(route.gripper[ahead]))


def _waypoints(plan: RawPrediction) -> Waypoints:
    if plan.waypoints is None:
        raise ValueError("this executor needs a plan with waypoints; this one has none")
    return plan.waypoints


def _route(points: Waypoints, stall: Stall) -> _Route:
    return _Route(points.poses[0], points.tolerance[0], points.gripper[0], stall)


def _advance(route: _Route, reach: Reach, observation: RawObservation) -> bool:
    """Pass every waypoint that is reached; whether the way to the next has stalled."""
    while not route.done:
        distance = reach.distance(observation, route.poses[route.index])
        if distance >= route.tolerance[route.index]:
            return route.stall(distance)
        route.index += 1
        route.stall.restart()
    return False
