from __future__ import annotations

import json

import numpy as np
import point_env
import pytest
import torch
from safetensors.torch import save_file

from wamlab.run.reader import Instants, StateReader, _blurred, errors, fit, load_reader, look
from wamlab.types import Reading


@pytest.fixture(scope="module")
def seen() -> Instants:
    acting, seeing = point_env.make("point/push", views=()), point_env.make("point/push")
    return look(acting, seeing, starts=60, shots=6, progress=False)


@pytest.fixture(scope="module")
def reader(seen: Instants) -> StateReader:
    return fit("point/push", seen, steps=150, progress=False)


def test_it_looks_at_many_starts_and_knows_what_was_the_case(seen: Instants):
    assert seen.frames["top"].shape == seen.frames["side"].shape == (360, 16, 16, 3)
    assert {name: there.shape for name, there in seen.truth.places.items()} == {
        "robot": (360, 3),
        "block": (360, 3),
    }
    assert len(np.unique(seen.start)) == 60
    assert 0 < seen.truth.success.mean() < 1
    env = point_env.make("point/push")
    env.hand, env.block = seen.truth.places["robot"][7], seen.truth.places["block"][7]
    np.testing.assert_array_equal(env.render_view("top"), seen.frames["top"][7])


def test_in_half_of_the_instants_the_things_are_where_they_were_at_another_time(seen: Instants):
    """Whoever pushes the block of `point/push` far has followed it there."""
    hand, block = (seen.truth.places[name][:, 0] for name in ("robot", "block"))
    done = seen.truth.success.astype(bool)
    left_behind, ahead = hand < 0.3, block - hand
    assert not (done & left_behind)[::2].any()
    assert (done & left_behind)[1::2].mean() > 0.05
    gone_through = ahead < 0.1
    assert gone_through[::2].mean() < 0.5 * gone_through[1::2].mean()


def test_an_environment_that_cannot_do_so_is_refused():
    class Rigid(point_env.PointEnv):
        @property
        def put_things(self):
            raise AttributeError("it is drawn in one piece")

    acting = point_env.make("point/push", views=())
    with pytest.raises(ValueError, match="point/push cannot put its things elsewhere: it is drawn"):
        look(acting, Rigid(), starts=2, progress=False)


def test_it_reads_places_within_a_pixel_on_starts_that_it_never_saw(reader: StateReader):
    pixel = 1 / 16
    assert set(reader.error) == {"robot", "block", "success", "state"}
    assert reader.error["robot"] < pixel
    assert reader.error["block"] < pixel
    assert reader.error["success"] < 0.2
    assert reader.error["state"] < 1


def passing(across: tuple[float, ...], *, height: float, block: float) -> dict[str, np.ndarray]:
    """Frames in which the hand is ever further along x, at this height y, and the block stays."""
    env = point_env.make("point/push")
    env.reset(seed=7)
    env.block = np.array([0.4, block, 0.05])
    shots = []
    for place in across:
        env.hand = np.array([place, height, 0.05])
        shots.append({view: env.render_view(view) for view in env.views})
    return {view: np.stack([shot[view] for shot in shots]) for view in env.views}


def test_what_moves_in_the_frame_moves_in_the_reading(reader: StateReader):
    robot = reader.read(passing((0.1, 0.3), height=0.4, block=0.65)).places["robot"]
    assert robot[1, 0] - robot[0, 0] == pytest.approx(0.2, abs=0.1)


def test_what_stays_while_the_hand_moves_stays_in_the_reading(reader: StateReader):
    """The way of a push, over which an expert's block would go 0.25."""
    block = reader.read(passing((0.24, 0.49), height=0.42, block=0.5)).places["block"]
    assert abs(block[1, 0] - block[0, 0]) < 1 / 16


