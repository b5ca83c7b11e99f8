from __future__ import annotations

import numpy as np
import pusher
import pytest

from wamlab.metrics.base import compute
from wamlab.metrics.joint import UNCHANGED
from wamlab.metrics.visual import psnr
from wamlab.types import Probe


def answering(seed: int, fault: str) -> Probe:
    """A probe whose imposed actions are imagined: rightly but for noise, or all as the first."""
    probe, rng = pusher.probe(seed, samples=2), np.random.default_rng(seed)
    unchanged = probe.of("imposed")[0]
    for branch in probe.of("imposed"):
        same = unchanged.happened if fault == "blind" else branch.happened
        branch.imagined = {
            view: np.clip(shots + rng.normal(0, 1, shots.shape), 0, 255).astype(np.uint8)
            for view, shots in same.items()
        }
    return probe


def test_it_is_the_gain_of_the_planned_action_over_the_interventions_on_it():
    probe = answering(3, "oracle")
    first, *others = probe.of("imposed")
    real = first.happened["corner"] / 255
    expected = [
        psnr(first.imagined["corner"][t] / 255, real[t])
        - np.mean([psnr(one.imagined["corner"][t] / 255, real[t]) for one in others])
        for t in range(2)
    ]
    assert compute("delta_psnr", [probe]).value == pytest.approx(np.mean(expected))


def test_an_imagination_that_ignores_the_action_gains_nothing():
    right = compute("delta_psnr", [answering(seed, "oracle") for seed in range(4)])
    blind = compute("delta_psnr", [answering(seed, "blind") for seed in range(4)])
    assert right.value > 10
    assert blind.value == pytest.approx(0, abs=0.1)
    assert set(right.parts) == {"corner@8", "corner@16"}


def told(seed: int, fault: str = "") -> Probe:
    """The second own sample was told otherwise; a deaf model imagines the first all the same."""
    probe = pusher.probe(seed, samples=2)
    first, second = probe.of("own")
    second.kind = "instructed"
    if fault == "deaf":
        second.imagined = first.imagined
    return probe


def test_the_contrast_is_of_the_difference_that_an_instruction_makes():
    """Half of every difference is imagined, on the frame now: a quarter of its square is missed."""
    logs = [told(seed) for seed in range(6)]
    for entity in ("robot", "object"):
        found = compute("instruction_contrast", logs, entity=entity)
        assert found.value > 0.95
        assert (found.details["static"], found.details["oracle"]) == (0, 1)
    for probe in logs:
        for one in (*probe.of("own"), *probe.of("instructed")):
            half = (probe.now["corner"] / 255 + one.happened["corner"] / 255) / 2
            one.imagined = {"corner": half}
    assert compute("instruction_contrast", logs).value == pytest.approx(0.75, abs=0.01)


def test_a_model_that_does_not_listen_has_no_contrast():
    found = compute("instruction_contrast", [told(seed, "deaf") for seed in range(6)])
    assert found.value == pytest.approx(0, abs=1e-9)


def test_without_another_instruction_there_is_no_contrast():
    found = compute("instruction_contrast", [pusher.probe(0)])
    assert found.why_not == "nothing was asked under another instruction"
    silent = told(0)
    for branch in silent.branches:
        branch.imagined, branch.why_not = None, "in features"
    assert "in features" in compute("instruction_contrast", [silent]).why_not


def test_without_imagined_interventions_it_does_not_apply():
    found = compute("delta_psnr", [pusher.probe(0)])
    assert found.why_not == "imposed actions are not imagined (1)"
    older = answering(0, "oracle")
    older.branches = [one for one in older.branches if one.label != UNCHANGED]
    assert "'unchanged' was not imposed" in compute("delta_psnr", [older]).why_not
