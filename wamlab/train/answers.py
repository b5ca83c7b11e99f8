"""Answers held to what was promised, and compared row by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from wamlab.models.base import Refusal
from wamlab.nn.audit import Asked, outputs, row_generators
from wamlab.types import ACTION, FUTURE, VALUE, Future, Prediction, Query


def misshapen(model: Any, query: Query, found: Prediction, rows: int) -> Iterator[str]:
    """What is wrong with the shapes, types and numbers of an answer of ``rows`` rows."""
    given = {
        ACTION: found.action if found.waypoints is None else found.waypoints,
        FUTURE: found.future,
        VALUE: found.value,
    }
    for name, part in given.items():
        if (part is not None) != (name in query.sampled):
            yield f"{name} is {'missing' if part is None else 'answered, but was not asked for'}"
    c = model.config
    if found.action is not None:
        yield from _shape(ACTION, found.action.values, (rows, c.chunk, c.action_dim))
        ticks = torch.arange(c.chunk).expand(rows, -1)
        if not torch.equal(found.action.offsets.cpu(), ticks):
            yield f"the offsets of the action are not 0 .. {c.chunk - 1}"
    if found.value is not None:
        yield from _shape(VALUE, found.value, (rows,))
    if found.future is not None:
        yield from _misshapen_future(model, query, found.future, rows)
    for name, tensors in outputs(found).items():
        if not all(bool(torch.isfinite(t).all()) for t in tensors):
            yield f"the {name} is not finite"


def _misshapen_future(model: Any, query: Query, future: Future, rows: int) -> Iterator[str]:
    c, answer = model.config, model.answer(query)
    if future.space != answer.space:
        yield f"the future is in the space {future.space!r}, declared is {answer.space!r}"
    if future.offsets is not None:
        ticks = torch.tensor(c.offsets).expand(rows, -1)
        if not torch.equal(future.offsets.cpu(), ticks):
            yield f"the future's offsets are {future.offsets[0].tolist()}, expected {c.offsets}"
    try:
        frames = model.decode(future)
    except Refusal:
        frames = {} if future.space != "pixels" else None
    if frames is None:
        yield "decode refuses a future in pixels"
    for name, values in (frames or {}).items():
        instants = values.shape[1] if future.offsets is None else len(c.offsets)
        yield from _shape(name, values, (rows, instants, 3, c.image_size, c.image_size))


def _shape(name: str, values: Tensor, expected: tuple[int, ...]) -> Iterator[str]:
    if tuple(values.shape) != expected:
        yield f"{name} has shape {tuple(values.shape)}, expected {expected}"


def mixed(one: Asked, other: Asked) -> Asked:
    """Row 0 of one question among the further rows of another."""
    join = lambda a, b: torch.cat([a[:1], b[1:]])  # noqa: E731
    return _zip(one, other, join)


def _zip(one: Any, other: Any, join: Callable[[Tensor, Tensor], Tensor]) -> Any:
    if isinstance(one, Tensor):
        return join(one, other)
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        names = [f.name for f in dataclasses.fields(one)]
        parts = {n: _zip(getattr(one, n), getattr(other, n), join) for n in names}
        return dataclasses.replace(one, **parts)
    if isinstance(one, dict):
        return {key: _zip(one[key], other[key], join) for key in one}
    return one


def alone(model: Any, query: Query, asked: Asked, row: int) -> dict[str, list[Tensor]]:
    pick = lambda part: None if part is None else part.select([row])  # noqa: E731
    found = model.sample(
        asked.observation.select([row]),
        query,
        action=pick(asked.action),
        future=pick(asked.future),
        memory=pick(asked.memory),
        generator=[row_generators(row + 1)[row]],
    )
    return outputs(found)


def row_of(found: dict[str, list[Tensor]], row: int) -> dict[str, list[Tensor]]:
    return {name: [t[row : row + 1] for t in tensors] for name, tensors in found.items()}


def same(one: dict[str, list[Tensor]], two: dict[str, list[Tensor]]) -> bool:
    return all(all(map(torch.equal, one[name], two[name])) for name in one)


def close(one: Tensor, two: Tensor) -> bool:
    return torch.allclose(one, two, rtol=1e-4, atol=1e-4)
