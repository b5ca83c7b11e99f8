"""The joint measures on states, from probes that a state reader has read.

``entity`` is ``robot`` or ``object``: of each state the thing that the reference executions, which
are the same for every model, move most. Where it was imagined is what the reader saw in the
imagined frames; where it went is what the simulator knows. The reader's own error on the frames of
the executions is in the controls beside every value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from wamlab.metrics import coupling, effects, worlds
from wamlab.metrics.base import (
    Metric,
    NotApplicable,
    Result,
    Row,
    imagining,
    metric,
    state_name,
    summarise,
    why_nothing_imagined,
)
from wamlab.metrics.joint import LISTED, OBJECT, ROBOT
from wamlab.metrics.joint_frames import told_apart, why_not_told
from wamlab.metrics.paths import Paths, Places
from wamlab.types import Branch, Probe, Reading

ENTITIES = (ROBOT, OBJECT)


def own_paths(probes: Sequence[Probe], entity: str = ROBOT) -> Paths:
    """Where the model's own samples were imagined and went.

    Raises:
        NotApplicable: nothing was imagined or read, no object is there, or the states hold
            different numbers of samples or offsets.
    """
    if not any(imagining(probe) for probe in probes):
        raise NotApplicable(why_nothing_imagined(probes))
    return _paths(probes, entity, imagining)


def imposed_paths(probes: Sequence[Probe], entity: str = ROBOT) -> Paths:
    """Where the `LISTED` interventions were imagined and went; see `own_paths`."""
    branches = [branch for probe in probes for branch in _listed(probe)]
    if not branches:
        raise NotApplicable(f"the probes hold no imposed branches ({', '.join(LISTED)})")
    if all(branch.imagined is None for branch in branches):
        raise NotApplicable(f"imposed actions are not imagined: {branches[0].why_not}")
    return _paths(probes, entity, _listed)


def instructed_paths(probes: Sequence[Probe], entity: str = ROBOT) -> Paths:
    """Where one sample for each instruction was imagined and went; see `own_paths`."""
    if not any(told_apart(probe) for probe in probes):
        raise NotApplicable(why_not_told(probes))
    return _paths(probes, entity, told_apart)


def executions(
    probes: Sequence[Probe],
    entity: str,
    offsets: Int[np.ndarray, " t"],
    of: Callable[[Probe], list[Branch]],
) -> Places:
    """Where these branches of each state led, which may never have been imagined."""
    chosen = [of(probe) for probe in probes]
    if not all(chosen) or len({len(branches) for branches in chosen}) > 1:
        counts = sorted({len(branches) for branches in chosen})
        raise NotApplicable(f"the states hold different numbers of executions: {counts}")
    return np.array(
        [
            [_went(branch, _name(probe, entity), offsets) for branch in branches]
            for probe, branches in zip(probes, chosen, strict=True)
        ]
    )


def on_states(name: str, measure: Callable[[Paths], Result], paths: Callable[..., Paths]) -> Metric:
    """A measure of `wamlab.metrics.coupling` or `effects` as a metric of probes.

    Its parts are the strata: where on the way to contact the states were taken.
    """

    @metric(name, needs="probes")
    def measured(
        probes: Sequence[Probe], *, entity: str = ROBOT, at: Sequence[int] | None = None
    ) -> Result:
        found = measure(paths(probes, entity), at=at)  # type: ignore[call-arg]
        strata = sorted({probe.stratum for probe in probes})
        if len(strata) < 2:
            return found
        of = lambda stratum: [probe for probe in probes if probe.stratum == stratum]  # noqa: E731
        parts = {stratum: measured(of(stratum), entity=entity, at=at) for stratum in strata}
        return replace(found, parts=parts)

    measured.__doc__ = f"{measure.__doc__}\n\nOf probes; see `wamlab.metrics.joint_states`."
    return measured


state_eic = on_states("state_eic", coupling.eic, own_paths)
state_skill = on_states("state_skill", coupling.skill, own_paths)
state_cmr = on_states("state_cmr", coupling.cmr, own_paths)
state_div = on_states("state_div", coupling.div, own_paths)
state_iea = on_states("state_iea", effects.iea, imposed_paths)
state_instruction_contrast = on_states(
    "state_instruction_contrast", effects.instruction_contrast, instructed_paths
)
state_ads = on_states("state_ads", effects.ads, imposed_paths)
state_cda = on_states("state_cda", effects.cda, imposed_paths)
state_distance_correlation = on_states(
    "state_distance_correlation", effects.distance_correlation, imposed_paths
)
state_cf_mae = on_states("state_cf_mae", effects.cf_mae, imposed_paths)


@metric("state_eic_cf", needs="probes")
def state_eic_cf(
    probes: Sequence[Probe], *, entity: str = ROBOT, at: Sequence[int] | None = None
) -> Result:
    """The counterfactual form: what was imagined against executions of the listed interventions.

    See `wamlab.metrics.coupling.eic_cf`.
    """
    paths = own_paths(probes, entity)
    return coupling.eic_cf(paths, executions(probes, entity, paths.offsets, _listed), at=at)


@metric("state_eic_ref", needs="probes")
def state_eic_ref(
    probes: Sequence[Probe], *, entity: str = ROBOT, at: Sequence[int] | None = None
) -> Result:
    """EIC over a denominator that is the same for every model.

    That of `wamlab.metrics.coupling.eic_ref`: the expert's chunk and the interventions on it.
    """
    paths = own_paths(probes, entity)
    references = executions(probes, entity, paths.offsets, _references)
    return coupling.eic_ref(paths, references, at=at)


@metric("state_error", needs="probes", unit="m")
def state_error(
    probes: Sequence[Probe], *, entity: str = ROBOT, at: Sequence[int] | None = None
) -> Result:
    """How far the imagined place is from the one that the own action led to, metres.

    The floor is the reader's error on the real frames of the same executions.
    """
    paths = own_paths(probes, entity)
    columns = paths.columns(at)
    away = np.linalg.norm(paths.imagined - paths.executed, axis=-1)[..., columns].mean(axis=(1, 2))
    reread = paths.controls()["oracle"]
    floor = np.linalg.norm(reread - paths.executed, axis=-1)[..., columns].mean()
    rows = [Row(state, "", float(value)) for state, value in zip(paths.states, away, strict=True)]
    moved = float(paths.motion()[:, columns].mean())
    return summarise("state_error", "m", rows, floor=float(floor), details={"moved": moved})


@metric("state_dwa", needs="probes")
def state_dwa(
    probes: Sequence[Probe],
    *,
    at: Sequence[int] | None = None,
    least_eic: float | None = worlds.LEAST_EIC,
) -> Result:
    """Which physics was imagined: how much nearer the true world is than the nearest other.

    See `wamlab.metrics.worlds.dwa`; of the robot and of the objects together.
    """
    every = [own_paths(probes, entity) for entity in ENTITIES if _there(probes, entity)]
    labels = sorted(
        {branch.label.partition(":")[0] for probe in probes for branch in probe.of("world")}
    )
    others = {
        world: {
            paths.entity: executions(probes, paths.entity, paths.offsets, _in(world))
            for paths in every
        }
        for world in labels
    }
    return worlds.dwa(every, others, at=at, least_eic=least_eic)


@metric("state_ocb", needs="probes", unit="rate")
def state_ocb(probes: Sequence[Probe], *, branches: str = "own") -> Result:
    """How much more often success is imagined than met, at the end of the chunk.

    See `wamlab.metrics.worlds.ocb`; in imagined frames it is the reader that sees success.

    Args:
        branches: ``own`` or ``imposed``: outcomes of the own actions, or of those that mostly fail.
    """
    chosen = [imagining(one) if branches == "own" else _listed(one) for one in probes]
    shown = [[(b, b.read.success[-1] > 0.5) for b in rows if b.read] for rows in chosen]
    if not all(shown) or len({len(rows) for rows in shown}) > 1:
        raise NotApplicable(_unread(probes))
    if any(branch.offsets[-1] != len(branch.action) for rows in shown for branch, _ in rows):
        raise NotApplicable("the end of the chunk is not imagined, where success is known")
    dreamt = np.array([[done for _, done in rows] for rows in shown])
    met = np.array([[branch.success for branch, _ in rows] for rows in shown])
    return worlds.ocb(dreamt, met, [state_name(probe) for probe in probes])


def _paths(probes: Sequence[Probe], entity: str, of: Callable[[Probe], list[Branch]]) -> Paths:
    every = [(probe, of(probe)) for probe in probes]
    unread = [b for _, branches in every for b in branches if b.read is None or b.reread is None]
    if unread or not all(branches for _, branches in every):
        raise NotApplicable(_unread(probes))
    shapes = {(len(branches), *b.offsets.tolist()) for _, branches in every for b in branches}
    if len(shapes) > 1:
        raise NotApplicable(
            f"the states hold different numbers of samples or offsets: {sorted(shapes)}"
        )
    if not _there(probes, entity):
        raise NotApplicable(f"the probes hold no {entity}")
    offsets = every[0][1][0].offsets
    rows = [(branches, _name(probe, entity)) for probe, branches in every]
    return Paths(
        entity,
        [state_name(probe) for probe in probes],
        offsets,
        np.array([probe.entities[_name(probe, entity)][:3] for probe in probes]),
        np.array([[_seen(b.read, name) for b in branches] for branches, name in rows]),
        np.array([[_went(b, name, offsets) for b in branches] for branches, name in rows]),
        np.array([[_seen(b.reread, name) for b in branches] for branches, name in rows]),
    )


def _name(probe: Probe, entity: str) -> str:
    """The entity's own name in this state; of objects that which the references move most."""
    if entity == ROBOT:
        return ROBOT
    things = [name for name in probe.entities if name != ROBOT]
    far = {
        name: sum(
            float(np.linalg.norm(branch.entities[name][-1, :3] - probe.entities[name][:3]))
            for branch in _references(probe)
        )
        for name in things
    }
    return max(far, key=lambda name: far[name])


def _there(probes: Sequence[Probe], entity: str) -> bool:
    if entity not in ENTITIES:
        raise KeyError(f"no entity {entity!r}: expected one of {ENTITIES}")
    return entity == ROBOT or all(set(probe.entities) - {ROBOT} for probe in probes)


def _went(branch: Branch, name: str, offsets: Int[np.ndarray, " t"]) -> Float[np.ndarray, "t 3"]:
    return branch.entities[name][offsets, :3]


def _seen(reading: Reading | None, name: str) -> Float[np.ndarray, "t 3"]:
    if reading is None or name not in reading.places:
        raise NotApplicable(f"no state reader has looked for {name!r}")
    return reading.places[name]


def _listed(probe: Probe) -> list[Branch]:
    return [branch for branch in probe.of("imposed") if branch.label in LISTED]


def _references(probe: Probe) -> list[Branch]:
    return probe.of("reference")


def _in(world: str) -> Callable[[Probe], list[Branch]]:
    return lambda probe: [
        branch for branch in probe.of("world") if branch.label.startswith(f"{world}:")
    ]


def _unread(probes: Sequence[Probe]) -> str:
    read = sum(bool(probe.reader) for probe in probes)
    return f"a state reader has read {read} of {len(probes)} probes"
