"""Windows: which rows of a cache a training stage reads together, as batches in raw units.

An anchor is an episode and an instant t, "now". Observation streams (images, state) are read at
``o_{t+k}``, actions at ``a_{t+k}``; what lies outside the episode is absent, never clamped.
At a rate below the dataset's, an action is all that was done in its tick: deltas add up, and of
absolute dimensions the last command counts.

Anchors other than ``fixed`` place observations only: positions above 0 are resolved per row (see
`wamlab.types.Window`), positions up to 0 are history in ticks, and actions stay at tick offsets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int, Shaped

from wamlab.config import nearest
from wamlab.data.cache import Cache
from wamlab.data.manifest import DataError
from wamlab.types import ACTION, IMAGE, LATENT, ROLES, Batch, Role, Stream, Text, Window

GRIPPER = "gripper"


class Windows:
    """All windows of one kind over one cache.

    Args:
        cache: the decoded dataset.
        window: streams, offsets and anchor.
        roles: only rows that may teach at least one of these are served.
        action_free: episodes whose actions are hidden; they teach ``video`` only.
        without: episodes that are not served at all.

    Raises:
        KeyError: a stream that the cache does not hold, with the nearest that it does.
        DataError: the window's rate does not divide the dataset's, or no row is left.
    """

    def __init__(
        self,
        cache: Cache,
        window: Window,
        *,
        roles: Sequence[Role] = ROLES,
        action_free: Collection[int] = (),
        without: Collection[int] = (),
    ) -> None:
        self.cache, self.window = cache, window
        self.latents: dict[str, Shaped[np.ndarray, "r *shape"]] = {}
        self.rate_hz = float(window.rate_hz or cache.fps)
        self.stride = stride_of(cache.fps, self.rate_hz)
        self._check_streams()
        self._hidden = np.isin(np.arange(len(cache.lengths)), list(action_free))
        if ACTION not in cache.columns:
            self._hidden[:] = True
        self._keyframes = _keyframes(cache) if window.anchor == "keyframes" else []
        anchors = _anchors(cache)
        anchors = anchors[~np.isin(anchors[:, 0], list(without))]
        bits = self._roles(anchors)
        served = bits[:, [ROLES.index(role) for role in roles]].any(axis=1)
        self.anchors: Int[np.ndarray, "rows 2"] = anchors[served]
        self.role: Bool[np.ndarray, "rows 4"] = bits[served]
        if not len(self):
            raise DataError(f"no window of {cache.path} may teach any of {list(roles)}")

    def __len__(self) -> int:
        return len(self.anchors)

    def serve_latents(self, latents: Mapping[str, Shaped[np.ndarray, "r *shape"]]) -> None:
        """From now on serve these codes (of all rows of the cache, by view) as ``latent/<view>``.

        They come at the instants of the view's frames, of which those after now stay behind.
        """
        self.latents = dict(latents)

    def batch(self, rows: Int[np.ndarray, " b"], rng: np.random.Generator | None = None) -> Batch:
        """The windows of these rows; only ``goal_pair`` draws anything.

        Without ``rng`` a row's goal is a fixed function of the row.
        """
        rows = np.asarray(rows)
        episode, now = self.anchors[rows].T
        streams = {}
        for name, instants in self.window.streams.items():
            positions = np.asarray(instants)
            if is_action(name):
                streams[name] = self._actions(name, episode, now, positions)
                continue
            offsets, known = self._resolve(positions, rows, episode, now, rng)
            if name.startswith(IMAGE) and name.removeprefix(IMAGE) in self.latents:
                latent = name.replace(IMAGE, LATENT)
                streams[latent] = self._observations(latent, episode, now, offsets, known)
                offsets, known = offsets[:, positions <= 0], known[:, positions <= 0]
            if offsets.shape[1]:
                streams[name] = self._observations(name, episode, now, offsets, known)
        sentences = [self.cache.episodes[e].task for e in episode]
        return Batch(
            streams=streams,
            text=Text(sentences),
            role=self.role[rows],
            rate=np.full(len(rows), self.rate_hz, np.float32),
            embodiment=[self.cache.embodiment] * len(rows),
        )

    def _check_streams(self) -> None:
        known = [f"{IMAGE}{view}" for view in self.cache.views] + list(self.cache.columns)
        for name in self.window.streams:
            if name not in known and name != ACTION:
                raise KeyError(f"the cache has no stream {name!r}{nearest(name, known)}")
        if self.stride > 1 and any(map(is_action, self.window.streams)):
            space = self.cache.space
            if space is None or not set(space.mode) <= {"delta", "absolute"}:
                raise DataError(
                    f"actions at {self.cache.fps:g} Hz cannot be read at {self.rate_hz:g} Hz: the "
                    "dataset does not declare which dimensions are delta and which absolute"
                )

    def _resolve(
        self,
        positions: Int[np.ndarray, " t"],
        rows: Int[np.ndarray, " b"],
        episode: Int[np.ndarray, " b"],
        now: Int[np.ndarray, " b"],
        rng: np.random.Generator | None,
    ) -> tuple[Int[np.ndarray, "b t"], Bool[np.ndarray, "b t"]]:
        """Offsets in ticks per row and position, and which of them exist."""
        offsets = np.tile(positions, (len(rows), 1))
        known = np.ones(offsets.shape, bool)
        ahead = positions > 0
        if self.window.anchor == "fixed" or not ahead.any():
            return offsets, known
        left = (self.cache.lengths[episode] - 1 - now) // self.stride
        if self.window.anchor == "to_end":
            offsets[:, ahead] = np.rint(left[:, None] * positions[ahead] / self._largest_position())
        elif self.window.anchor == "goal_pair":
            goal = self._goal(rows, rng)
            offsets[:, ahead] = goal[:, None]
            known[:, ahead] = (positions[ahead] == 1)[None]
        else:
            offsets[:, ahead], known[:, ahead] = self._next_keyframes(
                episode, now, positions[ahead]
            )
        return offsets, known

    def _largest_position(self) -> int:
        return max(
            max(positions) for name, positions in self.window.streams.items() if not is_action(name)
        )

    def _goal(
        self, rows: Int[np.ndarray, " b"], rng: np.random.Generator | None
    ) -> Int[np.ndarray, " b"]:
        low, high = self.window.reach
        if rng is not None:
            return rng.integers(low, high + 1, len(rows))
        return low + (_hash(rows) % np.uint64(high - low + 1)).astype(np.int64)

    def _next_keyframes(
        self,
        episode: Int[np.ndarray, " b"],
        now: Int[np.ndarray, " b"],
        positions: Int[np.ndarray, " p"],
    ) -> tuple[Int[np.ndarray, "b p"], Bool[np.ndarray, "b p"]]:
        offsets = np.zeros((len(now), len(positions)), np.int64)
        known = np.zeros(offsets.shape, bool)
        for row, (e, t) in enumerate(zip(episode, now, strict=True)):
            later = self._keyframes[e][self._keyframes[e] > t]
            for column, position in enumerate(positions):
                if position <= len(later):
                    offsets[row, column] = (later[position - 1] - t) // self.stride
                    known[row, column] = True
        return offsets, known

    def _observations(
        self,
        name: str,
        episode: Int[np.ndarray, " b"],
        now: Int[np.ndarray, " b"],
        offsets: Int[np.ndarray, "b t"],
        known: Bool[np.ndarray, "b t"],
    ) -> Stream:
        at = now[:, None] + offsets * self.stride
        last = self.cache.lengths[episode][:, None] - 1
        present = known & (at >= 0) & (at <= last)
        index = self.cache.starts[episode][:, None] + np.clip(at, 0, last)
        if name.startswith(IMAGE):
            values = _gather(self.cache.frames[name.removeprefix(IMAGE)], index)
        elif name.startswith(LATENT):
            values = _gather(self.latents[name.removeprefix(LATENT)], index)
        else:
            values = self.cache.columns[name][index]
            present = present & np.isfinite(values).all(axis=-1)
        return Stream(values, offsets, present)

    def _actions(
        self,
        name: str,
        episode: Int[np.ndarray, " b"],
        now: Int[np.ndarray, " b"],
        positions: Int[np.ndarray, " t"],
    ) -> Stream:
        offsets = np.tile(positions, (len(now), 1))
        at = now[:, None] + offsets * self.stride
        last = self.cache.lengths[episode][:, None] - 2
        present = (at >= 0) & (at + self.stride - 1 <= last) & ~self._hidden[episode][:, None]
        if name not in self.cache.columns:
            size = self.cache.space.size if self.cache.space else 0
            return Stream(np.zeros((*offsets.shape, size), np.float32), offsets, present)
        start = self.cache.starts[episode][:, None]
        read = lambda k: self.cache.columns[name][start + np.clip(at + k, 0, last)]  # noqa: E731
        values = read(self.stride - 1)
        if self.stride > 1 and self.cache.space is not None:
            delta = np.asarray(self.cache.space.mode) == "delta"
            total = np.sum([read(k) for k in range(self.stride)], axis=0, dtype=np.float64)
            values = np.where(delta, total, values).astype(np.float32)
        return Stream(values, offsets, present)

    def _roles(self, anchors: Int[np.ndarray, "rows 2"]) -> Bool[np.ndarray, "rows 4"]:
        """Role bits: no policy and no video from failures or bursts, only video without actions.

        Video is what follows when the policy acts: a system that reads its actions off what it
        imagines would do what it has learned to imagine.
        """
        episode = anchors[:, 0]
        bits = np.ones((len(anchors), len(ROLES)), bool)
        failed = np.asarray([info.success is False for info in self.cache.episodes])
        good = ~failed[episode] & ~self._touches_burst(anchors)
        for role in ("policy", "video"):
            bits[:, ROLES.index(role)] = good
        bits[self._hidden[episode]] = [role == "video" for role in ROLES]
        return bits

    def _touches_burst(self, anchors: Int[np.ndarray, "rows 2"]) -> Bool[np.ndarray, " rows"]:
        """Is an action of a noise burst executed between now and the window's furthest instant?"""
        if "burst" not in self.cache.columns:
            return np.zeros(len(anchors), bool)
        episode, now = anchors.T
        end = np.minimum(now + self._reach(episode, now), self.cache.lengths[episode] - 1)
        burst = np.nan_to_num(self.cache.columns["burst"][:, 0]) > 0
        before = np.concatenate([[0], np.cumsum(burst)])
        start = self.cache.starts[episode]
        return before[start + end] > before[start + now]

    def _reach(
        self, episode: Int[np.ndarray, " rows"], now: Int[np.ndarray, " rows"]
    ) -> Int[np.ndarray, " rows"]:
        """How many actions after now a window's content depends on."""
        ahead = [
            max(positions) + is_action(name)
            for name, positions in self.window.streams.items()
            if self.window.anchor == "fixed" or is_action(name)
        ]
        reach = np.full(len(now), max([0, *ahead]) * self.stride)
        if self.window.anchor == "fixed":
            return reach
        if self.window.anchor == "goal_pair":
            return np.maximum(reach, self.window.reach[1] * self.stride)
        return np.maximum(reach, self.cache.lengths[episode] - 1 - now)


