"""The IDM Turing test: is what a model imagines so real that acting on it solves the task?

From a start's first observation and its instruction a model imagines a film of the whole episode.
One judge, an inverse dynamics model trained on real data alone and the same for every model, reads
the actions off it; they are executed open loop from the same start, and success is counted (arXiv
2601.04137; the closed loop of 2410.18072 is `wamlab.run.decoded`). The judge errs, an open loop
drifts, and some tasks are solved by motions that fit any start; so the same starts are also judged
by films that nobody imagined:

- ``ceiling``: the real film of a successful demonstration from this start;
- ``shuffled``: the real film of another start in another order of time, which is the floor;
- ``another start``: the same in its own order: what the motion alone is worth, without this start;
- ``retrieval``: training clips, each the nearest to where the one before it ended;
- ``object erased``: the real film without its objects (`wamlab.sim.erase`): where it solves as much
  as the ceiling, the test sees the robot alone and says nothing of imagined objects;
- ``demonstration``: no film: the demonstration's own actions, which shows what reading costs.

Logs are episodes, one folder for each condition; `wamlab.metrics.plausibility` judges them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from wamlab.config import nearest
from wamlab.data.logs import claim, read_episodes, save_episode
from wamlab.data.manifest import check_open
from wamlab.metrics.rivals import Clips
from wamlab.policy.policy import Policy
from wamlab.policy.seeds import draw_seed
from wamlab.run.film import (
    ClipImaginer,
    Film,
    Judge,
    ModelImaginer,
    ReadState,
    Shot,
    Unrolling,
    shoot,
)
from wamlab.run.replay import replayed
from wamlab.run.seats import MakeEnv, make_env
from wamlab.sim.env import Env, Split, start_seed
from wamlab.sim.erase import erase_objects
from wamlab.types import Episode, Replan

IMAGINED = "imagined"
CONTROLS = (
    *("ceiling", "shuffled", "another start", "retrieval", "object erased", "demonstration"),
)
TOGETHER = 8
"""How many films are imagined side by side."""

Shown = tuple[int, Film | Float[np.ndarray, "n a"]]
"""A start, and what stands for it: a film to be read, or actions that need no reading."""
Source = Callable[["Studio", Sequence[int]], Iterable[Shown]]


class Studio:
    """One environment in which starts are filmed, and where actions are executed.

    Films cover the whole episode, in whole windows of the judge.
    """

    def __init__(self, judge: Judge, name: str, seed: int, make: MakeEnv) -> None:
        self.judge, self.seed = judge, seed
        self.stack = ExitStack()
        self._make: Callable[..., Env] = lambda **options: self.stack.enter_context(
            closing(make(name, **options))
        )
        self.env = self._make(views=())
        self._seeing: Env | None = None
        self._erased: Env | None = None
        self._shots: dict[int, Shot] = {}

    @property
    def windows(self) -> int:
        return self.judge.windows(self.env.max_steps)

    def first(self, start: int) -> dict[str, Any]:
        """What is seen, in every view, at a start."""
        if self._seeing is None:
            self._seeing = self._make()
        observation, _ = self._seeing.reset(seed=start)
        return observation

    def demonstration(self, start: int) -> Shot:
        """What the scripted expert does from a start on, success or not, to the film's end."""
        if start not in self._shots:
            self._shots[start] = self._shoot(self.env, start)
        return self._shots[start]

    def erased(self, start: int) -> Film:
        """The same without the objects: they are where they were, and not in the pictures."""
        if self._erased is None:
            self._erased = erase_objects(self._make(views=()))
        return self._shoot(self._erased, start).film

    def _shoot(self, env: Env, start: int) -> Shot:
        env.reset(seed=start)
        expert = env.expert(variants=False, seed=draw_seed(self.seed, start))
        return shoot(env, self.judge.views, self.judge.ticks(self.windows), expert)


