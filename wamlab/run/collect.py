"""Scripted demonstrations into a dataset; what comes out depends on the arguments only.

Worker processes simulate and render, this process writes, in the order of the starts. A killed
collection loses the unfinished episodes only and continues where it was.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float
from tqdm import tqdm

from wamlab.data.writer import DatasetWriter
from wamlab.run.record import Recorder, moment
from wamlab.run.seats import LocalSeat, MakeEnv, end_with_parent, make_env
from wamlab.sim.env import STARTS_PER_SPLIT, Env, Split, start_seed
from wamlab.types import Episode

Noise = Callable[[Float[np.ndarray, " a"]], tuple[Float[np.ndarray, " a"], bool]]
AHEAD = 2
ATTEMPTS = 4


@dataclass
class Collected:
    """What became of the starts of one environment."""

    env: str
    kept: int = 0
    failed: int = 0
    solved_at_reset: int = 0

    @property
    def attempts(self) -> int:
        return self.kept + self.failed + self.solved_at_reset

    def add(self, episode: Episode, kept: bool) -> None:
        self.kept += kept
        self.solved_at_reset += not kept and episode.success_at_reset
        self.failed += not kept and not episode.success_at_reset

    def __str__(self) -> str:
        return (
            f"{self.env}: {self.kept} kept of {self.attempts} "
            f"starts ({self.failed} failed, {self.solved_at_reset} solved at the start)"
        )


class CollectError(RuntimeError):
    """Too few demonstrations succeed."""


@dataclass(frozen=True)
class Demonstration:
    """How one demonstration is made; a pure function of this and the start seed."""

    env: str
    variants: bool = True
    bursts: bool = True
    stop_after: int = 5

    def __call__(self, make: MakeEnv, seed: int) -> Episode:
        env = _seat(make).place(self.env)
        return demonstrate(
            env,
            seed,
            variants=self.variants,
            noise=_bursts(env.space.rate_hz, seed) if self.bursts else None,
            stop_after=self.stop_after,
        )


def demonstrate(
    env: Env,
    seed: int,
    *,
    variants: bool = True,
    noise: Noise | None = None,
    stop_after: int = 5,
    max_steps: int | None = None,
) -> Episode:
    """One expert episode from start ``seed``; it ends ``stop_after`` steps after success.

    ``action`` is what was executed, the column ``action.expert`` what the expert would have done,
    ``burst`` where the two differ because ``noise`` was on.
    """
    observation, _ = env.reset(seed=seed)
    record = Recorder(env.name, seed, moment(env, observation), "expert")
    expert = env.expert(variants=variants, seed=seed)
    for _ in range(env.max_steps if max_steps is None else max_steps):
        wanted = env.space.clip(expert())
        action, burst = noise(wanted) if noise else (wanted, False)
        action = env.space.clip(action)
        observation, *_ = env.step(action)
        record.add(action, moment(env, observation), **{"action.expert": wanted, "burst": burst})
        since = record.since_success()
        if since is not None and since >= stop_after:
            break
    return record.episode(expert.variant)


def collect(
    env_names: str | Sequence[str],
    episodes: int,
    out: str | Path,
    *,
    split: Split = "train",
    start: int = 0,
    variants: bool = True,
    bursts: bool = True,
    workers: int = 1,
    only_successful: bool = True,
    stop_after: int = 5,
    make: MakeEnv = make_env,
    progress: bool = True,
) -> list[Collected]:
    """Write ``episodes`` demonstrations of each environment to the dataset ``out``.

    Starts are tried in order. A failed demonstration, or a start that is solved already, is left
    out and counted; with ``only_successful=False`` the first ``episodes`` starts are all kept, and
    a reader takes the policy role from those marked as failed. Called again on the same dataset,
    it goes on after the last start that is there.

    Args:
        start: the first start of ``split``; what a dataset holds of an environment has one.
        workers: processes that simulate; the dataset does not depend on their number.

    Raises:
        CollectError: most starts of an environment fail; the counts so far are in the message.
        ValueError: the dataset's demonstrations of an environment begin at another start.
    """
    names = [env_names] if isinstance(env_names, str) else list(env_names)
    demos = [Demonstration(name, variants, bursts, stop_after) for name in names]
    bar = tqdm(total=episodes * len(names), desc="demonstrations", disable=not progress)
    with bar, DatasetWriter.for_env(out, _seat(make).place(names[0])) as writer:
        stored = _stored(Path(out))
        counts = [_resumed(name, stored, start_seed(split, start)) for name in names]
        bar.update(sum(min(count.kept, episodes) for count in counts))
        wanted = lambda episode: episode.success_any or not only_successful  # noqa: E731
        with _crew(make, workers) as run:
            for demo in demos:
                before = _before(demo.env, stored, split, start)
                tried = itertools.islice(run(demo, start_seed(split, start)), before)
                if any(map(wanted, tried)):  # it would be there, had its start been tried
                    raise _begun_elsewhere(demo.env, start + before, start)
            for demo, count in zip(demos, counts, strict=True):
                first = start_seed(split, start + count.attempts)
                for episode in run(demo, first) if count.kept < episodes else ():
                    kept = wanted(episode)
                    if kept:
                        writer.add(episode)
                        bar.update()
                    count.add(episode, kept)
                    bar.set_postfix_str(str(count))
                    if _enough(count, episodes):
                        break
    _seat(make).close()
    return counts


Run = Callable[[Demonstration, int], Iterator[Episode]]


@contextmanager
def _crew(make: MakeEnv, workers: int) -> Iterator[Run]:
    """Something that runs a demonstration from one start after the other, without end."""
    if workers <= 1:
        yield lambda demo, first: (demo(make, seed) for seed in itertools.count(first))
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=end_with_parent)
    try:
        yield functools.partial(_in_order, pool, make, AHEAD * workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, make: MakeEnv, ahead: int, demo: Demonstration, first: int
) -> Iterator[Episode]:
    pending: deque[Future[Episode]] = deque()
    try:
        for seed in itertools.count(first):
            pending.append(pool.submit(demo, make, seed))
            if len(pending) == ahead:
                yield pending.popleft().result()
    finally:
        for surplus in pending:
            surplus.cancel()


def _enough(count: Collected, episodes: int) -> bool:
    if count.kept < episodes and count.attempts >= ATTEMPTS * episodes + 10:
        raise CollectError(f"too few demonstrations succeed in {count}; {episodes} were asked for")
    return count.kept >= episodes


def _stored(path: Path) -> list[tuple[str, int]]:
    """Environment and start of every episode that the dataset holds."""
    shards = sorted((path / "meta" / "episodes").rglob("*.parquet"))
    tables = [pq.ParquetFile(shard).read(["env", "seed"]).to_pylist() for shard in shards]
    return [(row["env"], row["seed"]) for table in tables for row in table]


def _before(env: str, stored: Sequence[tuple[str, int]], split: Split, start: int) -> int:
    """How many starts from ``start`` on lie before the first that is stored of an environment.

    Raises:
        ValueError: one before ``start`` is stored.
    """
    numbers = [seed - start_seed(split, 0) for name, seed in stored if name == env]
    first = min((n for n in numbers if 0 <= n < STARTS_PER_SPLIT), default=start)
    if first < start:
        raise _begun_elsewhere(env, first, start)
    return first - start


def _begun_elsewhere(env: str, there: int, asked: int) -> ValueError:
    return ValueError(
        f"the demonstrations of {env} begin at start {there}, asked for was {asked}: give "
        f"--start {there}, or another folder"
    )


def _resumed(env: str, stored: Sequence[tuple[str, int]], first: int) -> Collected:
    """Where an earlier collection from the start ``first`` stood; what it left out had failed."""
    within = range(first, first + STARTS_PER_SPLIT)
    seeds = [seed for name, seed in stored if name == env and seed in within]
    attempts = max(seeds, default=first - 1) - first + 1
    return Collected(env, kept=len(seeds), failed=attempts - len(seeds))


@functools.lru_cache(maxsize=1)
def _seat(make: MakeEnv) -> LocalSeat:
    """This process's seat, whose environment is kept from one demonstration to the next.

    It is closed before the graphics library ends, which a worker's exit would not wait for.
    """
    seat = LocalSeat(make)
    atexit.register(seat.close)
    return seat


def _bursts(rate_hz: float, seed: int) -> Noise:
    from wamlab.sim.experts import BurstNoise

    return BurstNoise.at(rate_hz, seed)
