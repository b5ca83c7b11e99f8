"""Views, depth, segmentation, cameras, contacts and varied physics."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from wamlab.sim.metaworld import MetaWorld
from wamlab.sim.scene import Entities

import mujoco  # isort: skip  (after scene, which chooses how MuJoCo renders)

SIZE = 96


@pytest.fixture(scope="module")
def puck() -> MetaWorld:
    env = MetaWorld("push", image_size=SIZE)
    env.reset(seed=3)
    return env


def pixels_of(env: MetaWorld, view: str, point: np.ndarray) -> tuple[float, float, float]:
    """Column, row and depth of a world point."""
    camera = env.camera(view)
    x, y, z = (np.linalg.inv(camera.pose) @ np.append(point, 1.0))[:3]
    u, v, _ = camera.intrinsics @ np.array([x / z, y / z, 1.0])
    return float(u), float(v), float(z)


@pytest.mark.parametrize("view", ["corner", "gripper"])
def test_an_entity_projects_to_the_middle_of_its_pixels(puck: MetaWorld, view: str) -> None:
    mask = puck.masks(view)["obj"]
    if view == "gripper":  # bring the hand above the puck so that its camera sees it
        for _ in range(60):
            away = puck.entities()["obj"][:3] - puck.entities()["robot"][:3]
            puck.step(np.append(np.clip(10 * away[:2], -1, 1), [0.0, -1.0]))
        mask = puck.masks(view)["obj"]
    assert mask.sum() > 8
    rows, columns = np.nonzero(mask)
    u, v, _ = pixels_of(puck, view, puck.entities()["obj"][:3])
    reach = 2.5 if view == "corner" else 0.15 * SIZE  # nearby, its side is seen as well
    assert abs(u - columns.mean()) < reach
    assert abs(v - rows.mean()) < reach


@pytest.mark.parametrize("view", ["corner", "gripper"])
def test_the_table_is_flat(puck: MetaWorld, view: str) -> None:
    """Back-projected, its pixels lie in one plane: intrinsics, pose and depth agree."""
    depth = puck.render_view(view, "depth")
    free = puck.render_view(view, "segmentation") == -1
    camera = puck.camera(view)
    v, u = np.indices(depth.shape)
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(camera.intrinsics).T
    points = rays * depth[..., None] @ camera.pose[:3, :3].T + camera.pose[:3, 3]
    on_table = free & (np.abs(points[..., 0]) < 0.3) & (np.abs(points[..., 1] - 0.6) < 0.15)
    assert on_table.sum() > 50
    heights = np.abs(points[on_table][:, 2])
    assert np.quantile(heights, 0.95) < 1e-4  # the rest is the goal's marker in the air


def test_depth_is_metres(puck: MetaWorld) -> None:
    depth = puck.render_view("corner", "depth")
    u, v, z = pixels_of(puck, "corner", puck.entities()["obj"][:3])
    assert depth.dtype == np.float32
    assert depth.shape == (SIZE, SIZE)
    assert depth[round(v), round(u)] == pytest.approx(z, abs=0.04)


def test_masks_are_the_segmentation(puck: MetaWorld) -> None:
    segmentation = puck.render_view("corner", "segmentation")
    masks = puck.masks("corner")
    assert segmentation.dtype == np.int32
    assert list(masks) == list(puck.entities()) == ["robot", "obj"]
    assert masks["robot"].sum() > masks["obj"].sum() > 0
    for index, mask in enumerate(masks.values()):
        np.testing.assert_array_equal(mask, segmentation == index)


def test_markers_on_the_robot_belong_to_it(puck: MetaWorld) -> None:
    """The fingertips carry small red markers, which are no holes in its mask."""
    hand = puck.masks("gripper")["robot"]
    red = puck.render_view("gripper").astype(int)
    marker = (red[..., 0] > 150) & (red[..., 1:].max(axis=-1) < 60)
    assert marker.sum() > 4
    assert (marker & hand).sum() > 0.8 * marker.sum()


def test_robot_pixels_are_where_the_robot_moves(puck: MetaWorld) -> None:
    puck.reset(seed=3)
    before, was = puck.render_view("corner"), puck.masks("corner")["robot"]
    for _ in range(10):
        puck.step(np.array([0, 0, 1.0, -1.0]))
    changed = np.abs(puck.render_view("corner").astype(int) - before).max(axis=-1) > 30
    either = was | puck.masks("corner")["robot"]
    assert changed.sum() > 30
    assert (changed & either).sum() > 0.9 * changed.sum()


def test_moving_parts_are_entities_of_their_own() -> None:
    env = MetaWorld("door-lock", views=())
    assert list(env.entities()) == ["robot", "door", "lock_link"]
    env.reset(seed=0)
    before = env.entities()
    expert = env.expert(variants=False, seed=0)
    while not env.success:
        env.step(expert())
    after = env.entities()
    np.testing.assert_array_equal(after["door"], before["door"])
    assert np.abs(after["lock_link"][3:] - before["lock_link"][3:]).max() > 0.1


def test_every_pose_has_a_unit_quaternion(puck: MetaWorld) -> None:
    for pose in puck.entities().values():
        assert pose.shape == (7,)
        assert np.linalg.norm(pose[3:]) == pytest.approx(1.0)


def test_contacts_name_what_touches() -> None:
    env = MetaWorld("button-press-topdown", views=())
    env.reset(seed=0)
    assert ("robot", "button") not in env.contacts()
    expert = env.expert(variants=False, seed=0)
    while not env.success:
        env.step(expert())
    assert ("robot", "button") in env.contacts()


def test_names_of_views_and_kinds(puck: MetaWorld) -> None:
    with pytest.raises(KeyError, match="did you mean 'gripper'"):
        puck.render_view("griper")
    with pytest.raises(KeyError, match="did you mean 'depth'"):
        puck.render_view("corner", "depht")  # type: ignore[arg-type]


def test_varied_physics_acts_and_is_put_back_exactly() -> None:
    env = MetaWorld("push", views=())
    env.reset(seed=1)
    expert = env.expert(variants=False, seed=1)
    for _ in range(30):
        env.step(expert())
    start = env.get_state()
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 4))
    actions[:, 3] = 1.0

    def end() -> np.ndarray:
        env.set_state(start)
        for action in actions:
            env.step(action)
        return env.get_state()

    original = end()
    for change in ({"gain": 0.7}, {"friction": 0.3}, {"mass": 3.0}):
        env.vary(**change)
        assert not np.array_equal(end(), original), change
        env.vary()
        np.testing.assert_array_equal(end(), original)


def test_gain_scales_the_way() -> None:
    env = MetaWorld("reach", views=())
    ways = []
    for gain in (1.0, 0.5):
        env.vary(gain=gain)
        env.reset(seed=0)
        x = env.entities()["robot"][0]
        for _ in range(20):
            env.step(np.array([0.5, 0, 0, 0]))
        ways.append(env.entities()["robot"][0] - x)
    assert ways[1] / ways[0] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan, np.inf])
def test_a_factor_is_positive(factor: float) -> None:
    with pytest.raises(ValueError, match="friction is scaled by"):
        MetaWorld("reach", views=()).vary(friction=factor)


def test_a_closed_environment_leaves_the_others_pictures_alone() -> None:
    kept, other = MetaWorld("push"), MetaWorld("dial-turn")
    before = kept.observe()["image/corner"]
    other.observe()
    kept.observe()
    other.close()
    np.testing.assert_array_equal(kept.observe()["image/corner"], before)
    other.observe()  # it can be used again
    kept.observe()
    del other
    np.testing.assert_array_equal(kept.observe()["image/corner"], before)


def test_garbage_collection_during_rendering_spoils_no_picture() -> None:
    """An abandoned environment in a cycle must not free its context while another one renders."""
    kept, lost = MetaWorld("push"), MetaWorld("dial-turn")
    before = kept.observe()["image/corner"]
    lost.observe()
    lost.itself = lost  # type: ignore[attr-defined]
    context = kept.cameras._renderer._gl_context  # type: ignore[union-attr]
    make_current = context.make_current

    def collect_after() -> None:
        make_current()
        gc.collect()

    gc.disable()
    try:
        del lost
        context.make_current = collect_after
        after = kept.observe()["image/corner"]
    finally:
        gc.enable()
        context.make_current = make_current
    np.testing.assert_array_equal(after, before)


HINGED = """
<mujoco>
  <worldbody>
    <body name="base"><body name="hand"/></body>
    <body name="door" pos="1 2 3">
      <joint type="hinge" axis="0 0 1" pos="0.1 0 0"/>
      <geom type="box" pos="0.3 0 0" size="0.2 0.05 0.05"/>
      <body name="knob" pos="0.5 0 0" euler="0 0 90">
        <geom type="box" pos="0 -0.1 0" size="0.02 0.02 0.02"/>
      </body>
    </body>
    <body name="slide"><joint type="slide"/><geom size="0.1" pos="0.4 0 0"/></body>
  </worldbody>
</mujoco>
"""


def test_a_part_on_a_hinge_is_where_its_farthest_point_is() -> None:
    """The knob is welded to the door and reaches farthest: its body is turned, its -y is +x."""
    model = mujoco.MjModel.from_xml_string(HINGED)
    data = mujoco.MjData(model)
    things = Entities(model, robot="base", hand="hand", ignored=())
    mujoco.mj_forward(model, data)
    shut = things.poses(data)["door"][:3] - [1, 2, 3]
    np.testing.assert_allclose(np.abs(shut), [0.62, 0.02, 0.02], atol=1e-9)
    data.qpos[0] = np.pi / 2
    mujoco.mj_forward(model, data)
    opened = things.poses(data)["door"][:3] - [1, 2, 3]
    np.testing.assert_allclose(opened, [0.1 - shut[1], 0.52, shut[2]], atol=1e-9)
    np.testing.assert_allclose(things.poses(data)["slide"][:3], 0, atol=1e-9)
