"""Training windows as the rivals need them: spread evenly over each task."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from jaxtyping import Int

from wamlab.data.cache import Cache
from wamlab.data.manifest import DataError
from wamlab.data.mixture import concatenate
from wamlab.data.window import Windows
from wamlab.metrics.rivals import Clips
from wamlab.models.base import ModelConfig
from wamlab.types import ACTION, IMAGE, Window


def clips_of(
    caches: Sequence[Cache],
    config: ModelConfig,
    *,
    most: int = 400,
    envs: Collection[str] = (),
    without: Sequence[Collection[int]] = (),
) -> Clips:
    """Windows with a whole chunk and all frames ahead, at most ``most`` of each task.

    Args:
        envs: the tasks (none named: all).
        without: of each dataset the episodes that no rival may know.

    Raises:
        DataError: no window of these tasks is that long.
    """
    streams: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(config.image_streams, (0, *config.offsets)),
        ACTION: tuple(range(config.chunk)),
    }
    window = Window(streams, rate_hz=config.rate_hz)
    hidden = without or [()] * len(caches)
    sources = [
        Windows(cache, window, without=known) for cache, known in zip(caches, hidden, strict=True)
    ]
    reach = max([config.chunk, *config.offsets])
    tasks: dict[str, list[tuple[int, int]]] = {}
    for place, source in enumerate(sources):
        for env, rows in _whole(source, reach):
            tasks.setdefault(env, []).extend((place, int(row)) for row in rows)
    wanted = [env for env in tasks if env in envs] if envs else [*tasks]
    chosen = [
        tasks[env][i]
        for env in wanted
        for i in np.linspace(0, len(tasks[env]) - 1, min(most, len(tasks[env]))).astype(int)
    ]
    if not chosen:
        where = ", ".join(sorted(envs)) or "any task"
        raise DataError(f"no window of {where} has {reach} ticks of its episode ahead")
    return _clips(sources, np.array(chosen, np.int64).reshape(-1, 2), config)


def _whole(source: Windows, reach: int) -> Iterator[tuple[str, Int[np.ndarray, " r"]]]:
    """By task, the rows with ``reach`` ticks of their episode ahead."""
    episode, now = source.anchors.T
    whole = now + source.stride * reach < source.cache.lengths[episode]
    names = np.asarray([info.env for info in source.cache.episodes])[episode]
    for env in dict.fromkeys(names[whole].tolist()):
        yield env, np.flatnonzero(whole & (names == env))


def _clips(
    sources: Sequence[Windows], chosen: Int[np.ndarray, "n 2"], config: ModelConfig
) -> Clips:
    """The windows of (source, row), source by source."""
    rows = [chosen[chosen[:, 0] == place, 1] for place in range(len(sources))]
    batch = concatenate([source.batch(r) for source, r in zip(sources, rows, strict=True)])
    episodes = [
        source.cache.episodes[e]
        for source, r in zip(sources, rows, strict=True)
        for e in source.anchors[r, 0]
    ]
    views = {name.removeprefix(IMAGE): batch[name] for name in config.image_streams}
    return Clips(
        env=[info.env for info in episodes],
        offsets=config.offsets,
        first={view: stream.at(0).values[:, 0] for view, stream in views.items()},
        future={view: stream.at(*config.offsets).values for view, stream in views.items()},
        action=batch[ACTION].values,
        episode=[info.index for info in episodes],
    )
