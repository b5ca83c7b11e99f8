"""Names of environments and suites, instructions, split seeds, stored blind rows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from wamlab.metrics.stats import wilson
from wamlab.sim.env import SPLITS, STARTS_PER_SPLIT, split_of, start_seed
from wamlab.sim.instructions import INSTRUCTIONS, PARAPHRASES
from wamlab.sim.registry import PACKAGES, RATES, instruction_of, make, names
from wamlab.sim.suites import blind_row, suite, suites


def test_all_fifty_tasks_are_offered() -> None:
    tasks = [name for name in names() if name.startswith("metaworld/")]
    assert tasks == [f"metaworld/{task}" for task in sorted(INSTRUCTIONS)]
    assert len(tasks) == 50


def test_every_environment_has_an_instruction() -> None:
    assert all(instruction_of(name) for name in names())
    assert instruction_of("metaworld/dial-turn") == "turn the dial"
    assert instruction_of("scene/open-drawer+press-left-button") == (
        "open the drawer, then press the left button"
    )


def test_instructions_cover_the_package() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert {f"{task}-v3" for task in INSTRUCTIONS} == set(ALL_V3_ENVIRONMENTS)


def test_the_rates_are_those_of_the_environments() -> None:
    assert RATES.keys() == PACKAGES.keys()
    for name in ("metaworld/reach", "scene/open-drawer"):
        env = make(name, views=())
        assert env.space.rate_hz == RATES[name.partition("/")[0]]
        env.close()


def test_make() -> None:
    env = make("metaworld/reach", views=(), max_steps=7, instruction="go there")
    assert (env.name, env.views, env.max_steps) == ("metaworld/reach", (), 7)
    observation, _ = env.reset(seed=0)
    assert observation["instruction"] == "go there"
    assert set(observation) == {"state", "instruction"}
    assert observation["state"].dtype == np.float32


@pytest.mark.parametrize("find", [make, suite, blind_row])
def test_unknown_names_have_a_nearest(find: Callable[[str], object]) -> None:
    known = {make: "metaworld/dial-turn", suite: "mw-demo", blind_row: "metaworld/dial-turn"}[find]
    with pytest.raises(KeyError, match=f"did you mean '{known}'"):
        find(known + "s")


def test_names_import_no_simulator() -> None:
    check = (
        "import sys; from wamlab.sim.registry import names; from wamlab.sim.suites import suites;"
        "names(), suites(); "
        "sys.exit(bool({'mujoco', 'metaworld', 'ogbench', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_nobody_needs_to_say_how_to_render_without_a_display() -> None:
    code = "from wamlab.sim.registry import make; make('metaworld/reach').observe()"
    unsaid = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    subprocess.run([sys.executable, "-c", code], env=unsaid, check=True)


def test_suites_hold_known_environments() -> None:
    sizes = {name: len(suite(name)) for name in suites()}
    scenes = {"scene": 10, "scene-held-out": 2, "scene-chains-2": 4, "scene-chains-3": 4}
    assert sizes == {"mw-6": 6, "mw-50": 50, "mw-avdc": 11, "mw-demo": 3, **scenes}
    assert all(set(suite(name)) <= set(names()) for name in suites())
    assert set(suite("mw-demo")) < set(suite("mw-6"))


@pytest.mark.parametrize("env", ["door-lock", "lever-pull", "dial-turn"])
def test_the_hard_three_are_hardly_solved_blind(env: str) -> None:
    """At most 25 %, as far as the stored number of starts can tell."""
    row = blind_row(f"metaworld/{env}")
    assert row.variants
    assert wilson(max(row.mean, row.replay), row.starts).low <= 0.25
    assert row.best < 0.3
    assert row.expert >= 0.95 * row.starts


def test_of_several_rows_the_one_with_most_starts_counts() -> None:
    assert blind_row("metaworld/dial-turn").starts == 100
    assert blind_row("metaworld/reach").starts == 30
    assert not blind_row("metaworld/reach", variants=False).variants
    single = {name for name in names() if "+" not in name}
    assert {blind_row(env).env for env in single} == single


def test_paraphrases_are_kept_apart() -> None:
    for task, sentences in PARAPHRASES.items():
        assert len(sentences) >= 3, task
        assert len({*sentences, INSTRUCTIONS[task]}) == len(sentences) + 1
    taught = set(INSTRUCTIONS.values())
    assert len(taught) == 50
    assert not taught & {sentence for group in PARAPHRASES.values() for sentence in group}


def test_splits_never_overlap() -> None:
    assert [start_seed(split, 0) for split in SPLITS] == [0, 10**6, 2 * 10**6]
    for split in SPLITS:
        for index in (0, STARTS_PER_SPLIT - 1):
            assert split_of(start_seed(split, index)) == split
    for index in (-1, STARTS_PER_SPLIT):
        with pytest.raises(ValueError, match="outside"):
            start_seed("train", index)
    with pytest.raises(ValueError, match="no split"):
        split_of(3 * 10**6)
    with pytest.raises(ValueError, match="no split"):
        make("metaworld/reach", views=()).reset(seed=-1)


def test_a_task_can_be_said_in_other_words() -> None:
    said = [make("metaworld/reach", views=(), sentence=n).instruction for n in (0, 1)]
    assert said == [INSTRUCTIONS["reach"], PARAPHRASES["reach"][0]]
    assert make("metaworld/reach", views=(), sentence="empty").instruction == ""
    with pytest.raises(ValueError, match="reach has sentences 0 to"):
        make("metaworld/reach", views=(), sentence=99)
    with pytest.raises(ValueError, match="reach has its scene to itself"):
        make("metaworld/reach", views=(), sentence="swapped")
    with pytest.raises(ValueError, match="did you mean 'empty'"):
        make("metaworld/reach", views=(), sentence="emty")