@dataclass(frozen=True)
class Turing:
    """The test on ``starts`` starts of each environment, the same for every model and control.

    ``keep_frames`` films of each environment are logged with their frames, as the replans of the
    episode that came of them.

    Raises:
        ValueError: fewer than two starts: a shuffled film is another start's.
    """

    judge: Judge
    envs: Sequence[str]
    starts: int
    split: Split = "evaluation"
    start: int = 0
    seed: int = 0
    keep_frames: int = 0
    make: MakeEnv = make_env
    progress: bool = True

    def __post_init__(self) -> None:
        if self.starts < 2:
            raise ValueError(f"{self.starts} starts: the shuffled film of a start is another one's")

    @property
    def seeds(self) -> list[int]:
        return [start_seed(self.split, self.start + i) for i in range(self.starts)]

    def imagined(
        self,
        policy: Policy,
        out: str | Path | None = None,
        *,
        read_state: ReadState | None = None,
    ) -> list[Episode]:
        """What comes of the films that a model imagines; ``out`` is a folder for the logs.

        ``read_state`` says what the state is in an imagined frame; None leaves it absent.

        Raises:
            Refusal: the model does not answer VIDEO, or not in clocked pixels.
            ValueError: the judge cannot read its frames; ``out`` holds other episodes.
        """
        unrolling = Unrolling(ModelImaginer(policy, self.judge), self.judge, self.seed, read_state)
        return self._judged(IMAGINED, policy.name, unrolling.made_by, _unrolled(unrolling), out)

    def control(
        self, name: str, out: str | Path | None = None, *, clips: Clips | None = None
    ) -> list[Episode]:
        """What comes of the films of a control; starts that have none of it are left out.

        Raises:
            KeyError: an unknown control, with the nearest one.
            ValueError: retrieval without ``clips``, an environment that cannot erase its objects,
                or ``out`` holds other episodes.
        """
        if name not in CONTROLS:
            raise KeyError(f"no control {name!r}{nearest(name, CONTROLS)}")
        if name == "retrieval":
            if clips is None:
                raise ValueError("retrieval shows training clips, but none were given")
            unrolling = Unrolling(ClipImaginer(clips, self.judge), self.judge, self.seed)
            return self._judged(name, name, unrolling.made_by, _unrolled(unrolling), out)
        sources: Mapping[str, Source] = {
            "ceiling": _ceiling,
            "shuffled": self._shuffled,
            "another start": self._another,
            "object erased": _erased,
            "demonstration": _demonstrated,
        }
        return self._judged(name, name, {"seed": self.seed}, sources[name], out)

    def _shuffled(self, studio: Studio, starts: Sequence[int]) -> Iterator[Shown]:
        for start, film in self._another(studio, starts):
            assert isinstance(film, Film)
            rng = np.random.default_rng([self.seed, start])
            yield start, film.reordered(rng.permutation(len(film.ticks)).tolist())

    def _another(self, studio: Studio, starts: Sequence[int]) -> Iterator[Shown]:
        """The film of the next start of the test."""
        for start in starts:
            other = self.seeds[(self.seeds.index(start) + 1) % self.starts]
            yield start, studio.demonstration(other).film

    def _judged(
        self,
        condition: str,
        label: str,
        made_by: Mapping[str, Any],
        source: Source,
        out: str | Path | None,
    ) -> list[Episode]:
        if out is not None:
            check_open(Path(out))
            judged = {"judge": self.judge.name, "judge weights": self.judge.policy.digest}
            claim(out, "episodes", {**made_by, **judged, "condition": condition})
        logs = () if out is None else read_episodes(out, frames=False)
        found = {(one.env, one.seed): one for one in logs}
        jobs = [(env, seed) for env in self.envs for seed in self.seeds]
        bar = tqdm(total=len(jobs), desc=f"{label} films", disable=not self.progress)
        with bar:
            for env in self.envs:
                todo = [seed for seed in self.seeds if (env, seed) not in found]
                bar.update(self.starts - len(todo))
                for episode in self._played(env, todo, label, source) if todo else ():
                    if out is not None:
                        save_episode(out, episode)
                    found[env, episode.seed] = episode
                    bar.update()
        return [found[job] for job in jobs if job in found]

    def _played(
        self, env: str, todo: Sequence[int], label: str, source: Source
    ) -> Iterator[Episode]:
        studio = Studio(self.judge, env, self.seed, self.make)
        with studio.stack:
            for seed, shown in source(studio, todo):
                if not isinstance(shown, Film):
                    yield replayed(studio.env, seed, shown, policy=label)
                    continue
                actions = self.judge.read(shown, studio.env.instruction)
                episode = replayed(studio.env, seed, actions, policy=label)
                kept = shown if self.seeds.index(seed) < self.keep_frames else None
                episode.replans = self._plans(actions, kept, len(episode))
                yield episode

    def _plans(
        self, actions: Float[np.ndarray, "n a"], film: Film | None, steps: int
    ) -> list[Replan]:
        """What was read off each window that was executed, beside its frames where there are."""
        chunk, count, plans = self.judge.chunk, len(self.judge.offsets), []
        for window, step in enumerate(range(0, steps, chunk)):
            plan = Replan(step=step, reason="film", action=actions[step : step + chunk])
            if film is not None:
                ahead = slice(count * window + 1, count * (window + 1) + 1)
                plan.imagined = {view: shots[ahead] for view, shots in film.frames.items()}
                plan.imagined_offsets = np.array(self.judge.offsets)
            plans.append(plan)
        return plans


def _unrolled(unrolling: Unrolling) -> Source:
    def films(studio: Studio, starts: Sequence[int]) -> Iterator[Shown]:
        for begin in range(0, len(starts), TOGETHER):
            group = starts[begin : begin + TOGETHER]
            first = [studio.first(start) for start in group]
            made = unrolling.films(studio.env.name, first, group, studio.windows)
            yield from zip(group, made, strict=True)

    return films


def _ceiling(studio: Studio, starts: Sequence[int]) -> Iterator[Shown]:
    for start in starts:
        shot = studio.demonstration(start)
        if shot.solved:
            yield start, shot.film


def _erased(studio: Studio, starts: Sequence[int]) -> Iterator[Shown]:
    for start in starts:
        if studio.demonstration(start).solved:
            yield start, studio.erased(start)


def _demonstrated(studio: Studio, starts: Sequence[int]) -> Iterator[Shown]:
    for start in starts:
        shot = studio.demonstration(start)
        if shot.solved:
            yield start, shot.actions
