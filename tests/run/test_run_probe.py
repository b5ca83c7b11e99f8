from __future__ import annotations

import dataclasses

import numpy as np
import point_env
import pytest
import torch
from point_env import SPACE, STEP
from point_model import Foreseeing, Latent, Planner, PointConfig, PointModel, Reactive, policy_of

from wamlab.data.logs import LogError, load_probes
from wamlab.metrics.base import compute
from wamlab.metrics.joint import SEQUENCES
from wamlab.models.base import Refusal
from wamlab.policy.geometric import Reach, WaypointExecutor
from wamlab.run.execute import execute
from wamlab.run.impose import OTHER_INSTRUCTION, impose
from wamlab.run.probe import probe
from wamlab.run.reach import strata
from wamlab.types import FORWARD, INVERSE, JOINT, VIDEO


def run(model, states=3, samples=2, **options):
    options = {"make": point_env.make, "progress": False, **options}
    return probe(policy_of(model), "point/push", states, samples, **options)


def test_a_policy_of_another_rate_is_refused():
    slower = dataclasses.replace(SPACE, rate_hz=5.0)
    policy = dataclasses.replace(policy_of(PointModel()), space=slower)
    with pytest.raises(ValueError, match=r"rate_hz=5.0.*, point/push has .*rate_hz=10.0"):
        probe(policy, "point/push", 1, 1, make=point_env.make, progress=False)


def test_a_probe_holds_joint_samples_and_impositions_executed_whole():
    one = run(PointModel(), 1)[0]
    assert [branch.label for branch in one.of("own")] == ["sample 0", "sample 1"]
    assert [branch.label for branch in one.of("imposed")] == [*SEQUENCES]
    np.testing.assert_array_equal(one.of("imposed")[0].action, one.of("own")[0].action)
    for branch in one.of("own") + one.of("imposed"):
        assert branch.action.shape == (8, 4)
        assert branch.offsets.tolist() == [4, 8]
        assert branch.happened["top"].shape == branch.imagined["top"].shape == (2, 16, 16, 3)
        assert branch.entities["block"].shape == (9, 7)
        assert branch.masks["top/robot"].shape == (2, 16, 16)
        assert branch.why_not == ""
        walked = one.state[:3] + np.cumsum(branch.action[:, :3] * STEP, axis=0)
        free = np.abs(walked - np.clip(walked, 0, 1)).max() == 0
        if free:
            np.testing.assert_allclose(branch.entities["robot"][1:, :3], walked, atol=1e-5)
    assert one.pixel_noise == 0
    assert one.masks["side/block"].shape == (1, 16, 16)
    assert not np.array_equal(one.branches[0].action, one.branches[1].action)


def test_the_imagination_belongs_to_its_own_action():
    """The model shades its future by the mean of the noise that also made the action."""
    model = PointModel(PointConfig(noise=1.0))
    one = run(model, 1, samples=6)[0]
    again = run(PointModel(PointConfig(noise=1.0)), 1, samples=6)[0]
    for first, second in zip(one.of("own"), again.of("own"), strict=True):
        np.testing.assert_array_equal(first.action, second.action)
        np.testing.assert_array_equal(first.imagined["top"], second.imagined["top"])


def test_executing_the_same_chunk_twice_gives_equal_frames():
    one = run(PointModel(), 1)[0]
    env = point_env.make("point/push", views=())
    own = one.branches[0]
    again = execute(env, one.simulator_state, own.action, own.offsets, ("top", "side"))
    np.testing.assert_array_equal(again.frames["top"], own.happened["top"])
    np.testing.assert_array_equal(again.entities["block"], own.entities["block"])
    env.set_state(one.simulator_state)
    np.testing.assert_array_equal(env.render_view("top"), one.now["top"][0])


