"""Cells as `benchmarks/success.py` writes them, with outcomes of one's own choosing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TASKS = {"metaworld/a": 12, "metaworld/b": 9, "metaworld/c": 3}
"""Tasks, and how many of 30 starts their better blind row solves."""


def outcomes(solved: int, n: int) -> dict[str, Any]:
    digits = "1" * solved + "0" * (n - solved)
    return {
        "n": n,
        "any": solved,
        "last": solved,
        "at_reset": 0,
        "first_start": 2_000_000,
        "outcomes": digits,
    }


def cell(
    solved: Mapping[str, int],
    *,
    n: int = 40,
    seed: int = 0,
    model: str = "uwm",
    protocol: str = "mw-demo",
    attempt: int = 1,
    over: float = 1.5,
    static_psnr: float = 33.0,
) -> dict[str, Any]:
    return {
        "protocol": protocol,
        "model": model,
        "seed": seed,
        "attempt": attempt,
        "hypothesis": "smaller batches learn faster" if attempt > 1 else "",
        "run": {
            "model": {"chunk": 16},
            "rollout": {"execute_steps": 8, "samples": 1},
        },
        "steps": 1000,
        "steps_fixed_by": "--steps 1000",
        "samples": 32000,
        "gflop_per_sample": {"joint": 2.31},
        "precision": {"choice": "bf16"},
        "training_seconds": 600.0,
        "machine_in_training": {"before": {"threads": 2, "load": 0.1}},
        "plan": {"calls": 4.0, "ms_p50": 55.0, "rows_at_most": 8, "plans": 100},
        "success": {env: outcomes(count, n) for env, count in solved.items()},
        "middle": {
            "step": 500,
            "success": {env: outcomes(k // 4, 10) for env, k in solved.items()},
        },
        "blind": {env: blind(TASKS.get(env, 0)) for env in solved},
        "imagination": {
            "moving_psnr": measure(16.0),
            "static_psnr": measure(static_psnr),
            "census": {"states": 4},
        },
        "over_rivals": {
            name: rival(over) for name in ("last frame", "dataset mean", "nearest clip")
        },
        "joint": {
            "robot": {"eic": consistency(0.2, 0.1), "eic_cf": consistency(0.3, 0.2)},
            "object": {"eic": undefined("eic"), "eic_cf": undefined("eic_cf")},
        },
        "provenance": {"command": "benchmarks/success.py mw-demo", "commit": "0123456789abcdef"},
    }


def blind(better: int) -> dict[str, list[int]]:
    return {"expert": [30, 30], "mean replay": [better, 30], "random replay": [better // 2, 30]}


def measure(value: float) -> dict[str, Any]:
    items = {f"metaworld/a/{state}-7": value + 0.1 * state for state in range(4)}
    part = {"value": value, "interval": [value - 1, value + 1], "items": {}}
    return {"value": value, "items": items, "parts": {"corner@8": part}}


def rival(over: float) -> dict[str, Any]:
    return {**measure(over), "details": {"theirs": 14.5, "model": 14.5 + over, "wins": 0.9}}


def consistency(value: float, static: float) -> dict[str, Any]:
    over = {"over_static": value - static, "over_static_interval": [0.05, 0.15]}
    details = {"static": static, "oracle": 0.8, **over}
    interval = [value - 0.05, value + 0.05]
    return {"value": value, "interval": interval, "n": 4, "undefined": {}, "details": details}


def undefined(name: str) -> dict[str, Any]:
    why = "no state opens the gate"
    return {"value": None, "why_not": why, "n": 0, "undefined": {why: 4}, "details": {}}
