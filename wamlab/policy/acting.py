"""How a model's answers become steps: the query and executor that its declarations call for."""

from __future__ import annotations

from collections.abc import Mapping

from wamlab.config import nearest
from wamlab.models.base import Refusal, Sampling, WorldActionModel
from wamlab.policy.agents import PolicyAgent
from wamlab.policy.executors import SELECTORS, Choice, ChunkExecutor, Executor
from wamlab.policy.geometric import Reach, WaypointExecutor
from wamlab.policy.policy import Policy
from wamlab.types import ACTION, FUTURE, POLICY, VALUE, ActionSpace, Query

METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}


def metres(unit: str) -> float:
    """Metres per unit of action: ``cm`` is 0.01, ``5 cm`` is 0.05.

    Raises:
        ValueError: not a length.
    """
    count, _, name = unit.rpartition(" ")
    if name not in METRES:
        raise ValueError(f"actions in {unit!r} are not lengths{nearest(name, METRES)}")
    return float(count or 1) * METRES[name]


def acts(model: WorldActionModel) -> bool:
    """Whether it samples actions that it is not given."""
    return any(ACTION in query.sampled and not query.given for query in model.queries)


def acting_query(model: WorldActionModel, samples: int = 1, choice: Choice = "consensus") -> Query:
    """What the model is asked for to act.

    With several samples per decision: actions with what they are chosen by, their value or the
    future that comes with them. Else, and where actions alone are looked at, `POLICY`, or the first
    query that samples actions and is given nothing.

    Raises:
        Refusal: it answers no such query.
    """
    free = [query for query in model.queries if ACTION in query.sampled and not query.given]
    if samples == 1 or choice in ("random", "action-consensus"):
        wanted, what = [POLICY] * (POLICY in free) or free, "act"
    else:
        needed, verb = {"value": (VALUE, "value"), "consensus": (FUTURE, "imagine")}[choice]
        wanted = [query for query in free if needed in query.sampled]
        what = f"{verb} its plans, to choose from {samples} samples"
    if not wanted:
        known = ", ".join(map(str, model.queries))
        raise Refusal(f"{model.name} cannot {what}: it answers {known}")
    return wanted[0]


def executor_for(
    model: WorldActionModel,
    space: ActionSpace,
    *,
    execute_steps: int | None = None,
    samples: int = 1,
    choice: Choice = "consensus",
) -> Executor:
    """Chunks are executed for ``execute_steps`` steps (None: whole), waypoints are gone to.

    Raises:
        Refusal: the model cannot act, or not choose so.
        KeyError: an unknown way to choose, with the nearest one.
    """
    if choice not in SELECTORS:
        raise KeyError(f"no way to choose {choice!r}{nearest(choice, SELECTORS)}")
    answer = model.queries[acting_query(model, samples, choice)]
    if answer.plan == "waypoints":
        return WaypointExecutor(Reach(space, scale=metres(space.unit[0])))
    chunks = ChunkExecutor(execute_steps)
    return SELECTORS[choice](chunks, samples) if samples > 1 else chunks


def acting(
    policy: Policy,
    *,
    execute_steps: int | None = None,
    samples: int = 1,
    choice: Choice = "consensus",
    sampler: Mapping[str, Sampling] | None = None,
    seed: int = 0,
) -> PolicyAgent:
    """The agent that a policy is by default."""
    executor = executor_for(
        policy.model, policy.space, execute_steps=execute_steps, samples=samples, choice=choice
    )
    query = acting_query(policy.model, samples, choice)
    return PolicyAgent(policy, executor, query, seed, sampler=sampler)
