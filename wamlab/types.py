"""The vocabulary in code: what a World Action Model is asked, what it answers, and what is logged.

Nothing here imports torch: the fields hold torch tensors on the model's side of the processor and
numpy arrays outside it, and the same few methods work on both.

Shape legend: B rows of a batch, T instants of a stream, N executed steps of an episode, H steps of
a chunk, A action size, S state size, D width, L text tokens.

Time: an episode holds observations ``o_0 .. o_N`` and actions ``a_0 .. a_{N-1}``; ``a_t`` is the
action that was executed between ``o_t`` and ``o_{t+1}``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from wamlab.config import nearest

ACTION = "action"
STATE = "state"
FUTURE = "future"
VALUE = "value"
IMAGE = "image/"
LATENT = "latent/"

Role = Literal["policy", "forward", "inverse", "video"]
ROLES: tuple[Role, ...] = ("policy", "forward", "inverse", "video")


@dataclass(frozen=True)
class Query:
    """Which streams are given and which are sampled; every other stream is marginalised."""

    given: frozenset[str] = frozenset()
    sampled: frozenset[str] = frozenset()

    def __init__(self, given: Iterable[str] = (), sampled: Iterable[str] = ()) -> None:
        object.__setattr__(self, "given", frozenset(given))
        object.__setattr__(self, "sampled", frozenset(sampled))
        if not self.sampled:
            raise ValueError("a query samples at least one stream")
        if both := self.given & self.sampled:
            raise ValueError(f"a stream is either given or sampled, not both: {sorted(both)}")

    def __str__(self) -> str:
        for name, query in QUERIES.items():
            if query == self:
                return name
        return f"Query(given={sorted(self.given)}, sampled={sorted(self.sampled)})"


POLICY = Query(sampled=[ACTION])
VIDEO = Query(sampled=[FUTURE])
JOINT = Query(sampled=[FUTURE, ACTION])
FORWARD = Query(given=[ACTION], sampled=[FUTURE])
INVERSE = Query(given=[FUTURE], sampled=[ACTION])
QUERIES: dict[str, Query] = {
    "POLICY": POLICY,
    "VIDEO": VIDEO,
    "JOINT": JOINT,
    "FORWARD": FORWARD,
    "INVERSE": INVERSE,
}


@dataclass(frozen=True)
class Answer:
    """What a model's answer to one query is.

    ``coupling`` says how several sampled streams belong together: ``one draw`` of the joint
    distribution, or ``shared context`` only (each is drawn on its own). ``marginal`` says how the
    streams that are neither given nor sampled disappear: ``exact`` (they cannot be read) or
    ``statistical`` (they are replaced by noise). ``calls`` are the network calls of one answer at
    the default sampler settings. ``plan`` is the form of a sampled action.
    """

    stochastic: bool
    space: str | None = None
    coupling: Literal["one draw", "shared context"] | None = None
    marginal: Literal["exact", "statistical"] | None = None
    calls: int = 1
    plan: Literal["chunk", "waypoints"] = "chunk"


class Refusal(ValueError):
    """What was asked for is not among the things that were declared: nothing is ever faked."""


@dataclass(frozen=True)
class ActionSpace:
    """What the numbers of one action mean, in raw units.

    ``low`` and ``high`` are the bounds per dimension; ``mode`` is ``delta`` or ``absolute`` per
    dimension, ``unknown`` where the source does not tell; ``unit`` likewise. ``rate_hz`` is how
    often an action is executed.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    mode: tuple[str, ...]
    unit: tuple[str, ...]
    rate_hz: float

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def declared(self) -> bool:
        """Whether the source tells what an action is; else the bounds are what has been seen."""
        return "unknown" not in self.mode

    def check(self, action: Float[Any, "*steps a"], what: str = "action") -> None:
        """Raise ValueError unless every action is finite, of the right size and within bounds.

        Bounds that were not declared refuse nothing: other actions of the same kind go beyond them.
        """
        action = np.asarray(action)
        if action.shape[-1:] != (self.size,):
            raise ValueError(
                f"{what} has shape {action.shape}, expected (..., {self.size}) for {self.names}"
            )
        if not np.isfinite(action).all():
            raise ValueError(f"{what} holds NaN or infinity in {self._where(~np.isfinite(action))}")
        if self.declared and (beyond := self.beyond(action)):
            raise ValueError(
                f"{what} is outside the space in {beyond}: bounds are {self.low} to {self.high}"
            )

    def beyond(self, action: Float[np.ndarray, "*steps a"]) -> str:
        """The names of the dimensions in which some action is out of bounds; empty for none."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        below = action < low - 1e-6 * np.maximum(1, np.abs(low))
        return self._where(below | (action > high + 1e-6 * np.maximum(1, np.abs(high))))

    def clip(self, action: Float[np.ndarray, "*steps a"]) -> Float[np.ndarray, "*steps a"]:
        return np.clip(action, self.low, self.high).astype(np.float32)

    def _where(self, bad: Bool[np.ndarray, "*steps a"]) -> str:
        columns = np.asarray(bad.any(axis=tuple(range(bad.ndim - 1))))
        return ", ".join(name for name, is_bad in zip(self.names, columns, strict=True) if is_bad)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: ``intrinsics`` (3, 3) in pixels, ``pose`` (4, 4) camera to world, metres.

    The camera looks along +z, x to the right and y down, as in OpenCV.
    """

    intrinsics: Float[np.ndarray, "3 3"]
    pose: Float[np.ndarray, "4 4"]


