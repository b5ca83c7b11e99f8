"""The targets of the systems: what meets them, what does not, and what is missing."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import action_sight
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
from wamlab.types import Denoised, Guess, Recording

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
sys.path.insert(0, str(Path(__file__).parents[1] / "run"))

import point_env
from fixture import GAIN, make_dataset, make_episode
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


def read(value: float, other: float, attempt: int = 1) -> dict[str, Any]:
    details = {"other_frames": other, "between_frames": 0.98}
    r2 = {"value": value, "interval": [value - 0.01, value], "details": details}
    return {"protocol": "mw-6", "model": "unipi", "attempt": attempt, "inverse_r2": r2}


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


def test_systems_of_different_seeds_are_said_not_to_be_paired() -> None:
    dark = [
        {**half("", 1), "model": model, "seed": seed, "condition": "light"}
        for model, seed in (("uwm", 2), ("reactive", 1))
    ]
    own = [
        cell(dict.fromkeys(TASKS, 20), n=20, seed=one["seed"], model=one["model"], protocol="mw-6")
        for one in dark
    ]
    (one,) = [
        f for f in system_targets.findings(Found({}, own, {}, dark)) if "every shift" in f.asked
    ]
    assert one.measured.endswith("; of different seeds, so not paired with each other")


def test_beside_success_stands_how_much_of_a_plan_is_executed() -> None:
    said = "Executed of each plan before the next: 8 of 16 actions"
    whole = cells("reactive", 19)
    assert corners.side_by_side(Found({}, whole, {})).startswith(f"{said}.\n")
    for one in whole:
        one["run"] = {**one["run"], "rollout": {"execute_steps": None, "samples": 4}}
    text = corners.side_by_side(Found({}, [*whole, *cells("gr1", 17)], {}))
    other = "16 of 16 actions of one of 4 plans (`reactive`)"
    assert text.startswith(
        f"Executed of each plan before the next: {other}; 8 of 16 actions (`gr1`)"
    )
    assert "not measured" in corners.side_by_side(Found({}, [], {})).splitlines()[0]


def test_what_a_plan_costs_is_of_one_machine() -> None:
    milliseconds = {"min": 20.0, "p50": 21.5, "p95": 23.0, "p99": 25.0}
    record = {"size": "small", "repeats": 9, "systems": [{**plan("uwm", 0), "ms": milliseconds}]}
    text = corners.plan_cost(Found({"plan_cost": record}, [], {}))
    assert "| `uwm` | 1 | 20.0 | 21.5 | 23.0 | 25.0 |" in text
    assert "not measured" in corners.plan_cost(Found({}, [], {}))


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


def test_the_last_attempt_is_the_one_that_is_held_against_a_target() -> None:
    found = Found({}, [], {}, recorded=[read(0.97, 0.1), read(0.94, 0.1, attempt=2)])
    assert verdict_of(found, "inverse dynamics") == NOT_MET
    found = Found({}, [], {}, recorded=[read(0.94, 0.1), read(0.97, 0.1, attempt=2)])
    assert verdict_of(found, "inverse dynamics") == MET


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


def hand(episode: int, ticks: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """A hand that follows its actions two ticks late; (ticks + 1, 4) states, (ticks, 4) actions."""
    rng = np.random.default_rng(episode)
    action = np.clip(rng.normal(0, 0.5, (ticks, 4)), -1, 1).astype(np.float32)
    late = np.concatenate([np.zeros((3, 3)), action[:-2, :3]]) / 100
    opening = np.concatenate([[0.0], action[:, 3]])[:, None]
    return np.concatenate([late.cumsum(axis=0), opening], axis=1).astype(np.float32), action


def hand_windows(episodes: range) -> action_sight.Windows:
    """As `action_sight.windows` cuts them from a dataset; the sixteen actions of the chunk."""
    long = action_sight.CHUNK + action_sight.LONGER
    cut = [(*hand(e), e, first) for e in episodes for first in range(40 - long + 1)]
    return action_sight.Windows(
        np.stack([state[first : first + long + 1] for state, _, _, first in cut]),
        np.stack([action[first : first + action_sight.CHUNK] for _, action, _, first in cut]),
        np.array([episode for _, _, episode, _ in cut]),
    )


def test_what_has_not_moved_the_hand_yet_cannot_be_read_off_it() -> None:
    """The last two actions of a chunk show two ticks later; a blurred hand's opening alone does."""
    train, test = hand_windows(range(40)), hand_windows(range(60, 70))
    ticks = tuple(range(action_sight.CHUNK + 1))
    looks = {
        "chunk": action_sight.Look(ticks),
        "longer": action_sight.Look((*ticks, 17, 18)),
        "blurred": action_sight.Look(ticks, blur=1000.0),
    }
    found = {
        name: action_sight.judged(action_sight.read_off(train, test, look, 300, 0), test)
        for name, look in looks.items()
    }
    last = {name: one["quarters"][-1] for name, one in found.items()}
    assert last["longer"] > last["chunk"] + 0.15
    assert found["chunk"]["r2"] > 0.6 > 0.25 > found["blurred"]["r2"]
    low, high = found["chunk"]["interval"]
    assert low < found["chunk"]["r2"] < high