def test_what_happens_is_shown_at_the_offsets():
    env = point_env.make("point/push")
    env.reset(seed=1)
    state, action = env.get_state(), np.tile(np.float32([1, 0, 0, 0]), (8, 1))
    happened = execute(env, state, action, np.array([4, 8]), env.views)
    env.set_state(state)
    for _ in range(4):
        seen, *_ = env.step(action[0])
    np.testing.assert_array_equal(happened.frames["top"][0], seen["image/top"])
    np.testing.assert_array_equal(happened.masks["top/robot"][0], env.masks("top")["robot"])


def test_other_strata_take_turns_where_they_are_asked_for(tmp_path):
    found = run(PointModel(), 2, 1, strata=("contact",), out=tmp_path)
    assert {one.stratum for one in found} == {"contact"}
    with pytest.raises(KeyError, match="no stratum 'afetr'; did you mean 'after'"):
        run(PointModel(), 2, 1, strata=("afetr",))
    with pytest.raises(ValueError, match="no strata to take states from"):
        run(PointModel(), 2, 1, strata=())
    with pytest.raises(LogError, match="strata"):
        run(PointModel(), 2, 1, out=tmp_path)


def test_states_are_drawn_away_from_before_and_in_contact():
    env = point_env.make("point/push")
    for one, stratum in zip(
        run(PointModel(), 6, 1), ["free", "before", "contact"] * 2, strict=True
    ):
        env.set_state(one.simulator_state)
        assert bool(env.contacts()) == (stratum == "contact")


def test_strata_follow_the_contacts():
    touch, none = [("robot", "block")], [("block", "table")]
    names = strata([none] * 4 + [touch, none], near=2)
    assert names == ["free", "free", "before", "before", "contact", "after"]
    assert strata([none, none], near=5) == ["free", "free"]


def test_a_model_without_joint_samples_says_so():
    one = run(Reactive(), 1)[0]
    for branch in one.of("own"):
        assert branch.imagined is None
        assert branch.why_not.startswith("not a joint sample: point_reactive does not answer JOINT")
        assert branch.happened["top"].shape == (2, 16, 16, 3)
    assert "does not answer FORWARD" in one.of("imposed")[0].why_not


def test_a_model_that_never_imagines_is_looked_at_half_way_and_at_the_end():
    one = run(Reactive(PointConfig(offsets=())), 1)[0]
    shown = one.of("own") + one.of("imposed")
    assert [branch.offsets.tolist() for branch in shown] == [[4, 8]] * 7


def test_an_undecodable_future_says_why():
    assert "features" in run(Latent(), 1)[0].branches[0].why_not


def test_a_geometric_plan_is_followed_by_an_executor():
    executor = WaypointExecutor(Reach(SPACE, STEP))
    one = run(Planner(), 1, samples=1, executor=executor)[0]
    own = one.branches[0]
    assert own.action.shape == (8, 4)
    reached = one.state[:3] + np.array([0.2, 0.1, 0.1])
    np.testing.assert_allclose(own.entities["robot"][-1, :3], np.clip(reached, 0, 1), atol=0.03)
    assert "unclocked" in own.why_not
    with pytest.raises(ValueError, match="plans without actions: give an executor"):
        run(Planner(), 1)


def test_anything_that_answers_queries_can_be_probed():
    class Wire:
        """Sees the policy through `query` only."""

        def __init__(self, policy):
            self.query, self.name, self.digest = policy.query, "wire", "of another machine"
            self.space, self.offsets = policy.space, policy.offsets
            self.chunk, self.depth = policy.chunk, policy.depth

    wire = Wire(policy_of(PointModel()))
    one = probe(wire, "point/push", 1, 1, make=point_env.make, progress=False)[0]
    assert one.policy == "wire"


