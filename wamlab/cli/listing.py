"""`wam list`: what there is, as a table for people or as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Table = dict[str, dict[str, Any]]


def show(what: str | None, as_json: bool) -> None:
    """Print one list, or all of them by name only."""
    chosen = {what: TABLES[what]} if what else TABLES
    tables = {name: make() for name, make in chosen.items()}
    if as_json:
        print(json.dumps(tables[what] if what else tables, indent=1))
        return
    for name, table in tables.items():
        print(f"{name} ({len(table)})" if what is None else "", end="\n" if what is None else "")
        print("\n".join(f"  {key}" for key in table) if what is None else _lines(table))


def models() -> Table:
    """Each model's card, size and queries, read from the model itself."""
    from wamlab.models.base import WorldActionModel, available

    return {name: _model(name) for name in sorted({*available(), *WorldActionModel.registry})}


def envs() -> Table:
    """Suites with their tasks, and every single environment with its instruction."""
    from wamlab.sim.registry import instruction_of, names
    from wamlab.sim.suites import suite, suites

    table: Table = {name: {"suite of": list(suite(name))} for name in suites()}
    return table | {n: {"instruction": instruction_of(n)} for n in names()}


def recipes() -> Table:
    from wamlab.recipes import names

    return {name: {} for name in names()}


def metrics() -> Table:
    from wamlab.metrics.base import axis_of, find, names

    return {
        name: {"needs": getattr(find(name), "needs", ""), "axis": axis_of(name)} for name in names()
    }


TABLES: dict[str, Callable[[], Table]] = {
    "models": models,
    "envs": envs,
    "recipes": recipes,
    "metrics": metrics,
}


def _model(name: str) -> dict[str, Any]:
    import torch

    from wamlab.config import to_dict
    from wamlab.models.base import model_class

    kind = model_class(name)
    sizes: Any = kind.Config
    with torch.device("meta"):
        model = kind(sizes.small())
        parameters = sum(p.numel() for p in model.parameters())
        queries = {str(query): to_dict(answer) for query, answer in model.queries.items()}
    return {"parameters": parameters, "card": dict(kind.card), "queries": queries}


def _lines(table: Table) -> str:
    width = max([38, *map(len, table)])
    return "\n".join(line for name, row in table.items() for line in _row(name, row, width))


def _row(name: str, row: dict[str, Any], width: int) -> list[str]:
    if "queries" not in row:
        return [f"{name:<{width}}  {'; '.join(map(_words, row.values()))}".rstrip()]
    lines = [f"{name}  {row['parameters'] / 1e6:.1f} M parameters (small)"]
    lines += [f"  {field}: {value}" for field, value in row["card"].items()]
    return lines + [f"  {query:<8} {_answer(answer)}" for query, answer in row["queries"].items()]


def _words(value: Any) -> str:
    """A cell: a long list is counted, a short one named."""
    if not isinstance(value, list):
        return str(value)
    names = ", ".join(name.rpartition("/")[2] for name in value)
    return names if len(value) < 7 else f"{len(value)} environments"


def _answer(answer: dict[str, Any]) -> str:
    """What an answer is, in words."""
    said = ["drawn" if answer["stochastic"] else "fixed"]
    said += [f"future in {answer['space']}"] if answer["space"] else []
    said += [f"coupled by {answer['coupling']}"] if answer["coupling"] else []
    said += [f"{answer['marginal']} marginal"] if answer["marginal"] else []
    calls = answer["calls"]
    return ", ".join([*said, f"{calls} network call{'' if calls == 1 else 's'}"])
