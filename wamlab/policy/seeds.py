"""Every random draw of a run has its own generator, found again from a few numbers."""

from __future__ import annotations

import numpy as np
import torch


def draw_seed(*parts: int) -> int:
    """One 63-bit seed out of several integers; every order and length gives another."""
    if any(part < 0 for part in parts):
        raise ValueError(f"seeds are not negative: {parts}")
    words = np.random.SeedSequence([len(parts), *parts]).generate_state(2, np.uint32)
    return int(words[0]) << 31 ^ int(words[1])


def generators(
    seed: int | list[int], rows: int, samples: int, device: torch.device
) -> list[torch.Generator]:
    """One generator per row and sample, rows outermost.

    A list gives every row its own seed, whatever its place in the batch; a single number is
    combined with the row's place. The first sample of a row does not depend on how many follow.

    Raises:
        ValueError: a list of another length than ``rows``.
    """
    seeds = seed if isinstance(seed, list) else [draw_seed(seed, row) for row in range(rows)]
    if len(seeds) != rows:
        raise ValueError(f"{len(seeds)} seeds for {rows} observations")
    return [
        torch.Generator(device).manual_seed(draw_seed(one, sample))
        for one in seeds
        for sample in range(samples)
    ]
