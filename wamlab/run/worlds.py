"""Executions of which no model imagines anything: what joint measures hold imaginations against.

The own and the listed actions in other worlds, the own in another order, and references. Of the
last only poses are logged; the others are controls of measures on frames as well, and are filmed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from wamlab.config import nearest
from wamlab.metrics.joint import LISTED
from wamlab.run.execute import execute
from wamlab.run.impose import impose
from wamlab.sim.env import Env
from wamlab.types import Branch, BranchKind

Physics = Mapping[str, float]
"""Factors of `wamlab.sim.env.Env.vary`."""

WORLDS: dict[str, Physics] = {
    "gain 0.7": {"gain": 0.7},
    "gain 1.3": {"gain": 1.3},
    "friction 0.5": {"friction": 0.5},
    "friction 0.25": {"friction": 0.25},
}
VARIED = ("gain", "friction", "mass")


def check_worlds(worlds: Mapping[str, Physics]) -> None:
    """Raises KeyError for a factor that no environment varies, with the nearest one."""
    for world, physics in worlds.items():
        for name in physics:
            if name not in VARIED:
                raise KeyError(f"world {world!r} varies {name!r}{nearest(name, VARIED)}")


def in_worlds(
    env: Env,
    state: Float[np.ndarray, " q"],
    branches: Sequence[Branch],
    worlds: Mapping[str, Physics],
    views: Sequence[str] = (),
) -> list[Branch]:
    """The chunks of these from the same state in each world, labelled ``<world>: <label>``.

    The environment has its own physics again afterwards.
    """
    found = []
    try:
        for world, physics in worlds.items():
            env.vary(**physics)
            for one in branches:
                label = f"{world}: {one.label}"
                found.append(_executed("world", label, env, state, one.action, one.offsets, views))
    finally:
        env.vary()
    return found


def in_another_order(
    env: Env,
    state: Float[np.ndarray, " q"],
    own: Sequence[Branch],
    seed: int,
    views: Sequence[str] = (),
) -> list[Branch]:
    """The own chunks from the same state, the steps of each in an order drawn for it."""
    rng = np.random.default_rng(seed)
    return [
        _executed("shuffled", one.label, env, state, order, one.offsets, views)
        for one in own
        for order in [rng.permutation(one.action)]
    ]


def expert_chunk(
    env: Env, state: Float[np.ndarray, " q"], steps: int, seed: int
) -> Float[np.ndarray, "h a"]:
    """What the expert goes on to do from this state."""
    env.set_state(state)
    expert, actions = env.expert(variants=False, seed=seed), []
    for _ in range(steps):
        actions.append(env.space.clip(expert()))
        env.step(actions[-1])
    return np.stack(actions)


def reference_branches(
    env: Env, state: Float[np.ndarray, " q"], steps: int, seed: int
) -> list[Branch]:
    """What the expert goes on to do, and the listed interventions on it, over ``steps``.

    The same for all models whose chunk lasts as long: half of another length is another half.
    """
    chunk = expert_chunk(env, state, steps, seed)
    chunks = {"expert": chunk} | {name: impose(name, chunk, env.space) for name in LISTED}
    offsets = np.arange(1, steps + 1)
    return [
        _executed("reference", label, env, state, chunk, offsets) for label, chunk in chunks.items()
    ]


def _executed(
    kind: BranchKind,
    label: str,
    env: Env,
    state: Float[np.ndarray, " q"],
    action: Float[np.ndarray, "h a"],
    offsets: np.ndarray,
    views: Sequence[str] = (),
) -> Branch:
    happened = execute(env, state, action, offsets if views else offsets[:0], views, masks=False)
    return Branch(
        kind,
        label,
        action,
        offsets,
        happened.frames,
        why_not="nothing is imagined of what no model is asked for",
        entities=happened.entities,
        success=happened.success,
    )
