"""Coupling in nats where it is known: a linear-Gaussian world, and faults planted in it."""

from __future__ import annotations

import numpy as np
import pytest
import recorded
import torch
from test_metrics_likelihood import COVARIANCE, LEVELS, entropy, expected

from wamlab.generative.discrete import row_nats
from wamlab.metrics.base import NotApplicable, compute
from wamlab.metrics.information import SIDES, completed, information, stop
from wamlab.metrics.likelihood import CHAINS, gathered, nats, noise_levels
from wamlab.types import Denoised, Nats, Recording

TRUE = entropy(COVARIANCE["POLICY"]) + entropy(COVARIANCE["VIDEO"]) - entropy(COVARIANCE["JOINT"])


def side(name: str, levels: np.ndarray = LEVELS, **planted: np.ndarray) -> float:
    """The information of one side; ``planted`` gives a query another world's covariance."""
    found = [expected({**COVARIANCE, **planted}[query], levels) for query in SIDES[name]]
    return float(information(*found)[0])


def recordings(blunt: str = "", **planted: np.ndarray) -> list[Recording]:
    """Two episodes of the world, of which the second has everything twice.

    The denoiser of the query ``blunt`` errs by 0.01 in square at every level.
    """
    logs = [recorded.recording(0, 1), recorded.recording(1, 1)]
    for copies, one in enumerate(logs, start=1):
        one.likelihood = {}
        for query, covariance in {**COVARIANCE, **planted}.items():
            each = expected(covariance)
            parts = (each.errors + 0.01 * (query == blunt), each.energy, each.dims)
            one.likelihood[query] = Denoised(each.levels, *(copies * part for part in parts))
    return logs


@pytest.mark.parametrize("name", SIDES)
def test_both_sides_are_the_mutual_information(name: str) -> None:
    assert TRUE > 1
    assert side(name) == pytest.approx(TRUE, abs=1e-3)


@pytest.mark.parametrize("name", SIDES)
def test_sixteen_levels_are_enough_for_a_tenth_of_a_nat(name: str) -> None:
    assert side(name, noise_levels()) == pytest.approx(TRUE, abs=0.1)


@pytest.mark.parametrize("name", SIDES)
def test_the_last_errors_stand_for_what_lies_beyond_the_cleanest_level(name: str) -> None:
    levels = LEVELS[LEVELS >= 0.05]
    alone, given = (expected(COVARIANCE[query], levels).errors[0, -1] for query in SIDES[name])
    stands_for = ((1 - levels[-1]) / levels[-1]) ** 2 * (alone - given) / 2
    found = side(name, levels)
    assert abs(found - TRUE) < 0.2 * abs(found - stands_for - TRUE)
    assert found - stands_for < TRUE - 0.01


@pytest.mark.parametrize("blunt", [1e-3, 1e-2])
def test_cut_at_different_levels_the_difference_would_be_of_the_cuts(blunt: float) -> None:
    """The trap: where one denoiser is blunter, its bound is tightest at a noisier level."""
    alone, given = (expected(COVARIANCE[query]) for query in SIDES["action"])
    given = Denoised(given.levels, given.errors + blunt, given.energy, given.dims)
    assert stop(alone, given) < len(LEVELS)
    apart = float(nats(alone)[0] - nats(given)[0])
    assert abs(float(information(alone, given)[0]) - TRUE) < 0.8 * abs(apart - TRUE)


@pytest.mark.parametrize("chain", CHAINS)
def test_the_chain_gap_of_one_distribution_is_0(chain: str) -> None:
    assert compute("chain_gap", recordings(), chain=chain).value == pytest.approx(0, abs=1e-3)
    blind = compute("chain_gap", recordings(INVERSE=COVARIANCE["POLICY"]), chain="by video")
    assert blind.value == pytest.approx(TRUE / len(COVARIANCE["JOINT"]), abs=1e-3)


@pytest.mark.parametrize(
    ("blunt", "chain"), [("POLICY", "by policy"), ("VIDEO", "by video"), ("JOINT", "by video")]
)
def test_a_chain_gap_cut_at_different_levels_would_be_of_the_cuts(blunt: str, chain: str) -> None:
    """The same trap with three bounds."""
    logs = recordings(blunt)
    found = [gathered(logs, query)[1] for query in ("JOINT", *CHAINS[chain])]
    joint, first, second = (nats(one) for one in found)
    apart = float(((first + second - joint) / found[0].dims).mean())
    gap = compute("chain_gap", logs, chain=chain).value
    assert gap is not None
    assert abs(gap) < 0.8 * abs(apart)


