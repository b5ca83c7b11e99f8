from __future__ import annotations

import numpy as np
import pusher
import pytest

from wamlab.metrics.base import compute
from wamlab.metrics.visual import psnr
from wamlab.types import Probe


def answering(seed: int, fault: str) -> Probe:
    """A probe whose imposed actions are imagined: rightly, or as the first own sample."""
    probe = pusher.probe(seed, samples=2, noise=0.1)
    own = probe.of("own")[0]
    for branch in probe.of("imposed"):
        same = own.imagined if fault == "blind" else branch.happened
        branch.imagined = {view: shots.copy() for view, shots in same.items()}
    return probe


def test_it_is_the_gain_of_the_own_action_over_the_imposed_ones():
    probe = answering(3, "oracle")
    own = probe.of("own")[0]
    real = own.happened["corner"] / 255
    expected = [
        psnr(own.imagined["corner"][t] / 255, real[t])
        - np.mean([psnr(one.imagined["corner"][t] / 255, real[t]) for one in probe.of("imposed")])
        for t in range(2)
    ]
    assert compute("delta_psnr", [probe]).value == pytest.approx(np.mean(expected))


def test_an_imagination_that_ignores_the_action_gains_nothing():
    right = compute("delta_psnr", [answering(seed, "oracle") for seed in range(4)])
    blind = compute("delta_psnr", [answering(seed, "blind") for seed in range(4)])
    assert right.value > 10
    assert blind.value == pytest.approx(0, abs=1e-9)
    assert set(right.parts) == {"corner@8", "corner@16"}


def told(seed: int, fault: str = "") -> Probe:
    """The second own sample was told otherwise; a deaf model imagines the first all the same."""
    probe = pusher.probe(seed, samples=2)
    first, second = probe.of("own")
    second.kind = "instructed"
    if fault == "deaf":
        second.imagined = first.imagined
    return probe


def test_the_contrast_between_instructions_is_that_between_samples():
    two = [pusher.probe(seed, samples=2) for seed in range(6)]
    for entity in ("robot", "object"):
        contrast = compute("instruction_contrast", [told(seed) for seed in range(6)], entity=entity)
        samples = compute("eic", two, entity=entity)
        assert (contrast.value, contrast.n) == (samples.value, samples.n)
        assert contrast.details["oracle"] == samples.details["oracle"]
    assert contrast.value > 0.8


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
    silent = pusher.probe(0)
    for branch in silent.branches:
        branch.imagined = None
    assert "nothing was imagined" in compute("delta_psnr", [silent]).why_not
