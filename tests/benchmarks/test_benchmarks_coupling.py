"""Coupling in nats of learned denoisers: the world where it is known, and what the page says."""

from __future__ import annotations

import json
from typing import Any

import coupling_faults
import coupling_tables
import numpy as np
import pusher
import pytest
import torch
from findings import MET, MISSING, NOT_MET
from tables import Found


def test_the_known_information_is_right_where_there_is_a_formula() -> None:
    """Gaussian draws, read with Gaussian noise: half the logarithm of the ratio, by dimension."""
    draws = np.random.default_rng(0).normal(0, [0.05, 0.02], (20_000, 2))
    found = coupling_faults.information(draws, drawn=2000, noise=0.02)
    exact = np.log(1 + np.array([0.05, 0.02]) ** 2 / 0.02**2).sum() / 2
    assert found == pytest.approx(exact, abs=0.05)


def test_pairs_are_those_of_the_planted_model() -> None:
    right, still, other = (coupling_faults.pairs(f, 6, 0) for f in ("oracle", "static", "blind"))
    assert [tuple(values.shape) for values in right] == [(24, 4), (24, 32), (24, 8)]
    for pair in (still, other):
        assert torch.equal(pair.context, right.context)
        assert torch.equal(pair.action, right.action)
    noise = coupling_faults.READING / coupling_faults.SIZES["future"]
    assert still.future.std() == pytest.approx(noise, rel=0.2)
    # The blind one shows what its next own action would lead to: 1, 2, 3 and 0 of each state.
    apart = right.future.view(6, 4, 8).roll(-1, dims=1) - other.future.view(6, 4, 8)
    assert apart.std() == pytest.approx(2**0.5 * noise, rel=0.2)
    assert (right.future - other.future).std() > 10 * noise


def test_errors_of_a_denoiser_are_of_the_streams_that_its_query_samples() -> None:
    """One that answers 0 errs by the energy, at every level and however much noise there is."""

    class Nothing(torch.nn.Module):
        def forward(self, context: Any, noisy: Any, sigmas: Any) -> Any:
            seen.append([float(sigma[0]) for sigma in sigmas])
            return [0 * x for x in noisy]

    seen: list[list[float]] = []
    happened = coupling_faults.pairs("oracle", 3, 0)
    asked = coupling_faults.Asked(draws=1, levels=2)
    logs = coupling_faults.recordings(Nothing(), happened, asked)
    assert [(one.episode, one.step) for one in logs[3:6]] == [(0, 3), (1, 0), (1, 1)]
    energy = {"action": happened.action.square().sum(1), "future": happened.future.square().sum(1)}
    for query, names in {
        "POLICY": ["action"],
        "INVERSE": ["action"],
        "VIDEO": ["future"],
        "FORWARD": ["future"],
        "JOINT": ["action", "future"],
    }.items():
        for row, one in enumerate(logs):
            found = one.likelihood[query]
            expected = sum(float(energy[name][row]) for name in names)
            np.testing.assert_allclose(found.errors, expected, rtol=1e-4)
            np.testing.assert_allclose(found.energy, expected, rtol=1e-4)
    clean, pure = coupling_faults.CLEAN, coupling_faults.PURE
    assert [held for _, held in seen[:3]] == pytest.approx([pure] * 3)
    assert [held for _, held in seen[3:6]] == pytest.approx([clean] * 3)
    assert [held for held, _ in seen[6:9]] == pytest.approx([pure] * 3)
    assert all(one == other for one, other in seen[12:])


def test_a_short_run_writes_all_that_the_page_tells(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(coupling_faults, "known_values", lambda: record()["known"])
    out = tmp_path / "coupling_faults.json"
    words = "--faults oracle blind --steps 5 --batch 8 --states 20 --tested 6 --draws 1 --levels 4"
    coupling_faults.main([*words.split(), "--out", str(out)])
    made = json.loads(out.read_text())
    assert [*made["faults"]] == ["oracle", "blind"]
    assert {one["n"] for fault in made["faults"].values() for one in fault.values()} == {6}
    text = coupling_tables.tables(Found({"coupling_faults": made}, [], {}))
    assert "| blind |" in text
    with pytest.raises(SystemExit):
        coupling_faults.main(["--faults", "orakel"])


def test_faults_are_those_of_the_pusher() -> None:
    assert set(coupling_faults.FAULTS) < set(pusher.MODELS)


def record(**changed: float) -> dict[str, Any]:
    """The oracle at 5 nats, whoever is blind at 1, each 0.5 to either side; or as ``changed``."""
    nats = {"oracle": 5.0, "blind": 1.0} | changed
    one = lambda v: {"value": v, "interval": [v - 0.5, v + 0.5], "n": 9, "unit": "nats"}  # noqa: E731
    faults = {fault: {name: one(v) for name in coupling_tables.HEADS} for fault, v in nats.items()}
    settings = {**coupling_faults.Asked()._asdict(), "own_actions": 4, "reading": 0.01}
    known = {"both": one(6.0), "agent": one(4.0)}
    return {"faults": faults, "what": coupling_faults.FAULTS, "known": known, "settings": settings}


@pytest.mark.parametrize(
    ("blind", "verdict", "said"),
    [
        (1.0, MET, "1 of 1 told apart; above: none"),
        (5.2, NOT_MET, "0 of 1 told apart; above: none"),
        (7.0, NOT_MET, "above: blind by the action and blind by the future"),
    ],
)
def test_the_target_asks_for_less_by_a_side_and_more_by_none(blind, verdict, said) -> None:
    found = coupling_tables.finding(Found({"coupling_faults": record(blind=blind)}, [], {}))
    assert found.verdict == verdict
    assert found.measured.endswith(said)
    assert coupling_tables.finding(Found({}, [], {})).verdict == MISSING


def test_the_table_tells_by_which_side() -> None:
    text = coupling_tables.tables(Found({"coupling_faults": record()}, [], {}))
    assert "6.00 (5.50 to 6.50) nats (4.00 (3.50 to 4.50) of them" in text
    assert "| 1.00 (0.50 to 1.50) |" in text
    assert "by the action and by the future |" in text
