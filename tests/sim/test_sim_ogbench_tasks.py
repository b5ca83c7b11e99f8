"""What can be asked in the scene: combinations, chains, sentences, and when a task is done."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wamlab.sim import ogbench_tasks
from wamlab.sim.instructions import INSTRUCTIONS as METAWORLD
from wamlab.sim.ogbench_tasks import (
    CHAINS_OF_THREE,
    CHAINS_OF_TWO,
    HELD_OUT,
    INSTRUCTIONS,
    SAID_OF,
    TASKS,
    TRAINING,
    Facts,
    Put,
    Slide,
    said_for,
    tasks_of,
)
from wamlab.sim.suites import suite

START = Facts(
    drawer=0.1,
    window=0.1,
    handle=np.array([0.33, -0.14, 0.08]),
    pressed=(False, False),
    cubes={"red": np.array([0.35, 0.0, 0.02]), "blue": np.array([0.4, 0.1, 0.02])},
    mats={"yellow": np.array([0.3, 0.1, 0.001]), "green": np.array([0.45, 0.0, 0.001])},
    touched=frozenset(),
)


def with_red_at(*place: float, touched: bool = False) -> Facts:
    cubes = {**START.cubes, "red": np.array(place)}
    return dataclasses.replace(START, cubes=cubes, touched=frozenset({"red"} if touched else ()))


def test_no_suite_for_training_shows_a_held_out_combination() -> None:
    shown = set(suite("scene")) | set(suite("scene-chains-2")) | set(suite("scene-chains-3"))
    held_out = {env.removeprefix("scene/") for env in suite("scene-held-out")}
    assert held_out == set(HELD_OUT) == {"red-cube-to-green-mat", "blue-cube-to-drawer"}
    assert not held_out & {task for env in shown for task in tasks_of(env.removeprefix("scene/"))}


def test_every_word_of_a_held_out_combination_is_trained() -> None:
    trained = [TASKS[task] for task in TRAINING if isinstance(TASKS[task], Put)]
    for task in HELD_OUT:
        assert TASKS[task].cube in {one.cube for one in trained}
        assert TASKS[task].place in {one.place for one in trained}
        words = {word for one in TRAINING for word in INSTRUCTIONS[one].split()}
        assert set(INSTRUCTIONS[task].split()) <= words


def test_sentences_are_kept_apart() -> None:
    said = [said_for(task, n, np.random.default_rng(0)) for task in TASKS for n in range(4)]
    assert len(set(said)) == len(said) == 4 * len(TASKS)
    assert not set(said) & set(METAWORLD.values()) - {"open the drawer", "close the drawer"} - {
        *("open the window", "close the window")
    }


def test_a_sentence_names_its_task() -> None:
    rng = np.random.default_rng(0)
    assert all(SAID_OF[said_for(task, n, rng)] == task for task in TASKS for n in range(4))


def test_a_swapped_sentence_is_of_another_task_and_a_trained_one() -> None:
    rng = np.random.default_rng(0)
    swapped = {said_for("open-drawer", "swapped", rng) for _ in range(200)}
    assert swapped == {INSTRUCTIONS[task] for task in TRAINING} - {"open the drawer"}
    swapped = {said_for("blue-cube-to-drawer", "swapped", rng) for _ in range(200)}
    assert swapped == {INSTRUCTIONS[task] for task in TRAINING}


def test_an_unknown_task_or_sentence_is_refused() -> None:
    rng = np.random.default_rng(0)
    assert said_for("open-drawer", "empty", rng) == ""
    with pytest.raises(KeyError, match="did you mean 'open-drawer'"):
        tasks_of("close-drawer+open-drawr")
    with pytest.raises(ValueError, match="open-drawer has sentences 0 to 3, got 4"):
        said_for("open-drawer", 4, rng)
    with pytest.raises(ValueError, match="did you mean 'swapped'"):
        said_for("open-drawer", "swap", rng)  # type: ignore[arg-type]


@pytest.mark.parametrize("chain", [*CHAINS_OF_TWO, *CHAINS_OF_THREE])
def test_a_chain_asks_for_nothing_that_it_made_impossible(chain: tuple[str, ...]) -> None:
    for number, task in enumerate(chain):
        asked, before = TASKS[task], chain[:number]
        if isinstance(asked, Slide):
            lock = {"drawer": "press-left-button", "window": "press-right-button"}[asked.thing]
            assert lock not in before
        if isinstance(asked, Put) and asked.place == "drawer":
            assert "close-drawer" not in before
    assert len(set(chain)) == len(chain)
    assert set(chain) <= set(TRAINING)


def test_nothing_is_done_at_a_start() -> None:
    assert not any(task.done(START) for task in TASKS.values())


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("open-drawer", {"drawer": 0.15}),
        ("close-drawer", {"drawer": 0.01}),
        ("open-window", {"window": 0.19}),
        ("close-window", {"window": 0.01}),
        ("press-left-button", {"pressed": (True, False)}),
        ("press-right-button", {"pressed": (False, True)}),
    ],
)
def test_a_change_is_the_success_of_one_task_only(task: str, change: dict[str, object]) -> None:
    facts = dataclasses.replace(START, **change)
    assert [name for name, one in TASKS.items() if one.done(facts)] == [task]


def test_a_cube_counts_where_it_lies_and_once_it_is_let_go() -> None:
    done = lambda facts: [name for name, task in TASKS.items() if task.done(facts)]  # noqa: E731
    assert done(with_red_at(0.31, 0.11, 0.02)) == ["red-cube-to-yellow-mat"]
    assert done(with_red_at(0.31, 0.11, 0.02, touched=True)) == []
    assert done(with_red_at(0.31, 0.11, 0.06)) == []  # held above it, or on the other cube
    assert done(with_red_at(0.34, 0.11, 0.02)) == []  # beside it
    assert done(with_red_at(0.33, -0.28, 0.066)) == ["red-cube-to-drawer"]
    assert done(with_red_at(0.33, -0.28, 0.15)) == []  # above it
    assert done(with_red_at(0.33, -0.17, 0.02)) == []  # in front of it


def test_names_are_tasks_and_chains() -> None:
    names = ogbench_tasks.names()
    assert len(names) == len(set(names)) == 20
    assert all(tasks_of(name) for name in names)
