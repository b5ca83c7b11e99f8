"""Genie's delta PSNR, for comparison: does the imagination of the own action fit best?

It sees that actions matter to the imagined frames, not to which entity or in which direction, and
it is large where the futures of other actions are merely bad.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wamlab.metrics.base import (
    NotApplicable,
    Result,
    Row,
    imagining,
    metric,
    state_name,
    summarise,
    why_nothing_imagined,
)
from wamlab.metrics.joint import LISTED
from wamlab.metrics.visual import psnr, unit
from wamlab.types import Probe


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
            real, seen = unit(own[0].happened[view]), unit(shown, "imagined frames")
            for t, offset in enumerate(own[0].offsets):
                rivals = [
                    psnr(unit((one.imagined or {})[view][t], "imagined frames"), real[t])
                    for one in others
                    if t < len(one.offsets) and one.offsets[t] == offset
                ]
                if rivals:
                    value = psnr(seen[t], real[t]) - float(np.mean(rivals))
                    rows.append(Row(state_name(probe), f"{view}@{offset}", value))
    return summarise("delta_psnr", "dB", rows, undefined)
