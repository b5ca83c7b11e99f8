"""Experts, their variants, and bursts of noise."""

from __future__ import annotations

import numpy as np
import pytest

from wamlab.sim.env import start_seed
from wamlab.sim.experts import ROUTES, BurstNoise
from wamlab.sim.metaworld import MetaWorld


def roll(
    env: MetaWorld, start: int, *, variants: bool, seed: int, noise: BurstNoise | None = None
) -> tuple[np.ndarray, bool]:
    """Hand positions on the expert's way, and whether it solved the task."""
    env.reset(seed=start)
    expert = env.expert(variants=variants, seed=seed)
    hands, solved = [], False
    while not solved and len(hands) < env.max_steps:
        action = expert()
        env.step(noise(action)[0] if noise else action)
        hands.append(env.entities()["robot"][:3])
        solved = env.success
    return np.stack(hands), solved


@pytest.mark.parametrize("task", ["dial-turn", "window-open", "lever-pull"])
def test_experts_succeed_with_variants(task: str) -> None:
    env = MetaWorld(task, views=())
    starts = [start_seed("validation", i) for i in range(3)]
    assert all(roll(env, start, variants=True, seed=start)[1] for start in starts)


def test_experts_recover_from_bursts() -> None:
    env = MetaWorld("door-unlock", views=())
    for seed in range(4):
        noise = BurstNoise(seed, rate=0.05)
        assert roll(env, seed, variants=True, seed=seed, noise=noise)[1]


def test_one_start_has_several_right_futures() -> None:
    env = MetaWorld("door-lock", views=())
    ways = {}
    for seed in range(12):
        env.reset(seed=0)
        route = env.expert(variants=True, seed=seed).variant["route"]
        ways.setdefault(route, roll(env, 0, variants=True, seed=seed))
    assert set(ways) == set(ROUTES)
    assert all(solved for _, solved in ways.values())
    left, right = ways["left"][0], ways["right"][0]
    n = min(len(left), len(right))
    assert np.linalg.norm(left[:n] - right[:n], axis=1).max() > 0.08


def test_without_variants_the_seed_does_not_matter() -> None:
    env = MetaWorld("dial-turn", views=())
    one, other = (roll(env, 0, variants=False, seed=seed)[0] for seed in (1, 2))
    np.testing.assert_array_equal(one, other)
    assert env.expert(variants=False, seed=1).variant["route"] == "straight"


def test_a_variant_is_its_seeds() -> None:
    env = MetaWorld("dial-turn", views=())
    draw = [dict(env.expert(variants=True, seed=seed).variant) for seed in (4, 4, 5)]
    assert draw[0] == draw[1] != draw[2]


def test_a_pause_stands_still() -> None:
    env = MetaWorld("door-lock", views=())
    env.reset(seed=0)
    expert = env.expert(variants=True, seed=0)
    expert.variant |= {"pause_at": 4.0, "pause_steps": 3.0}
    moves = []
    for _ in range(9):
        action = expert()
        moves.append(bool(np.any(action[:3] != 0)))
        env.step(action)
    assert moves == [True] * 4 + [False] * 3 + [True] * 2


def test_actions_are_inside_the_space() -> None:
    env = MetaWorld("hammer", views=())
    for seed in range(4):
        env.reset(seed=seed)
        expert = env.expert(variants=True, seed=seed)
        for _ in range(60):
            action = expert()
            env.space.check(action)
            env.step(action)


def test_bursts_are_short_flagged_and_their_seeds() -> None:
    wanted = np.array([0.2, -0.3, 0.1, 0.7], np.float32)
    runs = []
    for _ in range(2):
        noise = BurstNoise(7, rate=0.05, steps=(3, 8))
        runs.append([noise(wanted) for _ in range(400)])
    flags = np.array([flag for _, flag in runs[0]])
    executed = np.stack([action for action, _ in runs[0]])
    np.testing.assert_array_equal(executed, np.stack([action for action, _ in runs[1]]))
    assert 0.1 < flags.mean() < 0.5
    np.testing.assert_array_equal((executed != wanted).any(axis=1), flags)
    assert (executed[:, 3] == wanted[3]).all()
    assert np.abs(executed).max() <= 1.0
    edges = np.flatnonzero(np.diff(flags.astype(int), prepend=0, append=0))
    lengths = edges[1::2] - edges[::2]
    assert lengths.min() >= 3


def test_no_bursts_at_rate_zero() -> None:
    noise = BurstNoise(0, rate=0.0)
    assert not any(noise(np.zeros(4, np.float32))[1] for _ in range(50))
