"""Films: what is seen from a start on, imagined or real, and the judge that reads actions off it.

A film holds the frames of every view at the instants that the judge reads: now, then its offsets,
window after window, each window beginning where the last one ended. A model imagines one window at
a time, so its film of many windows is a chain: it is shown its own last frame, and never again the
world. Of such a frame nothing but pixels is known. The state is absent there (or what a reader of
frames says it is), every window begins without a history, and the instruction stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from wamlab.metrics.rivals import Clips, NearestClip
from wamlab.models.base import Refusal
from wamlab.policy.history import History
from wamlab.policy.policy import Policy
from wamlab.policy.raw import ABSENT, INSTRUCTION, RawPrediction, shown_future
from wamlab.policy.seeds import draw_seed
from wamlab.sim.env import Env, RawObservation
from wamlab.types import FUTURE, IMAGE, INVERSE, STATE, VIDEO, ActionSpace, Cost, Frames, Future

ROWS = 64

ReadState = Callable[[str, Mapping[str, UInt8[np.ndarray, "h w 3"]]], Float[np.ndarray, " s"]]
"""The robot's state, as this environment would give it, read off one frame of every view."""


@dataclass(frozen=True)
class Film:
    """Frames of every view (T + 1, H, W, 3) at ``ticks`` (T + 1) after a start; the first is 0."""

    frames: Frames
    ticks: Int[np.ndarray, " t1"]

    def reordered(self, order: Sequence[int]) -> Film:
        """The same frames at other instants: place i shows what place ``order[i]`` showed."""
        index = list(order)
        return Film({view: shots[index] for view, shots in self.frames.items()}, self.ticks)


