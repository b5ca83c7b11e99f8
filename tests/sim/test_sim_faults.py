"""Planted faults in Meta-World: what they change, what they leave, and what judges make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from wamlab.geometry.boxes import Boxes, lowest
from wamlab.metrics.motion import motion_agreement, perceived
from wamlab.metrics.physics import (
    gravity_error,
    in_flight,
    interpenetration,
    jump,
    motion_without_contact,
    moving,
    touched_by,
)
from wamlab.metrics.physics_frames import lost
from wamlab.sim.faults import FAULTS, RAMP, show
from wamlab.sim.metaworld import MetaWorld

BEGIN, LENGTH = 6, 12
VIEW, THING = "corner", "bsktball"


@pytest.fixture(scope="module")
def ball() -> MetaWorld:
    return MetaWorld("basketball", views=(), image_size=96)


@pytest.fixture(scope="module")
def states(ball: MetaWorld) -> list[np.ndarray]:
    """The hand comes down to the ball and does not reach it."""
    ball.reset(seed=3)
    found = [ball.get_state()]
    for _ in range(LENGTH):
        ball.step(np.array([0.3, 0.3, -1.0, -1.0]))
        found.append(ball.get_state())
    return found


def poses(env: MetaWorld, states: Sequence[np.ndarray], fault: str | None) -> dict[str, Any]:
    """Everything that the simulator tells of a video, without rendering it."""
    shown, contacts = [], []
    for _ in show(env, states, fault, THING, begin=BEGIN):
        shown.append({**env.entities(), "furniture": np.array([0, 0, 0, 1.0, 0, 0, 0])})
        contacts.append(env.contacts())
    return {
        "poses": {name: np.stack([one[name] for one in shown]) for name in shown[0]},
        "contacts": contacts,
    }


def film(env: MetaWorld, states: Sequence[np.ndarray], fault: str | None) -> dict[str, Any]:
    frames, masks = [], []
    for t in show(env, states, fault, THING, begin=BEGIN):
        if t % 3 == 0:
            frames.append(env.render_view(VIEW))
            masks.append(env.masks(VIEW))
    return {
        "frames": np.stack(frames),
        **{name: np.stack([mask[name] for mask in masks]) for name in masks[0]},
    }


def test_no_fault_shows_what_happened(ball: MetaWorld, states: list[np.ndarray]) -> None:
    for t in show(ball, states, None, THING, begin=BEGIN):
        np.testing.assert_array_equal(ball.get_state(), states[t])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_begins_when_it_should_and_is_mended(
    ball: MetaWorld, states: list[np.ndarray], fault: str
) -> None:
    kept = {
        name: getattr(ball.model, name).copy()
        for name in ("geom_rgba", "geom_matid", "geom_size", "mesh_vert", "cam_pos", "body_pos")
    }
    for t in show(ball, states, fault, THING, begin=BEGIN):
        if t <= BEGIN:
            np.testing.assert_array_equal(ball.get_state(), states[t])
    for name, values in kept.items():
        np.testing.assert_array_equal(getattr(ball.model, name), values)
    np.testing.assert_array_equal(ball.get_state(), states[-1])


def test_states_tell_what_was_planted(ball: MetaWorld, states: list[np.ndarray]) -> None:
    real, gone = poses(ball, states, None), (LENGTH - BEGIN) / RAMP
    path = {
        fault: poses(ball, states, fault)["poses"][THING][:, :3] - real["poses"][THING][:, :3]
        for fault in ("teleport", "float", "ghost motion", "sink", "vanish")
    }
    np.testing.assert_allclose(path["teleport"][BEGIN + 1 :], [[0.12, 0, 0]] * BEGIN, atol=1e-9)
    np.testing.assert_allclose(path["float"][-1], [0, 0, 0.08 * gone], atol=1e-9)
    np.testing.assert_allclose(path["sink"][-1], [0, 0, -0.02 * gone], atol=1e-9)
    np.testing.assert_allclose(path["ghost motion"][-1], [0.08 * gone, 0, 0], atol=1e-9)
    assert not path["vanish"].any()
    back = poses(ball, states, "reversal")["poses"]["robot"]
    np.testing.assert_array_equal(back[-1], real["poses"]["robot"][0])
    stopped = poses(ball, states, "freeze")["poses"]["robot"]
    np.testing.assert_array_equal(stopped[BEGIN:], np.repeat(stopped[BEGIN][None], BEGIN + 1, 0))


def test_measures_of_states_catch_their_fault_and_pass_the_real_one(
    ball: MetaWorld, states: list[np.ndarray]
) -> None:
    boxes = {name: Boxes(*arrays) for name, arrays in ball.boxes().items()}
    found = {}
    for fault in (None, "teleport", "ghost motion", "float", "sink"):
        clip = poses(ball, states, fault)
        place = clip["poses"][THING][:, :3]
        held = touched_by(clip["contacts"], THING, moving=moving(clip["poses"]))
        low = lowest(boxes[THING], clip["poses"][THING])
        free = in_flight(low, touched_by(clip["contacts"], THING, grace=1))
        found[fault] = {
            "jump": jump(place, 80.0),
            "unexplained": motion_without_contact(place, held),
            "depth": interpenetration(clip["poses"], boxes),
            "gravity": gravity_error(place, free, 80.0) if free[-5:].all() else 0.0,
        }
    assert max(found[None].values()) < 0.01
    assert found["teleport"]["jump"] > 9
    assert found["ghost motion"]["unexplained"] == pytest.approx(0.02, abs=0.002)
    assert found["float"]["gravity"] > 9
    assert found["sink"]["depth"] == pytest.approx(0.005, abs=0.001)


def test_measures_of_frames_catch_what_vanishes_and_what_stops(
    ball: MetaWorld, states: list[np.ndarray]
) -> None:
    real, gone, stopped = (film(ball, states, fault) for fault in (None, "vanish", "freeze"))
    assert real[THING].any(axis=(1, 2)).all()
    assert not gone[THING][3:].any()
    assert lost(real[THING], real["robot"]) == 0
    assert lost(gone[THING], gone["robot"]) > 0  # until the hand comes to stand before it
    takes = [perceived(real["frames"], 2 / 255, seed) for seed in range(3)]
    same = motion_agreement(takes[2], takes[0], takes[1]).value
    frozen = motion_agreement(perceived(stopped["frames"], 2 / 255, 3), takes[0], takes[1]).value
    assert same > 0.95
    assert frozen < 0.9


def test_melting_shrinks_what_is_drawn(ball: MetaWorld, states: list[np.ndarray]) -> None:
    sizes = {}
    for fault in (None, "melt"):
        for t in show(ball, [states[0]] * (RAMP + 2), fault, THING, begin=0):
            if t == RAMP + 1:
                sizes[fault] = int(ball.masks(VIEW)[THING].sum())
    assert sizes["melt"] < 0.4 * sizes[None]


def test_bad_faults_are_refused(ball: MetaWorld, states: list[np.ndarray]) -> None:
    with pytest.raises(KeyError, match="did you mean 'melt'"):
        next(show(ball, states, "molt", THING, begin=2))
    with pytest.raises(KeyError, match="did you mean 'bsktball'"):
        next(show(ball, states, "melt", "basketball", begin=2))
    with pytest.raises(ValueError, match="no joint moves 'basket_goal'"):
        next(show(ball, states, "melt", "basket_goal", begin=2))
    with pytest.raises(ValueError, match=r"begins at 0 \.\. 11, got 12"):
        next(show(ball, states, "melt", THING, begin=12))
    drawer = MetaWorld("drawer-open", views=())
    drawer.reset(seed=0)
    with pytest.raises(ValueError, match="takes a free thing"):
        next(show(drawer, [drawer.get_state()] * 4, "float", "drawer_link", begin=1))


def test_a_joint_is_moved_to_its_roomier_side_and_no_further() -> None:
    drawer = MetaWorld("drawer-open", views=())
    drawer.reset(seed=0)
    still = [drawer.get_state()] * 4
    rows = [drawer.entities()["drawer_link"] for _ in show(drawer, still, "teleport",
            "drawer_link", begin=1)]  # fmt: skip
    assert np.linalg.norm(rows[-1][:3] - rows[0][:3]) == pytest.approx(0.12, abs=1e-6)
