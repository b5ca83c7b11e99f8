"""OGBench's scene as an `Env`: one start for all tasks, exact states, chains, views, experts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from wamlab.sim.env import Env, self_test, start_seed
from wamlab.sim.experts import ROUTES, BurstNoise
from wamlab.sim.ogbench import SPACE, OGBenchScene
from wamlab.sim.ogbench_tasks import HELD_OUT, INSTRUCTIONS, TASKS, TRAINING

CHAIN = "press-right-button+red-cube-to-yellow-mat"


@pytest.fixture(scope="module")
def scene() -> Iterator[OGBenchScene]:
    env = OGBenchScene("open-drawer")
    yield env
    env.close()


@pytest.fixture(scope="module")
def blind() -> OGBenchScene:
    return OGBenchScene("close-window", views=())


@pytest.fixture
def asked(blind: OGBenchScene) -> Iterator[OGBenchScene]:
    """An environment that renders nothing, of which a test may change the tasks."""
    tasks = blind.tasks
    yield blind
    blind.tasks = tasks
    blind.vary()


def roll(env: OGBenchScene, start: int, *, variants: bool = True, noise: bool = False) -> int:
    """Steps to the expert's success; 0 where there is none."""
    env.reset(seed=start)
    expert, bursts = env.expert(variants=variants, seed=start), BurstNoise.at(20.0, start)
    for step in range(env.max_steps):
        action = expert()
        env.step(bursts(action)[0] if noise else action)
        if env.success:
            return step + 1
    return 0


def verdict(env: OGBenchScene) -> tuple[object, ...]:
    """All that is judged, said and read by the expert besides the state itself."""
    force = float(env.world.compute_ob_info()["proprio/gripper_contact"][0])
    return env.success, env.tasks_done, env.instruction, env.contacts(), force


def test_it_is_an_env(scene: OGBenchScene) -> None:
    assert isinstance(scene, Env)


def test_observation(scene: OGBenchScene) -> None:
    observation, info = scene.reset(seed=start_seed("validation", 3))
    assert set(observation) == {"image/front", "image/wrist", "state", "instruction"}
    assert observation["image/wrist"].shape == (64, 64, 3)
    assert observation["image/wrist"].dtype == np.uint8
    assert observation["state"].shape == (len(scene.state_names),) == (6,)
    assert observation["state"].dtype == np.float32
    assert observation["instruction"] == "open the drawer"
    assert info == {"seed": 1_000_003, "split": "validation", "success": False}


def test_the_state_is_the_robots_own_and_tells_of_no_object(asked: OGBenchScene) -> None:
    asked.reset(seed=0)
    state = asked.observe()["state"]
    assert state[3] ** 2 + state[4] ** 2 == pytest.approx(1.0)
    assert state[5] == pytest.approx(1.0)
    asked.data.joint("object_joint_1").qpos[:2] += 0.05
    asked.data.joint("drawer_slide").qpos[0] = 0.0
    np.testing.assert_array_equal(asked.observe()["state"], state)
    for _ in range(10):
        after = asked.step(np.array([0, 0, 0, 0, 1.0]))[0]["state"]
    assert after[5] < 0.3


@pytest.mark.parametrize(("axis", "sign"), [(0, 1), (1, 1), (2, -1)])
def test_an_action_moves_the_hand_along_its_axis(asked: OGBenchScene, axis: int, sign: int) -> None:
    before, _ = asked.reset(seed=1)
    action = np.zeros(5)
    action[axis] = 0.5 * sign
    for _ in range(4):
        after, *_ = asked.step(action)
    way = after["state"][:3] - before["state"][:3]
    assert 0.02 < sign * way[axis] < 0.1
    assert np.abs(np.delete(way, axis)).max() < 0.01


def test_all_tasks_share_their_starts_and_their_look(scene: OGBenchScene) -> None:
    other = OGBenchScene("blue-cube-to-green-mat")
    for seed in (2, start_seed("evaluation", 7)):
        one, two = scene.reset(seed=seed)[0], other.reset(seed=seed)[0]
        assert one.pop("instruction") != two.pop("instruction")
        np.testing.assert_array_equal(scene.get_state(), other.get_state())
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
    other.close()


def test_no_task_is_done_at_any_start(asked: OGBenchScene) -> None:
    for index in range(60):
        assert not asked.reset(seed=start_seed("evaluation", index))[1]["success"]
        done = [task for task in TASKS if TASKS[task].done(asked.facts())]
        assert done == [], index


def test_starts_differ_and_a_seed_is_a_start(blind: OGBenchScene) -> None:
    blind.reset(seed=5)
    start = blind.get_state()
    blind.reset(seed=6)
    assert not np.array_equal(blind.get_state(), start)
    for _ in range(4):
        blind.step(np.full(5, 0.5))
    np.random.rand(3)  # nothing outside the seed counts
    blind.reset(seed=5)
    np.testing.assert_array_equal(blind.get_state(), start)


