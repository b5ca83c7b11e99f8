"""`mw-demo`: three Meta-World tasks for a first run, from pixels, in minutes.

Door-unlock, window-open and button-press-topdown. The better blind replay solves 32 to 56 % of all
starts (`wamlab.sim.suites.blind_row`). Sizes and times are for two CPU cores.
"""

from __future__ import annotations

import dataclasses

from wamlab.recipes.run import DataConfig, ProbeConfig, RolloutConfig, Run, small, tiny
from wamlab.run.impose import IMPOSED, OTHER_INSTRUCTION
from wamlab.train.optim import OptimConfig
from wamlab.train.trainer import TrainConfig

TASK = "metaworld/door-unlock"


def run(model: str) -> Run:
    """The run of any model: its `small` configuration, 1600 steps of training."""
    return Run(
        recipe=f"mw-demo/{model}",
        system=model,
        model=small(model),
        data=DataConfig(envs=("mw-demo",), episodes=40),
        train=TrainConfig(
            steps=1600,
            batch_size=32,
            optim=OptimConfig(lr=1.5e-3, ema=0.995, warmup_steps=100),
        ),
        rollout=RolloutConfig(episodes=10, execute_steps=8),
        probe=ProbeConfig(states=6, samples=4, imposed=(*IMPOSED, OTHER_INSTRUCTION)),
    )


def quick(model: str) -> Run:
    """The whole way with one task and the `tiny` configuration: a check, not a result."""
    whole = run(model)
    return dataclasses.replace(
        whole,
        model=dataclasses.replace(tiny(model), image_size=whole.model.image_size),
        data=DataConfig(envs=(TASK,), episodes=4),
        train=dataclasses.replace(whole.train, steps=60, batch_size=16),
        rollout=RolloutConfig(episodes=2, execute_steps=8),
        probe=ProbeConfig(states=2, samples=2, imposed=tuple(IMPOSED)),
    )
