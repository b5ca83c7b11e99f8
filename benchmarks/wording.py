"""Estimates, commands and machines as `docs/results.md` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pooling import Estimate

from wamlab.metrics.offsets import COMMON
from wamlab.report.words import between, number


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def title(measure: str) -> str:
    return {"eic": "EIC", "eic_cf": "EIC_cf"}[measure]


def of(pair: Sequence[int]) -> str:
    return f"{pair[0]}/{pair[1]}"


def rate_text(rate: Estimate) -> str:
    return f"{number(100 * rate.value, 1)} % ({between(rate.interval, 1, 100.0)})"


def points_text(over: Estimate) -> str:
    """A difference of rates in points."""
    return f"{number(100 * over.value, 1, sign=True)} ({between(over.interval, 1, 100.0)})"


def db_text(one: Estimate | None) -> str:
    if one is None:
        return "not measured"
    return f"{number(one.value, 1)} dB ({between(one.interval, 2)})"


def span(interval: Sequence[float] | None, digits: int = 2, times: float = 1.0) -> str:
    """An interval behind its value; nothing where there is none."""
    return f" ({between(interval, digits, times)})" if interval else ""


def elsewhere(moving: Mapping[str, Any]) -> str:
    """The offsets of a result by view and offset, in words, where models are not compared there."""
    offsets = sorted({int(part.rpartition("@")[2]) for part in moving.get("parts", {})})
    return f" (at {', '.join(map(str, offsets))})" if offsets and set(offsets) - {*COMMON} else ""


def executed(cell: Mapping[str, Any]) -> str:
    """How much of each plan was executed before the next one, and of how many it was chosen."""
    chunk, how = cell["run"]["model"]["chunk"], cell["run"]["rollout"]
    said = f"{how['execute_steps'] or chunk} of {chunk} actions"
    return said if how["samples"] == 1 else f"{said} of one of {how['samples']} plans"


def command(result: Mapping[str, Any]) -> str:
    known = result.get("provenance", {}).get("command") or result.get("command", "not recorded")
    return known if known.startswith("python") else f"python {known}"


def machine(result: Mapping[str, Any]) -> str:
    """Processor, cores, threads and load, as far as the result tells."""
    where = result.get("provenance", {}).get("machine", {})
    own = result.get("machine_in_training", {}).get("before") or result.get("machine") or result
    load = own.get("load", own.get("load_at_start"))
    commit = str(result.get("provenance", {}).get("commit") or "unknown")
    parts = [
        f"{where.get('processor', 'unknown processor')}, {where.get('cores', '?')} cores",
        f"{own['threads']} threads" if "threads" in own else "",
        f"load {number(load, 1)}" if load is not None else "load not recorded",
        f"commit {commit[:10]}{' (changed)' if commit.endswith('+') else ''}",
    ]
    return ", ".join(filter(None, parts))


def chapter(name: str) -> str:
    """A link to a chapter of the page by its heading."""
    letters = "".join(letter for letter in name.lower() if letter.isalnum() or letter in " -")
    return f"[{name}](#{letters.replace(' ', '-')})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
