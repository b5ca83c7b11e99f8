"""A model in raw units: observations as the world gives them in, actions and frames out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from wamlab.config import nearest
from wamlab.models.base import Refusal, Sampling, WorldActionModel
from wamlab.nn.vision import to_frames, to_pixels
from wamlab.policy.cost import count_calls
from wamlab.policy.history import History, executed, past_offsets, windows
from wamlab.policy.raw import ABSENT, FRAMES, INSTRUCTION, RawPrediction
from wamlab.policy.seeds import generators
from wamlab.sim.env import RawObservation
from wamlab.train.learner import weights_digest
from wamlab.types import (
    ACTION,
    FUTURE,
    IMAGE,
    STATE,
    ActionSpace,
    Batch,
    Cost,
    Frames,
    Future,
    Memory,
    Prediction,
    Query,
    Stream,
    Waypoints,
)


class Processor(Protocol):
    """What the policy needs of the data layer's processor: raw units to normalised and back."""

    def to_batch(self, observations: list[RawObservation]) -> Batch: ...

    def normalize(self, batch: Batch) -> Batch: ...

    def normalize_action(self, action: Any) -> Any: ...

    def denormalize_action(self, action: Any) -> Any: ...


@dataclass
class Policy:
    """A model with its processor and action space; always batched, always raw units."""

    model: WorldActionModel
    processor: Processor
    space: ActionSpace
    device: str | torch.device = "cpu"
    name: str = ""
    past: dict[str, tuple[int, ...]] = field(init=False)
    reads: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.model = self.model.to(self.device).eval()
        self.device = torch.device(self.device)
        self.name = self.name or self.model.name
        self.past = past_offsets(self.model)
        streams = (stage.window.streams for stage in self.model.stages())
        state = {STATE} & {name for names in streams for name in names}
        self.reads = frozenset({*self.model.config.image_streams, *state})
        if self.model.config.action_dim != self.space.size:
            raise ValueError(
                f"{self.name} speaks {self.model.config.action_dim} action dimensions, "
                f"the space has {self.space.size}: {self.space.names}"
            )

    @property
    def offsets(self) -> tuple[int, ...]:
        """The instants at which futures are imagined, in ticks after now."""
        return self.model.config.offsets

    @property
    def chunk(self) -> int:
        """The number of actions of one answer."""
        return self.model.config.chunk

    @property
    def remembers(self) -> bool:
        """Whether the model carries a memory from one call to the next."""
        return type(self.model).observe is not WorldActionModel.observe

    @property
    def depth(self) -> int:
        """How many past instants a `History` must hold for this model."""
        return max((-k for ks in self.past.values() for k in ks), default=0)

    @cached_property
    def digest(self) -> str:
        """Which weights these are."""
        return weights_digest(self.model.state_dict())[:16]

    @torch.no_grad()
    def query(
        self,
        observation: RawObservation | Sequence[RawObservation],
        query: Query,
        *,
        action: Float[np.ndarray, "*b h a"] | None = None,
        future: Future | None = None,
        seed: int | list[int] = 0,
        samples: int = 1,
        sampler: Mapping[str, Sampling] | None = None,
        decode: bool = True,
        histories: Sequence[History | None] | None = None,
        memory: Memory | None = None,
    ) -> RawPrediction:
        """Answer ``query`` for every observation, ``samples`` times; samples are innermost rows.

        Of an observation whose state is `ABSENT`, such as an imagined frame, the state is not read.

        Args:
            action: the given chunk in raw units, (H, A) for all rows or (B, H, A).
            future: the given future, as an earlier answer returned it.
            seed: a list gives each row its own, so that its draw depends on nothing else.
            decode: turn an imagined future into uint8 frames where the model can.
            histories: what each row saw and did before, for models that look back.
            memory: what `observe` returned, with one row per observation.

        Raises:
            Refusal: the model does not answer this query.
            KeyError: an observation without a view, state or instruction that the model reads.
            ValueError: NaN or infinity going in or coming out, an action outside the space, or
                what is given for another number of rows.
        """
        rows = [observation] if isinstance(observation, Mapping) else list(observation)
        self.model.answer(query)
        self._check_given(query, action, future)
        if samples < 1:
            raise ValueError(f"{samples} samples were asked for, expected at least 1")
        index = np.repeat(np.arange(len(rows)), samples)
        batch = self._batch(rows, histories).select(index)
        draws = generators(seed, len(rows), samples, torch.device("cpu"))
        with count_calls(self.model) as cost:
            answer = self.model.sample(
                batch,
                query,
                action=None if action is None else self._given_action(action, len(rows), index),
                future=None if future is None else self._given_future(future, index),
                memory=None if memory is None else memory.select(index),
                sampler=sampler,
                generator=draws,
            )
        return self._raw(answer, query, cost, decode)

    def observe(
        self,
        memory: Memory | None,
        observations: Sequence[RawObservation],
        histories: Sequence[History],
        since: Sequence[int],
    ) -> Memory | None:
        """Put what happened in the ``since`` steps after each row's last answer into the memory."""
        batch = self._batch(observations, histories)
        steps = max(since, default=0)
        actions = None
        if steps:
            actions = executed(histories, range(-steps, 0), self.space.size)
            fresh = actions.offsets >= -np.asarray(since)[:, None]
            actions = replace(actions, present=actions.present & fresh).to(self.device)
            actions.values = self.processor.normalize_action(actions.values)
        with torch.no_grad():
            return self.model.observe(memory, batch, actions)

    @torch.no_grad()
    def through_codec(self, frames: Frames) -> Frames:
        """Real frames (T, H, W, 3) through the model's codec and back; as they are without one."""
        own = {IMAGE + view: _tensor(shots[None], self.device) for view, shots in frames.items()}
        pixels = {name: to_pixels(value) for name, value in own.items()}
        try:
            decoded = self.model.decode(self.model.encode(pixels, None))
        except Refusal:
            return frames
        return {name.removeprefix(IMAGE): self._frames(one)[0] for name, one in decoded.items()}

    def _batch(
        self, rows: Sequence[RawObservation], histories: Sequence[History | None] | None
    ) -> Batch:
        for row, observation in enumerate(rows):
            self._check_observation(observation, row)
        known = np.array([not _is_absent(row.get(STATE)) for row in rows])
        batch = windows(
            [self._with_state(row) for row in rows],
            histories or [None] * len(rows),
            self.past,
            self.processor.to_batch,
            self.space.size,
        )
        if STATE in batch and not known.all():
            state = batch[STATE]
            there = known[:, None] | (np.asarray(state.offsets) != 0)
            batch.streams[STATE] = replace(state, present=state.present & there)
        return self.processor.normalize(batch.to(self.device))

    def _with_state(self, observation: RawObservation) -> RawObservation:
        """Something in the place of a state that is not known, which is then marked as absent."""
        if not _is_absent(observation.get(STATE)):
            return observation
        return {**observation, STATE: np.zeros(self.model.config.state_dim, np.float32)}

    def _check_observation(self, observation: RawObservation, row: int) -> None:
        for name in (*sorted(self.reads), INSTRUCTION):
            if name not in observation:
                raise KeyError(f"observation {row} has no {name!r}{nearest(name, observation)}")
        for name, value in observation.items():
            if name == STATE and _is_absent(value):
                continue
            array = np.asarray(value)
            if name == INSTRUCTION and not isinstance(value, str):
                raise ValueError(f"observation {row}: {name!r} is {value!r}, expected a sentence")
            if name in self.reads and array.dtype.kind not in "biuf":
                raise ValueError(f"observation {row}: {name!r} is {value!r}, expected numbers")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"observation {row}: {name!r} holds NaN or infinity")

    def _check_given(self, query: Query, action: Any, future: Any) -> None:
        for name, value in ((ACTION, action), (FUTURE, future)):
            if (value is not None) != (name in query.given):
                wanted = "needs" if value is None else "does not take"
                raise ValueError(f"{query} {wanted} {'an' if name == ACTION else 'a'} {name}")

    def _given_action(self, action: np.ndarray, rows: int, index: np.ndarray) -> Stream:
        self.space.check(action, "the given action")
        if np.ndim(action) not in (2, 3) or (np.ndim(action) == 3 and len(action) != rows):
            size = self.space.size
            raise ValueError(
                f"the given action has shape {np.shape(action)}, "
                f"expected (H, {size}) or ({rows}, H, {size})"
            )
        values = np.broadcast_to(action, (rows, *np.shape(action)[-2:])).astype(np.float32)[index]
        steps = values.shape[1]
        stream = Stream(
            values,
            np.tile(np.arange(steps), (len(index), 1)),
            np.ones((len(index), steps), bool),
        ).to(self.device)
        return replace(stream, values=self.processor.normalize_action(stream.values))

    def _given_future(self, future: Future, index: np.ndarray) -> Future:
        self._check_future(future, index)
        own = {name: _tensor(value, self.device) for name, value in future.values.items()}
        offsets = None if future.offsets is None else _tensor(future.offsets, self.device)
        if future.space == FRAMES:
            pixels = {name: to_pixels(value) for name, value in own.items()}
            given = self.model.encode(pixels, offsets)
        else:
            given = Future(future.space, future.codec, own, offsets)
        return given if len(next(iter(own.values()))) == len(index) else given.select(index)

    def _check_future(self, future: Future, index: np.ndarray) -> None:
        known, rows = self.model.config.image_streams, int(index[-1]) + 1
        if not future.values:
            raise ValueError("the given future holds nothing")
        for name, value in future.values.items():
            if future.space == FRAMES and name not in known:
                raise KeyError(f"the given future has {name!r}{nearest(name, known)}")
            if len(value) not in (rows, len(index)):
                raise ValueError(f"the given future has {len(value)} rows, expected {rows}")
            frame = (self.model.config.image_size, self.model.config.image_size, 3)
            if future.space == FRAMES and tuple(value.shape[2:]) != frame:
                raise ValueError(
                    f"the given future's {name} has frames of shape {tuple(value.shape[2:])}, "
                    f"expected {frame}"
                )
            _array(value, "the given future")

    def _raw(self, answer: Prediction, query: Query, cost: Cost, decode: bool) -> RawPrediction:
        cost.calls = cost.calls or answer.cost.calls
        raw = RawPrediction(memory=answer.memory, cost=cost)
        if answer.value is not None:
            raw.value = _array(answer.value, f"the value of {self.name}")
        if answer.action is not None:
            raw.action, raw.clipped = self._raw_action(answer.action)
        if answer.waypoints is not None:
            names = ("poses", "tolerance", "gripper")
            parts = [getattr(answer.waypoints, part) for part in names]
            raw.waypoints = Waypoints(*(_array(part, f"a plan of {self.name}") for part in parts))
        if answer.future is not None and FUTURE in query.sampled:
            raw.future, raw.undecoded = self._raw_future(answer.future, decode)
        return raw

    def _raw_action(self, action: Stream) -> tuple[Stream, np.ndarray]:
        what = f"the action of {self.name}"
        filled = torch.where(action.present[..., None], action.values, 0.0)
        values = _array(self.processor.denormalize_action(filled), what)
        inside = self.space.clip(values)
        clipped = (np.abs(inside - values) > 1e-6).sum(axis=(1, 2))
        present = np.asarray(action.present.cpu())
        return Stream(inside, np.asarray(action.offsets.cpu()), present), clipped

    def _raw_future(self, future: Future, decode: bool) -> tuple[Future, str]:
        offsets = None if future.offsets is None else np.asarray(future.offsets.cpu())
        why = "pixels were not asked for"
        if decode:
            try:
                pixels = self.model.decode(future)
                frames = {name: self._frames(value) for name, value in pixels.items()}
                return Future(FRAMES, "uint8", frames, offsets), ""
            except Refusal as refusal:
                why = str(refusal)
        what = f"the future of {self.name}"
        own = {name: _array(value, what) for name, value in future.values.items()}
        return Future(future.space, future.codec, own, offsets), why

    def _frames(self, pixels: torch.Tensor) -> np.ndarray:
        _array(pixels, f"the future of {self.name}")
        return np.ascontiguousarray(to_frames(pixels.float()).cpu().numpy())


