"""Closed-loop rollouts: several environments stepped together, everything logged."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from wamlab.data.logs import claim, read_episodes, save_episode
from wamlab.data.manifest import check_open
from wamlab.policy.agents import Agent
from wamlab.run.record import Moment, Recorder
from wamlab.run.seats import MakeEnv, Seat, make_env, seats
from wamlab.sim.env import Split, start_seed
from wamlab.sim.instructions import Sentence
from wamlab.types import Episode

Job = tuple[str, int]


@dataclass
class _Row:
    """One seat with the episode that is under way in it."""

    seat: Seat
    record: Recorder
    now: Moment
    steps: int

    def done(self, stop_after: int | None) -> bool:
        since = self.record.since_success()
        stopped = stop_after is not None and since is not None and since >= stop_after
        return stopped or len(self.record.actions) >= self.steps


def rollout(
    agent: Agent,
    env_names: str | Sequence[str],
    episodes: int,
    *,
    split: Split = "evaluation",
    start: int = 0,
    max_steps: int | None = None,
    batch: int = 8,
    workers: int = 0,
    out: str | Path | None = None,
    keep_frames: int | None = None,
    stop_after: int | None = None,
    sentence: Sentence = 0,
    shift: str = "",
    make: MakeEnv = make_env,
    progress: bool = True,
) -> list[Episode]:
    """Run ``episodes`` unseen starts of each environment, ``batch`` of them side by side.

    All rows that replan share one model call, and a row's result does not depend on the others.

    Args:
        start: the first start of ``split``; the same numbers are the same starts for every agent.
        max_steps: steps of an episode (None: the environment's own).
        workers: processes that simulate and render (0: this one).
        out: a folder for the logs. Each episode is written as it ends, and one that is there
            already is not run again. What is returned then holds no frames: the logs do.
        keep_frames: how many episodes of each environment keep their frames (None: all).
        stop_after: end an episode that many steps after its first success (None: go on).
        sentence: 0 says what training said; 1, 2, ... are paraphrases that it never saw;
            ``swapped`` is another task's sentence and ``empty`` none. Success is that of the task.
        shift: one of `wamlab.sim.shifts`, put on every environment.

    Raises:
        ValueError: ``out`` holds episodes of another agent, or is no folder for logs; a ``batch``
            of none.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}, expected at least 1 episode side by side")
    names = [env_names] if isinstance(env_names, str) else list(env_names)
    jobs = [(name, start_seed(split, start + i)) for name in names for i in range(episodes)]
    last = start_seed(split, start) + (episodes if keep_frames is None else keep_frames)
    if out is not None:
        check_open(Path(out))
        how = {"split": split, "max_steps": max_steps, "stop_after": stop_after}
        said = {"sentence": sentence, **({"shift": shift} if shift else {})}
        claim(out, "episodes", {**agent.made_by, **how, **said})
    make = partial(make, sentence=sentence) if sentence else make
    make = partial(make, shift=shift) if shift else make
    found = {} if out is None else _finished(Path(out), set(jobs))
    todo = deque(job for job in jobs if job not in found)
    bar = tqdm(total=len(jobs), initial=len(found), desc=agent.name, disable=not progress)
    with bar, seats(make, min(batch, len(todo)), workers) as places:
        for episode in _run(agent, places, todo, max_steps, stop_after, last):
            if out is not None:
                save_episode(out, episode)
                episode = without_frames(episode)
            found[episode.env, episode.seed] = episode
            bar.update()
            bar.set_postfix(_counts(found))
    return [found[job] for job in jobs]


def without_frames(episode: Episode) -> Episode:
    """The same episode without pictures, seen or imagined."""
    replans = [replace(one, imagined=None) for one in episode.replans]
    return replace(episode, frames={}, replans=replans)


def _run(
    agent: Agent,
    places: Sequence[Seat],
    todo: deque[Job],
    max_steps: int | None,
    stop_after: int | None,
    last: int,
) -> Iterator[Episode]:
    """Yield episodes as they end; a seat that falls free takes the next start."""
    rows: dict[int, _Row] = {}
    while todo or rows:
        for index, seat in enumerate(places):
            if index not in rows and todo:
                name, seed = todo.popleft()
                rows[index] = _begin(agent, index, seat, name, seed, max_steps, seed < last)
        _step(agent, rows)
        for index in [index for index, row in rows.items() if row.done(stop_after)]:
            yield rows.pop(index).record.episode()


def _begin(
    agent: Agent,
    index: int,
    seat: Seat,
    name: str,
    seed: int,
    max_steps: int | None,
    frames: bool,
) -> _Row:
    first = seat.begin(name, seed)
    agent.reset(index, seat, seed)
    record = Recorder(name, seed, first, agent.name, frames=frames)
    return _Row(seat, record, first, seat.max_steps if max_steps is None else max_steps)


def _step(agent: Agent, rows: dict[int, _Row]) -> None:
    actions, replans = agent.act({index: row.now.observation for index, row in rows.items()})
    for index, row in rows.items():
        row.seat.send(actions[index])
    for index, row in rows.items():
        row.now = row.seat.receive()
        row.record.add(actions[index], row.now)
        if index in replans:
            plan = replans[index]
            row.record.replans.append(plan if row.record.frames else replace(plan, imagined=None))


def _finished(out: Path, wanted: set[Job]) -> dict[Job, Episode]:
    jobs = ((episode, (episode.env, episode.seed)) for episode in read_episodes(out, frames=False))
    return {job: episode for episode, job in jobs if job in wanted}


def _counts(found: dict[Job, Episode]) -> dict[str, str]:
    ended, solved = (
        Counter(e for e, _ in found),
        Counter(e for e, s in found if found[e, s].success_any),
    )
    return {name.rpartition("/")[2]: f"{solved[name]}/{ended[name]}" for name in ended}
