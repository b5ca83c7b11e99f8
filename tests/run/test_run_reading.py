from __future__ import annotations

from dataclasses import replace

import numpy as np
import point_env
import pytest
from point_judge import Attached, judge_of
from point_model import Foreseeing, Latent, PointModel, Reactive, policy_of

from wamlab.data.logs import (
    LogError,
    load_probes,
    load_reader_errors,
    save_reader_errors,
    save_rivals,
    write_json,
)
from wamlab.metrics.base import compute
from wamlab.metrics.joint import SEQUENCES
from wamlab.metrics.joint_states import imposed_paths
from wamlab.policy.raw import codec_of
from wamlab.report.build import build
from wamlab.report.whatif import NAME
from wamlab.run.probe import probe
from wamlab.run.reader import fit, load_reader, look
from wamlab.run.reading import (
    imagined_views,
    judge_probes,
    judged,
    read,
    read_probes_of,
    reader_of,
    state_reading,
)
from wamlab.types import Future


def quick(acting, seeing, through, codec):
    seen = look(acting, seeing, starts=12, shots=4, progress=False)
    return fit(acting.name, seen, through=through, codec=codec, steps=12, progress=False)


class Coarse(PointModel, name="point_coarse"):
    """Its codec keeps one bit of a pixel."""

    def encode(self, frames, offsets):
        return Future("bits", "bits", {name: x.sign() for name, x in frames.items()}, offsets)


def probed(model, tmp_path):
    policy = policy_of(model)
    probe(policy, "point/push", 3, 2, out=tmp_path, make=point_env.make, progress=False)
    return policy


def reading(policy, tmp_path, **options):
    options = {"make": point_env.make, "train": quick, "progress": False, **options}
    return read_probes_of(policy, tmp_path, tmp_path / "readers", **options)


def test_every_branch_that_shows_frames_is_read_and_logged(tmp_path):
    policy = probed(PointModel(), tmp_path)
    found = reading(policy, tmp_path)
    for one, again in zip(found, load_probes(tmp_path), strict=True):
        assert one.reader == again.reader
        assert one.reader.startswith("point/push, pixels, ")
        for branch in again.of("own") + again.of("imposed"):
            assert set(branch.read.places) == set(branch.reread.places) == {"robot", "block"}
            assert branch.read.places["block"].shape == (2, 3)
            assert branch.reread.success.shape == (2,)
        for branch in again.of("world") + again.of("reference"):
            assert branch.read is branch.reread is None
    assert compute("state_error", found, entity="object").value > 0


def test_the_reading_is_of_what_was_imagined_and_of_what_happened(tmp_path):
    policy = probed(PointModel(), tmp_path)
    reader = reader_of("point/push", ("top", "side"), policy, tmp_path, point_env.make, quick)
    one = load_probes(tmp_path)[0]
    branch = read(one, reader).of("own")[0]
    shown, real = reader.read(branch.imagined), reader.read(branch.happened)
    np.testing.assert_array_equal(branch.read.places["robot"], shown.places["robot"])
    np.testing.assert_array_equal(branch.reread.places["robot"], real.places["robot"])


def test_how_exact_the_reader_is_on_unseen_starts_is_logged_beside_the_probes(tmp_path):
    policy = probed(PointModel(), tmp_path)
    assert load_reader_errors(tmp_path) == {}
    save_reader_errors(tmp_path, {"of another environment": {"robot": 0.5}})
    title = reading(policy, tmp_path)[0].reader
    reader = load_reader(next((tmp_path / "readers").iterdir()))
    known = load_reader_errors(tmp_path)
    assert known == {"of another environment": {"robot": 0.5}, title: reader.error}
    assert set(known[title]) == {"robot", "block", "success", "state"}
    write_json(tmp_path / "readers.json", {title: 0.5})
    with pytest.raises(LogError, match="errors of each reader"):
        load_reader_errors(tmp_path)


def test_what_a_model_that_only_foresees_imagines_is_read_and_reported(tmp_path):
    policy = probed(Foreseeing(), tmp_path)
    found = reading(policy, tmp_path)
    assert all(branch.read and branch.reread for one in found for branch in one.of("imposed"))
    assert judge_probes(judge_of(), tmp_path, progress=False)[0].of("own") == []
    assert imposed_paths(found).imagined.shape[:2] == (3, len(SEQUENCES))
    page = build(tmp_path).read_text(encoding="utf-8")
    assert "the probes hold no branch of the model" in page
    assert (tmp_path / NAME).read_text(encoding="utf-8").count('"label":"unchanged"') == 3


def test_the_nearest_clip_is_read_once_it_is_there(tmp_path):
    policy = probed(PointModel(), tmp_path)
    first = reading(policy, tmp_path)
    assert all(one.retrieved is None for one in first)
    for one in first:
        ahead = {view: np.repeat(frame, 2, axis=0) for view, frame in one.now.items()}
        save_rivals(tmp_path, one, {"nearest clip": ahead, "last frame": ahead})
    again = reading(policy, tmp_path)
    path = next((tmp_path / "readers").iterdir())
    for one, logged in zip(again, load_probes(tmp_path), strict=True):
        expected = load_reader(path).read({v: np.repeat(f, 2, axis=0) for v, f in one.now.items()})
        for entity, places in expected.places.items():
            np.testing.assert_array_equal(logged.retrieved.places[entity], places)


