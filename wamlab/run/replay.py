"""Blind rows: what replaying expert actions open loop achieves, without camera or state."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from wamlab.run.collect import demonstrate
from wamlab.run.record import Recorder, moment
from wamlab.sim.env import Env, start_seed
from wamlab.sim.suites import BlindRow
from wamlab.types import Episode


def measure(
    make_env: Callable[[], Env],
    *,
    starts: int = 30,
    demonstrations: int = 12,
    variants: bool = True,
    seed: int = 0,
) -> BlindRow:
    """Measure one task's blind row; the environment should render nothing.

    Demonstrations are the first successful ones on training starts, their full ``max_steps``
    long. Replays and the expert are judged on the same evaluation starts.

    Raises:
        RuntimeError: fewer than a third of the expert's tries succeed.
    """
    env = make_env()
    demos = _demonstrate(env, demonstrations, variants, seed)
    rng = np.random.default_rng([seed, 3])
    mean = demos.mean(axis=0)
    wins = np.zeros(3, dtype=int)
    for index in range(starts):
        start = start_seed("evaluation", index)
        drawn = demos[rng.integers(len(demos))]
        expert = demonstrate(env, start, variants=variants, stop_after=0)
        wins += [replay(env, start, mean), replay(env, start, drawn), expert.success_any]
    env.close()
    return BlindRow(
        env=env.name,
        starts=starts,
        demonstrations=demonstrations,
        variants=variants,
        max_steps=env.max_steps,
        mean=int(wins[0]),
        replay=int(wins[1]),
        expert=int(wins[2]),
    )


def replay(env: Env, start: int, actions: Float[np.ndarray, "n a"]) -> bool:
    """Whether these actions, executed open loop from a start, solve the task at any step."""
    return replayed(env, start, actions).success_any


def replayed(
    env: Env, start: int, actions: Float[np.ndarray, "n a"], *, policy: str = "replay"
) -> Episode:
    """The log, without frames, of these actions executed open loop from a start.

    It ends with the first success, with the actions, or with the environment's ``max_steps``.
    """
    observation, _ = env.reset(seed=start)
    record = Recorder(env.name, start, moment(env, observation), policy, frames=False)
    for action in env.space.clip(actions)[: env.max_steps]:
        observation, *_ = env.step(action)
        record.add(action, moment(env, observation))
        if env.success:
            break
    return record.episode()


def _demonstrate(
    env: Env, wanted: int, variants: bool, seed: int
) -> Float[np.ndarray, "demos n a"]:
    demos: list[np.ndarray] = []
    for index in range(3 * wanted):
        start = start_seed("train", 1000 * seed + index)
        episode = demonstrate(env, start, variants=variants, stop_after=env.max_steps)
        if episode.success_any:
            demos.append(episode.action)
        if len(demos) == wanted:
            return np.stack(demos)
    raise RuntimeError(f"{env.name}: {len(demos)} of {3 * wanted} demonstrations succeeded")
