"""The whole line for each fake: demonstrations, training, rollout, logs, probes and the report."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FAKES, Chunks, Features, Judge, Plan, Stages, Tokens

from wamlab.data.cache import Cache
from wamlab.data.logs import load_episodes, load_losses, load_probes
from wamlab.data.mixture import Mixture
from wamlab.data.normalize import statistics
from wamlab.data.processor import Processor, ProcessorConfig
from wamlab.data.window import Windows
from wamlab.models.base import WorldActionModel
from wamlab.policy.acting import acting
from wamlab.policy.history import History
from wamlab.policy.policy import Policy, load
from wamlab.report.build import build
from wamlab.run.collect import collect
from wamlab.run.probe import probe
from wamlab.run.rollout import rollout
from wamlab.train.feed import Feed
from wamlab.train.trainer import TrainConfig, train
from wamlab.types import JOINT, STRATA

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))

import point_env

pytestmark = pytest.mark.usefixtures("few_draws")

ENV = "point/push"
STEPS = 6


def encode(sentences: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two tokens of width 8 per sentence, the same for the same sentence."""
    digests = [hashlib.sha256(sentence.encode()).digest()[:16] for sentence in sentences]
    tokens = np.array([list(digest) for digest in digests], np.float32).reshape(-1, 2, 8) / 255
    return tokens.mean(1), tokens, np.ones(tokens.shape[:2], bool)


@dataclass
class Trained:
    """What the line left on disk for one fake."""

    fake: type[WorldActionModel]
    out: Path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("demonstrations")
    collect(ENV, 3, folder / "data", make=point_env.make, bursts=False, progress=False)
    views = ("top", "side")
    return Cache.open(
        folder / "data", views=views, image_size=16, folder=folder / "cache", progress=False
    )


def processor_of(cache: Cache) -> Processor:
    config = ProcessorConfig(cache.views, 16, cache.state_names, cache.fps)
    processor = Processor(config, cache.space, statistics([cache]), encoder=encode)
    processor.learn_sentences(sorted({episode.task for episode in cache.episodes}))
    return processor


@pytest.fixture(scope="module", params=FAKES, ids=lambda fake: fake.name)
def trained(
    request: pytest.FixtureRequest, cache: Cache, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    fake, out = request.param, tmp_path_factory.mktemp(request.param.name)
    config = dataclasses.replace(fake.Config.tiny(), views=cache.views, rate_hz=cache.fps)
    model, processor = fake(config), processor_of(cache)
    mixtures = {
        stage.name: Mixture([Windows(cache, stage.window, roles=stage.roles)], seed=0, batch_size=4)
        for stage in model.stages()
    }
    how = TrainConfig(steps=STEPS, batch_size=4, precision="f32", log_every=1)
    with Feed(mixtures) as feed:
        done = train(
            model, feed, processor, how, out, device="cpu", progress=False,
            statistics=processor.model_statistics(), action_space=cache.space,
        )  # fmt: skip
    assert done.status == "finished"
    return Trained(fake, out)


def test_training_leaves_losses_and_a_policy(trained: Trained) -> None:
    losses = load_losses(trained.out)
    policy = load(trained.out, device="cpu")
    assert {one["stage"] for one in losses if "loss" in one} == {
        stage.name for stage in policy.model.stages()
    }
    assert all(np.isfinite(one["loss"]) for one in losses if "loss" in one)
    if trained.fake is Tokens:
        assert (policy.model.low < policy.model.high).all()


def test_rollouts_probes_and_report(trained: Trained) -> None:
    fake, out = trained.fake, trained.out
    policy = load(out, device="cpu")
    agent = acting(policy, samples=3 if fake is Judge else 1, choice="value")
    if JOINT in policy.model.queries:
        agent.query = JOINT
    options = {"make": point_env.make, "progress": False, "out": out}
    rollout(agent, ENV, 3, max_steps=9, batch=2, **options)
    probe(policy, ENV, 1, 2, executor=agent.executor, **options)

    episodes, (one,) = load_episodes(out), load_probes(out)
    assert [len(episode) for episode in episodes] == [9, 9, 9]
    for episode in episodes:
        point_env.SPACE.check(episode.action)
        check_replans(fake, episode.replans)
    check_branches(fake, one.of("own"))
    assert one.stratum in STRATA

    page = build(out).read_text()
    assert fake.name in page
    assert ENV in page


def check_replans(fake: type[WorldActionModel], replans: list[Any]) -> None:
    assert replans[0].reason == "start"
    assert all(replan.calls > 0 for replan in replans)
    assert (replans[0].value is not None) == (fake is Judge)
    assert (replans[0].action is None) == (fake is Plan)
    assert (replans[0].waypoints is not None) == (fake is Plan)
    assert (replans[0].imagined is not None) == (fake in (Chunks, Plan, Stages))
    if fake is not Plan:
        assert [replan.step for replan in replans] == [0, 4, 8]


def check_branches(fake: type[WorldActionModel], branches: list[Any]) -> None:
    assert len(branches) == 2
    for branch in branches:
        assert branch.action.shape == (4, 4)
        assert branch.happened["top"].shape == (1, 16, 16, 3)
    reasons = {
        Plan: "unclocked",
        Tokens: "not a joint sample",
        Judge: "not a joint sample",
        Features: "it cannot be shown as pixels",
    }
    why = {branch.why_not for branch in branches}
    assert why == {""} if fake not in reasons else all(reasons[fake] in one for one in why)
    assert all((b.imagined is None) == (fake in reasons) for b in branches)


def test_a_memory_is_told_what_was_done(cache: Cache) -> None:
    """Open loop the imagination goes on; told what happened, real frames replace it."""
    config = dataclasses.replace(Chunks.Config.tiny(), views=cache.views, rate_hz=cache.fps)
    policy = Policy(Chunks(config), processor_of(cache), point_env.SPACE)
    assert policy.remembers
    seen, _ = point_env.make(ENV).reset(seed=1)
    history = History(8)
    for _ in range(4):
        history.push(seen, np.full(4, 0.5, np.float32))
    first = policy.query(seen, JOINT)
    told = policy.observe(first.memory, [seen], [history], [4])
    blind, informed = (policy.query(seen, JOINT, memory=m) for m in (first.memory, told))
    assert not np.array_equal(blind.action.values, informed.action.values)
    assert torch.count_nonzero(told.imagined) == 0 < torch.count_nonzero(first.memory.imagined)
