"""Measures by axis: whatever is registered for one, computed and shown without its own template.

A report shows some measures in tables made for them (`SHOWN`); every other one that needs nothing
but episodes or probes stands in the table of its axis, with what it is read against.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from wamlab.metrics.base import Logs, Metric, Result, axis_of, compute, find, names
from wamlab.metrics.joint import OBJECT, ROBOT
from wamlab.report import words
from wamlab.types import STRATA, Episode, Probe

Row = dict[str, Any]
ANCHORS = {
    "policy success": "success",
    "visual fidelity": "fidelity",
    "physical commonsense": "physics",
    "action plausibility": "plausibility",
    "joint coupling": "coupling",
}
"""The axes that have a section of their own, and its place in the page."""

SHOWN = {
    *("success_any", "success_over_blind"),
    *("moving_psnr", "static_psnr", "psnr", "ssim", "moving_psnr_over_rival"),
    *("lpips", "moving_lpips", "frechet_distance", "frechet_infinity", "kernel_distance"),
    *("feature_similarity", "feature_distance"),
    *("eic", "eic_cf", "skill", "div"),
}
APART = {
    "alarms": "benchmarks/acting_on_futures.py",
    "film_success": "benchmarks/idm_turing.py",
    "imagination_use": "benchmarks/imagination_use.py",
}
"""Measures that need more than the logs of one folder, and which script plays and measures them."""
ROUNDING = 1e-12
"""Less than this, in the unit of any measure, is arithmetic and not a finding."""


def further(
    episodes: Sequence[Episode], probes: Sequence[Probe], known: Mapping[str, Result]
) -> dict[str, dict[str, Result]]:
    """Every registered measure that no table was made for, by axis; ``known`` are computed."""
    logs: dict[str, Logs] = {"episodes": episodes, "probes": probes}
    found: dict[str, dict[str, Result]] = {axis: {} for axis in ANCHORS}
    for name in names():
        axis, needs = axis_of(name), getattr(find(name), "needs", "")
        if (
            axis not in found
            or needs not in logs
            or name in SHOWN
            or not _needs_no_more(find(name))
        ):
            continue
        if _of_an_entity(find(name)):
            for entity in (ROBOT, OBJECT):
                found[axis][f"{name}, {entity}"] = compute(name, logs[needs], entity=entity)
        else:
            found[axis][name] = _explained(known.get(name) or compute(name, logs[needs]))
    return found


def further_rows(results: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """A row for each measure of one axis that has a value."""
    return [
        {
            **result,
            "title": words.title(name),
            "meaning": meaning(name.partition(",")[0]).replace("`", ""),
            "said": figure(result["value"]),
            "ends": between(result["interval"]),
            "beside": beside(result),
        }
        for name, result in results.items()
        if result["value"] is not None
    ]


def without_value(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each reason why measures of one axis have no value, with the measures, entities together."""
    found: dict[str, dict[str, None]] = {}
    for name, result in results.items():
        if result["value"] is None:
            titles = found.setdefault(result["why_not"], {})
            titles[words.title(name.partition(",")[0])] = None
    return [(why, ", ".join(titles)) for why, titles in found.items()]


def meaning(name: str) -> str:
    """The first sentence that a measure says of itself."""
    first = inspect.cleandoc(find(name).__doc__ or "").partition("\n\n")[0]
    return " ".join(first.split()).removesuffix(".")


