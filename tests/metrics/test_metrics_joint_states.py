"""Probes that a state reader has read give what their paths give."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pusher
import pytest

from wamlab.metrics.base import compute, state_name
from wamlab.metrics.coupling import cmr, eic, eic_cf, eic_ref, error, skill
from wamlab.metrics.effects import iea, instruction_contrast
from wamlab.metrics.joint import SEQUENCES
from wamlab.metrics.joint_states import own_paths
from wamlab.metrics.worlds import dwa, dwa_imposed
from wamlab.types import Branch, Probe, Reading

SCENE = pusher.scene(states=24, samples=4, seed=3)
OFFSETS = np.array([8, 16])


pytestmark = pytest.mark.usefixtures("few_draws")


def at_offsets(paths):
    columns = OFFSETS - 1
    sides = ("imagined", "executed", "reread")
    cut = {side: getattr(paths, side)[:, :, columns] for side in sides}
    worlds = {world: places[:, :, columns] for world, places in paths.elsewhere.items()}
    return dataclasses.replace(paths, offsets=OFFSETS, elsewhere=worlds, **cut)


def own(model: str = "oracle"):
    again = SCENE.execute(shuffled())
    return {
        name: dataclasses.replace(
            at_offsets(p),
            shuffled=getattr(again, name)[:, :, OFFSETS],
            retrieved=clip(at_offsets(p).executed),
        )
        for name, p in pusher.paths(model, SCENE).items()
    }


def forced(model: str = "oracle"):
    paths = pusher.paths(model, SCENE, SCENE.imposed)
    return {name: at_offsets(p) for name, p in paths.items()}


def flat(places: np.ndarray) -> np.ndarray:
    """Two dimensions as three."""
    return np.concatenate([places, np.zeros((*places.shape[:-1], 1))], axis=-1)


def branches(kind: str, labels, actions: np.ndarray, paths, path: pusher.Path, i: int):
    made = []
    for k, label in enumerate(labels):
        read, reread = (
            Reading(
                {name: flat(getattr(p, side)[i, k]) for name, p in paths.items()},
                pusher.reached(getattr(paths["block"], side)[i, k]).astype(float),
            )
            for side in ("imagined", "reread")
        )
        made.append(
            Branch(
                kind,
                label,
                actions[i, k],
                OFFSETS,
                happened={},
                imagined={"corner": np.zeros((2, 4, 4, 3), np.uint8)},
                entities={
                    "robot": pusher.pose(path.robot[i, k]).astype(float),
                    "block": pusher.pose(path.block[i, k]).astype(float),
                    "wall": np.zeros((17, 7)),
                },
                success=bool(pusher.reached(path.block[i, k, -1])),
                read=read,
                reread=reread,
            )
        )
    return made


def unseen(made: list[Branch]) -> list[Branch]:
    """Nobody looks at executions in other worlds or of references: only poses are logged."""
    return [dataclasses.replace(one, imagined=None, read=None, reread=None) for one in made]


def probes(model: str = "oracle") -> list[Probe]:
    samples = [f"sample {k}" for k in range(SCENE.own.shape[1])]
    imposed = SCENE.imposed
    own_side, forced_side = own(model), forced(model)
    found = []
    for i in range(len(SCENE.robot)):
        made = branches("own", samples, SCENE.own, own_side, SCENE.execute(SCENE.own), i)
        made += branches("imposed", SEQUENCES, imposed, forced_side, SCENE.execute(imposed), i)
        for world, physics in pusher.WORLDS.items():
            for names, actions, side in (
                (samples, SCENE.own, own_side),
                (SEQUENCES, imposed, forced_side),
            ):
                labels = [f"{world}: {name}" for name in names]
                path = SCENE.execute(actions, **physics)
                made += unseen(branches("world", labels, actions, side, path, i))
        again = SCENE.execute(shuffled())
        made += unseen(branches("shuffled", samples, shuffled(), own_side, again, i))
        made += unseen(
            branches("reference", SEQUENCES, imposed, forced_side, SCENE.execute(imposed), i)
        )
        found.append(
            Probe(
                env="toy/pusher",
                instruction="push",
                seed=i,
                step=0,
                now={"corner": np.zeros((1, 4, 4, 3), np.uint8)},
                state=SCENE.robot[i],
                branches=made,
                entities={
                    "robot": pusher.pose(SCENE.robot[i]).astype(float),
                    "block": pusher.pose(SCENE.block[i]).astype(float),
                    "wall": np.zeros(7),
                },
                stratum=("free", "contact")[i % 2],
                reader="toy/pusher, pixels",
                retrieved=Reading(
                    {name: flat(clip(p.executed))[i] for name, p in own_side.items()},
                    pusher.reached(clip(own_side["block"].executed)[i]).astype(float),
                ),
            )
        )
    return found


def shuffled() -> np.ndarray:
    return SCENE.own[:, :, ::-1]


def clip(executed: np.ndarray) -> np.ndarray:
    """What happened at another state: right dynamics, but not from here."""
    return np.roll(executed[:, 0], 1, axis=0)


@pytest.mark.parametrize("model", ["oracle", "object-blind", "blind", "gain .7"])
def test_probes_give_what_their_paths_give(model: str):
    logs = probes(model)
    for entity, name in (("robot", "robot"), ("object", "block")):
        one, other = own(model)[name], forced(model)[name]
        for measured, direct in {
            "state_eic": eic(one),
            "state_skill": skill(one),
            "state_cmr": cmr(one),
            "state_dwa": dwa(one),
            "state_error": error(one),
            "state_eic_cf": eic_cf(one, other.executed[:, 1:]),
            "state_eic_ref": eic_ref(one, other.executed),
            "state_iea": iea(other),
            "state_dwa_imposed": dwa_imposed(other),
        }.items():
            found = compute(measured, logs, entity=entity)
            assert found.why_not == direct.why_not
            assert found.value == pytest.approx(direct.value, abs=1e-5), measured
            assert found.n == direct.n
            for control in (
                *("static", "oracle", "retrieval", "shuffled_action", "wrong_world"),
                *("spurious_floor", "fitted_gain"),
            ):
                seen, expected = (one.details.get(control) for one in (found, direct))
                assert (seen is None) == (expected is None)
                assert seen is None or seen == pytest.approx(expected, rel=1e-4, abs=1e-6)
            for name in ("world", "wrong_world_is"):
                assert found.details.get(name) == direct.details.get(name)


def test_samples_under_several_instructions_are_held_against_one_another():
    """Effects between samples are those between instructions, where each was told something."""
    logs = probes()
    for probe in logs:
        for branch in probe.of("own")[1:]:
            branch.kind = "instructed"
    for entity in ("robot", "object"):
        found = compute("state_instruction_contrast", logs, entity=entity)
        expected = instruction_contrast(own_paths(probes(), entity))
        assert found.value == pytest.approx(expected.value)
        assert found.details["gain"] == pytest.approx(expected.details["gain"])
    unasked = compute("state_instruction_contrast", probes())
    assert unasked.why_not == "nothing was asked under another instruction"


def test_the_object_is_what_the_references_move_most_and_states_keep_their_names():
    logs = probes()
    paths = own_paths(logs, "object")
    assert list(paths.states) == [state_name(probe) for probe in logs]
    np.testing.assert_allclose(paths.start, flat(SCENE.block), atol=1e-6)
    for probe in logs:
        for branch in probe.of("reference"):
            branch.entities["wall"] = branch.entities["wall"] + np.arange(17)[:, None]
    assert own_paths_fail(logs) == "no state reader has looked for 'wall'"


def test_a_thing_is_measured_by_its_name_where_a_state_holds_it():
    logs = probes()
    whole = compute("state_eic", logs, entity="object")
    for named in (compute("state_eic", logs, entity="block"), whole.parts["block"]):
        assert (named.value, named.n) == (pytest.approx(whole.value), whole.n)
    assert whole.parts["wall"].why_not == "no state reader has looked for 'wall'"
    del logs[0].entities["block"]
    without = compute("state_eic", logs, entity="block")
    assert without.n + sum(without.undefined.values()) == len(logs) - 1
    with pytest.raises(KeyError, match=r"no entity 'blok'; did you mean 'block'.*'wall'"):
        compute("state_eic", logs, entity="blok")


def own_paths_fail(logs: list[Probe]) -> str:
    return compute("state_eic", logs, entity="object").why_not


def test_errors_are_in_metres_beside_those_of_the_reader():
    found = compute("state_error", probes("static"), entity="robot")
    paths = own("static")["robot"]
    away = np.linalg.norm(paths.imagined - paths.executed, axis=-1)[..., -1].mean()
    assert found.value == pytest.approx(away, abs=1e-6)
    assert found.floor == pytest.approx(
        np.linalg.norm(paths.reread - paths.executed, axis=-1)[..., -1].mean(), abs=1e-6
    )
    assert found.details["moved"] == pytest.approx(paths.motion()[:, -1].mean(), abs=1e-6)


def test_an_optimist_imagines_success_that_does_not_come():
    honest, hopeful = (compute("state_ocb", probes(model)) for model in ("oracle", "optimist"))
    assert honest.value == pytest.approx(0, abs=0.03)
    assert hopeful.value > 0.5
    failing = compute("state_ocb_imposed", probes("optimist"))
    assert failing.value > hopeful.value - 0.2


def test_the_bias_of_outcomes_is_read_against_the_reader_and_a_still_future():
    found = compute("state_ocb", probes("optimist"))
    assert found.details["oracle"] == pytest.approx(0, abs=0.03)
    assert found.details["oracle_mcc"] > 0.9
    assert found.details["static"] == pytest.approx(
        pusher.reached(SCENE.block).mean() - found.details["executed"], abs=0.03
    )
    logs = changed(failing)
    never = compute("state_ocb", logs)
    assert never.why_not == "OCB needs both outcomes among the executions: 0 of 96 succeed"


def test_a_stratum_without_both_outcomes_leaves_the_others_their_bias():
    logs = probes("optimist")
    for probe in logs:
        solved = any(one.success for one in probe.of("own"))
        probe.stratum = "contact" if solved else "free"
    found = compute("state_ocb", logs)
    assert found.value == pytest.approx(compute("state_ocb", probes("optimist")).value)
    assert found.parts["contact"].value is not None
    assert "0 of" in found.parts["free"].why_not


def test_of_actions_that_are_not_imagined_there_is_no_bias():
    logs = changed(unimagined)
    assert compute("state_ocb_imposed", logs).why_not == "imposed actions are not imagined"
    assert compute("state_ocb", logs).value is not None


def unimagined(probe: Probe) -> None:
    for one in probe.of("imposed"):
        one.imagined = None


def test_outcomes_in_another_physics_are_a_control_of_the_bias():
    """A world of which no outcome is another is none; of the others the least bias stands."""
    logs = changed(lambda probe: in_worlds(probe, {"gain 0.7": 1, "slip 0.5": 2, "gain 1": 0}))
    found = compute("state_ocb", logs)
    executed = np.array([[b.success for b in one.of("own")] for one in logs])
    assert found.details["wrong_world_is"] == "gain 0.7"
    turned = executed.copy()
    turned[:, :1] = ~turned[:, :1]
    assert found.details["wrong_world"] == pytest.approx(turned.mean() - executed.mean())
    assert "wrong_world" not in compute("state_ocb_imposed", logs).details
    assert "wrong_world" in compute("state_ocb_imposed", probes()).details


def in_worlds(probe: Probe, turned: dict[str, int]) -> None:
    """Every own action in these worlds, where as many outcomes of each state are turned round."""
    probe.branches = [one for one in probe.branches if one.kind != "world"]
    for world, count in turned.items():
        for k, one in enumerate(probe.of("own")):
            probe.branches.append(
                replace(
                    one,
                    kind="world",
                    label=f"{world}: {one.label}",
                    success=one.success != (k < count),
                )
            )


def test_interventions_that_all_fail_show_a_bias_where_the_own_actions_show_success():
    logs = probes("optimist")
    for probe in logs:
        for one in probe.of("imposed"):
            one.success = False
    found = compute("state_ocb_imposed", logs)
    assert found.details["executed"] == 0
    assert found.value == found.details["imagined"] == 1
    for probe in logs:
        failing(probe)
    assert "0 of 192 succeed" in compute("state_ocb_imposed", logs).why_not


def failing(probe: Probe) -> None:
    for one in probe.branches:
        one.success = False


def test_a_world_in_which_not_all_own_actions_were_executed_is_none():
    logs = probes()
    logs[3].branches = [b for b in logs[3].branches if b.label != "gain .7: sample 1"]
    found = compute("state_dwa", logs, entity="robot")
    assert set(found.details["distance"]) == {"true", "gain 1.3"}
    assert set(compute("state_eic", logs).details["wrong_worlds"]) == {"gain 1.3"}


@pytest.mark.parametrize(
    "name", ["state_eic", "state_eic_cf", "state_eic_ref", "state_error", "state_dwa", "state_cmr"]
)
def test_the_strata_are_the_parts(name: str):
    whole = compute(name, probes(), entity="object")
    logs = [probe for probe in probes() if probe.stratum == "contact"]
    alone = compute(name, logs, entity="object")
    assert set(whole.parts) == {"contact", "free", "block", "wall"}
    assert whole.parts["contact"].value == pytest.approx(alone.value)
    assert sum(whole.parts[stratum].n for stratum in ("contact", "free")) == whole.n
    assert set(alone.parts) == {"block", "wall"}


def test_values_are_placed_between_the_controls():
    for model, placed in (("oracle", 1.0), ("object-blind", 0.0)):
        details = compute("state_eic", probes(model), entity="object").details
        assert details["normalised"] == pytest.approx(placed, abs=0.03)


def changed(change) -> list[Probe]:
    logs = probes()
    for probe in logs:
        change(probe)
    return logs


def test_what_was_not_read_or_imagined_says_so():
    def unread(probe: Probe) -> None:
        probe.reader = ""
        probe.branches = [dataclasses.replace(one, read=None) for one in probe.branches]

    def silent(probe: Probe) -> None:
        probe.branches = [
            dataclasses.replace(one, imagined=None, why_not="it acts only")
            for one in probe.branches
        ]

    def halved(probe: Probe) -> None:
        if probe.seed % 2:
            probe.branches = [one for one in probe.branches if one.label != "sample 3"]

    def alone(probe: Probe) -> None:
        probe.entities = {"robot": probe.entities["robot"]}

    def bare(probe: Probe) -> None:
        probe.branches = probe.of("own")

    def early(probe: Probe) -> None:
        for one in probe.of("own"):
            one.offsets = np.array([4, 8])

    for change, name, entity, why in (
        (unread, "state_eic", "robot", "a state reader has read 0 of 24 probes"),
        (silent, "state_eic", "robot", "it acts only"),
        (silent, "state_iea", "robot", "imposed actions are not imagined: it acts only"),
        (halved, "state_eic", "robot", "different numbers of samples"),
        (alone, "state_eic", "object", "the probes hold no object"),
        (bare, "state_iea", "robot", "the probes hold no imposed branches"),
        (bare, "state_eic_cf", "robot", "different numbers of executions"),
    ):
        assert why in compute(name, changed(change), entity=entity).why_not
    assert "other worlds" in compute("state_dwa", changed(bare)).why_not
    assert "has read 0 of 24" in compute("state_ocb", changed(unread)).why_not
    assert "the end of the chunk is not imagined" in compute("state_ocb", changed(early)).why_not
    with pytest.raises(KeyError, match="no entity 'hand'"):
        compute("state_eic", probes(), entity="hand")


def test_an_imagined_thing_that_moves_by_itself_lies_above_the_floor():
    """The optimist's block goes to the goal whether or not the agent is near it."""
    scored = {
        model: compute("imagined_motion_without_contact", probes(model), reach=0.12)
        for model in ("oracle", "object-blind", "optimist")
    }
    assert scored["oracle"].value == pytest.approx(scored["oracle"].floor, abs=0.01)
    assert scored["object-blind"].value < scored["oracle"].floor
    assert scored["optimist"].value > scored["optimist"].floor + 0.05
    everywhere = compute("imagined_motion_without_contact", probes("optimist"), reach=10.0)
    assert everywhere.value == 0


def test_a_jump_is_metres_by_executed_action():
    found = compute("imagined_jump", probes("oracle"), entity="robot")
    paths = own()["robot"]
    places = np.concatenate([paths.still[:, :, :1], paths.imagined], axis=2)
    steps = np.linalg.norm(np.diff(places, axis=2), axis=-1).max(axis=(1, 2)) / 8
    assert found.value == pytest.approx(steps.mean(), rel=1e-5)
    assert found.floor == pytest.approx(found.value, rel=0.1)
    assert "has read" in compute("imagined_jump", changed(lambda p: unread(p))).why_not


def unread(probe: Probe) -> None:
    probe.branches = [dataclasses.replace(one, read=None) for one in probe.branches]
    probe.reader = ""