@pytest.mark.parametrize("name", ["press-left-button", CHAIN])
def test_a_restored_state_replays_bit_for_bit_in_another_instance(
    asked: OGBenchScene, name: str
) -> None:
    """Also a pressed button, which locks and reddens, and the grasp's force, which experts read."""
    asked.tasks = tuple(name.split("+"))
    asked.reset(seed=1)
    expert = asked.expert(variants=False, seed=1)
    saved, actions, states, judged = asked.get_state(), [], [], []
    for _ in range(45):
        actions.append(expert())
        asked.step(actions[-1])
        states.append(asked.get_state())
        judged.append(verdict(asked))
    assert any(asked.world.pressed)
    other = OGBenchScene(name, views=())
    other.reset(seed=2)
    other.set_state(saved)
    np.testing.assert_array_equal(other.get_state(), saved)
    for action, state, expected in zip(actions, states, judged, strict=True):
        other.step(action)
        np.testing.assert_array_equal(other.get_state(), state)
        assert verdict(other) == expected
        other.set_state(state)
        np.testing.assert_array_equal(other.get_state(), state)
        assert verdict(other) == expected


def test_a_pressed_button_is_restored_with_its_lock_and_its_colour(scene: OGBenchScene) -> None:
    scene.reset(seed=3)
    start, before = scene.get_state(), scene.render_view("front")
    scene.world.pressed = (True, False)
    pressed, locked = scene.get_state(), scene.render_view("front")
    assert (np.abs(locked.astype(int) - before).max(axis=-1) > 40).sum() > 15
    damping = [scene.model.joint(f"{thing}_slide").damping[0] for thing in ("drawer", "window")]
    assert damping == [1e6, 2.0]
    scene.set_state(start)
    np.testing.assert_array_equal(scene.render_view("front"), before)
    assert scene.model.joint("drawer_slide").damping[0] == 2.0
    scene.set_state(pressed)
    np.testing.assert_array_equal(scene.render_view("front"), locked)


def test_self_test_reports_no_noise(scene: OGBenchScene) -> None:
    noise = self_test(scene, repeats=3)
    assert noise.state == 0.0
    assert noise.entity_metres == 0.0
    assert 0.0 <= noise.pixel <= 2.0


def test_bad_states_names_and_options_are_refused(blind: OGBenchScene) -> None:
    with pytest.raises(ValueError, match="for scene/close-window"):
        blind.set_state(blind.get_state()[:-1])
    chained = blind.get_state()
    chained[-1] = 1
    with pytest.raises(ValueError, match="scene/close-window has no task number 1"):
        blind.set_state(chained)
    with pytest.raises(ValueError, match="options"):
        blind.reset(options={"goal": 1})
    with pytest.raises(KeyError, match="did you mean 'close-window'"):
        OGBenchScene("close-windows")
    with pytest.raises(KeyError, match="did you mean 'wrist'"):
        OGBenchScene("close-window", views=("wirst",))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([0, np.nan, 0, 0, 0]), "NaN or infinity in y"),
        (np.array([0, 0, 0, 1.5, 0]), "outside the space in yaw"),
        (np.zeros(4), "shape"),
    ],
)
def test_a_bad_action_changes_nothing(
    blind: OGBenchScene, action: np.ndarray, message: str
) -> None:
    blind.reset(seed=0)
    before = blind.get_state()
    with pytest.raises(ValueError, match=message):
        blind.step(action)
    np.testing.assert_array_equal(blind.get_state(), before)


@pytest.mark.parametrize("task", [*TRAINING, *HELD_OUT])
def test_the_expert_solves_every_task_with_variants_and_bursts(
    asked: OGBenchScene, task: str
) -> None:
    asked.tasks = (task,)
    assert roll(asked, start_seed("validation", 1), noise=True)
    assert asked.facts() is not None


def test_the_expert_does_what_is_asked_and_nothing_else(asked: OGBenchScene) -> None:
    for task in ("open-drawer", "press-left-button", "blue-cube-to-yellow-mat"):
        asked.tasks = (task,)
        assert roll(asked, 4)
        assert [name for name, one in TASKS.items() if one.done(asked.facts())] == [task]


def test_one_start_has_several_right_futures(asked: OGBenchScene) -> None:
    asked.tasks, ways = ("open-window",), {}
    for seed in range(8):
        asked.reset(seed=0)
        expert, hands = asked.expert(variants=True, seed=seed), []
        while not asked.success and len(hands) < 100:
            action = expert()
            SPACE.check(action)
            asked.step(action)
            hands.append(asked.world.hand()[0])
        assert asked.success
        ways.setdefault(expert.variant["route"], np.stack(hands))
    assert set(ways) == set(ROUTES)
    n = min(len(ways["left"]), len(ways["right"]))
    assert np.linalg.norm(ways["left"][:n] - ways["right"][:n], axis=1).max() > 0.08


