from __future__ import annotations

import dataclasses
import errno
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixture import SIZE, SPACE, STATE

from wamlab.data.cache import Cache
from wamlab.data.manifest import DataError
from wamlab.data.normalize import Statistics, statistics
from wamlab.data.processor import Processor, ProcessorConfig
from wamlab.data.space import common_space
from wamlab.data.window import Windows
from wamlab.types import Batch, Episode, Stream, Window

CONFIG = ProcessorConfig(("corner",), SIZE, STATE, rate_hz=20, embodiment="point")
WINDOW = Window({"image/corner": (0, 2), "state": (0,), "action": (0, 1, 2)})


class Encoder:
    """A sentence of n words becomes n tokens that hold the words' lengths."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, sentences: list[str]) -> tuple[Any, Any, Any]:
        self.asked += sentences
        words = [[float(len(word)) for word in sentence.split()] for sentence in sentences]
        longest = max(map(len, words))
        tokens, mask = (
            np.zeros((len(words), longest, 2), np.float32),
            np.zeros((len(words), longest)),
        )
        for row, lengths in enumerate(words):
            tokens[row, : len(lengths), 0], mask[row, : len(lengths)] = lengths, 1
        return tokens.sum(axis=1), tokens, mask.astype(bool)


@pytest.fixture
def cache(written: tuple[Path, list[Episode]]) -> Cache:
    folder = written[0].parent / "cache"
    return Cache.open(written[0], views=("corner",), image_size=SIZE, folder=folder, progress=False)


@pytest.fixture
def processor(cache: Cache) -> Processor:
    return Processor(CONFIG, SPACE, statistics([cache]), encoder=Encoder())


@pytest.fixture
def batch(cache: Cache) -> Batch:
    windows = Windows(cache, WINDOW)
    return windows.batch(np.arange(len(windows)))


def test_statistics_are_those_of_what_was_measured(
    cache: Cache, written: tuple[Path, list[Episode]]
) -> None:
    found = statistics([cache])
    actions = np.concatenate([episode.action for episode in written[1]])
    assert found["action"].count == len(actions)
    np.testing.assert_allclose(found["action"].mean, actions.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found["action"].q99, np.quantile(actions, 0.99, axis=0), atol=1e-6)
    assert found["state"].count == 13 + 10 + 16
    assert Statistics.from_json(found["state"].to_json()).to_json() == found["state"].to_json()
    with pytest.raises(ValueError, match="finite"):
        Statistics.of(np.array([[np.nan]]))


def test_what_training_may_not_see_is_not_measured(
    cache: Cache, written: tuple[Path, list[Episode]]
) -> None:
    found = statistics([cache], [{"state": {1}, "action": {0, 1}}])
    assert found["state"].count == 13 + 16
    np.testing.assert_allclose(found["action"].mean, written[1][2].action.mean(axis=0), atol=1e-6)
    with pytest.raises(ValueError, match="no episode is left to measure action on"):
        statistics([cache], [{"action": {0, 1, 2}}])


def test_a_lower_rate_is_scaled_by_what_its_ticks_hold(
    cache: Cache, written: tuple[Path, list[Episode]]
) -> None:
    """Full deflection in every row is half the new bound in no tick: deltas reach twice as far."""
    full = np.ones_like(cache.columns["action"])
    full[np.isnan(cache.columns["action"])] = np.nan
    pushed = dataclasses.replace(cache, columns={**cache.columns, "action": full})
    space, found = common_space([pushed], 10.0), statistics([pushed], rate_hz=10.0)
    assert found["action"].max.tolist() == [2.0, 2.0, 1.0]
    assert found["action"].count == 11 + 8 + 14
    windows = Windows(pushed, dataclasses.replace(WINDOW, rate_hz=10.0))
    raw = windows.batch(np.arange(len(windows)))
    config = dataclasses.replace(CONFIG, rate_hz=10)
    seen = Processor(config, space, found, encoder=Encoder()).normalize(raw)
    assert (seen["action"].values[seen["action"].present] == 0).all()
    with pytest.raises(ValueError, match="a value outside"):
        Processor(config, SPACE, found, encoder=Encoder()).normalize(raw)

    moved = statistics([cache], [{"action": {1}}], rate_hz=10.0)["action"]
    ticks = [e.action[:-1, :2] + e.action[1:, :2] for e in (written[1][0], written[1][2])]
    np.testing.assert_allclose(moved.mean[:2], np.concatenate(ticks).mean(axis=0), atol=1e-6)


def test_quantiles_become_one_and_minus_one() -> None:
    values = np.linspace(0, 100, 10001)[:, None] * [1, 0, 0] + [0, 5, 0]
    values[0, 2] = -4
    processor = Processor(CONFIG, None, {"action": Statistics.of(values)})
    raw = torch.tensor([[1.0, 5.0, -4.0], [99.0, 5.0, 0.0], [50.0, 7.0, -2.0], [148, 5, 0]])
    expected = [[-1.0, 0.0, -1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [2.0, 0.0, 1.0]]
    torch.testing.assert_close(processor.normalize_action(raw), torch.tensor(expected))
    back = processor.denormalize_action(processor.normalize_action(raw))
    torch.testing.assert_close(back[:, [0, 2]], raw[:, [0, 2]])
    assert (back[:, 1] == 5).all()
    clipping = Processor(dataclasses.replace(CONFIG, clip_actions=True), None, processor.statistics)
    assert clipping.normalize_action(raw).abs().max() == 1


def test_what_goes_in_comes_out(processor: Processor, batch: Batch) -> None:
    seen = processor.normalize(batch)
    action, present = seen["action"].values, seen["action"].present
    raw = processor.denormalize_action(action)[present].numpy()
    np.testing.assert_allclose(raw, batch["action"].values[batch["action"].present], atol=1e-5)
    image = seen["image/corner"].values
    assert image.shape == (len(batch), 2, 3, SIZE, SIZE)
    back = ((image + 1) * 127.5).round().byte().numpy()
    np.testing.assert_array_equal(np.moveaxis(back, 2, -1), batch["image/corner"].values)
    assert -1 <= image.min() < image.max() <= 1
    scaled = seen["state"].values[..., 0]
    assert (scaled.abs() <= 1).float().mean() > 0.9


@pytest.mark.parametrize(
    ("name", "value"), [("action", np.nan), ("action", 3.0), ("state", np.inf)]
)
def test_a_bad_number_stops_here_with_its_row(
    processor: Processor, batch: Batch, name: str, value: float
) -> None:
    values = batch[name].values.copy()
    values[4, 0, 0] = value
    broken = dataclasses.replace(batch[name], values=values)
    spoiled = dataclasses.replace(batch, streams={**batch.streams, name: broken})
    with pytest.raises(ValueError, match=f"'{name}' has NaN.* in row 4"):
        processor.normalize(spoiled)


def test_absent_entries_may_hold_anything(processor: Processor, batch: Batch) -> None:
    clean = processor.normalize(batch)
    action = batch["action"]
    values = np.where(action.present[..., None], action.values, np.nan)
    poisoned = {**batch.streams, "action": Stream(values, action.offsets, action.present)}
    seen = processor.normalize(dataclasses.replace(batch, streams=poisoned))
    assert not action.present.all()
    assert torch.equal(
        seen["action"].values[seen["action"].present],
        clean["action"].values[seen["action"].present],
    )


def test_sentences_are_encoded_once_and_padded(processor: Processor, batch: Batch) -> None:
    seen = processor.normalize(batch)
    encoder = processor.encoder
    assert isinstance(encoder, Encoder)
    assert sorted(encoder.asked) == ["pull the point", "push the point"]
    processor.learn_sentences(["go", "push the point"])
    assert encoder.asked[2:] == ["go"]
    batch.text.sentences[0] = "go"
    mixed = processor.normalize(batch).text
    assert mixed.mask is not None
    assert mixed.mask[:2].tolist() == [[True, False, False], [True, True, True]]
    assert mixed.tokens is not None
    assert mixed.tokens[0, :, 0].tolist() == [2, 0, 0]
    assert seen.text.pooled is not None
    assert seen.text.pooled[0].tolist() == [12, 0]


def test_a_new_sentence_without_an_encoder_is_refused(processor: Processor) -> None:
    processor.learn_sentences(["push the point"])
    processor.encoder = None
    with pytest.raises(ValueError, match="did you mean 'push the point'"):
        processor.learn_sentences(["push a point"])


def observation(**changes: Any) -> dict[str, Any]:
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    return {"image/corner": image, "state": np.zeros(3), "instruction": "go"} | changes


def test_observations_become_a_batch_at_now(processor: Processor) -> None:
    batch = processor.to_batch([observation(), observation(state=np.ones(3))])
    assert batch["image/corner"].values.shape == (2, 1, SIZE, SIZE, 3)
    assert batch["state"].values[1, 0].tolist() == [1, 1, 1]
    assert batch["state"].offsets.tolist() == [[0], [0]]
    assert batch.text.sentences == ["go", "go"]
    assert processor.normalize(batch)["image/corner"].values.eq(-1).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image/corner": np.zeros((64, 64, 3), np.uint8)}, r"\(64, 64, 3\), expected uint8 \(32"),
        ({"image/corner": np.zeros((32, 32, 3), np.float32)}, "float32"),
        ({"state": np.zeros(5)}, r"shape \(5,\), expected \(3,\)"),
        ({"state": np.full(3, np.nan)}, "NaN"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(
    processor: Processor, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        processor.to_batch([observation(), observation(**changes)])


def test_a_missing_view_is_named(processor: Processor) -> None:
    wrong = observation()
    wrong["image/corner2"] = wrong.pop("image/corner")
    with pytest.raises(ValueError, match=r"no 'image/corner'; did you mean 'image/corner2'"):
        processor.to_batch([wrong])


def test_save_and_load_are_equal(processor: Processor, batch: Batch, tmp_path: Path) -> None:
    before = processor.normalize(batch)
    processor.save(tmp_path)
    loaded = Processor.load(tmp_path)
    assert (loaded.config, loaded.space) == (CONFIG, SPACE)
    after = loaded.normalize(batch)
    for name in batch.streams:
        torch.testing.assert_close(
            after[name].values, before[name].values, rtol=0, atol=0, equal_nan=True
        )
    assert before.text.tokens is not None
    assert after.text.tokens is not None
    assert torch.equal(after.text.tokens, before.text.tokens)
    (tmp_path / "processor.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        Processor.load(tmp_path)


def test_a_full_disk_is_an_error_of_the_system(processor: Processor, tmp_path: Path) -> None:
    """Whoever saves catches OSError; another library's error would pass it by."""
    processor.sentences["push"] = torch.ones(384), torch.ones(4, 384)
    folder = tmp_path / "checkpoint"
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
        try:
            processor.save(folder)
        except OSError as error:
            os._exit(error.errno or 0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EFBIG
    assert list(folder.iterdir()) == []
