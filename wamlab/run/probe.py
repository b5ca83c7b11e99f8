"""Probes: from one exactly restored state, what was imagined and what happened, branch by branch.

The raw material of the joint measures. The own branches are joint samples of the model: the future
and the action of one draw. Every branch's chunk is executed whole and open loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from wamlab.data.logs import claim, read_probes, save_probe
from wamlab.data.manifest import check_open
from wamlab.models.base import Refusal
from wamlab.policy.agents import Agent, ExpertAgent
from wamlab.policy.executors import Executor
from wamlab.policy.policy import RawPrediction
from wamlab.policy.seeds import draw_seed
from wamlab.run.impose import IMPOSED, impose
from wamlab.run.reach import STRATA, Reached, reach
from wamlab.run.seats import MakeEnv, make_env
from wamlab.sim.env import Env, Split, start_seed
from wamlab.types import (
    FORWARD,
    IMAGE,
    JOINT,
    POLICY,
    STATE,
    ActionSpace,
    Branch,
    BranchKind,
    Frames,
    Probe,
    Query,
)


class Asked(Protocol):
    """Whatever answers a query: a `Policy`, or one behind a wire."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """Which weights answer."""
        ...

    @property
    def space(self) -> ActionSpace: ...

    @property
    def offsets(self) -> tuple[int, ...]: ...

    @property
    def chunk(self) -> int: ...

    @property
    def depth(self) -> int: ...

    def query(self, *question: Any, **options: Any) -> RawPrediction: ...


@dataclass(frozen=True)
class Happened:
    """What executing a whole chunk gave: frames and masks at the offsets, poses at every step."""

    frames: Frames
    entities: dict[str, Float[np.ndarray, "h1 7"]]
    masks: dict[str, np.ndarray]
    success: bool


def probe(
    policy: Asked,
    env_names: str | Sequence[str],
    states: int,
    samples: int,
    *,
    split: Split = "evaluation",
    start: int = 0,
    seed: int = 0,
    out: str | Path | None = None,
    imposed: Sequence[str] = tuple(IMPOSED),
    agent: Agent | None = None,
    executor: Executor | None = None,
    make: MakeEnv = make_env,
    progress: bool = True,
) -> list[Probe]:
    """``states`` probes of each environment: ``samples`` own branches and the ``imposed`` ones.

    State i is drawn on an agent's way from start ``start + i``; the states take turns in being
    away from contact, shortly before it and in it.

    Args:
        out: a folder for the logs; a probe that is there already is not made again.
        agent: who goes to the states (None: the expert, without variants).
        executor: what turns a plan without actions (waypoints, sub-goals) into those executed.

    Raises:
        KeyError: an unknown intervention.
        Refusal: the model answers neither JOINT nor POLICY.
        ValueError: ``out`` holds probes of another policy, or is no folder for logs.
    """
    names = [env_names] if isinstance(env_names, str) else list(env_names)
    for name in imposed:
        impose(name, np.zeros((2, policy.space.size), np.float32), policy.space)
    if out is not None:
        check_open(Path(out))
        how = {"split": split, "samples": samples, "imposed": [*imposed], "seed": seed}
        reached = None if agent is None else agent.made_by
        who = {"policy": policy.name, "weights": policy.digest, "agent": reached}
        claim(out, "probes", {**who, **how})
    found = {} if out is None else _finished(Path(out))
    probes = []
    with tqdm(total=states * len(names), desc="probes", disable=not progress) as bar:
        for name in names:
            with closing(make(name)) as seeing, closing(make(name, views=())) as env:
                bench = Bench(policy, env, seeing, samples, seed, tuple(imposed), executor)
                for index in range(states):
                    first = start_seed(split, start + index)
                    one = found.get((name, first))
                    if one is None:
                        one = bench.probe(first, STRATA[index % len(STRATA)], agent)
                        if out is not None:
                            save_probe(out, one)
                    probes.append(one)
                    bar.update()
    return probes


@dataclass
class Bench:
    """One environment twice, to act in (without rendering every step) and to see with."""

    policy: Asked
    env: Env
    seeing: Env
    samples: int
    seed: int
    imposed: tuple[str, ...] = tuple(IMPOSED)
    executor: Executor | None = None

    def probe(self, start: int, stratum: str, agent: Agent | None = None) -> Probe:
        """The probe of one start; see `probe`."""
        at = reach(
            self.env if agent is None else self.seeing,
            self.seeing,
            agent or ExpertAgent(),
            start,
            wanted=stratum,
            near=self.policy.chunk,
            depth=self.policy.depth,
            draw=self.seed,
        )
        now = self._now(at)
        own = self.own(at)
        branches = own + self.impose(at, own[0].action)
        again = self._now(at)
        return Probe(
            env=self.env.name,
            instruction=at.observation["instruction"],
            seed=start,
            step=at.step,
            now=now,
            state=at.observation[STATE],
            branches=branches,
            stratum=at.stratum,
            masks={name: mask[None] for name, mask in _masks(self.seeing).items()},
            entities=self.seeing.entities(),
            pixel_noise=max(_difference(now[view], again[view]) for view in now),
            policy=self.policy.name,
            simulator_state=at.state,
        )

    def own(self, at: Reached) -> list[Branch]:
        """The model's own samples, executed; joint ones, or actions alone with ``why_not``."""
        try:
            answer, why = self._ask(at, JOINT, samples=self.samples), ""
        except Refusal as refusal:
            answer = self._ask(at, POLICY, samples=self.samples)
            why = f"not a joint sample: {refusal}"
        rows = range(self.samples)
        chunks = [self._chunk(at, answer, row) for row in rows]
        labels = [f"sample {row}" for row in rows]
        return self._branches("own", labels, at, chunks, answer, why or answer.undecoded)

    def impose(self, at: Reached, own: Float[np.ndarray, "h a"]) -> list[Branch]:
        """The interventions on the first own chunk, imagined with the same noise and executed."""
        if not self.imposed:
            return []
        chunks = [impose(name, own, self.policy.space) for name in self.imposed]
        try:
            answer = self._ask(at, FORWARD, copies=len(chunks), action=np.stack(chunks))
            why = answer.undecoded
        except Refusal as refusal:
            answer, why = RawPrediction(), str(refusal)
        return self._branches("imposed", self.imposed, at, chunks, answer, why)

    def _ask(self, at: Reached, query: Query, *, copies: int = 1, **options: Any) -> RawPrediction:
        seeds = [draw_seed(self.seed, at.seed, at.step)] * copies
        return self.policy.query(
            [at.observation] * copies,
            query,
            seed=seeds,
            histories=[at.history] * copies,
            **options,
        )

    def _branches(
        self,
        kind: BranchKind,
        labels: Sequence[str],
        at: Reached,
        chunks: Sequence[Float[np.ndarray, "h a"]],
        answer: RawPrediction,
        why: str,
    ) -> list[Branch]:
        branches = []
        for row, (label, chunk) in enumerate(zip(labels, chunks, strict=True)):
            imagined, offsets = _imagined(answer, row, len(chunk))
            why_not = "" if imagined is not None else why or _unclocked(answer, len(chunk))
            if imagined is None:
                offsets = self._offsets(len(chunk))
            happened = execute(self.env, at.state, chunk, offsets, self.seeing.views)
            branches.append(
                Branch(
                    kind,
                    label,
                    chunk,
                    offsets,
                    happened.frames,
                    imagined,
                    why_not,
                    happened.entities,
                    happened.masks,
                    happened.success,
                    answer.cost.calls,
                    answer.cost.ms,
                )
            )
        return branches

    def _offsets(self, steps: int) -> Int[np.ndarray, " t"]:
        """When to look where nothing was imagined: the model's offsets, else half-way and end."""
        offsets = self.policy.offsets or (steps // 2, steps)
        return np.array([k for k in offsets if 1 <= k <= steps], int)

    def _chunk(self, at: Reached, answer: RawPrediction, row: int) -> Float[np.ndarray, "h a"]:
        """The actions of one sample; a plan without any is followed by the executor."""
        if answer.action is not None:
            return answer.action.values[row][answer.action.present[row]]
        if self.executor is None:
            raise ValueError(f"{self.policy.name} plans without actions: give an executor")
        self.env.set_state(at.state)
        self.executor.reset(0)
        self.executor.accept(0, answer.select([row]))
        actions, observation = [], at.observation
        for _ in range(self.policy.chunk):
            self.executor.due(0, observation)
            actions.append(self.policy.space.clip(self.executor.action(0, observation)))
            observation, *_ = self.env.step(actions[-1])
        return np.stack(actions)

    def _now(self, at: Reached) -> Frames:
        self.seeing.set_state(at.state)
        return {view: self.seeing.render_view(view)[None].copy() for view in self.seeing.views}


def execute(
    env: Env,
    state: Float[np.ndarray, " q"],
    actions: Float[np.ndarray, "h a"],
    offsets: Int[np.ndarray, " t"],
    views: Sequence[str],
) -> Happened:
    """Restore ``state`` and execute all ``actions``; frames and masks at ``offsets`` (1 .. H)."""
    env.set_state(state)
    poses = [env.entities()]
    frames: dict[str, list[np.ndarray]] = {view: [] for view in views}
    masks: list[dict[str, np.ndarray]] = []
    for step, action in enumerate(actions, start=1):
        env.step(action)
        poses.append(env.entities())
        if step in offsets:
            for view in views:
                frames[view].append(env.render_view(view).copy())
            masks.append(_masks(env, views))
    names = sorted({name for seen in masks for name in seen})
    size = env.image_size
    hidden = np.zeros((size, size), bool)
    return Happened(
        {view: _stacked(shots, (size, size, 3)) for view, shots in frames.items()},
        {name: np.stack([pose[name] for pose in poses]) for name in poses[0]},
        {name: np.stack([seen.get(name, hidden) for seen in masks]) for name in names},
        bool(env.success),
    )


def _stacked(shots: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(shots) if shots else np.zeros((0, *shape), np.uint8)


def _masks(env: Env, views: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    return {
        f"{view}/{name}": mask
        for view in (env.views if views is None else views)
        for name, mask in env.masks(view).items()
    }


def _imagined(answer: RawPrediction, row: int, steps: int) -> tuple[Frames | None, np.ndarray]:
    """A row's imagined frames within the ``steps`` executed, and when they are."""
    frames = answer.frames(row)
    offsets = answer.frame_offsets(row)
    if frames is None or offsets is None:
        return None, np.zeros(0, int)
    kept = (offsets >= 1) & (offsets <= steps)
    if not kept.any():
        return None, np.zeros(0, int)
    return {name.removeprefix(IMAGE): shots[kept] for name, shots in frames.items()}, offsets[kept]


def _unclocked(answer: RawPrediction, steps: int) -> str:
    if answer.future is None:
        return "the answer holds no future"
    if answer.future.offsets is None:
        return "the imagined future is unclocked: no frame belongs to a step"
    return f"nothing is imagined within the {steps} executed steps"


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).max())


def _finished(out: Path) -> dict[tuple[str, int], Probe]:
    return {(one.env, one.seed): one for one in read_probes(out)}
