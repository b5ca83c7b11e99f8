"""Runs side by side: one self-contained page and the same in a few lines, from their logs alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wamlab.data.logs import (
    LogError,
    load_episodes,
    load_probes,
    load_recordings,
    write_atomic,
)
from wamlab.metrics.base import Result, compute
from wamlab.metrics.compare import (
    Difference,
    differences,
    recorded_differences,
    state_differences,
    success_values,
)
from wamlab.metrics.information import SIDES, coupling_of_two
from wamlab.metrics.offsets import at_offsets, guessed_alike, imagined_offsets, shared
from wamlab.metrics.stats import FEWEST, Interval
from wamlab.report import charts, words
from wamlab.report.build import environment
from wamlab.report.charts import Axis, Mark
from wamlab.report.words import listed
from wamlab.types import Probe, Recording

Measures = dict[str, tuple[str, str, dict[str, str]]]
"""By title the measure, its unit and options."""

REFERRED = "state_eic_ref"
MEASURES: Measures = {
    "moving-pixel PSNR": ("moving_psnr", "dB", {}),
    "static-region PSNR": ("static_psnr", "dB", {}),
    "EIC_ref of the robot": (REFERRED, "", {"entity": "robot"}),
    "EIC_ref of the object": (REFERRED, "", {"entity": "object"}),
    "EIC_cf of the robot": ("eic_cf", "", {"entity": "robot"}),
    "EIC_cf of the object": ("eic_cf", "", {"entity": "object"}),
}
"""What is compared state by state.

Not EIC itself: over the spread of one's own samples a noisier policy scores higher for the same
error. EIC_ref has one denominator for all whose references last as long, and is there where a state
reader has read the probes.
"""

RECORDED: Measures = {
    **{
        f"recorded action error of {query}": ("recorded_action_error", "", {"query": query})
        for query in ("POLICY", "JOINT", "INVERSE")
    },
    **{
        f"recorded moving-pixel PSNR of {query}": ("recorded_moving_psnr", "dB", {"query": query})
        for query in ("FORWARD", "JOINT", "VIDEO")
    },
}
"""What is compared at recorded instants.

Not likelihood: nats of one codec or family of models are none of another's. Two of them in the same
units make one side of the coupling: `Coupled`.
"""


@dataclass(frozen=True)
class Coupled:
    """Coupling in nats by one ``side``: the run that marginalises the other stream, and the run
    that is given it."""

    side: str
    alone: str
    given: str
    result: Result


@dataclass(frozen=True)
class Compared:
    """The runs' names, what each achieved alone, and every difference on what they share.

    ``offsets`` are those at which all runs that imagine from probed states do so.
    """

    runs: list[str]
    success: dict[str, Result]
    success_differences: list[Difference]
    offsets: tuple[int, ...] = ()
    states: dict[str, dict[str, Result]] = field(default_factory=dict)
    state_differences: list[Difference] = field(default_factory=list)
    recorded: dict[str, dict[str, Result]] = field(default_factory=dict)
    recorded_differences: list[Difference] = field(default_factory=list)
    coupled: list[Coupled] = field(default_factory=list)


def compare(folders: Sequence[str | Path]) -> Compared:
    """Hold the runs of several folders against each other.

    Raises:
        ValueError: fewer than two folders, or one of them twice.
        LogError: a folder holds no episodes, no probes and no recordings.
    """
    runs = named(folders)
    episodes = {name: load_episodes(folder, frames=False) for name, folder in runs.items()}
    probes = {name: load_probes(folder) for name, folder in runs.items()}
    recordings = {name: load_recordings(folder) for name, folder in runs.items()}
    for name, folder in runs.items():
        if not (episodes[name] or probes[name] or recordings[name]):
            raise LogError(f"{folder} holds no episodes/, probes/ or recordings/ to compare")
    success = differences(
        "success", "points", {n: success_values(logs) for n, logs in episodes.items()}, rate=True
    )
    offsets, states, of_states = on_states(probes)
    recorded, of_recorded = on_recordings(recordings)
    return Compared(
        [*runs],
        {name: compute("success_any", logs) for name, logs in episodes.items()},
        success,
        offsets,
        states,
        of_states,
        recorded,
        of_recorded,
        coupled(recordings),
    )


def on_states(
    probes: Mapping[str, Sequence[Probe]],
) -> tuple[tuple[int, ...], dict[str, dict[str, Result]], list[Difference]]:
    """The offsets at which all runs imagine, and what is measured there state by state: of each run
    alone, and between runs; nothing if no run has probes."""
    results: dict[str, dict[str, Result]] = {}
    found: list[Difference] = []
    native = {run: imagined_offsets(logs) for run, logs in probes.items()}
    offsets = shared(own for own in native.values() if own)
    if not any(probes.values()):
        return offsets, results, found
    if any(native.values()) and not offsets:
        at = ", ".join(f"{run} at {', '.join(map(str, own))}" for run, own in native.items() if own)
        apart = f"these runs imagine at no offset that they share: {at}"
        for title, (measure, unit, _) in MEASURES.items():
            results[title] = {run: Result(measure, unit, why_not=apart) for run in probes}
        return offsets, results, found
    seen = {run: at_offsets(logs, offsets) if native[run] else logs for run, logs in probes.items()}
    for title, (measure, unit, options) in MEASURES.items():
        results[title] = {run: compute(measure, logs, **options) for run, logs in seen.items()}
        if measure == REFERRED and len(lasting := {_reference_steps(p) for p in seen.values()}) > 1:
            apart = f"the references of these runs last {listed(sorted(lasting))} steps"
            results[title] = {run: Result(measure, unit, why_not=apart) for run in seen}
        found += state_differences(title, unit, results[title])
    return offsets, results, found


def _reference_steps(probes: Sequence[Probe]) -> str:
    """How long the references of a run's probes last."""
    return listed(sorted({str(len(b.action)) for one in probes for b in one.of("reference")}))