def test_imposed_futures_share_their_noise():
    model = PointModel()
    asked = []
    policy = policy_of(model)
    query = policy.query
    policy.query = lambda *args, **options: (
        asked.append((args[1], options)) or query(*args, **options)
    )
    probe(policy, "point/push", 1, 3, make=point_env.make, progress=False)
    assert [kind for kind, _ in asked] == [JOINT, INVERSE, FORWARD]
    assert len(set(asked[2][1]["seed"])) == 1
    assert len(asked[2][1]["seed"]) == len(SEQUENCES)


def test_models_that_look_back_get_their_history():
    model = PointModel(PointConfig(past=(-2, -1)))
    ones = run(model, 3, 1)
    deep = [one.step >= 2 for one in ones]
    assert any(deep)
    seen = [batch for batch in model.seen if len(batch) == 1]
    for one, batch in zip(ones, seen, strict=True):
        assert batch["state"].present[0].tolist() == [one.step >= 2, one.step >= 1, True]


def test_finished_probes_are_not_made_again(tmp_path):
    first = run(PointModel(), 2, out=tmp_path)
    model = PointModel()
    again = run(model, 3, out=tmp_path)
    assert len(model.seen) == len((JOINT, INVERSE, FORWARD))
    np.testing.assert_array_equal(first[1].now["top"], again[1].now["top"])
    assert len(load_probes(tmp_path)) == 3
    with pytest.raises(ValueError, match="holds other probes"):
        run(Reactive(), 1, out=tmp_path)


ACTION = np.array([[1, 0.4, 0, k] for k in (0.1, 0.2, 0.3, 0.4)], np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("zero", [[0, 0, 0, 0.1], [0, 0, 0, 0.2], [0, 0, 0, 0.3], [0, 0, 0, 0.4]]),
        ("mirrored", [[1, -0.4, 0, 0.1], [1, -0.4, 0, 0.2], [1, -0.4, 0, 0.3], [1, -0.4, 0, 0.4]]),
        ("truncated", [[1, 0.4, 0, 0.1], [1, 0.4, 0, 0.2], [0, 0, 0, 0.2], [0, 0, 0, 0.2]]),
        (
            "half-speed",
            [[0.5, 0.2, 0, 0.1], [0.5, 0.2, 0, 0.1], [0.5, 0.2, 0, 0.2], [0.5, 0.2, 0, 0.2]],
        ),
        (
            "gripper-flipped",
            [[1, 0.4, 0, -0.1], [1, 0.4, 0, -0.2], [1, 0.4, 0, -0.3], [1, 0.4, 0, -0.4]],
        ),
        ("late", [[0, 0, 0, 0.1], [1, 0.4, 0, 0.1], [1, 0.4, 0, 0.2], [1, 0.4, 0, 0.3]]),
    ],
)
def test_interventions(name, expected):
    np.testing.assert_allclose(impose(name, ACTION, SPACE), expected, atol=1e-6)


def test_a_gripper_is_flipped_at_the_middle_of_its_bounds():
    opening = dataclasses.replace(SPACE, low=(-1.0, -1.0, -1.0, 0.0), high=(1.0, 1.0, 1.0, 0.08))
    flipped = impose("gripper-flipped", np.float32([[0, 0, 0, 0.02], [0, 0, 0, 0.08]]), opening)
    np.testing.assert_allclose(flipped[:, 3], [0.06, 0.0], atol=1e-7)


class Listening(PointModel, name="point_listening"):
    """Goes the other way when it is told anything but to push the block to the right."""

    def sample(self, observation, query, **options):
        answer = super().sample(observation, query, **options)
        if answer.action is not None:
            told = [1.0 if "right" in said else -1.0 for said in observation.text.sentences]
            answer.action.values *= torch.tensor(told)[:, None, None]
        return answer


