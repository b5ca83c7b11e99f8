"""The joint measures on states, from probes that a state reader has read.

``entity`` is ``robot``, ``object`` or the name of a thing. ``object`` is of each state the thing
that the reference executions, which are the same for every model, move most. Where it was imagined
is what the reader saw in the imagined frames; where it went is what the simulator knows. The
reader's own error on the frames of the executions is in the controls beside every value. The parts
of a measure are the strata: where on the way to contact the states were taken; where a state holds
several things, those of ``object`` are also the things by name. Nothing moves the background: how
well it is kept is `static_psnr`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int

from wamlab.config import nearest
from wamlab.metrics import coupling, effects, worlds
from wamlab.metrics.base import (
    Metric,
    NotApplicable,
    Result,
    by_stratum,
    imagining,
    in_another_order,
    in_worlds,
    metric,
    state_name,
    why_nothing_imagined,
)
from wamlab.metrics.joint import OBJECT, ROBOT, SEQUENCES, listed
from wamlab.metrics.joint_frames import told_apart, why_not_told
from wamlab.metrics.paths import Paths, Places
from wamlab.types import Branch, Probe, Reading

ENTITIES = (ROBOT, OBJECT)


def own_paths(probes: Sequence[Probe], entity: str = ROBOT) -> Paths:
    """Where the model's own samples were imagined and went, also in other worlds.

    Raises:
        NotApplicable: nothing was imagined or read, no object is there, or the states hold
            different numbers of samples or offsets.
    """
    if not any(imagining(probe) for probe in probes):
        raise NotApplicable(why_nothing_imagined(probes))
    paths = _paths(probes, entity, imagining)
    return replace(
        paths,
        elsewhere=_elsewhere(probes, entity, paths.offsets, imagining),
        shuffled=_shuffled(probes, entity, paths.offsets),
        retrieved=_retrieved(probes, entity, paths.offsets),
    )


def imposed_paths(probes: Sequence[Probe], entity: str = ROBOT) -> Paths:
    """Where the imposed `SEQUENCES` were imagined and went; see `own_paths`."""
    branches = [branch for probe in probes for branch in _sequences(probe)]
    if not branches:
        raise NotApplicable(f"the probes hold no imposed branches ({', '.join(SEQUENCES)})")
    if all(branch.imagined is None for branch in branches):
        raise NotApplicable(f"imposed actions are not imagined: {branches[0].why_not}")
    paths = _paths(probes, entity, _sequences)
    return replace(paths, elsewhere=_elsewhere(probes, entity, paths.offsets, _sequences))


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


def on_states(
    name: str,
    measure: Callable[..., Result],
    paths: Callable[[Sequence[Probe], str], Paths],
    *,
    beside: Callable[[Probe], list[Branch]] | None = None,
    unit: str = "",
) -> Metric:
    """A measure of `wamlab.metrics.coupling`, `effects` or `worlds` as a metric of probes.

    ``beside`` are the branches whose executions it takes besides paths, if it does.
    """

    @metric(name, needs="probes", unit=unit)
    def whole(probes: Sequence[Probe], entity: str, at: Sequence[int] | None) -> Result:
        held = _holding(probes, entity)
        found = paths(held, entity)
        if beside is None:
            return measure(found, at=at)
        return measure(found, executions(held, entity, found.offsets, beside), at=at)

    @metric(name, needs="probes", unit=unit)
    def measured(
        probes: Sequence[Probe], *, entity: str = ROBOT, at: Sequence[int] | None = None
    ) -> Result:
        def of(some: Sequence[Probe], entity: str = entity) -> Result:
            return whole(some, entity=entity, at=at)

        found = by_stratum(of(probes), _holding(probes, entity), of)
        if entity != OBJECT or found.value is None:
            return found
        things = {thing: of(probes, thing) for thing in _several(probes)}
        return replace(found, parts={**found.parts, **things})

    measured.__doc__ = f"{measure.__doc__}\n\nOf probes; see `wamlab.metrics.joint_states`."
    return measured


def _sequences(probe: Probe) -> list[Branch]:
    return [branch for branch in probe.of("imposed") if branch.label in SEQUENCES]


def _references(probe: Probe) -> list[Branch]:
    return probe.of("reference")


state_error = on_states("state_error", coupling.error, own_paths, unit="m")
state_eic = on_states("state_eic", coupling.eic, own_paths)
state_eic_ref = on_states("state_eic_ref", coupling.eic_ref, own_paths, beside=_references)
state_eic_cf = on_states("state_eic_cf", coupling.eic_cf, own_paths, beside=listed)
state_skill = on_states("state_skill", coupling.skill, own_paths)
state_cmr = on_states("state_cmr", coupling.cmr, own_paths, unit="rate")
state_div = on_states("state_div", coupling.div, own_paths, unit="m")
state_dwa = on_states("state_dwa", worlds.dwa, own_paths)
state_dwa_imposed = on_states("state_dwa_imposed", worlds.dwa_imposed, imposed_paths)
state_iea = on_states("state_iea", effects.iea, imposed_paths)
state_instruction_contrast = on_states(
    "state_instruction_contrast", effects.instruction_contrast, instructed_paths
)
state_ads = on_states("state_ads", effects.ads, imposed_paths)
state_cda = on_states("state_cda", effects.cda, imposed_paths)
state_distance_correlation = on_states(
    "state_distance_correlation", effects.distance_correlation, imposed_paths
)
state_cf_mae = on_states("state_cf_mae", effects.cf_mae, imposed_paths, unit="m")


@metric("state_ocb", needs="probes", unit="rate")
def state_ocb(probes: Sequence[Probe]) -> Result:
    """How much more often success is imagined than met, at the end of the chunk.

    See `wamlab.metrics.worlds.ocb`; in imagined frames it is the reader that sees success. Of the
    controls *static* is what it sees once the `zero` intervention was executed, *retrieval* what it
    sees in the nearest training clip, *shuffled_action* what comes of the own actions in another
    order, and *wrong_world* what comes of them in another physics: of all in which some outcome is
    another the one whose bias is least, which ``wrong_world_is``.
    """
    return by_stratum(_ocb("state_ocb", probes, imagining), probes, state_ocb)


@metric("state_ocb_imposed", needs="probes", unit="rate")
def state_ocb_imposed(probes: Sequence[Probe]) -> Result:
    """How much more often success is imagined than met, under imposed actions that mostly fail.

    As `state_ocb`, without the control of own actions in another order.
    """
    if not any(branch.imagined for probe in probes for branch in listed(probe)):
        raise NotApplicable("imposed actions are not imagined")
    return by_stratum(_ocb("state_ocb_imposed", probes, listed), probes, state_ocb_imposed)


def _ocb(name: str, probes: Sequence[Probe], of: Callable[[Probe], list[Branch]]) -> Result:
    shown = [[b for b in of(one) if b.read and b.reread] for one in probes]
    if not all(shown) or len({len(rows) for rows in shown}) > 1:
        raise NotApplicable(_unread(probes))
    if any(branch.offsets[-1] != len(branch.action) for rows in shown for branch in rows):
        raise NotApplicable("the end of the chunk is not imagined, where success is known")
    executed, own = np.array([[b.success for b in rows] for rows in shown]), of is imagining
    controls = _outcomes_seen(probes, executed.shape[1])
    if own and (shuffled := _successes(probes, lambda one: one.of("shuffled"))) is not None:
        controls["shuffled_action"] = shuffled
    found = worlds.ocb(
        np.array([[_done(b.read) for b in rows] for rows in shown]),
        executed,
        [state_name(probe) for probe in probes],
        reread=np.array([[_done(b.reread) for b in rows] for rows in shown]),
        controls=controls,
        elsewhere=_outcomes_elsewhere(probes, executed, of),
        others=None if own else _successes(probes, lambda one: one.of("own")),
    )
    return replace(found, metric=name)


def _done(reading: Reading | None) -> bool:
    return reading is not None and bool(reading.success[-1] > 0.5)


def _outcomes_seen(probes: Sequence[Probe], k: int) -> dict[str, Bool[np.ndarray, "n k"]]:
    """What the reader sees in the controls in the place of the imagination, where it has looked."""
    zeros = [next((b for b in probe.of("imposed") if b.label == "zero"), None) for probe in probes]
    seen: dict[str, list[Reading | None]] = {
        "static": [None if zero is None else zero.reread for zero in zeros],
        "retrieval": [probe.retrieved for probe in probes],
    }
    return {
        name: np.repeat([[_done(one)] for one in readings], k, axis=1)
        for name, readings in seen.items()
        if all(readings)
    }


def _outcomes_elsewhere(
    probes: Sequence[Probe],
    executed: Bool[np.ndarray, "n k"],
    of: Callable[[Probe], list[Branch]],
) -> dict[str, Bool[np.ndarray, "n k"]]:
    """The outcomes of these actions in each world in which every one was executed."""
    there = _everywhere(probes, of)
    found = {world: _successes(probes, of_world) for world, of_world in there.items()}
    return {
        world: outcomes
        for world, outcomes in found.items()
        if outcomes is not None and outcomes.shape == executed.shape
    }


def _successes(
    probes: Sequence[Probe], of: Callable[[Probe], list[Branch]]
) -> Bool[np.ndarray, "n m"] | None:
    """The outcomes of these executions, None where states hold different numbers of them."""
    rows = [[branch.success for branch in of(probe)] for probe in probes]
    return np.array(rows) if len({len(row) for row in rows}) == 1 and rows[0] else None


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
    if entity != OBJECT:
        return entity
    things = [name for name in probe.entities if name != ROBOT]
    far = {
        name: sum(
            float(np.linalg.norm(branch.entities[name][-1, :3] - probe.entities[name][:3]))
            for branch in _references(probe)
        )
        for name in things
    }
    return max(far, key=lambda name: far[name])


def _holding(probes: Sequence[Probe], entity: str) -> list[Probe]:
    """The probes of states in which this entity is; KeyError names the nearest that is known."""
    if entity in ENTITIES:
        return [*probes]
    if held := [probe for probe in probes if entity in probe.entities]:
        return held
    known = sorted({*ENTITIES, *(name for probe in probes for name in probe.entities)})
    raise KeyError(f"no entity {entity!r}{nearest(entity, known)}: the probes hold {known}")


def _several(probes: Sequence[Probe]) -> list[str]:
    """The things by name, where a state holds more than one."""
    things = [set(probe.entities) - {ROBOT} for probe in probes]
    return sorted(set().union(*things)) if max(map(len, things), default=0) > 1 else []


def _there(probes: Sequence[Probe], entity: str) -> bool:
    return entity == ROBOT or all(set(probe.entities) - {ROBOT} for probe in probes)


def _went(branch: Branch, name: str, offsets: Int[np.ndarray, " t"]) -> Float[np.ndarray, "t 3"]:
    return branch.entities[name][offsets, :3]


def _seen(reading: Reading | None, name: str) -> Float[np.ndarray, "t 3"]:
    if reading is None or name not in reading.places:
        raise NotApplicable(f"no state reader has looked for {name!r}")
    return reading.places[name]


def _elsewhere(
    probes: Sequence[Probe],
    entity: str,
    offsets: Int[np.ndarray, " t"],
    of: Callable[[Probe], list[Branch]],
) -> dict[str, Places]:
    """Where the actions of these branches lead in each world in which every one was executed."""
    return {
        world: executions(probes, entity, offsets, there)
        for world, there in _everywhere(probes, of).items()
    }


def _everywhere(
    probes: Sequence[Probe], of: Callable[[Probe], list[Branch]]
) -> dict[str, Callable[[Probe], list[Branch]]]:
    """Of each world in which the actions of these branches were executed from every state, what
    came of them there."""

    def there(world: str, probe: Probe) -> list[Branch]:
        return in_worlds(probe, of(probe))[world]

    shared = set.intersection(*(set(in_worlds(probe, of(probe))) for probe in probes))
    return {world: partial(there, world) for world in sorted(shared)}


def _shuffled(
    probes: Sequence[Probe], entity: str, offsets: Int[np.ndarray, " t"]
) -> Places | None:
    """Where the imagined own actions lead in another order, if every one was executed."""

    def ordered(probe: Probe) -> list[Branch]:
        return in_another_order(probe, imagining(probe))

    return executions(probes, entity, offsets, ordered) if all(map(ordered, probes)) else None


def _retrieved(
    probes: Sequence[Probe], entity: str, offsets: Int[np.ndarray, " t"]
) -> Float[np.ndarray, "n t 3"] | None:
    """Where the reader sees it in the nearest training clips, if it has looked at all of them."""
    read = [(one.retrieved, _name(one, entity)) for one in probes]
    seen = [clip.places[name] for clip, name in read if clip is not None and name in clip.places]
    whole = len(seen) == len(probes) and {len(one) for one in seen} == {len(offsets)}
    return np.array(seen) if whole else None


def _unread(probes: Sequence[Probe]) -> str:
    read = sum(bool(probe.reader) for probe in probes)
    return f"a state reader has read {read} of {len(probes)} probes"
