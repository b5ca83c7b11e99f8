"""Permanence, shape and scene on hand-made frames and masks."""

from __future__ import annotations

import numpy as np
import pytest

from wamlab.metrics.base import NotApplicable, compute
from wamlab.metrics.physics_frames import iou, look_alikes, lost, scene_change, shape_change
from wamlab.types import Branch, Probe

SIZE, FRAMES = 48, 9
NOTHING = np.zeros((FRAMES, SIZE, SIZE), bool)
TABLE, RED, ARM = (0.5, 0.4, 0.3), (0.9, 0.1, 0.1), (0.1, 0.2, 0.8)


def disc(radius: float, x: float = 24, y: float = 24) -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def still(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[None], FRAMES, axis=0)


def passing() -> np.ndarray:
    """A hand that goes over the middle of the picture from left to right."""
    wide = [np.s_[:, max(0, 6 * t - 12) : 6 * t] for t in range(FRAMES)]
    masks = NOTHING.copy()
    for t, where in enumerate(wide):
        masks[t][where] = True
    return masks


def painted(thing: np.ndarray, arm: np.ndarray) -> np.ndarray:
    frames = np.empty((*thing.shape, 3))
    frames[:] = TABLE
    frames[thing], frames[arm] = RED, ARM
    return frames


def test_what_is_there_is_not_lost() -> None:
    assert lost(still(disc(5)), NOTHING) == 0
    assert lost(np.stack([disc(5, 15 + 2 * t) for t in range(FRAMES)]), NOTHING) == 0


def test_what_vanishes_is_lost_until_it_returns() -> None:
    seen = still(disc(5))
    seen[3:6] = False
    assert lost(seen, NOTHING) == pytest.approx(3 / 8)
    seen[3:] = False
    assert lost(seen, NOTHING) == pytest.approx(6 / 8)
    seen[1:] = False
    assert lost(seen, NOTHING) == 1


def test_what_is_covered_is_hidden_also_where_it_goes_on_unseen() -> None:
    hand = passing()
    seen = still(disc(5)) & ~hand
    assert (seen.sum(axis=(1, 2)) == 0).any()
    assert lost(seen, hand) == 0
    carried = seen.copy()
    carried[6:] = False  # it does not come out behind the hand: carried along
    assert lost(carried, hand) == 0


def test_what_leaves_the_picture_or_is_a_speck_is_not_missed() -> None:
    leaving = np.stack([disc(5, 40 + 3 * t) for t in range(FRAMES)])
    assert lost(leaving, NOTHING) == 0
    speck = still(disc(0.5))
    speck[4:] = False
    assert lost(speck, NOTHING) == 0


def test_a_scaled_disc_has_lost_what_its_area_says() -> None:
    shrunk = still(disc(12))
    shrunk[4:] = disc(6)
    expected = 1 - disc(6).sum() / disc(12).sum()
    assert expected == pytest.approx(0.75, abs=0.02)
    assert shape_change(shrunk, NOTHING) == pytest.approx(expected)
    assert shape_change(shrunk[::-1], NOTHING) == pytest.approx(expected)


def test_moving_or_being_covered_changes_no_shape() -> None:
    moved = np.stack([disc(6, 12 + 3 * t, 20 + t) for t in range(FRAMES)])
    assert shape_change(moved, NOTHING) == 0
    hand = passing()
    assert shape_change(still(disc(6)) & ~hand, hand) < 0.15
    assert shape_change(still(disc(6)) & ~hand, NOTHING) > 0.5


def test_one_bad_frame_changes_no_shape() -> None:
    once = still(disc(6))
    once[4] = disc(3)
    assert shape_change(once, NOTHING) == 0


def test_the_background_stays_or_does_not() -> None:
    frames = painted(np.stack([disc(4, 12 + 2 * t) for t in range(FRAMES)]), NOTHING)
    behind = ~np.logical_or.reduce([disc(4, 12 + 2 * t) for t in range(FRAMES)])
    assert scene_change(frames, behind) == 0
    frames[5] = np.clip(frames[5] + 0.1, 0, 1)
    assert scene_change(frames, behind) == pytest.approx(0.1)
    assert scene_change((frames * 255).astype(np.uint8), behind) == pytest.approx(0.1, abs=0.003)


def test_a_thing_is_followed_by_its_colours() -> None:
    truth, arm = np.stack([disc(4, 16 + 2 * t) for t in range(FRAMES)]), still(disc(6, 20, 40))
    frames = painted(truth, arm)
    frames[:, 2:4, 44:46] = RED  # as red, and far away
    seen = look_alikes(frames, {"puck": truth[0], "robot": arm[0]})
    assert iou(seen["puck"], truth) == 1
    assert iou(seen["robot"], arm) == 1
    frames[4:] = painted(NOTHING[4:], arm[4:])
    assert lost(look_alikes(frames, {"puck": truth[0]})["puck"], NOTHING) == pytest.approx(5 / 8)


def test_colours_that_tell_nothing_are_said_to() -> None:
    frames = painted(NOTHING, NOTHING)
    with pytest.raises(NotApplicable, match="do not tell 'puck'"):
        look_alikes(frames, {"puck": disc(2)})


