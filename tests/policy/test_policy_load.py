from __future__ import annotations

import numpy as np
import pytest
from point_env import SPACE, PointEnv
from point_model import PointConfig, PointModel

from wamlab.config import to_dict
from wamlab.data.normalize import Statistics
from wamlab.data.processor import Processor, ProcessorConfig
from wamlab.policy.policy import Policy, load
from wamlab.train.checkpoint import CheckpointError, Snapshot, save_checkpoint
from wamlab.types import JOINT

SENTENCE = PointEnv.instruction


def encode(sentences):
    rows = len(sentences)
    return (
        np.ones((rows, 3), np.float32),
        np.ones((rows, 2, 3), np.float32),
        np.ones((rows, 2), bool),
    )


@pytest.fixture
def run_folder(tmp_path):
    """A run with one checkpoint, and the policy it was saved from."""
    model, rng = PointModel(PointConfig(noise=0.7)), np.random.default_rng(0)
    statistics = {
        "state": Statistics.of(rng.random((100, 4))),
        "action": Statistics.of(rng.uniform(-1, 1, (100, 4))),
    }
    config = ProcessorConfig(("top", "side"), 16, PointEnv.state_names, 10.0)
    processor = Processor(config, SPACE, statistics)
    processor.learn_sentences([SENTENCE], encode)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    settings = to_dict(model.config)
    save_checkpoint(
        tmp_path, Snapshot(3, "point", settings, weights, weights, {}, {}, processor, SPACE)
    )
    return tmp_path, Policy(model, processor, SPACE)


def test_a_loaded_policy_acts_as_the_saved_one(run_folder):
    folder, saved = run_folder
    policy = load(folder, "cpu")
    observation, _ = PointEnv().reset(seed=1)
    one, two = (who.query(observation, JOINT, seed=3) for who in (saved, policy))
    np.testing.assert_array_equal(one.action.values, two.action.values)
    np.testing.assert_array_equal(one.frames(0)["top"], two.frames(0)["top"])
    assert policy.space == SPACE
    assert policy.name == "point"


def test_the_sentence_encoder_is_asked_for_new_sentences_only(run_folder):
    policy = load(run_folder[0], "cpu")
    asked = []
    policy.processor.encoder = lambda new: asked.append(new) or encode(new)
    observation, _ = PointEnv().reset(seed=1)
    policy.query(observation, JOINT)
    assert asked == []
    policy.query({**observation, "instruction": "push it"}, JOINT)
    policy.query({**observation, "instruction": "push it"}, JOINT)
    assert asked == [["push it"]]


def test_a_damaged_checkpoint_is_not_loaded(run_folder):
    folder = run_folder[0]
    weights = next(folder.glob("checkpoints/*/weights.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="weights"):
        load(folder, "cpu")


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="is no checkpoint and no run"):
        load(tmp_path)
