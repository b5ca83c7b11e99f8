"""Oracle substitution: does a policy that imagines fail in imagining, or in extracting the action?

To act is to imagine a future and to extract the actions that lead there. Either half is put in the
place of the model's own: a future that truly happens, or one that has nothing to do with the task;
an extraction that is exact. Success in each cell says which half the failures come from. A future
that is static or shuffled shows what an extractor does without an imagination.

Works for every model that answers VIDEO and INVERSE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from wamlab.config import nearest
from wamlab.metrics.rivals import Clips
from wamlab.policy.agents import PolicyAgent, Scene
from wamlab.policy.raw import INSTRUCTION, RawPrediction, shown_future
from wamlab.policy.seeds import draw_seed
from wamlab.run.search import Chunk, Sandbox, Search
from wamlab.run.seats import LocalSeat, MakeEnv, make_env
from wamlab.sim.env import RawObservation
from wamlab.types import (
    IMAGE,
    INVERSE,
    VIDEO,
    Cost,
    Frames,
    Memory,
    Query,
    Stream,
)

FUTURES = ("learned", "true", "another instruction's", "static", "shuffled")
EXTRACTORS = ("learned", "exact")


@dataclass
class SubstitutedAgent(PolicyAgent):
    """A policy whose imagination, or extraction, or both, are another's.

    Futures: ``learned`` is imagined (VIDEO), ``another instruction's`` as well but under the
    sentence that ``others`` gives for the environment; ``true`` is what the scripted expert goes
    on to do from here; ``static`` the present, again and again; ``shuffled`` a recorded clip of the
    same task, from any instant (of ``clips``). Extractors: ``learned`` is the model's (INVERSE),
    ``exact`` knows the expert's own actions, and else searches the simulator from what the model
    extracts.

    It looks into its rows' simulators: its rollouts run in this process (``workers=0``).

    Raises:
        KeyError: an unknown future or extractor, with the nearest one.
        Refusal: the model does not answer VIDEO or INVERSE.
        ValueError: ``others`` or ``clips`` are needed and missing.
    """

    future: str = "learned"
    extractor: str = "learned"
    others: Mapping[str, str] = field(default_factory=dict)
    clips: Clips | None = None
    search: Search = field(default_factory=Search)
    make: MakeEnv = make_env

    futures: ClassVar[tuple[str, ...]] = FUTURES

    def __post_init__(self) -> None:
        super().__post_init__()
        for chosen, known in ((self.future, self.futures), (self.extractor, EXTRACTORS)):
            if chosen not in known:
                raise KeyError(f"no substitute {chosen!r}{nearest(chosen, known)}")
        for query in (VIDEO, INVERSE):
            self.policy.model.answer(query)
        if self.future == "shuffled" and self.clips is None:
            raise ValueError("a shuffled future is drawn from clips, but none were given")
        self._seats: dict[int, LocalSeat] = {}
        self._sandboxes: dict[str, Sandbox] = {}

    @property
    def made_by(self) -> dict[str, Any]:
        halves = {"future": self.future, "extractor": self.extractor}
        search = vars(self.search) if self.extractor == "exact" else {}
        return {**super().made_by, "query": "VIDEO, INVERSE", **halves, **search}

    def reset(self, row: int, scene: Scene, seed: int) -> None:
        super().reset(row, scene, seed)
        if not isinstance(scene, LocalSeat):
            raise ValueError("substitution looks into the simulator: roll out with workers=0")
        if self.future == "another instruction's" and scene.name not in self.others:
            raise ValueError(f"no other instruction for {scene.name}; there are {[*self.others]}")
        self._seats[row] = scene
        if scene.name not in self._sandboxes:
            env = self.make(scene.name, views=())
            views = self.policy.model.config.views
            self._sandboxes[scene.name] = Sandbox(env, views, self.policy.offsets)

    def close(self) -> None:
        """Close the environments in which things were tried out."""
        for sandbox in self._sandboxes.values():
            sandbox.env.close()
        self._sandboxes.clear()

    def _ask(
        self,
        observations: Mapping[int, RawObservation],
        rows: Sequence[int],
        memory: Memory | None,
    ) -> RawPrediction:
        future, chunks = self._imagine(observations, rows)
        calls, ms = future.cost.calls, future.cost.ms
        if self.extractor == "exact" and chunks is not None:
            action = chunks
        else:
            extracted = self._query(observations, rows, INVERSE, future=future.future)
            calls, ms = calls + extracted.cost.calls, ms + extracted.cost.ms
            assert extracted.action is not None
            action = extracted.action.values
            if self.extractor == "exact":
                action = self._searched(rows, future, action)
        steps = np.tile(np.arange(action.shape[1]), (len(rows), 1))
        there = np.ones(steps.shape, bool)
        return RawPrediction(
            action=Stream(action, steps, there), future=future.future, cost=Cost(calls, ms)
        )

    def _imagine(
        self, observations: Mapping[int, RawObservation], rows: Sequence[int]
    ) -> tuple[RawPrediction, Float[np.ndarray, "b h a"] | None]:
        """The future of every row, and the actions of which it is known to come."""
        match self.future:
            case "learned":
                return self._query(observations, rows, VIDEO), None
            case "another instruction's":
                said = {
                    row: {**observations[row], INSTRUCTION: self.others[self._seats[row].name]}
                    for row in rows
                }
                return self._query(said, rows, VIDEO), None
            case "true":
                shown, chunks = zip(*[self._true(row) for row in rows], strict=True)
                return self._shown(shown), np.stack(chunks)
            case "static":
                return self._shown([self._static(observations[row]) for row in rows]), None
            case _:
                return self._shown([self._shuffled(row) for row in rows]), None

    def _query(
        self,
        observations: Mapping[int, RawObservation],
        rows: Sequence[int],
        query: Query,
        **given: Any,
    ) -> RawPrediction:
        states = [self._rows[row] for row in rows]
        histories = [state.history for state in states]
        if self.future == "another instruction's":
            said = [observations[row][INSTRUCTION] for row in rows]
            histories = [past.retold(one) for past, one in zip(histories, said, strict=True)]
        return self.policy.query(
            [observations[row] for row in rows],
            query,
            seed=[draw_seed(self.seed, state.seed, state.replans) for state in states],
            # A future that is not looked at stays as the model made it, without rounding.
            decode=self.extractor == "exact",
            sampler=self.sampler,
            histories=histories,
            **given,
        )

    def _true(self, row: int) -> tuple[Frames, Chunk]:
        """What the expert goes on to do, which does not depend on what was done before."""
        seat, sandbox = self._seats[row], self._sandboxes[self._seats[row].name]
        expert = sandbox.env.expert(variants=False, seed=self._rows[row].seed)
        return sandbox.frames(_state(seat), self.policy.chunk, lambda _: expert())

    def _static(self, observation: RawObservation) -> Frames:
        count = len(self.policy.offsets)
        return {
            view: np.stack([observation[f"{IMAGE}{view}"]] * count)
            for view in self.policy.model.config.views
        }

    def _shuffled(self, row: int) -> Frames:
        assert self.clips is not None
        state = self._rows[row]
        rng = np.random.default_rng([self.seed, state.seed, state.replans])
        drawn = int(rng.choice(self.clips.rows(self._seats[row].name)))
        at = self.clips.columns(self.policy.offsets)
        return {view: future[drawn][at] for view, future in self.clips.future.items()}

    def _searched(
        self, rows: Sequence[int], imagined: RawPrediction, first: Float[np.ndarray, "b h a"]
    ) -> Float[np.ndarray, "b h a"]:
        """Of every row the chunk whose consequences look most like what was imagined."""
        found = []
        for place, row in enumerate(rows):
            seat, wanted = self._seats[row], imagined.frames(place)
            if wanted is None:
                raise ValueError(f"{self.name} cannot be searched for: {imagined.undecoded}")
            state = self._rows[row]
            seed = draw_seed(self.seed, state.seed, state.replans)
            sandbox = self._sandboxes[seat.name]
            found.append(self.search(sandbox, _state(seat), wanted, first[place], seed))
        return np.stack(found)

    def _shown(self, frames: Sequence[Frames]) -> RawPrediction:
        """Frames of every row as an answer that cost no call."""
        return RawPrediction(future=shown_future(frames, [*frames[0]], self.policy.offsets))


def _state(seat: LocalSeat) -> Float[np.ndarray, " q"]:
    assert seat.env is not None
    return seat.env.get_state()
