"""The metric contract: one metric is one pure function of episodes, probes or recordings.

A metric is a function marked with `metric`; it is found by its name in the files of this room. Its
answer is a `Result`: a value with its interval and what it was computed from, or the reason why
there is none. "Not applicable" is never a number.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from wamlab.config import nearest
from wamlab.metrics import pooled
from wamlab.metrics.stats import FEWEST, Interval, interval_over
from wamlab.types import Branch, Episode, Probe, Recording

AXES: dict[str, tuple[str, ...]] = {
    "policy success": ("success", "surprise"),
    "visual fidelity": ("visual", "perceptual"),
    "physical commonsense": ("physics", "motion"),
    "action plausibility": ("plausibility", "use"),
    "joint coupling": ("joint", "coupling", "effects", "worlds"),
    "recorded episodes": ("open_loop", "likelihood", "information"),
}
"""What is judged, and the files of this room that judge it; ``physics_frames`` goes to ``physics``.

A metric belongs to the axis of its file, and a report finds it there."""

Needs = Literal["episodes", "probes", "recordings"]
Logs = Sequence[Episode] | Sequence[Probe] | Sequence[Recording]

Sides = Mapping[str, tuple[float, float]]
"""By state, what it adds to both sums of a measure that is one less a ratio of sums."""


@dataclass(frozen=True)
class Result:
    """What a metric found.

    ``value`` is None exactly where ``why_not`` says why. ``items`` are the values by episode or
    state, ``n`` how many of them count, ``undefined`` how many do not, by reason; ``sides`` are
    those of the states where the value is one less a ratio of sums, and not the mean of the items.
    ``floor`` is the noise floor in the metric's unit, where there is one. ``details`` are further
    named numbers or intervals and ``parts`` the same metric over a part (a task, a view at an
    offset).
    """

    metric: str
    unit: str = ""
    value: float | None = None
    why_not: str = ""
    interval: Interval | None = None
    n: int = 0
    floor: float | None = None
    items: dict[str, float] = field(default_factory=dict)
    sides: dict[str, tuple[float, float]] = field(default_factory=dict)
    undefined: dict[str, int] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Result] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.value is None) != bool(self.why_not):
            raise ValueError(f"{self.metric}: a result has a value or says why not, got neither")
        if self.value is not None and not np.isfinite(self.value):
            raise ValueError(f"{self.metric} is {self.value}: an undefined value must say why")


class NotApplicable(Exception):
    """Raised inside a metric that cannot be computed from these logs; the message says why."""


@dataclass(frozen=True)
class Row:
    """One measured number: of which state or episode, in which part (a view at an offset)."""

    item: str
    part: str
    value: float


Metric = Callable[..., Result]


def metric(name: str, *, needs: Needs, unit: str = "") -> Callable[[Metric], Metric]:
    """Mark a function of episodes, probes or recordings as the metric of this name.

    Raises:
        ValueError: when it is called, logs that are not sound (`check_sound`).
    """

    def mark(function: Metric) -> Metric:
        @functools.wraps(function)
        def measured(logs: Logs, **options: Any) -> Result:
            from wamlab.metrics.sound import check_sound  # which calls logs as this file does

            try:
                if not logs:
                    raise NotApplicable(f"there are no {needs}")
                check_sound(logs)
                return function(logs, **options)
            except NotApplicable as reason:
                return Result(name, unit, why_not=str(reason))

        measured.metric_name, measured.needs, measured.unit = name, needs, unit  # type: ignore[attr-defined]
        return measured

    return mark


def names() -> list[str]:
    """The names of all metrics."""
    return sorted(_found())


def find(name: str) -> Metric:
    """The metric of this name; its ``needs`` says of which logs.

    Raises:
        KeyError: an unknown name, with the nearest one.
    """
    known = _found()
    if name not in known:
        raise KeyError(f"no metric {name!r}{nearest(name, known)}")
    return known[name]


def axis_of(name: str) -> str:
    """The axis of the metric of this name.

    Raises:
        KeyError: an unknown metric, or one whose file is of no axis.
    """
    file = find(name).__module__.rpartition(".")[2]
    for axis, files in AXES.items():
        if any(file == known or file.startswith(f"{known}_") for known in files):
            return axis
    raise KeyError(f"{name!r} is measured in {file}.py, which is of none of the axes {list(AXES)}")


def compute(name: str, logs: Logs, **options: Any) -> Result:
    """Compute the metric of this name."""
    return find(name)(logs, **options)


def state_name(probe: Probe) -> str:
    """How a probe's state is called in results and files."""
    return f"{probe.env}/{probe.seed}-{probe.step}"


def imagining(probe: Probe) -> list[Branch]:
    """The model's own branches that hold imagined frames."""
    return [branch for branch in probe.of("own") if branch.imagined]


def why_nothing_imagined(probes: Sequence[Probe]) -> str:
    """Why no own branch of these probes can be shown."""
    reasons = Counter(branch.why_not for probe in probes for branch in probe.of("own"))
    said = "; ".join(reason for reason in reasons if reason)
    if not reasons:
        return "the probes hold no branch of the model's own"
    return f"nothing was imagined that can be shown{': ' + said if said else ''}"