def test_windows_are_cut_where_every_look_has_its_ticks(tmp_path: Path) -> None:
    """An episode of exactly one window, one of seven, and one too short for any."""
    long = action_sight.CHUNK + action_sight.LONGER
    path = tmp_path / "point"
    make_dataset(path, [make_episode(k, long + more) for k, more in enumerate((0, 6, -1))])
    found = action_sight.windows(path)
    assert found.episode.tolist() == [0] + [1] * 7
    assert found.state.shape == (8, long + 1, 3)
    assert found.action.shape == (8, action_sight.CHUNK, 3)
    moved = np.diff(found.state[:, : action_sight.CHUNK + 1, :2], axis=1)
    np.testing.assert_allclose(moved, GAIN * found.action[..., :2], atol=1e-6)


def test_what_the_hand_tells_stands_beside_the_model() -> None:
    looks = {"the frames of unipi": {"r2": 0.89, "interval": [0.87, 0.91], "quarters": [0.9, 0.7]}}
    record = {
        "looks": looks,
        "windows": 900,
        "episodes": 24,
        "settings": {"steps": 20000, "seed": 0},
        "machine": {"load": 0.1},
        "provenance": {"command": "benchmarks/action_sight.py mw-6", "commit": "0123456789abcdef"},
    }
    found = Found({"action_sight": record}, [], {})
    text = corners.action_sight(found)
    assert "| the frames of unipi | 0.890 (0.870 to 0.910) | 0.90, 0.70 |" in text
    assert "not measured" in corners.action_sight(Found({}, [], {}))
    assert system_targets.true_places_text(found).endswith("at the frames of unipi 0.890")


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
    found = real_clips.judged(Cell("mw-6", "unipi", 1), logs, [], {"load": 0.1})
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
    assert row == (
        "| `unipi` | mw-6 | attempt 1, seed 1 | 1.000 (1.000 to 1.000) | 0.75 | 1.00 |  |  |  |  |"
    )


def test_the_half_of_a_side_that_a_cascade_lacks_is_another_network_s() -> None:
    """VIDEO of the one errs by 2 more at every level than FORWARD of the other, in 4 dimensions."""
    levels, ones, others = np.array([1.0, 0.5]), [], []
    for episode in range(6):
        for logs, query, errors in ((ones, "VIDEO", [[4.0, 3.0]]), (others, "FORWARD", [[2.0, 1]])):
            one = recording(episode, 1)
            found = Denoised(levels, np.array(errors), np.array([4.0]), np.array([4]))
            one.ahead = {"corner": np.zeros((4, 1, 1, 1), np.uint8)}
            one.policy, one.likelihood = f"net of {query}", {query: found}
            logs.append(one)
    cell = real_clips.judged(Cell("mw-6", "vpp", 0), ones, others, {"load": 0.1})
    assert cell["given_by"] == {"future": "net of FORWARD"}
    assert cell["coupling_nats"]["future"]["value"] == pytest.approx(2)  # 2/2 of noise, 2/2 below
    assert "POLICY, INVERSE" in cell["coupling_nats"]["action"]["why_not"]
    assert "2.0 nats (2.0 to 2.0), with `net of FORWARD`" in corners.real_clips_row(cell)
