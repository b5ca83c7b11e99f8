"""`own-data`: a LeRobot dataset of your own; views, sizes and rate are read from it.

There is no simulator: `wam eval --dataset` judges the model on the episodes that are held out.
Sizes and times are for two CPU cores.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wamlab.data.lerobot import Dataset
from wamlab.data.manifest import DataError
from wamlab.recipes.run import DataConfig, Run, small
from wamlab.train.optim import OptimConfig
from wamlab.train.trainer import TrainConfig

HELD_OUT = 0.1
VALIDATE_EVERY = 250


def run(model: str) -> Run:
    """The run of any model: its `small` configuration, twenty minutes of training.

    Frames of any size are resized to the model's square.
    """
    return Run(
        recipe=f"own-data/{model}",
        system=model,
        model=small(model),
        data=DataConfig(envs=(), resize=True),
        train=TrainConfig(
            minutes=20.0,
            batch_size=32,
            optim=OptimConfig(lr=1.5e-3, ema=0.995, warmup_steps=100),
        ),
    )


def fit(run: Run, data: Sequence[str | Path]) -> Run:
    """The run with the views, sizes and rate of these datasets, and with episodes held out.

    The last tenth of each task's episodes is held out, at least one; of a task that has only one,
    none.

    Raises:
        DataError: no view, state or action, or datasets that do not agree.
    """
    datasets = [Dataset(path) for path in data]
    for dataset in datasets:
        _check_whole(dataset)
    views = [v for v in datasets[0].views if all(v in other.views for other in datasets)]
    if not views:
        raise DataError(f"no view is common to {', '.join(str(d.path) for d in datasets)}")
    held_out = HELD_OUT if any(map(_repeats, datasets)) else 0
    model = dataclasses.replace(
        run.model,
        views=tuple(views),
        state_dim=_common(datasets, "state size", lambda d: len(d.state_names)),
        action_dim=_common(datasets, "action size", lambda d: d.space.size if d.space else 0),
        rate_hz=_common(datasets, "rate", lambda d: d.fps),
    )
    train = dataclasses.replace(run.train, validate_every=VALIDATE_EVERY if held_out else 0)
    kept = dataclasses.replace(run.data, held_out=held_out)
    return dataclasses.replace(run, model=model, data=kept, train=train)


def _check_whole(dataset: Dataset) -> None:
    parts = {
        "view": dataset.views,
        "observation.state": dataset.state_names,
        "action": dataset.space,
    }
    if missing := [name for name, part in parts.items() if not part]:
        raise DataError(f"{dataset.path} has no {missing[0]}, or no statistics of it")


def _repeats(dataset: Dataset) -> bool:
    """Whether some task has an episode to spare."""
    return max(Counter(info.env for info in dataset.episodes).values(), default=0) > 1


def _common(datasets: Sequence[Dataset], what: str, of: Callable[[Dataset], Any]) -> Any:
    values = {of(dataset) for dataset in datasets}
    if len(values) > 1:
        raise DataError(f"the datasets differ in {what}: {sorted(values)}")
    return values.pop()
