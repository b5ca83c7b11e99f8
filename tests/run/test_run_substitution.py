from __future__ import annotations

import numpy as np
import point_env
import pytest
import torch
from point_model import PointConfig, PointModel, Reactive, policy_of

from wamlab.metrics.rivals import Clips
from wamlab.models.base import Refusal
from wamlab.policy.acting import acting
from wamlab.policy.agents import ExpertAgent
from wamlab.policy.executors import ChunkExecutor
from wamlab.run.rollout import rollout
from wamlab.run.search import Search
from wamlab.run.substitution import EXTRACTORS, FUTURES, SubstitutedAgent
from wamlab.types import ACTION, FORWARD, FUTURE, VIDEO

ENV, VIEWS, OFFSETS = "point/push", ("top", "side"), (4, 8)


class Cascade(PointModel, name="point_cascade"):
    """Imagines a shade; extracts the actions, all alike, that this shade says."""

    answers = tuple(query for query in PointModel.answers if query != FORWARD)

    def __init__(self, config=None):
        super().__init__(config)
        self.asked = {}

    def sample(self, observation, query, *, future=None, generator, **_):
        self.asked[str(query)] = observation.text
        if future is None:
            future = super().sample(observation, VIDEO, generator=generator).future
        result = super().sample(observation, query, generator=generator)
        if FUTURE in query.sampled:
            result.future = future
        if ACTION in query.sampled:
            now = observation["image/top"].at(0).values[:, 0]
            shade = (future.values["image/top"][:, 0] - now).mean((1, 2, 3))
            chunk = torch.tanh(20 * shade)[:, None, None].expand(-1, self.config.chunk, 4)
            result.action = self._stream(chunk)
        return result


def agent(future="learned", extractor="learned", model=None, **options):
    policy = policy_of(model or Cascade(PointConfig(noise=1.0)))
    return SubstitutedAgent(
        policy, ChunkExecutor(4), future=future, extractor=extractor, make=point_env.make, **options
    )


def play(player, episodes=2, **options):
    return rollout(player, ENV, episodes, make=point_env.make, progress=False, **options)


def clips() -> Clips:
    rng = np.random.default_rng(0)
    first = {view: np.zeros((3, 16, 16, 3), np.uint8) for view in VIEWS}
    future = {view: rng.integers(0, 255, (3, 2, 16, 16, 3), np.uint8) for view in VIEWS}
    return Clips([ENV] * 3, OFFSETS, first, future)


def test_with_nothing_substituted_it_acts_as_the_policy_does():
    own = play(acting(policy_of(Cascade(PointConfig(noise=1.0))), execute_steps=4))
    halves = play(agent())
    for one, other in zip(own, halves, strict=True):
        np.testing.assert_allclose(one.action, other.action, atol=1e-6)
        assert np.abs(one.action).max() > 0.01
        assert one.replans[0].calls == other.replans[0].calls


def test_a_true_future_extracted_exactly_is_the_expert():
    expert, halves = play(ExpertAgent()), play(agent("true", "exact"))
    for one, other in zip(expert, halves, strict=True):
        assert one.success_any
        assert other.success_any
        np.testing.assert_array_equal(one.action, other.action)


def test_the_true_future_is_what_the_expert_then_does():
    played = play(agent("true", "exact"), 1)[0]
    for plan in played.replans:
        for k, offset in enumerate(OFFSETS[:1]):
            seen = played.frames["top"][plan.step + offset]
            np.testing.assert_array_equal(plan.imagined["top"][k], seen)


def test_trying_things_out_leaves_the_episode_alone():
    """The expert of the episode acts the same whether a search runs beside it or not."""
    player = agent("learned", "exact", search=Search((1,), population=4, elite=2))
    first = play(player, 1)[0]
    walked = np.cumsum(first.action[:, :3] * point_env.STEP, axis=0) + first.state[0, :3]
    inside = (walked > 0).all(1) & (walked < 1).all(1)
    upto = len(inside) if inside.all() else int(np.argmin(inside))
    np.testing.assert_allclose(first.state[1 : upto + 1, :3], walked[:upto], atol=1e-5)


def test_a_static_future_is_the_present_again_and_again():
    played = play(agent("static"), 1)[0]
    for plan in played.replans:
        for shown in plan.imagined["side"]:
            np.testing.assert_array_equal(shown, played.frames["side"][plan.step])


def test_a_shuffled_future_is_a_clip_drawn_anew_for_each_plan():
    known, played = clips(), play(agent("shuffled", clips=clips()), 1)[0]
    drawn = [
        int(np.flatnonzero((known.future["top"] == plan.imagined["top"]).all((1, 2, 3, 4)))[0])
        for plan in played.replans
    ]
    assert len(set(drawn)) > 1


def test_another_instruction_is_imagined_and_only_that():
    model = Cascade()
    play(agent("another instruction's", model=model, others={ENV: "open the drawer"}), 1)
    sentences = {query: text.sentences[0] for query, text in model.asked.items()}
    assert sentences == {"VIDEO": "open the drawer", "INVERSE": point_env.PointEnv.instruction}


@pytest.mark.parametrize("future", FUTURES)
@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_every_cell_can_be_played(future, extractor, tmp_path):
    player = agent(
        future, extractor, clips=clips(), others={ENV: "open the drawer"},
        search=Search((1,), population=2, elite=1),
    )  # fmt: skip
    played = play(player, 1, max_steps=8, out=tmp_path)
    assert len(played[0].action) == 8
    assert player.made_by["future"] == future
    player.close()


def test_what_is_missing_is_said():
    with pytest.raises(KeyError, match=r"no substitute 'lerned'.*learned"):
        agent("lerned")
    with pytest.raises(KeyError, match=r"no substitute 'exactly'.*exact"):
        agent(extractor="exactly")
    with pytest.raises(ValueError, match="drawn from clips"):
        agent("shuffled")
    with pytest.raises(Refusal, match="does not answer VIDEO"):
        agent(model=Reactive())
    with pytest.raises(ValueError, match="no other instruction for point/push"):
        play(agent("another instruction's"), 1)
