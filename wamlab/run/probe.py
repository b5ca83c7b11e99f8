"""Probes: from one exactly restored state, what was imagined and what happened, branch by branch.

The raw material of the joint measures. The own branches are joint samples of the model: the future
and the action of one draw. Every branch's chunk is executed whole and open loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from wamlab.data.logs import claim, read_probes, save_probe
from wamlab.data.manifest import check_open
from wamlab.metrics.joint import LISTED
from wamlab.models.base import Refusal
from wamlab.policy.agents import Agent, ExpertAgent
from wamlab.policy.executors import Executor
from wamlab.policy.policy import RawPrediction
from wamlab.policy.seeds import draw_seed
from wamlab.run.impose import OTHER_INSTRUCTION, check_imposed, impose
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
    imposed: Sequence[str] = LISTED,
    others: Mapping[str, str] | None = None,
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
        imposed: names of `wamlab.run.impose`.
        others: by environment another instruction, whose action ``other-instruction`` imposes.
        agent: who goes to the states (None: the expert, without variants).
        executor: what turns a plan without actions (waypoints, sub-goals) into those executed.

    Raises:
        KeyError: an unknown intervention.
        Refusal: the model answers neither JOINT nor POLICY.
        ValueError: ``out`` holds probes of another policy, or is no folder for logs; the action
            space lacks what an intervention changes; no other instruction is known.
    """
    names = [env_names] if isinstance(env_names, str) else list(env_names)
    check_imposed(imposed, policy.space)
    told = _told(names, imposed, others or {})
    if out is not None:
        check_open(Path(out))
        how: dict[str, Any] = {
            "split": split,
            "samples": samples,
            "imposed": [*imposed],
            "seed": seed,
        }
        how |= {"others": dict(told)} if told else {}
        reached = None if agent is None else agent.made_by
        who = {"policy": policy.name, "weights": policy.digest, "agent": reached}
        claim(out, "probes", {**who, **how})
    found = {} if out is None else _finished(Path(out))
    probes = []
    with tqdm(total=states * len(names), desc="probes", disable=not progress) as bar:
        for name in names:
            with closing(make(name)) as seeing, closing(make(name, views=())) as env:
                bench = Bench(
                    policy, env, seeing, samples, seed, tuple(imposed), executor, told.get(name, "")
                )
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
    """One environment twice, to act in (without rendering every step) and to see with.

    ``other`` is the instruction whose action ``other-instruction`` imposes.
    """

    policy: Asked
    env: Env
    seeing: Env
    samples: int
    seed: int
    imposed: tuple[str, ...] = LISTED
    executor: Executor | None = None
    other: str = ""

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
        answer, why = self._act(at, self.samples)
        rows = range(self.samples)
        chunks = [self._chunk(at, answer, row) for row in rows]
        labels = [f"sample {row}" for row in rows]
        return self._branches("own", labels, at, chunks, answer, why or answer.undecoded)

    def impose(self, at: Reached, own: Float[np.ndarray, "h a"]) -> list[Branch]:
        """The interventions on the first own chunk, imagined with the same noise and executed."""
        if not self.imposed:
            return []
        chunks = [self._imposed(name, at, own) for name in self.imposed]
        try:
            answer = self._ask(at, FORWARD, copies=len(chunks), action=np.stack(chunks))
            why = answer.undecoded
        except Refusal as refusal:
            answer, why = RawPrediction(), str(refusal)
        branches = self._branches("imposed", self.imposed, at, chunks, answer, why)
        for branch in branches:
            if branch.label == OTHER_INSTRUCTION:
                branch.instruction = self.other
        return branches

    def _imposed(
        self, name: str, at: Reached, own: Float[np.ndarray, "h a"]
    ) -> Float[np.ndarray, "h a"]:
        """What is imposed: made of the own chunk, or drawn anew for the other instruction."""
        if name != OTHER_INSTRUCTION:
            return impose(name, own, self.policy.space)
        told = replace(at, observation={**at.observation, "instruction": self.other})
        return self._chunk(told, self._act(told, 1)[0], 0)

    def _act(self, at: Reached, samples: int) -> tuple[RawPrediction, str]:
        """Joint samples; of a model that does not draw any its actions, and why."""
        try:
            return self._ask(at, JOINT, samples=samples), ""
        except Refusal as refusal:
            return self._ask(at, POLICY, samples=samples), f"not a joint sample: {refusal}"

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


def _told(
    names: Sequence[str], imposed: Sequence[str], others: Mapping[str, str]
) -> Mapping[str, str]:
    """The other instruction of each environment, where one is imposed."""
    if OTHER_INSTRUCTION not in imposed:
        return {}
    if missing := [name for name in names if not others.get(name)]:
        raise ValueError(f"{OTHER_INSTRUCTION!r} is imposed, but none is known for {missing[0]}")
    return others


def _finished(out: Path) -> dict[tuple[str, int], Probe]:
    return {(one.env, one.seed): one for one in read_probes(out)}