def beside(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers that a value is read against, each with its interval where it has one.

    Then what it is over offsets, and where states lie on the way to contact, for each of `STRATA`
    that has a value.
    """
    details = result["details"]
    pairs = [("noise floor", figure(result["floor"]))] if result["floor"] is not None else []
    for name, value in details.items():
        if _is_number(value):
            pairs.append((called(name, details), estimate(value, details.get(f"{name}_interval"))))
    if details.get("above_ceiling"):
        pairs.append(("above its ceiling", "surely: see the measure"))
    return pairs + over_offsets(result) + by_phase(result)


def by_phase(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A value by contact phase: the stratum, and its value with the interval."""
    there = {name: result.get("parts", {}).get(name) for name in STRATA}
    return [
        (name, estimate(part["value"], part["interval"]))
        for name, part in there.items()
        if part and part["value"] is not None
    ]


def normalised_shares(
    joint: Mapping[str, Mapping[str, Any]], coupling: Mapping[str, Any]
) -> dict[str, float]:
    """By title, how far each joint measure is from no coupling (0) to its ceiling (1).

    Args:
        joint: measures of pixels by entity and name; ``coupling`` all others of the axis by name.
    """
    pixels = {
        f"{words.title(name)}, {entity} (pixels)": one
        for entity, measures in joint.items()
        for name, one in measures.items()
    }
    known = {**pixels, **{words.title(name): one for name, one in coupling.items()}}
    return {
        title: share
        for title, one in known.items()
        if one["value"] is not None
        and _is_number(share := one.get("details", {}).get("normalised"))
    }


def least_normalised(
    joint: Mapping[str, Mapping[str, Any]], coupling: Mapping[str, Any]
) -> tuple[str, float, int] | None:
    """The least of `normalised_shares`: its title, its share, and of how many it is the least."""
    shares = normalised_shares(joint, coupling)
    if not shares:
        return None
    least = min(shares, key=lambda title: shares[title])
    return least, shares[least], len(shares)


def called(name: str, details: Mapping[str, Any]) -> str:
    """A detail's name in words, with what it is of where another detail says so."""
    which = details.get(f"{name}_is")
    return name.replace("_", " ") + (f" ({which})" if which else "")


def figure(value: float | None) -> str:
    """Three significant digits, whatever the unit; what is left of a rounding error is 0."""
    if value is None:
        return words.NONE
    shown = 0 if abs(value) < ROUNDING else value
    return f"{shown:.3g}".replace("-", words.MINUS)


def estimate(value: float, interval: Sequence[float] | None) -> str:
    """A value with its interval, where it has one."""
    ends = between(interval)
    return f"{figure(value)} ({ends})" if ends else figure(value)


def over_offsets(
    result: Mapping[str, Any], said: Callable[[float], str] = figure
) -> list[tuple[str, str]]:
    """A value at each offset where it is known at several: ``8: 0.03, 16: 0.05``.

    What is measured view by view has such a curve for each; ``said`` writes a number.
    """
    curves: dict[str, dict[int, float]] = {}
    for offset, value in result["details"].get("curve", {}).items():
        curves.setdefault("", {})[int(offset)] = value
    for part, one in result.get("parts", {}).items():
        view, at, offset = part.rpartition("@")
        if at and one["value"] is not None:
            curves.setdefault(f"{view}, " if view else "", {})[int(offset)] = one["value"]
    return [
        (
            f"{view}over offsets",
            ", ".join(f"{offset}: {said(curve[offset])}" for offset in sorted(curve)),
        )
        for view, curve in curves.items()
        if len(curve) > 1
    ]


def between(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{figure(interval[0])} to {figure(interval[1])}"


def _explained(result: Result) -> Result:
    """A result that says, where it is of logs that are made apart, which command makes them."""
    if result.value is not None or result.metric not in APART:
        return result
    script = APART[result.metric]
    said = f"python {script} plays and measures it, docs/results.md shows what came of it"
    return replace(result, why_not=f"{result.why_not} ({said})")


def _needs_no_more(metric: Metric) -> bool:
    _, *options = inspect.signature(metric).parameters.values()
    return all(option.default is not inspect.Parameter.empty for option in options)


def _of_an_entity(metric: Metric) -> bool:
    """Whether a measure is of one entity, by default of the robot: then it is of each in turn."""
    entity = inspect.signature(metric).parameters.get("entity")
    return entity is not None and entity.default == ROBOT


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