@dataclass
class Stream:
    """One modality of a batch over time.

    ``offsets`` are ticks relative to now: 0 is now, negative is history. An action at offset k is
    the one executed between the observations at k and k + 1. Where ``present`` is False the entry
    is absent and whatever lies in ``values`` there is unspecified and must never be read.
    ``dims`` marks which of the padded action or state slots a row really has.
    """

    values: Shaped[Any, "b t *rest"]
    offsets: Int[Any, "b t"]
    present: Bool[Any, "b t"]
    dims: Bool[Any, "b d"] | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.values.shape[:2])
        for name in ("offsets", "present"):
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(
                    f"stream {name} has shape {tuple(getattr(self, name).shape)}, "
                    f"expected (B, T) = {shape} as its values"
                )

    def __len__(self) -> int:
        return self.values.shape[0]

    def at(self, *offsets: int) -> Stream:
        """The columns of these offsets, in this order; every row must hold them in one place."""
        row = [int(offset) for offset in self.offsets[0]]
        if missing := [offset for offset in offsets if offset not in row]:
            raise KeyError(f"no column at offset {missing}; the stream holds offsets {row}")
        return self.columns([row.index(offset) for offset in offsets])

    def columns(self, index: Sequence[int]) -> Stream:
        index = list(index)
        return dataclasses.replace(
            self,
            values=self.values[:, index],
            offsets=self.offsets[:, index],
            present=self.present[:, index],
        )

    def select(self, rows: Any) -> Stream:
        """The rows of an index list or boolean mask."""
        return Stream(
            self.values[rows],
            self.offsets[rows],
            self.present[rows],
            None if self.dims is None else self.dims[rows],
        )

    def to(self, device: Any) -> Stream:
        """The same stream as torch tensors on ``device``."""
        return Stream(
            _to(self.values, device),
            _to(self.offsets, device),
            _to(self.present, device),
            None if self.dims is None else _to(self.dims, device),
        )


@dataclass
class Text:
    """The instruction of each row, with what a sentence encoder made of it (None: not encoded)."""

    sentences: list[str]
    pooled: Float[Any, "b d"] | None = None
    tokens: Float[Any, "b l d"] | None = None
    mask: Bool[Any, "b l"] | None = None

    def select(self, rows: Any) -> Text:
        kept = np.arange(len(self.sentences))[np.asarray(rows)]
        pick = lambda array: None if array is None else array[rows]  # noqa: E731
        return Text(
            [self.sentences[row] for row in kept],
            pick(self.pooled),
            pick(self.tokens),
            pick(self.mask),
        )

    def to(self, device: Any) -> Text:
        move = lambda array: None if array is None else _to(array, device)  # noqa: E731
        return Text(self.sentences, move(self.pooled), move(self.tokens), move(self.mask))


