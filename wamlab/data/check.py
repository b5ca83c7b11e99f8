"""What is wrong with a dataset: every fault that can be found without training on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from wamlab.config import nearest
from wamlab.data import video
from wamlab.data.align import AlignmentResult, check_alignment
from wamlab.data.lerobot import ACTION_COLUMN, STATE_COLUMN, Alignment, Dataset, verify
from wamlab.data.manifest import MANIFEST, DataError, Problem
from wamlab.types import ActionSpace

TIMESTAMP_TOLERANCE_S = 1e-4


def check(
    path: str | Path,
    *,
    views: Sequence[str] = (),
    alignment: Alignment | None = None,
    videos: bool = True,
    progress: bool = True,
) -> list[Problem]:
    """All problems of a dataset, the worst first; an empty list means that none was found.

    Args:
        views: views that a reader is going to want.
        alignment: override of the declared alignment.
        videos: decode every video (the slow part).
    """
    path = Path(path)
    problems = verify(path) if (path / MANIFEST).exists() else []
    if not problems and not (path / "meta/info.json").is_file():
        return [Problem("error", "meta/info.json", "is missing", "a LeRobot dataset")]
    try:
        dataset = Dataset(path, alignment=alignment)
    except DataError as error:
        return problems or [Problem("error", str(path), str(error), "a readable LeRobot dataset")]
    problems += [Problem("warning", "meta/info.json", note) for note in dataset.notes]
    problems += [
        Problem("error", "views", f"there is no {view!r}{nearest(view, dataset.views)}")
        for view in views
        if view not in dataset.views
    ]
    if not len(dataset):
        problems.append(Problem("error", str(path), "holds no episode"))
    bar = tqdm(range(len(dataset)), desc="checking episodes", disable=not progress, delay=2.0)
    for index in bar:
        problems += _check_episode(dataset, index, videos)
    problems += _duplicates(dataset) + _misaligned(dataset)
    return sorted(problems, key=lambda problem: problem.severity)


def alignment_of(dataset: Dataset, episodes: int = 50) -> AlignmentResult:
    """The alignment self-test over the first readable episodes of a dataset."""
    states, actions = [], []
    if {STATE_COLUMN, ACTION_COLUMN} <= set(dataset.columns):
        for index, info in enumerate(dataset.episodes[:episodes]):
            if info.length > 1:
                try:
                    state = dataset.column(STATE_COLUMN, index)
                    action = dataset.actions(dataset.column(ACTION_COLUMN, index))
                except DataError:
                    continue
                if np.isfinite(state).all() and np.isfinite(action).all():
                    states.append(state.reshape(len(state), -1))
                    actions.append(action.reshape(len(action), -1))
    return check_alignment(states, actions)


def _check_episode(dataset: Dataset, index: int, videos: bool) -> list[Problem]:
    where = f"episode {dataset.episodes[index].index}"
    if dataset.episodes[index].length == 0:
        return [Problem("error", where, "has no rows", "at least two")]
    problems = _try(where, partial(_check_columns, dataset, index, where))
    if problems and "rows" in problems[0].what:
        return problems
    for view in dataset.views if videos else ():
        problems += _try(where, partial(_check_view, dataset, index, view, where))
    return problems


def _try(where: str, look: Callable[[], Iterable[Problem]]) -> list[Problem]:
    """What looking finds, or the reason why one cannot look."""
    try:
        return [*look()]
    except (DataError, KeyError) as error:
        return [Problem("error", where, str(error.args[0]))]


def _check_columns(dataset: Dataset, index: int, where: str) -> Iterator[Problem]:
    for name in dataset.columns:
        values = dataset.column(name, index)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
            yield Problem("error", where, f"{name} has NaN or infinity in row {bad.argmax()}")
        elif name == ACTION_COLUMN and dataset.space is not None:
            yield from _check_actions(dataset.space, dataset.actions(values), where)
    frame = dataset.column("frame_index", index).reshape(-1)
    if not np.array_equal(frame, np.arange(len(frame))):
        yield Problem("error", where, "frame_index does not count 0, 1, 2 ...: rows are missing")
    time = dataset.column("timestamp", index).reshape(-1)
    if (away := np.abs(time - frame / dataset.fps).max()) > TIMESTAMP_TOLERANCE_S:
        yield Problem(
            "warning", where, f"timestamps are up to {away:.4f} s off", f"{dataset.fps:g} per s"
        )


def _check_actions(
    space: ActionSpace, actions: Float[np.ndarray, "n a"], where: str
) -> Iterator[Problem]:
    try:
        space.check(actions)
    except ValueError as error:
        yield Problem("error", where, str(error), "actions within the space")
        return
    if not space.declared and (beyond := space.beyond(actions)):
        what = f"action goes beyond the extremes of the dataset's statistics in {beyond}"
        yield Problem("error", where, what, f"{space.low} to {space.high}")


def _check_view(dataset: Dataset, index: int, view: str, where: str) -> Iterator[Problem]:
    frames = dataset.frames(view, index)
    length = dataset.episodes[index].length
    if len(frames) != length:
        yield Problem("error", where, f"view {view!r} has {len(frames)} frames", f"{length}")
    if len(frames) > 1 and (frames == frames[0]).all():
        yield Problem("warning", where, f"view {view!r} shows one and the same frame throughout")
    own_file = dataset.clip_file(view, index)
    if own_file is not None and dataset.sole_user(own_file):
        count = video.frame_count(dataset.path / own_file)
        if abs(count - length) > 1:
            yield Problem("error", own_file, f"holds {count} frames", f"{length} +- 1")


def _duplicates(dataset: Dataset) -> list[Problem]:
    problems: list[Problem] = []
    seen: dict[tuple[str, str], int] = {}
    for index, info in enumerate(dataset.episodes):
        try:
            columns = [dataset.column(name, index) for name in dataset.columns]
        except DataError:
            continue
        content = b"".join(np.ascontiguousarray(values).tobytes() for values in columns)
        key = (info.task, hashlib.sha256(content).hexdigest())
        if info.length and key in seen:
            what = f"has the same states and actions as episode {seen[key]}"
            problems.append(Problem("warning", f"episode {info.index}", what))
        seen.setdefault(key, info.index)
    return problems


def _misaligned(dataset: Dataset) -> list[Problem]:
    result = alignment_of(dataset)
    if result.ok is False:
        what = f"actions are {result}"
        if result.best is not None and result.best > 0:
            why = f"{what}: the controller waits, or columns are shifted"
            return [Problem("warning", "alignment", why, "lag 0")]
        return [Problem("error", "alignment", what, f"lag 0 as {dataset.alignment} declares")]
    if result.ok is None and len(dataset):
        return [Problem("warning", "alignment", str(result), "lag 0")]
    return []
