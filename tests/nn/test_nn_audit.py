"""The audit finds undeclared, missing, stopped and poisoned flows, and reads a sampler's calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wamlab.generative.noise import fill_absent
from wamlab.models.base import Flow, ModelConfig, Stage, WorldActionModel
from wamlab.nn.audit import audit, poison, poison_answers, row_generators, stirred
from wamlab.nn.calls import record_calls
from wamlab.types import (
    FORWARD,
    JOINT,
    POLICY,
    VIDEO,
    Answer,
    Batch,
    Future,
    Prediction,
    Query,
    Stream,
    Text,
    Window,
)

ROWS = 4


class Toy(WorldActionModel, name="audit-toy"):
    """Action from state through a zero-initialised gate; future from text and the action."""

    Config = ModelConfig
    card = {"family": "test"}
    state_to_future = False
    stop = False
    clean = True

    def __init__(self) -> None:
        super().__init__(ModelConfig())
        self.act = nn.Linear(3, 2)
        self.gate = nn.Parameter(torch.zeros(2))
        self.see = nn.Linear(5, 6)

    @property
    def queries(self) -> dict[Query, Answer]:
        return dict.fromkeys((POLICY, VIDEO, JOINT, FORWARD), Answer(stochastic=True))

    def stages(self) -> list[Stage]:
        return [Stage("all", Window({"state": (0,), "action": (0, 1)}))]

    def sample(
        self,
        observation: Batch,
        query: Query,
        *,
        action: Stream | None = None,
        future: Future | None = None,
        memory: Any = None,
        prefix: Stream | None = None,
        sampler: Mapping[str, Any] | None = None,
        generator: Sequence[torch.Generator],
    ) -> Prediction:
        state = observation["state"].at(0)
        values = fill_absent(state.values, state.present) if self.clean else state.values
        noise = torch.stack([torch.randn(2, generator=g) for g in generator])
        drawn = (self.act(values[:, 0]) * self.gate + noise)[:, None].repeat(1, 2, 1)
        used = drawn if action is None else action.values
        used = used.detach() if self.stop else used
        seen = self.see(torch.cat([observation.text.pooled, used[:, 0]], dim=-1))
        if self.state_to_future:
            seen = seen + values[:, 0].mean(dim=-1, keepdim=True)
        answer = Prediction()
        if "action" in query.sampled:
            ticks = torch.arange(2).expand(len(drawn), 2)
            answer.action = Stream(drawn, ticks, torch.ones_like(ticks, dtype=torch.bool))
        if "future" in query.sampled:
            answer.future = Future("features", "none", {"features": seen[:, None]}, None)
        return answer

    def loss(
        self, batch: Batch, *, stage: str, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        state, action = batch["state"].at(0), batch["action"].at(0, 1)
        values = fill_absent(state.values, state.present) if self.clean else state.values
        error = self.act(values[:, 0])[:, None] * self.gate - fill_absent(
            action.values, action.present
        )
        return {"loss": (error.square() * action.present[..., None]).mean()}

    def flows(self, query: Query) -> list[Flow]:
        to_action = [Flow("state", "action", "adaln")]
        via_action = [Flow("text", "future", "channel")]
        given = "action" if "action" in query.given else "state"
        via_action.append(Flow(given, "future", "channel"))
        wanted = [*to_action, *via_action]
        return [flow for flow in wanted if flow.target in query.sampled]


def stream(values: Tensor) -> Stream:
    ticks = torch.arange(values.shape[1]).expand(ROWS, -1)
    return Stream(values, ticks, torch.ones_like(ticks, dtype=torch.bool))


def batch() -> Batch:
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(ROWS, *shape, generator=generator)  # noqa: E731
    return Batch(
        {"state": stream(draw(1, 3)), "action": stream(draw(2, 2))},
        Text(["go"] * ROWS, pooled=draw(3)),
        torch.ones(ROWS, 4, dtype=torch.bool),
        torch.ones(ROWS),
    )


def toy(**switches: bool) -> Toy:
    torch.manual_seed(0)
    model = Toy()
    for name, value in switches.items():
        setattr(model, name, value)
    return model


@pytest.mark.parametrize("query", [POLICY, JOINT, FORWARD], ids=str)
def test_a_true_declaration_is_clean_through_a_zero_initialised_gate(query: Query) -> None:
    report = audit(toy(), batch(), query)
    assert report.violations == []


def test_video_reads_the_state_through_its_own_action() -> None:
    report = audit(toy(), batch(), VIDEO)
    found = {(i.source, i.target) for i in report.influences if i.moves}
    assert found == {("state", "future"), ("text", "future")}


def test_an_undeclared_influence_is_named() -> None:
    report = audit(toy(state_to_future=True), batch(), FORWARD)
    assert report.violations == ["audit-toy, FORWARD: state -> future: undeclared influence"]
    assert "! audit-toy, FORWARD: state -> future: undeclared influence" in str(report)


def test_a_stopped_gradient_that_was_declared_to_flow_is_named() -> None:
    report = audit(toy(stop=True), batch(), FORWARD)
    assert report.violations == [
        "audit-toy, FORWARD: action -> future: gradient declared to flow, none comes back"
    ]


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (
            Flow("text", "action", "cross"),
            "text -> action: declared, but no influence was found",
        ),
        (
            Flow("touch", "action", "cross"),
            "touch -> action: declared, but there is no such group",
        ),
    ],
)
def test_flows_that_are_not_there_are_named(flow: Flow, message: str) -> None:
    model = toy()
    type(model).flows, kept = lambda self, query: [*kept(self, query), flow], type(model).flows
    try:
        assert audit(model, batch(), POLICY).violations == [f"audit-toy, POLICY: {message}"]
    finally:
        type(model).flows = kept


def test_a_gradient_that_was_declared_to_stop_is_named() -> None:
    model = toy()
    stopped = [dataclasses.replace(f, gradient=False) for f in model.flows(POLICY)]
    type(model).flows, kept = lambda self, query: stopped, type(model).flows
    try:
        assert audit(model, batch(), POLICY).violations == [
            "audit-toy, POLICY: state -> action: gradient flows, declared to stop"
        ]
    finally:
        type(model).flows = kept


def test_the_graph_under_a_no_grad_decorator_is_audited() -> None:
    hidden = torch.no_grad()(Toy.sample)

    class Quiet(Toy, name="audit-quiet"):
        sample = hidden

    torch.manual_seed(0)
    model = Quiet()
    assert not model.sample(
        batch(), POLICY, generator=row_generators(4)
    ).action.values.requires_grad
    assert audit(model, batch(), POLICY).violations == []


def test_poison_passes_where_absent_entries_are_blanked_and_fails_where_not() -> None:
    assert poison(toy(), batch(), stage="all") == []
    assert poison_answers(toy(), batch(), POLICY) == []
    (found,) = poison(toy(clean=False), batch(), stage="all")
    assert found.startswith("audit-toy, stage all: past of state absent was read: nan there")
    (found,) = poison_answers(toy(clean=False), batch(), POLICY)
    assert "POLICY: past of state absent was read" in found


def test_stirring_leaves_the_model_itself_alone() -> None:
    model = toy()
    assert stirred(model).gate.abs().min() > 0
    assert model.gate.abs().max() == 0


class Denoiser(nn.Module):
    def forward(self, x: dict[str, Tensor], *, action_level: Tensor, held: float = 1.0) -> Tensor:
        return x["action"] + action_level


def test_the_call_log_tells_what_is_stepped_held_and_at_which_level() -> None:
    network, x, frame = Denoiser(), torch.ones(2, 3), torch.zeros(2, 5)
    with record_calls(network) as log:
        for level in (1.0, 0.5):
            x = network({"action": x, "future": frame}, action_level=torch.full((2, 1), level))
    network({"action": x, "future": frame}, action_level=torch.ones(1))
    assert len(log) == 2
    assert log.levels("action_level") == [1.0, 0.5]
    assert log.held == {"x.future"}
    assert log.stepped == {"x.action", "action_level"}
    log.calls.append({"action_level": torch.arange(3.0)})
    with pytest.raises(ValueError, match="3 different numbers"):
        log.levels("action_level")
