"""Tables of the scene: its systems side by side, and whether they listen.

How a system does where something else is said, or chained, stands with the other conditions.
"""

from __future__ import annotations

from collections.abc import Sequence

import corners
import pooling
from condition_tables import as_told, named
from findings import MISSING, Finding, verdict
from pooling import Cell
from tables import Found, last, protocol

from wamlab.report.words import percent

PROTOCOL = "scene"
SYSTEMS = ("uwm", "reactive", "gr1")
ASKED = ("swapped", "empty", "chains-2", "chains-3")
"""The conditions that the target names beside the right instruction."""


def tables(found: Found) -> str:
    """The systems side by side, then every cell."""
    return "\n".join([corners.side_by_side(found, PROTOCOL, SYSTEMS), protocol(found, PROTOCOL)])


def finding(found: Found) -> Finding:
    """The target is that it is measured: whatever comes out meets it."""
    asked = (
        f"`{PROTOCOL}`: {', '.join(f'`{system}`' for system in SYSTEMS)}, one seed: success with "
        "the right, with a swapped and with no instruction; chains of two and three"
    )
    played = [cell for cell in found.conditions if cell["protocol"] == PROTOCOL]
    said, complete = [], True
    for system in SYSTEMS:
        if not (cells := last(found, PROTOCOL, system)):
            complete = False
            continue
        trained = {(cell["seed"], cell["attempt"]) for cell in cells}
        others = {
            name: [
                cell
                for cell in named(played, system, name)
                if (cell["seed"], cell["attempt"]) in trained
            ]
            for name in ASKED
        }
        complete &= all(others.values())
        rates = {"right": cells, **others}
        words = [f"{name} {rate(group)}" for name, group in rates.items() if group]
        if swapped := others["swapped"]:
            words.insert(2, f"what was said instead {rate(as_told(swapped))}")
        said.append(f"`{system}` {', '.join(words)}")
    return Finding("scene", asked, "; ".join(said), verdict(True, complete) if said else MISSING)


def rate(cells: Sequence[Cell]) -> str:
    return percent(pooling.pooled(cells).value)
