"""Executors: small controllers with a clock that turn a plan into one action after the other.

Every executor serves many rows and keeps each row's state apart. ``due`` says whether a row needs a
new plan, and why; ``accept`` takes the plan (a one-row prediction in raw units, or several samples
of it); ``action`` gives what to execute now and moves the row's clock on. When and why a row
replans changes results, so the reason is logged with each replan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
from jaxtyping import Float, Shaped

from wamlab.policy.raw import RawPrediction
from wamlab.sim.env import RawObservation

START = "start"
T = TypeVar("T")


class Executor(Protocol):
    """When to replan and what to execute, row by row."""

    samples: int
    """How many samples of a plan `accept` wants to choose from."""

    def reset(self, row: int) -> None:
        """Forget the row: a new episode begins."""
        ...

    def due(self, row: int, observation: RawObservation) -> str | None:
        """Why the row needs a new plan now, or None."""
        ...

    def accept(self, row: int, plan: RawPrediction) -> int:
        """Take a plan of `samples` rows; which of them is going to be executed."""
        ...

    def action(self, row: int, observation: RawObservation) -> Float[np.ndarray, " a"]:
        """What to execute now."""
        ...


class Rows(Generic[T]):
    """State by row, with an error that says what to do where a row has no plan yet."""

    def __init__(self) -> None:
        self._rows: dict[int, T] = {}

    def reset(self, row: int) -> None:
        self._rows.pop(row, None)

    def get(self, row: int) -> T | None:
        return self._rows.get(row)

    def __getitem__(self, row: int) -> T:
        if row not in self._rows:
            raise RuntimeError(f"row {row} has no plan: it must accept one before it acts")
        return self._rows[row]

    def __setitem__(self, row: int, value: T) -> None:
        self._rows[row] = value


@dataclass
class _Chunk:
    actions: Float[np.ndarray, "h a"]
    clock: int = 0


class ChunkExecutor:
    """Executes the first ``execute_steps`` actions of each chunk, then replans.

    None executes chunks whole. The present actions of a chunk are executed; a chunk that is shorter
    than ``execute_steps`` ends earlier.
    """

    samples = 1

    def __init__(self, execute_steps: int | None = None) -> None:
        if execute_steps is not None and execute_steps < 1:
            raise ValueError(f"execute_steps is at least 1, got {execute_steps}")
        self.execute_steps = execute_steps
        self._rows: Rows[_Chunk] = Rows()

    def reset(self, row: int) -> None:
        self._rows.reset(row)

    def due(self, row: int, observation: RawObservation) -> str | None:
        chunk = self._rows.get(row)
        if chunk is None:
            return START
        if chunk.clock >= len(chunk.actions):
            return "chunk ended"
        executed = self.execute_steps is not None and chunk.clock >= self.execute_steps
        return f"{self.execute_steps} steps executed" if executed else None

    def accept(self, row: int, plan: RawPrediction) -> int:
        if plan.action is None:
            raise ValueError("a chunk executor needs a plan with actions; this one has none")
        actions = plan.action.values[0][plan.action.present[0]]
        if not len(actions):
            raise ValueError("the plan's chunk holds no present action")
        self._rows[row] = _Chunk(actions)
        return 0

    def action(self, row: int, observation: RawObservation) -> Float[np.ndarray, " a"]:
        chunk = self._rows[row]
        chunk.clock += 1
        return chunk.actions[chunk.clock - 1]


@dataclass
class Stall:
    """Notices that a distance has not shrunk by ``progress`` for ``patience`` steps."""

    patience: int
    progress: float
    best: float = np.inf
    count: int = 0

    def __call__(self, distance: float) -> bool:
        if distance < self.best - self.progress:
            self.best, self.count = distance, 0
        else:
            self.count += 1
        return self.count >= self.patience

    def restart(self) -> None:
        self.best, self.count = np.inf, 0


@dataclass
class _Goals:
    values: Float[np.ndarray, "t *rest"]
    stall: Stall
    index: int = 0
    reason: str | None = None


class SubgoalExecutor:
    """Follows a plan's imagined future goal by goal; replans when the last is reached, or stalls.

    ``follow(observation, goal)`` is the follower: one action towards a goal. ``distance`` says how
    far an observation is from a goal, in its own unit; a goal nearer than ``tolerance`` is
    reached. ``goals`` of the plan's goals are followed before replanning (None: all). ``stream``
    names the imagined stream that holds the goals.
    """

    samples = 1

    def __init__(
        self,
        stream: str,
        follow: Callable[[RawObservation, np.ndarray], Float[np.ndarray, " a"]],
        distance: Callable[[RawObservation, np.ndarray], float],
        *,
        tolerance: float,
        goals: int | None = None,
        patience: int = 20,
        progress: float = 0.0,
    ) -> None:
        self.stream, self.follow, self.distance = stream, follow, distance
        self.tolerance, self.goals = tolerance, goals
        self.patience, self.progress = patience, progress
        self._rows: Rows[_Goals] = Rows()

    def reset(self, row: int) -> None:
        self._rows.reset(row)

    def due(self, row: int, observation: RawObservation) -> str | None:
        goals = self._rows.get(row)
        if goals is None:
            return START
        distance = self.distance(observation, goals.values[goals.index])
        while distance < self.tolerance:
            if goals.index + 1 == len(goals.values):
                return f"goal {goals.index} reached"
            goals.index += 1
            goals.stall.restart()
            distance = self.distance(observation, goals.values[goals.index])
        return f"stalled before goal {goals.index}" if goals.stall(distance) else None

    def accept(self, row: int, plan: RawPrediction) -> int:
        if plan.future is None or self.stream not in plan.future.values:
            seen = [] if plan.future is None else sorted(plan.future.values)
            raise ValueError(f"the plan imagines no {self.stream!r}; it imagines {seen}")
        values = plan.future.values[self.stream][0][: self.goals]
        self._rows[row] = _Goals(values, Stall(self.patience, self.progress))
        return 0

    def action(self, row: int, observation: RawObservation) -> Float[np.ndarray, " a"]:
        goals = self._rows[row]
        return np.asarray(self.follow(observation, goals.values[goals.index]), np.float32)


class Selector:
    """Draws ``samples`` plans and hands the one that it chooses to another executor."""

    def __init__(self, executor: Executor, samples: int) -> None:
        if samples < 2:
            raise ValueError(f"choosing needs at least 2 samples, got {samples}")
        self.executor, self.samples = executor, samples

    def choose(self, plan: RawPrediction) -> int:
        """Which of the plan's samples is executed."""
        raise NotImplementedError

    def reset(self, row: int) -> None:
        self.executor.reset(row)

    def due(self, row: int, observation: RawObservation) -> str | None:
        return self.executor.due(row, observation)

    def accept(self, row: int, plan: RawPrediction) -> int:
        chosen = self.choose(plan)
        self.executor.accept(row, plan.select([chosen]))
        return chosen

    def action(self, row: int, observation: RawObservation) -> Float[np.ndarray, " a"]:
        return self.executor.action(row, observation)


