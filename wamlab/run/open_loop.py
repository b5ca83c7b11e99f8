"""Open loop: what a model answers at instants of recorded episodes, beside what was recorded.

For users without a simulator. Nothing is executed: what followed an instant followed the *recorded*
action. Every query of the five that the model answers is asked once at each instant; FORWARD is
given the recorded chunk and INVERSE the recorded frames, and as a control those of another instant
of the episode. What may be read from which comparison
stands in `wamlab.metrics.open_loop`; only `wamlab.run.probe` executes a model's own action.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from wamlab.data.cache import Cache
from wamlab.data.logs import claim, load_recording, save_recording
from wamlab.data.manifest import DataError, check_open
from wamlab.data.processor import Processor
from wamlab.data.space import difference
from wamlab.data.window import Windows
from wamlab.metrics.open_loop import OTHER_FRAMES
from wamlab.metrics.rivals import Clips, guesses
from wamlab.models.base import Refusal
from wamlab.policy.history import History
from wamlab.policy.policy import Policy
from wamlab.policy.raw import FRAMES, INSTRUCTION, RawPrediction
from wamlab.policy.seeds import draw_seed, generators
from wamlab.sim.env import RawObservation
from wamlab.types import (
    ACTION,
    FUTURE,
    IMAGE,
    INVERSE,
    QUERIES,
    STATE,
    Batch,
    Future,
    Guess,
    Likelihood,
    Origin,
    Query,
    Recording,
    Window,
)


def open_loop(
    policy: Policy,
    cache: Cache,
    episodes: Sequence[int],
    states: int,
    *,
    origin: Origin,
    clips: Clips,
    levels: Sequence[float] = (),
    read_as: Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> list[Recording]:
    """``states`` instants of each episode, evenly spread, with guesses and likelihoods.

    An instant has one tick behind it and the whole chunk and all frames ahead; an episode that is
    too short for one is left out.

    Args:
        episodes: places in ``cache.episodes``.
        origin: what training did with these episodes.
        clips: what the rivals are made of; an episode's own clips are not shown to it.
        levels: noise levels of the likelihood; empty for none.
        read_as: what besides the dataset decided what ``cache`` holds: another alignment than it
            declares, frames resized.
        out: a folder for the logs; an instant that is there already is not asked about again.

    Raises:
        DataError: all episodes are too short, or actions or state are not those of the policy.
        LogError: ``out`` holds recordings of another policy, dataset or setting.
    """
    reader = Reader(policy, cache, seed, np.asarray(levels, np.float64))
    if out is not None:
        check_open(Path(out))
        who = {"policy": policy.name, "weights": policy.digest, "dataset": cache.dataset}
        how = {"states": states, "levels": [float(x) for x in levels], "seed": seed}
        claim(out, "recordings", {**who, **how, **(read_as or {})})
    found: list[Recording] = []
    for place in tqdm(episodes, desc="recorded episodes", disable=not progress):
        steps = reader.steps(place, states)
        index = cache.episodes[place].index
        stored = [None if out is None else load_recording(out, index, step) for step in steps]
        made = [one for one in stored if one is not None]
        if len(made) < len(steps):
            made = list(reader.recordings(place, steps, origin, clips.without(index)))
        if out is not None and None in stored:
            for one in made:
                save_recording(out, one)
        found += made
    if not found:
        raise DataError(
            f"no episode of {cache.path} is long enough: an instant needs {1 + reader.reach} ticks"
        )
    return found


@dataclass
class Reader:
    """Instants of one decoded dataset as one policy's questions."""

    policy: Policy
    cache: Cache
    seed: int
    levels: Float[np.ndarray, " l"]
    windows: Windows = field(init=False)

    def __post_init__(self) -> None:
        space, theirs = self.policy.space, self.cache.space
        if theirs is None:
            raise DataError(f"the policy speaks {space.names}, the dataset has no actions")
        if differ := difference(space, theirs):
            raise DataError(f"the policy and the dataset differ in the {differ} of actions")
        self._check_state()
        self.windows = Windows(self.cache, self._window())

    def _check_state(self) -> None:
        """Raise DataError where the state has other names; a foreign processor knows none."""
        processor, stored = self.policy.processor, self.cache.state_names
        named = processor.config.state_names if isinstance(processor, Processor) else ()
        if named and stored and named != stored:
            both = f"{list(named)} and {list(stored)}"
            raise DataError(f"the policy and the dataset differ in the names of the state: {both}")

    @property
    def reach(self) -> int:
        """How many ticks ahead of an instant must have been recorded."""
        return max([self.policy.chunk, *self.policy.offsets])

    def steps(self, place: int, states: int) -> list[int]:
        """Instants of an episode (places of its observations), evenly spread."""
        stride = self.windows.stride
        last = int(self.cache.lengths[place]) - 1 - stride * self.reach
        if last < stride:
            return []
        return np.unique(np.linspace(stride, last, states).round().astype(int)).tolist()

    def recordings(
        self, place: int, steps: Sequence[int], origin: Origin, clips: Clips
    ) -> Iterator[Recording]:
        """What was recorded at these instants, what is guessed there, and how likely it was."""
        batch, info = self._batch(place, steps), self.cache.episodes[place]
        seeds = [draw_seed(self.seed, info.index, step) for step in steps]
        chunk = batch[ACTION].at(*range(self.policy.chunk)).values
        self.policy.space.check(chunk, f"action of episode {info.index}")
        answers = {q: self._ask(q, batch, chunk, seeds) for q in self._queries()}
        likelihoods = {q: self._likelihood(q, batch, seeds) for q in answers}
        named = {str(q): answer for q, answer in answers.items()}
        if INVERSE in answers and len(steps) > 1:
            named[OTHER_FRAMES] = self._ask(INVERSE, batch, chunk, seeds, later=1)
        scale = self._scale()
        for row, step in enumerate(steps):
            one = Recording(
                env=info.env,
                instruction=info.task,
                episode=info.index,
                step=step,
                origin=origin,
                now=_frames(batch, row, [0]),
                state=self._state(batch, row),
                action=chunk[row],
                action_names=self.policy.space.names,
                action_unit=self.policy.space.unit,
                action_scale=scale,
                offsets=np.array(self.policy.offsets, np.int64),
                ahead=_frames(batch, row, self.policy.offsets),
                guesses={name: self._guess(answer, row) for name, answer in named.items()},
                likelihood={
                    str(q): found.select([row]) for q, found in likelihoods.items() if found
                },
                policy=self.policy.name,
            )
            last = batch[ACTION].at(-1).values[row, 0]
            one.rivals = guesses(one, last, self.policy.space, clips)
            yield one

    def _window(self) -> Window:
        """All that the policy may look back on, all that it is judged by, and what it trains on."""
        past = range(-max(self.policy.depth, 1), 0)
        model = self.policy.model
        streams: dict[str, set[int]] = {
            name: {*past, 0, *model.config.offsets} for name in model.config.image_streams
        }
        if STATE in self.cache.columns:
            streams[STATE] = {*past, 0}
        streams[ACTION] = {*past, *range(model.config.chunk)}
        for stage in model.stages():
            if stage.window.anchor == "fixed":
                for name, offsets in stage.window.streams.items():
                    streams.setdefault(name, set()).update(offsets)
        ticks = {name: tuple(sorted(offsets)) for name, offsets in streams.items()}
        return Window(ticks, rate_hz=model.config.rate_hz)

    def _batch(self, place: int, steps: Sequence[int]) -> Batch:
        episode, now = self.windows.anchors.T
        rows = np.flatnonzero((episode == place) & np.isin(now, steps))
        return self.windows.batch(rows)

    def _queries(self) -> list[Query]:
        return [query for query in QUERIES.values() if query in self.policy.model.queries]

    def _ask(
        self,
        query: Query,
        batch: Batch,
        chunk: Float[np.ndarray, "b h a"],
        seeds: list[int],
        later: int = 0,
    ) -> RawPrediction:
        """The answer at every row; where the model refuses, an empty one that says why.

        A given future is that of the instant ``later`` rows on, around the end.
        """
        given: dict[str, Any] = {}
        if ACTION in query.given:
            given["action"] = chunk
        if FUTURE in query.given:
            given["future"] = self._recorded_future(batch, later)
        rows = range(len(batch))
        histories = [self._history(batch, row) for row in rows]
        try:
            return self.policy.query(
                [_observation(batch, row, 0) for row in rows],
                query,
                seed=seeds,
                histories=histories,
                **given,
            )
        except Refusal as refusal:
            return RawPrediction(undecoded=str(refusal))

    def _recorded_future(self, batch: Batch, later: int) -> Future:
        streams = self.policy.model.config.image_streams
        ahead = {name: batch[name].at(*self.policy.offsets) for name in streams}
        values = {name: np.roll(stream.values, -later, axis=0) for name, stream in ahead.items()}
        return Future(FRAMES, "uint8", values, next(iter(ahead.values())).offsets)

    def _history(self, batch: Batch, row: int) -> History:
        past = History(self.policy.depth)
        for offset in range(-self.policy.depth, 0):
            action = batch[ACTION].at(offset)
            if action.present[row, 0]:
                past.push(_observation(batch, row, offset), action.values[row, 0])
        return past

    @torch.no_grad()
    def _likelihood(self, query: Query, batch: Batch, seeds: list[int]) -> Likelihood | None:
        if not len(self.levels):
            return None
        ready = self.policy.processor.normalize(batch.to(self.policy.device))
        draws = generators([draw_seed(s, 1) for s in seeds], len(batch), 1, torch.device("cpu"))
        levels = torch.from_numpy(self.levels)
        try:
            found = self.policy.model.likelihood(ready, query, levels=levels, generator=draws)
        except Refusal:
            return None
        return type(found)(**{name: value.cpu().numpy() for name, value in vars(found).items()})

    def _guess(self, answer: RawPrediction, row: int) -> Guess:
        guess = Guess(why_not=answer.undecoded, calls=answer.cost.calls, ms=answer.cost.ms)
        if answer.action is not None:
            guess.action = answer.action.values[row][answer.action.present[row]]
        elif answer.waypoints is not None:
            guess.why_not = "it plans waypoints, not actions"
        frames, offsets = answer.frames(row), answer.frame_offsets(row)
        if frames is not None and offsets is None:
            guess.why_not = "the imagined future is unclocked: no frame belongs to a step"
        elif frames is not None and offsets is not None:
            kept = np.isin(offsets, self.policy.offsets)
            guess.imagined = {view: shots[kept] for view, shots in frames.items()}
            guess.offsets = offsets[kept]
        return guess

    def _scale(self) -> Float[np.ndarray, " a"]:
        """Raw units of one normalised unit; 0 where the training actions are constant."""
        ends = torch.tensor([[0.0], [1.0]]).expand(2, self.policy.space.size)
        raw = self.policy.processor.denormalize_action(ends)
        return (raw[1] - raw[0]).double().numpy()

    def _state(self, batch: Batch, row: int) -> Float[np.ndarray, " s"]:
        return batch[STATE].at(0).values[row, 0] if STATE in batch else np.zeros(0, np.float32)


def _observation(batch: Batch, row: int, offset: int) -> RawObservation:
    seen = [name for name in batch.streams if name == STATE or name.startswith(IMAGE)]
    values = {name: batch[name].at(offset).values[row, 0] for name in seen}
    return {**values, INSTRUCTION: batch.text.sentences[row]}


def _frames(batch: Batch, row: int, offsets: Sequence[int]) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(IMAGE): stream.at(*offsets).values[row]
        for name, stream in batch.streams.items()
        if name.startswith(IMAGE)
    }
