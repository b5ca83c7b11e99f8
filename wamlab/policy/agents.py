"""Agents act in many environments at once: a policy with its executor, an expert, a replay.

An agent serves rows. ``reset`` begins an episode in a row; ``act`` takes the observations of the
rows that are under way and returns an action for each, and the replans that happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from wamlab.models.base import Sampling
from wamlab.policy.executors import ChunkExecutor, Executor
from wamlab.policy.history import History
from wamlab.policy.policy import Policy
from wamlab.policy.raw import RawPrediction, check_space
from wamlab.policy.seeds import draw_seed
from wamlab.sim.env import Expert, RawObservation
from wamlab.types import POLICY, ActionSpace, Memory, Query, Replan

LONGEST_PLAN = 256
Actions = dict[int, Float[np.ndarray, " a"]]


class Scene(Protocol):
    """What an agent may know of the environment in its row: its name, space and expert."""

    @property
    def name(self) -> str: ...

    @property
    def space(self) -> ActionSpace: ...

    def expert(self, *, variants: bool, seed: int) -> Expert: ...


class Agent(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def made_by(self) -> dict[str, Any]:
        """Everything besides the start that decides what it does, as plain JSON values."""
        ...

    def reset(self, row: int, scene: Scene, seed: int) -> None:
        """Begin the episode of start ``seed`` in this row."""
        ...

    def act(
        self, observations: Mapping[int, RawObservation]
    ) -> tuple[Actions, dict[int, Replan]]: ...


@dataclass
class _Row:
    seed: int
    history: History
    step: int = 0
    replans: int = 0
    since: int = 0
    memory: Memory | None = None


@dataclass
class PolicyAgent:
    """A policy and an executor; all rows that replan share one model call.

    A row's draws come from (``seed``, its start, its count of replans): they do not depend on the
    row's place or on the others. ``imagine`` keeps the imagined frames in the log, where ``query``
    samples a future. Rows of a model with memory share a call once each has one.
    """

    policy: Policy
    executor: Executor = field(default_factory=ChunkExecutor)
    query: Query = POLICY
    seed: int = 0
    imagine: bool = True
    sampler: Mapping[str, Sampling] | None = None

    def __post_init__(self) -> None:
        self._rows: dict[int, _Row] = {}

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def made_by(self) -> dict[str, Any]:
        return {
            "policy": self.name,
            "weights": self.policy.digest,
            "executor": settings(self.executor),
            "query": str(self.query),
            "sampler": {name: asdict(how) for name, how in (self.sampler or {}).items()},
            "seed": self.seed,
        }

    @property
    def _depth(self) -> int:
        """A memory is told of every step since the last answer, so more must be kept for it."""
        return max(self.policy.depth, LONGEST_PLAN) if self.policy.remembers else self.policy.depth

    def reset(self, row: int, scene: Scene, seed: int) -> None:
        check_space(self.policy, scene.name, scene.space)
        self.executor.reset(row)
        self._rows[row] = _Row(seed, History(self._depth))

    def act(self, observations: Mapping[int, RawObservation]) -> tuple[Actions, dict[int, Replan]]:
        reasons = {}
        for row, observation in observations.items():
            if reason := self.executor.due(row, observation):
                reasons[row] = reason
        replans = self._replan(observations, reasons) if reasons else {}
        return {row: self._step(row, seen) for row, seen in observations.items()}, replans

    def _step(self, row: int, observation: RawObservation) -> Float[np.ndarray, " a"]:
        state = self._rows[row]
        action = self.policy.space.clip(self.executor.action(row, observation))
        state.history.push(observation, action)
        state.step += 1
        state.since += 1
        return action

    def _replan(
        self, observations: Mapping[int, RawObservation], reasons: Mapping[int, str]
    ) -> dict[int, Replan]:
        replans = {}
        rows = list(reasons)
        for group, plans in self._answers(observations, rows):
            for place, row in enumerate(group):
                several = np.arange(self.executor.samples) + place * self.executor.samples
                replans[row] = self._accept(row, reasons[row], plans.select(several))
        return replans

    def _accept(self, row: int, reason: str, plans: RawPrediction) -> Replan:
        state = self._rows[row]
        chosen = self.executor.accept(row, plans)
        plan = plans.select([chosen])
        state.memory, state.since = plan.memory, 0
        state.replans += 1
        return Replan(
            step=state.step,
            reason=reason,
            action=None if plan.action is None else plan.action.values[0],
            imagined=plan.frames(0),
            imagined_offsets=plan.frame_offsets(0),
            waypoints=plan.waypoints,
            value=None if plan.value is None else float(plan.value[0]),
            clipped=0 if plan.clipped is None else int(plan.clipped[0]),
            calls=plan.cost.calls,
            ms=plan.cost.ms,
        )

    def _answers(
        self, observations: Mapping[int, RawObservation], rows: list[int]
    ) -> list[tuple[list[int], RawPrediction]]:
        if not self.policy.remembers:
            return [(rows, self._ask(observations, rows, None))]
        memories = [self._observe(observations[row], self._rows[row]) for row in rows]
        known = [memory for memory in memories if memory is not None]
        if len(known) == len(memories):
            return [(rows, self._ask(observations, rows, known[0].join(known)))]
        return [
            ([row], self._ask(observations, [row], memory))
            for row, memory in zip(rows, memories, strict=True)
        ]

    def _observe(self, observation: RawObservation, row: _Row) -> Memory | None:
        return self.policy.observe(row.memory, [observation], [row.history], [row.since])

    def _ask(
        self,
        observations: Mapping[int, RawObservation],
        rows: Sequence[int],
        memory: Memory | None,
    ) -> RawPrediction:
        states = [self._rows[row] for row in rows]
        return self.policy.query(
            [observations[row] for row in rows],
            self.query,
            seed=[draw_seed(self.seed, state.seed, state.replans) for state in states],
            samples=self.executor.samples,
            decode=self.imagine,
            sampler=self.sampler,
            histories=[state.history for state in states],
            memory=memory,
        )


def settings(executor: Executor) -> dict[str, Any]:
    """An executor's kind and its plain settings, of those it wraps as well."""
    plain = {
        k: v for k, v in vars(executor).items() if isinstance(v, (int, float, str, type(None)))
    }
    inner = getattr(executor, "executor", None)
    wrapped = {} if inner is None else {"executor": settings(inner)}
    return {"kind": type(executor).__name__, **plain, **wrapped}