class BestOfN(Selector):
    """Executes the plan of the highest value."""

    def choose(self, plan: RawPrediction) -> int:
        if plan.value is None:
            raise ValueError("choosing the best plan needs a value for each; this model gives none")
        _check_finite("values", plan.value)
        return int(np.argmax(plan.value))


class Consensus(Selector):
    """Executes the plan whose imagined future is nearest to those of the others.

    Near is the mean absolute difference over all that is imagined, in its own space; the samples
    agree most on the future in their middle (consensus selection, arXiv 2605.07514, whose exact
    score could not be read).
    """

    def choose(self, plan: RawPrediction) -> int:
        if plan.future is None:
            raise ValueError("consensus needs an imagined future with each plan; there is none")
        return middlemost(*plan.future.values.values())


class ActionConsensus(Selector):
    """Executes the plan whose actions are nearest to those of the others.

    The control of `Consensus`: what agreement gains where nothing is imagined.
    """

    def choose(self, plan: RawPrediction) -> int:
        if plan.action is None:
            raise ValueError("choosing by actions needs a plan with actions; this one has none")
        present = plan.action.present[..., None]
        return middlemost(np.where(present, plan.action.values, 0))


def middlemost(*streams: Shaped[np.ndarray, "k *rest"]) -> int:
    """Which of k samples differs least from the others, in the mean over each stream's numbers.

    Raises:
        ValueError: a sample with NaN or infinity, from which nothing has a distance.
    """
    apart = np.zeros((len(streams[0]), len(streams[0])))
    for values in streams:
        flat = np.asarray(values, np.float32).reshape(len(values), -1)
        _check_finite("samples", flat)
        apart += np.abs(flat[:, None] - flat).mean(axis=-1)
    return int(apart.sum(axis=1).argmin())


def _check_finite(what: str, values: Shaped[np.ndarray, "k *rest"]) -> None:
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite).tolist()
        raise ValueError(f"the {what} {bad} of {len(finite)} to choose from hold NaN or infinity")


class AnyOfN(Selector):
    """Executes the first: the samples are exchangeable, so this is a choice at random.

    The control of the others: as many samples, no judgement.
    """

    def choose(self, plan: RawPrediction) -> int:
        return 0


Choice = Literal["value", "consensus", "action-consensus", "random"]
SELECTORS: dict[Choice, type[Selector]] = {
    "value": BestOfN,
    "consensus": Consensus,
    "action-consensus": ActionConsensus,
    "random": AnyOfN,
}
"""How one of several sampled plans is chosen."""
