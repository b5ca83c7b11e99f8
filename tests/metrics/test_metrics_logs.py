"""Round trips of what metrics read: `wamlab.data.logs`."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pusher
import pytest

from wamlab.data import logs


def assert_same(first: Any, second: Any, where: str = "log") -> None:
    assert type(first) is type(second), where
    if dataclasses.is_dataclass(first):
        for field in dataclasses.fields(first):
            assert_same(getattr(first, field.name), getattr(second, field.name), field.name)
    elif isinstance(first, np.ndarray):
        assert first.dtype == second.dtype, where
        np.testing.assert_array_equal(first, second, err_msg=where)
    elif isinstance(first, dict):
        assert list(first) == list(second), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for i, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}.{i}")
    else:
        assert first == second, where


def test_an_episode_comes_back_with_every_field(tmp_path):
    episode = pusher.episode(3)
    path = logs.save_episode(tmp_path, episode)
    assert path == tmp_path / "episodes" / "toy__pusher" / "3.npz"
    (back,) = logs.load_episodes(tmp_path)
    assert_same(episode, back)
    assert back.replans[0].imagined is not None
    assert back.contacts == episode.contacts


def test_a_probe_comes_back_with_every_field(tmp_path):
    probe = pusher.probe(5)
    path = logs.save_probe(tmp_path, probe)
    assert path == tmp_path / "probes" / "toy__pusher" / "5-0.npz"
    (back,) = logs.load_probes(tmp_path)
    assert_same(probe, back)


def test_pictures_can_be_left_out_and_are_stored_small(tmp_path):
    episode = pusher.episode(3)
    path = logs.save_episode(tmp_path, episode)
    (bare,) = logs.load_episodes(tmp_path, frames=False)
    assert bare.frames == {}
    assert bare.replans[0].imagined == {}
    np.testing.assert_array_equal(bare.success, episode.success)
    assert path.stat().st_size < episode.frames["corner"].nbytes / 4


def test_rivals_lie_beside_their_probe_and_are_not_taken_for_one(tmp_path):
    probe = pusher.probe(5)
    frames = {"last frame": {"corner": np.repeat(probe.now["corner"], 2, axis=0)}}
    assert logs.load_rivals(tmp_path, probe) == {}
    logs.save_probe(tmp_path, probe)
    logs.save_rivals(tmp_path, probe, frames)
    assert_same(frames, logs.load_rivals(tmp_path, probe))
    assert len(logs.load_probes(tmp_path)) == 1


def test_logs_come_back_in_the_order_of_their_seeds(tmp_path):
    for seed in (10, 9, 2_000_001):
        logs.save_episode(tmp_path, dataclasses.replace(pusher.episode(3), seed=seed))
    assert [one.seed for one in logs.read_episodes(tmp_path, frames=False)] == [9, 10, 2_000_001]
    assert logs.load_episodes(tmp_path / "nothing") == []


def test_a_log_of_another_schema_or_kind_is_named(tmp_path):
    path = logs.save_episode(tmp_path, pusher.episode(3))
    with np.load(path) as stored:
        arrays = dict(stored)
    meta = json.loads(arrays["meta"].tobytes())
    for key, value, message in (("schema", 99, "schema 99"), ("kind", "Probe", "holds a Probe")):
        text = json.dumps({**meta, key: value}).encode()
        np.savez(path, **{**arrays, "meta": np.frombuffer(text, np.uint8)})
        with pytest.raises(logs.LogError, match=message):
            logs.load_episodes(tmp_path)
    np.savez(path, something=np.ones(3))
    with pytest.raises(logs.LogError, match="holds no 'meta'"):
        logs.load_episodes(tmp_path)


def test_a_field_that_this_version_lacks_is_named(tmp_path):
    path = logs.save_episode(tmp_path, pusher.episode(3))
    with np.load(path) as stored:
        arrays = dict(stored)
    text = arrays["meta"].tobytes().replace(b'"instruction"', b'"instructions"')
    np.savez(path, **{**arrays, "meta": np.frombuffer(text, np.uint8)})
    with pytest.raises(logs.LogError, match=r"3\.npz holds .* did you mean 'instruction'"):
        logs.load_episodes(tmp_path)


def test_a_log_that_lacks_a_field_or_its_description_is_named(tmp_path):
    path = logs.save_episode(tmp_path, pusher.episode(3))
    with np.load(path) as stored:
        arrays = dict(stored)
    meta = json.loads(arrays["meta"].tobytes())
    fields = {k: v for k, v in meta["tree"]["fields"].items() if k != "seed"}
    lacking = {**meta, "tree": {**meta["tree"], "fields": fields}}
    treeless = {k: v for k, v in meta.items() if k != "tree"}
    broken = {**meta, "tree": {"$is": "Episode"}}
    for content, message in (
        (lacking, r"3\.npz holds no 'seed' for Episode"),
        ([meta], r"3\.npz is no log of this library: its 'meta' describes none"),
        (treeless, "describes none"),
        (broken, r"3\.npz is truncated, damaged or no log: KeyError\('fields'\)"),
    ):
        meta_bytes = np.frombuffer(json.dumps(content).encode(), np.uint8)
        np.savez(path, **{**arrays, "meta": meta_bytes})
        with pytest.raises(logs.LogError, match=message):
            logs.load_episodes(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_log_is_named(tmp_path, share):
    path = logs.save_probe(tmp_path, pusher.probe(5))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(logs.LogError, match=r"5-0\.npz is truncated, damaged or no log"):
        logs.load_probes(tmp_path)


def test_a_flipped_bit_is_found_or_does_no_harm(tmp_path):
    """The time of an entry, say, stands in the file twice and is asked for by nobody."""
    probe = pusher.probe(5)
    path = logs.save_probe(tmp_path, probe)
    content, refused = path.read_bytes(), []
    places = range(len(content) // 120, len(content), len(content) // 60)
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 4
        path.write_bytes(flipped)
        try:
            assert_same(probe, logs.load_probes(tmp_path)[0])
        except logs.LogError as error:
            refused.append(str(error))
    assert len(refused) > 0.8 * len(places)
    assert all("truncated, damaged or no log" in said for said in refused)


def test_a_flipped_bit_of_the_directory_is_named_or_does_no_harm(tmp_path):
    """The directory at the end of a zip file has no checksum."""
    episode = pusher.episode(3)
    path = logs.save_episode(tmp_path, episode)
    content = path.read_bytes()
    refused = []
    for place in range(content.index(b"PK\x01\x02"), len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert_same(episode, logs.load_episodes(tmp_path)[0])
        except logs.LogError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all(said.startswith(str(path)) for said in refused)


def test_a_log_in_an_unknown_compression_or_with_a_password_is_named(tmp_path):
    path = logs.save_episode(tmp_path, pusher.episode(3))
    content = path.read_bytes()
    entry = content.index(b"PK\x01\x02")
    for place, bit in ((10, 2), (8, 1)):  # the method of compression, the flags
        flipped = bytearray(content)
        flipped[entry + place] ^= bit
        path.write_bytes(flipped)
        with pytest.raises(logs.LogError, match=r"3\.npz is truncated, damaged or no log"):
            logs.load_episodes(tmp_path)


def test_a_write_that_fails_leaves_the_old_log_and_no_litter(tmp_path):
    path = logs.write_json(tmp_path / "run.json", {"seed": 1})

    def explode(file: Any) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        logs.write_atomic(path, explode)
    assert logs.read_json(path) == {"seed": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_logged_is_refused(tmp_path):
    episode = pusher.episode(3)
    episode.columns["odd"] = np.array([object()])
    with pytest.raises(logs.LogError, match="columns/odd"):
        logs.save_episode(tmp_path, episode)
    with pytest.raises(logs.LogError, match="leading"):
        logs.save_episode(tmp_path, dataclasses.replace(pusher.episode(3), variant={"$is": 1.0}))
    with pytest.raises(logs.LogError, match="a set cannot be logged"):
        logs.save_episode(tmp_path, dataclasses.replace(pusher.episode(3), variant={"a": {1}}))


def test_losses_leave_out_a_line_that_was_cut_off_and_name_a_broken_one(tmp_path):
    path = tmp_path / "loss.jsonl"
    assert logs.load_losses(tmp_path) == []
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert logs.load_losses(tmp_path) == [{"step": 1, "loss": 2.0}]
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(logs.LogError, match="line 2 is not JSON"):
        logs.load_losses(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(logs.LogError, match=r"run\.json is not JSON"):
        logs.read_json(tmp_path / "run.json")
