"""How a run's steps are shared among its stages, and which of them leave a checkpoint."""

from __future__ import annotations

from wamlab.models.base import Stage

RESERVE = 0.03
"""The share of a budget in minutes that is left for checkpoints and validation."""


def split_steps(steps: int, stages: list[Stage]) -> list[int]:
    """Whole numbers of steps by share, each at least 1, that add up to ``steps``."""
    if steps < len(stages):
        raise ValueError(f"{steps} steps are too few for {len(stages)} stages")
    total = sum(stage.share for stage in stages)
    ends, done = [], 0.0
    for stage in stages:
        done += stage.share
        ends.append(round(steps * done / total))
    parts = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    while min(parts) < 1:
        parts[parts.index(max(parts))] -= 1
        parts[parts.index(min(parts))] += 1
    return parts


def milestones(steps: int, count: int) -> set[int]:
    """The log-spaced steps 1/2, 1/4, ... of ``steps`` whose checkpoints are kept."""
    return {steps >> power for power in range(1, count + 1)} - {0}
