"""Tables of what `conditions.py` has played: a row for each condition, a column for each system."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import pooling
from pooling import Cell
from tables import Found
from wording import command, machine, points_text, rate_text, table

from wamlab.report.words import number

AS_TRAINED = "as trained"


def tables(found: Found) -> str:
    """One table for each protocol that was played under other conditions."""
    names = sorted({cell["protocol"] for cell in found.conditions})
    if not names:
        return "Not measured (`python benchmarks/conditions.py mw-6`).\n"
    return "\n".join(protocol_table(found, name) for name in names)


def protocol_table(found: Found, name: str) -> str:
    """Success as trained and under each condition, with the paired difference.

    Of a system trained more than once the last training that was played so is shown. Where another
    task was said than the one that is judged: how often that one was done.
    """
    played = [cell for cell in pooling.newest(found.conditions) if cell["protocol"] == name]
    systems = sorted({cell["model"] for cell in played})
    order = list(dict.fromkeys(cell["condition"] for cell in played))
    rows = [[AS_TRAINED, *(trained_text(found, played, system) for system in systems)]]
    rows += [
        [condition, *(text_of(found, named(played, system, condition)) for system in systems)]
        for condition in order
    ]
    one = played[-1]
    return (
        f"### `{name}`\n\n"
        "Success over all tasks of the suite, and in brackets its interval; of which training it "
        "is, the last that was played so; then the difference from the same starts as trained, "
        "paired. Systems of different seeds are not paired with each other.\n\n"
        f"{table(['condition', *(f'`{system}`' for system in systems)], rows)}\n"
        f"`{command(one)}`, {machine(one)}\n"
    )


def named(played: Sequence[Cell], system: str, condition: str) -> list[Cell]:
    return [cell for cell in played if (cell["model"], cell["condition"]) == (system, condition)]


def trained_text(found: Found, played: Sequence[Cell], system: str) -> str:
    """What the same cells achieve where nothing is other than in training."""
    cells = own_cells(found, [cell for cell in played if cell["model"] == system])
    if not cells:
        return "not measured"
    return f"{rate_text(pooling.pooled(cells))}, {trainings(cells)}"


def text_of(found: Found, cells: Sequence[Cell]) -> str:
    if not cells:
        return "not measured"
    said = f"{rate_text(pooling.pooled(cells))}, {trainings(cells)}"
    if not cells[0]["suite"]:
        both = pooling.paired(cells, own_cells(found, cells))
        said += "" if both is None else f"; {points_text(both.difference)}"
        return f"{said}; {told_text(cells)}" if cells[0]["sentence"] == "swapped" else said
    done = [cell["tasks_done"]["value"] for cell in cells]
    if "chains" in cells[0]["suite"] and None not in done:
        said += f"; {number(fmean(done))} tasks done"
    return said


def told_text(cells: Sequence[Cell]) -> str:
    """How often the task was done that was said, and how much oftener than the one that was not."""
    told = as_told(cells)
    both = pooling.paired(told, cells)
    more = "" if both is None else f", {points_text(both.difference)} above what is not said"
    return f"what is said is done in {rate_text(pooling.pooled(told))}{more}"


def as_told(cells: Sequence[Cell]) -> list[Cell]:
    """The same cells, judged by the task that was said."""
    return [{**cell, "success": cell["told"]} for cell in cells]


def own_cells(found: Found, cells: Sequence[Cell]) -> list[Cell]:
    """The cells themselves, of the same seeds and attempts."""
    keys = {(c["protocol"], c["model"], c["seed"], c["attempt"]) for c in cells}
    return [
        cell
        for cell in found.cells
        if (cell["protocol"], cell["model"], cell["seed"], cell["attempt"]) in keys
    ]


def trainings(cells: Sequence[Cell]) -> str:
    """Of which trainings these are: ``attempt 2, seeds 0, 1``."""
    [attempt] = {cell["attempt"] for cell in cells}
    seeds = sorted({cell["seed"] for cell in cells})
    return f"attempt {attempt}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
