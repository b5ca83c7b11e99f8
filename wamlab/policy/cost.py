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
    """Count the forward calls of ``model.network``, or of the model itself where it names none.

    The yielded `Cost` holds the calls so far, and the milliseconds once the block is left. A model
    that reaches its parameters in neither way counts 0 calls here; `Policy.query` then takes the
    number that the model reports itself.
    """
    cost = Cost()
    network = getattr(model, "network", None)
    counted = network if isinstance(network, nn.Module) else model

    def count(*_: object) -> None:
        cost.calls += 1

    handle = counted.register_forward_hook(count)
    begin = time.perf_counter()
    try:
        yield cost
    finally:
        handle.remove()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        cost.ms = 1000 * (time.perf_counter() - begin)
