"""Scripted experts with variants, and bursts of noise to recover from.

The packages' policies are nearly deterministic given the state. Variants make several futures
right from one state: the hand goes to the object straight or by a detour to the left or right and
higher up, at one of many speeds, with or without a pause on the way.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from wamlab.sim.metaworld import MetaWorld

ROUTES = ("straight", "left", "right")
BLEND = 6  # steps over which the policy takes over from the detour
DETOUR_AT = 0.4  # of the way to where the policy goes first
MOST_LATERAL = 0.5  # of that way
FREE = 0.06  # horizontal metres from there beyond which the hand is in free space


@dataclass(frozen=True)
class Pace:
    """How variants fit one robot: its gain, and lengths in its own steps.

    ``gain`` is in action units per metre; a detour's waypoint counts as reached ``arrived`` metres
    from it, or after ``longest`` steps at full speed. A pause begins and lasts a number of steps
    drawn from ``pause_at`` and ``pause_steps`` (lowest, highest + 1).
    """

    gain: float
    arrived: float
    longest: int
    pause_at: tuple[int, int]
    pause_steps: tuple[int, int]


METAWORLD = Pace(gain=10.0, arrived=0.03, longest=45, pause_at=(3, 25), pause_steps=(3, 11))


class FreeWay:
    """A variant's way through free space, up to where the policy goes first.

    From there on (mostly above the object) only the policy acts, because grasps do not bear it.
    The hand is steered to a waypoint beside and above that way, then the policy takes over step by
    step.
    """

    def __init__(
        self,
        variant: Mapping[str, Any],
        pace: Pace,
        *,
        hand: Float[np.ndarray, " 3"],
        first: Float[np.ndarray, " 3"],
        reach: tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]],
        from_below: bool = False,
    ) -> None:
        """``first``: where the policy goes from here; ``reach``: the lowest and highest place."""
        self.variant, self.pace, self.first = variant, pace, first
        self._waypoint = self._beside(hand, reach, from_below)
        self._weight = 1.0 if self._waypoint is None else 0.0
        self._calls, self._free = 0, True

    def __call__(
        self, hand: Float[np.ndarray, " 3"], motion: Float[np.ndarray, " 3"]
    ) -> Float[np.ndarray, " 3"]:
        """The motion in the place of the policy's; that one itself where space is not free."""
        self._free &= bool(np.linalg.norm((self.first - hand)[:2]) > FREE)
        if self._free:
            motion = self._through_free_space(hand, motion)
        self._calls += 1
        return motion

    def _through_free_space(
        self, hand: Float[np.ndarray, " 3"], motion: Float[np.ndarray, " 3"]
    ) -> Float[np.ndarray, " 3"]:
        start, length = self.variant["pause_at"], self.variant["pause_steps"]
        if start <= self._calls < start + length:
            return np.zeros_like(motion)
        if self._waypoint is not None and self._weight < 1.0:
            motion = self._toward(self._waypoint, hand, motion)
        return np.clip(motion, -self.variant["speed"], self.variant["speed"])

    def _toward(
        self,
        waypoint: Float[np.ndarray, " 3"],
        hand: Float[np.ndarray, " 3"],
        onward: Float[np.ndarray, " 3"],
    ) -> Float[np.ndarray, " 3"]:
        away = waypoint - hand
        late = self._calls >= self.pace.longest / self.variant["speed"]
        if self._weight > 0 or late or np.linalg.norm(away) < self.pace.arrived:
            self._weight = min(self._weight + 1 / BLEND, 1.0)
        toward = np.clip(self.pace.gain * away, -1.0, 1.0)
        return (1 - self._weight) * toward + self._weight * onward

    def _beside(
        self,
        hand: Float[np.ndarray, " 3"],
        reach: tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]],
        from_below: bool,
    ) -> Float[np.ndarray, " 3"] | None:
        """The waypoint; below the way where the object is to be approached from below."""
        way = self.first - hand
        length = float(np.linalg.norm(way[:2]))
        if length < FREE:
            return None
        side = {"straight": 0.0, "left": 1.0, "right": -1.0}[self.variant["route"]]
        lateral = side * min(self.variant["lateral"], MOST_LATERAL * length)
        waypoint = hand + DETOUR_AT * way
        waypoint[:2] += lateral * np.array([-way[1], way[0]]) / length
        if from_below:
            waypoint[2] -= self.variant["height"]
        else:
            waypoint[2] = max(waypoint[2], hand[2]) + self.variant["height"]
        low, high = reach
        return np.clip(waypoint, low + 0.01, high - 0.01)


