"""``run.json``: what was asked of a run, and what was decided while it ran."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wamlab.config import from_dict, to_dict
from wamlab.data.manifest import write_file

RECORD = "run.json"
SCHEMA = 1
FREE = ("log_every", "checkpoint_every", "keep")
"""Fields of the configuration that may differ when a run is resumed: they change no number."""


@dataclass
class StageRecord:
    """A stage of a run. ``steps`` and ``seconds_per_step`` are None until the stage has begun."""

    name: str
    steps: int | None = None
    seconds_per_step: float | None = None
    frozen: str | None = None
    produces: str | None = None
    digest: str | None = None


@dataclass
class Record:
    """The record of a run: once a decision stands in it, a resumed run takes it from here."""

    schema: int
    model: dict[str, Any]
    config: dict[str, Any]
    stages: list[StageRecord]
    precision: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    status: Literal["training", "stopped", "finished"] = "training"
    step: int = 0

    def save(self, out: Path) -> None:
        write_file(out / RECORD, (json.dumps(to_dict(self), indent=1) + "\n").encode())


def read_record(out: str | Path) -> Record:
    """The record of the run in ``out``.

    Raises:
        ValueError: it is damaged or of another schema.
    """
    path = Path(out) / RECORD
    try:
        values = json.loads(path.read_bytes())
        if values["schema"] != SCHEMA:
            raise ValueError(f"schema {values['schema']}, expected {SCHEMA}")
        return from_dict(Record, values)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def check_same(asked: Record, there: Record, out: Path) -> None:
    """A run is resumed only as what it was.

    Raises:
        ValueError: another model, another configuration or other data, naming the first difference.
    """
    pairs: list[tuple[str, Any, Any]] = [
        ("model", asked.model, there.model),
        ("config", asked.config, there.config),
        ("dataset", asked.provenance.get("dataset"), there.provenance.get("dataset")),
    ]
    for name, new, old in pairs:
        if found := _difference(new, old, name):
            raise ValueError(f"{out} cannot be resumed: {found}")


def _difference(new: Any, old: Any, where: str) -> str | None:
    new, old = json.loads(json.dumps(new)), json.loads(json.dumps(old))
    if isinstance(new, dict) and isinstance(old, dict):
        names = [n for n in sorted({*new, *old}) if where != "config" or n not in FREE]
        found = (_difference(new.get(name), old.get(name), f"{where}.{name}") for name in names)
        return next((text for text in found if text), None)
    return None if new == old else f"{where} was {old!r} and is now {new!r}"
