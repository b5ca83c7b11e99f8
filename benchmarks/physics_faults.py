"""Which measure of physical commonsense sees which planted fault, and does real video pass?

    python benchmarks/physics_faults.py

Of each task, real clips of the expert are recorded and shown again in the simulator, as they were
and at fault (`wamlab.sim.faults`). The threshold of each measure comes from real clips of *other*
episodes alone: the level that a further real clip exceeds with probability `ALPHA` at most
(split conformal), for free things and for things that a joint holds apart, and never below the
measure's absolute gate. A fault is caught where its clip exceeds the threshold; a measure that does
not apply to a clip catches nothing there.

Segmentation and states are the simulator's own: what a reader of imagined frames adds in errors is
not in these numbers, except in the rows "by colour", which see pixels and the masks of the first
frame alone.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import machine
import numpy as np
from physics_clips import LENGTH, Clip, Task, tasks_of
from synthetic import publish
from tqdm import tqdm

from wamlab.geometry.boxes import lowest
from wamlab.metrics import motion, physics, physics_frames
from wamlab.metrics.base import NotApplicable
from wamlab.metrics.joint import OBJECT_GATE, ROBOT
from wamlab.metrics.stats import wilson
from wamlab.metrics.surprise import conformal_threshold
from wamlab.sim.faults import FAULTS

ALPHA = 0.05


@dataclass(frozen=True)
class Measure:
    """A violation of one clip beside what truly happened; what it reads; its absolute gate."""

    reads: str
    unit: str
    value: Callable[[Clip, Clip], float]
    gate: float
    needs_truth: bool = False


def _unexplained(clip: Clip, truth: Clip) -> float:
    held = physics.touched_by(clip.contacts, clip.thing, moving=physics.moving(clip.poses))
    return physics.motion_without_contact(clip.place, held)


def _gravity(clip: Clip, truth: Clip) -> float:
    if not clip.free:
        raise NotApplicable("a joint holds the thing")
    low = lowest(clip.boxes[clip.thing], clip.poses[clip.thing])
    free = physics.in_flight(low, physics.touched_by(clip.contacts, clip.thing, grace=1))
    return physics.gravity_error(clip.place, free, clip.rate_hz)


def _deeper(clip: Clip, truth: Clip) -> float:
    return physics.interpenetration(clip.poses, clip.boxes)


def _lost(clip: Clip, truth: Clip) -> float:
    return physics_frames.lost(clip.masks[clip.thing], clip.front)


def _shape(clip: Clip, truth: Clip) -> float:
    return physics_frames.shape_change(clip.masks[clip.thing], clip.front)


def _by_colour(
    measure: Callable[[np.ndarray, np.ndarray], float],
) -> Callable[[Clip, Clip], float]:
    def value(clip: Clip, truth: Clip) -> float:
        now = {clip.thing: truth.masks[clip.thing][0], ROBOT: truth.front[0]}
        if not now[clip.thing].any():
            raise NotApplicable("the thing is not seen in the first frame")
        seen = physics_frames.look_alikes(clip.frames, now)
        return measure(seen[clip.thing], seen[ROBOT])

    return value


def _scene(clip: Clip, truth: Clip) -> float:
    return physics_frames.scene_change(clip.frames, truth.background)


def _motion(clip: Clip, truth: Clip) -> float:
    shown, real, other = (
        motion.perceived(frames, motion.PERCEPTION, seed)
        for seed, frames in enumerate((clip.frames, truth.frames, truth.frames))
    )
    return 1 - motion.motion_agreement(shown, real, other).value


FIRST_MASKS = "frames, masks at first"
SHARE, OUTLINE = "of the frames", "of the outline"
MEASURES = {
    "jump": Measure("states", "m/s", lambda clip, _: physics.jump(clip.place, clip.rate_hz), 0.4),
    "motion without contact": Measure("states, contacts", "m", _unexplained, OBJECT_GATE),
    "gravity": Measure("states, contacts", "m/s²", _gravity, 1.0),
    "interpenetration": Measure("poses, boxes", "m", _deeper, OBJECT_GATE),
    "lost": Measure("masks", SHARE, _lost, 0.0),
    "lost, by colour": Measure(FIRST_MASKS, SHARE, _by_colour(physics_frames.lost), 0.0),
    "shape change": Measure("masks", OUTLINE, _shape, 0.0),
    "shape change, by colour": Measure(
        FIRST_MASKS, OUTLINE, _by_colour(physics_frames.shape_change), 0.0
    ),
    "scene change": Measure("frames, true background", "of 1", _scene, 1 / 255),
    "motion against truth": Measure("frames, true frames", "of 1", _motion, 0.0, needs_truth=True),
}


@dataclass(frozen=True)
class Seen:
    """What the measures say of one clip: values, or why there is none."""

    task: str
    free: bool
    fault: str
    values: Mapping[str, float]
    why_not: Mapping[str, str]


def seen(clip: Clip, truth: Clip, fault: str) -> Seen:
    values, why_not = {}, {}
    for name, measure in MEASURES.items():
        try:
            values[name] = measure.value(clip, truth)
        except NotApplicable as reason:
            why_not[name] = str(reason)
    return Seen(clip.task, clip.free, fault, values, why_not)


def thresholds(calibration: Sequence[Seen]) -> dict[str, dict[str, float | None]]:
    """By kind of thing and measure; None where no real clip has a value, or there are too few.

    A clip to which a measure does not apply raises no alarm: it counts as lowest of all.
    """
    found: dict[str, dict[str, float | None]] = {}
    for kind, group in kinds(calibration).items():
        found[kind] = {}
        for name, measure in MEASURES.items():
            values = [one.values.get(name, -np.inf) for one in group]
            enough = len(values) + 1 >= 1 / ALPHA and max(values) > -np.inf
            limit = conformal_threshold(values, ALPHA) if enough else None
            found[kind][name] = None if limit is None else max(limit, measure.gate)
    return found


def kinds(every: Sequence[Seen]) -> dict[str, list[Seen]]:
    return {kind_of(free): [one for one in every if one.free == free] for free in (True, False)}


def kind_of(free: bool) -> str:
    return "free" if free else "held by a joint"


@dataclass(frozen=True)
class Judged:
    """One clip and the measures that raise an alarm on it."""

    clip: Seen
    limits: Mapping[str, Mapping[str, float | None]]

    @cached_property
    def alarms(self) -> set[str]:
        limits = self.limits[kind_of(self.clip.free)]
        return {
            name
            for name, value in self.clip.values.items()
            if (limit := limits[name]) is not None and value > limit
        }

    def applies(self, name: str) -> bool:
        limits = self.limits[kind_of(self.clip.free)]
        return name in self.clip.values and limits[name] is not None


UNIONS = {
    "any without the truth": lambda name: not MEASURES[name].needs_truth,
    "any": lambda name: True,
}


def confusion(judged: Sequence[Judged]) -> dict[str, dict[str, Any]]:
    """By fault (``real``: false alarms) and measure: alarms, clips, interval."""
    table: dict[str, dict[str, Any]] = {}
    for fault in dict.fromkeys(one.clip.fault for one in judged):
        group = [one for one in judged if one.clip.fault == fault]
        table[fault] = {name: _cell(group, {name}) for name in MEASURES}
        for name, belongs in UNIONS.items():
            table[fault][name] = _cell(group, set(filter(belongs, MEASURES)))
    return table


def _cell(group: Sequence[Judged], names: set[str]) -> dict[str, Any]:
    caught = sum(bool(one.alarms & names) for one in group)
    return {
        "alarms": caught,
        "clips": len(group),
        "applicable": sum(any(one.applies(name) for name in names) for one in group),
        "wilson_95": [round(end, 4) for end in wilson(caught, len(group))],
    }


def main() -> None:
    args = _arguments()
    before, began = machine.state(), time.perf_counter()
    tasks = tasks_of(args.tasks)
    calibration = [
        seen(clip, clip, "real")
        for task in tqdm(tasks, desc="calibration")
        for clip in task.real(range(args.calibration), size=args.image_size)
    ]
    limits = thresholds(calibration)
    tested = [one for task in tqdm(tasks, desc="test") for one in _tested(task, args)]
    judged = [Judged(one, limits) for one in tested]
    publish(
        args.out,
        {
            "machine": before,
            "seconds": round(time.perf_counter() - began, 1),
            "settings": {
                "image_size": args.image_size,
                "instants": LENGTH,
                "alpha": ALPHA,
                "noise": motion.PERCEPTION,
            },
            "faults": {name: fault.what for name, fault in FAULTS.items()},
            "clips": {"calibration": len(calibration), "test": args.test * len(tasks)},
            "tasks": {kind: sorted({c.task for c in g}) for kind, g in kinds(tested).items()},
            "reads": {name: measure.reads for name, measure in MEASURES.items()},
            "units": {name: measure.unit for name, measure in MEASURES.items()},
            "needs_truth": {name: measure.needs_truth for name, measure in MEASURES.items()},
            "thresholds": limits,
            "why_not": _reasons(tested),
            "confusion": confusion(judged),
            "by_kind": {
                kind: confusion([one for one in judged if kind_of(one.clip.free) == kind])
                for kind in limits
            },
            "values": _values(tested),
        },
    )


def _tested(task: Task, args: argparse.Namespace) -> Iterator[Seen]:
    for real, twins in task.twins(range(args.test), size=args.image_size):
        yield seen(real, real, "real")
        for fault, clip in twins.items():
            yield seen(clip, real, fault)


def _reasons(tested: Sequence[Seen]) -> dict[str, dict[str, int]]:
    return {
        name: dict(Counter(one.why_not[name] for one in tested if name in one.why_not))
        for name in MEASURES
    }


def _values(tested: Sequence[Seen]) -> list[dict[str, Any]]:
    return [
        {"task": one.task, "fault": one.fault, **{n: round(v, 5) for n, v in one.values.items()}}
        for one in tested
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", help="of Meta-World; all nine by default")
    parser.add_argument("--calibration", type=int, default=6, help="real clips of each task")
    parser.add_argument("--test", type=int, default=3, help="other clips of each task, with twins")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/physics_faults.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