def test_a_reader_is_trained_once_and_probes_are_read_once(tmp_path):
    calls = []

    def counted(*args):
        calls.append(args[-1])
        return quick(*args)

    policy = probed(PointModel(), tmp_path)
    reading(policy, tmp_path, train=counted)
    assert calls == ["pixels"]
    assert [path.name for path in (tmp_path / "readers").iterdir()] == [
        "point__push-top-side-pixels.safetensors"
    ]
    before = reading(policy, tmp_path, train=None)[0]
    next((tmp_path / "readers").iterdir()).unlink()
    after = reading(policy, tmp_path, train=lambda *args: fit_again(quick(*args)))[0]
    assert before.reader != after.reader == load_probes(tmp_path)[0].reader


def fit_again(reader):
    reader.head[-1].bias.data += 1
    return reader


def test_the_state_of_what_is_imagined_is_read_by_the_reader_of_its_environment(tmp_path):
    policy, calls = policy_of(PointModel()), []

    def counted(*args):
        calls.append(args[0].name)
        return quick(*args)

    state = state_reading(policy, ("top", "side"), tmp_path, point_env.make, counted)
    env = point_env.make("point/push")
    frames = {view: env.render_view(view) for view in env.views}
    found = state("point/push", frames)
    assert found.shape == (4,)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(state("point/push", frames), found)
    assert calls == ["point/push"]


def test_what_happened_is_read_through_the_codec(tmp_path):
    policy = probed(Coarse(), tmp_path)
    frames = {
        "top": np.full((1, 16, 16, 3), 200, np.uint8),
        "side": np.zeros((1, 16, 16, 3), np.uint8),
    }
    coarse = codec_of(policy)(frames)
    assert (coarse["top"] == 255).all()
    assert (coarse["side"] == 0).all()
    found = reading(policy, tmp_path)
    assert found[0].reader.startswith(f"point/push, codec of {policy.digest[:12]}, ")
    one = found[0].of("own")[0]
    for view in frames:
        np.testing.assert_array_equal(one.recoded[view], codec_of(policy)(one.happened)[view])
    assert all(branch.recoded is None for branch in found[0].of("imposed"))
    path = next((tmp_path / "readers").iterdir())
    expected = load_reader(path).read(codec_of(policy)(one.happened))
    np.testing.assert_array_equal(one.reread.places["block"], expected.places["block"])


def test_models_that_take_or_show_no_frames(tmp_path):
    class Blank(PointModel, name="point_blank"):
        def encode(self, frames, offsets):
            return super(PointModel, self).encode(frames, offsets)

    frames = {"top": np.full((1, 16, 16, 3), 7, np.uint8)}
    assert codec_of(policy_of(Blank()))(frames) is frames
    assert codec_of(object())(frames) is frames
    for model, folder in ((Latent(), "latent"), (Reactive(), "reactive")):
        policy = probed(model, tmp_path / folder)
        found = reading(policy, tmp_path / folder, train=None)
        assert imagined_views(found[0]) == ()
        assert {one.reader for one in found} == {""}
        assert compute("state_eic", found).why_not


@pytest.mark.parametrize("views", [("top",), ("side",)])
def test_a_reader_sees_the_views_that_are_imagined(views, tmp_path):
    policy = policy_of(PointModel())
    reader = reader_of("point/push", views, policy, tmp_path, point_env.make, quick)
    assert reader.views == views


def test_a_judge_reads_the_actions_off_every_own_branch_and_it_is_logged(tmp_path):
    """The model imagines that nothing moves: there is nothing of its action in that."""
    probed(PointModel(), tmp_path)
    judge = judge_of()
    found = judge_probes(judge, tmp_path, progress=False)
    for one, again in zip(found, load_probes(tmp_path), strict=True):
        assert one.judge == again.judge == judge.title
        for branch in again.of("own"):
            assert branch.decoded.shape == branch.redecoded.shape == (8, 4)
            window = {v: np.concatenate([again.now[v], branch.happened[v]]) for v in again.now}
            np.testing.assert_array_equal(branch.redecoded, judge.extract([window], [""])[0][0])
        assert all(branch.decoded is None for branch in again.of("imposed"))
    still = compute("icc", [*found, *(replace(one, seed=-one.seed) for one in found)])
    assert still.value == pytest.approx(0, abs=1e-6)
    assert still.details["ceiling_interval"].low > 0
    assert "cannot tell in 3 states" in compute("icc", found).why_not


def test_probes_are_judged_once_and_by_one_judge(tmp_path):
    probed(PointModel(), tmp_path)
    judge = judge_of()
    judge_probes(judge, tmp_path, progress=False)
    before = len(judge.policy.model.seen)
    judge_probes(judge, tmp_path, progress=False)
    assert len(judge.policy.model.seen) == before
    with pytest.raises(ValueError, match=r"was judged by point_reading .*, not by point_attached"):
        judge_probes(judge_of(Attached()), tmp_path, progress=False)


def test_probes_that_show_less_than_the_judge_looks_at_are_refused(tmp_path):
    probed(PointModel(), tmp_path)
    one = load_probes(tmp_path)[0]
    for branch in one.of("own"):
        branch.offsets = np.array([2, 8])
    with pytest.raises(ValueError, match=r"looks at \(4, 8\), the probes show \(2, 8\): \[4\]"):
        judged(one, judge_of())
    two = load_probes(tmp_path)[0]
    for branch in two.of("own"):
        del branch.imagined["top"]
    with pytest.raises(ValueError, match="looks at the view 'top', the probes show"):
        judged(two, judge_of())
