"""The machine as a measurement sees it: who else is busy, and one job at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


@contextmanager
def turn(path: Path | None, what: str) -> Iterator[None]:
    """Wait for this process's turn at a lock file (None: do not wait) and hold it.

    The lock is that of flock(1), and dies with the process.
    """
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{what}: waiting for {path}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        print(what, flush=True)
        yield