def on_recordings(
    recordings: Mapping[str, Sequence[Recording]],
) -> tuple[dict[str, dict[str, Result]], list[Difference]]:
    """What is measured at recorded instants: of each run alone, and between runs.

    Of the first actions and the offsets that all runs guess; a measure that no run answers is left
    out.
    """
    results: dict[str, dict[str, Result]] = {}
    found: list[Difference] = []
    recordings = guessed_alike(recordings)
    for title, (measure, unit, options) in RECORDED.items():
        measured = _computing(measure, options)
        alone = {run: measured(logs) for run, logs in recordings.items()}
        if any(one.value is not None for one in alone.values()):
            results[title] = alone
            found += recorded_differences(title, unit, recordings, measured)
    return results, found


def coupled(recordings: Mapping[str, Sequence[Recording]]) -> list[Coupled]:
    """Coupling by each side: of a run with both its queries, or else with another run's half."""
    has = {
        run: {query for one in logs for query in one.likelihood} for run, logs in recordings.items()
    }
    found = []
    for side, queries in SIDES.items():
        for run, logs in recordings.items():
            if {*queries} <= has[run]:
                found.append(Coupled(side, run, run, compute("coupling_nats", logs, side=side)))
            elif queries.alone in has[run]:
                found += [
                    Coupled(side, run, other, coupling_of_two(logs, theirs, side))
                    for other, theirs in recordings.items()
                    if queries.given in has[other]
                ]
    return found


def _computing(measure: str, options: Mapping[str, str]) -> Callable[[Sequence[Recording]], Result]:
    return lambda logs: compute(measure, logs, **options)


def named(folders: Sequence[str | Path]) -> dict[str, Path]:
    """The folders by the shortest ends of their paths that tell them apart."""
    paths = [Path(folder).resolve() for folder in folders]
    if len(paths) < 2:
        raise ValueError(f"comparing takes at least 2 runs, got {len(paths)}")
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"{path} was given twice: a run cannot be told from itself")
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, paths, strict=True))


