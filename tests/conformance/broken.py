"""Ways to break the contract, each a small change to a system that keeps it.

``BROKEN`` pairs each with words that the conformance suite must say about it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from fakes import Chunks, Features, Judge, Stages
from parts import actions, film_loss, images
from torch import Tensor

from wamlab.generative.flow import masked_mean
from wamlab.models.base import Flow, WorldActionModel
from wamlab.types import ACTION, FORWARD, STATE, Batch, Denoised, Prediction, Query


class ReadsAbsent(Features, name="broken-reads-absent"):
    """Reads the state where it is absent."""

    def think(self, batch: Batch) -> tuple[Tensor, Tensor]:
        dream, act = super().think(batch)
        return dream, act + batch[STATE].at(0).values.mean()


class HidesFlow(Stages, name="broken-hides-flow"):
    """Lets the instruction into the actions without saying so."""

    def flows(self, query: Query) -> list[Flow]:
        return [f for f in super().flows(query) if (f.source, f.target) != ("text", ACTION)]


class IgnoresSeed(Judge, name="broken-ignores-seed"):
    """Draws the same noise whatever the generators say."""

    def sample(self, observation: Batch, query: Query, *, generator: Any, **how: Any) -> Prediction:
        fixed = [torch.Generator().manual_seed(0) for _ in generator]
        return super().sample(observation, query, generator=fixed, **how)


class GlobalNoise(Judge, name="broken-global-noise"):
    """Draws from the global state."""

    def sample(self, observation: Batch, query: Query, **how: Any) -> Prediction:
        found = super().sample(observation, query, **how)
        assert found.action is not None
        values = found.action.values + torch.randn_like(found.action.values)
        return dataclasses.replace(found, action=dataclasses.replace(found.action, values=values))


class AnswersAnything(Stages, name="broken-answers-anything"):
    """Answers queries that it does not declare."""

    def answer(self, query: Query) -> Any:
        return self.queries.get(query)


class TrainsFrozen(Stages, name="broken-trains-frozen"):
    """Moves the world while the actor is trained."""

    def after_step(self) -> None:
        with torch.no_grad():
            self.world[1].bias += 1e-3


class CutsGradient(Chunks, name="broken-cuts-gradient"):
    """Declares a gradient from memory that it has detached."""

    def think(self, seen: Tensor, now: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().think(seen.detach(), now)


class WrongShape(Judge, name="broken-wrong-shape"):
    """Answers one action too few."""

    def sample(self, observation: Batch, query: Query, **how: Any) -> Prediction:
        found = super().sample(observation, query, **how)
        assert found.action is not None
        shorter = found.action.columns(range(self.config.chunk - 1))
        return dataclasses.replace(found, action=shorter)


class TeachesFromNothing(Features, name="broken-teaches-from-nothing"):
    """Counts zeros as the actions of rows that have none."""

    def loss(self, batch: Batch, *, stage: str, step: int, generator: Any) -> dict[str, Tensor]:
        losses = super().loss(batch, stage=stage, step=step, generator=generator)
        target, taught = actions(batch, self.config.chunk)
        _, mean = self.think(batch)
        action = masked_mean((mean - target).square(), torch.ones_like(taught))
        return {**losses, "loss": losses["future"] + action, "action": action}


class MixesRows(Judge, name="broken-mixes-rows"):
    """Lets every row know the mean of the batch."""

    def worth(self, seen: Tensor, action: Tensor) -> Tensor:
        value = super().worth(seen, action)
        return value - value.mean()


class NeverLearns(Stages, name="broken-never-learns"):
    """A world whose loss passes through a detached film."""

    def loss(self, batch: Batch, *, stage: str, step: int, generator: Any) -> dict[str, Tensor]:
        if stage == "actor":
            return super().loss(batch, stage=stage, step=step, generator=generator)
        real, recorded = images(batch, self.config.image_streams, self.config.offsets)
        film = self.world(batch).detach() + 0 * self.world(batch)
        return {"loss": film_loss(film, real, recorded)}


class ForgetsSteps(Stages, name="broken-forgets-steps"):
    """Learns by a count of its steps that no checkpoint holds."""

    steps = 0

    def loss(self, batch: Batch, *, stage: str, step: int, generator: Any) -> dict[str, Tensor]:
        losses = super().loss(batch, stage=stage, step=step, generator=generator)
        weights = sum(p.square().mean() for p in self.parameters() if p.requires_grad)
        return {**losses, "loss": losses["loss"] + self.steps * weights}

    def after_step(self) -> None:
        self.steps += 1


class TooManyTokens(Judge, name="broken-too-many-tokens"):
    """Needs more tokens than two CPU cores bear."""

    @property
    def tokens(self) -> int:
        return 257


class CountsAbsent(Judge, name="broken-counts-absent"):
    """Counts the actions that are not there among the dimensions of its likelihood."""

    def likelihood(self, batch: Batch, query: Query, *, levels: Tensor, generator: Any) -> Denoised:
        self.answer(query)
        target, _ = actions(batch, self.config.chunk)
        flat = target.flatten(1).square().sum(1)
        dims = torch.full((len(batch),), target[0].numel())
        return Denoised(levels, flat[:, None] * (1 - levels), flat, dims)


class SharesLikelihood(CountsAbsent, name="broken-shares-likelihood"):
    """Gives every row the batch's mean."""

    def likelihood(self, batch: Batch, query: Query, **how: Any) -> Denoised:
        found = super().likelihood(batch, query, **how)
        return dataclasses.replace(found, energy=found.energy.mean().expand(len(batch)))


class Raises(Judge, name="broken-raises"):
    def loss(self, batch: Batch, *, stage: str, step: int, generator: Any) -> dict[str, Tensor]:
        raise KeyError("nothing here")


BROKEN: dict[type[WorldActionModel], str] = {
    ReadsAbsent: "absent is never read: stage both: past of state absent was read: nan there",
    HidesFlow: "flows are declared: POLICY: text -> action: undeclared influence",
    IgnoresSeed: "seeds decide: POLICY: declared stochastic, but other seeds give the same answer",
    GlobalNoise: "seeds decide: POLICY: the same seed gives another answer (global randomness)",
    AnswersAnything: f"others are refused: {FORWARD} is not declared, but answered",
    TrainsFrozen: "loss falls: stage actor: world.1.bias is frozen and was trained",
    CutsGradient: "memory -> action: gradient declared to flow, none comes back",
    WrongShape: "answers have their shapes: POLICY: action has shape (4, 3, 4), expected (4, 4, 4)",
    TeachesFromNothing: "action free rows teach no action: stage both: the action loss is",
    MixesRows: "rows are apart: Query(given=[], sampled=['action', 'value']): row 0 changes",
    NeverLearns: "loss falls: stage world: the loss goes from",
    ForgetsSteps: "resumed is unbroken: stage world: broken off and resumed it ends with other",
    CountsAbsent: "likelihoods are of rows: POLICY: without the last action a likelihood has [0, 0",
    SharesLikelihood: "the likelihood of a row changes when it is asked alone",
    TooManyTokens: "small is small: small() has 257 tokens, at most 256 are allowed",
}
