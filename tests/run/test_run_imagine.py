from __future__ import annotations

import av
import numpy as np
import point_env
import pytest
from PIL import Image
from point_model import Foreseeing, PointModel, Reactive, policy_of

from wamlab.metrics.joint import UNCHANGED
from wamlab.models.base import Refusal
from wamlab.run.imagine import GAP, LABEL_HEIGHT, imagine, panels


def run(model, out, **options):
    return imagine(policy_of(model), "point/push", out, make=point_env.make, **options)


def test_gif_shows_now_and_every_offset(tmp_path):
    probe = run(PointModel(), tmp_path / "one.gif", scale=3)
    with Image.open(tmp_path / "one.gif") as gif:
        assert gif.n_frames == 3
        assert gif.size == (2 * 48 + GAP, 2 * (48 + LABEL_HEIGHT) + GAP)
    assert [branch.label for branch in probe.branches] == ["sample 0", UNCHANGED]


def test_of_a_model_that_only_foresees_the_experts_actions_are_shown(tmp_path):
    (branch,) = run(Foreseeing(), tmp_path / "one.gif").branches
    assert (branch.kind, branch.label) == ("imposed", UNCHANGED)
    assert (tmp_path / "one.gif").exists()


def test_imagined_lies_above_executed(tmp_path):
    probe = run(PointModel(), tmp_path / "one.gif", scale=1)
    branch = probe.branches[0]
    sheet = panels(probe, branch, scale=1)[2]
    below = 16 + LABEL_HEIGHT + GAP
    left = 16 + GAP
    top = slice(LABEL_HEIGHT, LABEL_HEIGHT + 16)
    np.testing.assert_array_equal(sheet[top, :16], branch.imagined["top"][1])
    np.testing.assert_array_equal(sheet[top, left : left + 16], branch.imagined["side"][1])
    bottom = slice(below + LABEL_HEIGHT, below + LABEL_HEIGHT + 16)
    np.testing.assert_array_equal(sheet[bottom, :16], branch.happened["top"][1])


def test_mp4_holds_the_same_pictures(tmp_path):
    run(PointModel(), tmp_path / "deep" / "one.mp4", scale=5)
    with av.open(str(tmp_path / "deep" / "one.mp4")) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == 3


def test_what_cannot_be_shown_is_refused(tmp_path):
    with pytest.raises(Refusal, match="point_reactive has nothing to show: not a joint sample"):
        run(Reactive(), tmp_path / "one.gif")
    with pytest.raises(ValueError, match="expected one of"):
        run(PointModel(), tmp_path / "one.webm")