def load(folder: str | Path, device: str = "auto") -> Policy:
    """The policy of a run folder or of one of its checkpoints, ready to act.

    Digests are verified; the weights are the averaged ones. The sentence encoder is loaded only
    when an instruction is new.

    Raises:
        CheckpointError: no checkpoint there, a damaged one, or one that cannot act.
        ValueError: a device that is not there.
    """
    from wamlab.data.processor import Processor as DataProcessor
    from wamlab.nn.text import SentenceEncoder
    from wamlab.train.checkpoint import CheckpointError, load_checkpoint
    from wamlab.train.device import choose_device

    checkpoint = load_checkpoint(folder)
    if checkpoint.action_space is None or not checkpoint.processor.is_dir():
        raise CheckpointError(f"{checkpoint.folder} has no action space or processor to act with")
    processor = DataProcessor.load(checkpoint.processor)
    if processor.sentences:
        processor.encoder = SentenceEncoder()
    where = choose_device(device)
    return Policy(checkpoint.build(), processor, checkpoint.action_space, where)


def _is_absent(state: Any) -> bool:
    return isinstance(state, str) and state == ABSENT


def _tensor(value: Any, device: Any) -> torch.Tensor:
    return torch.as_tensor(value).to(device)


def _array(value: Any, what: str) -> np.ndarray:
    array = value.detach().cpu() if isinstance(value, torch.Tensor) else value
    if isinstance(array, torch.Tensor):
        array = array.float().numpy() if array.is_floating_point() else array.numpy()
    if not np.isfinite(array).all():
        raise ValueError(f"{what} holds NaN or infinity")
    return array