def test_a_cut_leaves_the_chain_below_0_as_its_halves_are_told_clean_values() -> None:
    """FORWARD knows the action itself, JOINT's future only the action under the last noise."""
    logs = recordings()
    kept = LEVELS >= 0.05
    for log in logs:
        for query, one in log.likelihood.items():
            cut = Denoised(one.levels[kept], one.errors[:, kept], one.energy, one.dims)
            log.likelihood[query] = cut
    for chain in CHAINS:
        gap = compute("chain_gap", logs, chain=chain).value
        assert gap is not None
        assert -0.1 < gap < 0


def test_a_forward_model_that_ignores_the_action_knows_nothing_of_it() -> None:
    assert side("future", FORWARD=COVARIANCE["VIDEO"]) == pytest.approx(0, abs=1e-9)
    assert side("action", FORWARD=COVARIANCE["VIDEO"]) == pytest.approx(TRUE, abs=1e-3)


def test_being_wrong_about_what_is_given_counts_against_it() -> None:
    """A FORWARD that believes another action: its errors are larger than without any."""
    wrong = COVARIANCE["VIDEO"] + 0.5 * np.eye(len(COVARIANCE["VIDEO"]))
    assert side("future", FORWARD=wrong) < -0.1


def test_the_metric_speaks_of_recordings_and_resamples_episodes() -> None:
    found = compute("coupling_nats", recordings())
    assert found.items == pytest.approx({"episode 0": TRUE, "episode 1": 2 * TRUE}, abs=2e-3)
    assert found.details["dims"] == 2 * len(COVARIANCE["POLICY"])
    assert found.details["levels"] == pytest.approx(LEVELS.tolist())
    future = compute("coupling_nats", recordings(), side="future")
    assert future.value == pytest.approx(found.value, abs=2e-3)


def test_the_gap_is_that_of_the_two_factorisations() -> None:
    assert compute("factorisation_gap", recordings()).value == pytest.approx(0, abs=2e-3)
    blind = compute("factorisation_gap", recordings(FORWARD=COVARIANCE["VIDEO"]))
    assert blind.value == pytest.approx(1.5 * TRUE, abs=2e-3)


def test_tokens_are_exact() -> None:
    alone, given = (Nats(np.array([x, 2 * x]), np.array([4, 4])) for x in (5.0, 3.0))
    assert information(alone, given).tolist() == [2, 4]


COUNTS = np.array([[[4, 1], [1, 2]], [[1, 1], [3, 1]], [[1, 2], [2, 5]]])
"""How often an action token meets two tokens of a future, in a world of 24 pairs."""


def tokens(**planted: str) -> list[Recording]:
    """Every pair of the world, with the cross-entropies of one that knows it: by the chain rule,
    each token of a future after the one before. ``planted`` answers a query as another."""
    logs = []
    for pair in np.repeat(np.argwhere(COUNTS > 0), COUNTS[COUNTS > 0], axis=0):
        a, first, second = pair
        action, future = torch.tensor([[a]]), torch.tensor([[first, second]])
        told = {
            "POLICY": (action, [COUNTS.sum((1, 2))]),
            "INVERSE": (action, [COUNTS[:, first, second]]),
            "VIDEO": (future, [COUNTS.sum((0, 2)), COUNTS[:, first].sum(0)]),
            "FORWARD": (future, [COUNTS[a].sum(1), COUNTS[a, first]]),
        }
        one = recorded.recording(len(logs), 1)
        for query in told:
            said, rows = told[planted.get(query, query)]
            logits = torch.from_numpy(np.log(np.stack(rows)))[None]
            exact = row_nats(logits.float(), said, torch.ones_like(said, dtype=torch.bool))
            one.likelihood[query] = Nats(exact.numpy(), np.array([said.shape[1]]))
        logs.append(one)
    return logs


def test_cross_entropies_of_tokens_are_the_mutual_information() -> None:
    share = COUNTS / COUNTS.sum()
    apart = share.sum((1, 2), keepdims=True) * share.sum(0, keepdims=True)
    true = float((share * np.log(share / apart)).sum())
    assert true > 0.1
    for side in SIDES:
        found = compute("coupling_nats", tokens(), side=side)
        assert found.value == pytest.approx(true, abs=1e-5)
        assert found.details["levels"] == []
    assert compute("factorisation_gap", tokens()).value == pytest.approx(0, abs=1e-5)
    blind = tokens(FORWARD="VIDEO")
    assert compute("coupling_nats", blind, side="future").value == pytest.approx(0, abs=1e-5)
    assert compute("factorisation_gap", blind).value == pytest.approx(true, abs=1e-5)


