"""The planted faults: each measure must give every fault its signature."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pusher
import pytest

from wamlab.metrics.base import Result, compute, state_name
from wamlab.metrics.joint import distance
from wamlab.types import EXECUTED, Probe


@pytest.fixture(scope="module")
def planted() -> dict[str, list[Probe]]:
    return {fault: pusher.probes(fault, n=16, samples=4) for fault in pusher.FAULTS}


def both(name: str, probes: list[Probe]) -> tuple[Result, Result]:
    return compute(name, probes, entity="robot"), compute(name, probes, entity="object")


def test_the_oracle_is_coupled_and_right(planted):
    for name in ("eic", "eic_cf", "skill"):
        for result in both(name, planted["oracle"]):
            assert result.value > 0.95
            assert result.details["oracle"] == 1
            assert result.details["over_static_interval"].low > 0.5
            assert result.undefined == {}


@pytest.mark.parametrize("name", ["eic", "eic_cf", "skill"])
def test_retrieval_stands_beside_the_other_controls_where_it_was_saved(planted, name):
    oracle = planted["oracle"]
    assert "retrieval" not in compute(name, oracle).details

    def retrieving(shown) -> dict[str, float]:
        rivals = {state_name(probe): {"nearest clip": shown(probe)} for probe in oracle}
        return compute(name, oracle, rivals=rivals).details

    still = retrieving(lambda p: {v: np.repeat(now, 2, axis=0) for v, now in p.now.items()})
    assert still["retrieval"] == pytest.approx(still["static"])
    ahead = retrieving(lambda p: p.of("own")[0].happened)
    if name == "eic":  # one future for every sample is no coupling, however right it is
        assert ahead["retrieval"] == pytest.approx(0, abs=1e-9)
    else:
        assert ahead["static"] < ahead["retrieval"] < ahead["oracle"]


@pytest.mark.parametrize("name", ["eic", "eic_cf", "skill"])
def test_other_orders_and_worlds_stand_below_the_oracle(planted, name):
    """A world that leads nowhere else is none of the wrong ones."""
    for result in both(name, planted["oracle"]):
        told = result.details
        assert told["wrong_world_is"] == "gain 0.7"
        assert set(told["wrong_worlds"]) == {"gain 0.7"}
        assert told["static"] < told["wrong_world"] < 0.9
        assert told["shuffled_action"] < 0.9


def test_a_world_that_leads_elsewhere_in_a_third_of_the_states_is_no_wrong_one(planted):
    def alike(probe: Probe) -> Probe:
        here = {o.label: o.entities for o in probe.branches if o.kind in ("own", "imposed")}
        branches = [
            dataclasses.replace(one, entities=here[one.label.partition(": ")[2]])
            if one.kind == "world"
            else one
            for one in probe.branches
        ]
        return dataclasses.replace(probe, branches=branches)

    def some(among: Callable[[int], bool]) -> list[Probe]:
        return [alike(one) if among(i) else one for i, one in enumerate(planted["oracle"])]

    for name in ("eic_cf", "skill"):
        assert "wrong_world" not in compute(name, some(lambda i: i % 3 > 0)).details
        assert "wrong_world" in compute(name, some(lambda i: i % 3 == 0)).details


def test_the_oracle_shows_no_more_than_the_codec_keeps(planted):
    """Of a codec that loses colour the ceiling falls; what was imagined keeps its value."""

    def coarse(one):
        happened = one.happened["corner"]
        return {"corner": happened.mean(-1, keepdims=True).astype(np.uint8).repeat(3, axis=-1)}

    lossy = [
        dataclasses.replace(
            probe,
            branches=[
                dataclasses.replace(one, recoded=coarse(one)) if one.kind == "own" else one
                for one in probe.branches
            ],
        )
        for probe in planted["oracle"]
    ]
    whole, lost = compute("eic", planted["oracle"]), compute("eic", lossy)
    assert lost.value == whole.value
    assert 0 < lost.details["oracle"] < 0.9 < whole.details["oracle"]
    assert lost.details["normalised"] > 1


def test_what_was_executed_without_being_filmed_is_no_control(planted):
    """Logs of old hold the poses of other worlds and orders, and no frames."""
    bare = [
        dataclasses.replace(
            probe,
            branches=[
                dataclasses.replace(one, happened={}, masks={}) if one.kind in EXECUTED else one
                for one in probe.branches
            ],
        )
        for probe in planted["oracle"]
    ]
    whole, without = compute("eic", planted["oracle"]), compute("eic", bare)
    assert without.value == whole.value
    assert {"wrong_world", "shuffled_action"} & set(without.details) == set()


@pytest.mark.parametrize("name", ["eic", "eic_cf", "skill"])
def test_a_value_has_its_share_of_the_way_from_a_still_future_to_the_oracle(planted, name):
    for fault in ("oracle", "blind"):
        for result in both(name, planted[fault]):
            static = result.details["static"]
            share = (result.value - static) / (result.details["oracle"] - static)
            assert result.details["normalised"] == pytest.approx(share)


def test_contact_phases_are_among_the_parts(planted):
    """Half of the states are elsewhere and blind: each phase has the value of its own states."""

    def answering(probe: Probe, fault: str) -> Probe:
        """What imposed actions do is imagined as well: rightly, or what the first does."""
        first = probe.of("imposed")[0]
        branches = [
            dataclasses.replace(one, imagined=(first if fault == "blind" else one).happened)
            if one.kind == "imposed"
            else one
            for one in probe.branches
        ]
        return dataclasses.replace(probe, branches=branches)

    phases = {
        stratum: [
            dataclasses.replace(answering(one, fault), stratum=stratum)
            for one in planted[fault][:8]
        ]
        for stratum, fault in (("free", "oracle"), ("contact", "blind"))
    }
    for name in ("eic", "delta_psnr"):
        parts = compute(name, [one for phase in phases.values() for one in phase]).parts
        for stratum, phase in phases.items():
            assert parts[stratum].value == pytest.approx(compute(name, phase).value)
            assert parts[stratum].n == len(phase)
        assert parts["free"].value > parts["contact"].value + 0.5
    assert compute("eic", planted["oracle"]).parts.keys().isdisjoint({"free", "", "contact"})


def test_another_samples_future_is_worse_than_no_coupling(planted):
    for result in both("eic", planted["blind"]):
        assert result.interval.high < 0


def test_a_still_future_beside_real_actions_is_zero(planted):
    for name in ("eic", "skill"):
        for result in both(name, planted["static"]):
            assert result.value == pytest.approx(0, abs=0.01)
            assert result.details["static"] == pytest.approx(0, abs=1e-9)


def test_a_still_future_has_its_static_value_in_the_counterfactual_form(planted):
    for result in both("eic_cf", planted["static"]):
        assert result.value == pytest.approx(result.details["static"], abs=0.1)
        assert result.value < 0


def test_a_still_future_beside_zero_actions_is_undefined_and_never_one(planted):
    for name in ("eic", "eic_cf", "skill"):
        for result, gate in zip(both(name, planted["static zero"]), ("10 mm", "5 mm"), strict=True):
            assert result.value is None
            assert gate in result.why_not
            assert sum(result.undefined.values()) == 16


def test_object_blindness_shows_on_the_object_alone(planted):
    robot, thing = both("eic", planted["object-blind"])
    assert robot.value > 0.85
    assert abs(thing.value) < 0.1
    robot, thing = both("eic_cf", planted["object-blind"])
    assert robot.value > 0.75
    assert thing.value < 0


def test_optimism_shows_on_the_object_alone(planted):
    robot, thing = both("eic", planted["optimist"])
    assert robot.value > 0.85
    assert abs(thing.value) < 0.1


def test_the_counterfactual_form_takes_one_sample_where_eic_needs_two():
    single = pusher.probes("oracle", n=6, samples=1)
    assert "two samples" in compute("eic", single).why_not
    assert compute("eic_cf", single).value > 0.95
    mixed = compute("eic", [*single, pusher.probe(40, samples=3)])
    assert mixed.n == 1
    assert mixed.undefined == {"one sample only": 6}


def test_the_counterfactual_form_alone_passes_a_model_that_ignores_its_action(planted):
    """Being above a still future is no proof of coupling: that takes EIC, which is below zero."""
    for forced, coupled in zip(
        both("eic_cf", planted["blind"]), both("eic", planted["blind"]), strict=True
    ):
        assert forced.details["over_static_interval"].low > 0
        assert coupled.details["over_static_interval"].high < 0


def test_a_policy_of_one_mode_has_no_eic_but_skill():
    probes = pusher.probes("oracle", n=6, samples=2)
    for probe in probes:
        same = probe.branches[0]
        probe.branches[1] = dataclasses.replace(same, label="again")
    assert compute("eic", probes).value is None
    assert compute("div", probes).value == 0
    assert compute("skill", probes).value > 0.95


def test_diversity_is_in_metres_and_grows_with_the_horizon(planted):
    robot, thing = both("div", planted["oracle"])
    assert (robot.unit, robot.floor, thing.floor) == ("m", 0.010, 0.005)
    assert robot.parts["@16"].value > robot.parts["@8"].value > 0.01
    ends = np.array([b.entities["robot"][16, :2] for b in planted["oracle"][0].of("own")])
    apart = [np.linalg.norm(ends[i] - ends[j]) for i in range(4) for j in range(i)]
    only = compute("div", planted["oracle"][:1]).parts["@16"].value
    assert only == pytest.approx(np.mean(apart), abs=1e-6)


def test_a_hand_made_case_has_its_value_by_arithmetic():
    """Two samples, one pixel region: d is the plain difference of grey levels."""
    probe = pusher.probe(0, samples=2)
    level = {"now": 0, "happened": (100, 200), "imagined": (110, 180), "imposed": (0, 20, 40, 60)}
    fill = lambda grey: {"corner": np.full((2, 48, 48, 3), grey, np.uint8)}  # noqa: E731
    probe.now = {"corner": np.zeros((1, 48, 48, 3), np.uint8)}
    own, (_, *imposed) = probe.of("own"), probe.of("imposed")
    for branch, happened, imagined in zip(own, level["happened"], level["imagined"], strict=True):
        branch.happened, branch.imagined = fill(happened), fill(imagined)
    for branch, grey in zip(imposed, level["imposed"], strict=True):
        branch.happened = fill(grey)
    assert compute("eic", [probe]).value == pytest.approx(1 - (10 + 20) / (90 + 80))
    assert compute("skill", [probe]).value == pytest.approx(1 - (10 + 20) / (100 + 200))
    others = np.mean([abs(seen - grey) for seen in (110, 180) for grey in level["imposed"]])
    forced = compute("eic_cf", [probe])
    assert forced.value == pytest.approx(1 - 15 / others)
    assert forced.details["static"] == pytest.approx(1 - 150 / 30)
    assert forced.details["imposed"] == ["half-speed", "mirrored", "truncated", "zero"]


def test_the_pixel_gate_follows_the_measured_noise(planted):
    noisy = [dataclasses.replace(probe, pixel_noise=80.0) for probe in planted["oracle"][:4]]
    result = compute("eic", noisy)
    assert result.value is None
    assert "pixel gate" in result.why_not


def test_parts_are_views_at_offsets_and_items_are_states(planted):
    result = compute("eic", planted["oracle"], entity="object")
    assert set(result.parts) == {"corner@8", "corner@16"}
    assert len(result.items) == result.n == 16
    assert compute("eic", planted["oracle"], entity="block").value == result.value


def test_a_distance_reads_its_region_only():
    first, second = np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.5)
    second[2:] = np.nan
    region = np.zeros((4, 4), bool)
    region[:2] = True
    assert distance(first, second, region) == pytest.approx(0.5)


def test_what_cannot_be_measured_says_why(planted):
    bare = [dataclasses.replace(p, branches=p.of("own")) for p in planted["oracle"]]
    assert "no imposed branches" in compute("eic_cf", bare).why_not
    assert "masks and poses of 'door'" in compute("eic", bare, entity="door").why_not
    dull = pusher.probe(0)
    for branch in dull.branches:
        branch.imagined, branch.why_not = None, "the future cannot be decoded"
    for name in ("eic", "eic_cf", "skill"):
        assert "cannot be decoded" in compute(name, [dull]).why_not
    unmasked = pusher.probe(0)
    unmasked.branches[0].masks = {}
    assert "holds no masks" in compute("eic", [unmasked]).why_not


@pytest.mark.parametrize(
    ("side", "what"), [("imagined", "imagined frames"), ("happened", "executed frames")]
)
def test_frames_with_nan_are_refused_by_state_and_view(side, what):
    probe = pusher.probe(0, samples=2)
    for branch in probe.of("own"):
        setattr(branch, side, {"corner": np.full((2, 48, 48, 3), np.nan)})
    said = f"^toy/pusher/0-0: {what} of view 'corner' hold NaN or infinity$"
    with pytest.raises(ValueError, match=said):
        compute("eic", [probe], entity="robot")


def test_branches_that_do_not_fit_together_are_refused():
    odd = pusher.probe(0)
    odd.branches[0].offsets = np.array([4, 16])
    with pytest.raises(ValueError, match="different offsets"):
        compute("eic", [odd])
    short = pusher.probe(0)
    for branch in short.branches:
        branch.action = branch.action[:12]
    with pytest.raises(ValueError, match="after its 12 actions"):
        compute("eic", [short])


def test_whatever_else_is_imposed_the_counterfactual_form_keeps_its_fixed_set():
    probes = pusher.probes("oracle", 4)
    before = compute("eic_cf", probes)
    for probe in probes:
        zero = next(branch for branch in probe.of("imposed") if branch.label == "zero")
        probe.branches.append(dataclasses.replace(zero, label="gripper-flipped"))
    assert compute("eic_cf", probes) == before
    for probe in probes:
        probe.branches = [*probe.of("own"), probe.of("imposed")[0], probe.branches[-1]]
    assert "no imposed branches (zero, mirrored" in compute("eic_cf", probes).why_not
