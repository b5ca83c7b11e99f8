"""Drawing the states that probes start from: away from contact, before it, in it and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wamlab.policy.agents import Agent
from wamlab.policy.history import History
from wamlab.sim.env import Env, RawObservation

ROBOT = "robot"


@dataclass(frozen=True)
class Reached:
    """One state on an agent's way, with what was seen and done on the way there."""

    seed: int
    step: int
    stratum: str
    state: Float[np.ndarray, " q"]
    observation: RawObservation
    history: History


def strata(contacts: Sequence[Sequence[tuple[str, str]]], near: int) -> list[str]:
    """Where each instant lies: ``contact`` (the robot touches something), ``before`` (it will for
    the first time within ``near`` steps), ``free`` (later than that, or never), ``after``."""
    touching = [any(ROBOT in pair for pair in pairs) for pairs in contacts]
    first = touching.index(True) if True in touching else None
    names = []
    for step, touches in enumerate(touching):
        if touches:
            names.append("contact")
        elif first is None or step < first - near:
            names.append("free")
        else:
            names.append("before" if step < first else "after")
    return names


def reach(
    env: Env,
    seeing: Env,
    agent: Agent,
    seed: int,
    *,
    wanted: str,
    near: int,
    depth: int,
    draw: int,
) -> Reached:
    """Let ``agent`` act from start ``seed`` until success, then draw one of the states passed.

    One of the ``wanted`` stratum is drawn if there is one, otherwise one of all. ``env`` is acted
    in; ``seeing`` renders the drawn state and the ``depth`` observations before it.
    """
    observation, _ = env.reset(seed=seed)
    agent.reset(0, env, seed)
    states, contacts = [env.get_state()], [env.contacts()]
    actions: list[np.ndarray] = []
    while len(actions) < env.max_steps and not env.success:
        taken, _ = agent.act({0: observation})
        observation, *_ = env.step(taken[0])
        actions.append(taken[0])
        states.append(env.get_state())
        contacts.append(env.contacts())
    names = strata(contacts, near)[: max(len(actions), 1)]
    fitting = [step for step, name in enumerate(names) if name == wanted] or range(len(names))
    step = int(np.random.default_rng([draw, seed]).choice(fitting))
    history = History(depth)
    for past in range(max(step - depth, 0), step):
        history.push(_seen(seeing, states[past]), actions[past])
    return Reached(seed, step, names[step], states[step], _seen(seeing, states[step]), history)


def _seen(env: Env, state: Float[np.ndarray, " q"]) -> RawObservation:
    env.set_state(state)
    return env.observe()