@dataclass
class Batch:
    """Rows of streams by name, with text, embodiment, role bits and rate.

    Streams are named ``image/<view>`` (B, T, H, W, 3) uint8 in raw units and (B, T, 3, H, W) float
    in [-1, 1] once normalised, ``state`` (B, T, S), ``action`` (B, T, A), and whatever else a
    source has. ``latent/<view>`` (B, T, ...) are a codec's codes of frames that are not sent along.
    ``role`` (B, 4) says for each of `ROLES` whether the row may teach it.
    """

    streams: dict[str, Stream]
    text: Text
    role: Bool[Any, "b 4"]
    rate: Float[Any, " b"]
    embodiment: list[str] = field(default_factory=list)
    cameras: dict[str, Camera] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.role.shape[0]

    def __getitem__(self, name: str) -> Stream:
        if name not in self.streams:
            raise KeyError(f"no stream {name!r}{nearest(name, self.streams)}")
        return self.streams[name]

    def __contains__(self, name: str) -> bool:
        return name in self.streams

    def may(self, role: Role) -> Bool[Any, " b"]:
        """Which rows may teach ``role``."""
        return self.role[:, ROLES.index(role)]

    def select(self, rows: Any) -> Batch:
        """The rows of an index list or boolean mask; an index may repeat."""
        kept = np.arange(len(self))[np.asarray(rows)]
        return dataclasses.replace(
            self,
            streams={name: stream.select(rows) for name, stream in self.streams.items()},
            text=self.text.select(rows),
            role=self.role[rows],
            rate=self.rate[rows],
            embodiment=[self.embodiment[row] for row in kept] if self.embodiment else [],
        )

    def observation(self) -> Observation:
        """What was known now: observations at offsets <= 0 and actions already executed (< 0)."""
        streams = {}
        for name, stream in self.streams.items():
            newest = -1 if name == ACTION else 0
            columns = range(stream.offsets.shape[1])
            known = [i for i in columns if bool((stream.offsets[:, i] <= newest).all())]
            if known:
                streams[name] = stream.columns(known)
        return dataclasses.replace(self, streams=streams)

    def to(self, device: Any) -> Batch:
        return dataclasses.replace(
            self,
            streams={name: stream.to(device) for name, stream in self.streams.items()},
            text=self.text.to(device),
            role=_to(self.role, device),
            rate=_to(self.rate, device),
        )


Observation = Batch
"""A batch that holds no future: see `Batch.observation`."""


@dataclass
class Future:
    """What a model imagined, in its own space.

    ``values`` by stream name, e.g. ``{"image/corner": (B, T, 3, H, W)}`` in pixels or
    ``{"features": (B, T, L, D)}``; ``offsets`` (B, T) in ticks from now, or None when the plan is
    unclocked. ``codec`` names what would turn the values into pixels.
    """

    space: str
    codec: str
    values: dict[str, Shaped[Any, "b t *rest"]]
    offsets: Int[Any, "b t"] | None

    def select(self, rows: Any) -> Future:
        offsets = None if self.offsets is None else self.offsets[rows]
        values = {name: value[rows] for name, value in self.values.items()}
        return dataclasses.replace(self, values=values, offsets=offsets)


@dataclass
class Waypoints:
    """A geometric plan: poses to be reached one after the other, by no particular time.

    ``poses`` (B, W, P) in metres (and radians), ``tolerance`` (B, W) in metres, ``gripper``
    (B, W) the gripper command to hold on the way there.
    """

    poses: Float[Any, "b w p"]
    tolerance: Float[Any, "b w"]
    gripper: Float[Any, "b w"]

    def select(self, rows: Any) -> Waypoints:
        return Waypoints(self.poses[rows], self.tolerance[rows], self.gripper[rows])


