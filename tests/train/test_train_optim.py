from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from wamlab.train.optim import (
    Average,
    OptimConfig,
    learning_rate,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    undecayed,
)


def test_warm_up_rises_linearly_and_cosine_halves_in_the_middle():
    config = OptimConfig(lr=1.0, warmup_steps=9)
    rates = [learning_rate(config, step, 109) for step in range(109)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[59] == pytest.approx(0.5)
    assert rates[34] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert 0 < rates[-1] < 1e-3


def test_linear_decay_ends_at_the_final_share():
    config = OptimConfig(lr=2.0, warmup_steps=0, decay="linear", final=0.1)
    assert learning_rate(config, 0, 10) == pytest.approx(2.0)
    assert learning_rate(config, 5, 10) == pytest.approx(2 * 0.55)
    assert learning_rate(config, 10, 10) == pytest.approx(0.2)


def test_constant_rate_and_warm_up_at_most_a_fifth():
    config = OptimConfig(lr=1.0, warmup_steps=1000, decay="none")
    assert [learning_rate(config, step, 10) for step in (0, 1, 2, 9)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 1]
    )


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"ema": 1.0}, {"final": 2.0}, {"clip": -1.0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        OptimConfig(**bad)


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = {"embed": nn.Embedding(5, 4), "line": nn.Linear(4, 4), "norm": nn.LayerNorm(4)}
    return nn.ModuleDict(parts)


def test_norms_biases_and_embeddings_do_not_decay():
    model = network()
    assert undecayed(model) == {"embed.weight", "line.bias", "norm.weight", "norm.bias"}
    names = [name for name, _ in model.named_parameters()]
    groups = make_optimizer(model, names, OptimConfig(weight_decay=0.3)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert [len(group["params"]) for group in groups] == [1, 4]


def test_first_adamw_step_has_its_analytic_value():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    config = OptimConfig(lr=0.1, weight_decay=0.5, eps=1e-12)
    optimizer = make_optimizer(model, ["weight"], config)
    model.weight.grad = torch.tensor([[3.0]])
    optimizer.step()
    assert model.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)


def test_optimizer_state_survives_as_named_tensors():
    def run(model, optimizer, seeds):
        for seed in seeds:
            torch.manual_seed(seed)
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()

    names = [name for name, _ in network().named_parameters()]
    first, config = network(), OptimConfig()
    optimizer = make_optimizer(first, names, config)
    run(first, optimizer, range(3))
    second = network()
    second.load_state_dict(first.state_dict())
    again = make_optimizer(second, names, config)
    load_optimizer_tensors(second, again, optimizer_tensors(first, optimizer))
    run(first, optimizer, range(3, 6))
    run(second, again, range(3, 6))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    with pytest.raises(KeyError, match="nothing"):
        load_optimizer_tensors(second, again, {"step/nothing": torch.zeros(())})


def test_average_warms_up_and_then_holds_its_decay():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = Average(model, ["weight"], 0.5)
    nn.init.constant_(model.weight, 1.0)
    value = 0.0
    for update in range(20):
        average.update(update)
        decay = min(0.5, (1 + update) / (10 + update))
        value = decay * value + (1 - decay)
        assert float(average.shadow["weight"]) == pytest.approx(value, abs=1e-6)
    assert average.decay_at(0) == 0.1
    assert average.decay_at(19) == 0.5


def test_average_covers_trained_parameters_only_and_can_be_lent():
    model = nn.BatchNorm1d(2)
    average = Average(model, ["weight"], 0.9)
    nn.init.constant_(model.weight, 5.0)
    nn.init.constant_(model.bias, 7.0)
    weights = average.weights(model)
    assert weights["weight"].tolist() == [1.0, 1.0]
    assert weights["bias"].tolist() == [7.0, 7.0]
    with average.applied():
        assert model.weight.tolist() == [1.0, 1.0]
    assert model.weight.tolist() == [5.0, 5.0]


def test_no_average_reads_the_model_itself():
    model = nn.Linear(1, 1)
    average = Average(model, ["weight", "bias"], 0.0)
    nn.init.constant_(model.weight, 5.0)
    average.update(0)
    assert torch.equal(average.weights(model)["weight"], model.weight)
