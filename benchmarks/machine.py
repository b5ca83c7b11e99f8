"""The machine as a measurement sees it: its threads, and who else is busy."""

from __future__ import annotations

import os
from typing import Any

from wamlab.cli.main import set_environment

set_environment()  # before anything imports torch: a measurement runs in the environment of `wam`

IDLE = 0.5
"""The load per core up to which a machine counts as idle."""


def state() -> dict[str, Any]:
    """Threads of this process and the load of the last minute."""
    import torch

    return {
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "idle": is_idle(),
    }


def is_idle() -> bool:
    return os.getloadavg()[0] <= IDLE * (os.cpu_count() or 1)
