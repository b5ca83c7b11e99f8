"""How fast LPIPS and Frechet statistics are beside torchmetrics, as `docs/results.md` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from findings import MISSING, Finding, verdict
from tables import Found
from wording import command, machine, table

from wamlab.report.words import number

LEAST = 0.9
RUNS = 7
ASKED = {"lpips": "LPIPS", "frechet": "Frechet statistics"}


def findings(found: Found) -> list[Finding]:
    """For each measure, its slowest work against torchmetrics."""
    result = found.files.get("metric_speed")
    return [_finding(result, name) for name in ASKED]


def _finding(result: Mapping[str, Any] | None, name: str) -> Finding:
    asked = f"{ASKED[name]}: at least {LEAST} of torchmetrics' speed, median of {RUNS} runs in turn"
    if result is None:
        return Finding("speed of measures", asked, "", MISSING)
    slowest = min(work["ratio"] for work in result[name])
    said = f"{number(slowest)} times on the slowest work"
    return Finding(
        "speed of measures", asked, said, verdict(slowest >= LEAST, result["runs"] >= RUNS)
    )


def text(found: Found) -> str:
    """Every work with its seconds, and how it was measured."""
    result = found.files.get("metric_speed")
    if result is None:
        return ""
    rows = [
        [
            work_text(work),
            *(_middle(work["seconds"][side]) for side in ("ours", "torchmetrics")),
            number(work["ratio"]),
            number(work["ratio of processor time"]),
        ]
        for name in ASKED
        for work in result[name]
    ]
    loads = number(result["machine"]["load"], 1), number(result["load after"], 1)
    busy = f"Load {loads[0]} before and {loads[1]} after: other work slows both sides alike."
    header = ["work", "ours, s", "torchmetrics, s", "times its speed", "by processor time"]
    return (
        table(header, rows)
        + f"\nBoth sides gave the same numbers, in turn, {result['runs']} times each; seconds are "
        f"medians, the speed is the median of the runs' ratios. {busy} LPIPS on AlexNet with "
        f"{result['weights of LPIPS']} weights; torchmetrics {result['torchmetrics']}.\n\n"
        f"`{command(result)}`, {machine(result)}\n"
    )


def work_text(work: Mapping[str, Any]) -> str:
    if "pairs" in work:
        return f"LPIPS, {work['pairs']} pairs of {work['side']} x {work['side']} pixels"
    return f"Frechet distance, N = {work['samples']}, D = {work['dimensions']}, in batches of 100"


def _middle(seconds: list[float]) -> str:
    return number(sorted(seconds)[len(seconds) // 2], 3)
