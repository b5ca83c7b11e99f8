"""Does what was imagined agree with what the imagined action does? Pixel variant, entity by entity.

From one exactly restored state the model draws pairs of an imagined future ``x^_i`` and an action;
each action is executed and gives ``x*_i``. The distance between two frames is the root mean square
over one region: the union of the entity's masks in the frame now and in every execution compared.

    EIC    = 1 - mean_i d(x^_i, x*_i) / mean_{i != j} d(x^_i, x*_j)
    EIC_cf = 1 - mean_i d(x^_i, x*_i) / mean_{i, k} d(x^_i, x*_k)      k: `LISTED` imposed actions
    SKILL  = 1 - mean_i d(x^_i, x*_i) / mean_i d(x_now, x*_i)

EIC is 1 for coupled and right, 0 for no coupling (the same-state shuffled pairing), below 0 for
worse than another sample of itself. EIC_cf has no zero of its own. The values of the controls on
the same states stand in ``details``, with the paired difference over the first:

    static            the frame now, again and again
    retrieval         the future of the nearest training clip, where rivals were saved
    shuffled_action   what comes of the own actions, the steps of each in another order
    wrong_world       what comes of them in another physics: of all in which the entity mostly
                      ends elsewhere the one that scores best, which ``wrong_world_is``
    oracle            the executions themselves

The last three pass through the model's own codec; the first two are as the camera saw them.

To be above static is necessary and not sufficient: a model that imagines another of its own
samples is above static as well, and only EIC shows it.

A state counts only where its gates are open, in absolute units: by entity poses the executions
must end further apart (SKILL: further from the start) than 10 mm for the hand or 5 mm for an
object, and their frames must differ by more than 3 x the pixel noise, at least 1/255. Elsewhere
the measure is undefined, never 1. Gates look at positions: a turn on the spot does not open them.

``entity`` is ``robot``, the name of an object, or ``object`` for everything but the robot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from wamlab.metrics.base import (
    NotApplicable,
    Result,
    Row,
    imagining,
    in_another_order,
    in_worlds,
    metric,
    mostly,
    state_name,
    summarise,
    why_nothing_imagined,
    wrong_world,
)
from wamlab.metrics.rivals import NearestClip
from wamlab.metrics.stats import interval_over
from wamlab.metrics.visual import RivalFrames, check_same_shape, executed, named, unit
from wamlab.types import Branch, Frames, Probe

ROBOT = "robot"
OBJECT = "object"
HAND_GATE = 0.010
OBJECT_GATE = 0.005
FEWEST_PIXELS = 4
LISTED = ("zero", "mirrored", "truncated", "half-speed")
"""The imposed actions that EIC_cf is taken against, whatever else was imposed: a fixed set, or two
models probed with different interventions could not be compared."""
UNCHANGED = "unchanged"
SEQUENCES = (UNCHANGED, *LISTED)
"""The imposed actions between which IEA takes effects: the planned one as it is, and the listed."""

Video = Float[np.ndarray, "k h w c"]
Pair = tuple[float, float]
"""Distance to the own executions, and to the others."""


@dataclass(frozen=True)
class Look:
    """One entity in one view at one offset: the own branches and those they are held against."""

    probe: Probe
    entity: str
    view: str
    t: int
    own: Sequence[Branch]
    other: Sequence[Branch]
    retrieved: Frames | None = None
    reordered: Sequence[Branch] = ()
    elsewhere: Mapping[str, Sequence[Branch]] = field(default_factory=dict)

    @property
    def offset(self) -> int:
        return int(self.own[0].offsets[self.t])

    def region(self) -> Bool[np.ndarray, "h w"]:
        """The union of the entity's pixels now and in every execution compared."""
        key = f"{self.view}/{self.entity}"
        here = [self.probe.masks[key][0]]
        for branch in (*self.own, *self.other):
            if not branch.masks:
                raise NotApplicable(f"branch {branch.label!r} of {self.probe.env} holds no masks")
            here.extend([branch.masks[key][self.t]] if key in branch.masks else [])
        return np.logical_or.reduce(here)

    def now(self) -> Float[np.ndarray, "h w c"]:
        return unit(self.probe.now[self.view][0], self._named("frames now"))

    def imagined(self) -> Video:
        frames = [branch.imagined[self.view][self.t] for branch in self.own if branch.imagined]
        return unit(np.stack(frames), self._named("imagined frames"))

    def controls(self) -> dict[str, Float[np.ndarray, "*k h w c"]]:
        """What the controls show in the place of the imagination."""
        shown = {"static": self.now(), "oracle": self.recoded(self.own)}
        if self.retrieved is not None:
            clip = self.retrieved[self.view][self.t]
            shown["retrieval"] = unit(clip, self._named("retrieved frames"))
        if self.reordered:
            shown["shuffled_action"] = self.recoded(self.reordered)
        return shown

    def recoded(self, branches: Sequence[Branch]) -> Video:
        """What could be shown of executions at best: as far as the model's codec keeps them."""
        frames = [(branch.recoded or branch.happened)[self.view][self.t] for branch in branches]
        return unit(np.stack(frames), self._named("executed frames"))

    def wrong_worlds(self) -> dict[str, Video]:
        """What the executions in other worlds show, through the codec as well."""
        return {name: self.recoded(branches) for name, branches in self.elsewhere.items()}

    def away(self) -> dict[str, float]:
        """How far, in metres, the entity ends from where it truly does, in each other world."""
        ends = self.places(self.own, self.offset)
        return {
            name: float(np.linalg.norm(self.places(there, self.offset) - ends, axis=-1).mean())
            for name, there in self.elsewhere.items()
        }

    def executed(self, branches: Sequence[Branch]) -> Video:
        frames = [branch.happened[self.view][self.t] for branch in branches]
        return unit(np.stack(frames), self._named("executed frames"))

    def _named(self, what: str) -> str:
        return named(state_name(self.probe), self.view, what)

    def places(self, branches: Sequence[Branch], step: int) -> Float[np.ndarray, "k 3"]:
        """Where the entity is after ``step`` actions, in metres."""
        return np.array([branch.entities[self.entity][step][:3] for branch in branches], float)

    def spread(self) -> Float[np.ndarray, "own other"]:
        """How far apart, in metres, the entity ends in each own and each other execution."""
        ends = self.places(self.own, self.offset), self.places(self.other, self.offset)
        return np.linalg.norm(ends[0][:, None] - ends[1][None], axis=-1)

    def motion(self) -> float:
        """How far, in metres, the entity moves in the own executions, on average."""
        travel = self.places(self.own, self.offset) - self.places(self.own, 0)
        return float(np.linalg.norm(travel, axis=-1).mean())


