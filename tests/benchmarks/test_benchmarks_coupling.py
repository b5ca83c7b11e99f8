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

from wamlab.types import Denoised


def test_the_known_information_is_right_where_there_is_a_formula() -> None:
    """Gaussian draws, read with Gaussian noise: half the logarithm of the ratio, by dimension."""
    draws = np.random.default_rng(0).normal(0, [0.05, 0.02], (20_000, 2))
    found = coupling_faults.shared(draws, drawn=2000, noise=0.02)
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
    found = coupling_faults.losses(Nothing(), happened, asked)
    energy = {"action": happened.action.square().sum(1), "future": happened.future.square().sum(1)}
    for query, names in {
        "POLICY": ["action"],
        "INVERSE": ["action"],
        "VIDEO": ["future"],
        "FORWARD": ["future"],
        "JOINT": ["action", "future"],
    }.items():
        expected = sum(energy[name] for name in names)[:, None].numpy()
        np.testing.assert_allclose(found[query].errors, expected.repeat(3, 1), rtol=1e-4)
        np.testing.assert_allclose(found[query].energy, expected[:, 0], rtol=1e-4)
    clean, pure = coupling_faults.CLEAN, coupling_faults.PURE
    assert [held for _, held in seen[:3]] == pytest.approx([pure] * 3)
    assert [held for _, held in seen[3:6]] == pytest.approx([clean] * 3)
    assert [held for held, _ in seen[6:9]] == pytest.approx([pure] * 3)
    assert all(one == other for one, other in seen[12:])


def test_all_are_integrated_to_the_level_at_which_the_oracle_stops() -> None:
    """INVERSE errs by 1 less than POLICY in 2 dimensions, until at the last level it is blunt."""
    levels = np.array([1.0, 0.5, 0.25, 0.125])
    rows = 2 * coupling_faults.OWN

    def denoised(errors: list[float], dims: int = 2) -> Denoised:
        each, energy = np.tile(errors, (rows, 1)), np.full(rows, 2.0)
        return Denoised(levels, each, energy, np.full(rows, dims))

    one = {
        "POLICY": denoised([2.0, 1.5, 0.2, 0.02]),
        "INVERSE": denoised([1.0, 0.5, 0.2, 5.0]),
        "VIDEO": denoised([2.0, 1.5, 0.2, 0.02]),
        "FORWARD": denoised([1.0, 0.5, 0.2, 0.02]),
        "JOINT": denoised([3.0, 2.0, 0.4, 0.04], 4),
    }
    assert coupling_faults.stops(one) == {"action": 3, "future": 4}
    found = coupling_faults.measured([one, one], 3)
    assert found["action"]["value"] == pytest.approx(found["future"]["value"])
    assert found["action"]["by_seed"] == pytest.approx([found["action"]["value"]] * 2)
    assert found["gap"]["value"] == pytest.approx(0)
    assert found["action"]["n"] == 2
    assert found["stops"] == {"action": [3, 3], "future": [4, 4]}
    whole = coupling_faults.measured([one], 4)
    assert whole["action"]["value"] < found["action"]["value"] - 1
    assert whole["by_its_own_bounds"]["action"] == found["by_its_own_bounds"]["action"][:1]


def test_a_short_run_writes_all_that_the_page_tells(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(coupling_faults, "known_values", lambda: record()["known"])
    out = tmp_path / "coupling_faults.json"
    words = "--steps 5 --batch 8 --states 20 --tested 6 --draws 1 --levels 4 --workers 1"
    words = f"--faults oracle blind --seeds 0 {words} --out {out}"
    coupling_faults.main(words.split())
    made = json.loads(out.read_text())
    assert [*made["faults"]] == ["oracle", "blind"]
    assert {fault["action"]["n"] for fault in made["faults"].values()} == {6}
    text = coupling_tables.tables(Found({"coupling_faults": made}, [], {}))
    assert "| blind |" in text
    for wrong in (["orakel"], ["blind"]):
        with pytest.raises(SystemExit):
            coupling_faults.main(["--faults", *wrong])


def test_faults_are_those_of_the_pusher() -> None:
    assert set(coupling_faults.FAULTS) < set(pusher.MODELS)


def record(**changed: float) -> dict[str, Any]:
    """The oracle at 5 nats, whoever is blind at 1, each 0.5 to either side; or as ``changed``."""
    nats = {"oracle": 5.0, "one mode": 5.0, "blind": 1.0} | changed
    one = lambda v: {"value": v, "interval": [v - 0.5, v + 0.5], "n": 9, "by_seed": [v, v]}  # noqa: E731
    faults: dict[str, Any] = {
        fault: {name: one(v) for name in coupling_tables.HEADS} for fault, v in nats.items()
    }
    for fault in faults:
        faults[fault]["stops"] = {"action": [4, 5], "future": [6, 6]}
        faults[fault]["by_its_own_bounds"] = {
            s: [nats[fault] - 0.1] * 2 for s in ("action", "future")
        }
    settings = {**coupling_faults.Asked()._asdict(), "own_actions": 4, "seeds": [0, 1]}
    known = {"both": one(6.0), "agent": one(4.0)}
    what = coupling_faults.FAULTS
    return {
        "faults": faults, "what": what, "known": known, "settings": settings, "cleanest": 0.1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("blind", "verdict", "said"),
    [
        (
            1.0,
            MET,
            ("1 of 1 told apart, above: none;", "1 lower in every training, above in any: none"),
        ),
        (4.8, NOT_MET, ("0 of 1 told apart, above: none;", "1 lower in every")),
        (5.2, NOT_MET, ("above: blind by the action and blind by the future;", "in any: blind")),
    ],
)
def test_the_target_asks_for_less_by_a_side_and_more_by_none(blind, verdict, said) -> None:
    found = coupling_tables.finding(Found({"coupling_faults": record(blind=blind)}, [], {}))
    assert found.verdict == verdict
    assert all(part in found.measured for part in said)
    assert coupling_tables.finding(Found({}, [], {})).verdict == MISSING


def test_a_fault_is_told_only_if_every_training_of_it_is_lower() -> None:
    found = record(blind=1.0)
    for side in ("action", "future"):
        found["faults"]["blind"][side]["by_seed"] = [1.0, 5.1]
    assert coupling_tables.telling(found["faults"], "blind") == []


def test_the_table_tells_by_which_side_and_where_each_would_stop() -> None:
    text = coupling_tables.tables(Found({"coupling_faults": record()}, [], {}))
    assert "6.00 (5.50 to 6.50) nats (4.00 (3.50 to 4.50) of them" in text
    assert "| 1.00 (0.50 to 1.50; 1.00 to 1.00) |" in text
    assert "| 0.90 to 0.90 (of 4 to 5) | 0.90 to 0.90 (of 6) | by the action and by" in text