def test_without_variants_the_seed_does_not_matter(asked: OGBenchScene) -> None:
    steps = []
    for seed in (1, 2):
        asked.reset(seed=0)
        expert = asked.expert(variants=False, seed=seed)
        steps.append([asked.step(expert())[0]["state"] for _ in range(5)])
    np.testing.assert_array_equal(*steps)


def test_a_chain_asks_one_task_after_the_other(asked: OGBenchScene) -> None:
    asked.tasks = ("press-right-button", "open-drawer")
    asked.reset(seed=0)
    expert, told, done = asked.expert(variants=True, seed=0), [], []
    while not asked.success and len(told) < asked.max_steps:
        told.append(asked.observe()["instruction"])
        info = asked.step(expert())[4]
        done.append(info["tasks_done"])
        assert info["success"] == (info["tasks_done"] == 2)
    assert list(dict.fromkeys(told)) == ["press the right button", "open the drawer"]
    assert sorted(set(done)) == [0, 1, 2]
    assert done == sorted(done)


def test_tasks_out_of_their_order_do_not_count(asked: OGBenchScene) -> None:
    asked.tasks = ("press-right-button", "open-drawer")
    asked.reset(seed=0)
    asked.data.joint("drawer_slide").qpos[0] = -0.16
    info = asked.step(np.zeros(5))[4]
    assert asked.facts().drawer > 0.15
    assert info == {"success": False, "tasks_done": 0}


def test_what_is_said_changes_no_task(scene: OGBenchScene) -> None:
    swapped = OGBenchScene("open-drawer", views=(), sentence="swapped")
    said = {swapped.reset(seed=seed)[0]["instruction"] for seed in range(30)}
    assert len(said) > 4
    assert said <= {INSTRUCTIONS[task] for task in TRAINING} - {"open the drawer"}
    first = swapped.reset(seed=0)[0]["instruction"]
    saved = swapped.get_state()
    swapped.reset(seed=1)
    swapped.set_state(saved)
    assert swapped.instruction == first
    assert roll(swapped, 0)
    assert swapped.facts().drawer > 0.13
    for sentence, told in (("empty", ""), (2, "slide the drawer open")):
        assert OGBenchScene("open-drawer", views=(), sentence=sentence).instruction == told
    assert OGBenchScene("open-drawer", views=(), instruction="pull").instruction == "pull"


def test_whether_what_is_told_was_done_is_another_matter_than_success() -> None:
    told = OGBenchScene("close-window", views=(), instruction="slide the drawer open")
    told.reset(seed=0)
    assert (told.success, told.told_done) == (False, False)
    told.data.joint("drawer_slide").qpos[0] = -0.16
    assert (told.success, told.told_done) == (False, True)
    told.data.joint("window_slide").qpos[0] = 0.0
    assert (told.success, told.told_done) == (True, True)
    for instruction in ("", "pull"):
        mute = OGBenchScene("open-drawer", views=(), instruction=instruction)
        assert mute.told_done is None
    assert OGBenchScene("open-drawer+press-left-button", views=()).told_done is None


def test_everything_that_is_spoken_of_can_be_seen(scene: OGBenchScene) -> None:
    for seed in range(6):
        scene.reset(seed=seed)
        front, wrist = scene.masks("front"), scene.masks("wrist")
        for thing in ("object_0", "object_1", "yellow_mat", "green_mat"):
            assert front[thing].sum() + wrist[thing].sum() >= 12, (seed, thing)
        for thing in ("button_0", "button_1", "drawer_link", "windowb_a"):
            assert front[thing].sum() >= 4, (seed, thing)


def test_depth_cameras_and_masks_agree(scene: OGBenchScene) -> None:
    scene.reset(seed=2)
    for view in ("front", "wrist"):
        mask = scene.masks(view)["object_1"]
        camera, depth = scene.camera(view), scene.render_view(view, "depth")
        middle = scene.entities()["object_1"][:3]
        x, y, z = (np.linalg.inv(camera.pose) @ np.append(middle, 1.0))[:3]
        u, v, _ = camera.intrinsics @ np.array([x / z, y / z, 1.0])
        rows, columns = np.nonzero(mask)
        assert abs(u - columns.mean()) < 2.5
        assert abs(v - rows.mean()) < 2.5
        assert depth[mask].mean() == pytest.approx(z, abs=0.04)


def test_varied_physics_acts_and_is_put_back_exactly(asked: OGBenchScene) -> None:
    asked.tasks = ("red-cube-to-drawer",)
    asked.reset(seed=1)
    expert = asked.expert(variants=False, seed=1)
    actions = [expert()]
    for _ in range(40):
        asked.step(actions[-1])
        actions.append(expert())
    ends = []
    for change in ({}, {"gain": 0.7}, {"friction": 0.3}, {"mass": 3.0}, {}):
        asked.vary(**change)
        asked.reset(seed=1)
        for action in actions:
            asked.step(action)
        ends.append(asked.get_state())
    np.testing.assert_array_equal(ends[0], ends[-1])
    assert not any(np.array_equal(ends[0], end) for end in ends[1:4])