@dataclass(frozen=True)
class Form:
    """A measure of pairs: which are the own, what they are held against, what opens the gate.

    A pair holds distances to the ``power``.
    """

    name: str
    others: Callable[[Probe], list[Branch]]
    pair: Callable[[Look, Video, Bool[np.ndarray, "h w"]], Pair]
    metres: Callable[[Look], float]
    power: int = 1
    own: Callable[[Probe], list[Branch]] = imagining


@dataclass(frozen=True)
class Measured:
    """One look's distances for the imagination (``model``), for each control and each other world.

    ``moves`` says whether the executions lead the entity away by more than the gate, ``elsewhere``
    in which worlds it ends elsewhere by more than that. ``closed`` says why the gate is closed, ""
    where it is open.
    """

    state: str
    parts: tuple[str, ...]
    pairs: Mapping[str, Pair]
    worlds: Mapping[str, Pair] = field(default_factory=dict)
    moves: bool = False
    elsewhere: frozenset[str] = frozenset()
    closed: str = ""


@metric("eic", needs="probes")
def eic(
    probes: Sequence[Probe], *, entity: str = ROBOT, rivals: RivalFrames | None = None
) -> Result:
    """Executed-imagination consistency against same-state shuffled pairs (see the module)."""
    _need_imagined(probes)
    if all(len(imagining(probe)) < 2 for probe in probes):
        raise NotApplicable("EIC needs two samples from one state; the probes hold one")
    return consistency(EIC, probes, entity, rivals)