def is_action(name: str) -> bool:
    """Streams that live between two observations: ``action``, ``action.expert`` ..."""
    return name == ACTION or name.startswith(f"{ACTION}.")


def _anchors(cache: Cache) -> Int[np.ndarray, "rows 2"]:
    """Every instant from which an action was executed."""
    parts = [
        np.stack([np.full(length - 1, e), np.arange(length - 1)], axis=1)
        for e, length in enumerate(cache.lengths)
    ]
    return np.concatenate(parts)


def stride_of(fps: float, rate_hz: float) -> int:
    """How many rows of a dataset at ``fps`` one tick of ``rate_hz`` spans.

    Raises:
        DataError: the rate does not divide the dataset's.
    """
    stride = round(fps / rate_hz)
    if stride < 1 or abs(stride * rate_hz - fps) > 1e-6 * fps:
        raise DataError(
            f"a window at {rate_hz:g} Hz cannot be read from a dataset at {fps:g} Hz: expected a "
            "rate that divides it"
        )
    return stride


def _keyframes(cache: Cache) -> list[Int[np.ndarray, " k"]]:
    """Per episode the instants at which the gripper command changes its sign, and the end."""
    names = cache.space.names if cache.space is not None else ()
    if GRIPPER not in names or ACTION not in cache.columns:
        raise DataError(f"keyframes need an action dimension {GRIPPER!r}{nearest(GRIPPER, names)}")
    command = cache.columns[ACTION][:, names.index(GRIPPER)]
    found = []
    for start, length in zip(cache.starts, cache.lengths, strict=True):
        sign = command[start : start + length - 1] > 0
        found.append(np.append(np.flatnonzero(sign[1:] != sign[:-1]) + 1, length - 1))
    return found


def _gather(
    mapped: Shaped[np.ndarray, "r *rest"], index: Int[np.ndarray, "b t"]
) -> Shaped[np.ndarray, "b t *rest"]:
    """Rows of a memory map in the order of the disk, each one read once."""
    unique, inverse = np.unique(index, return_inverse=True)
    return mapped[unique][inverse.reshape(index.shape)]


def _hash(rows: Int[np.ndarray, " b"]) -> np.ndarray:
    """SplitMix64's output function: well mixed 64 bits per row."""
    with np.errstate(over="ignore"):
        x = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
