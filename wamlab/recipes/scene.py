"""`scene`: ten tasks in one scene, where nothing but the instruction says what to do.

Drawer, window, two buttons, and cubes that go to places (OGBench's scene, `wamlab.sim.ogbench`).
The suites ``scene-held-out``, ``scene-chains-2`` and ``scene-chains-3`` judge what was learned
here on combinations and chains that no demonstration shows; ``rollout.sentence`` says the right
thing, a paraphrase, the ``swapped`` sentence of another task, or the ``empty`` one. Sizes and
times are for two CPU cores.
"""

from __future__ import annotations

import dataclasses

from wamlab.recipes.run import DataConfig, ProbeConfig, RolloutConfig, Run, small
from wamlab.train.optim import OptimConfig
from wamlab.train.trainer import TrainConfig


def run(model: str) -> Run:
    """The run of any model: its `small` configuration on this robot, thirty minutes of training."""
    views = ("front", "wrist")
    on_robot = dataclasses.replace(
        small(model), views=views, state_dim=6, action_dim=5, rate_hz=20.0
    )
    return Run(
        recipe=f"scene/{model}",
        system=model,
        model=on_robot,
        data=DataConfig(envs=("scene",), episodes=40),
        train=TrainConfig(
            minutes=30.0,
            batch_size=32,
            keep_log_spaced=4,
            optim=OptimConfig(lr=1.5e-3, ema=0.995, warmup_steps=200),
        ),
        rollout=RolloutConfig(episodes=20, execute_steps=4),
        probe=ProbeConfig(states=10, samples=4),
    )
