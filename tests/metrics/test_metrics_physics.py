"""Physics on states: analytic ways, planted faults, and what is said where there is no answer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wamlab.geometry.boxes import Boxes
from wamlab.metrics.base import NotApplicable, compute
from wamlab.metrics.paths import Paths
from wamlab.metrics.physics import (
    falls,
    gravity_error,
    in_flight,
    interpenetration,
    jump,
    motion_without_contact,
    moving,
    near_hand,
    over_paths,
    touched_by,
)
from wamlab.types import Episode

RATE = 80.0
TIMES = np.arange(12) / RATE
NEVER = np.zeros(12, bool)
CUBE = Boxes(np.zeros((1, 3)), np.eye(3)[None], np.full((1, 3), 0.02))


def way(x=0.0, z=0.0) -> np.ndarray:
    """Twelve places (T, 3) with these x and z."""
    return np.stack(np.broadcast_arrays(x, 0.5, z + 0 * TIMES), axis=1).astype(float)


def thrown(g: float = 9.81) -> np.ndarray:
    """A throw: forward at 0.4 m/s, up at 0.5 m/s."""
    return way(0.4 * TIMES, 0.3 + 0.5 * TIMES - g / 2 * TIMES**2)


def poses(place: np.ndarray) -> np.ndarray:
    return np.concatenate([place, np.tile([1.0, 0, 0, 0], (len(place), 1))], axis=1)


def episode(place: np.ndarray, contacts: list[list[tuple[str, str]]] | None = None) -> Episode:
    n = len(place) - 1
    zeros = np.zeros((n + 1, 4), np.float32)
    hand = poses(np.zeros_like(place))
    return Episode(
        "a", "", 7, {}, zeros, zeros[1:], np.zeros(n, bool),
        entities={"robot": hand, "puck": poses(place)},
        contacts=[[] for _ in place] if contacts is None else contacts,
    )  # fmt: skip


def test_jump_is_the_fastest_step() -> None:
    steady = way(0.4 * TIMES)
    assert jump(steady, RATE) == pytest.approx(0.4)
    steady[6:, 0] += 0.12
    assert jump(steady, RATE) == pytest.approx(0.12 * RATE + 0.4)


def test_what_rests_coasts_falls_or_is_held_needs_no_explanation() -> None:
    held = NEVER.copy()
    held[:3] = True
    braking = np.cumsum(np.r_[0.0, 0.01, 0.01, 0.01 * 0.8 ** np.arange(9)])
    assert motion_without_contact(way(), NEVER) == 0
    assert motion_without_contact(way(braking), held) == pytest.approx(0, abs=1e-12)
    assert motion_without_contact(way(0, 0.3 - 4.9 * TIMES**2), NEVER) == 0
    assert motion_without_contact(way(0.3 * TIMES), ~NEVER) == 0


def test_a_bounce_turns_a_fall_but_adds_nothing() -> None:
    dropped = np.r_[0.05, 0.04, 0.02, 0.0, 0.015, 0.02, np.full(6, 0.02)]
    assert motion_without_contact(way(0, dropped), NEVER) == 0
    dropped[4:] += 0.03
    assert motion_without_contact(way(0, dropped), NEVER) == pytest.approx(0.025)


def test_a_thing_that_sets_itself_in_motion_is_unexplained_all_along() -> None:
    assert motion_without_contact(way(0.4 * TIMES), NEVER) == pytest.approx(0.4 * TIMES[-1])
    rising = way(0, 0.08 * np.clip(TIMES / TIMES[6], 0, 1))
    assert motion_without_contact(rising, NEVER) == pytest.approx(0.08)


def test_who_touches() -> None:
    contacts = [[], [("puck", "shelf")], [("robot", "puck")], [], [("ball", "puck")], []]
    rolls = {"shelf": np.zeros(6, bool), "ball": np.ones(6, bool)}
    touched = touched_by(contacts, "puck", moving=rolls, grace=0)
    assert touched.tolist() == [False, False, True, False, True, False]
    assert touched_by(contacts, "puck", grace=0).tolist() == [False, True, True, False, True, False]
    assert touched_by(contacts, "puck", moving=rolls, grace=1).sum() == 5
    assert not touched_by(contacts, "hat").any()


def test_touch_guessed_from_distance() -> None:
    assert near_hand(way(0.1), way(0.02), 0.1).all()
    assert not near_hand(way(0.1), way(0.02), 0.05).any()


def test_a_parabola_falls_with_g() -> None:
    assert falls(thrown(), ~NEVER, RATE) == [pytest.approx(9.81, abs=1e-9)]
    assert gravity_error(thrown(), ~NEVER, RATE) < 1e-9
    assert gravity_error(thrown(1.62), ~NEVER, RATE) == pytest.approx(9.81 - 1.62)


def test_what_hangs_in_the_air_falls_with_nothing() -> None:
    hanging = way(0, 0.1)
    flying = in_flight(hanging[:, 2], NEVER)
    assert flying.all()
    assert gravity_error(hanging, flying, RATE) == pytest.approx(9.81)
    assert not in_flight(hanging[:, 2], ~NEVER).any()
    assert not in_flight(way(0, 0.004)[:, 2], NEVER).any()


def test_noise_of_reading_adds_little_to_a_flight() -> None:
    """A millimetre over a flight of 0.3 s: the parabola averages it."""
    times = np.arange(25) / RATE
    heights = 1 - 9.81 / 2 * times**2 + np.random.default_rng(0).normal(0, 1e-3, 25)
    place = np.stack([0 * times, 0 * times, heights], axis=1)
    assert gravity_error(place, np.ones(25, bool), RATE) < 0.5


def test_gravity_cannot_see_time_run_backwards() -> None:
    assert gravity_error(thrown()[::-1], ~NEVER, RATE) < 1e-9


def test_boxes_that_sink_into_one_another() -> None:
    table = Boxes(np.array([[0, 0.5, -0.1]]), np.eye(3)[None], np.array([[1, 1, 0.1]]))
    boxes = {"puck": CUBE, "table": table}
    sinking = way(0, 0.02 - 0.015 * TIMES / TIMES[-1])
    rows = {"puck": poses(sinking), "table": poses(0 * sinking), "robot": poses(sinking)}
    assert interpenetration(rows, boxes) == pytest.approx(0.015)
    rows["puck"] = poses(way(0, 0.015))  # as deep at first: given
    assert interpenetration(rows, boxes) == 0


def test_ways_from_paths() -> None:
    imagined = np.zeros((2, 2, 3, 3))
    imagined[1, 1, 1:, 0] = 0.3
    paths = Paths(
        "puck", ["s", "t"], np.array([8, 16, 24]), np.zeros((2, 3)), imagined, 0 * imagined
    )
    found = over_paths(paths, lambda one: jump(one, 10.0))
    assert found == {"s": 0, "t": pytest.approx(3.0)}
    uneven = Paths("puck", ["s", "t"], np.array([1, 8, 16]), np.zeros((2, 3)), imagined, imagined)
    with pytest.raises(NotApplicable, match="not evenly spaced"):
        over_paths(uneven, lambda one: jump(one, 10.0))
    with pytest.raises(NotApplicable, match="never in free flight"):
        over_paths(paths, lambda one: gravity_error(one, np.zeros(4, bool), 10.0))


def test_metrics_of_episodes() -> None:
    carried = [[("robot", "puck")] for _ in TIMES]
    quiet, ghost = episode(way(0.4 * TIMES), carried), episode(way(0.4 * TIMES))
    assert compute("motion_without_contact", [quiet]).value == 0
    result = compute("motion_without_contact", [ghost], entity="puck")
    assert result.value == pytest.approx(0.4 * TIMES[-1], rel=1e-5)
    assert result.items == {"a/7": result.value}
    assert compute("jump", [ghost], rate_hz=RATE).value == pytest.approx(0.4)
    boxes = {"a": {"puck": CUBE}}
    hanging = episode(way(0, 0.1))
    gravity = compute("gravity", [hanging], rate_hz=RATE, boxes=boxes)
    assert gravity.value == pytest.approx(9.81)
    assert compute("gravity", [quiet], rate_hz=RATE, boxes=boxes).undefined == {
        "never in free flight for 5 instants": 1
    }
    assert moving(ghost.entities)["puck"].all()
    assert not moving(ghost.entities)["robot"].any()


def test_the_rate_of_an_environment_of_the_library_is_known_by_its_name() -> None:
    fast, slow = (
        dataclasses.replace(episode(way(0.4 * TIMES)), env=env)
        for env in ("metaworld/push", "scene/open-drawer")
    )
    assert compute("jump", [fast]).value == pytest.approx(0.4)
    assert compute("jump", [slow]).value == pytest.approx(0.4 * 20 / RATE)
    unknown = compute("jump", [fast, episode(way())])
    assert unknown.n == 1
    assert list(unknown.undefined.values()) == [1]
    boxes = {"metaworld/push": {"puck": CUBE}}
    flying = dataclasses.replace(episode(thrown(1.62)), env="metaworld/push")
    assert compute("gravity", [flying], boxes=boxes).value == pytest.approx(8.19, abs=1e-3)


def test_why_episodes_have_no_answer() -> None:
    one = episode(way())
    said = "how often a acts is not known, no log holds it: from Python, compute('jump', episodes, "
    assert said + "rate_hz=...)" in compute("jump", [one]).why_not
    assert "told by their boxes, which no log holds" in compute("gravity", [one]).why_not
    boxes = {"a": {"puck": CUBE}}
    assert "compute('gravity'" in compute("gravity", [one], boxes=boxes).why_not
    assert "no boxes were given of 'puck'" in compute(
        "gravity", [one], rate_hz=RATE, boxes={"a": {}}
    ).why_not  # fmt: skip
    one.contacts = []
    assert "do not hold the contacts" in compute("motion_without_contact", [one]).why_not
    one.entities = {}
    assert "no entity poses" in compute("jump", [one], rate_hz=RATE).why_not
    with pytest.raises(KeyError, match="did you mean 'puck'"):
        compute("jump", [episode(way())], rate_hz=RATE, entity="pucks")


@pytest.mark.usefixtures("as_shipped")
def test_bad_places_are_refused() -> None:
    bad = way()
    bad[3, 1] = np.nan
    for measure in (
        lambda: jump(bad, RATE),
        lambda: motion_without_contact(bad, NEVER),
        lambda: gravity_error(bad, ~NEVER, RATE),
        lambda: interpenetration({"a": poses(bad), "b": poses(bad)}, {"a": CUBE, "b": CUBE}),
    ):
        with pytest.raises(ValueError, match="NaN or infinity"):
            measure()
    with pytest.raises(NotApplicable, match="at least 2 instants"):
        jump(way()[:1], RATE)
    with pytest.raises(NotApplicable, match="never in free flight"):
        gravity_error(way(), NEVER, RATE)
    with pytest.raises(NotApplicable, match="known: a"):
        interpenetration({"a": poses(way()), "b": poses(way())}, {"a": CUBE})
    with pytest.raises(ValueError, match="above 0 Hz"):
        jump(way(), 0.0)
    with pytest.raises(ValueError, match="expected 12 instants, got 3"):
        motion_without_contact(way(), NEVER[:3])
    with pytest.raises(ValueError, match=r"expected places \(T, 3\)"):
        motion_without_contact(way()[:, :2], NEVER)
