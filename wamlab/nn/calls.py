"""The call audit of a sampler: what enters the network, call by call, by parameter name."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class CallLog:
    """The tensors that entered a network, call by call, by the names of its parameters."""

    calls: list[dict[str, Tensor]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.calls)

    @property
    def stepped(self) -> set[str]:
        """What changed from one call to the next."""
        return {name for name in self.names if not self._constant(name)}

    @property
    def held(self) -> set[str]:
        """What stayed bit-identical over all calls."""
        return {name for name in self.names if self._constant(name)}

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for call in self.calls for name in call))

    def levels(self, name: str) -> list[float]:
        """The one number that ``name`` held in each call (a noise label).

        Raises:
            ValueError: a call in which the rows differ.
        """
        numbers = []
        for call in self.calls:
            values = call[name].unique()
            if len(values) != 1:
                raise ValueError(f"{name} holds {len(values)} different numbers in one call")
            numbers.append(float(values))
        return numbers

    def _constant(self, name: str) -> bool:
        seen = [call.get(name) for call in self.calls]
        first = seen[0]
        return first is not None and all(x is not None and torch.equal(first, x) for x in seen)


@contextmanager
def record_calls(network: nn.Module) -> Iterator[CallLog]:
    """Record what enters ``network`` while a sampler runs: what is stepped, held, at which label.

    Tensors inside dictionaries or dataclasses get dotted names.
    """
    log, signature = CallLog(), inspect.signature(network.forward)

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = signature.bind(*args, **kwargs).arguments
        log.calls.append(
            {name: tensor.detach().clone() for name, tensor in flat_tensors(bound).items()}
        )

    handle = network.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield log
    finally:
        handle.remove()


def flat_tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    """Every tensor of a structure by dotted name."""
    if isinstance(value, Tensor):
        return {name: value}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        value = {str(i): part for i, part in enumerate(value)}
    if not isinstance(value, Mapping):
        return {}
    flat: dict[str, Tensor] = {}
    for key, part in value.items():
        flat |= flat_tensors(part, f"{name}.{key}" if name else str(key))
    return flat