@metric("eic_cf", needs="probes")
def eic_cf(
    probes: Sequence[Probe], *, entity: str = ROBOT, rivals: RivalFrames | None = None
) -> Result:
    """The counterfactual form, against executions of imposed actions; for one sample as well."""
    _need_imagined(probes)
    labels = sorted({branch.label for probe in probes for branch in listed(probe)})
    if not labels:
        raise NotApplicable(f"the probes hold no imposed branches ({', '.join(LISTED)})")
    return consistency(EIC_CF, probes, entity, rivals, imposed=labels)


@metric("skill", needs="probes")
def skill(
    probes: Sequence[Probe], *, entity: str = ROBOT, rivals: RivalFrames | None = None
) -> Result:
    """How much nearer the imagined future is to what happened than the frame now is."""
    _need_imagined(probes)
    return consistency(SKILL, probes, entity, rivals)


@metric("div", needs="probes", unit="m")
def div(probes: Sequence[Probe], *, entity: str = ROBOT) -> Result:
    """How far apart the model's own actions end from one state: the mean pairwise distance."""
    rows: list[Row] = []
    several = [probe for probe in probes if len(probe.of("own")) > 1]
    for probe in several:
        own = probe.of("own")
        for name in _named(probe.entities, entity):
            for t, offset in enumerate(own[0].offsets):
                value = off_diagonal(Look(probe, name, "", t, own, own).spread())
                rows.append(Row(state_name(probe), f"@{offset}", value))
    undefined = ["fewer than two samples from the state"] * (len(probes) - len(several))
    return summarise("div", "m", rows, undefined, floor=gate_metres(entity))


def distance(
    first: Float[np.ndarray, "*k h w c"],
    second: Float[np.ndarray, "*l h w c"],
    region: Bool[np.ndarray, "h w"],
) -> Float[np.ndarray, "..."]:
    """Root mean square difference over the pixels of a region; leading axes broadcast."""
    difference = first[..., region, :] - second[..., region, :]
    return np.asarray(np.sqrt((difference**2).mean(axis=(-2, -1))))


def pixel_gate(probe: Probe) -> float:
    """The smallest pixel distance that counts: 3 x the pixel noise, at least 1/255."""
    return max(3 * probe.pixel_noise, 1.0) / 255


def gate_metres(entity: str) -> float:
    """The smallest distance between positions that counts."""
    return HAND_GATE if entity == ROBOT else OBJECT_GATE


def listed(probe: Probe) -> list[Branch]:
    """The imposed branches that everything else that could have been done stands for: `LISTED`."""
    return [branch for branch in probe.of("imposed") if branch.label in LISTED]


def _against_samples(look: Look, shown: Video, region: Bool[np.ndarray, "h w"]) -> Pair:
    every = distance(shown[:, None], look.executed(look.own)[None], region)
    return float(np.diagonal(every).mean()), off_diagonal(every)


def _against_imposed(look: Look, shown: Video, region: Bool[np.ndarray, "h w"]) -> Pair:
    own = distance(shown, look.executed(look.own), region)
    other = distance(shown[:, None], look.executed(look.other)[None], region)
    return float(own.mean()), float(other.mean())


def _against_now(look: Look, shown: Video, region: Bool[np.ndarray, "h w"]) -> Pair:
    executed = look.executed(look.own)
    own, still = distance(shown, executed, region), distance(look.now(), executed, region)
    return float(own.mean()), float(still.mean())


EIC = Form(
    "eic",
    others=imagining,
    pair=_against_samples,
    metres=lambda look: min(look.motion(), off_diagonal(look.spread())),
)
EIC_CF = Form(
    "eic_cf",
    others=listed,
    pair=_against_imposed,
    metres=lambda look: float(look.spread().mean()),
)
SKILL = Form("skill", others=imagining, pair=_against_now, metres=Look.motion)


