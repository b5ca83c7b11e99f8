"""The planted faults on states: every measure gives every fault the signature of the prototype.

``SIGNATURES`` and ``COMPARED`` are the figures that the prototype of these measures gave on its
pusher, robot and object; None is undefined. Its world is rebuilt from a description, so a figure
is met within the tolerance that stands beside its row.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pusher
import pytest
from lines import beside, line
from planted_paths import SCENE, forced, joined, own

from wamlab.metrics.base import NotApplicable, Result
from wamlab.metrics.coupling import cmr, div, eic, eic_cf, eic_ref, icc, skill
from wamlab.metrics.effects import ads, cda, cf_mae, distance_correlation, iea, instruction_contrast
from wamlab.metrics.paths import Paths
from wamlab.metrics.worlds import dwa, ocb

NONE = (None, None)
# EIC, CMR, IEA of robot and object; gain of the object; ICC, bias, correlation; tolerance.
SIGNATURES = {
    "oracle": ((0.98, 0.97), (1, 1), (1, 1), 1.0, 0.82, 0, 0.97, 0.05),
    "blind": ((-0.15, -0.15), (0, 0), (0, 0), 0.0, -0.12, 0, 0.37, 0.05),
    "static": ((0, 0), (0.12, 0.12), (0, 0), 0.0, 0, -0.22, 0.27, 0.08),
    "static zero": (NONE, (0.12, 0.12), NONE, None, None, 0, 0.94, 0.05),
    "object-blind": ((0.98, 0), (1, 0.12), (1, 0), 0.0, 0.83, -0.22, 0.26, 0.08),
    "optimist": ((0.98, 0), (1, 0.13), (1, 0), 0.0, 0.82, 0.71, None, 0.05),
    "late": ((0.96, 0.97), (0.91, 0.99), (1, 1), 1.0, 0.37, 0, 0.97, 0.08),
    "excited": ((0.43, 0.61), (0.48, 0.65), (0.75, 0.75), 1.5, 0.70, -0.05, 0.54, 0.2),
    "gain .7": ((0.47, 0.10), (0.44, 0.22), (0.91, 0.19), 0.29, 0.56, -0.06, 0.42, 0.15),
    "slip .5": ((0.98, 0.19), (1, 0.29), (1, 0.39), 0.28, 0.82, -0.17, 0.49, 0.07),
    "one mode": (NONE, (0.12, 0.12), (1, 1), 1.0, None, 0, 0.98, 0.05),
}
ALIKE = ("static zero", "one mode")
"""Models whose executions from a state are all one: even the oracle, as read, guesses its own."""
# Capped separation, cosine, distance correlation, mean absolute error x 100; IEA.
COMPARED = {
    "oracle": ((1, 1), (1, 0.99), (1, 1), (0.3, 0.3), (1, 1)),
    "mirrored": ((1, 0.77), (0.61, 0.13), (1, 0.14), (14, 8.6), (-0.67, -1.6)),
    "relabelled": ((1, 1), (0.67, 0.30), (0.07, -0.03), (28, 9.5), (-1.8, -1.9)),
    "blind": ((0.02, 0.07), (0.76, 0.46), (0.03, 0.03), (16, 5.5), (0, 0)),
    "static": ((0.02, 0.07), (0.04, -0.01), (0, 0), (16, 5.5), (0, 0)),
    "object-blind": ((1, 0.07), (1, 0.01), (1, 0.01), (0.3, 5.5), (1, 0)),
    "optimist": ((1, 0.07), (1, 0.62), (1, -0.03), (0.3, 5.5), (1, 0)),
    "excited": ((1, 1), (1, 0.99), (1, 1), (8.2, 2.8), (0.75, 0.74)),
    "slip .5": ((1, 0.44), (1, 0.87), (1, 0.74), (0.3, 3.9), (1, 0.38)),
    "late": ((0.99, 1), (1, 0.99), (1, 1), (0.6, 0.3), (1, 1)),
}


pytestmark = pytest.mark.usefixtures("few_draws")


@cache
def cycle(model: str) -> Result:
    return icc(own(model)["robot"], pusher.acting(model, SCENE).own, pusher.velocity)


@cache
def outcome(model: str) -> Result:
    block = own(model)["block"]
    ends = (pusher.reached(places[:, :, -1]) for places in (block.imagined, block.executed))
    return ocb(*ends, block.states)


def near(found: float | None, published: float | None, tolerance: float) -> bool:
    if published is None or found is None:
        return found is published
    return abs(found - published) <= tolerance


@pytest.mark.parametrize("model", SIGNATURES)
def test_every_fault_has_its_signature(model):
    consistent, matched, agreed, gain, cycled, bias, correlation, tolerance = SIGNATURES[model]
    for i, entity in enumerate(("robot", "block")):
        effects = iea(forced(model)[entity])
        assert near(eic(own(model)[entity]).value, consistent[i], tolerance)
        rate = cmr(own(model)[entity], merge=-1)
        assert near(rate.value, None if model in ALIKE else matched[i], tolerance)
        assert ("others 0.12" in rate.why_not) == (model in ALIKE)
        assert near(effects.value, agreed[i], tolerance)
    assert near(effects.details.get("gain"), gain, tolerance)
    assert near(cycle(model).value, cycled, tolerance)
    assert near(outcome(model).value, bias, tolerance)
    assert near(outcome(model).details["mcc"], correlation, tolerance)


def test_the_signs_of_the_published_table_come_out_but_for_one():
    """The excited one pushes further: whether that ends on the goal more or less often is a matter
    of where the blocks start, which the description leaves open."""
    turned = set()
    for model, (consistent, _, agreed, gain, cycled, bias, correlation, _) in SIGNATURES.items():
        effects = {entity: iea(forced(model)[entity]) for entity in ("robot", "block")}
        found = {
            **{f"EIC {entity}": eic(own(model)[entity]).value for entity in effects},
            **{f"IEA {entity}": one.value for entity, one in effects.items()},
            "gain": effects["block"].details.get("gain"),
            "ICC": cycle(model).value,
            "OCB": outcome(model).value,
            "MCC": outcome(model).details["mcc"],
        }
        published = (*consistent, *agreed, gain, cycled, bias, correlation)
        for (name, one), figure in zip(found.items(), published, strict=True):
            if one is not None and figure is not None and abs(figure) > 0.01:
                turned |= {(model, name)} if np.sign(one) != np.sign(figure) else set()
    assert turned == {("excited", "OCB")}


def test_the_measures_see_what_the_others_miss():
    """The lag shows in ICC alone, the block's faults on the block alone, the policy's in SKILL."""
    assert [cycle(model).details["lag"] for model in ("oracle", "late")] == [0, 1]
    assert cycle("late").details["lags"][1] > 0.75
    for model in ("object-blind", "optimist", "slip .5"):
        assert cycle(model).value == pytest.approx(cycle("oracle").value, abs=0.01)
        assert eic(own(model)["block"]).interval.high < 0.35
    assert skill(own("one mode")["block"]).value == pytest.approx(0.97, abs=0.02)
    assert div(own("one mode")["block"]).value == 0
    assert skill(own("optimist")["block"]).value < 0


def test_the_controls_stand_in_the_same_result():
    for entity in ("robot", "block"):
        result = eic(own("oracle")[entity])
        assert result.details["static"] == pytest.approx(0, abs=0.005)
        assert result.details["oracle"] == pytest.approx(result.value, abs=0.005)
        assert result.details["over_static_interval"].low > 0.9
        assert eic(own("blind")[entity]).details["over_static_interval"].high < 0
    assert cycle("slip .5").details["oracle"] == pytest.approx(0.82, abs=0.05)
    exact = pusher.paths("oracle", SCENE, noise=0)["robot"]
    assert eic(exact).value == eic(exact).details["oracle"] == 1
    assert icc(exact, SCENE.own, pusher.velocity).value == pytest.approx(1, abs=1e-5)


def counterfactual(model: str, entity: str) -> Result:
    scene = pusher.acting(model, SCENE)
    path = scene.execute(scene.imposed[:, 1:])
    places = path.robot if entity == "robot" else path.block
    return eic_cf(own(model)[entity], places[..., 1:, :])


@pytest.mark.parametrize("entity", ["robot", "block"])
def test_the_counterfactual_form_is_read_against_the_static_future(entity):
    """It takes a policy of one mode; a blind model and an optimist are above static as well."""
    for model in ("oracle", "one mode"):
        assert counterfactual(model, entity).value > 0.9
    for model in ("blind", "optimist"):
        result = counterfactual(model, entity)
        assert result.details["static"] < result.value < result.details["oracle"] + 0.001
        assert result.details["over_static_interval"].low > 0
    still = counterfactual("static", entity)
    assert still.details["over_static"] == pytest.approx(0, abs=0.02)
    assert counterfactual("static zero", entity).value is None


def test_the_static_control_is_read_with_the_error_of_the_imagination():
    """Or a model that imagines nothing would be above it, where imposed actions do nothing."""
    for entity in ("robot", "block"):
        paths = own("static")[entity]
        rest = np.repeat(paths.start[:, None, None], len(paths.offsets), axis=2)
        imposed = np.concatenate([rest, rest + 0.1], axis=1)
        bare = eic_cf(dataclasses.replace(paths, reread=None), imposed).details
        assert bare["over_static_interval"].low > 0
        assert abs(eic_cf(paths, imposed).details["over_static"]) < bare["over_static"] / 5


def test_a_fixed_denominator_does_not_reward_a_noisy_policy():
    """The same error in metres is the same score, however far the own samples are spread."""
    robot = own("oracle")["robot"]
    middle = robot.executed.mean(axis=1, keepdims=True)
    narrow = middle + (robot.executed - middle) / 3
    calm = dataclasses.replace(
        robot, imagined=narrow + robot.imagined - robot.executed, executed=narrow, reread=None
    )
    assert eic(calm).value < eic(robot).value - 0.02
    scores = [eic_ref(paths, robot.executed).value for paths in (robot, calm)]
    assert scores[0] == pytest.approx(scores[1])
    assert eic_ref(own("one mode")["robot"], robot.executed).value > 0.95


# What the measures are for: what simpler ones say of the same models.


def apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.linalg.norm(first - second, axis=-1)


def ends(paths: dict[str, Paths], which: str) -> np.ndarray:
    return np.concatenate([getattr(one, which)[:, :, -1] for one in paths.values()], axis=-1)


def test_the_raw_error_rewards_doing_nothing():
    error = {
        model: apart(ends(own(model), "imagined"), ends(own(model), "executed")).mean()
        for model in SIGNATURES
    }
    assert error["static zero"] == pytest.approx(error["oracle"], abs=0.001)
    assert error["oracle"] == pytest.approx(0.006, abs=0.001)
    assert error["object-blind"] == pytest.approx(0.123, abs=0.02)
    assert error["optimist"] == pytest.approx(0.162, abs=0.02)
    assert error["slip .5"] == pytest.approx(0.093, abs=0.02)
    assert error["blind"] == pytest.approx(0.264, abs=0.02)


def test_shuffling_across_states_pays_for_knowing_the_scene():
    def crossed(model: str) -> float:
        shown, real = ends(own(model), "imagined"), ends(own(model), "executed")
        other = apart(shown[:, None, 0], real[None, :, 0])[~np.eye(len(shown), dtype=bool)]
        return 1 - apart(shown, real).mean() / other.mean()

    assert crossed("static zero") == pytest.approx(crossed("oracle"), abs=0.02)
    assert crossed("object-blind") > 0.55
    assert crossed("optimist") > 0.4
    assert crossed("slip .5") > 0.65
    assert crossed("blind") > 0


def test_that_futures_differ_does_not_tell_an_optimist_from_the_oracle():
    def differ(model: str) -> float:
        acting, resting = np.moveaxis(ends(forced(model), "imagined")[:, :2], 1, 0)
        return apart(acting, resting).mean()

    assert differ("oracle") == pytest.approx(0.403, abs=0.02)
    for model in ("optimist", "object-blind", "slip .5"):
        assert differ(model) > 0.9 * differ("oracle")
    assert differ("static zero") == pytest.approx(0.008, abs=0.001)


@pytest.mark.parametrize("model", COMPARED)
def test_the_formulas_of_others_give_their_figures(model):
    for i, entity in enumerate(("robot", "block")):
        capped, cosine, correlated, missed, agreed = (pair[i] for pair in COMPARED[model])
        paths = forced(model)[entity]
        assert ads(paths).value == pytest.approx(capped, abs=0.06)
        assert cda(paths).value == pytest.approx(cosine, abs=0.13)
        assert distance_correlation(paths).value == pytest.approx(correlated, abs=0.12)
        assert 100 * cf_mae(paths).value == pytest.approx(missed, abs=1.3)
        assert iea(paths).value == pytest.approx(agreed, abs=0.3)


def test_joined_entities_hide_every_fault_of_the_object():
    for model in ("object-blind", "optimist", "slip .5"):
        both = joined(forced(model))
        for formula in (ads, cda, distance_correlation, iea):
            assert formula(both).value > 0.85
        assert iea(forced(model)["block"]).value < 0.5


# Cases whose value is known by arithmetic.


PAIR = line([[0.12, 0.24]], [[0.1, 0.3]])
"""Errors of 20 and 60 mm, 160 mm to the other one on average, 200 mm of motion and of spread."""


def test_the_consistencies_are_ratios_of_mean_distances():
    assert eic(PAIR).value == pytest.approx(1 - 0.04 / 0.16)
    assert skill(PAIR).value == pytest.approx(1 - 0.04 / 0.2)
    assert div(PAIR).value == pytest.approx(0.2)
    assert cmr(PAIR).value == 1
    assert eic_ref(PAIR, beside(0, 0.1, 0.4)).value == pytest.approx(1 - 0.04 / (0.8 / 3))
    forced = eic_cf(PAIR, beside(0, 0.2))
    assert forced.value == pytest.approx(1 - 0.04 / 0.12)
    assert forced.details["static"] == pytest.approx(1 - 0.2 / 0.1)
    assert forced.details["oracle"] == 1


def test_states_weigh_by_their_distances_and_are_resampled_whole():
    two = line([[0.12, 0.24], [0.3, 0.1]], [[0.1, 0.3], [0.1, 0.3]])
    result = eic(two)
    assert result.items == pytest.approx({"state 0": 0.75})
    assert result.value == pytest.approx(1 - (0.04 + 0.2) / 0.16)
    assert result.n == 2
    many = line([[0.12, 0.24]] * 40, [[0.1, 0.3]] * 40)
    assert eic(many).interval == pytest.approx((0.75, 0.75))


def test_the_offsets_are_chosen_and_the_curve_shows_them_all():
    late = line([[[0.1, 0.5], [0.3, 0.5]]], [[[0.1, 0.2], [0.3, 0.8]]])
    assert eic(late).value == pytest.approx(1 - 0.3 / 0.3)
    assert eic(late, at=[1]).value == 1
    assert eic(late, at=[1, 2]).value == pytest.approx(1 - 0.15 / 0.25)
    assert eic(late).details["curve"] == pytest.approx({1: 1.0, 2: 0.0})
    assert eic(late).details["consistent_until"] == 1
    with pytest.raises(KeyError, match="no offset 3"):
        eic(late, at=[3])


def test_only_the_own_execution_or_one_like_it_is_a_match():
    swapped = line([[0.3, 0.1, 0.5]], [[0.1, 0.3, 0.5]])
    assert cmr(swapped).value == pytest.approx(1 / 3)
    assert cmr(swapped).details["chance"] == pytest.approx(1 / 3)
    assert cmr(line([[0.1, 0.12, 0.14]], [[0.1, 0.3, 0.5]])).value == pytest.approx(1 / 3)
    twins = line([[0.106, 0.1, 0.5]], [[0.1, 0.106, 0.5]])
    assert cmr(twins).value == 1
    assert cmr(twins).details["chance"] == pytest.approx(5 / 9)
    assert cmr(twins, merge=-1).value == pytest.approx(1 / 3)
    assert cmr(line([[0.1, 0.5]], [[0.1, 0.104]])).undefined == {
        "the executions are one within 10 mm": 1
    }


@pytest.mark.parametrize("measure", [iea, instruction_contrast])
def test_effects_agree_in_size_and_sign(measure):
    true = [[0.0, 0.1, 0.3]]
    for gain in (-1.0, 0.0, 0.5, 1.0, 1.5):
        result = measure(line([[gain * place + 0.7 for place in true[0]]], true))
        assert result.value == pytest.approx(1 - (gain - 1) ** 2)
        assert result.details["gain"] == pytest.approx(gain)
        assert result.details["spurious"] is None
    assert measure(line([[0.1, 0.13, 0.5]], [[0.1, 0.1, 0.5]])).details["spurious"] == (
        pytest.approx(0.03)
    )


def test_invented_side_effects_show_where_nothing_truly_differs():
    still = iea(line([[0.0, 0.2]], [[0.1, 0.1]], entity="block"))
    assert still.value is None
    assert still.details["spurious"] == pytest.approx(0.2)


def test_the_formulas_of_others_by_hand():
    true = [[0.0, 0.1, 0.3]]
    double, half = line([[0.0, 0.2, 0.6]], true), line([[0.0, 0.05, 0.15]], true)
    assert [ads(paths).value for paths in (double, half)] == pytest.approx([1, 0.5])
    assert [cda(paths).value for paths in (double, half)] == pytest.approx([1, 1])
    assert cda(line([[0.0, -0.2, 0.6]], true)).value == pytest.approx(0)
    assert distance_correlation(half).value == pytest.approx(1)
    assert distance_correlation(line([[0.3, 0.1, 0.0]], true)).value == pytest.approx(0.5)
    assert distance_correlation(line([[0.0, 0.3, 0.1]], true)).value == pytest.approx(-1)
    assert cf_mae(double).value == pytest.approx(0.2)


def test_the_imagined_motion_holds_the_action_at_its_lag():
    actions = np.array([[[1.0, 2, 1], [-1, 0, -1]]])[..., None]
    places = actions.cumsum(axis=2)[..., 0]
    on_time = icc(
        line(places, places), actions, lambda path: np.diff(path, axis=2), lags=(-1, 0, 1)
    )
    assert on_time.value == 1
    assert on_time.details["lag"] == 0
    delayed = np.concatenate([np.zeros((1, 2, 1)), places[..., :-1]], axis=-1)
    late = icc(line(delayed, places), actions, lambda path: np.diff(path, axis=2), lags=(-1, 0, 1))
    assert late.value == pytest.approx(1 - 1 / (5 / 3))
    assert late.details["lag"] == 1
    assert late.details["lags"][1] == 1
    assert late.details["oracle"] == 1


def test_what_another_physics_would_score_stands_among_the_controls():
    """A model that imagines a wrong world scores what that world scores; the best is named."""
    for model, entity in (("gain .7", "robot"), ("slip .5", "block")):
        for measure in (eic, skill, cmr):
            found = measure(own(model)[entity])
            assert found.details["wrong_worlds"][model] == pytest.approx(found.value, abs=0.01)
            best = found.details["wrong_world"]
            assert best == max(found.details["wrong_worlds"].values()) < found.details["oracle"]
            assert found.details["wrong_worlds"][found.details["wrong_world_is"]] == best
    worlds = set(pusher.WORLDS)
    assert set(eic(own("oracle")["block"]).details["wrong_worlds"]) == worlds
    gains = {"gain .7", "gain 1.3"}
    assert set(eic(own("oracle")["robot"]).details["wrong_worlds"]) == gains
    imposed = iea(forced("gain .7")["robot"])
    assert imposed.details["wrong_worlds"]["gain .7"] == pytest.approx(imposed.value, abs=0.01)
    assert set(imposed.details["wrong_worlds"]) == gains
    assert imposed.details["wrong_world"] < imposed.details["oracle"]
    half = line([[0.12, 0.24]], [[0.1, 0.3]], elsewhere={"half": beside(0.05, 0.15)})
    assert eic(half).details["wrong_world"] == pytest.approx(1 - 0.1 / 0.15)
    assert skill(half).details["wrong_world"] == pytest.approx(1 - 0.1 / 0.2)
    erring = dataclasses.replace(half, reread=half.executed + 0.02)
    assert erring.wrong_worlds()["half"][0, :, 0, 0] == pytest.approx([0.07, 0.17])


def test_a_world_is_a_wrong_one_if_it_mostly_leads_elsewhere():
    """Of three states one in which nothing moves does not count, and half is not most."""
    executed = [[0.1, 0.3], [0.1, 0.3], [0.0, 0.0]]
    one, two = beside(0.05, 0.15, 0.1, 0.3, 0.0, 0.0), beside(0.05, 0.15, 0.05, 0.15, 0.0, 0.0)
    worlds = {name: places.reshape(3, 2, 1, 1) for name, places in (("one", one), ("two", two))}
    assert set(skill(line(executed, executed, elsewhere=worlds)).details["wrong_worlds"]) == {"two"}


def test_a_training_clip_and_another_order_of_actions_stand_among_the_controls():
    """Two executions, to 0.1 and 0.3; the clip shows 0.2; shuffled they lead to 0.3, 0.1."""
    told = {"retrieved": np.full((1, 1, 1), 0.2), "shuffled": beside(0.3, 0.1)}
    found = line([[0.1, 0.3]], [[0.1, 0.3]], **told)
    assert eic(found).details["retrieval"] == pytest.approx(1 - 0.1 / 0.1)
    assert skill(found).details["retrieval"] == pytest.approx(1 - 0.1 / 0.2)
    assert cmr(found).details["retrieval"] == pytest.approx(0.5)
    assert skill(found).details["shuffled_action"] == pytest.approx(1 - 0.2 / 0.2)
    assert cmr(found).details["shuffled_action"] == 0
    erring = dataclasses.replace(found, reread=found.executed + 0.02)
    shown = erring.further_controls()
    assert shown["shuffled_action"][0, :, 0, 0] == pytest.approx([0.32, 0.12])
    assert shown["retrieval"][0, :, 0, 0] == pytest.approx([0.2, 0.2])
    assert not {"retrieval", "shuffled_action"} & set(iea(forced("oracle")["robot"]).details)


# Gates and input that cannot be measured.


def test_gates_are_in_metres_and_the_closed_states_are_counted():
    moved, still = [0.1, 0.3], [0.1, 0.108]
    for entity, open_states, gate in (("robot", 1, "10 mm"), ("block", 2, "5 mm")):
        result = eic(line([moved, still], [moved, still], entity=entity))
        assert result.n == open_states
        closed = {f"positions differ by {gate} or less": 1} if open_states == 1 else {}
        assert result.undefined == closed
        assert result.details["gate"] == float(gate[:-3]) / 1000
    assert eic(line([moved, still], [moved, still]), gate=0.001).n == 2
    shut = eic(line([still], [still]))
    assert shut.value is None
    assert shut.undefined == {"positions differ by 10 mm or less": 1}
    assert "10 mm" in shut.why_not


def test_a_policy_that_rests_is_undefined_and_never_one():
    for entity in ("robot", "block"):
        paths = own("static zero")[entity]
        for result in (eic(paths), skill(paths), cmr(paths), iea(forced("static zero")[entity])):
            assert result.value is None
            assert sum(result.undefined.values()) == 200
    assert cycle("static zero").value is None


def test_what_the_reader_cannot_tell_has_no_value():
    """Read off real frames, the two executions are taken for each other."""
    moved, mistaken = [[0.1, 0.3]] * 5, np.array([[0.26, 0.14]] * 5)[..., None, None]
    found = eic(line(moved, moved, reread=mistaken))
    assert found.value is None
    said = "the executions themselves, as it reads them, score -3.00, a static future 0.00"
    assert said in found.why_not
    read = np.array(moved)[..., None, None]
    assert eic(line(moved, moved, reread=read)).value == 1
    few = eic(line(moved[:4], moved[:4], reread=read[:4]))
    assert few.why_not.startswith("the reader cannot tell in 4 states (at least 5 are needed)")


def test_a_reader_that_errs_by_more_than_the_spread_gives_no_rate_and_no_world():
    """Beside an imagination that seems to know better than the reader can see."""
    rng = np.random.default_rng(2)
    shape = (30, 8, 1, 2)
    went = rng.normal(0, 0.015, shape)
    paths = Paths(
        "robot",
        [str(i) for i in range(30)],
        np.array([16]),
        np.full((30, 2), -0.05),
        imagined=went + rng.normal(0, 0.005, shape),
        executed=went,
        reread=went + rng.normal(0, 0.3, shape),
        elsewhere={"gain 0.7": 0.7 * went - 0.015, "gain 1.3": 1.3 * went + 0.015},
    )
    assert "the reader cannot tell in 30 states" in eic(paths).why_not
    rate = cmr(paths, merge=-1)
    assert rate.value is None
    assert "cannot tell in 30 states" in rate.why_not
    assert "others 0.12" in rate.why_not
    margin = dwa(paths, least_eic=None)
    assert margin.value is None
    assert "which is not surely above 1" in margin.why_not
    exact = dataclasses.replace(paths, reread=went + rng.normal(0, 0.001, shape))
    assert cmr(exact, merge=-1).value > 0.7
    assert dwa(exact, least_eic=None).value > 1


def test_a_rate_is_placed_between_chance_and_the_oracle():
    """The reader takes the two executions of every fourth state for each other."""
    went = np.array([[0.1, 0.3]] * 40)
    swapped = np.where((np.arange(40) % 4 == 0)[:, None], went[:, ::-1], went)
    found = cmr(line(went, went, reread=swapped[..., None, None]))
    assert (found.value, found.details["oracle"], found.details["chance"]) == (1, 0.75, 0.5)
    assert found.details["normalised"] == pytest.approx(2)
    assert found.details["static"] == found.details["over_static"] == 0.5


def test_the_spurious_effect_stands_beside_that_of_the_reader_alone():
    went = np.array([[0.1, 0.1, 0.5]] * 6)
    read, shown = (went + np.array([0.0, off, 0.0]) for off in (0.004, 0.03))
    found = iea(line(shown, went, reread=read[..., None, None]))
    assert found.details["spurious"] == pytest.approx(0.03)
    assert found.details["spurious_floor"] == pytest.approx(0.004)


def test_a_static_future_is_one_picture_that_is_read_once():
    """Its reading errs alike whatever is done, so it shows no effect; the reader's other errors
    are larger than the effects, and make the executions look worse than that."""
    went, errors = np.array([[0.1, 0.12]] * 5), np.array([[0.05, -0.05]] * 5)
    exact = line(went + 0.01, went, reread=went[..., None, None])
    assert iea(exact).details["static"] == eic(exact).details["static"] == 0
    paths = line(went + errors, went, reread=(went + errors)[..., None, None])
    assert paths.controls()["static"][:, :, 0, 0] == pytest.approx(np.full((5, 2), 0.05))
    assert "score -24.00, a static future 0.00" in iea(paths).why_not


def test_a_rate_that_was_read_needs_five_states_with_one():
    """In the fifth state both executions lead to one place, so none is the nearer."""
    moved = [[0.1, 0.3]] * 4 + [[0.1, 0.1]]
    read = np.array(moved)[..., None, None]
    few = cmr(line(moved, moved, reread=read))
    assert few.why_not == "4 of 5 states have a value (at least 5 are needed)"
    assert few.undefined == {"the executions are one within 10 mm": 1}
    assert cmr(line(moved, moved)).n == 4
    assert cmr(line(moved[:4] * 2, moved[:4] * 2, reread=np.concatenate([read[:4]] * 2))).n == 8


def test_an_imagination_that_equals_the_other_execution_has_no_ratio():
    assert "equals every other" in eic(line([[0.3, 0.1]], [[0.1, 0.3]])).why_not


def test_one_sample_or_no_intervention_is_not_applicable():
    single = line([[0.1]], [[0.1]])
    for measure in (eic, cmr, div, iea, instruction_contrast, ads, distance_correlation, cf_mae):
        with pytest.raises(NotApplicable, match="needs two"):
            measure(single)
    with pytest.raises(NotApplicable, match="ICC needs two samples"):
        icc(single, np.ones((1, 1, 1, 1)), pusher.velocity)
    with pytest.raises(NotApplicable, match="needs two reference chunks"):
        eic_ref(PAIR, beside(0.1))
    with pytest.raises(NotApplicable, match="no imposed executions"):
        eic_cf(PAIR, np.zeros((1, 0, 1, 1)))
    with pytest.raises(NotApplicable, match="other worlds"):
        dwa(PAIR)
    with pytest.raises(NotApplicable, match="every offset from 1"):
        icc(line([[0.1, 0.3]], [[0.1, 0.3]], offsets=np.array([8])), np.ones((1, 2, 1, 1)), np.diff)
    with pytest.raises(NotApplicable, match="there are none"):
        ocb(np.zeros((0, 2), bool), np.zeros((0, 2), bool), [])


@pytest.mark.usefixtures("as_shipped")
def test_what_does_not_fit_together_is_refused():
    good = {"imagined": [[0.1, 0.3]], "executed": [[0.1, 0.3]]}
    with pytest.raises(ValueError, match="robot: imagined: expected finite"):
        line([[0.1, np.nan]], [[0.1, 0.3]])
    with pytest.raises(ValueError, match=r"imagined: expected shape \(1, 2, 1, 1\)"):
        line([[0.1]], [[0.1, 0.3]])
    with pytest.raises(ValueError, match=r"executions \(N, K, T, D\), got"):
        Paths("robot", [], np.array([1]), np.zeros((0, 1)), *[np.zeros((0, 2, 1, 1))] * 2)
    with pytest.raises(ValueError, match="rising offsets"):
        line(**good, offsets=np.array([0]))
    with pytest.raises(ValueError, match="names of 1 states"):
        ocb(np.ones((1, 1), bool), np.ones((1, 1), bool), ["a", "b"])
    with pytest.raises(ValueError, match="names of 2 states"):
        ocb(np.ones((2, 1), bool), np.ones((2, 1), bool), ["a", "a"])
    with pytest.raises(ValueError, match="reference: expected shape"):
        eic_ref(PAIR, np.zeros((2, 3, 1, 1)))
    with pytest.raises(ValueError, match="imposed: expected finite"):
        eic_cf(PAIR, beside(0.1, np.inf))
    with pytest.raises(ValueError, match="inverse dynamics read"):
        icc(PAIR, np.ones((1, 2, 1, 1)), lambda path: path, lags=(0,))
    with pytest.raises(ValueError, match="a lag of 2 steps in paths of 1"):
        icc(PAIR, np.ones((1, 2, 1, 1)), np.diff, lags=(0, 2))
    with pytest.raises(ValueError, match="robot in the world 'slow': expected shape"):
        line(**good, elsewhere={"slow": beside(0.1)})
    with pytest.raises(ValueError, match="outcomes as read: expected shape"):
        ocb(*[np.array([[True, False]])] * 2, ["a"], reread=np.ones((1, 1), bool))
