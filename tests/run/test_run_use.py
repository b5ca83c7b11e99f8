"""The causal use of imagination on the point environment: models that use theirs, or do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import point_env
import pytest
import torch
from point_judge import ENV, Hidden, Reading, Seer
from point_model import PointModel, PointProcessor, Reactive, policy_of

from wamlab.metrics.base import compute
from wamlab.metrics.use import success_change
from wamlab.models.base import Refusal
from wamlab.policy.executors import ChunkExecutor
from wamlab.policy.policy import Policy
from wamlab.run.rollout import rollout
from wamlab.run.substitution import Search
from wamlab.run.use import MIRRORED, NOISE, OWN, REDRAWN, SAMPLE, SCENE, ReplacedAgent, use
from wamlab.types import FUTURE, INVERSE, VIDEO, Probe

pytestmark = pytest.mark.usefixtures("few_draws")

SEARCH = Search((1, 2), population=8)


class Using(Seer, name="point_using"):
    """Does what it imagined: it reads the way off its frames, which lead past the block or to it.

    Where no hand, or far too much of one, is to be seen it stands still.
    """

    answers = (VIDEO, INVERSE)

    def sample(self, observation, query, *, future=None, generator, **options):
        if FUTURE in query.given:
            found = Reading.sample(self, observation, query, future=future, generator=generator)
            red = future.values["image/top"][:, :, 0] - future.values["image/top"][:, :, 2] > 0.5
            odd = (red.sum((-2, -1)) > 20).any(1)
            found.action.values = torch.nan_to_num(found.action.values)
            found.action.values[odd] = 0
            return found
        self.aside = [float(torch.rand((), generator=g)) for g in generator]
        return super().sample(observation, query, generator=generator, **options)

    def trust(self, now):
        return torch.ones(len(now))

    def imagine(self, hand, block):
        aside = torch.tensor([0.0, 0.6 * self.aside.pop(0) - 0.3])
        return super().imagine(hand, (hand if block.isnan().any() else block) + aside)


class Decorated(Using, name="point_decorated"):
    """Imagines as well, and acts the same whatever it imagined."""

    def sample(self, observation, query, *, future=None, generator, **options):
        if FUTURE not in query.given:
            return super().sample(observation, query, generator=generator, **options)
        drawn = torch.stack([torch.rand(8, 4, generator=g) for g in generator])
        found = super().sample(observation, query, future=future, generator=generator)
        found.action.values = 2 * drawn - 1
        return found


def probed(model: PointModel, states: int = 6, **options) -> list[Probe]:
    how = {"others": {ENV: "point/flaky"}, "make": point_env.make, "progress": False, **options}
    return use(policy_of(model), [ENV], states, **how)


@pytest.fixture(scope="module")
def using() -> list[Probe]:
    return probed(Using(), search=SEARCH)


@pytest.fixture(scope="module")
def decorated() -> list[Probe]:
    return probed(Decorated(), search=SEARCH)


def test_an_action_that_is_read_off_the_future_follows_it(using: list[Probe]) -> None:
    found = compute("imagination_use", using, space=point_env.SPACE)
    assert found.value == pytest.approx(1, abs=0.15)
    assert found.details["off"] < 0.1
    assert found.floor == 0
    other = compute("imagination_use", using, space=point_env.SPACE, future=SAMPLE)
    assert other.value == pytest.approx(1, abs=0.35)
    assert found.details["change"][SAMPLE][0] > 0.1


def test_decoration_changes_nothing_but_by_the_draw(decorated: list[Probe]) -> None:
    """The same noise gives the same action; another draw gives another, and that is the floor."""
    for future in (MIRRORED, SAMPLE):
        found = compute("imagination_use", decorated, space=point_env.SPACE, future=future)
        assert found.value == 0
        assert found.interval == (0, 0)
        assert found.details["off"] == pytest.approx(1)
    assert found.floor > 0.1
    assert all(size == 0 for size, _ in found.details["change"].values())


def test_what_was_given_is_logged_beside_what_came_of_it(using: list[Probe]) -> None:
    labels = {OWN, SAMPLE, SCENE, NOISE, REDRAWN, "own executed", MIRRORED}
    exact = {f"exact: {label}" for label in (OWN, SAMPLE, "own executed", MIRRORED)}
    for one in using:
        by = {branch.label: branch for branch in one.branches}
        assert {*by} == labels | exact
        assert [branch.label for branch in one.of("own")] == [OWN]
        own, mirror = by["exact: own executed"].action, by[f"exact: {MIRRORED}"].action
        np.testing.assert_array_equal(own, by[OWN].action)
        np.testing.assert_array_equal(mirror, own * np.array([1, -1, 1, 1], np.float32))
        truth = by[f"exact: {MIRRORED}"]
        np.testing.assert_array_equal(truth.imagined["top"], truth.happened["top"])
        assert by[NOISE].imagined["top"].std() > 60


def test_without_a_search_nothing_is_demanded_of_what_was_imagined(tmp_path: Path) -> None:
    model = Using()
    probes = probed(model, 2, out=tmp_path)
    found = compute("imagination_use", probes, space=point_env.SPACE, future=SAMPLE)
    assert found.why_not == "nothing was searched for (2)"
    calls = len(model.seen)
    again = probed(model, 2, out=tmp_path)
    assert len(model.seen) == calls
    np.testing.assert_array_equal(again[1].branches[0].action, probes[1].branches[0].action)


def test_success_is_lost_with_the_future_of_a_model_that_uses_it() -> None:
    def play(model: PointModel, future: str):
        agent = ReplacedAgent(
            policy_of(model), ChunkExecutor(4), future=future, make=point_env.make
        )
        assert agent.made_by["future"] == future
        return rollout(agent, ENV, 3, make=point_env.make, progress=False, stop_after=0)

    class Sure(Using, name="point_sure"):
        def imagine(self, hand, block):
            return Seer.imagine(self, hand, block)

    own = play(Sure(), "learned")
    lost = success_change(own, {name: play(Sure(), name) for name in (SAMPLE, NOISE)})
    assert lost[SAMPLE].value == 0
    assert (lost[NOISE].value, lost[NOISE].won) == (1, (3, 0))


def test_bad_requests_are_named(using: list[Probe]) -> None:
    with pytest.raises(Refusal, match="does not answer VIDEO"):
        probed(Reactive())
    with pytest.raises(Refusal, match="does not answer INVERSE"):
        probed(Seer())
    with pytest.raises(Refusal, match="cannot be replaced: it imagines in features"):
        probed(Hidden())
    with pytest.raises(KeyError, match="no other scene is named for 'point/push'"):
        probed(Using(), others={})
    slower = Policy(Using(), PointProcessor(), replace(point_env.SPACE, rate_hz=5.0))
    with pytest.raises(ValueError, match=r"trained on the action space .*rate_hz=5.0"):
        use(slower, [ENV], 1, others={ENV: ENV}, make=point_env.make, progress=False)
    with pytest.raises(KeyError, match="nothing is demanded of the future"):
        compute("imagination_use", using, space=point_env.SPACE, future=NOISE)
    assert "pass space=" in compute("imagination_use", using).why_not
    bare = [replace(one, branches=one.of("own")) for one in using]
    assert "no probe" in compute("imagination_use", bare, space=point_env.SPACE).why_not
    with pytest.raises(KeyError, match=r"no substitute 'noisy'.*noise"):
        ReplacedAgent(policy_of(Using()), ChunkExecutor(4), future="noisy")