@dataclass
class Cost:
    """What one answer took: network calls and wall-clock milliseconds for the whole batch."""

    calls: int = 0
    ms: float = 0.0


class Memory(Protocol):
    """What a model carries from one call to the next (a cache, a history), row by row."""

    def select(self, rows: Any) -> Memory: ...

    def reset(self, rows: Any) -> Memory: ...

    @staticmethod
    def join(parts: Sequence[Any]) -> Memory:
        """The memories of several rows as one, in this order."""
        ...


@dataclass
class Prediction:
    """One call's answer: the sampled streams of the query, and nothing that was not asked for."""

    action: Stream | None = None
    waypoints: Waypoints | None = None
    future: Future | None = None
    value: Float[Any, " b"] | None = None
    memory: Memory | None = None
    cost: Cost = field(default_factory=Cost)

    def select(self, rows: Any) -> Prediction:
        pick = lambda part: None if part is None else part.select(rows)  # noqa: E731
        return Prediction(
            pick(self.action),
            pick(self.waypoints),
            pick(self.future),
            None if self.value is None else self.value[rows],
            pick(self.memory),
            self.cost,
        )


Frames = Mapping[str, Shaped[np.ndarray, "t height width 3"]]
"""RGB frames by view name, uint8."""


@dataclass
class Replan:
    """One decision of an executor: when, why, what was planned, and what it cost.

    ``clipped`` counts the entries of the chunk that had to be brought inside the action space.
    """

    step: int
    reason: str
    action: Float[np.ndarray, "h a"] | None = None
    imagined: Frames | None = None
    imagined_offsets: Int[np.ndarray, " t"] | None = None
    value: float | None = None
    calls: int = 0
    ms: float = 0.0
    waypoints: Waypoints | None = None
    clipped: int = 0


