"""Paths of entities from restored states, imagined beside executed: what joint measures work on.

Entities are never joined into one vector: a robot that moves further hides every fault of an
object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from wamlab.config import nearest
from wamlab.metrics.base import NotApplicable, mostly
from wamlab.metrics.joint import gate_metres

Places = Float[np.ndarray, "n k t d"]
Steps = Float[np.ndarray, "n k h a"]


@dataclass(frozen=True)
class Paths:
    """One entity's paths from N restored states, K from each, in metres.

    ``start`` is where it stands now; ``imagined`` and ``executed`` where it is after ``offsets``
    actions. The K are the model's own samples, or sequences imposed on it or instructions given to
    it, all imagined with the same sampling noise. ``reread`` are the executions as the reader of
    imagined frames reads them off real ones: it is the attainable ceiling, and tells its error.
    ``elsewhere`` is where the same actions lead in other worlds (of another robot gain, friction or
    the like), by the names of those; ``shuffled`` where they lead in another order. ``retrieved``
    is where the reader sees the entity in the nearest training clip.

    Raises:
        ValueError: shapes that do not fit together, NaN or infinity, offsets that do not rise.
    """

    entity: str
    states: Sequence[str]
    offsets: Int[np.ndarray, " t"]
    start: Float[np.ndarray, "n d"]
    imagined: Places
    executed: Places
    reread: Places | None = None
    elsewhere: Mapping[str, Places] = field(default_factory=dict)
    shuffled: Places | None = None
    retrieved: Float[np.ndarray, "n t d"] | None = None

    def __post_init__(self) -> None:
        if self.executed.ndim != 4 or not self.executed.size:
            raise ValueError(
                f"{self.entity}: expected executions (N, K, T, D), got {self.executed.shape}"
            )
        n, _, t, d = whole = self.executed.shape
        shapes = {"executed": whole, "imagined": whole, "start": (n, d)}
        optional = {"reread": whole, "shuffled": whole, "retrieved": (n, t, d)}
        there = {name: one for name, one in optional.items() if getattr(self, name) is not None}
        for name, shape in {**shapes, **there}.items():
            check_shape(f"{self.entity}: {name}", getattr(self, name), shape)
        for world, places in self.elsewhere.items():
            check_shape(f"{self.entity} in the world {world!r}", places, whole)
        check_states(self.states, n)
        if len(self.offsets) != t or (np.diff(self.offsets, prepend=0) <= 0).any():
            raise ValueError(f"{self.entity}: expected {t} rising offsets above 0: {self.offsets}")

    @property
    def still(self) -> Places:
        """The start, for as long as the executions last."""
        return np.broadcast_to(self.start[:, None, None], self.executed.shape)

    def controls(self) -> dict[str, Places]:
        """What the controls show in the place of the imagination, read with the same error.

        Read without it, a static future would lie below itself wherever an error adds to a
        distance of 0, and a model that imagines nothing would seem to be above it. A static future
        is one picture, so it is read once: its error is the same for all that comes of a state.
        """
        if self.reread is None:
            return {"static": self.still, "oracle": self.executed}
        return {"static": self.still + self._error()[:, :1, :1], "oracle": self.reread}

    def further_controls(self) -> dict[str, Places]:
        """The training clip, and the executions in another order, where they are known.

        No reader looks at the latter: see `wrong_worlds`.
        """
        found: dict[str, Places] = {}
        if self.retrieved is not None:
            found["retrieval"] = np.broadcast_to(self.retrieved[:, None], self.executed.shape)
        if self.shuffled is not None:
            found["shuffled_action"] = self.shuffled + self._error()
        return found

    def wrong_worlds(self) -> dict[str, Places]:
        """The executions in other worlds as an imagination, read with the same error.

        No reader looks at them, so the error is that of the reader in the true execution of the
        same action. Left out is a world that mostly leads where the true one does: it has to end
        further from there than the gate in more than half of the states in which the entity moves
        further than that. A world that differs in a state or two would be no wrong one.
        """
        gate = gate_metres(self.entity)
        moves = self.motion()[:, -1] > gate
        return {
            world: places + self._error()
            for world, places in self.elsewhere.items()
            if mostly((self.away(places, [-1])[moves] > gate).tolist())
        }

    def _error(self) -> Places:
        """What the reader sees amiss in the true executions."""
        return (self.executed if self.reread is None else self.reread) - self.executed

    def away(self, places: Places, columns: Sequence[int]) -> Float[np.ndarray, " n"]:
        """How far places lie from where the entity went, on average over the K and the columns."""
        return apart(places, self.executed)[..., columns].mean(axis=(1, 2))

    def columns(self, at: Sequence[int] | None) -> list[int]:
        """Where these offsets lie, None: the last; KeyError for one that the paths lack."""
        known = self.offsets.tolist()
        if missing := [offset for offset in at or () if offset not in known]:
            raise KeyError(f"no offset {missing[0]}{nearest(str(missing[0]), map(str, known))}")
        return [known.index(offset) for offset in at or known[-1:]]

    def motion(self) -> Float[np.ndarray, "n t"]:
        """How far the executions lead away from the start, on average over the K."""
        return apart(self.executed, self.still).mean(axis=1)

    def spread(self) -> Float[np.ndarray, "n t"]:
        """How far apart the executions are, on average over the pairs."""
        return other_pairs(each_to_each(self.executed, self.executed))


def size(vectors: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n"]:
    return np.sqrt((vectors**2).sum(axis=-1))


def apart(first: Places, second: Places) -> Float[np.ndarray, "n k t"]:
    return size(first - second)


def each_to_each(
    first: Places, second: Float[np.ndarray, "n l t d"]
) -> Float[np.ndarray, "n k l t"]:
    """The distance of each of the first to each of the second of the same state."""
    return size(first[:, :, None] - second[:, None])


def own_pairs(every: Float[np.ndarray, "n k k t"]) -> Float[np.ndarray, "n t"]:
    return np.einsum("nkkt->nt", every) / every.shape[1]


def other_pairs(every: Float[np.ndarray, "n k k t"]) -> Float[np.ndarray, "n t"]:
    return every[:, ~np.eye(every.shape[1], dtype=bool)].mean(axis=1)


def effects_between(places: Places) -> Float[np.ndarray, "n p t d"]:
    """What each differs by from each other of the same state, every pair once."""
    first, second = np.triu_indices(places.shape[1], 1)
    return places[:, first] - places[:, second]


def check_beside(paths: Paths, name: str, places: Places) -> None:
    """Any number of other executions from the same states, at the same offsets."""
    n, _, t, d = paths.executed.shape
    if places.ndim == 4 and not places.shape[1]:
        raise NotApplicable(f"there are no {name} executions")
    check_shape(f"{paths.entity}: {name}", places, (n, *places.shape[1:2], t, d))


def check_states(states: Sequence[str], n: int) -> None:
    if len(states) != n or len(set(states)) != n:
        raise ValueError(f"expected the different names of {n} states, got {list(states)}")


def check_shape(what: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{what}: expected shape {shape}, got {array.shape}")
    if array.dtype != bool and not np.isfinite(array).all():
        raise ValueError(f"{what}: expected finite numbers, got NaN or infinity")


def need_several(paths: Paths, what: str, which: str) -> None:
    if paths.executed.shape[1] < 2:
        raise NotApplicable(f"{what} needs two {which} from one state; the paths hold one")
