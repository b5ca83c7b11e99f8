"""Every registered model and the six fakes keep the contract; broken ones are caught."""

from __future__ import annotations

import dataclasses

import pytest
from broken import BROKEN, Raises
from fakes import FAKES

from wamlab.models.base import WorldActionModel, available, model_class
from wamlab.train.conformance import CHECKS, Subject, check_model, loss_falls, run_check

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
