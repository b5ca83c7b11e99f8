"""What `wam list` says of each model."""

from __future__ import annotations

import pytest
import torch

from wamlab.cli import listing
from wamlab.cli.listing import models
from wamlab.models.base import WorldActionModel, available, model_class


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {name: model_class(name) for name in available()}
    monkeypatch.setattr(WorldActionModel, "registry", own)


def test_parameters_and_network_calls_are_those_of_one_size(shipped: None) -> None:
    listed = models()
    for name, row in listed.items():
        with torch.device("meta"):
            small = model_class(name)(model_class(name).Config.small())
        calls = {str(query): answer.calls for query, answer in small.queries.items()}
        assert {query: answer["calls"] for query, answer in row["queries"].items()} == calls
        assert row["parameters"] == sum(p.numel() for p in small.parameters())
    assert listed["reactive"]["queries"]["POLICY"]["calls"] == 4  # two in its tiny size


def test_the_longest_name_stands_apart_from_its_sentence() -> None:
    names = ["scene/short", "scene/" + "a-long-name-of-a-chain" * 3]
    lines = listing._lines({name: {"instruction": "open it"} for name in names}).splitlines()
    assert [line.split("  ")[0] for line in lines] == names
    assert len({line.index("open it") for line in lines}) == 1