def consistency(
    form: Form, probes: Sequence[Probe], entity: str, rivals: RivalFrames | None, **details: Any
) -> Result:
    """The measure of a form over probes, beside its controls."""
    shown = rivals or {}
    measured = [
        one
        for probe in probes
        for one in _measure(form, probe, entity, shown.get(state_name(probe), {}))
    ]
    if not measured:
        raise NotApplicable(f"the probes hold no masks and poses of {entity!r} to compare")
    details["gate_metres"] = gate_metres(entity)
    details["gate_pixels"] = max(pixel_gate(probe) for probe in probes)
    return _aggregate(form.name, measured, details)


def _measure(
    form: Form, probe: Probe, entity: str, rivals: Mapping[str, Frames]
) -> Iterator[Measured]:
    own, other = form.own(probe), form.others(probe)
    if not own or not other:
        return
    seen = {key.split("/", 1)[1] for key in probe.masks}
    retrieved = rivals.get(NearestClip.name)
    reordered = _filmed(in_another_order(probe, own))
    elsewhere = {world: _filmed(found) for world, found in in_worlds(probe, own).items()}
    elsewhere = {world: found for world, found in elsewhere.items() if found}
    for name in _named(seen & set(probe.entities), entity):
        for view in own[0].imagined or {}:
            if f"{view}/{name}" in probe.masks:
                _check_frames(probe, view, own, other, reordered, *elsewhere.values())
                if retrieved:
                    check_same_shape(probe, view, retrieved[view], own[0].happened[view])
                for t in np.flatnonzero(own[0].offsets > 0):
                    sides = own, other, retrieved, reordered, elsewhere
                    yield _measure_look(form, Look(probe, name, view, int(t), *sides))


def _measure_look(form: Form, look: Look) -> Measured:
    state = state_name(look.probe)
    stratum = [look.probe.stratum] if look.probe.stratum else []
    parts = (f"{look.view}@{look.offset}", look.entity, *stratum)
    closed = lambda why: Measured(state, parts, {}, closed=why)  # noqa: E731
    if form.pair is _against_samples and len(look.own) < 2:
        return closed("one sample only")
    gate = gate_metres(look.entity)
    if form.metres(look) <= gate:
        return closed(f"positions differ by {1000 * gate:.0f} mm or less")
    region = look.region()
    if region.sum() < FEWEST_PIXELS:
        return closed("the entity is not to be seen")
    imagined = look.imagined()

    def pairs_of(shown: Mapping[str, Video]) -> dict[str, Pair]:
        return {
            kind: form.pair(look, np.broadcast_to(video, imagined.shape), region)
            for kind, video in shown.items()
        }

    if pairs_of({"": look.executed(look.own)})[""][1] <= pixel_gate(look.probe) ** form.power:
        return closed("the frames differ by no more than the pixel gate")
    elsewhere = frozenset(world for world, far in look.away().items() if far > gate)
    pairs = pairs_of({"model": imagined, **look.controls()})
    worlds = pairs_of(look.wrong_worlds())
    return Measured(state, parts, pairs, worlds, look.motion() > gate, elsewhere)


def _aggregate(name: str, measured: Sequence[Measured], details: dict[str, Any]) -> Result:
    """Ratios of sums over states, with a bootstrap over states."""
    open_ = [one for one in measured if not one.closed]
    states = sorted({one.state for one in open_})
    undefined = _why_closed(measured, set(states))
    if not states:
        said = "; ".join(f"{why}: {count}" for why, count in undefined.items())
        return Result(name, why_not=f"no state opens the gate ({said})", undefined=undefined)
    rows = _by_state(states, [(one.state, one.pairs) for one in open_])
    model = rows["model"]
    worlds = _by_state(states, [(one.state, one.worlds) for one in open_])
    moving = [one for one in open_ if one.moves]
    scores = {
        world: _ratio(rows_there)
        for world, rows_there in sorted(worlds.items())
        if mostly([world in one.elsewhere for one in moving])
    }
    if not model[:, 1].sum() > 0:
        return Result(name, why_not="what was imagined equals every other execution")
    parts = sorted({part for one in measured for part in one.parts})
    return Result(
        name,
        value=_ratio(model),
        interval=interval_over(model, statistic=_ratio),
        n=len(states),
        items={s: _ratio(row[None]) for s, row in zip(states, model, strict=True) if row[1] > 0},
        sides={
            s: (float(own), float(other)) for s, (own, other) in zip(states, model, strict=True)
        },
        undefined=undefined,
        details={**details, **_beside(rows), **wrong_world(scores)},
        parts={
            part: _aggregate(name, [one for one in measured if part in one.parts], {})
            for part in parts
            if any(part not in one.parts for one in measured)
        },
    )


