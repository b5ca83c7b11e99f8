"""Tables of what `substitution.py` has played: by future, and by extractor."""

from __future__ import annotations

from collections.abc import Sequence

import pooling
from condition_tables import own_cells, trainings
from pooling import Cell
from tables import Found
from wording import command, machine, points_text, rate_text, table

from wamlab.run.substitution import EXTRACTORS, FUTURES


def tables(found: Found) -> str:
    """One table for each protocol, system and attempt that was taken apart."""
    keys = sorted({key_of(cell) for cell in found.substitutions})
    if not keys:
        return "Not measured (`python benchmarks/substitution.py mw-6 --models unipi`).\n"
    return "\n".join(system_table(found, *key) for key in keys)


def key_of(cell: Cell) -> tuple[str, str, int]:
    return cell["protocol"], cell["model"], cell["attempt"]


def system_table(found: Found, protocol: str, system: str, attempt: int) -> str:
    """Success with each pair of halves, and how far it is from the system's own, paired."""
    played = [cell for cell in found.substitutions if key_of(cell) == (protocol, system, attempt)]
    own = own_cells(found, played)
    rows = [
        [future, *(text_of(halves(played, future, how), own) for how in EXTRACTORS)]
        for future in FUTURES
    ]
    head = ["future", *(f"{how} extractor" for how in EXTRACTORS)]
    return (
        f"### `{system}` on `{protocol}`, attempt {attempt}\n\n"
        f"Success over all tasks with its interval, {trainings(played)}; then the difference "
        "from the system itself on the same starts, paired. An exact extractor knows the actions "
        "of a true future, and searches the simulator for those of any other.\n\n"
        f"{table(head, rows)}\n`{command(played[-1])}`, {machine(played[-1])}\n"
    )


def halves(played: Sequence[Cell], future: str, extractor: str) -> list[Cell]:
    wanted = (future, extractor)
    return [cell for cell in played if (cell["future"], cell["extractor"]) == wanted]


def text_of(cells: Sequence[Cell], own: Sequence[Cell]) -> str:
    if not cells:
        return "–"
    said, both = rate_text(pooling.pooled(cells)), pooling.paired(cells, own)
    return said if both is None else f"{said}; {points_text(both.difference)}"
