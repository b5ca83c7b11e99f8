"""Probes: from one exactly restored state, what was imagined and what happened, branch by branch.

The raw material of the joint measures. The own branches are joint samples of the model: the future
and the action of one draw. A model that does not act is asked what comes of the expert's actions.
Every branch's chunk is executed whole and open loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from wamlab.metrics.joint import OBJECT_GATE, SEQUENCES
from wamlab.models.base import Refusal
from wamlab.policy.agents import Agent, ExpertAgent
from wamlab.policy.executors import Executor
from wamlab.policy.raw import INSTRUCTION, Answerer, RawPrediction, check_space, codec_of
from wamlab.policy.seeds import draw_seed
from wamlab.run.execute import execute, visible
from wamlab.run.extract import with_extracted
from wamlab.run.impose import OTHER_INSTRUCTION, check_imposed, impose
from wamlab.run.reach import Reached, reach
from wamlab.run.seats import MakeEnv, make_env
from wamlab.run.states import TAKEN, ProbeOne, each_state
from wamlab.run.worlds import (
    WORLDS,
    Physics,
    check_worlds,
    expert_chunk,
    in_another_order,
    in_worlds,
    reference_branches,
)
from wamlab.sim.env import Env, SelfTest, Split, self_test
from wamlab.types import (
    FORWARD,
    IMAGE,
    JOINT,
    POLICY,
    STATE,
    Branch,
    BranchKind,
    Frames,
    Probe,
    Query,
)


def probe(
    policy: Answerer,
    env_names: str | Sequence[str],
    states: int,
    samples: int,
    *,
    split: Split = "evaluation",
    start: int = 0,
    seed: int = 0,
    out: str | Path | None = None,
    imposed: Sequence[str] = SEQUENCES,
    strata: Sequence[str] = TAKEN,
    others: Mapping[str, str] | None = None,
    worlds: Mapping[str, Physics] = WORLDS,
    agent: Agent | None = None,
    executor: Executor | None = None,
    make: MakeEnv = make_env,
    progress: bool = True,
) -> list[Probe]:
    """``states`` probes of each environment: own samples, imposed actions, and what they are held
    against.

    State i is drawn on an agent's way from start ``start + i``; the states take turns in where they
    lie on the way to contact.

    Args:
        out: a folder for the logs; a probe that is there already is not made again.
        imposed: names of `wamlab.run.impose`, done to the first own chunk, or to the expert's where
            the model does not act.
        strata: names of `wamlab.run.reach`; by default away from contact, shortly before it, in it.
        others: by environment another instruction, under which one more sample is drawn, with the
            noise of the first own one; ``other-instruction`` imposes its action.
        worlds: by name the physics in which the own actions and the imposed `SEQUENCES` are
            executed as well.
        agent: who goes to the states (None: the expert, without variants).
        executor: what turns a plan without actions (waypoints, sub-goals) into those executed.

    Raises:
        KeyError: an unknown intervention or stratum.
        Refusal: the model answers neither JOINT nor POLICY nor, of what is imposed, FORWARD.
        ValueError: an environment does not restore its states (`restored`); ``out`` holds probes of
            another policy, or is no folder for logs; the action space is not the policy's, or lacks
            what an intervention changes; no other instruction is known.
    """
    names = [env_names] if isinstance(env_names, str) else list(env_names)
    check_imposed(imposed, policy.space)
    check_worlds(worlds)
    told = others or {}
    check_told(names, imposed, told)
    made_by: dict[str, Any] = {
        "policy": policy.name,
        "weights": policy.digest,
        "agent": None if agent is None else agent.made_by,
        "samples": samples,
        "imposed": [*imposed],
        "worlds": {world: dict(physics) for world, physics in worlds.items()},
        "seed": seed,
        **({"others": {name: told[name] for name in names if name in told}} if told else {}),
    }

    @contextmanager
    def open_bench(name: str) -> Iterator[ProbeOne]:
        with closing(make(name)) as seeing, closing(make(name, views=())) as env:
            found = restored(seeing)
            if progress:
                tqdm.write(f"{name}, restored and acted on ten times: {found}")
            bench = Bench(
                policy=policy,
                env=env,
                seeing=seeing,
                samples=samples,
                seed=seed,
                imposed=tuple(imposed),
                executor=executor,
                other=told.get(name, ""),
                worlds=worlds,
                agent=agent,
            )
            yield bench.probe

    return each_state(
        names,
        states,
        open_bench,
        made_by=made_by,
        strata=strata,
        split=split,
        start=start,
        out=out,
        progress=progress,
    )


def restored(env: Env) -> SelfTest:
    """What an environment gives when the same state is restored and acted on again.

    Raises:
        ValueError: things end apart by more than a third of their gate, which joint measures count.
    """
    found = self_test(env)
    if 3 * found.entity_metres > OBJECT_GATE:
        raise ValueError(
            f"{env.name} cannot be probed, for it does not restore its states: the same action "
            f"from the same state led to places {1000 * found.entity_metres:.1f} mm apart, "
            f"expected {1000 * OBJECT_GATE / 3:.1f} mm at most"
        )
    return found


@dataclass
class Bench:
    """One environment twice, to act in (without rendering every step) and to see with.

    ``other`` is another instruction, under which one more sample is drawn. The own actions are
    executed in ``worlds`` as well; in another order, and the references, unless ``controls`` are
    not wanted. ``agent`` goes to the states (None: the expert, who needs to see nothing).
    """

    policy: Answerer
    env: Env
    seeing: Env
    samples: int
    seed: int
    imposed: tuple[str, ...] = SEQUENCES
    executor: Executor | None = None
    other: str = ""
    worlds: Mapping[str, Physics] = field(default_factory=lambda: WORLDS)
    controls: bool = True
    agent: Agent | None = None

    def __post_init__(self) -> None:
        check_space(self.policy, self.env.name, self.env.space)

    def probe(self, start: int, stratum: str) -> Probe:
        """The probe of one start; see `probe`."""
        at = reach(
            self.env if self.agent is None else self.seeing,
            self.seeing,
            self.agent or ExpertAgent(),
            start,
            wanted=stratum,
            near=self.policy.chunk,
            depth=self.policy.depth,
            draw=self.seed,
        )
        now = self._now(at)
        own, told, imposed = self.asked(at)
        views = self.seeing.views
        fixed = [one for one in imposed if one.label in SEQUENCES]
        branches = own + told + imposed
        shown = in_worlds(self.env, at.state, own + fixed, self.worlds, views)
        if self.controls:
            order = draw_seed(self.seed, at.seed, at.step)
            shown += in_another_order(self.env, at.state, own, order, views)
        branches += [self._recoded(one) for one in shown]
        if self.controls:
            branches += reference_branches(self.env, at.state, self.policy.chunk, at.seed)
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
            masks={name: mask[None] for name, mask in visible(self.seeing).items()},
            entities=self.seeing.entities(),
            pixel_noise=max(_difference(now[view], again[view]) for view in now),
            policy=self.policy.name,
            simulator_state=at.state,
        )

    def asked(self, at: Reached) -> tuple[list[Branch], list[Branch], list[Branch]]:
        """The own samples, the one under another instruction, and what is imposed.

        Of a model that does not act there is nothing but what it imagines of the expert's actions.
        """
        try:
            own = self.own(at)
        except Refusal as refusal:
            chunk = expert_chunk(self.env, at.state, self.policy.chunk, at.seed)
            imposed = self.impose(at, chunk)
            if not any(branch.imagined for branch in imposed):
                raise refusal
            return [], [], imposed
        told = self.instructed(at)
        return own, told, self.impose(at, own[0].action, told)

    def own(self, at: Reached) -> list[Branch]:
        """The model's own samples, executed; joint ones, or actions alone with ``why_not``.

        Where there are several, the model is asked once more which action it reads off each.
        """
        own = self._samples("own", [f"sample {row}" for row in range(self.samples)], at)
        own = [self._recoded(one) for one in own]
        return with_extracted(self.policy, at, own, self.seed) if self.samples > 1 else own

    def _recoded(self, branch: Branch) -> Branch:
        """With what happened after the model's codec, there and back, where that loses anything."""
        frames = branch.happened
        seen = codec_of(self.policy)(frames)
        lost = any(not np.array_equal(frames[view], one) for view, one in seen.items())
        return replace(branch, recoded=seen) if lost else branch

    def instructed(self, at: Reached) -> list[Branch]:
        """A sample as if the other instruction had stood all along, with the first own noise."""
        if not self.other:
            return []
        told = replace(
            at,
            observation={**at.observation, INSTRUCTION: self.other},
            history=at.history.retold(self.other),
        )
        (branch,) = self._samples("instructed", ["told otherwise"], told)
        return [replace(branch, instruction=self.other)]

    def impose(
        self, at: Reached, chunk: Float[np.ndarray, "h a"], told: Sequence[Branch] = ()
    ) -> list[Branch]:
        """The interventions on a chunk, imagined with the same noise and executed.

        ``told`` holds the sample under the other instruction; without one it is not imposed.
        """
        names = [name for name in self.imposed if told or name != OTHER_INSTRUCTION]
        if not names:
            return []
        chunks = [
            told[0].action if name == OTHER_INSTRUCTION else impose(name, chunk, self.policy.space)
            for name in names
        ]
        try:
            answer = self._ask(at, FORWARD, copies=len(chunks), action=np.stack(chunks))
            why = answer.undecoded
        except Refusal as refusal:
            answer, why = RawPrediction(), str(refusal)
        branches = self._branches("imposed", names, at, chunks, answer, why)
        for branch in branches:
            if branch.label == OTHER_INSTRUCTION:
                branch.instruction = self.other
        return branches

    def _samples(self, kind: BranchKind, labels: Sequence[str], at: Reached) -> list[Branch]:
        """A sample of the model's own for each label, executed."""
        answer, why = self._act(at, len(labels))
        chunks = [self._chunk(at, answer, row) for row in range(len(labels))]
        return self._branches(kind, labels, at, chunks, answer, why or answer.undecoded)

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


def check_told(names: Sequence[str], imposed: Sequence[str], others: Mapping[str, str]) -> None:
    """Raise ValueError unless another instruction is known wherever its action is imposed."""
    missing = [name for name in names if not others.get(name)]
    if OTHER_INSTRUCTION in imposed and missing:
        rest = ",".join(name for name in imposed if name != OTHER_INSTRUCTION)
        raise ValueError(
            f"{OTHER_INSTRUCTION!r} is imposed, but none is known for {missing[0]}: training said "
            f"no other; impose the rest alone (--set probe.imposed={rest or 'zero'})"
        )