def test_what_does_not_compare_is_named() -> None:
    one, other = expected(COVARIANCE["POLICY"]), expected(COVARIANCE["POLICY"], LEVELS[1:])
    with pytest.raises(
        ValueError, match=r"49 levels down to 0.001 of one likelihood, but 48 levels"
    ):
        information(one, other)
    with pytest.raises(ValueError, match=r"dimensions \[3\] alone, but \[5\] given"):
        information(one, expected(COVARIANCE["VIDEO"]))
    with pytest.raises(ValueError, match="one likelihood is exact"):
        information(one, Nats(np.array([1.0]), np.array([3])))
    logs = recordings()
    for log in logs:
        del log.likelihood["INVERSE"]
    assert "POLICY, INVERSE" in compute("coupling_nats", logs).why_not
    assert compute("coupling_nats", logs, side="future").value is not None
    with pytest.raises(KeyError):
        compute("coupling_nats", logs, side="past")


def halves(name: str) -> tuple[list[Recording], list[Recording]]:
    """The same instants by two networks: one has the first query of a side, one the second.

    Their futures are in pixels: as many as the likelihood has dimensions.
    """
    ones, others = recordings(), recordings()
    for one, other in zip(ones, others, strict=True):
        for each, query in zip((one, other), SIDES[name], strict=True):
            each.likelihood = {query: each.likelihood[query]}
            each.ahead = {"corner": np.zeros(int(each.likelihood[query].dims[0]))}
    return ones, others


def kept(one: Denoised, levels: np.ndarray) -> Denoised:
    return Denoised(one.levels[levels], one.errors[:, levels], one.energy, one.dims)


@pytest.mark.parametrize("name", SIDES)
def test_two_networks_have_a_side_together(name: str) -> None:
    """Also where they were trained at other levels; what lies above the noisiest is left out."""
    ones, others = halves(name)
    given = SIDES[name].given
    for other in others:
        other.likelihood[given] = kept(other.likelihood[given], np.arange(len(LEVELS)) > 0)
    found = compute("coupling_nats", completed(ones, others, name), side=name)
    assert found.items == pytest.approx({"episode 0": TRUE, "episode 1": 2 * TRUE}, abs=5e-3)
    assert found.details["levels"] == pytest.approx(LEVELS[1:].tolist())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda one: Denoised(one.levels, one.errors, one.energy, one.dims + 1), "5 numbers.* 6"),
        (lambda one: kept(one, np.arange(len(LEVELS)) < 1), "share 1 noise levels"),
        (lambda one: Nats(np.array([1.0]), one.dims), "the same tokens"),
    ],
)
def test_two_networks_that_measure_other_things_have_no_side_together(wrong, said: str) -> None:
    ones, others = halves("future")
    others[0].likelihood["FORWARD"] = wrong(others[0].likelihood["FORWARD"])
    with pytest.raises(NotApplicable, match=said):
        completed(ones, others, "future")


@pytest.mark.parametrize(
    ("side", "changed", "said"),
    [
        ("action", {"offsets": np.array([2, 6])}, r"the offsets \[4, 8\] and \[2, 6\]"),
        ("action", {"ahead": {}}, r"the views \['corner'\] and \[\]"),
        ("action", {"action_scale": np.ones(3)}, r"they scale actions by \[1.0, 2.0, 0.0\] and"),
        ("future", {"ahead": {"corner": np.zeros(7)}}, "futures in codes"),
    ],
)
def test_two_networks_must_have_been_asked_about_the_same(side: str, changed, said: str) -> None:
    ones, others = halves(side)
    for one, other in zip(ones, others, strict=True):
        vars(other).update(changed)
        if side == "future":
            vars(one).update(changed)
    with pytest.raises(NotApplicable, match=said):
        completed(ones, others, side)


def test_a_network_that_denoises_the_change_counts_like_one_that_denoises_frames() -> None:
    """The same numbers about another centre: other squares, the same errors."""
    ones, others = halves("future")
    for other in others:
        each = other.likelihood["FORWARD"]
        moved = Denoised(each.levels, each.errors, 9 * each.energy, each.dims)
        other.likelihood["FORWARD"] = kept(moved, np.arange(len(LEVELS)) > 0)
    found = compute("coupling_nats", completed(ones, others, "future"), side="future")
    assert found.items == pytest.approx({"episode 0": TRUE, "episode 1": 2 * TRUE}, abs=5e-3)


def test_two_networks_must_have_been_asked_at_the_same_instants() -> None:
    ones, others = halves("action")
    for other in others:
        other.step += 1
    with pytest.raises(NotApplicable, match="POLICY of the one network and INVERSE of the other"):
        completed(ones, others, "action")
