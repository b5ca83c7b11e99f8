"""Fixed synthetic batches for any window and model: seeded, normalised, with every kind of row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from wamlab.models.base import ModelConfig, Stage
from wamlab.types import ACTION, IMAGE, ROLES, STATE, Batch, Role, Stream, Text, Window


def fixed_batch(
    config: ModelConfig,
    windows: Window | Iterable[Window],
    *,
    rows: int = 4,
    seed: int = 0,
    roles: Iterable[Role] = ROLES,
) -> Batch:
    """Everything present, every row may teach ``roles``.

    With several windows, each stream holds the offsets of all of them. Where the anchor is not
    ``fixed``, every row has its own clock, as in real data.
    """
    generator = torch.Generator().manual_seed(seed)
    windows = [windows] if isinstance(windows, Window) else list(windows)
    columns: dict[str, set[int]] = {}
    for window in windows:
        for name, offsets in window.streams.items():
            columns.setdefault(name, set()).update(offsets)
    streams = {
        name: _stream(_draw(config, name, rows, len(columns[name]), generator), columns[name])
        for name in sorted(columns)
    }
    pooled = torch.randn(rows, config.text_dim, generator=generator)
    tokens = torch.randn(rows, 3, config.text_dim, generator=generator)
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)  # noqa: E731
    if any(window.anchor != "fixed" for window in windows):
        pace = torch.arange(1, rows + 1)[:, None]
        for name in (name for name in streams if name != ACTION):
            ticks = streams[name].offsets
            streams[name].offsets = torch.where(ticks > 0, ticks * pace, ticks)
    text = Text(["push it"] * rows, unit(pooled), unit(tokens), torch.ones(rows, 3).bool())
    role = torch.tensor([[r in set(roles) for r in ROLES]]).repeat(rows, 1)
    return Batch(streams, text, role, torch.full((rows,), config.rate_hz), ["arm"] * rows)


def mixed_batch(config: ModelConfig, stage: Stage, step: int, rows: int = 4) -> Batch:
    """A batch of a training run: rows of every role the stage takes, some of them with gaps.

    Row 0 may teach everything. Row 1 is video without actions where the stage takes video, row 2
    teaches neither policy nor video where the stage takes anything else. Row 3 lacks one observed
    stream, another one at each step.
    """
    batch = fixed_batch(config, stage.window, rows=rows, seed=step, roles=stage.roles)
    if "video" in stage.roles:
        batch.role[1] = torch.tensor([role == "video" for role in ROLES])
        if ACTION in batch:
            batch[ACTION].present[1] = False
    if set(stage.roles) & {"forward", "inverse"}:
        batch.role[2] &= torch.tensor([role in ("forward", "inverse") for role in ROLES])
    seen = [name for name in batch.streams if name == STATE or name.startswith(IMAGE)]
    missing = batch[seen[step % len(seen)]]
    missing.present[3, missing.offsets[3] <= 0] = False
    return batch


def without_last_action(batch: Batch) -> Batch:
    """The batch with a NaN where its last action was, absent."""
    stream = batch[ACTION]
    values, present = stream.values.clone(), stream.present.clone()
    values[:, -1], present[:, -1] = torch.nan, False
    shorter = dataclasses.replace(stream, values=values, present=present)
    return dataclasses.replace(batch, streams={**batch.streams, ACTION: shorter})


def fixed_statistics(config: ModelConfig) -> dict[str, dict[str, list[float]]]:
    """Statistics of the values that `fixed_batch` draws: normalised, uniform in [-1, 1]."""
    uniform = {"min": -1.0, "max": 1.0, "q01": -0.98, "q99": 0.98, "mean": 0.0, "std": 3**-0.5}
    sizes = {STATE: config.state_dim, ACTION: config.action_dim}
    return {
        stream: {name: [value] * size for name, value in uniform.items()}
        for stream, size in sizes.items()
    }


def _draw(
    config: ModelConfig, name: str, rows: int, instants: int, generator: torch.Generator
) -> Tensor:
    sizes = {STATE: (config.state_dim,), ACTION: (config.action_dim,)}
    image = (3, config.image_size, config.image_size)
    if name not in sizes and not name.startswith(IMAGE):
        raise KeyError(f"no synthetic values for the stream {name!r}")
    return 2 * torch.rand(rows, instants, *sizes.get(name, image), generator=generator) - 1


def _stream(values: Tensor, offsets: set[int]) -> Stream:
    ticks = torch.tensor(sorted(offsets)).expand(len(values), -1).clone()
    return Stream(values, ticks, torch.ones_like(ticks, dtype=torch.bool))
