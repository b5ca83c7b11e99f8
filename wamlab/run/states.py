"""Probing many states: environment by environment, start by start, from wherever the logs stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wamlab.config import nearest
from wamlab.data.logs import claim, read_probes, save_probe
from wamlab.data.manifest import check_open
from wamlab.sim.env import Split, start_seed
from wamlab.types import STRATA, Probe

TAKEN = ("free", "before", "contact")
"""The strata that take turns unless others are asked for."""

ProbeOne = Callable[[int, str], Probe]
"""From a start seed and the wanted stratum to the probe of one state."""


def each_state(
    names: Sequence[str],
    states: int,
    open_bench: Callable[[str], AbstractContextManager[ProbeOne]],
    *,
    made_by: Mapping[str, Any],
    strata: Sequence[str] = TAKEN,
    split: Split = "evaluation",
    start: int = 0,
    out: str | Path | None = None,
    desc: str = "probes",
    progress: bool = True,
) -> list[Probe]:
    """``states`` probes of each environment; those that ``out`` holds are not made again.

    State i is that of start ``start + i``; the ``strata`` take turns. ``made_by`` is everything
    else that decides what a probe holds: a folder of logs is of one such setting.

    Raises:
        KeyError: an unknown stratum.
        LogError: ``out`` holds probes of another setting.
        ValueError: ``out`` is no folder for logs, or there are no strata.
    """
    if not strata:
        raise ValueError(f"no strata to take states from: expected some of {STRATA}")
    if unknown := [name for name in strata if name not in STRATA]:
        raise KeyError(f"no stratum {unknown[0]!r}{nearest(unknown[0], STRATA)}")
    if out is not None:
        check_open(Path(out))
        of = {} if tuple(strata) == TAKEN else {"strata": [*strata]}
        claim(out, "probes", {**made_by, **of, "split": split})
    found = {} if out is None else {(one.env, one.seed): one for one in read_probes(out)}
    probes = []
    with tqdm(total=states * len(names), desc=desc, disable=not progress) as bar:
        for name in names:
            with open_bench(name) as probe_one:
                for index in range(states):
                    first = start_seed(split, start + index)
                    one = found.get((name, first))
                    if one is None:
                        one = probe_one(first, strata[index % len(strata)])
                        if out is not None:
                            save_probe(out, one)
                    probes.append(one)
                    bar.update()
    return probes
