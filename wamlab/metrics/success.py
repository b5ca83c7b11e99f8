"""Success of episodes: at any step, at the last step, over the blind rows, and how soon.

A task that is solved at the start is not solved by the policy and counts as a failure; how many
there were is in the details. Per task the interval is Wilson's. Pooled, every task weighs the
same and the interval is a bootstrap over tasks, then policies (training seeds), then episodes
("such tasks"); the one that keeps the tasks ("these tasks") is in the details.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from wamlab.config import nearest
from wamlab.metrics.base import NotApplicable, Result, Row, metric, summarise
from wamlab.metrics.stats import LEVEL, Interval, bootstrap, newcombe, wilson
from wamlab.types import Episode

Counts = tuple[int, int]
"""Successes and trials."""

Blind = Mapping[str, Mapping[str, Counts]]
"""Counts by environment and row: ``expert``, ``mean replay``, ``random replay``."""

BLIND_ROWS = ("mean replay", "random replay")


@metric("success_any", needs="episodes", unit="rate")
def success_any(episodes: Sequence[Episode]) -> Result:
    """The rate of episodes that succeeded at some step."""
    return _rates("success_any", episodes, lambda episode: episode.success_any)


@metric("success_last", needs="episodes", unit="rate")
def success_last(episodes: Sequence[Episode]) -> Result:
    """The rate of episodes in which the last step was a success."""
    return _rates("success_last", episodes, lambda episode: episode.success_last)


@metric("success_over_blind", needs="episodes", unit="rate")
def success_over_blind(episodes: Sequence[Episode], *, blind: Blind | None = None) -> Result:
    """``success_any`` less the better of the two blind rows of the same task.

    Per task the interval is Newcombe's for two unpaired rates; pooled, episodes, blind trials and
    tasks are resampled.
    """
    if not blind:
        raise NotApplicable("no blind rows were measured for these tasks")
    tasks = {env: _counts(group) for env, group in _by_env(episodes).items()}
    if missing := sorted(set(tasks) - set(blind)):
        raise NotApplicable(f"no blind rows of {missing[0]!r}{nearest(missing[0], blind)}")
    better = {env: _better_blind(env, blind[env]) for env in tasks}
    parts = {env: _over(tasks[env], *better[env]) for env in tasks}
    pairs = np.array([[*tasks[env], *better[env][1]] for env in tasks])
    value = float(np.mean(pairs[:, 0] / pairs[:, 1] - pairs[:, 2] / pairs[:, 3]))
    return Result(
        "success_over_blind",
        "rate",
        value=value,
        interval=_resampled_difference(pairs, resample_tasks=len(tasks) > 1),
        n=len(episodes),
        details={"these_tasks": _resampled_difference(pairs, resample_tasks=False)},
        parts=parts,
    )


@metric("steps_to_success", needs="episodes", unit="steps")
def steps_to_success(episodes: Sequence[Episode]) -> Result:
    """Executed steps to the first success, averaged over the episodes that succeed."""
    rows = [
        Row(_name(episode), episode.env, float(episode.success.argmax() + 1))
        for episode in episodes
        if episode.success_any
    ]
    failures = ["no success"] * (len(episodes) - len(rows))
    return summarise("steps_to_success", "steps", rows, failures)


@metric("tasks_done", needs="episodes", unit="tasks")
def tasks_done(episodes: Sequence[Episode]) -> Result:
    """How many tasks of an episode's chain were done in their order; one task is a chain of one."""
    rows = [
        Row(_name(episode), episode.env, float(episode.columns["tasks_done"].max()))
        for episode in episodes
        if "tasks_done" in episode.columns
    ]
    others = ["no chain of tasks"] * (len(episodes) - len(rows))
    return summarise("tasks_done", "tasks", rows, others)


def _rates(name: str, episodes: Sequence[Episode], solved: Callable[[Episode], bool]) -> Result:
    groups = _by_env(episodes)
    parts = {env: _rate(name, group, solved) for env, group in groups.items()}
    if len(parts) == 1:
        return replace(*parts.values(), parts=parts)
    values = np.array([float(solved(episode)) for episode in episodes])
    clusters = [[e.env for e in episodes], [e.policy for e in episodes]]
    rates = np.array([part.value for part in parts.values()])
    return Result(
        name,
        "rate",
        value=float(rates.mean()),
        interval=bootstrap(values, clusters),
        n=len(episodes),
        details={
            "these_tasks": bootstrap(values, clusters, keep_outer=True),
            "at_reset": sum(episode.success_at_reset for episode in episodes),
        },
        parts=parts,
    )


def _rate(name: str, episodes: Sequence[Episode], solved: Callable[[Episode], bool]) -> Result:
    items = {_name(episode): float(solved(episode)) for episode in episodes}
    if len(items) < len(episodes):
        raise NotApplicable(f"{episodes[0].env}: one policy has two episodes from one start seed")
    successes = int(sum(items.values()))
    return Result(
        name,
        "rate",
        value=successes / len(items),
        interval=wilson(successes, len(items)),
        n=len(items),
        items=items,
        details={
            "successes": successes,
            "at_reset": sum(episode.success_at_reset for episode in episodes),
        },
    )


def _name(episode: Episode) -> str:
    return "/".join(filter(None, (episode.policy, episode.env, str(episode.seed))))


def _by_env(episodes: Sequence[Episode]) -> dict[str, list[Episode]]:
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.env, []).append(episode)
    return groups


def _counts(episodes: Sequence[Episode]) -> Counts:
    return sum(episode.success_any for episode in episodes), len(episodes)


def _better_blind(env: str, rows: Mapping[str, Counts]) -> tuple[str, Counts]:
    known = {name: rows[name] for name in BLIND_ROWS if name in rows and rows[name][1]}
    if not known:
        raise NotApplicable(f"{env} has neither of the blind rows {BLIND_ROWS}")
    name = max(known, key=lambda name: known[name][0] / known[name][1])
    return name, known[name]


def _over(own: Counts, name: str, blind: Counts) -> Result:
    return Result(
        "success_over_blind",
        "rate",
        value=own[0] / own[1] - blind[0] / blind[1],
        interval=newcombe(own, blind),
        n=own[1],
        details={"better": name, "blind": blind[0] / blind[1], "blind_n": blind[1]},
    )


def _resampled_difference(
    pairs: Int[np.ndarray, "tasks 4"], *, resample_tasks: bool, draws: int = 4000, seed: int = 0
) -> Interval:
    """Resample tasks (if asked), then both rates; ``pairs`` are k, n and the blind row's k, n."""
    rng = np.random.default_rng(seed)
    tasks = len(pairs)
    picked = np.broadcast_to(np.arange(tasks), (draws, tasks))
    if resample_tasks:
        picked = rng.integers(tasks, size=(draws, tasks))
    successes, n, blind, blind_n = np.moveaxis(pairs[picked], -1, 0)
    own = rng.binomial(n, successes / n) / n
    differences = (own - rng.binomial(blind_n, blind / blind_n) / blind_n).mean(axis=1)
    low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
