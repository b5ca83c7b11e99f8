"""The Env protocol: gymnasium's API plus what judging an imagination needs.

An environment can be put back into any state exactly, seen through fast named cameras, asked where
everything is, and varied in its physics. An observation is a flat dict in raw units:
``image/<view>`` (H, W, 3) uint8, ``state`` (S,) float32 and ``instruction`` str.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Shaped

from wamlab.types import ActionSpace, Camera

Split = Literal["train", "validation", "evaluation"]
SPLITS: tuple[Split, ...] = ("train", "validation", "evaluation")
STARTS_PER_SPLIT = 1_000_000

RawObservation = dict[str, Any]


def start_seed(split: Split, index: int) -> int:
    """The seed of one start; the ranges of the splits cannot overlap.

    Raises:
        ValueError: an index outside the split's range.
    """
    if not 0 <= index < STARTS_PER_SPLIT:
        raise ValueError(f"start index {index} is outside 0 .. {STARTS_PER_SPLIT - 1}")
    return SPLITS.index(split) * STARTS_PER_SPLIT + index


def split_of(seed: int) -> Split:
    """The split to which a start seed belongs."""
    if not 0 <= seed < len(SPLITS) * STARTS_PER_SPLIT:
        raise ValueError(f"seed {seed} belongs to no split")
    return SPLITS[seed // STARTS_PER_SPLIT]


class Expert(Protocol):
    """A scripted expert for one episode: its variant, and the action it would take now."""

    variant: Mapping[str, float | str]

    def __call__(self) -> Float[np.ndarray, " a"]: ...


@dataclass(frozen=True)
class SelfTest:
    """What "the same state again" gives: largest differences over repeats."""

    state: float
    entity_metres: float
    pixel: float

    def __str__(self) -> str:
        return (
            f"state differs by {self.state:g}, objects by {1000 * self.entity_metres:g} mm, "
            f"pixels by {self.pixel:g}"
        )


@runtime_checkable
class Env(Protocol):
    """One task in one simulator; see the module's docstring for observations.

    What only some measures need is asked for where it is needed: `wamlab.sim.erase`,
    `wamlab.sim.things`.
    """

    name: str
    views: tuple[str, ...]
    image_size: int
    state_names: tuple[str, ...]
    space: ActionSpace
    max_steps: int

    @property
    def instruction(self) -> str: ...

    @property
    def success(self) -> bool:
        """The task's own judgement of the present state."""
        ...

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[RawObservation, dict[str, Any]]: ...

    def step(
        self, action: Float[np.ndarray, " a"]
    ) -> tuple[RawObservation, float, bool, bool, dict[str, Any]]:
        """gymnasium's five; ``info`` holds ``success``."""
        ...

    def observe(self) -> RawObservation:
        """The observation of the present state, rendered anew."""
        ...

    def get_state(self) -> Float[np.ndarray, " q"]:
        """All that `set_state` needs to put back exactly what is now."""
        ...

    def set_state(self, state: Float[np.ndarray, " q"]) -> None: ...

    def render_view(
        self, view: str, kind: Literal["rgb", "depth", "segmentation"] = "rgb"
    ) -> Shaped[np.ndarray, "h w *c"]:
        """RGB (H, W, 3) uint8, depth (H, W) metres, or entity index (H, W) int32, -1 none."""
        ...

    def camera(self, view: str) -> Camera: ...

    def entities(self) -> dict[str, Float[np.ndarray, " 7"]]:
        """Poses by name, ``robot`` among them: metres and a w-x-y-z quaternion."""
        ...

    def masks(self, view: str) -> dict[str, Bool[np.ndarray, "h w"]]:
        """The visible pixels of each entity."""
        ...

    def contacts(self) -> list[tuple[str, str]]:
        """Pairs of entities that touch."""
        ...

    def expert(self, *, variants: bool, seed: int) -> Expert: ...

    def vary(self, *, gain: float = 1.0, friction: float = 1.0, mass: float = 1.0) -> None:
        """Scale the physics, relative to the original; all ones put it back."""
        ...

    def close(self) -> None: ...


def self_test(env: Env, *, repeats: int = 10, seed: int = 0) -> SelfTest:
    """Restore one state and execute the same action ``repeats`` times; report what differed."""
    env.reset(seed=start_seed("validation", seed))
    state = env.get_state()
    action = env.expert(variants=False, seed=seed)()
    runs = [_once(env, state, action) for _ in range(repeats)]
    spread: Callable[[int], float] = lambda i: max(  # noqa: E731
        float(np.abs(run[i].astype(np.float64) - runs[0][i].astype(np.float64)).max())
        for run in runs
    )
    return SelfTest(state=spread(0), entity_metres=spread(1), pixel=spread(2))


def _once(
    env: Env, state: Float[np.ndarray, " q"], action: Float[np.ndarray, " a"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    env.set_state(state)
    observation, *_ = env.step(action)
    frames = np.stack([observation[f"image/{view}"] for view in env.views])
    poses = np.stack(list(env.entities().values()))[:, :3]
    return env.get_state(), poses, frames
