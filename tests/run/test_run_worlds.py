from __future__ import annotations

import numpy as np
import point_env
import pytest
from point_env import STEP
from point_model import PointModel, policy_of

from wamlab.metrics.joint import SEQUENCES
from wamlab.run.execute import execute
from wamlab.run.probe import probe
from wamlab.run.worlds import WORLDS, reference_branches


def one(**options):
    options = {"make": point_env.make, "progress": False, **options}
    return probe(policy_of(PointModel()), "point/push", 1, 2, **options)[0]


def test_own_and_imposed_chunks_are_executed_in_every_world():
    found = one()
    names = ["sample 0", "sample 1", *SEQUENCES]
    labels = [f"{world}: {name}" for world in WORLDS for name in names]
    assert [branch.label for branch in found.of("world")] == labels
    fast = {branch.label: branch for branch in found.of("world")}
    env = point_env.make("point/push", views=())
    env.vary(gain=0.7)
    for own in found.of("own") + found.of("imposed"):
        world = fast[f"gain 0.7: {own.label}"]
        np.testing.assert_array_equal(world.action, own.action)
        walked = found.entities["robot"][:3] + 0.7 * STEP * own.action[:, :3].sum(axis=0)
        np.testing.assert_allclose(world.entities["robot"][-1, :3], walked.clip(0, 1), atol=1e-5)
        assert (world.imagined, world.masks) == (None, {})
        again = execute(env, found.simulator_state, own.action, own.offsets, ["top", "side"])
        for view in ("top", "side"):
            np.testing.assert_array_equal(world.happened[view], again.frames[view])


def test_the_own_chunks_are_executed_in_another_order():
    found = one()
    again = {branch.label: branch for branch in found.of("shuffled")}
    orders = set()
    for own in found.of("own"):
        other = again[own.label]
        assert not np.array_equal(other.action, own.action)
        rows = [own.action.tolist().index(row) for row in other.action.tolist()]
        assert sorted(rows) == list(range(len(own.action)))
        orders.add(tuple(rows))
        assert (other.imagined, other.masks) == (None, {})
        assert other.happened["top"].shape == own.happened["top"].shape
    assert len(orders) == 2
    assert [b.action.tolist() for b in one().of("shuffled")] == [
        again[own.label].action.tolist() for own in found.of("own")
    ]


def test_the_environment_has_its_own_physics_again_afterwards():
    envs = []

    def make(name, **options):
        envs.append(point_env.make(name, **options))
        return envs[-1]

    found = one(make=make)
    assert [(env.gain, env.friction) for env in envs] == [(1.0, 1.0)] * 2
    own = found.of("own")[0]
    again = execute(envs[1], found.simulator_state, own.action, own.offsets, ())
    np.testing.assert_array_equal(again.entities["block"], own.entities["block"])


def test_references_are_the_same_for_every_model_and_reach_the_goal():
    env = point_env.make("point/push", views=())
    env.reset(seed=3)
    found = reference_branches(env, env.get_state(), 16, seed=3)
    assert [one.label for one in found] == [
        "expert", "zero", "mirrored", "truncated", "half-speed",
    ]  # fmt: skip
    assert [one.success for one in found] == [True, False, False, False, False]
    still = found[1].entities["robot"]
    np.testing.assert_array_equal(still, np.broadcast_to(still[0], still.shape))


def test_what_no_environment_varies_is_refused():
    with pytest.raises(KeyError, match="world 'slow' varies 'gian'; did you mean 'gain'"):
        one(worlds={"slow": {"gian": 0.5}})