@dataclass
class Episode:
    """The log of one rollout or demonstration, in raw units.

    ``frames`` hold o_0 .. o_N per view, ``state`` (N+1, S), ``action`` (N, A) as executed;
    ``success`` (N,) is the environment's judgement after each step and ``success_at_reset`` its
    judgement before the first. ``entities`` are poses (N+1, 7): metres and a w-x-y-z quaternion.
    ``columns`` are further per-step records (``action.expert`` (N, A), ``burst`` (N,) ...).
    """

    env: str
    instruction: str
    seed: int
    frames: Frames
    state: Float[np.ndarray, "n1 s"]
    action: Float[np.ndarray, "n a"]
    success: Bool[np.ndarray, " n"]
    success_at_reset: bool = False
    entities: dict[str, Float[np.ndarray, "n1 7"]] = field(default_factory=dict)
    contacts: list[list[tuple[str, str]]] = field(default_factory=list)
    columns: dict[str, Shaped[np.ndarray, "n *rest"]] = field(default_factory=dict)
    replans: list[Replan] = field(default_factory=list)
    policy: str = ""
    variant: dict[str, float | str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Executed steps N."""
        return len(self.action)

    @property
    def success_any(self) -> bool:
        """Succeeded at some step; a task solved at the start is not solved by the policy."""
        return bool(self.success.any()) and not self.success_at_reset

    @property
    def success_last(self) -> bool:
        return bool(len(self.success) and self.success[-1]) and not self.success_at_reset


BranchKind = Literal[
    "own", "instructed", "imposed", "world", "shuffled", "reference", "control"
]  # fmt: skip

EXECUTED: tuple[BranchKind, ...] = ("world", "shuffled", "reference")
"""Kinds of which no model imagines anything: what comes of actions in a physics or an order that
no model is told, and of those that are the same for every model."""


@dataclass
class Reading:
    """What a state reader made of frames: ``places`` by entity (T, 3) in metres, how likely the
    task is done in them, ``success`` (T,) from 0 to 1, and the robot's own ``state`` (T, S)."""

    places: dict[str, Float[np.ndarray, "t 3"]]
    success: Float[np.ndarray, " t"]
    state: Float[np.ndarray, "t s"] | None = None


@dataclass
class Branch:
    """One action chunk executed whole from a probe's state, beside what was imagined for it.

    ``kind``: ``own`` (the model's joint sample), ``instructed`` (one that was told something else),
    ``imposed`` (an intervention on it), ``world`` (an own or imposed action in another physics),
    ``shuffled`` (an own action in another order), ``reference`` (a chunk that is the same for every
    model), ``control`` (an action decoded from a future that is not the model's own).
    ``imagined`` frames at ``offsets``, None with ``why_not`` where the model imagines nothing that
    can be shown. ``happened`` are the frames at the same offsets, ``entities`` the poses (H+1, 7)
    over the whole chunk, ``masks`` the robot's and objects' pixels by ``<view>/<entity>`` (T, H, W)
    at the offsets; a ``reference`` has poses alone, a ``world`` or ``shuffled`` branch no masks.
    ``recoded`` are the frames that happened of an ``own``, ``world`` or ``shuffled`` branch after
    the model's codec, there and back, None where that loses nothing. ``instruction`` is what the
    action was drawn for, where that is another than the probe's. ``read`` is what a state reader
    sees in the imagined frames and ``reread`` in those that happened, where one has read them;
    ``decoded`` and ``redecoded`` are the actions that a judge reads off them, where one has,
    ``extracted`` and ``reextracted`` those that the model itself does (INVERSE).
    """

    kind: BranchKind
    label: str
    action: Float[np.ndarray, "h a"]
    offsets: Int[np.ndarray, " t"]
    happened: Frames
    imagined: Frames | None = None
    why_not: str = ""
    entities: dict[str, Float[np.ndarray, "h1 7"]] = field(default_factory=dict)
    masks: dict[str, Bool[np.ndarray, "t height width"]] = field(default_factory=dict)
    success: bool = False
    calls: int = 0
    ms: float = 0.0
    instruction: str = ""
    read: Reading | None = None
    reread: Reading | None = None
    decoded: Float[np.ndarray, "j a"] | None = None
    redecoded: Float[np.ndarray, "j a"] | None = None
    extracted: Float[np.ndarray, "j a"] | None = None
    reextracted: Float[np.ndarray, "j a"] | None = None
    recoded: Frames | None = None


STRATA = ("free", "before", "contact", "after")
"""Where a probed state lies on the way to contact; see `wamlab.run.reach.strata`."""


@dataclass
class Probe:
    """Several branches from one exactly restored state.

    ``now`` holds the frame o_0 per view (1, H, W, 3), ``masks`` the entities' pixels in it,
    ``pixel_noise`` the largest difference (0 to 255) that restoring and rendering the same state
    twice gave: the noise floor. ``stratum``, one of `STRATA`, says where on the way it was taken.
    ``reader`` names the state reader that has read the branches, ``judge`` the inverse dynamics
    model that has. ``retrieved`` is what the reader sees in the nearest training clip, at the own
    offsets, where one was saved.
    """

    env: str
    instruction: str
    seed: int
    step: int
    now: Frames
    state: Float[np.ndarray, " s"]
    branches: list[Branch]
    stratum: str = ""
    masks: dict[str, Bool[np.ndarray, "1 height width"]] = field(default_factory=dict)
    entities: dict[str, Float[np.ndarray, " 7"]] = field(default_factory=dict)
    pixel_noise: float = 0.0
    policy: str = ""
    simulator_state: Float[np.ndarray, " q"] | None = None
    reader: str = ""
    judge: str = ""
    retrieved: Reading | None = None

    def of(self, kind: BranchKind) -> list[Branch]:
        return [branch for branch in self.branches if branch.kind == kind]

    def asked(self) -> list[Branch]:
        """The branches that the model was asked for; the others are executed and nothing more."""
        return [branch for branch in self.branches if branch.kind not in EXECUTED]


@dataclass
class Denoised:
    """How well what a query samples was recovered from noise, row by row.

    ``levels`` fall from the most noise to the least (flow convention: 1 is noise). ``errors`` are
    squared errors of the predicted clean values, summed over the ``dims`` entries that are present,
    and ``energy`` the sum of those entries' own squares. A bound on their likelihood is a function
    of these numbers alone: `wamlab.metrics.likelihood`.
    """

    levels: Float[Any, " l"]
    errors: Float[Any, "b l"]
    energy: Float[Any, " b"]
    dims: Int[Any, " b"]

    def __add__(self, other: Denoised) -> Denoised:
        """Two streams at the same levels as one."""
        return Denoised(
            self.levels,
            self.errors + other.errors,
            self.energy + other.energy,
            self.dims + other.dims,
        )

    def select(self, rows: Any) -> Denoised:
        return Denoised(self.levels, self.errors[rows], self.energy[rows], self.dims[rows])


@dataclass
class Nats:
    """The exact ``-log p`` of what a query samples, row by row, over ``dims`` entries (tokens)."""

    nats: Float[Any, " b"]
    dims: Int[Any, " b"]

    def select(self, rows: Any) -> Nats:
        return Nats(self.nats[rows], self.dims[rows])


Likelihood = Denoised | Nats


@dataclass
class Guess:
    """An answer at a recorded instant, of a model or of a rival; nothing of it was executed.

    ``action`` and ``imagined`` frames at ``offsets`` are None where the query does not sample them,
    or where ``why_not`` says why there is none.
    """

    action: Float[np.ndarray, "h a"] | None = None
    imagined: Frames | None = None
    offsets: Int[np.ndarray, " t"] | None = None
    why_not: str = ""
    calls: int = 0
    ms: float = 0.0


Origin = Literal["held out", "training", "elsewhere"]
"""A recorded episode was held out of the run's training, or may have been trained on, or belongs to
a dataset that the run did not read."""


@dataclass
class Recording:
    """An instant of a recorded episode: what came after it, and what is guessed from it.

    ``action`` was executed from here and led to the frames ``ahead`` at ``offsets``; divided by
    ``action_scale``, half the range of the training actions, it is in normalised units.
    ``guesses`` are the model's by query (and INVERSE from the frames of another instant, as a
    control), ``rivals`` those of what needs no model by name, and ``likelihood`` is that of what
    was recorded, by query. ``env`` is the environment, or the instruction where the source names
    none.
    """

    env: str
    instruction: str
    episode: int
    step: int
    origin: Origin
    now: Frames
    state: Float[np.ndarray, " s"]
    action: Float[np.ndarray, "h a"]
    action_names: tuple[str, ...]
    action_unit: tuple[str, ...]
    action_scale: Float[np.ndarray, " a"]
    offsets: Int[np.ndarray, " t"]
    ahead: Frames
    guesses: dict[str, Guess] = field(default_factory=dict)
    rivals: dict[str, Guess] = field(default_factory=dict)
    likelihood: dict[str, Likelihood] = field(default_factory=dict)
    policy: str = ""


Anchor = Literal["fixed", "to_end", "goal_pair", "keyframes"]


@dataclass(frozen=True)
class Window:
    """Which streams a training stage reads, and at which instants relative to now.

    ``fixed``: ``streams`` gives offsets in ticks of ``rate_hz``. The other anchors give positions
    instead: ``to_end`` spreads them evenly from now to the episode's last observation (position 0
    is now, the largest the end), ``goal_pair`` draws a goal within ``reach`` ticks after now
    (position 1), ``keyframes`` counts the episode's keyframes after now. There each row has its
    own offsets: take columns by place (`Stream.columns`), not by offset (`Stream.at`).
    """

    streams: Mapping[str, tuple[int, ...]]
    anchor: Anchor = "fixed"
    rate_hz: float | None = None
    reach: tuple[int, int] = (1, 64)

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.streams.items())), self.anchor, self.rate_hz, self.reach))


def _to(array: Any, device: Any) -> Any:
    import torch

    return torch.as_tensor(array).to(device, non_blocking=True)
