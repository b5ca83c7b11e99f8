"""A line of the summary: a target, what was measured for it, and whether that meets it."""

from __future__ import annotations

from dataclasses import dataclass

from pooling import Estimate

MET, NOT_MET, MISSING, PARTIAL = "met", "**not met**", "not measured", "incomplete"


@dataclass(frozen=True)
class Finding:
    """One line of the summary: what it is about, the target, what was measured, the verdict."""

    topic: str
    asked: str
    measured: str
    verdict: str


def verdict(good: bool, complete: bool = True) -> str:
    if not complete:
        return PARTIAL
    return MET if good else NOT_MET


def low_of(one: Estimate) -> float:
    return one.interval[0] if one.interval else float("-inf")