def probe(imagined: np.ndarray, happened: np.ndarray, puck: np.ndarray, arm: np.ndarray) -> Probe:
    """A state whose first frame is now; the others of ``imagined`` and ``happened`` lie ahead."""
    masks = {"corner/puck": puck, "corner/robot": arm}
    branch = Branch(
        "own", "own 0", np.zeros((8, 4), np.float32), np.arange(1, len(imagined)),
        {"corner": happened[1:]}, {"corner": imagined[1:]},
        masks={name: mask[1:] for name, mask in masks.items()},
    )  # fmt: skip
    return Probe(
        "a", "", 1, 2, {"corner": happened[:1]}, np.zeros(4), [branch],
        masks={name: mask[:1] for name, mask in masks.items()},
    )  # fmt: skip


def test_metrics_of_probes_read_imagined_pixels() -> None:
    puck, arm = still(disc(4)), still(disc(6, 20, 40))
    real = painted(puck, arm)
    good = probe(real, real, puck, arm)
    assert compute("object_permanence", [good]).value == 0
    assert compute("scene_change", [good]).value == 0
    gone = real.copy()
    gone[5:] = painted(NOTHING, arm)[5:]
    vanished = compute("object_permanence", [probe(gone, real, puck, arm)])
    assert vanished.value == pytest.approx(4 / 8)  # of the imagined frames: now is none of them
    assert vanished.floor == compute("object_permanence", [good]).floor == 0
    gone[1:] = painted(NOTHING, arm)[1:]
    assert compute("object_permanence", [probe(gone, real, puck, arm)]).value == 1
    assert compute("scene_change", [probe(real * 0.9, real, puck, arm)]).value > 0.02
    assert "is not seen now" in compute("object_permanence", [good], entity="pack").why_not


def test_an_imagined_thing_that_shrinks_changes_its_shape() -> None:
    """Half the diameter is a quarter of the disc; what happened kept it whole."""
    puck, arm = still(disc(8)), still(disc(6, 20, 40))
    real = painted(puck, arm)
    small = painted(np.stack([disc(8), *[disc(4)] * (len(puck) - 1)]), arm)
    shrunk = compute("shape_constancy", [probe(small, real, puck, arm)])
    assert shrunk.value == pytest.approx(0.75, abs=0.05)
    assert shrunk.floor == compute("shape_constancy", [probe(real, real, puck, arm)]).value == 0
    assert "no thing is seen now" in compute("shape_constancy", [bare(real, puck, arm)]).why_not


def bare(real: np.ndarray, puck: np.ndarray, arm: np.ndarray) -> Probe:
    one = probe(real, real, puck, arm)
    one.masks, one.branches[0].masks = {}, {}
    return one


def test_imagined_frames_with_nan_are_refused_by_name() -> None:
    puck, arm = still(disc(4)), still(disc(6, 20, 40))
    real = painted(puck, arm)
    bad = real.copy()
    bad[3, 2, 1] = np.nan
    for name in ("object_permanence", "scene_change", "motion_agreement"):
        said = "^a/1-2: imagined frames of view 'corner' hold NaN or infinity$"
        with pytest.raises(ValueError, match=said):
            compute(name, [probe(bad, real, puck, arm)])


def test_why_probes_have_no_answer() -> None:
    puck, arm = still(disc(4)), still(disc(6, 20, 40))
    real = painted(puck, arm)
    one = probe(real, real, puck, arm)
    one.masks, one.branches[0].masks = {}, {}
    assert "no masks" in compute("scene_change", [one]).why_not
    assert "no thing is seen now" in compute("object_permanence", [one]).why_not
    one.branches[0].imagined = None
    one.branches[0].why_not = "tokens cannot be shown"
    assert "tokens cannot be shown" in compute("scene_change", [one]).why_not


@pytest.mark.usefixtures("as_shipped")
def test_bad_frames_and_masks_are_refused() -> None:
    frames = painted(NOTHING, NOTHING)
    everywhere = np.ones((SIZE, SIZE), bool)
    with pytest.raises(NotApplicable, match="at least 2 frames"):
        scene_change(frames[:1], everywhere)
    with pytest.raises(NotApplicable, match="no background"):
        scene_change(frames, ~everywhere)
    with pytest.raises(ValueError, match="background has shape"):
        scene_change(frames, everywhere[1:])
    frames[2, 3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        scene_change(frames, everywhere)
    with pytest.raises(ValueError, match="NaN or infinity"):
        look_alikes(frames, {"puck": disc(3)})
    with pytest.raises(NotApplicable, match="not seen in the first frame"):
        lost(NOTHING, NOTHING)
    with pytest.raises(NotApplicable, match="at least 2 frames"):
        shape_change(NOTHING[:1], NOTHING[:1])
    with pytest.raises(NotApplicable, match="seen whole in 2 frames"):
        shape_change(still(disc(4))[:2], NOTHING[:2])
    with pytest.raises(ValueError, match="beside those in front"):
        lost(NOTHING, NOTHING[:3])


@pytest.mark.usefixtures("as_shipped")
def test_a_single_frame_is_no_video() -> None:
    with pytest.raises(ValueError, match=r"expected frames \(T, H, W, 3\)"):
        scene_change(np.zeros((SIZE, SIZE, 3)), np.ones((SIZE, SIZE), bool))
