"""Asking a policy at recorded instants: what it is given, what is logged, and what is refused."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from fixture import SPACE, make_dataset, make_episode

from wamlab.data.cache import Cache
from wamlab.data.logs import LogError, load_recordings
from wamlab.data.manifest import DataError
from wamlab.data.normalize import statistics
from wamlab.data.processor import Processor, ProcessorConfig
from wamlab.data.space import common_space
from wamlab.metrics.open_loop import OTHER_FRAMES
from wamlab.models.reactive import Reactive
from wamlab.models.uwm import UWM
from wamlab.policy.policy import Policy
from wamlab.policy.seeds import draw_seed
from wamlab.recipes.clips import clips_of
from wamlab.recipes.own_data import run as own_data
from wamlab.recipes.recorded import take_turns, usable
from wamlab.run.open_loop import open_loop
from wamlab.types import FORWARD, INVERSE, JOINT, POLICY, QUERIES, Query, Recording

LENGTHS = (30, 24, 27, 6)
LEVELS = (1.0, 0.5, 0.1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("recorded")
    make_dataset(folder / "point", [make_episode(i, n) for i, n in enumerate(LENGTHS)])
    return Cache.open(
        folder / "point", views=("corner", "gripper"), image_size=32, folder=folder / "cache"
    )


def policy_of(cache: Cache, kind: type = UWM, rate: float = 20.0) -> Policy:
    torch.manual_seed(0)
    sizes = {"state_dim": 3, "action_dim": 3, "rate_hz": rate, "text_dim": 3}
    model = kind(dataclasses.replace(kind.Config.tiny(), **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    config = ProcessorConfig(cache.views, 32, cache.state_names, rate)

    def encoder(sentences: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = len(sentences)
        return torch.ones(rows, 3), torch.ones(rows, 2, 3), torch.ones(rows, 2).bool()

    space, found = common_space([cache], rate), statistics([cache], rate_hz=rate)
    assert space is not None
    return Policy(model, Processor(config, space, found, encoder=encoder), space)


def ask(cache: Cache, policy: Policy, episodes: list[int], **options: object) -> list[Recording]:
    clips = clips_of([cache], policy.model.config, envs={"fixture/point"})
    settings = {"origin": "held out", "clips": clips, "levels": LEVELS, "progress": False}
    return open_loop(policy, cache, episodes, 3, **{**settings, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def policy(cache: Cache) -> Policy:
    return policy_of(cache)


@pytest.fixture(scope="module")
def found(cache: Cache, policy: Policy) -> list[Recording]:
    return ask(cache, policy, [0, 1, 3])


def test_instants_are_evenly_spread_and_lie_whole_within_their_episode(found) -> None:
    """A tick behind and eight ahead; the episode of six steps has no room for one."""
    assert [(one.episode, one.step) for one in found] == [
        (0, 1), (0, 12), (0, 22), (1, 1), (1, 8), (1, 16),
    ]  # fmt: skip


def test_what_was_recorded_is_what_followed(cache: Cache, found) -> None:
    one = found[1]
    rows = cache.starts[0] + one.step
    np.testing.assert_array_equal(one.action, cache.columns["action"][rows : rows + 8])
    low, high = statistics([cache])["action"].range()
    np.testing.assert_allclose(one.action_scale, (high - low) / 2, rtol=1e-5)
    for view in ("corner", "gripper"):
        np.testing.assert_array_equal(one.now[view][0], cache.frames[view][rows])
        np.testing.assert_array_equal(one.ahead[view], cache.frames[view][[rows + 4, rows + 8]])
    hold = one.rivals["hold"].action
    assert hold is not None
    assert hold[0].tolist() == [0, 0, cache.columns["action"][rows - 1][2]]


def test_a_policy_of_a_lower_rate_is_judged_by_what_its_ticks_held(cache: Cache) -> None:
    one = ask(cache, policy_of(cache, rate=10.0), [0])[1]
    rows = cache.starts[0] + one.step
    ticks = cache.columns["action"][rows : rows + 16].reshape(8, 2, 3)
    np.testing.assert_allclose(one.action[:, :2], ticks[..., :2].sum(axis=1), atol=1e-6)
    np.testing.assert_array_equal(one.action[:, 2], ticks[:, 1, 2])
    for view in ("corner", "gripper"):
        np.testing.assert_array_equal(one.ahead[view], cache.frames[view][[rows + 8, rows + 16]])


def test_what_is_given_is_what_was_recorded(cache, policy, monkeypatch) -> None:
    """FORWARD gets the recorded chunk, INVERSE the recorded frames, each instant its own draw."""
    asked: dict[Query, dict] = {}
    inverses: list[dict] = []
    answer = Policy.query

    def spy(self, observations, query, **options):
        asked[query] = options
        if query == INVERSE:
            inverses.append(options)
        return answer(self, observations, query, **options)

    monkeypatch.setattr(Policy, "query", spy)
    logs = ask(cache, policy, [0])
    np.testing.assert_array_equal(asked[FORWARD]["action"], [one.action for one in logs])
    assert "action" not in asked[JOINT]
    frames, other = (each["future"].values["image/corner"] for each in inverses)
    np.testing.assert_array_equal(frames, [one.ahead["corner"] for one in logs])
    np.testing.assert_array_equal(other, [one.ahead["corner"] for one in (*logs[1:], logs[0])])
    seeds = [draw_seed(0, one.episode, one.step) for one in logs]
    assert all(options["seed"] == seeds for options in asked.values())

    one = logs[1]
    observation = {f"image/{view}": shown[0] for view, shown in one.now.items()}
    observation |= {"state": one.state, "instruction": one.instruction}
    again = answer(policy, [observation], POLICY, seed=[seeds[1]])
    np.testing.assert_allclose(again.action.values[0], one.guesses["POLICY"].action, atol=1e-4)


def test_every_query_is_asked_and_measured_once(found) -> None:
    for one in found:
        assert set(one.guesses) - {OTHER_FRAMES} == set(one.likelihood) == set(QUERIES)
        for name, query in QUERIES.items():
            guess = one.guesses[name]
            assert (guess.action is not None) == ("action" in query.sampled)
            assert (guess.imagined is not None) == ("future" in query.sampled)
        dims = {name: int(each.dims[0]) for name, each in one.likelihood.items()}
        assert dims["POLICY"] == dims["INVERSE"] == 24
        assert dims["JOINT"] == 24 + dims["FORWARD"] == 24 + 2 * 2 * 3 * 32 * 32


def test_an_episode_is_no_rival_of_itself(cache: Cache, policy: Policy, found) -> None:
    clips = clips_of([cache], policy.model.config, envs={"fixture/point"})
    assert set(clips.episode) == {0, 1, 2}
    near = found[1].rivals["nearest clip"].action
    others = clips.without(0).action
    assert any(np.array_equal(near, chunk) for chunk in others)
    assert not any(np.array_equal(found[1].action, chunk) for chunk in others)


def test_logs_are_kept_and_not_asked_for_again(cache, policy, tmp_path, monkeypatch) -> None:
    first = ask(cache, policy, [1], out=tmp_path)
    assert [one.step for one in load_recordings(tmp_path)] == [one.step for one in first]
    monkeypatch.setattr(Policy, "query", None)
    assert len(ask(cache, policy, [1], out=tmp_path)) == 3
    with pytest.raises(LogError, match="seed was 0, now 1"):
        ask(cache, policy, [1], out=tmp_path, seed=1)


def test_a_model_that_imagines_nothing_is_asked_for_actions_alone(cache: Cache) -> None:
    one = ask(cache, policy_of(cache, Reactive), [0])[0]
    assert set(one.guesses) == set(one.likelihood) == {"POLICY"}
    assert one.ahead["corner"].shape == (0, 32, 32, 3)
    assert set(one.rivals) == {"hold", "dataset mean", "nearest clip"}


def test_other_actions_and_too_short_episodes_are_refused(cache: Cache, policy: Policy) -> None:
    with pytest.raises(DataError, match="an instant needs 9 ticks"):
        ask(cache, policy, [3])
    renamed = dataclasses.replace(SPACE, names=("a", "b", "c"))
    with pytest.raises(DataError, match=r"differ in the names \(.*gripper.*'a', 'b', 'c'"):
        ask(dataclasses.replace(cache, space=renamed), policy, [0])
    with pytest.raises(DataError, match="the dataset has no actions"):
        ask(dataclasses.replace(cache, space=None), policy, [0])
    with pytest.raises(DataError, match=r"in the names of the state: .*'elbow'"):
        ask(dataclasses.replace(cache, state_names=("elbow",)), policy, [0])
    small = dataclasses.replace(SPACE, low=(-0.1,) * 3, high=(0.1,) * 3)
    narrow = dataclasses.replace(policy, space=small)
    with pytest.raises(ValueError, match="action of episode 0 is outside the space"):
        ask(cache, narrow, [0])


def test_actions_beyond_all_that_training_saw_are_judged(cache: Cache, policy: Policy) -> None:
    seen = dataclasses.replace(SPACE, low=(-0.1,) * 3, high=(0.1,) * 3, mode=("unknown",) * 3)
    foreign = dataclasses.replace(cache, space=dataclasses.replace(SPACE, mode=seen.mode))
    narrow = dataclasses.replace(policy, space=seen)
    assert len(ask(foreign, narrow, [0])) == 3


def test_held_out_episodes_are_taken_where_the_run_held_some_out(cache: Cache) -> None:
    run = own_data("uwm")
    held = dataclasses.replace(run, data=dataclasses.replace(run.data, held_out=2))
    assert usable(cache, held, [cache.dataset]) == ("held out", [2, 3])
    assert usable(cache, run, [cache.dataset]) == ("training", [0, 1, 2, 3])
    assert usable(cache, held, ["another"]) == ("elsewhere", [0, 1, 2, 3])


def test_tasks_take_turns(cache: Cache) -> None:
    tasks = ("push", "push", "push", "pull")
    infos = [
        dataclasses.replace(info, task=task, extras={})
        for info, task in zip(cache.episodes, tasks, strict=True)
    ]
    mixed = dataclasses.replace(cache, episodes=tuple(infos))
    assert take_turns(mixed, [0, 1, 2, 3], 2) == [0, 3]
    assert take_turns(mixed, [0, 1, 2, 3], 3) == [0, 1, 3]
