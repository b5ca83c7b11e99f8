"""What one answer takes: network calls, counted by hooks, and milliseconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from wamlab.types import Cost


@contextmanager
def count_calls(model: nn.Module) -> Iterator[Cost]:
    """Count the forward calls of ``model.networks``, of its one ``network``, or else of itself.

    The yielded `Cost` holds the calls so far, and the milliseconds once the block is left. A model
    that reaches its parameters in neither way counts 0 calls here; `Policy.query` then takes the
    number that the model reports itself.
    """
    cost = Cost()
    network = getattr(model, "network", None)
    one = network if isinstance(network, nn.Module) else model
    counted: tuple[nn.Module, ...] = getattr(model, "networks", (one,))

    def count(*_: object) -> None:
        cost.calls += 1

    handles = [each.register_forward_hook(count) for each in counted]
    begin = time.perf_counter()
    try:
        yield cost
    finally:
        for handle in handles:
            handle.remove()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        cost.ms = 1000 * (time.perf_counter() - begin)
