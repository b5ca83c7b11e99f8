"""The causal use of imagination: another future is put in its place before the action is decoded.

A model that answers VIDEO and INVERSE acts on what it imagined, or so it says. Here its own future
is replaced, everything else and all noise stays, and the action that comes out is logged beside the
one that came of its own: another sample's future, that of another task's scene, noise; and futures
that truly happen, of its own chunk and of the mirrored one. What the action *should* then be says
an exact extractor: where frames are true it knows the chunk that made them, and an imagined future
is searched for in the simulator (`wamlab.run.search.Search`). No action leads to another
scene or to noise, so nothing is demanded there.

A probe holds one branch for each (`own` is the model's own future), and those of the exact
extractor under ``exact: ...``. `wamlab.metrics.use` says what follows; `ReplacedAgent` acts so
throughout an episode. It is a test of use and no measure of quality: an action that does not depend
on the imagination is legitimate, where that is declared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from wamlab.config import nearest
from wamlab.models.base import Refusal
from wamlab.policy.agents import ExpertAgent
from wamlab.policy.policy import Policy
from wamlab.policy.raw import RawPrediction, check_space
from wamlab.policy.seeds import draw_seed
from wamlab.run.execute import execute
from wamlab.run.extract import extract
from wamlab.run.impose import mirrored
from wamlab.run.reach import Reached, reach
from wamlab.run.search import Sandbox, Search
from wamlab.run.seats import MakeEnv, make_env
from wamlab.run.states import ProbeOne, each_state
from wamlab.run.substitution import FUTURES, SubstitutedAgent
from wamlab.sim.env import Env, RawObservation, Split
from wamlab.types import (
    IMAGE,
    INVERSE,
    STATE,
    VIDEO,
    Branch,
    Frames,
    Probe,
)

OWN, REDRAWN = "own", "redrawn"
SAMPLE, SCENE, NOISE = "another sample's", "another task's", "noise"
EXECUTED, MIRRORED = "own executed", "mirrored executed"
EXACT = "exact: "

Chunk = Float[np.ndarray, "h a"]


def use(
    policy: Policy,
    env_names: Sequence[str],
    states: int,
    *,
    others: Mapping[str, str],
    split: Split = "evaluation",
    start: int = 0,
    seed: int = 0,
    search: Search | None = None,
    out: str | Path | None = None,
    make: MakeEnv = make_env,
    progress: bool = True,
) -> list[Probe]:
    """``states`` probes of each environment, on the expert's way as in `wamlab.run.probe.probe`.

    Args:
        others: for each environment the one whose scene takes its place.
        search: how the exact extractor looks for an imagined future (None: it does not, and of
            another sample's future nothing is demanded).
        out: a folder for the logs; a probe that is there already is not made again.

    Raises:
        Refusal: the model does not answer VIDEO or INVERSE, or imagines no clocked pixels.
        KeyError: an environment without another one.
        ValueError: an environment whose action space is not the policy's.
        LogError: ``out`` holds probes of another policy or setting.
    """
    for query in (VIDEO, INVERSE):
        policy.model.answer(query)
    for name in env_names:
        if name not in others:
            raise KeyError(f"no other scene is named for {name!r}{nearest(name, others)}")
    made_by = {
        "test": "use",
        "policy": policy.name,
        "weights": policy.digest,
        "others": dict(others),
        "search": None if search is None else vars(search),
        "seed": seed,
    }

    @contextmanager
    def open_desk(name: str) -> Iterator[ProbeOne]:
        with ExitStack() as stack:
            env, seeing, other = (
                stack.enter_context(closing(world))
                for world in (make(name, views=()), make(name), make(others[name]))
            )
            yield Desk(policy, env, seeing, other, seed, search).probe

    return each_state(
        env_names,
        states,
        open_desk,
        made_by=made_by,
        split=split,
        start=start,
        out=out,
        desc="use",
        progress=progress,
    )


@dataclass
class Desk:
    """An environment to act in, one to see with, and one whose scene is another."""

    policy: Policy
    env: Env
    seeing: Env
    other: Env
    seed: int
    search: Search | None = None

    def __post_init__(self) -> None:
        check_space(self.policy, self.env.name, self.env.space)

    def probe(self, start: int, stratum: str) -> Probe:
        """The probe of one start; see `use`."""
        at = reach(
            self.env, self.seeing, ExpertAgent(), start, wanted=stratum, near=self.policy.chunk,
            depth=self.policy.depth, draw=self.seed,
        )  # fmt: skip
        shown = self._imagined(at)
        chunks = dict(zip(shown, self._extract(at, list(shown.values())), strict=True))
        chunks[REDRAWN] = self._extract(at, [shown[OWN]], redrawn=1)[0]
        real = {EXECUTED: chunks[OWN], MIRRORED: mirrored(chunks[OWN], self.policy.space)}
        shown |= {label: self._happens(at, chunk) for label, chunk in real.items()}
        chunks |= zip(real, self._extract(at, [shown[label] for label in real]), strict=True)
        exact = real | self._searched(at, shown, chunks)
        branches = [self._branch(at, label, chunks[label], shown) for label in chunks]
        branches += [
            self._branch(at, f"{EXACT}{label}", chunk, {f"{EXACT}{label}": shown[label]})
            for label, chunk in exact.items()
        ]
        return Probe(
            env=self.env.name,
            instruction=at.observation["instruction"],
            seed=start,
            step=at.step,
            now={view: at.observation[f"{IMAGE}{view}"][None] for view in self._views},
            state=at.observation[STATE],
            branches=branches,
            stratum=at.stratum,
            policy=self.policy.name,
            simulator_state=at.state,
        )

    @property
    def _views(self) -> tuple[str, ...]:
        return self.policy.model.config.views

    def _imagined(self, at: Reached) -> dict[str, Frames]:
        """Its own future, another sample's, that of another scene, and noise in its place."""
        elsewhere, _ = self.other.reset(seed=at.seed)
        seeds = [draw_seed(self.seed, at.seed, at.step, draw) for draw in (0, 1, 2)]
        answer = self.policy.query(
            [at.observation, at.observation, elsewhere],
            VIDEO,
            seed=seeds,
            histories=[at.history, at.history, None],
        )
        shown = [self._frames(answer, row) for row in range(3)]
        rng = np.random.default_rng(seeds[0])
        return dict(zip((OWN, SAMPLE, SCENE), shown, strict=True)) | {NOISE: noise(shown[0], rng)}

    def _frames(self, answer: RawPrediction, row: int) -> Frames:
        frames, offsets = answer.frames(row), answer.frame_offsets(row)
        if frames is None or offsets is None:
            why = answer.undecoded or "its future is unclocked: no frame belongs to a step"
            raise Refusal(f"the future of {self.policy.name} cannot be replaced: {why}")
        return frames

    def _extract(self, at: Reached, shown: Sequence[Frames], *, redrawn: int = 0) -> list[Chunk]:
        noise = draw_seed(self.seed, at.seed, at.step, 3, redrawn)
        return extract(self.policy, at, shown, self._views, noise)

    def _happens(self, at: Reached, chunk: Chunk) -> Frames:
        offsets = np.array(self.policy.offsets)
        return execute(self.env, at.state, chunk, offsets, self._views).frames

    def _searched(
        self, at: Reached, shown: Mapping[str, Frames], chunks: Mapping[str, Chunk]
    ) -> dict[str, Chunk]:
        """What the exact extractor makes of what was imagined here."""
        if self.search is None:
            return {}
        sandbox = Sandbox(self.env, self._views, self.policy.offsets)
        seed = draw_seed(self.seed, at.seed, at.step, 4)
        return {
            label: self.search(sandbox, at.state, shown[label], chunks[label], seed)
            for label in (OWN, SAMPLE)
        }

    def _branch(self, at: Reached, label: str, chunk: Chunk, shown: Mapping[str, Frames]) -> Branch:
        offsets = np.array(self.policy.offsets)
        happened = execute(self.env, at.state, chunk, offsets, self._views)
        return Branch(
            kind="own" if label == OWN else "control",
            label=label,
            action=chunk,
            offsets=offsets,
            happened=happened.frames,
            imagined=shown[OWN if label == REDRAWN else label],
            entities=happened.entities,
            success=happened.success,
        )


@dataclass
class ReplacedAgent(SubstitutedAgent):
    """Acts throughout on futures that are not its own; beside those of `SubstitutedAgent`, two.

    ``another sample's`` is a second draw for the same state, ``noise`` shows nothing.
    """

    futures: ClassVar[tuple[str, ...]] = (*FUTURES, SAMPLE, NOISE)

    def _imagine(
        self, observations: Mapping[int, RawObservation], rows: Sequence[int]
    ) -> tuple[RawPrediction, Float[np.ndarray, "b h a"] | None]:
        if self.future not in (SAMPLE, NOISE):
            return super()._imagine(observations, rows)
        states = [self._rows[row] for row in rows]
        seeds = [draw_seed(self.seed, state.seed, state.replans, 1) for state in states]
        if self.future == NOISE:
            still = [self._static(observations[row]) for row in rows]
            rngs = [np.random.default_rng(seed) for seed in seeds]
            return self._shown([noise(*pair) for pair in zip(still, rngs, strict=True)]), None
        return self.policy.query(
            [observations[row] for row in rows],
            VIDEO,
            seed=seeds,
            decode=self.extractor == "exact",
            sampler=self.sampler,
            histories=[state.history for state in states],
        ), None


def noise(like: Frames, rng: np.random.Generator) -> Frames:
    """Frames of the same shapes in which every value is drawn evenly from 0 to 255."""
    return {v: rng.integers(0, 256, shots.shape, np.uint8) for v, shots in like.items()}
