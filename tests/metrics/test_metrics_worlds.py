"""Which physics was imagined and with what outcome: of the planted models, and by arithmetic.

``WORLD`` holds the margins that the prototype of `test_metrics_coupling` gave.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pusher
import pytest
from lines import beside, line
from planted_paths import SCENE, joined, own

from wamlab.metrics.base import NotApplicable, Result
from wamlab.metrics.paths import Paths
from wamlab.metrics.worlds import dwa, ocb

# DWA: the nearest world of robot and of block as found here; the published margin, of both at once.
WORLD = {
    "oracle": ("true", "true", 12.5),
    "blind": ("true", "gain .7", 1.0),
    "static": ("gain .7", "slip .25", 0.69),
    "static zero": (None, None, 1.0),
    "object-blind": ("true", "slip .25", 0.14),
    "optimist": ("true", "gain .7", 0.87),
    "late": ("true", "true", 2.2),
    "excited": ("gain 1.3", "true", 0.97),
    "gain .7": ("gain .7", "gain .7", 0.05),
    "slip .5": ("true", "slip .5", 0.08),
    "one mode": ("true", "true", 13.0),
}


pytestmark = pytest.mark.usefixtures("few_draws")


@cache
def attribution(model: str, entity: str) -> Result:
    return dwa(own(model)[entity], least_eic=None)


@cache
def attribution_of_both(model: str) -> Result:
    """As one vector, as the prototype took them."""
    return dwa(joined(own(model)), least_eic=None)


@pytest.mark.parametrize("model", WORLD)
@pytest.mark.parametrize("entity", ["robot", "block"])
def test_the_world_that_was_imagined_is_named_by_entity(model, entity):
    result, world = attribution(model, entity), WORLD[model][entity == "block"]
    assert result.details.get("world") == world
    if world is None:
        assert result.why_not == "no world leads the entity elsewhere"
    else:
        assert (result.value > 1) == (world == "true")


@pytest.mark.parametrize("model", sorted(set(WORLD) - {"static zero", "optimist"}))
def test_the_margin_of_both_entities_together_is_the_published_one(model):
    published = WORLD[model][2]
    assert attribution_of_both(model).value == pytest.approx(published, rel=0.2, abs=0.02)


def test_where_the_margin_of_the_optimist_differs_from_the_published_one():
    """Its robot is right, so that of the worlds only slip is left to compare, and in one of less
    slip the block is left behind: nearer to the goal or further, as it starts from before it."""
    both = attribution_of_both("optimist")
    assert (both.details["world"], both.value) == ("true", pytest.approx(1.11, abs=0.03))
    nearest = sorted(both.details["distance"], key=both.details["distance"].get)
    assert nearest[:3] == ["true", "slip .5", "slip .25"]
    ahead = pusher.scene(shift=0.06)
    assert dwa(joined(pusher.paths("optimist", ahead)), least_eic=None).value < 1
    assert attribution("optimist", "block").value == pytest.approx(0.90, abs=0.03)


def test_over_the_whole_path_a_lag_costs_most_of_the_margin():
    """At the end alone, where little moves, it would not."""
    late, oracle = (own(model)["block"] for model in ("late", "oracle"))
    assert dwa(late, least_eic=None).value < 0.4 * dwa(oracle, least_eic=None).value
    ends = [dwa(paths, at=[16], least_eic=None).value for paths in (late, oracle)]
    assert ends[0] > 0.9 * ends[1]


def test_the_margin_stands_between_those_of_a_still_future_and_of_the_executions():
    for entity, still in (("robot", 0.7), ("block", 0.15)):
        found = attribution("oracle", entity)
        assert found.details["oracle"] == pytest.approx(found.value, rel=0.05)
        assert found.details["static"] == pytest.approx(still, abs=0.02)
        assert attribution("static", entity).value == pytest.approx(still, abs=0.02)


def test_nothing_is_attributed_where_nothing_is_coupled():
    for model in ("blind", "static", "static zero", "one mode"):
        for paths in own(model).values():
            assert "nothing to attribute" in dwa(paths).why_not
    assert dwa(own("gain .7")["robot"]).details["world"] == "gain .7"
    assert "EIC is 0.07" in dwa(own("gain .7")["block"]).why_not


def test_an_exact_imagination_has_no_margin():
    for exact in pusher.paths("oracle", SCENE, noise=0).values():
        result = dwa(exact)
        assert "no end" in result.why_not
        assert result.details["world"] == "true"
        assert result.details["oracle"] is None


def test_the_parameter_of_a_planted_world_is_found():
    for model, entity, parameter, value in (
        ("gain .7", "robot", "gain", 0.7),
        ("slip .5", "block", "slip", 0.5),
        ("oracle", "robot", "gain", 1.0),
        ("oracle", "block", "slip", 1.0),
    ):
        assert attribution(model, entity).details[f"fitted_{parameter}"] == pytest.approx(
            value, abs=0.01
        )
    assert attribution("gain .7", "robot").details["oracle_gain"] == pytest.approx(1, abs=0.001)
    assert attribution("oracle", "block").details["fitted_slip_is"] == "at an end of the grid"
    assert attribution("oracle", "robot").details["unfitted"] == {
        "slip": "no value of it leads elsewhere"
    }


def test_the_nearest_world_and_the_margin_over_it():
    worlds = {"half": beside(0.05, 0.15), "double": beside(0.2, 0.6)}
    true = [[0.1, 0.3]]
    same = {"same": beside(*true[0])}
    result = dwa(line([[0.06, 0.16]], true, elsewhere={**worlds, **same}))
    assert result.details["world"] == "half"
    assert result.details["distance"] == pytest.approx({"true": 0.09, "half": 0.01, "double": 0.29})
    assert result.value == pytest.approx(0.01 / 0.09)
    assert result.details["eic"] == pytest.approx(1 - 0.09 / 0.15)
    assert result.details["static"] == pytest.approx(0.1 / 0.2)
    alone = dwa(line([[0.06, 0.16]], true, elsewhere=same))
    assert "no world leads the entity elsewhere" in alone.why_not


def geared(gain: float, at: tuple[float, ...] = (0.7, 1.3), **changes: object) -> Paths:
    """Twenty states in which the robot goes its gain times as far as it was told."""
    told = np.linspace(0.1, 0.4, 40).reshape(20, 2)
    worlds = {f"gain {one}": one * told[..., None, None] for one in at}
    return line(gain * told, told, elsewhere=worlds, **changes)


@pytest.mark.parametrize("gain", [0.75, 0.85, 1.0, 1.12, 1.25])
def test_the_gain_that_was_imagined_is_fitted_between_the_worlds(gain):
    details = dwa(geared(gain), least_eic=None).details
    assert details["fitted_gain"] == pytest.approx(gain)
    assert details["fitted_gain_interval"] == pytest.approx((gain, gain))
    assert details["oracle_gain"] == 1
    assert details["grids"] == {"gain": [0.7, 1.0, 1.3]}
    assert "fitted_gain_is" not in details


def test_nothing_is_fitted_outside_the_grid():
    for gain, end in ((0.5, 0.7), (0.7, 0.7), (1.6, 1.3)):
        details = dwa(geared(gain), least_eic=None).details
        assert details["fitted_gain"] == end
        assert details["fitted_gain_is"] == "at an end of the grid"
    slow = dwa(geared(0.9, at=(0.8,)), least_eic=None).details
    assert (slow["fitted_gain"], slow["grids"]) == (pytest.approx(0.9), {"gain": [0.8, 1.0]})
    away = dwa(geared(0.9, at=(1.3, 1.001)), least_eic=None).details
    assert away["grids"] == {"gain": [1.0, 1.3]}
    alike = geared(0.9)
    alike = dataclasses.replace(
        alike, elsewhere={**alike.elsewhere, "friction 0.5": alike.executed, "on ice": alike.still}
    )
    details = dwa(alike, least_eic=None).details
    assert details["unfitted"] == {"friction": "no value of it leads elsewhere"}
    assert set(details["grids"]) == {"gain"}


def test_the_interval_of_a_fitted_parameter_holds_the_truth_about_as_often_as_it_says():
    truth, held = geared(0.85), 0
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(0, 0.02, truth.imagined.shape)
        noisy = dataclasses.replace(truth, imagined=truth.imagined + noise)
        low, high = dwa(noisy, least_eic=None).details["fitted_gain_interval"]
        assert 0 < high - low < 0.1
        held += low <= 0.85 <= high
    assert held >= 33


def test_outcomes_have_a_bias_and_mark_the_truth_or_do_not():
    result = ocb(np.array([[True, True], [True, False]]), np.array([[True, False]] * 2), ["a", "b"])
    assert result.value == pytest.approx(0.25)
    assert result.items == {"a": 0.5, "b": 0.0}
    assert result.details["mcc"] == pytest.approx(0.25 * 0.5 / np.sqrt(0.75 * 0.25 * 0.25))
    assert result.details["markedness"] == pytest.approx(2 / 3)
    always = ocb(np.full((3, 2), True), np.array([[True, False]] * 3), ["a", "b", "c"])
    assert always.value == 0.5
    assert always.details["mcc"] is always.details["markedness"] is None


def test_the_bias_of_outcomes_stands_beside_that_of_the_reader_and_of_the_controls():
    met = np.array([[True, False, False, False]] * 6)
    seen, shown = met | [False, True, False, False], np.ones_like(met)
    states = [str(i) for i in range(6)]
    still = np.zeros_like(met)
    still[0] = True
    found = ocb(shown, met, states, reread=seen, controls={"static": still, "retrieval": shown})
    assert found.value == pytest.approx(0.75)
    assert found.details["oracle"] == pytest.approx(0.25)
    assert found.details["oracle_interval"] == pytest.approx((0.25, 0.25))
    assert found.details["oracle_mcc"] == pytest.approx(
        (0.25 - 0.5 * 0.25) / np.sqrt(0.25 * 0.1875)
    )
    assert found.details["static"] == pytest.approx(1 / 6 - 0.25)
    assert found.details["retrieval"] == found.value
    with pytest.raises(ValueError, match=r"outcomes of static: expected shape \(6, 4\)"):
        ocb(shown, met, states, controls={"static": still[:, :1]})


def test_no_success_or_nothing_else_is_not_applicable_and_never_without_bias():
    none, states = np.zeros((12, 2), bool), [str(i) for i in range(12)]
    for met, count in ((none, 0), (~none, 24)):
        for shown in (none, ~none):
            with pytest.raises(NotApplicable, match=f"both outcomes.*: {count} of 24 succeed"):
                ocb(shown, met, states)
    own_ends = np.tile([True, False], (12, 1))
    hopeful = ocb(~none, none, states, others=own_ends)
    assert hopeful.value == 1
    assert hopeful.interval.low < 0.6
    honest = ocb(own_ends, own_ends, states)
    assert honest.value == 0
    assert honest.interval.low < -0.2 < 0.2 < honest.interval.high
