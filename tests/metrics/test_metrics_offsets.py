"""Comparing at shared offsets: what is cut, and that identical imaginations stay identical."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pusher
import pytest
import recorded

from wamlab.metrics.base import compute, state_name
from wamlab.metrics.joint import ROBOT
from wamlab.metrics.offsets import (
    at_offsets,
    guessed_alike,
    imagined_offsets,
    rivals_at,
    shared,
)
from wamlab.types import Reading


def test_only_what_all_hold_is_shared() -> None:
    assert shared([(4, 8, 12, 16), np.array([16, 8])]) == (8, 16)
    assert shared([(4, 12), (8, 16)]) == ()
    assert shared([]) == ()


def test_a_probe_is_cut_whole() -> None:
    """Frames, masks, poses' instants and what a reader saw stay together."""
    (probe,) = pusher.probes("oracle", 1)
    native = imagined_offsets([probe])
    rows = np.arange(len(native), dtype=float)
    read = Reading({ROBOT: np.stack([rows] * 3, axis=1)}, rows, rows[:, None])
    probe.branches = [replace(one, read=read, reread=read) for one in probe.branches]
    probe.retrieved = read
    (cut,) = at_offsets([probe], native[-1:])
    assert imagined_offsets([cut]) == native[-1:]
    for before, after in zip(probe.branches, cut.branches, strict=True):
        assert after.offsets.tolist() == [native[-1]]
        for view, frames in before.happened.items():
            np.testing.assert_array_equal(after.happened[view], frames[-1:])
            if before.imagined:
                np.testing.assert_array_equal(after.imagined[view], before.imagined[view][-1:])
        for name, mask in before.masks.items():
            np.testing.assert_array_equal(after.masks[name], mask[-1:])
        assert after.entities is before.entities
        assert after.read.success.tolist() == after.reread.state[:, 0].tolist() == [rows[-1]]
    assert cut.retrieved.places[ROBOT].tolist() == [[rows[-1]] * 3]
    whole = {state_name(probe): {"last frame": probe.branches[0].happened}}
    shown = rivals_at(whole, [probe], native[-1:])[state_name(probe)]["last frame"]
    assert {len(frames) for frames in shown.values()} == {1}


def test_an_offset_that_was_not_looked_at_is_named() -> None:
    with pytest.raises(ValueError, match=r"0-.*was looked at at the offsets .*expected \[7, 99\]"):
        at_offsets(pusher.probes("oracle", 1), (7, 99))


def test_at_one_offset_stands_what_stood_of_it_beside_the_others() -> None:
    probes = pusher.probes("blind", 4)
    whole = compute("moving_psnr", probes)
    for offset in imagined_offsets(probes):
        alone = compute("moving_psnr", at_offsets(probes, (offset,)))
        assert alone.value == pytest.approx(whole.parts[f"corner@{offset}"].value)


def test_guesses_are_cut_to_what_all_runs_guess() -> None:
    short, long = recorded.recordings(2), recorded.recordings(2)
    for one in short:
        guess = one.guesses["FORWARD"]
        guess.imagined = {view: shown[1:] for view, shown in guess.imagined.items()}
        guess.offsets = guess.offsets[1:]
        one.guesses["POLICY"].action = one.guesses["POLICY"].action[:3]
    cut = guessed_alike({"short": short, "long": long})
    for one in [*cut["short"], *cut["long"]]:
        assert one.guesses["FORWARD"].offsets.tolist() == recorded.OFFSETS[1:].tolist()
        assert len(one.guesses["FORWARD"].imagined["corner"]) == 1
        assert len(one.guesses["POLICY"].action) == 3
    assert len(long[0].guesses["POLICY"].action) > 3
