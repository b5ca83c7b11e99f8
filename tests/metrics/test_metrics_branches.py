"""One branch, entity by entity: grey levels whose distances are plain differences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pusher
import pytest

from wamlab.metrics.base import AXES, axis_of, names
from wamlab.metrics.branches import BACKGROUND, entities, sights
from wamlab.metrics.joint import SEQUENCES
from wamlab.types import Branch, Probe


def grey(branch: Branch, happened: int, imagined: int | None = None) -> None:
    fill = lambda level: {"corner": np.full((2, 48, 48, 3), level, np.uint8)}  # noqa: E731
    branch.happened = fill(happened)
    branch.imagined = None if imagined is None else fill(imagined)


@pytest.fixture
def probe() -> Probe:
    """Now 0; the own action leads to 100 and was imagined as 110, others to 0, 20, 40, 60."""
    probe = pusher.probe(0, samples=1)
    probe.now = {"corner": np.zeros((1, 48, 48, 3), np.uint8)}
    grey(probe.branches[0], 100, 110)
    for branch, level in zip(probe.of("imposed"), (100, 0, 20, 40, 60), strict=True):
        grey(branch, level, level)
    return probe


def seen(probe: Probe, branch: Branch, entity: str, offset: int = 16):
    (one,) = [s for s in sights(probe, branch) if (s.entity, s.offset) == (entity, offset)]
    return one


def test_values_are_those_of_plain_arithmetic(probe):
    assert entities(probe) == ["robot", "block", BACKGROUND]
    for entity in entities(probe):
        one = seen(probe, probe.branches[0], entity)
        assert one.over_still.value == pytest.approx(1 - 10 / 100)
        assert one.over_others.value == pytest.approx(1 - 10 / np.mean([110, 90, 70, 50]))
    robot = probe.branches[0].entities["robot"]
    moved = np.linalg.norm(robot[16, :3] - robot[0, :3])
    assert seen(probe, probe.branches[0], "robot").moved == pytest.approx(moved)
    assert seen(probe, probe.branches[0], BACKGROUND).moved is None


def test_a_still_imagination_is_worth_nothing_and_a_wrong_one_less(probe):
    own = probe.branches[0]
    own.imagined = {"corner": np.zeros((2, 48, 48, 3), np.uint8)}
    one = seen(probe, own, "robot")
    assert one.over_still.value == pytest.approx(0)
    assert one.over_others.value == pytest.approx(1 - 100 / 30)


def test_each_entity_is_judged_inside_its_own_region(probe):
    """The block's pixels are imagined as they were; everything else exactly."""
    own = probe.branches[0]
    region = np.logical_or.reduce(
        [probe.masks["corner/block"][0], *(b.masks["corner/block"][1] for b in probe.asked())]
    )
    own.imagined = {"corner": own.happened["corner"].copy()}
    own.imagined["corner"][1, region] = 0
    assert seen(probe, own, "block").over_still.value == pytest.approx(0)
    assert seen(probe, own, BACKGROUND).over_still.value == pytest.approx(1)


def test_what_did_not_move_or_cannot_be_told_apart_is_undefined(probe):
    zero = probe.of("imposed")[SEQUENCES.index("zero")]
    assert seen(probe, zero, "robot").over_still.why_not == "moved 10 mm or less"
    assert seen(probe, zero, BACKGROUND).over_still.why_not == "the frames do not differ"
    assert seen(probe, zero, BACKGROUND).over_others.value is not None
    alone = dataclasses.replace(probe, branches=[probe.branches[0]])
    assert "no other action" in seen(alone, alone.branches[0], "robot").over_others.why_not
    own = probe.branches[0]
    twin = dataclasses.replace(own, label="twin", action=own.action + np.float32(1e-6))
    twins = dataclasses.replace(probe, branches=[probe.branches[0], twin])
    said = seen(twins, twins.branches[0], "robot").over_others.why_not
    assert said == "ends within 10 mm whatever the action"
    said = seen(twins, twins.branches[0], BACKGROUND).over_others.why_not
    assert said == "looks the same whatever the action"


def test_an_entity_out_of_sight_and_a_branch_without_imagination_are_undefined(probe):
    for one in (probe, *probe.asked()):
        one.masks["corner/block"] = np.zeros_like(one.masks["corner/block"])
    assert seen(probe, probe.branches[0], "block").over_still.why_not == "not to be seen"
    probe.branches[0].imagined = None
    one = seen(probe, probe.branches[0], "robot")
    assert one.over_still.why_not == one.over_others.why_not == "nothing was imagined"
    assert one.moved > 0.01


def test_branches_at_other_offsets_are_none_of_the_others(probe):
    before = seen(probe, probe.branches[0], "robot").over_others
    odd = dataclasses.replace(probe.of("imposed")[1], offsets=np.array([4, 12]))
    probe.branches.append(odd)
    assert seen(probe, probe.branches[0], "robot").over_others == before


def test_every_metric_belongs_to_an_axis():
    assert {axis_of(name) for name in names()} <= set(AXES)
    assert axis_of("eic") == "joint coupling"
    assert axis_of("ssim") == "visual fidelity"
    with pytest.raises(KeyError, match="no metric 'sim'; did you mean 'ssim'"):
        axis_of("sim")
