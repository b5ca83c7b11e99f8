"""Does what is changed about the action change the imagination as it changes the world?

The paths of these measures are sequences imposed on the model, or instructions given to it, all
imagined with the same sampling noise. With ``D_kl`` the difference that k makes over l:

    IEA      1 - sum |D^_kl - D_kl|^2 / sum |D_kl|^2

1 is exact, 0 no response, below 0 a harmful one; a robot's large effect cannot hide an object's,
for entities stand apart. The measures for comparison are those of others: each is blind to
something that IEA sees, which its docstring names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from wamlab.metrics.base import Result
from wamlab.metrics.joint import gate_metres
from wamlab.metrics.over_states import average, consistency, share, within
from wamlab.metrics.paths import (
    Paths,
    Places,
    each_to_each,
    effects_between,
    need_several,
    other_pairs,
    size,
)
from wamlab.metrics.stats import interval_over


def iea(paths: Paths, *, at: Sequence[int] | None = None, gate: float | None = None) -> Result:
    """Interventional effect agreement: do imposed actions differ in the imagination as in truth?

    ``paths`` hold the imposed sequences. ``details``: ``gain``, how much of the true effect was
    imagined (above 1 over-reaction, 0 blindness), and ``spurious``, the mean effect in metres that
    was imagined between sequences whose true effect is within the gate; ``spurious_floor`` is that
    of the executions as they were read, the reader's error alone.

    Of probes the sequences are the first own action, `unchanged`, and the listed interventions on
    it. What the model imagined *with* that action, in a joint draw, is none of them: it was drawn
    with other noise and by another query.
    """
    need_several(paths, "IEA", "imposed sequences")
    return _agreement("state_iea", paths, at, gate)


def instruction_contrast(
    paths: Paths, *, at: Sequence[int] | None = None, gate: float | None = None
) -> Result:
    """Do futures imagined under other instructions differ as their executions do?

    ``paths`` hold one future by instruction, each beside the execution of its own action; the
    formula and the details are those of `iea`.
    """
    need_several(paths, "the instruction contrast", "instructions")
    return _agreement("state_instruction_contrast", paths, at, gate)


def ads(paths: Paths, *, at: Sequence[int] | None = None) -> Result:
    """Capped separation, for comparison: min(1, spread of imagined over spread of true paths).

    Blind to a mirrored and to an exaggerated effect. Imposed sequences, as are the three below.
    """
    need_several(paths, "ADS", "imposed sequences")
    columns, gate = paths.columns(at), gate_metres(paths.entity)
    true = paths.spread()[:, columns].mean(axis=1)
    imagined = other_pairs(each_to_each(paths.imagined, paths.imagined))[:, columns].mean(axis=1)
    values = np.full(len(true), np.nan)
    np.divide(imagined, true, out=values, where=true > gate)
    return average("state_ads", "", paths, np.minimum(values, 1), within(gate))


def cda(paths: Paths, *, at: Sequence[int] | None = None) -> Result:
    """Mean cosine between imagined and true displacement, for comparison.

    Rewards the direction that all actions of a task share. Displacements within the gate have no
    direction and are left out.
    """
    columns, gate = paths.columns(at), gate_metres(paths.entity)
    imagined = (paths.imagined - paths.still)[:, :, columns]
    true = (paths.executed - paths.still)[:, :, columns]
    sizes = size(imagined) * size(true)
    cosines = (imagined * true).sum(axis=-1) / np.where(sizes > 0, sizes, 1)
    moved = size(true) > gate
    counts = moved.sum(axis=(1, 2))
    values = np.where(counts, (cosines * moved).sum(axis=(1, 2)) / np.maximum(counts, 1), np.nan)
    return average("state_cda", "", paths, values, within(gate))


def distance_correlation(paths: Paths, *, at: Sequence[int] | None = None) -> Result:
    """Pearson's correlation of imagined and true pairwise distances in a state, for comparison."""
    need_several(paths, "the correlation of distances", "imposed sequences")
    sides = []
    for places in (paths.imagined, paths.executed):
        distances = size(effects_between(places))[:, :, paths.columns(at)].mean(axis=-1)
        sides.append(distances - distances.mean(axis=1, keepdims=True))
    scale = np.sqrt((sides[0] ** 2).sum(axis=1) * (sides[1] ** 2).sum(axis=1))
    values = np.full(len(scale), np.nan)
    np.divide((sides[0] * sides[1]).sum(axis=1), scale, out=values, where=scale > 0)
    why = "the distances do not vary"
    return average("state_distance_correlation", "", paths, values, why)


def cf_mae(paths: Paths, *, at: Sequence[int] | None = None) -> Result:
    """Mean absolute error of imagined effects per coordinate, for comparison; it has no zero."""
    need_several(paths, "cf-MAE", "imposed sequences")
    missed = (effects_between(paths.imagined) - effects_between(paths.executed))[
        :, :, paths.columns(at)
    ]
    return average("state_cf_mae", "m", paths, np.abs(missed).mean(axis=(1, 2, 3)))


def _agreement(name: str, paths: Paths, at: Sequence[int] | None, gate: float | None) -> Result:
    true, columns = effects_between(paths.executed), paths.columns(at)

    def held(shown: Places) -> Float[np.ndarray, "n t 2"]:
        missed = effects_between(shown) - true
        return np.stack([(missed**2).sum(axis=(1, 3)), (true**2).sum(axis=(1, 3))], axis=-1)

    metres = size(true).mean(axis=1)
    found = consistency(name, paths, held, metres, columns, gate)
    gate = gate_metres(paths.entity) if gate is None else gate
    true, made = true[:, :, columns], effects_between(paths.imagined)[:, :, columns]
    none = size(true) <= gate
    found.details["spurious"] = float(size(made)[none].mean()) if none.any() else None
    if paths.reread is not None:
        read = size(effects_between(paths.reread))[:, :, columns]
        found.details["spurious_floor"] = float(read[none].mean()) if none.any() else None
    if found.value is not None:
        opened = metres[:, columns].mean(axis=1) > gate
        sums = np.stack([(made * true).sum(axis=(1, 2, 3)), (true**2).sum(axis=(1, 2, 3))], axis=-1)
        found.details["gain"] = share(sums[opened])
        found.details["gain_interval"] = interval_over(sums[opened], statistic=share)
    return found
