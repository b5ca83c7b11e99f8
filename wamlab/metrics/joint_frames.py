"""Joint measures on frames besides those of `wamlab.metrics.joint`.

The instruction contrast asks a model twice, which a deterministic one can answer as well. Genie's
delta PSNR stands here for comparison: it sees that actions matter to the imagined frames, not to
which entity or in which direction, and it is large where the futures of other actions are merely
bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

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
from wamlab.metrics.joint import EIC, LISTED, ROBOT, consistency
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
    """EIC between instructions: is what was imagined under one nearer to its own execution?

    Two samples of the same noise, from the same state, under two instructions, each imagined and
    executed; the rest is `wamlab.metrics.joint.eic`. It asks for no second draw, so that models
    answer it that have but one.
    """
    if not any(told_apart(probe) for probe in probes):
        raise NotApplicable(why_not_told(probes))
    form = replace(EIC, name="instruction_contrast", own=told_apart, others=told_apart)
    return consistency(form, probes, entity, rivals)


@metric("delta_psnr", needs="probes", unit="dB")
def delta_psnr(probes: Sequence[Probe]) -> Result:
    """PSNR of the future imagined for the own action less that of imposed ones, on what happened.

    ``PSNR(x*, x^) - mean_k PSNR(x*, x^_k)`` (Bruce et al., arXiv 2402.15391, section 4.1, whose
    random latent actions are here the listed interventions), on the execution of the first own
    sample, of which they are made; the mean over frames, then states.
    """
    if not any(imagining(probe) for probe in probes):
        raise NotApplicable(why_nothing_imagined(probes))
    rows, undefined = [], []
    for probe in probes:
        own = imagining(probe)[:1]
        others = [one for one in probe.of("imposed") if one.label in LISTED and one.imagined]
        if not own or not others:
            undefined.append("imposed actions are not imagined")
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
