"""Acting on what is read off a film, window by window: the closed loop beside the Turing test.

As in WorldSimBench (arXiv 2410.18072), a model imagines from the *real* present what will be seen,
a fixed judge reads the actions off it, some are executed, and the model looks again. Against the
open loop of `wamlab.run.turing` it forgives drift: what fails here fails within one window.

The conditions mean what they mean there. The ceiling is what the scripted expert goes on to do from
here; a shuffled window is a training clip of the same task from any instant, another one each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from wamlab.config import nearest
from wamlab.metrics.rivals import Clips
from wamlab.policy.agents import PolicyAgent, Scene
from wamlab.policy.raw import INSTRUCTION, RawPrediction
from wamlab.policy.seeds import draw_seed
from wamlab.run.film import ClipImaginer, Imaginer, Judge, ModelImaginer, shoot
from wamlab.run.seats import LocalSeat, MakeEnv, make_env
from wamlab.run.turing import IMAGINED
from wamlab.sim.env import Env, RawObservation
from wamlab.sim.erase import erase_objects
from wamlab.types import IMAGE, Cost, Frames, Memory, Stream

SHOWN = (IMAGINED, "ceiling", "shuffled", "retrieval", "object erased")
NEED_CLIPS = ("shuffled", "retrieval")
NEED_WORLD = ("ceiling", "object erased")


@dataclass(kw_only=True)
class DecodedAgent(PolicyAgent):
    """Executes what the judge reads off one window of a film; ``shown`` says whose film it is.

    ``policy`` imagines; the controls need none, and take the judge's own. Ceiling and erased
    objects look into the rows' simulators: their rollouts run in this process (``workers=0``).

    Raises:
        KeyError: an unknown condition, with the nearest one.
        Refusal: the model does not answer VIDEO.
        ValueError: the judge cannot read what the model imagines, or ``clips`` are missing.
    """

    judge: Judge
    shown: str = IMAGINED
    clips: Clips | None = None
    make: MakeEnv = make_env

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shown not in SHOWN:
            raise KeyError(f"no condition {self.shown!r}{nearest(self.shown, SHOWN)}")
        if self.shown in NEED_CLIPS and self.clips is None:
            raise ValueError(f"{self.shown} windows are training clips, but none were given")
        self._imaginer: Imaginer | None = None
        if self.shown == IMAGINED:
            self._imaginer = ModelImaginer(self.policy, self.judge)
        elif self.shown == "retrieval":
            assert self.clips is not None
            self._imaginer = ClipImaginer(self.clips, self.judge)
        self._scenes: dict[int, Scene] = {}
        self._worlds: dict[str, Env] = {}
        self._open = ExitStack()

    @property
    def name(self) -> str:
        return self.policy.name if self.shown == IMAGINED else self.shown

    @property
    def made_by(self) -> dict[str, Any]:
        judge = {"judge": self.judge.name, "judge weights": self.judge.policy.digest}
        return {**super().made_by, "query": "VIDEO", **judge, "shown": self.shown}

    def reset(self, row: int, scene: Scene, seed: int) -> None:
        super().reset(row, scene, seed)
        self._scenes[row] = scene
        if self.shown not in NEED_WORLD:
            return
        if not isinstance(scene, LocalSeat):
            raise ValueError(f"{self.shown} looks into the simulator: roll out with workers=0")
        if scene.name not in self._worlds:
            world = self._open.enter_context(closing(self.make(scene.name, views=())))
            erases = self.shown == "object erased"
            self._worlds[scene.name] = erase_objects(world) if erases else world

    def close(self) -> None:
        """Close the environments in which things were looked up."""
        self._open.close()
        self._worlds.clear()

    def _ask(
        self,
        observations: Mapping[int, RawObservation],
        rows: Sequence[int],
        memory: Memory | None,
    ) -> RawPrediction:
        shown, cost = self._show(observations, rows)
        action, read = self.judge.extract(shown, [observations[row][INSTRUCTION] for row in rows])
        steps = np.tile(np.arange(action.shape[1]), (len(rows), 1))
        return RawPrediction(
            action=Stream(action, steps, np.ones(steps.shape, bool)),
            future=self.judge.ahead(shown),
            cost=Cost(cost.calls + read.calls, cost.ms + read.ms),
        )

    def _show(
        self, observations: Mapping[int, RawObservation], rows: Sequence[int]
    ) -> tuple[list[Frames], Cost]:
        """Of every row one window of a film: now, and the frames ahead."""
        if self.shown in NEED_WORLD:
            return [self._real(row) for row in rows], Cost()
        if self._imaginer is None:
            return [self._shuffled(row) for row in rows], Cost()
        states = [self._rows[row] for row in rows]
        ahead, cost = self._imaginer.show(
            [self._scenes[row].name for row in rows],
            [observations[row] for row in rows],
            [draw_seed(self.seed, state.seed, state.replans) for state in states],
            [state.history for state in states],
        )
        windows: list[Frames] = [
            {
                view: np.concatenate([observations[row][f"{IMAGE}{view}"][None], frames[view]])
                for view in self.judge.views
            }
            for row, frames in zip(rows, ahead, strict=True)
        ]
        return windows, cost

    def _real(self, row: int) -> Frames:
        """What the expert goes on to do, which does not depend on what was done before."""
        scene = self._scenes[row]
        assert isinstance(scene, LocalSeat)
        world = self._worlds[scene.name]
        world.set_state(_state(scene))
        expert = world.expert(variants=False, seed=self._rows[row].seed)
        return shoot(world, self.judge.views, self.judge.ticks(1), expert).film.frames

    def _shuffled(self, row: int) -> Frames:
        assert self.clips is not None
        state = self._rows[row]
        rng = np.random.default_rng([self.seed, state.seed, state.replans])
        drawn = int(rng.choice(self.clips.rows(self._scenes[row].name)))
        at = self.clips.columns(self.judge.offsets)
        return {
            view: np.concatenate([self.clips.first[view][drawn][None], future[drawn][at]])
            for view, future in self.clips.future.items()
        }


def _state(seat: LocalSeat) -> Float[np.ndarray, " q"]:
    assert seat.env is not None
    return seat.env.get_state()
