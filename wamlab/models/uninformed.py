"""A control for every claim that imagining helps a policy: `uwm` with a future that says nothing.

Network, losses, windows and FLOPs are those of `uwm`; only what stands at the future's offsets is
replaced before anything is learned from it. ``current`` puts the present frame there (the objective
"current" in the ablation of arXiv 2504.02792), ``other`` the future of another row of the batch, of
any task: a row is drawn from all episodes, so that it hardly ever is the same one. What `uwm` gains
over this it gains from the future, and not from the longer sequence or the second loss.

Nothing that it imagines means anything, so it answers POLICY alone, and rows that may not teach the
policy are not served: given a future without information, the inverse is the policy. `uwm` is
served them (on `mw-6` about a third of its rows), so in the same number of steps fewer rows teach
its policy than this one: a gain of `uwm` is made in spite of that, a loss may be due to it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wamlab.models.base import Stage
from wamlab.models.uwm import UWM
from wamlab.types import IMAGE, LATENT, POLICY, Answer, Batch, Query, Stream


class Uninformed(UWM):
    card = {
        **UWM.card,
        "paper": "control",
        "family": "reactive policy",
        "carrier": "none",
        "coupling": "none",
        "action labels": "needed",
    }

    @dataclass(frozen=True, kw_only=True)
    class Config(UWM.Config):
        """``target`` is what stands in the place of the future."""

        target: Literal["current", "other"] = "current"

    config: Config

    @property
    def queries(self) -> dict[Query, Answer]:
        return {POLICY: super().queries[POLICY]}

    def stages(self) -> list[Stage]:
        return [dataclasses.replace(stage, roles=("policy",)) for stage in super().stages()]

    def loss(
        self, batch: Batch, *, stage: str, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        silent = {
            name: self.silenced(stream)
            for name, stream in batch.streams.items()
            if name.startswith((IMAGE, LATENT)) and bool((stream.offsets > 0).any())
        }
        batch = dataclasses.replace(batch, streams={**batch.streams, **silent})
        return super().loss(batch, stage=stage, step=step, generator=generator)

    def silenced(self, frames: Stream) -> Stream:
        """The same present, and at the future's offsets what tells nothing of what will happen."""
        now, ahead = frames.at(0), frames.at(*self.config.offsets)
        if self.config.target == "current":
            ahead = dataclasses.replace(
                ahead,
                values=now.values.expand_as(ahead.values),
                present=now.present.expand_as(ahead.present),
            )
        else:
            ahead = dataclasses.replace(
                ahead, values=ahead.values.roll(1, 0), present=ahead.present.roll(1, 0)
            )
        parts = (now, ahead)
        return Stream(
            torch.cat([part.values for part in parts], 1),
            torch.cat([part.offsets for part in parts], 1),
            torch.cat([part.present for part in parts], 1),
        )
