"""What a run imposes on its model, beside the fixed set of the measures."""

from __future__ import annotations

import dataclasses

from wamlab.metrics.joint import SEQUENCES
from wamlab.recipes import mw_demo
from wamlab.recipes.work import other_instructions
from wamlab.run.impose import IMPOSED, OTHER_INSTRUCTION
from wamlab.sim.registry import instruction_of

DEMO = ("metaworld/door-unlock", "metaworld/window-open", "metaworld/button-press-topdown")


def test_the_other_instruction_is_that_of_the_next_environment_of_the_run() -> None:
    run = mw_demo.run("reactive")
    found = other_instructions(run, [*DEMO, "metaworld/dial-turn"])
    assert set(found) == {*DEMO, "metaworld/dial-turn"}
    told = {env: instruction_of(env) for env in DEMO}
    assert {found[env] for env in DEMO} == set(told.values())
    assert all(found[env] != told[env] for env in DEMO)
    assert found["metaworld/dial-turn"] in told.values()
    assert other_instructions(mw_demo.quick("reactive"), [mw_demo.TASK]) == {}


def test_environments_that_are_not_here_say_nothing() -> None:
    run = mw_demo.run("reactive")
    envs = ("elsewhere/wipe", *DEMO[:2])
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, envs=envs))
    assert other_instructions(run, DEMO[:1]) == {DEMO[0]: instruction_of(DEMO[1])}


def test_the_demo_imposes_everything_and_a_run_without_wishes_the_fixed_set() -> None:
    run = mw_demo.run("reactive")
    assert set(run.probe.imposed) == {*IMPOSED, OTHER_INSTRUCTION}
    fixed = dataclasses.replace(run.probe, imposed=SEQUENCES)
    assert fixed == type(run.probe)(states=6, samples=4)
    fewer = run.vary(["probe.imposed=zero,late"])
    assert fewer.probe.imposed == ("zero", "late")
    assert type(run).from_dict(fewer.to_dict()) == fewer
