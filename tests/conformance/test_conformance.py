"""Every registered model and the six fakes keep the contract; broken ones are caught."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from broken import BROKEN, Raises
from fakes import FAKES, Chunks

from wamlab.models.base import WorldActionModel, available, model_class
from wamlab.train.conformance import (
    CHECKS,
    Subject,
    check_model,
    devices_agree,
    loss_falls,
    run_check,
)

MODELS = {name: model_class(name) for name in available()} | {fake.name: fake for fake in FAKES}
SUBJECTS = {name: Subject(model, model.Config.tiny()) for name, model in MODELS.items()}
UWM = MODELS["uwm"]
SUBJECTS["uwm-kl"] = Subject(UWM, dataclasses.replace(UWM.Config.tiny(), codec="kl"))
SUBJECTS["uwm-watching"] = Subject(UWM, dataclasses.replace(UWM.Config.tiny(), watch_width=8))
AGAIN = {"uwm-kl", "uwm-watching", "uninformed"}
"""Variants of a system that `make check` holds already: they wait for `make test`."""
NAMES = [pytest.param(n, marks=pytest.mark.slow if n in AGAIN else ()) for n in SUBJECTS]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_the_contract_is_kept(name: str, check) -> None:
    assert run_check(check, SUBJECTS[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_a_broken_model_is_caught(broken: type[WorldActionModel]) -> None:
    problems = check_model(broken)
    assert any(BROKEN[broken] in problem for problem in problems), problems


def test_a_model_that_raises_is_a_problem_and_not_the_end() -> None:
    (problem,) = run_check(loss_falls, Subject(Raises, Raises.Config.tiny()))
    assert problem == "broken-raises, loss falls: raised KeyError: 'nothing here'"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_answers_as_the_cpu_does() -> None:
    assert [said for one in SUBJECTS.values() for said in run_check(devices_agree, one)] == []


class Elsewhere(Chunks, name="elsewhere"):
    """Its weights change on their way to another device."""

    def to(self, *args, **kwargs):
        for parameter in self.parameters():
            parameter.data += 0.5
        return self


class Overflowing(Chunks, name="overflowing"):
    """Its loss is more than another device can count to."""

    def loss(self, batch, **how):
        return {name: part * float("inf") for name, part in super().loss(batch, **how).items()}


def test_a_gradient_that_is_not_finite_elsewhere_is_caught() -> None:
    (said,) = devices_agree(Subject(Overflowing, Chunks.Config.tiny()), "cpu")
    assert said.endswith("the gradient on cpu is not finite")


def test_a_model_that_answers_otherwise_on_another_device_is_caught() -> None:
    asked = Chunks.Config.tiny()
    assert [*devices_agree(Subject(Chunks, asked), "cpu")] == []
    assert any(
        "is another on cpu" in said for said in devices_agree(Subject(Elsewhere, asked), "cpu")
    )