def _beside(rows: Mapping[str, Float[np.ndarray, "n 2"]]) -> dict[str, Any]:
    """The controls' values, how far the model is above a static future, paired by state, and how
    far of the way from there to the oracle."""
    over = lambda rows: _ratio(rows[:, 0]) - _ratio(rows[:, 1])  # noqa: E731
    paired, whole = (np.stack([rows[k], rows["static"]], axis=1) for k in ("model", "oracle"))
    return {
        **{kind: _ratio(pairs) for kind, pairs in rows.items() if kind != "model"},
        "normalised": over(paired) / over(whole) if over(whole) > 0 else None,
        "over_static": over(paired),
        "over_static_interval": interval_over(paired, statistic=over),
    }


def _by_state(
    states: Sequence[str], looks: Sequence[tuple[str, Mapping[str, Pair]]]
) -> dict[str, Float[np.ndarray, "n 2"]]:
    """The mean pair of every state, of each kind that all looks hold."""
    kinds = [kind for kind in looks[0][1] if all(kind in pairs for _, pairs in looks)]
    return {
        kind: np.array(
            [np.mean([pairs[kind] for state, pairs in looks if state == s], axis=0) for s in states]
        )
        for kind in kinds
    }


def _ratio(pairs: Float[np.ndarray, "n 2"]) -> float:
    own, other = pairs.sum(axis=0)
    return float(1 - own / other) if other > 0 else float("nan")


def _why_closed(measured: Sequence[Measured], opened: set[str]) -> dict[str, int]:
    """How many states never open, by the commonest reason of each."""
    reasons: dict[str, Counter[str]] = {}
    for one in measured:
        if one.state not in opened:
            reasons.setdefault(one.state, Counter())[one.closed] += 1
    return dict(Counter(counts.most_common(1)[0][0] for counts in reasons.values()))


def _need_imagined(probes: Sequence[Probe]) -> None:
    if not any(imagining(probe) for probe in probes):
        raise NotApplicable(why_nothing_imagined(probes))


def _named(known: Any, entity: str) -> list[str]:
    if entity == OBJECT and OBJECT not in known:
        return sorted(set(known) - {ROBOT})
    return [entity] if entity in known else []


def _filmed(branches: Sequence[Branch]) -> Sequence[Branch]:
    """These branches if all were looked at while they were executed, else none."""
    return branches if all(branch.happened for branch in branches) else ()


def _check_frames(probe: Probe, view: str, *groups: Sequence[Branch]) -> None:
    branches = [branch for group in groups for branch in group]
    seen = [branch.imagined[view] for branch in branches if branch.imagined]
    check_same_shape(probe, view, *seen, *(executed(probe, branch, view) for branch in branches))
    for branch in branches:
        if not np.array_equal(branch.offsets, branches[0].offsets):
            raise ValueError(f"{state_name(probe)}: branches are shown at different offsets")
        if branch.offsets.max() > len(branch.action):
            raise ValueError(
                f"{state_name(probe)}: branch {branch.label!r} is shown after its "
                f"{len(branch.action)} actions, at offset {branch.offsets.max()}"
            )


def off_diagonal(square: Float[np.ndarray, "k k"]) -> float:
    """The mean of what each of several makes of each other."""
    return float(square[~np.eye(len(square), dtype=bool)].mean())
