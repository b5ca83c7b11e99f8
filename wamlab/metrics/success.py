"""Success of episodes: at any step, at the last step, over the blind rows, how soon, how smoothly.

A task that is solved at the start is not solved by the policy and counts as a failure; how many
there were is in the details. Per task the interval is Wilson's. Pooled, every task weighs the
same and the interval is a bootstrap over policies (training seeds, each of which plays all tasks),
tasks and episodes ("such tasks"); of a rate the one that keeps the tasks ("these tasks") is in the
details. What is no rate is pooled in the same way. See `wamlab.metrics.pooled`.

A rate says how its episodes were chosen (Kress-Gazit et al., arXiv 2409.09491, ask for it):
``details["starts"]`` is what the logs show, ``details["chosen"]`` the `RULES` that were fixed
before judging, or that they were not said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from wamlab.config import nearest
from wamlab.metrics import pooled
from wamlab.metrics.base import (
    NotApplicable,
    Result,
    Row,
    metric,
    rollout_name,
    summarise,
    who_played,
)
from wamlab.metrics.stats import Counts, newcombe, wilson
from wamlab.sim.env import SPLITS, STARTS_PER_SPLIT, split_of
from wamlab.sim.ogbench_tasks import tasks_of
from wamlab.types import Episode

Blind = Mapping[str, Mapping[str, Counts]]
"""Counts by environment and row: ``expert``, ``mean replay``, ``random replay``."""

BLIND_ROWS = ("mean replay", "random replay")

RULES = ("starts", "checkpoint", "seeds")
"""What is chosen before judging: episode starts, the checkpoint of a run, and training seeds."""

Chosen = Mapping[str, str]
"""By which rule each of `RULES` was chosen, in a sentence."""

FLAT = 1e-8
AT_START = "solved at the start"


@metric("success_any", needs="episodes", unit="rate")
def success_any(episodes: Sequence[Episode], *, chosen: Chosen | None = None) -> Result:
    """The rate of episodes that succeeded at some step."""
    found = _rates("success_any", episodes, lambda episode: episode.success_any)
    return _recorded(found, episodes, chosen)


@metric("success_last", needs="episodes", unit="rate")
def success_last(episodes: Sequence[Episode], *, chosen: Chosen | None = None) -> Result:
    """The rate of episodes in which the last step was a success."""
    found = _rates("success_last", episodes, lambda episode: episode.success_last)
    return _recorded(found, episodes, chosen)


@metric("success_at_reset", needs="episodes", unit="rate")
def success_at_reset(episodes: Sequence[Episode], *, chosen: Chosen | None = None) -> Result:
    """The rate of starts that were a success before anybody acted: 0 where the task is sound."""
    found = _rates("success_at_reset", episodes, lambda episode: episode.success_at_reset)
    return _recorded(found, episodes, chosen)


@metric("success_told", needs="episodes", unit="rate")
def success_told(episodes: Sequence[Episode]) -> Result:
    """The rate of episodes in which the task was done that was *told*, where that may be another.

    With the ``swapped`` sentence of another task it is what a policy does that listens, and
    ``success_any``, that of the task which is not told, what chance and habit do.
    """
    several = [episode for episode in episodes if "told_done" in episode.columns]
    if not several:
        raise NotApplicable("no log says whether what was told was done: nothing else can be told")
    return _rates("success_told", several, lambda one: bool(one.columns["told_done"].any()))


@metric("success_over_blind", needs="episodes", unit="rate")
def success_over_blind(
    episodes: Sequence[Episode], *, blind: Blind | None = None, chosen: Chosen | None = None
) -> Result:
    """``success_any`` less the better of the two blind rows of the same task.

    Per task the interval is Newcombe's for two unpaired rates; pooled, policies, tasks, episodes
    and blind trials are drawn.
    """
    if not blind:
        raise NotApplicable("no blind rows were measured for these tasks")
    groups = _by_env(episodes)
    if missing := sorted(set(groups) - set(blind)):
        raise NotApplicable(f"no blind rows of {missing[0]!r}{nearest(missing[0], blind)}")
    better = {env: _better_blind(env, blind[env]) for env in groups}
    parts = {env: _over(_counts(group), *better[env]) for env, group in groups.items()}
    played = _played(groups, lambda episode: episode.success_any)
    rows = np.array([row for _, row in better.values()])
    found = Result(
        "success_over_blind",
        "rate",
        value=float(np.mean([part.value for part in parts.values()])),
        interval=pooled.of_rate_over_blind(played, rows),
        n=len(episodes),
        details={"these_tasks": pooled.of_rate_over_blind(played, rows, keep_tasks=True)},
        parts=parts,
    )
    return _recorded(found, episodes, chosen)


@metric("steps_to_success", needs="episodes", unit="steps")
def steps_to_success(episodes: Sequence[Episode]) -> Result:
    """Executed steps to the first success, averaged over the episodes that succeed."""
    rows = [
        Row(rollout_name(episode), episode.env, float(steps))
        for episode in episodes
        if (steps := _first_success(episode)) is not None
    ]
    failures = ["no success"] * (len(episodes) - len(rows))
    return summarise("steps_to_success", "steps", rows, failures, played=who_played(episodes))


@metric("restricted_steps_to_success", needs="episodes", unit="steps")
def restricted_steps_to_success(episodes: Sequence[Episode]) -> Result:
    """Executed steps to the first success; an episode that fails counts with the whole budget.

    `steps_to_success` looks at successes alone, so a policy that gives up on what is hard looks
    quick. This is the restricted mean time of survival analysis (Royston and Parmar 2013), fair
    between policies of different success under one budget. ``details["budget"]`` is that of each
    task: the steps of its shortest failure, or of its longest episode where none failed.
    """
    started = [episode for episode in episodes if not episode.success_at_reset]
    budget = {env: _budget(group) for env, group in _by_env(started).items()}
    rows = [
        Row(rollout_name(e), e.env, float(min(_first_success(e) or budget[e.env], budget[e.env])))
        for e in started
    ]
    solved = [AT_START] * (len(episodes) - len(started))
    return summarise(
        "restricted_steps_to_success",
        "steps",
        rows,
        solved,
        played=who_played(started),
        details={"budget": budget},
    )


@metric("tasks_done", needs="episodes", unit="tasks")
def tasks_done(episodes: Sequence[Episode]) -> Result:
    """How many tasks of an episode's chain were done in their order; one task is a chain of one."""
    rows = [
        Row(rollout_name(episode), episode.env, float(episode.columns["tasks_done"].max()))
        for episode in episodes
        if "tasks_done" in episode.columns
    ]
    others = ["no chain of tasks"] * (len(episodes) - len(rows))
    return summarise("tasks_done", "tasks", rows, others, played=who_played(episodes))