@dataclass
class ExpertAgent:
    """The scripted expert of each row's environment; its variant is drawn from the start."""

    variants: bool = False
    seed: int = 0
    name: str = "expert"

    def __post_init__(self) -> None:
        self._experts: dict[int, Expert] = {}

    @property
    def made_by(self) -> dict[str, Any]:
        return {"policy": self.name, "variants": self.variants, "seed": self.seed}

    def reset(self, row: int, scene: Scene, seed: int) -> None:
        self._experts[row] = scene.expert(variants=self.variants, seed=draw_seed(self.seed, seed))

    def act(self, observations: Mapping[int, RawObservation]) -> tuple[Actions, dict[int, Replan]]:
        return {row: self._experts[row]() for row in observations}, {}


@dataclass
class ReplayAgent:
    """Executes a recorded action sequence, blind to everything.

    ``sequences`` holds one or more (N, A) arrays for each environment; with several, each episode
    draws one from (``seed``, its start). After the end delta dimensions are zero and absolute ones
    keep their last value. One mean sequence makes the row *mean replay*, the demonstrations
    themselves *random replay*.
    """

    sequences: Mapping[str, Sequence[Float[np.ndarray, "n a"]]]
    name: str = "replay"
    seed: int = 0

    def __post_init__(self) -> None:
        self._rows: dict[int, tuple[np.ndarray, np.ndarray, int]] = {}

    @property
    def made_by(self) -> dict[str, Any]:
        total = hashlib.sha256()
        for env, sequences in sorted(self.sequences.items()):
            total.update(env.encode())
            for actions in sequences:
                total.update(np.ascontiguousarray(actions, np.float32).tobytes())
        return {"policy": self.name, "sequences": total.hexdigest()[:16], "seed": self.seed}

    def reset(self, row: int, scene: Scene, seed: int) -> None:
        if not self.sequences.get(scene.name):
            raise KeyError(f"no sequence to replay in {scene.name}; there are {[*self.sequences]}")
        choices = self.sequences[scene.name]
        drawn = int(np.random.default_rng([self.seed, seed]).integers(len(choices)))
        actions = np.asarray(choices[drawn], np.float32)
        scene.space.check(actions, f"{self.name} in {scene.name}")
        rest = np.where(np.array(scene.space.mode) == "delta", 0, actions[-1]).astype(np.float32)
        self._rows[row] = (actions, rest, 0)

    def act(self, observations: Mapping[int, RawObservation]) -> tuple[Actions, dict[int, Replan]]:
        return {row: self._next(row) for row in observations}, {}

    def _next(self, row: int) -> Float[np.ndarray, " a"]:
        actions, rest, clock = self._rows[row]
        self._rows[row] = (actions, rest, clock + 1)
        return actions[clock] if clock < len(actions) else rest
