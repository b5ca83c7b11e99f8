"""Which rows a training step reads: a pure function of the seed and the step.

Epoch by epoch every source gives its share of rows; within a source each row is read once before
any is read again. Nothing is remembered between steps, so resuming needs the step alone.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Int

from wamlab.data.window import Windows
from wamlab.types import ROLES, Batch, Stream, Text


class Mixture:
    """A deterministic sampler over several sources of windows.

    Args:
        weights: each source's share of the rows drawn; default: in proportion to their sizes.

    Raises:
        ValueError: no source, or weights that do not fit the sources.
    """

    def __init__(
        self,
        windows: Sequence[Windows],
        weights: Sequence[float] | None = None,
        *,
        seed: int,
        batch_size: int,
    ) -> None:
        sizes = np.asarray([len(source) for source in windows])
        share = sizes / sizes.sum() if weights is None else np.asarray(weights, np.float64)
        if not len(windows) or len(share) != len(windows) or (share <= 0).any():
            raise ValueError(f"{len(windows)} sources need as many weights above 0, got {weights}")
        self.windows, self.seed, self.batch_size = tuple(windows), seed, batch_size
        self._quota = np.maximum(1, np.rint(share / share.sum() * sizes.sum())).astype(int)
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    @property
    def epoch_size(self) -> int:
        """Rows of one epoch, over all sources."""
        return int(self._quota.sum())

    def rows(self, step: int) -> Int[np.ndarray, "b 2"]:
        """Source and row within it, for every row of the batch of ``step``."""
        draw = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = np.divmod(draw, self.epoch_size)
        parts = [self._epoch(int(e))[places[epochs == e]] for e in np.unique(epochs)]
        rows = np.concatenate(parts)
        return rows[np.argsort(rows[:, 0], kind="stable")]

    def batch(self, step: int) -> Batch:
        """The batch of ``step`` in raw units, grouped by source."""
        rows = self.rows(step)
        rng = np.random.default_rng([self.seed, step])
        parts = [
            self.windows[source].batch(rows[rows[:, 0] == source, 1], rng)
            for source in np.unique(rows[:, 0])
        ]
        return concatenate(parts)

    def shares(self) -> dict[str, float]:
        """The share of drawn rows that may teach each role, over the first epoch."""
        rows = self._epoch(0)
        bits = [self.windows[s].role[rows[rows[:, 0] == s, 1]] for s in range(len(self.windows))]
        return dict(zip(ROLES, np.concatenate(bits).mean(axis=0).tolist(), strict=True))

    def _draw_epoch(self, epoch: int) -> Int[np.ndarray, "rows 2"]:
        parts = [self._stream(source, epoch) for source in range(len(self.windows))]
        order = np.random.default_rng([self.seed, 1, epoch]).permutation(self.epoch_size)
        return np.concatenate(parts)[order]

    def _stream(self, source: int, epoch: int) -> Int[np.ndarray, "quota 2"]:
        """This epoch's piece of a source's endless sequence of permutations."""
        size, quota = len(self.windows[source]), int(self._quota[source])
        first, last = epoch * quota, (epoch + 1) * quota
        passes = range(first // size, (last - 1) // size + 1)
        shuffled = [
            np.random.default_rng([self.seed, 0, source, turn]).permutation(size) for turn in passes
        ]
        rows = np.concatenate(shuffled)[first - passes[0] * size : last - passes[0] * size]
        return np.stack([np.full(quota, source), rows], axis=1)


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Several numpy batches as one.

    Raises:
        ValueError: they do not hold the same streams in the same shapes.
    """
    first = batches[0]
    if len(batches) == 1:
        return first
    for other in batches[1:]:
        if set(other.streams) != set(first.streams):
            odd = sorted(set(other.streams) ^ set(first.streams))
            raise ValueError(f"batches hold different streams: {odd}")
    join = lambda pick: np.concatenate([pick(batch) for batch in batches])  # noqa: E731
    return dataclasses.replace(
        first,
        streams={name: _join_streams(name, [b[name] for b in batches]) for name in first.streams},
        text=Text([sentence for batch in batches for sentence in batch.text.sentences]),
        role=join(lambda batch: batch.role),
        rate=join(lambda batch: batch.rate),
        embodiment=[name for batch in batches for name in batch.embodiment],
    )


def _join_streams(name: str, streams: Sequence[Stream]) -> Stream:
    shapes = {tuple(stream.values.shape[1:]) for stream in streams}
    if len(shapes) > 1:
        raise ValueError(f"stream {name!r} has different shapes: {sorted(shapes)}")
    return Stream(
        np.concatenate([stream.values for stream in streams]),
        np.concatenate([stream.offsets for stream in streams]),
        np.concatenate([stream.present for stream in streams]),
    )


class Loader:
    """Batches of a mixture in order of the steps, read ahead by one thread.

    ``wait_s`` is how long the reader of this iterator has waited for data in all. An error in the
    thread is raised where the batch would have come.

    Args:
        prepare: applied to each batch in the thread (to tensors, to pinned memory).
    """

    def __init__(
        self,
        mixture: Mixture,
        start_step: int = 0,
        *,
        ahead: int = 2,
        prepare: Callable[[Batch], Batch] | None = None,
    ) -> None:
        self.wait_s = 0.0
        self._stop = threading.Event()
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=ahead)
        self._thread = threading.Thread(
            target=self._read, args=(mixture, start_step, prepare), daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._stop.is_set():
            raise StopIteration
        start = time.perf_counter()
        item = self._queue.get()
        self.wait_s += time.perf_counter() - start
        if isinstance(item, BaseException):
            self.close()
            raise item
        return item

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading ahead."""
        self._stop.set()
        self._thread.join()

    def _read(self, mixture: Mixture, step: int, prepare: Callable[[Batch], Batch] | None) -> None:
        while not self._stop.is_set():
            try:
                item: Any = mixture.batch(step)
                item = prepare(item) if prepare is not None else item
            except BaseException as error:
                item = error
            self._put(item)
            if isinstance(item, BaseException):
                return
            step += 1

    def _put(self, item: Any) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