@metric("progress", needs="episodes", unit="share")
def progress(episodes: Sequence[Episode], *, asked: Mapping[str, int] | None = None) -> Result:
    """The share of an episode's chain of tasks that was done, in their order.

    The only partial success that logs hold: they say nothing of goals, so there is no distance left
    to one, and a single task has no progress beside its success. How many tasks an environment asks
    is in its name in the suite ``scene``, and in ``asked`` for others.

    Raises:
        ValueError: more tasks were done than are asked.
    """
    rows, undefined = [], []
    for episode in episodes:
        if "tasks_done" not in episode.columns:
            undefined.append("no chain of tasks")
        elif (tasks := (asked or {}).get(episode.env) or _asked(episode.env)) is None:
            undefined.append(f"how many tasks {episode.env} asks is not known: pass asked=")
        elif episode.success_at_reset:
            undefined.append(AT_START)
        else:
            done = int(episode.columns["tasks_done"].max())
            if done > tasks:
                raise ValueError(f"{rollout_name(episode)}: {done} tasks done of {tasks} asked")
            rows.append(Row(rollout_name(episode), episode.env, done / tasks))
    return summarise("progress", "share", rows, undefined, played=who_played(episodes))


@metric("action_smoothness", needs="episodes")
def action_smoothness(episodes: Sequence[Episode]) -> Result:
    """How little the executed action jumps from step to step, beside how much it varies at all.

    ``1 - sum (a_{t+1} - a_t)^2 / (2 sum (a_t - mean)^2)``, a mean over the dimensions that vary:
    von Neumann's ratio (1941), turned so that 1 is smooth, 0 as independent draws of the same
    spread, -1 to and fro at every step. It has no unit, and needs neither a rate nor to know which
    dimensions are velocities; the usual spectral arc length and jerk need both, and no log has
    them. The same motion at a higher rate is smoother: compare at one rate only. ``details`` hold
    the same over the changes into a new plan (``at_replans``) and inside one (``inside_plans``), of
    the episodes that have both.
    """
    rows, undefined, seams = [], [], []
    for episode in episodes:
        action = episode.action.astype(float)
        varies = np.ptp(action, axis=0) > FLAT if len(action) > 2 else np.array([False])
        if not varies.any():
            undefined.append("fewer than 3 actions, or none that varies")
            continue
        jumps = _jumps(action[:, varies])
        rows.append(Row(rollout_name(episode), episode.env, 1 - float(jumps.mean())))
        into_new = np.isin(np.arange(1, len(action)), [one.step for one in episode.replans])
        if into_new.any() and not into_new.all():
            seams.append((1 - jumps[into_new].mean(), 1 - jumps[~into_new].mean()))
    means = np.mean(seams, axis=0).tolist() if seams else []
    details = dict(zip(("at_replans", "inside_plans"), means, strict=False))
    played = who_played(episodes)
    return summarise("action_smoothness", "", rows, undefined, played=played, details=details)


