"""The targets of the systems: what meets them, what does not, and what is missing."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import corners
import numpy as np
import plan_sight
import pytest
import real_clips
import system_targets
from cells import Cell
from findings import MET, MISSING, NOT_MET, PARTIAL
from made_cells import TASKS, cell, outcomes
from tables import Found

from wamlab.metrics.open_loop import OTHER_FRAMES
from wamlab.models.vpp import VPP
from wamlab.policy.policy import Policy
from wamlab.types import Guess, Recording

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))

import point_env
from point_model import PointModel, Worded, policy_of


def cells(model: str, solved: int, seeds: int = 2) -> list[dict[str, Any]]:
    return [
        cell(dict.fromkeys(TASKS, solved), n=20, seed=seed, model=model, protocol="mw-6")
        for seed in range(seeds)
    ]


def half(future: str, solved: int) -> dict[str, Any]:
    return {
        "protocol": "mw-6",
        "model": "unipi",
        "seed": 0,
        "attempt": 1,
        "future": future,
        "extractor": "learned",
        "success": {env: outcomes(solved, 10) for env in TASKS},
    }


def read(value: float, other: float) -> dict[str, Any]:
    details = {"other_frames": other, "between_frames": 0.98}
    r2 = {"value": value, "interval": [value - 0.01, value], "details": details}
    return {"protocol": "mw-6", "model": "unipi", "inverse_r2": r2}


def plan(model: str, ms: float, calls: int = 1) -> dict[str, Any]:
    return {"model": model, "calls": [calls], "calls_declared": 1, "ms": {"p50": ms}}


def verdict_of(found: Found, text: str) -> str:
    (one,) = [f for f in system_targets.findings(found) if text in f.asked]
    return one.verdict


def test_nothing_measured_is_missing() -> None:
    assert {one.verdict for one in system_targets.findings(Found({}, [], {}))} == {MISSING}


def test_a_shift_says_under_which_training_a_system_falls() -> None:
    own = cell(dict.fromkeys(TASKS, 20), n=20, seed=1, model="reactive", protocol="mw-6")
    dark = {**half("", 1), "model": "reactive", "seed": 1, "condition": "light"}
    found = Found({}, [own], {}, [dark])
    (one,) = [f for f in system_targets.findings(found) if "under every shift" in f.asked]
    assert one.measured.startswith("`reactive` (attempt 1, seed 1) falls under light −90.0")


@pytest.mark.parametrize(
    ("solved", "seeds", "wanted"), [(17, 2, MET), (15, 2, NOT_MET), (17, 1, PARTIAL)]
)
def test_a_corner_may_not_fall_far_behind_the_baseline(
    solved: int, seeds: int, wanted: str
) -> None:
    """`reactive` solves 19 of 20: 17 is 10 points below it, 15 is 20."""
    found = Found({}, [*cells("gr1", solved, seeds), *cells("reactive", 19)], {})
    assert verdict_of(found, "`gr1` on") == wanted


def test_a_corner_at_the_level_of_blindness_is_not_above_it() -> None:
    found = Found({}, [*cells("vpp", 5), *cells("reactive", 6)], {})
    assert verdict_of(found, "`vpp` on") == NOT_MET


@pytest.mark.parametrize(
    ("value", "other", "wanted"), [(0.97, 0.1, MET), (0.94, 0.1, NOT_MET), (0.97, 0.3, NOT_MET)]
)
def test_inverse_dynamics_must_read_the_motion(value: float, other: float, wanted: str) -> None:
    found = Found({}, [], {}, recorded=[read(value, other)])
    assert verdict_of(found, "inverse dynamics") == wanted


def test_a_cascade_must_beat_itself_without_a_future() -> None:
    halves = [half("learned", 9), half("static", 1), half("shuffled", 9)]
    found = Found({}, [], {}, substitutions=halves)
    assert verdict_of(found, "a static future") == MET
    assert verdict_of(found, "a shuffled future") == NOT_MET


def test_a_plan_may_cost_twice_as_much_and_no_more_calls_than_declared() -> None:
    cheap = [plan("uwm", 40.0), plan("gr1", 79.0), plan("vpp", 81.0)]
    found = Found({"plan_cost": {"systems": cheap}}, [], {})
    assert (verdict_of(found, "plan of `gr1`"), verdict_of(found, "plan of `vpp`")) == (
        MET,
        NOT_MET,
    )
    more = [plan("uwm", 40.0), plan("gr1", 40.0, calls=2)]
    assert verdict_of(Found({"plan_cost": {"systems": more}}, [], {}), "plan of `gr1`") == NOT_MET


def test_a_place_is_read_off_features_that_hold_it_and_off_no_others() -> None:
    """Of 200 starts: places mixed into 40 features, no places at all, and places with noise."""
    rng = np.random.default_rng(0)
    places = rng.normal(0, 0.05, (200, 3))
    features = np.concatenate([places, rng.normal(0, 0.05, (200, 37))], axis=1)
    whole = features @ rng.normal(0, 1, (40, 40))
    assert plan_sight.error(whole, places) < 1
    assert plan_sight.error(rng.normal(0, 1, (200, 40)), places) == pytest.approx(
        plan_sight.spread(places), rel=0.15
    )
    noisy = places + rng.normal(0, 0.01, places.shape)
    assert plan_sight.error(noisy, places) == pytest.approx(1000 * 0.01 * 3**0.5, rel=0.2)


def test_what_the_policy_might_see_is_a_row_for_each_start() -> None:
    config = dataclasses.replace(
        VPP.Config.tiny(), views=("top", "side"), image_size=16, text_dim=4, rate_hz=10.0
    )
    policy = Policy(VPP(config), Worded(), point_env.SPACE)
    env = point_env.make("point/push")
    seen = [env.reset(seed=seed)[0] for seed in range(plan_sight.BATCH + 2)]
    found = plan_sight.looked_at(policy, seen)
    names = ["pictures", *(f"map {name}" for name in config.taps), "plan", "vector"]
    assert {name: len(rows) for name, rows in found.items()} == dict.fromkeys(names, len(seen))
    again = plan_sight.looked_at(policy, seen[:3])
    np.testing.assert_allclose(found["plan"][:3], again["plan"], atol=1e-5)
    with pytest.raises(TypeError, match="point makes no plan of maps"):
        plan_sight.looked_at(policy_of(PointModel()), seen)


def test_what_the_plan_sees_stands_by_task_and_seed() -> None:
    one = {"pictures": 3.3, "map up": 4.3, "plan": 14.9, "vector": 27.0}
    errors = {"vpp-seed0-attempt1": one, "vpp-seed1-attempt1": {**one, "plan": 14.5}}
    record = {
        "tasks": {"metaworld/door-lock": {"spread": 63.0, "errors": errors}},
        "settings": {"starts": 300},
        "machine": {"load": 0.1},
        "provenance": {"command": "benchmarks/plan_sight.py mw-6", "commit": "0123456789abcdef"},
    }
    text = corners.plan_sight(Found({"plan_sight": record}, [], {}))
    assert "| door-lock | 63 | 3.3, 3.3 | 4.3, 4.3 | 14.9, 14.5 | 27.0, 27.0 |" in text
    assert "not measured" in corners.plan_sight(Found({}, [], {}))


def recording(episode: int, sign: float) -> Recording:
    """Two steps to one side; INVERSE is right, and half right from other frames."""
    action = sign * np.ones((2, 1), np.float32)
    still = {"corner": np.zeros((1, 16, 16, 3), np.uint8)}
    guesses = {"INVERSE": Guess(action), OTHER_FRAMES: Guess(0.5 * action)}
    return Recording(
        "slide", "slide", episode, 1, "elsewhere", still, np.zeros(1, np.float32), action,
        ("dx",), ("m",), np.ones(1), np.array([2]), still, guesses,
    )  # fmt: skip


def test_what_is_made_of_real_clips_comes_from_the_recordings_alone() -> None:
    logs = [recording(episode, sign) for episode, sign in enumerate((1, -1) * 3)]
    found = real_clips.judged(Cell("mw-6", "unipi", 1), logs, {"load": 0.1})
    assert (found["instants"], found["episodes"], found["seed"]) == (6, 6, 1)
    assert found["inverse_r2"]["value"] == 1
    assert found["inverse_r2"]["details"]["other_frames"] == 0.75
    assert "no future of FORWARD" in found["forward_psnr"]["why_not"]
    assert "POLICY, INVERSE" in found["coupling_nats"]["action"]["why_not"]
    (row,) = [
        line
        for line in corners.real_clips(Found({}, [], {}, recorded=[found])).splitlines()
        if line.startswith("| `unipi`")
    ]
    assert row == "| `unipi` | mw-6 | 1 | 1.000 (1.000 to 1.000) | 0.75 | 1.00 |  |  |  |  |"
