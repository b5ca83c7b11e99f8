from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_system import VIEW, TinyBatches, TinyProcessor

from wamlab.train.augment import random_shift, shift_images
from wamlab.types import ACTION, Stream


def normalized(rows: int = 6):
    batch = TinyProcessor().normalize(TinyBatches(rows).batch(0, "joint").to("cpu"))
    batch.streams["image/gripper"] = batch.streams[VIEW]
    return batch


def test_shift_moves_pixels_and_repeats_the_edge():
    image = torch.arange(12.0).reshape(1, 1, 1, 3, 4)
    moved = shift_images(image, torch.tensor([[1, -2]]))
    expected = np.array([[4, 4, 4, 5], [8, 8, 8, 9], [8, 8, 8, 9]])
    assert moved[0, 0, 0].tolist() == expected.tolist()


def test_one_shift_for_all_instants_of_a_row_and_view():
    batch = normalized()
    image = batch[VIEW].values
    image[:, 1] = image[:, 0]
    shifted = random_shift(batch, 3, torch.Generator().manual_seed(1))
    moved = shifted[VIEW].values
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert not torch.equal(moved, image)
    assert not torch.equal(moved, shifted["image/gripper"].values)
    shifts = [
        [d for d in _all_shifts(3) if torch.equal(shift_images(image[r : r + 1], d), m[None])]
        for r, m in enumerate(moved)
    ]
    assert all(len(found) == 1 for found in shifts)
    assert len({tuple(found[0][0].tolist()) for found in shifts}) > 1


def _all_shifts(pixels: int) -> list[torch.Tensor]:
    span = range(-pixels, pixels + 1)
    return [torch.tensor([[y, x]]) for y in span for x in span]


def test_the_same_generator_gives_the_same_shift_and_the_input_is_left_alone():
    batch = normalized()
    before = batch[VIEW].values.clone()
    one = random_shift(batch, 2, torch.Generator().manual_seed(5))
    two = random_shift(batch, 2, torch.Generator().manual_seed(5))
    assert torch.equal(one[VIEW].values, two[VIEW].values)
    assert torch.equal(batch[VIEW].values, before)
    assert one[ACTION] is batch[ACTION]


def test_absent_frames_do_not_leak_into_present_ones():
    batch = normalized()
    values = batch[VIEW].values.clone()
    values[:, 1] = float("nan")
    batch.streams[VIEW] = Stream(values, batch[VIEW].offsets, batch[VIEW].present)
    moved = random_shift(batch, 3, torch.Generator().manual_seed(1))[VIEW].values
    assert moved[:, 0].isfinite().all()


def test_no_pixels_no_change_and_negative_is_refused():
    batch = normalized()
    assert random_shift(batch, 0, torch.Generator()) is batch
    with pytest.raises(ValueError, match="-1"):
        random_shift(batch, -1, torch.Generator())
