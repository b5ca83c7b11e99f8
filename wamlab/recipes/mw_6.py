"""`mw-6`: six Meta-World tasks that cannot be solved blind: success there says the model sees.

Sizes and times are for two CPU cores.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from wamlab.recipes.run import DataConfig, ProbeConfig, RolloutConfig, Run, small
from wamlab.train.optim import OptimConfig
from wamlab.train.trainer import TrainConfig

MINUTES = {"vpp": 30.0, "unipi": 30.0}
"""Of training, where a model has a video stage before the one that acts; all others take twenty."""

CHANGED: dict[str, dict[str, Any]] = {"unipi": {"inverse_reach": 3}}
"""Fields of `small` that are another here: the steps beside tell how a motion began."""


def run(model: str) -> Run:
    """The run of any model: `small` but for `CHANGED`, twenty minutes of training or `MINUTES`."""
    return Run(
        recipe=f"mw-6/{model}",
        system=model,
        model=dataclasses.replace(small(model), **CHANGED.get(model, {})),
        data=DataConfig(envs=("mw-6",), episodes=40),
        train=TrainConfig(
            minutes=MINUTES.get(model, 20.0),
            batch_size=32,
            keep_log_spaced=4,
            optim=OptimConfig(lr=1.5e-3, ema=0.995, warmup_steps=200),
        ),
        rollout=RolloutConfig(episodes=20, execute_steps=8),
        probe=ProbeConfig(states=10, samples=4),
    )