def _first_success(episode: Episode) -> int | None:
    """Executed steps to the first success; None where the policy never had one."""
    return int(episode.success.argmax()) + 1 if episode.success_any else None


def _budget(episodes: Sequence[Episode]) -> int:
    failed = [len(episode) for episode in episodes if not episode.success_any]
    return min(failed) if failed else max(len(episode) for episode in episodes)


def _asked(env: str) -> int | None:
    """How many tasks an environment asks, where its name tells."""
    suite, _, name = env.partition("/")
    return len(tasks_of(name)) if suite == "scene" else None


def _jumps(action: Float[np.ndarray, "n a"]) -> Float[np.ndarray, " n1"]:
    """Of each change: its square over twice the variance of the actions, a mean over dimensions."""
    return (np.diff(action, axis=0) ** 2 / (2 * action.var(axis=0, ddof=1))).mean(axis=1)


def _recorded(found: Result, episodes: Sequence[Episode], chosen: Chosen | None) -> Result:
    """The result, with how its episodes were chosen."""
    if unknown := sorted(set(chosen or {}) - set(RULES)):
        raise KeyError(f"no rule of {unknown[0]!r} is recorded{nearest(unknown[0], RULES)}")
    rules = {name: (chosen or {}).get(name, "not said") for name in RULES}
    details = {**found.details, "starts": _starts(episodes), "chosen": rules}
    return replace(found, details=details)


def _starts(episodes: Sequence[Episode]) -> str:
    """Which starts the logs hold, and whether every task and policy had the same ones."""
    groups: dict[tuple[str, str], set[int]] = {}
    for episode in episodes:
        groups.setdefault((episode.policy, episode.env), set()).add(episode.seed)
    seeds = set().union(*groups.values())
    if any(group != seeds for group in groups.values()):
        return f"{_said(seeds)}, not the same for every task and policy"
    return _said(seeds) + (", the same for every task and policy" if len(groups) > 1 else "")


def _said(seeds: set[int]) -> str:
    """``evaluation 0 to 19``, or how many where some between are missing."""
    last = len(SPLITS) * STARTS_PER_SPLIT
    by_split: dict[str, list[int]] = {}
    for seed in sorted(seeds):
        split = split_of(seed) if 0 <= seed < last else "seed"
        by_split.setdefault(split, []).append(seed % STARTS_PER_SPLIT if split in SPLITS else seed)
    return ", ".join(_range(split, numbers) for split, numbers in by_split.items())


def _range(split: str, numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    reach = f"{split} {first} to {last}" if last > first else f"{split} {first}"
    return reach if last - first + 1 == len(numbers) else f"{len(numbers)} of {reach}"


def _rates(name: str, episodes: Sequence[Episode], solved: Callable[[Episode], bool]) -> Result:
    groups = _by_env(episodes)
    parts = {env: _rate(name, group, solved) for env, group in groups.items()}
    if len(parts) == len({episode.policy for episode in episodes}) == 1:
        return replace(*parts.values(), parts=parts)
    played = _played(groups, solved)
    return Result(
        name,
        "rate",
        value=float(np.mean([part.value for part in parts.values()])),
        interval=pooled.of_rate(played),
        n=len(episodes),
        details={
            "these_tasks": pooled.of_rate(played, keep_tasks=True),
            "at_reset": sum(episode.success_at_reset for episode in episodes),
        },
        parts=parts,
    )


def _played(
    groups: Mapping[str, Sequence[Episode]], solved: Callable[[Episode], bool]
) -> pooled.Played:
    """Successes and episodes by task and policy."""
    policies = sorted({episode.policy for group in groups.values() for episode in group})
    played = np.zeros((len(groups), len(policies), 2), int)
    for task, group in enumerate(groups.values()):
        for episode in group:
            played[task, policies.index(episode.policy)] += solved(episode), 1
    return played


def _rate(name: str, episodes: Sequence[Episode], solved: Callable[[Episode], bool]) -> Result:
    items = {rollout_name(episode): float(solved(episode)) for episode in episodes}
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
