"""Joint measures on frames besides those of `wamlab.metrics.joint`.

The instruction contrast asks a model twice, which a deterministic one can answer as well. Genie's
delta PSNR stands here for comparison: it sees that actions matter to the imagined frames, not to
which entity or in which direction, and it is large where the futures of other actions are merely
bad.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from wamlab.metrics.base import (
    NotApplicable,
    Result,
    Row,
    by_stratum,
    imagining,
    metric,
    state_name,
    summarise,
    why_nothing_imagined,
)
from wamlab.metrics.joint import (
    LISTED,
    ROBOT,
    UNCHANGED,
    Form,
    Look,
    Pair,
    Video,
    consistency,
    distance,
    off_diagonal,
)
from wamlab.metrics.visual import RivalFrames, named, psnr, unit
from wamlab.types import Branch, Probe


def told_apart(probe: Probe) -> list[Branch]:
    """The first own sample, and those under other instructions that share its noise, with frames;
    nothing where there are not both."""
    found = [*imagining(probe)[:1], *(b for b in probe.of("instructed") if b.imagined)]
    return found if len(found) > 1 else []


def why_not_told(probes: Sequence[Probe]) -> str:
    """Why no probe has a sample under another instruction that can be held against the own one."""
    if not any(probe.of("instructed") for probe in probes):
        return "nothing was asked under another instruction"
    return why_nothing_imagined(probes)


@metric("instruction_contrast", needs="probes")
def instruction_contrast(
    probes: Sequence[Probe], *, entity: str = ROBOT, rivals: RivalFrames | None = None
) -> Result:
    """Do frames imagined under other instructions differ as those of their executions do?

    ``1 - sum |D^_kl - D_kl|^2 / sum |D_kl|^2`` over the pixels of the entity, with ``D_kl`` what
    instruction k makes other than l: samples of the same noise from the same state, each imagined
    and executed. 0 is deafness. It asks for no second draw, so that models answer it that have but
    one.
    """
    if not any(told_apart(probe) for probe in probes):
        raise NotApplicable(why_not_told(probes))
    return consistency(CONTRAST, probes, entity, rivals)


def _effects(look: Look, shown: Video, region: Bool[np.ndarray, "h w"]) -> Pair:
    """What is missed of the differences between executions, and the differences, mean squares."""
    first, second = np.triu_indices(len(shown), k=1)
    executed = look.executed(look.own)
    true = executed[first] - executed[second]
    missed = distance(shown[first] - shown[second], true, region)
    return float((missed**2).mean()), float((distance(true, 0 * true, region) ** 2).mean())


CONTRAST = Form(
    "instruction_contrast",
    others=told_apart,
    pair=_effects,
    metres=lambda look: off_diagonal(look.spread()),
    power=2,
    own=told_apart,
)


@metric("delta_psnr", needs="probes", unit="dB")
def delta_psnr(probes: Sequence[Probe]) -> Result:
    """PSNR of the future imagined for an action less that of others, on what it led to.

    ``PSNR(x*, x^) - mean_k PSNR(x*, x^_k)`` (Bruce et al., arXiv 2402.15391, section 4.1, whose
    random latent actions are here the listed interventions). The action is the first own one,
    imposed `unchanged`: all are imagined by one query and with one noise, and 0 is blindness to
    actions. The mean over frames, then states.
    """
    rows, undefined = [], []
    for probe in probes:
        imposed = {one.label: one for one in probe.of("imposed") if one.imagined}
        own = [imposed[UNCHANGED]] if UNCHANGED in imposed else []
        others = [imposed[label] for label in LISTED if label in imposed]
        if not own or not others:
            undefined.append(_why_not_imposed(probe))
            continue
        for view, shown in (own[0].imagined or {}).items():
            dreamt = named(state_name(probe), view, "imagined frames")
            real, seen = unit(own[0].happened[view]), unit(shown, dreamt)
            for t, offset in enumerate(own[0].offsets):
                rivals = [
                    psnr(unit((one.imagined or {})[view][t], dreamt), real[t])
                    for one in others
                    if t < len(one.offsets) and one.offsets[t] == offset
                ]
                if rivals:
                    value = psnr(seen[t], real[t]) - float(np.mean(rivals))
                    rows.append(Row(state_name(probe), f"{view}@{offset}", value))
    return by_stratum(summarise("delta_psnr", "dB", rows, undefined), probes, delta_psnr)


def _why_not_imposed(probe: Probe) -> str:
    """Why no imagination of an unchanged action can be held against others of this probe."""
    if any(branch.imagined for branch in probe.of("imposed")):
        return f"{UNCHANGED!r} was not imposed beside {', '.join(LISTED)}"
    return "imposed actions are not imagined"