def sentence(one: Difference) -> str:
    """What a difference says, or that it says nothing."""
    if one.value is None:
        return f"{one.first} and {one.second} share nothing on which {one.measure} is known."
    times, digits = (100, 1) if one.unit == "points" else (1, 2)
    by = words.number(abs(times * one.value), digits)
    where = f"{words.count(one.n, one.paired)} shared"
    ends = one.interval
    if ends is not None and one.higher == one.second:
        ends = Interval(-ends.high, -ends.low)
    interval = words.between(ends, digits, times)
    few = f"{where}, for an interval it takes {FEWEST}"
    said = f"({interval}; {where})" if interval else f"({few if one.n < FEWEST else where})"
    p = "" if one.adjusted is None else f", p = {words.number(one.adjusted, 3)} by Holm"
    if not one.higher:
        return f"{one.measure}: {one.first} and {one.second} cannot be told apart {said}{p}."
    other = one.second if one.higher == one.first else one.first
    unit = f" {one.unit}" if one.unit else ""
    return f"{one.measure}: {one.higher} is above {other} by {by}{unit} {said}{p}."


def sentences(found: Compared) -> list[str]:
    """Every difference in words."""
    known = [one for one in found.success_differences if one.value is not None]
    others = (*found.state_differences, *found.recorded_differences)
    return [sentence(one) for one in (*known, *others)] + [of_coupling(c) for c in found.coupled]


def of_coupling(one: Coupled) -> str:
    """What future and action know of each other, and by whose denoisers."""
    alone, given = SIDES[one.side]
    whose = f"{alone} of {one.alone} less {given} of {one.given}"
    if one.result.value is None:
        return f"Coupling by the {one.side}, {whose}: {one.result.why_not}."
    interval = words.between(one.result.interval, 1)
    over = words.count(one.result.n, "episode")
    within = f"{interval}; {over}" if interval else over
    value = words.number(one.result.value, 1)
    kind = "an estimate"
    if one.alone != one.given:
        kind += " by two networks, whose errors do not cancel"
    return f"Coupling by the {one.side}, {whose}: {value} nats ({within}), {kind}."


def write_page(found: Compared, path: str | Path) -> Path:
    """Write the page of a comparison; returns its path."""
    page = (
        environment()
        .get_template("compare.html.j2")
        .render(
            found=found,
            sentences=sentences(found),
            fewest=FEWEST,
            tasks=task_rows(found),
            success=difference_rows(found.success_differences, 100.0, 10.0),
            states=_sections(found.states, found.state_differences),
            recorded=_sections(found.recorded, found.recorded_differences),
        )
    )
    return write_atomic(Path(path), lambda file: file.write(page.encode()))


def plain(found: Compared) -> dict[str, Any]:
    """The comparison as JSON values."""
    return asdict(found)


def task_rows(found: Compared) -> list[dict[str, Any]]:
    """Each task's rate by run, and all tasks together."""
    tasks = sorted({env for result in found.success.values() for env in result.parts})
    rows = [
        {"env": env, "rates": {run: r.parts.get(env) for run, r in found.success.items()}}
        for env in tasks
    ]
    return [*rows, {"env": "all tasks", "rates": found.success}] if rows else []


def _sections(
    results: Mapping[str, Mapping[str, Result]], found: Sequence[Difference]
) -> list[dict[str, Any]]:
    """By measure what each run has alone, and the rows of its differences."""
    mine = {title: [one for one in found if one.measure == title] for title in results}
    return [
        {"title": title, "runs": runs, "rows": difference_rows(mine[title], 1.0, 0.1)}
        for title, runs in results.items()
    ]


def difference_rows(found: Sequence[Difference], times: float, step: float) -> list[dict[str, Any]]:
    """Differences, ``times`` as large, with their charts on one common axis."""
    marks = [
        (one, Mark(times * one.value, _scaled(one.interval, times)))
        for one in found
        if one.value is not None
    ]
    ends = [end for _, mark in marks for end in (mark.interval or [mark.value])]
    axis = Axis(*charts.nice_range(ends, step)) if marks else Axis(0.0, 1.0)
    return [
        {
            "one": one,
            "value": mark.value,
            "interval": mark.interval,
            "chart": charts.intervals([mark], axis, f"{one.first} less {one.second}"),
        }
        for one, mark in marks
    ]


def _scaled(interval: Sequence[float] | None, times: float) -> list[float] | None:
    return None if interval is None else [times * end for end in interval]