@dataclass(frozen=True)
class Judge:
    """One inverse dynamics model that reads the actions off every film; it sees frames alone.

    Raises:
        Refusal: the model does not answer INVERSE.
        ValueError: it reads more than frames, and so could know the actions without the film, or
            its last frame is not at the end of its chunk.
    """

    policy: Policy

    def __post_init__(self) -> None:
        model = self.policy.model
        model.answer(INVERSE)
        read = {flow.source for flow in model.flows(INVERSE)}
        if more := sorted(read - {*model.config.image_streams, FUTURE}):
            raise ValueError(f"a judge reads frames alone, {self.name} also reads {more}")
        if self.offsets[-1:] != (self.chunk,):
            raise ValueError(
                f"{self.name} looks at {self.offsets}, but its chunk ends at {self.chunk}: films "
                "are read window after window"
            )

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def title(self) -> str:
        """Its name with the weights that it has."""
        return f"{self.name} {self.policy.digest[:12]}"

    @property
    def views(self) -> tuple[str, ...]:
        return self.policy.model.config.views

    @property
    def offsets(self) -> tuple[int, ...]:
        return self.policy.offsets

    @property
    def chunk(self) -> int:
        return self.policy.chunk

    @property
    def space(self) -> ActionSpace:
        return self.policy.space

    def windows(self, steps: int) -> int:
        """How many windows cover so many steps."""
        return -(-steps // self.chunk)

    def ticks(self, windows: int) -> Int[np.ndarray, " t1"]:
        """The instants of a film of so many windows."""
        starts = self.chunk * np.arange(windows)
        return np.append(0, (starts[:, None] + np.array(self.offsets)).ravel())

    def check(self, policy: Policy) -> None:
        """Raise ValueError unless the judge can read what this policy imagines."""
        own, theirs = self.policy.model.config, policy.model.config
        if missing := [view for view in own.views if view not in theirs.views]:
            raise ValueError(f"the judge reads the view {missing[0]!r}, {policy.name} has not")
        if own.image_size != theirs.image_size:
            raise ValueError(
                f"the judge reads frames of {own.image_size} pixels, {policy.name} imagines "
                f"{theirs.image_size}"
            )
        if absent := [k for k in self.offsets if k not in policy.offsets]:
            raise ValueError(
                f"the judge reads frames at {self.offsets}, {policy.name} imagines "
                f"{policy.offsets}: {absent} are missing"
            )
        if policy.space != self.space:
            raise ValueError(
                f"the judge was trained on the action space {self.space}, {policy.name} on "
                f"{policy.space}"
            )

    def ahead(self, shown: Sequence[Frames]) -> Future:
        """What windows of frames (1 + T, H, W, 3), now and ahead, show of what is ahead."""
        later = [{view: frames[view][1:] for view in self.views} for frames in shown]
        return shown_future(later, self.views, self.offsets)

    def extract(
        self, shown: Sequence[Frames], instructions: Sequence[str]
    ) -> tuple[Float[np.ndarray, "b h a"], Cost]:
        """The chunk between the frames (1 + T, H, W, 3) of one window each: now, and ahead.

        The instruction goes along because an observation has one; the judge does not read it.
        """
        parts = [
            self._extract(shown[row : row + ROWS], instructions[row : row + ROWS])
            for row in range(0, len(shown), ROWS)
        ]
        cost = Cost(sum(one.calls for _, one in parts), sum(one.ms for _, one in parts))
        return np.concatenate([chunks for chunks, _ in parts]), cost

    def read(self, film: Film, instruction: str) -> Float[np.ndarray, "n a"]:
        """All actions of a film, one for each tick."""
        per_window = len(self.offsets)
        count = (len(film.ticks) - 1) // per_window
        shown = [
            {
                view: film.frames[view][per_window * w : per_window * (w + 1) + 1]
                for view in self.views
            }
            for w in range(count)
        ]
        chunks, _ = self.extract(shown, [instruction] * count)
        return np.concatenate([*chunks])

    def _extract(
        self, shown: Sequence[Frames], instructions: Sequence[str]
    ) -> tuple[Float[np.ndarray, "b h a"], Cost]:
        now: list[RawObservation] = [
            {
                **{f"{IMAGE}{view}": frames[view][0] for view in self.views},
                STATE: ABSENT,
                INSTRUCTION: said,
            }
            for frames, said in zip(shown, instructions, strict=True)
        ]
        answer = self.policy.query(now, INVERSE, future=self.ahead(shown))
        assert answer.action is not None
        return answer.action.values, answer.cost


class Imaginer(Protocol):
    """Whatever shows, from what is seen now, the frames ahead at the judge's offsets."""

    @property
    def name(self) -> str: ...

    @property
    def made_by(self) -> dict[str, Any]:
        """Everything besides the start that decides what it shows, as plain JSON values."""
        ...

    def show(
        self,
        env: Sequence[str],
        observations: Sequence[RawObservation],
        seeds: Sequence[int],
        histories: Sequence[History | None] | None = None,
    ) -> tuple[list[Frames], Cost]:
        """Of every row the frames (T, H, W, 3) by view, and what they cost together."""
        ...


@dataclass
class ModelImaginer:
    """A model's own answer to VIDEO, as the judge is able to read it.

    Raises:
        Refusal: the model does not answer VIDEO.
        ValueError: views, sizes, offsets or actions are not those of the judge.
    """

    policy: Policy
    judge: Judge

    def __post_init__(self) -> None:
        self.policy.model.answer(VIDEO)
        self.judge.check(self.policy)

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def made_by(self) -> dict[str, Any]:
        return {"policy": self.name, "weights": self.policy.digest}

    def show(
        self,
        env: Sequence[str],
        observations: Sequence[RawObservation],
        seeds: Sequence[int],
        histories: Sequence[History | None] | None = None,
    ) -> tuple[list[Frames], Cost]:
        """Raises Refusal where what is imagined is no clocked pixels, with the reason."""
        answer = self.policy.query(observations, VIDEO, seed=[*seeds], histories=histories)
        rows = range(len(observations))
        return [self._frames(answer, row) for row in rows], answer.cost

    def _frames(self, answer: RawPrediction, row: int) -> Frames:
        frames, offsets = answer.frames(row), answer.frame_offsets(row)
        if frames is None or offsets is None:
            why = answer.undecoded or "its future is unclocked: no frame belongs to a step"
            raise Refusal(f"{self.name} imagines nothing that a judge can read: {why}")
        at = [offsets.tolist().index(k) for k in self.judge.offsets]
        return {view: shots[at] for view, shots in frames.items()}


@dataclass
class ClipImaginer:
    """Retrieval: the future of the training clip of the same task whose first frame is nearest."""

    clips: Clips
    judge: Judge
    name: str = "retrieval"

    def __post_init__(self) -> None:
        if {*self.clips.first} != {*self.judge.views}:
            raise ValueError(f"the clips show {[*self.clips.first]}, the judge {self.judge.views}")
        self._nearest = NearestClip(self.clips)

    @property
    def made_by(self) -> dict[str, Any]:
        total = hashlib.sha256(",".join(self.clips.env).encode())
        for frames in (self.clips.first, self.clips.future):
            for view in sorted(frames):
                total.update(np.ascontiguousarray(frames[view]).tobytes())
        return {"policy": self.name, "clips": total.hexdigest()[:16]}

    def show(
        self,
        env: Sequence[str],
        observations: Sequence[RawObservation],
        seeds: Sequence[int],
        histories: Sequence[History | None] | None = None,
    ) -> tuple[list[Frames], Cost]:
        views, offsets = self.judge.views, self.judge.offsets
        seen = [
            Seen(name, {view: one[f"{IMAGE}{view}"][None] for view in views})
            for name, one in zip(env, observations, strict=True)
        ]
        shown: list[Frames] = [
            {view: self._nearest.frames(one, view, offsets) for view in views}  # type: ignore[arg-type]
            for one in seen
        ]
        return shown, Cost()


class Seen(NamedTuple):
    """What a rival looks at: the task, and the frame now of every view (1, H, W, 3)."""

    env: str
    now: Frames


@dataclass
class Unrolling:
    """Films out of an imaginer: each window is imagined from the last frames of the one before.

    ``read_state`` says what the state is in an imagined frame; None leaves it absent. Draws come
    from ``seed``, the start and the window.
    """

    imaginer: Imaginer
    judge: Judge
    seed: int = 0
    read_state: ReadState | None = None

    @property
    def made_by(self) -> dict[str, Any]:
        state = ABSENT if self.read_state is None else "read"
        return {**self.imaginer.made_by, "state": state, "seed": self.seed}

    def films(
        self, env: str, first: Sequence[RawObservation], starts: Sequence[int], windows: int
    ) -> list[Film]:
        """A film of so many windows from each first observation."""
        now = [*first]
        shots = [[_images(one)] for one in first]
        for window in range(windows):
            seeds = [draw_seed(self.seed, start, window) for start in starts]
            shown, _ = self.imaginer.show([env] * len(now), now, seeds)
            for row, frames in enumerate(shown):
                count = len(self.judge.offsets)
                shots[row] += [{v: frames[v][k] for v in frames} for k in range(count)]
            now = [self._after(env, one, taken[-1]) for one, taken in zip(now, shots, strict=True)]
        return [
            Film(
                {view: np.stack([shot[view] for shot in taken]) for view in self.judge.views},
                self.judge.ticks(windows),
            )
            for taken in shots
        ]

    def _after(
        self, env: str, before: RawObservation, frames: Mapping[str, Shaped[np.ndarray, "h w 3"]]
    ) -> RawObservation:
        """The observation that an imagined frame of every view is."""
        state = ABSENT if self.read_state is None else self.read_state(env, frames)
        images = {f"{IMAGE}{view}": shot for view, shot in frames.items()}
        return {**images, STATE: state, INSTRUCTION: before[INSTRUCTION]}


class Shot(NamedTuple):
    """A film of the real world: what was executed, and whether it solved the task on the way."""

    film: Film
    actions: Float[np.ndarray, "n a"]
    solved: bool


def shoot(
    env: Env,
    views: Sequence[str],
    ticks: Int[np.ndarray, " t1"],
    act: Callable[[], Float[np.ndarray, " a"]],
) -> Shot:
    """Film ``act`` from the present state on; a task that is solved already is not solved here."""
    shots = {view: [env.render_view(view).copy()] for view in views}
    actions, solved, at_start = [], False, env.success
    for step in range(1, int(ticks[-1]) + 1):
        actions.append(env.space.clip(act()))
        env.step(actions[-1])
        solved |= bool(env.success)
        if step in ticks:
            for view in views:
                shots[view].append(env.render_view(view).copy())
    film = Film({view: np.stack(seen) for view, seen in shots.items()}, ticks)
    return Shot(film, np.stack(actions), solved and not at_start)


def _images(observation: RawObservation) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(IMAGE): value
        for name, value in observation.items()
        if name.startswith(IMAGE)
    }