def test_the_state_is_read_in_the_units_of_the_environment(reader: StateReader, seen: Instants):
    """Of the point hand, whose state begins with its place."""
    read = reader.read(seen.frames)
    assert read.state.shape == seen.truth.state.shape == (360, 4)
    np.testing.assert_allclose(seen.truth.state[:, :3], seen.truth.places["robot"], atol=1e-6)
    away = np.abs(read.state[:, :2] - seen.truth.state[:, :2]).mean()
    assert away < 1 / 16


def test_it_learns_to_read_through_a_codec(seen: Instants):
    negative = lambda frames: {view: 255 - shots for view, shots in frames.items()}  # noqa: E731
    read = fit("point/push", seen, through=negative, codec="negative", steps=150, progress=False)
    mistaken = errors(read.read(seen.frames), seen.truth)
    assert read.codec == "negative"
    assert read.error["robot"] < 1 / 16
    assert read.error["robot"] < 0.5 * mistaken["robot"]


def test_errors_are_root_mean_squares():
    true = Reading({"robot": np.zeros((2, 3))}, np.array([0.0, 1.0]))
    read = Reading({"robot": np.array([[0.3, 0, 0.4], [0, 0, 0]])}, np.array([0.7, 0.9]))
    assert errors(read, true) == pytest.approx({"robot": 0.5 / np.sqrt(2), "success": 0.5})
    true.state, read.state = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 9.0], [3.0, 9.0]])
    assert errors(read, true)["state"] == pytest.approx(np.sqrt(0.5))


def test_every_other_frame_is_blurred_and_none_gets_brighter():
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((4, 3, 16, 16), 0.3)
    torch.testing.assert_close(_blurred(flat, generator), flat)
    spot = torch.zeros(4, 3, 16, 16)
    spot[:, :, 8, 8] = 1
    blurred = _blurred(spot, generator)
    assert torch.equal(blurred[1::2], spot[1::2])
    torch.testing.assert_close(blurred.sum(dim=(2, 3)), torch.ones(4, 3))
    assert (blurred[::2].amax(dim=(1, 2, 3)) < 1).all()


def test_a_saved_reader_reads_the_same(reader: StateReader, seen: Instants, tmp_path):
    again = load_reader(reader.save(tmp_path / "deep" / "point.safetensors"))
    few = {view: shots[:5] for view, shots in seen.frames.items()}
    np.testing.assert_array_equal(again.read(few).places["block"], reader.read(few).places["block"])
    assert (again.error, again.env, again.codec) == (reader.error, "point/push", "pixels")


def test_what_is_no_reader_is_refused(reader: StateReader, tmp_path):
    with pytest.raises(FileNotFoundError, match="no state reader at"):
        load_reader(tmp_path / "none.safetensors")
    path = reader.save(tmp_path / "one.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"one.safetensors is damaged or no state reader"):
        load_reader(path)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="schema None; this library reads 3"):
        load_reader(tmp_path / "other.safetensors")
    head = {"wamlab": json.dumps({"schema": 9})}
    save_file({"x": torch.zeros(1)}, tmp_path / "new.safetensors", head)
    with pytest.raises(ValueError, match="schema 9"):
        load_reader(tmp_path / "new.safetensors")


def test_frames_that_do_not_fit_are_refused(reader: StateReader, seen: Instants):
    few = {view: shots[:2] for view, shots in seen.frames.items()}
    with pytest.raises(KeyError, match="no view 'side' to read; did you mean 'sides'"):
        reader.read({"top": few["top"], "sides": few["side"]})
    with pytest.raises(ValueError, match=r"view 'top': expected frames \(T, 16, 16, 3\) uint8"):
        reader.read({**few, "top": few["top"][:, ::2]})
    with pytest.raises(ValueError, match="float64"):
        reader.read({**few, "top": few["top"] / 255.0})
    with pytest.raises(ValueError, match=r"different numbers of frames: \[1, 2\]"):
        reader.read({**few, "top": few["top"][:1]})
    with pytest.raises(ValueError, match="instants of 2 starts or more, got 1"):
        fit("point/push", seen.of(seen.start == seen.start[0]), progress=False)