def test_a_sample_is_told_otherwise_and_its_action_imposed_with_the_noise_of_the_own_one():
    others = {"point/push": "push the block to the left"}
    one = run(Listening(), 1, imposed=("zero", OTHER_INSTRUCTION), others=others)[0]
    zero, other = one.of("imposed")
    (told,) = one.of("instructed")
    np.testing.assert_allclose(told.action, -one.of("own")[0].action, atol=1e-6)
    np.testing.assert_array_equal(told.imagined["top"], one.of("own")[0].imagined["top"])
    np.testing.assert_array_equal(told.happened["top"], other.happened["top"])
    assert told.instruction == others["point/push"]
    np.testing.assert_array_equal(other.action, told.action)
    assert (other.label, other.instruction) == (OTHER_INSTRUCTION, others["point/push"])
    assert zero.instruction == ""
    walked = one.entities["robot"][:3] + other.action[:, :3].sum(axis=0) * STEP
    np.testing.assert_allclose(other.entities["robot"][-1, :3], walked.clip(0, 1), atol=1e-5)
    assert other.imagined["top"].shape == other.happened["top"].shape
    with pytest.raises(ValueError, match="none is known for point/push"):
        run(Listening(), 1, imposed=(OTHER_INSTRUCTION,))


def test_what_only_acts_is_told_otherwise_and_says_why_it_imagines_nothing():
    others = {"point/push": "push the block to the left"}
    (told,) = run(Reactive(), 1, imposed=(), others=others)[0].of("instructed")
    assert told.imagined is None
    assert told.why_not.startswith("not a joint sample")


def test_unknown_interventions_and_spaces_without_y():
    with pytest.raises(KeyError, match="no intervention 'mirror'; did you mean 'mirrored'"):
        run(PointModel(), 1, imposed=("mirror",))
    joints = SPACE.__class__(**{**vars(SPACE), "names": ("j1", "j2", "gripy", "grip")})
    with pytest.raises(ValueError, match="one dimension called y"):
        impose("mirrored", ACTION, joints)
    with pytest.raises(ValueError, match="one dimension called grip; the space has"):
        impose("gripper-flipped", ACTION, dataclasses.replace(SPACE, names=("x", "y", "z", "w")))


def test_a_model_that_only_foresees_is_asked_what_comes_of_the_experts_actions():
    others = {"point/push": "push the block to the left"}
    imposed = (*SEQUENCES, OTHER_INSTRUCTION)
    probes = run(Foreseeing(), 3, imposed=imposed, others=others)
    for one in probes:
        assert not one.of("own") + one.of("instructed") + one.of("shuffled")
        assert [branch.label for branch in one.of("imposed")] == [*SEQUENCES]
        first, expert = one.of("imposed")[0], one.of("reference")[0]
        np.testing.assert_array_equal(first.action, expert.action)
        assert first.imagined["top"].shape == first.happened["top"].shape
        assert f"gain 0.7: {SEQUENCES[0]}" in [branch.label for branch in one.of("world")]
    assert compute("delta_psnr", probes).value is not None
    assert compute("state_eic", probes).why_not == "the probes hold no branch of the model's own"


def test_a_model_that_neither_acts_nor_foresees_is_refused():
    class Mute(PointModel, name="point_mute"):
        answers = (VIDEO,)

    for imposed in (SEQUENCES, ()):
        with pytest.raises(Refusal, match="does not answer POLICY"):
            run(Mute(), 1, imposed=imposed)


def test_whoever_watches_is_told_how_well_states_are_restored(capsys):
    run(PointModel(), 1, progress=True)
    said = "point/push, restored and acted on ten times: state differs by 0, objects by 0 mm"
    assert said in "".join(capsys.readouterr())


def test_an_environment_that_does_not_restore_its_states_is_refused():
    class Forgetful(point_env.PointEnv):
        """The drive warms up from step to step, which no state holds."""

        warmth = 0.0

        def step(self, action):
            self.warmth += 0.1
            self.gain = 1 + self.warmth
            return super().step(action)

    with pytest.raises(
        ValueError, match=r"does not restore its states: .* mm apart, expected 1\.7"
    ):
        run(PointModel(), 1, make=lambda name, **options: Forgetful(name, **options))
