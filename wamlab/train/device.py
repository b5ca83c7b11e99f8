"""Where a model runs."""

from __future__ import annotations

import torch

from wamlab.config import nearest


def choose_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one.

    Raises:
        ValueError: ``cuda`` was asked for and is not there, or no such kind of device.
    """
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"no device {name!r}{nearest(name, ('auto', 'cpu', 'cuda'))}")
    if name.startswith("cuda") and not there:
        raise ValueError(f"device {name!r} was asked for, but this machine has only the CPU")
    return torch.device(name)