def rollout_name(episode: Episode) -> str:
    """How an episode is called in results: two training seeds may have played one start."""
    return "/".join(filter(None, (episode.policy, episode.env, str(episode.seed))))


Played = Mapping[str, tuple[str, str]]
"""By the name of an episode, its task and the policy that played it."""


def who_played(episodes: Iterable[Episode]) -> Played:
    """The task and the policy of each episode, by `rollout_name`."""
    return {rollout_name(one): (one.env, one.policy) for one in episodes}


def summarise(
    name: str,
    unit: str,
    rows: Sequence[Row],
    undefined: Iterable[str] = (),
    *,
    played: Played | None = None,
    **extra: Any,
) -> Result:
    """Mean over items of each item's mean, its bootstrap interval over items, and all parts.

    ``played`` says of episodes which task and policy they are of: every task then weighs the same,
    and policies (training seeds), tasks and episodes are drawn, as those of a rate of success are
    (`wamlab.metrics.pooled`). Fewer than `FEWEST` items have no interval.
    """
    reasons = dict(Counter(undefined))
    if not rows:
        said = "; ".join(f"{reason} ({count})" for reason, count in reasons.items())
        return Result(name, unit, why_not=said or "nothing to measure", undefined=reasons, **extra)
    items = item_means(rows)
    value, interval = _mean_over_items(items, played)
    parts = sorted({row.part for row in rows}) if len({row.part for row in rows}) > 1 else []
    return Result(
        name,
        unit,
        value=value,
        interval=interval,
        n=len(items),
        items=items,
        undefined=reasons,
        parts={
            part: summarise(name, unit, [row for row in rows if row.part == part], played=played)
            for part in parts
        },
        **extra,
    )


def in_worlds(probe: Probe, branches: Sequence[Branch]) -> dict[str, list[Branch]]:
    """What comes of the actions of these branches in each world in which all were executed."""
    known = {branch.label: branch for branch in probe.of("world")}
    names = dict.fromkeys(label.partition(": ")[0] for label in known)
    labels = {name: [f"{name}: {branch.label}" for branch in branches] for name in names}
    return {
        name: [known[label] for label in wanted]
        for name, wanted in labels.items()
        if all(label in known for label in wanted)
    }


def in_another_order(probe: Probe, branches: Sequence[Branch]) -> list[Branch]:
    """What comes of the actions of these branches in another order; none if one is missing."""
    known = {branch.label: branch for branch in probe.of("shuffled")}
    there = [known[branch.label] for branch in branches if branch.label in known]
    return there if len(there) == len(branches) else []


def mostly(held: Sequence[bool]) -> bool:
    """Whether something holds in more than half of the states."""
    return 2 * sum(held) > len(held)


def wrong_world(
    scores: Mapping[str, float], goodness: Callable[[float], float] = lambda score: score
) -> dict[str, Any]:
    """The details of the control *wrong world*, from the scores of all that lead elsewhere.

    ``goodness`` is higher for a better score.
    """
    if not scores:
        return {}
    best = max(scores, key=lambda world: goodness(scores[world]))
    return {"wrong_world": scores[best], "wrong_world_is": best, "wrong_worlds": dict(scores)}


def by_stratum(
    found: Result, probes: Sequence[Probe], measured: Callable[[Sequence[Probe]], Result]
) -> Result:
    """The result with the same of every stratum among its parts, where there are several."""

    def of(stratum: str) -> Result:
        try:
            return measured([probe for probe in probes if probe.stratum == stratum])
        except NotApplicable as reason:
            return Result(found.metric, found.unit, why_not=str(reason))

    strata = sorted({probe.stratum for probe in probes})
    if len(strata) < 2:
        return found
    return replace(found, parts={**found.parts, **{stratum: of(stratum) for stratum in strata}})


def _mean_over_items(
    items: Mapping[str, float], played: Played | None
) -> tuple[float, Interval | None]:
    values = np.array(list(items.values()))
    labels = [("", "") if played is None else played[item] for item in items]
    tasks, policies = ([*dict.fromkeys(side)] for side in zip(*labels, strict=True))
    if len(tasks) == len(policies) == 1:
        return float(values.mean()), interval_over(values)
    groups: dict[tuple[str, str], list[float]] = {}
    for label, one in zip(labels, items.values(), strict=True):
        groups.setdefault(label, []).append(one)
    cells = [[np.array(groups.get((task, one), [])) for one in policies] for task in tasks]
    mean = float(np.mean([np.concatenate(row).mean() for row in cells]))
    return mean, pooled.of_mean(cells) if len(values) >= FEWEST else None


def item_means(rows: Sequence[Row]) -> dict[str, float]:
    """The mean value of each item."""
    grouped: dict[str, list[float]] = {}
    for row in rows:
        grouped.setdefault(row.item, []).append(row.value)
    return {item: float(np.mean(values)) for item, values in grouped.items()}


@functools.cache
def _found() -> dict[str, Metric]:
    import wamlab.metrics as room

    modules = [
        importlib.import_module(f"{room.__name__}.{info.name}")
        for info in pkgutil.iter_modules(room.__path__)
    ]
    found = [item for module in modules for item in vars(module).values()]
    return {item.metric_name: item for item in found if hasattr(item, "metric_name")}
