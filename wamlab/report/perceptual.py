"""The part of a report that frozen networks make: LPIPS and distances of features, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wamlab.metrics.base import Result, compute
from wamlab.metrics.extractors import Remembering, make_extractor
from wamlab.metrics.perceptual import DEFAULT
from wamlab.report import words
from wamlab.types import Probe

Row = dict[str, Any]
LPIPS = ("lpips", "moving_lpips")
FEATURES = (
    *("frechet_distance", "frechet_infinity", "kernel_distance"),
    *("feature_similarity", "feature_distance"),
)
MEANING = {
    "lpips": "whole frames; lower is better",
    "moving_lpips": "where something moves; lower is better",
    "frechet_distance": "all frames together; lower is better",
    "frechet_infinity": "the same of endlessly many states; lower is better",
    "kernel_distance": "all frames together, unbiased; 0 is no difference",
    "feature_similarity": "each frame with its own; 1 is alike",
    "feature_distance": "each frame with its own; 0 is alike",
}


def measured(probes: Sequence[Probe], features: str | None = None) -> dict[str, Result]:
    """Every measure of frozen networks; ``features`` is the extractor's name, or ``NAME=FILE``.

    Raises:
        KeyError: no extractor of that name, with the nearest one.
        MissingWeights: an extractor that needs a file was asked for without one.
        ValueError: its file is of another kind.
    """
    name, _, file = (features or DEFAULT).partition("=")
    # Each distinct frame goes through the network once for all measures.
    network = Remembering(make_extractor(name, file or None))
    found = {one: compute(one, probes) for one in LPIPS}
    return found | {one: compute(one, probes, extractor=network) for one in FEATURES}


def shown(found: Mapping[str, Row]) -> Row:
    """Rows of what was measured, the frames they are of, and each reason for what was not."""
    known = [_row(name, result) for name, result in found.items() if result["value"] is not None]
    frames = dict.fromkeys(result["details"].get("frames") for result in found.values())
    whys = dict.fromkeys(result["why_not"] for result in found.values() if result["why_not"])
    warnings = [f"{row['title']}: {row['warning']}" for row in known if row["warning"]]
    return {
        "rows": known,
        "frames": [said for said in frames if said],
        "whys": [*whys],
        "warnings": warnings,
    }


def _row(name: str, result: Row) -> Row:
    counts = result.get("counts")
    n = words.count(result["n"], "state")
    if counts:
        states = words.count(result["details"]["states"], "state")
        n = f"N = {counts[0]} and {counts[1]}, D = {result['size']}, {states}"
    return {
        "title": result["metric"],
        "meaning": MEANING[name],
        "value": result["value"],
        "interval": result["interval"],
        "last": result["details"]["last frame"],
        "n": n,
        "warning": result.get("warning", ""),
    }
