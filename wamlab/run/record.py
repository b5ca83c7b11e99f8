"""What is kept of each step of an episode, whoever acts in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from wamlab.sim.env import Env, RawObservation
from wamlab.sim.instructions import THEN
from wamlab.types import IMAGE, STATE, Episode, Replan

OPTIONAL = ("tasks_done", "told_done")
"""What an environment with several tasks judges besides success; they become columns of a log."""


@dataclass(frozen=True)
class Moment:
    """One instant of an environment: what is seen, where everything is, what touches.

    ``tasks_done`` counts the tasks of a chain; None in an environment that has no chains.
    ``told_done`` is whether the task is done that the robot is told; None where that can be no
    other than the one asked.
    """

    observation: RawObservation
    success: bool
    entities: dict[str, Float[np.ndarray, " 7"]]
    contacts: list[tuple[str, str]]
    tasks_done: int | None = None
    told_done: bool | None = None


def moment(env: Env, observation: RawObservation) -> Moment:
    """The present instant of ``env``, whose observation was just taken."""
    judged = {name: getattr(env, name, None) for name in OPTIONAL}
    return Moment(observation, bool(env.success), env.entities(), env.contacts(), **judged)


@dataclass
class Recorder:
    """Collects the moments of one episode; ``frames=False`` keeps no pictures."""

    env: str
    seed: int
    first: Moment
    policy: str
    frames: bool = True
    moments: list[Moment] = field(default_factory=list)
    actions: list[Float[np.ndarray, " a"]] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    replans: list[Replan] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.moments.append(self._kept(self.first))

    def add(self, action: Float[np.ndarray, " a"], after: Moment, **columns: Any) -> None:
        """``action`` was executed and led to ``after``."""
        self.actions.append(np.asarray(action, np.float32))
        self.moments.append(self._kept(after))
        judged = {name: getattr(after, name) for name in OPTIONAL}
        columns |= {name: value for name, value in judged.items() if value is not None}
        for name, value in columns.items():
            self.columns.setdefault(name, []).append(value)

    def since_success(self) -> int | None:
        """Steps executed after the first success; None before it."""
        succeeded = [after.success for after in self.moments[1:]]
        return len(succeeded) - 1 - succeeded.index(True) if True in succeeded else None

    def episode(self, variant: Mapping[str, float | str] | None = None) -> Episode:
        seen = [one.observation for one in self.moments]
        views = [name for name in seen[0] if name.startswith(IMAGE)]
        return Episode(
            env=self.env,
            instruction=THEN.join(dict.fromkeys(one["instruction"] for one in seen)),
            seed=self.seed,
            frames={name.removeprefix(IMAGE): _stack(seen, name) for name in views},
            state=_stack(seen, STATE),
            action=np.stack(self.actions),
            success=np.array([after.success for after in self.moments[1:]]),
            success_at_reset=self.first.success,
            entities={
                name: np.stack([one.entities[name] for one in self.moments])
                for name in self.first.entities
            },
            contacts=[one.contacts for one in self.moments],
            columns={name: np.stack(values) for name, values in self.columns.items()},
            replans=self.replans,
            policy=self.policy,
            variant=dict(variant or {}),
        )

    def _kept(self, one: Moment) -> Moment:
        if self.frames:
            return one
        seen = {k: v for k, v in one.observation.items() if not k.startswith(IMAGE)}
        return replace(one, observation=seen)


def _stack(observations: Sequence[RawObservation], name: str) -> np.ndarray:
    return np.stack([observation[name] for observation in observations])