class MetaWorldExpert:
    """The package's policy for one episode, on a variant that ``seed`` draws."""

    def __init__(self, env: MetaWorld, *, variants: bool, seed: int) -> None:
        self.env = env
        self._policy = _policy(env.task)
        self.variant = draw_variant(seed, METAWORLD) if variants else dict(PLAIN)
        self._way = self._free_way() if variants else None

    def __call__(self) -> Float[np.ndarray, " 4"]:
        """The action that it would take in the environment's present state."""
        observation = self.env.full_observation()
        action = self._act(observation)
        if self._way is not None:
            action[:3] = self._way(observation[:3], action[:3])
        return action

    def _act(self, observation: Float[np.ndarray, " 39"]) -> Float[np.ndarray, " 4"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that its gain is clipped is known
            action = np.asarray(self._policy.get_action(observation), dtype=np.float32)
        return np.clip(action, -1.0, 1.0)

    def _free_way(self) -> FreeWay:
        observation = self.env.full_observation()
        hand, thing, first = observation[:3], observation[4:7], self._first_target(observation)
        return FreeWay(
            self.variant,
            METAWORLD,
            hand=hand,
            first=first,
            reach=self.env.reach,
            from_below=bool(first[2] < thing[2] - 0.05),
        )

    def _first_target(self, observation: Float[np.ndarray, " 39"]) -> Float[np.ndarray, " 3"]:
        """Where the policy goes from here; the goal or object where it does not say."""
        parsed = self._policy._parse_obs(observation.copy())
        if hasattr(self._policy, "_desired_pos"):
            target = np.array(self._policy._desired_pos(parsed))
            # Straight below its handle the policy of handle-pull names a height only.
            return target if target.shape == (3,) else observation[4:7]
        return np.array(parsed["goal_pos"] if "goal_pos" in parsed else observation[4:7])


PLAIN: Mapping[str, Any] = {
    "route": "straight",
    "lateral": 0.0,
    "height": 0.0,
    "speed": 1.0,
    "pause_at": 0.0,
    "pause_steps": 0.0,
}


def draw_variant(seed: int, pace: Pace) -> dict[str, Any]:
    """A variant: lateral and height in metres, speed as a factor, the pause in steps."""
    rng = np.random.default_rng([seed, 1])
    route = ROUTES[int(rng.integers(len(ROUTES)))]
    return {
        "route": route,
        "lateral": 0.0 if route == "straight" else float(rng.uniform(0.05, 0.12)),
        "height": float(rng.uniform(0.0, 0.08)),
        "speed": float(rng.uniform(0.65, 1.0)),
        "pause_at": float(rng.integers(*pace.pause_at)),
        "pause_steps": float(rng.integers(*pace.pause_steps)) if rng.random() < 0.5 else 0.0,
    }


class BurstNoise:
    """Short bursts in which another action than the expert's is executed.

    ``rate`` is the chance per step that a burst begins; it lasts ``steps`` (lowest, highest) steps
    and adds one random push of at most ``strength`` per axis to the motion; the gripper is spared.
    """

    def __init__(
        self,
        seed: int,
        *,
        rate: float = 0.02,
        steps: tuple[int, int] = (3, 8),
        strength: float = 1.0,
    ) -> None:
        self.rate, self.steps, self.strength = rate, steps, strength
        self._rng = np.random.default_rng([seed, 2])
        self._left = 0
        self._push = np.zeros(3, np.float32)

    @classmethod
    def at(cls, rate_hz: float, seed: int, *, rate: float = 0.02) -> BurstNoise:
        """Bursts of 40 to 100 ms, whatever the rate of the actions."""
        steps = max(round(0.0375 * rate_hz), 1), round(0.1 * rate_hz)
        return cls(seed, rate=rate, steps=steps)

    def __call__(self, action: Float[np.ndarray, " a"]) -> tuple[Float[np.ndarray, " a"], bool]:
        """The action to execute instead, and whether a burst is on."""
        if self._left == 0 and self._rng.random() < self.rate:
            self._left = int(self._rng.integers(self.steps[0], self.steps[1] + 1))
            self._push = self._rng.uniform(-self.strength, self.strength, 3).astype(np.float32)
        if self._left == 0:
            return action, False
        self._left -= 1
        executed = action.copy()
        executed[:3] = np.clip(action[:3] + self._push, -1.0, 1.0)
        return executed, True


def _policy(task: str) -> Any:
    from metaworld import policies

    exceptions = {"assembly": "Assembly", "peg-insert-side": "PegInsertionSide"}
    stem = exceptions.get(task) or "".join(part.capitalize() for part in task.split("-"))
    return getattr(policies, f"Sawyer{stem}V3Policy")()
