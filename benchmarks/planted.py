"""Imaginations with a known fault, rendered by the simulator: what the joint measures must catch.

A planted model answers like any other, but it holds the simulator: it acts as the scripted expert
does, on one variant after the other and with a push of its own, and imagines what it simulates,
with one fault. What it imagines of the robot and of the things can be told apart, since the things
can be put elsewhere before the picture is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from wamlab.models.base import Refusal
from wamlab.policy.raw import RawPrediction, shown_future
from wamlab.run.seats import make_env
from wamlab.sim.env import Env
from wamlab.sim.metaworld import MetaWorld
from wamlab.sim.things import put_things
from wamlab.types import ACTION, FUTURE, ActionSpace, Frames, Future, Query, Stream

OFFSETS = (8, 16)
PUSH = 0.3
"""The strongest constant push on an own chunk per axis, of an action's range."""
SEARCH = 150
"""Steps of the expert within which an optimist finds out what success looks like."""

Chunk = Float[np.ndarray, "h a"]
State = Float[np.ndarray, " q"]


@dataclass(frozen=True)
class Fault:
    """What is wrong.

    ``physics`` is that of the world in which it imagines, ``shows`` which frame of its own it shows
    at each of its offsets (None: now), ``things`` where it puts them.
    """

    what: str
    physics: Mapping[str, float] = field(default_factory=dict)
    shows: tuple[int | None, ...] = (0, 1)
    things: str = "as they go"
    chunks: Callable[[np.ndarray], np.ndarray] = lambda own: own
    """What it makes of the expert's chunks (K, H, A) before it acts."""
    blind: bool = False


def _same(own: np.ndarray) -> np.ndarray:
    return own[:1].repeat(len(own), axis=0)


def _none(own: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(own[..., :3]), own[..., 3:]], axis=-1)


FAULTS: dict[str, Fault] = {
    "oracle": Fault("nothing"),
    "action-blind": Fault("the future of another of its samples", blind=True),
    "static": Fault("nothing ever moves, but it acts", shows=(None, None)),
    "static, at rest": Fault(
        "nothing ever moves, itself included", shows=(None, None), chunks=_none
    ),
    "robot-only": Fault("the things stay where they are", things="as they are"),
    "optimist": Fault("the things are where they are at success", things="done"),
    "late": Fault("each frame comes one frame, eight steps, late", shows=(None, 0)),
    "over-reaction": Fault("the hand goes half as far again", physics={"gain": 1.5}),
    "wrong gain": Fault("the hand goes 0.7 as far", physics={"gain": 0.7}),
    "wrong friction": Fault("a quarter of the friction", physics={"friction": 0.25}),
    "one mode": Fault("right, but it knows only one future", chunks=_same),
}


class Planted:
    """A model with this fault in one Meta-World task; see `wamlab.policy.raw.Answerer`."""

    depth = 0

    def __init__(self, fault: str, env: str, *, chunk: int = OFFSETS[-1]) -> None:
        self.fault, self.name, self.chunk = FAULTS[fault], f"planted: {fault}", chunk
        self.digest = hashlib.sha256(self.name.encode()).hexdigest()
        self.offsets = OFFSETS
        self.world: MetaWorld = make_env(env, views=())
        self.space: ActionSpace = self.world.space
        self.seeing: Env | None = None
        self._done: dict[bytes, np.ndarray] = {}

    def make(self, name: str, **options: Any) -> Env:
        """`make_env`, noting the environment in which the states that it is asked about stand."""
        env = make_env(name, **options)
        if env.views:
            self.seeing = env
        return env

    def query(
        self,
        observations: list[Any],
        query: Query,
        *,
        seed: list[int],
        histories: Any = None,
        samples: int = 1,
        action: np.ndarray | None = None,
        future: Future | None = None,
    ) -> RawPrediction:
        """Own samples, or the future of imposed actions; of the state that `make`'s stands in.

        Raises:
            Refusal: a future was given, off which an action is to be read.
        """
        if future is not None:
            raise Refusal(f"{self.name} does not answer INVERSE")
        assert self.seeing is not None
        state, views = self.seeing.get_state(), self.seeing.views
        own = self.own(state, max(samples, 2), seed[0])
        chunks = own[:samples] if action is None else action
        acted = own[1:2].repeat(len(chunks), 0) if action is not None else np.roll(own, -1, axis=0)
        if not self.fault.blind:
            acted = chunks
        shown = [self.imagine(state, chunk, views) for chunk in acted[: len(chunks)]]
        answer = RawPrediction()
        steps, rows = np.arange(self.chunk), len(chunks)
        if ACTION in query.sampled:
            present = np.ones((rows, self.chunk), bool)
            answer.action = Stream(chunks, np.tile(steps, (rows, 1)), present)
        if FUTURE in query.sampled:
            answer.future = shown_future(shown, views, self.offsets)
        return answer

    def own(self, state: State, samples: int, seed: int) -> Float[np.ndarray, "k h a"]:
        """The expert's next actions on one variant after the other, each with its own push."""
        chunks = []
        for k in range(samples):
            rng = np.random.default_rng([seed % 2**32, k])
            push = np.append(rng.uniform(-PUSH, PUSH, 3), 0.0)
            self.world.set_state(state)
            expert, actions = self.world.expert(variants=True, seed=int(rng.integers(2**31))), []
            for _ in range(self.chunk):
                actions.append(self.space.clip((expert() + push).astype(np.float32)))
                self.world.step(actions[-1])
            chunks.append(np.stack(actions))
        return self.fault.chunks(np.stack(chunks))

    def imagine(self, state: State, chunk: Chunk, views: tuple[str, ...]) -> Frames:
        """The frames at the offsets, as this fault has them."""
        world = self.world
        world.set_state(state)
        now = [world.render_view(view).copy() for view in views]
        things = {"as they are": state, "done": self._success(state)}
        shots = []
        with _physics(world, self.fault.physics):
            world.set_state(state)
            for step, action in enumerate(chunk, start=1):
                world.step(action)
                if step in self.offsets:
                    after = world.get_state()
                    if self.fault.things in things:
                        put_things(world, things[self.fault.things])
                    shots.append([world.render_view(view).copy() for view in views])
                    world.set_state(after)
        picked = [now if at is None else shots[at] for at in self.fault.shows]
        return {view: np.stack([shot[i] for shot in picked]) for i, view in enumerate(views)}

    def _success(self, state: State) -> State:
        """The state once the expert has done the task from here."""
        if self.fault.things != "done":
            return state
        key = state.tobytes()
        if key not in self._done:
            self.world.set_state(state)
            expert = self.world.expert(variants=False, seed=0)
            for _ in range(SEARCH):
                if self.world.success:
                    break
                self.world.step(self.space.clip(expert()))
            self._done[key] = self.world.get_state()
        return self._done[key]


@contextmanager
def _physics(env: Env, factors: Mapping[str, float]):
    env.vary(**factors)
    try:
        yield
    finally:
        env.vary()
