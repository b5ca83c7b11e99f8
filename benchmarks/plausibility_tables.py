"""Tables of what `idm_turing.py` and `imagination_use.py` have played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pooling import Cell
from tables import Found
from wording import command, machine, table

from wamlab.report.words import between, number, percent

TITLE = "Action plausibility: what a judge reads off imagined films"
LOOPS = {"open": "the whole film, executed open loop", "closed": "window by window, looking again"}


def tables(found: Found) -> str:
    """The Turing test of every protocol in both loops, and the use of imagination."""
    return "\n".join([_turing(found.films), _use(found.use)])


def _turing(films: Sequence[Cell]) -> str:
    if not films:
        return (
            "The IDM Turing test is not measured (`python benchmarks/idm_turing.py mw-6 --judge "
            "...`).\n"
        )
    texts = [
        "One judge, an inverse dynamics model trained on demonstrations alone, reads the actions "
        "off what each model imagines. Success of these actions with its interval, then the "
        "difference from each control on the same starts, paired; *between* puts the floor at 0 "
        "and the ceiling at 1.\n"
    ]
    for loop, what in LOOPS.items():
        rows = [_row(cell, cell["loops"][loop]) for cell in films if loop in cell["loops"]]
        controls = dict.fromkeys(name for _, beside in rows for name in beside)
        body = [[*own, *(beside.get(name, "–") for name in controls)] for own, beside in rows]
        head = ["model", "success", "between", *controls]
        texts += [f"### {loop.capitalize()} loop: {what}\n", table(head, body)]
    texts += [_origin(cell) for cell in films]
    return "\n".join(texts)


def _row(cell: Cell, one: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The model's own cells, and those beside each control by its name."""
    name = f"`{cell['model']}` on `{cell['protocol']}`, seed {cell['seed']}"
    if one["value"] is None:
        return [name, f"n/a: {one['why_not']}", "–"], {}
    scale = one["details"]["between"]
    placed = scale["why_not"] or f"{number(scale['value'])} ({between(scale['interval'])})"
    own = [name, f"{percent(one['value'])} ({between(one['interval'], 0, 100.0)}) of {one['n']}"]
    beside = {}
    for control, logs in one["details"]["controls"].items():
        less = logs["less"]
        points = f"{number(100 * less['value'], 0, sign=True)} points " if less["n"] else ""
        ends = f"({between(less['interval'], 0, 100.0)})" if less["interval"] else ""
        beside[control] = f"{percent(logs['rate'])} of {logs['n']}; {points}{ends}".strip("; ")
    return [*own, placed], beside


def _use(use: Sequence[Cell]) -> str:
    if not use:
        return (
            "The use of imagination is not measured (`python benchmarks/imagination_use.py mw-6`)."
            "\n"
        )
    futures = dict.fromkeys(future for cell in use for future in (*cell["use"], *cell["lost"]))
    rows = [
        [
            f"`{cell['model']}` on `{cell['protocol']}`, seed {cell['seed']}",
            *(_used(cell["use"].get(future), cell["lost"].get(future)) for future in futures),
        ]
        for cell in use
    ]
    return (
        "### Is the imagination used?\n\nAnother future takes the place of the model's own before "
        "the action is decoded: how much of the demanded change of action is made (1 all, 0 none), "
        "then the points of success that acting on it throughout loses, paired by start. It is no "
        "score of quality. Who does not answer INVERSE (`gr1`, `vpp`) cannot be given another "
        "future, and has no row.\n\n"
        + table(["model", *futures], rows)
        + "\n"
        + "\n".join(_origin(cell) for cell in use)
    )


def _used(use: Mapping[str, Any] | None, lost: Mapping[str, Any] | None) -> str:
    said = []
    if use is not None and use["value"] is not None:
        states = use["n"] + sum(use["undefined"].values())
        of = f"; {use['n']} of {states} states" if use["undefined"] else ""
        said.append(f"{number(use['value'])} ({between(use['interval'])}{of})")
    if lost is not None and lost["value"] is not None:
        ends = f" ({between(lost['interval'], 0, 100.0)})" if lost["interval"] else ""
        said.append(f"loses {number(100 * lost['value'], 0)} points{ends}")
    return "; ".join(said) or "n/a"


def _origin(cell: Cell) -> str:
    took = f", {cell['minutes']:.1f} minutes" if "minutes" in cell else ""
    return f"`{command(cell)}`, {machine(cell)}{took}\n"
