"""The common space of several datasets: united where it was only seen, refused where it differs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fixture import SPACE

from wamlab.data.manifest import DataError
from wamlab.data.space import common_space, common_state_names
from wamlab.types import ActionSpace

SEEN = dataclasses.replace(SPACE, mode=("unknown",) * 3, unit=("unknown",) * 3)


def held(*spaces: ActionSpace | None) -> list[Any]:
    names = (Path(name) for name in "ABCD")
    return [
        SimpleNamespace(path=name, space=space, fps=20.0)
        for name, space in zip(names, spaces, strict=False)
    ]


def test_bounds_that_were_only_seen_are_united() -> None:
    less = dataclasses.replace(SEEN, low=(-0.5, -2.0, 0.0), high=(0.5, 0.5, 3.0))
    both = common_space(held(SEEN, less))
    assert both == dataclasses.replace(SEEN, low=(-1.0, -2.0, -1.0), high=(1.0, 1.0, 3.0))


def test_a_declared_space_is_taken_as_it_is() -> None:
    assert common_space(held(SPACE, None, SPACE)) is SPACE
    assert common_space(held(None)) is None


def test_at_a_lower_rate_the_bounds_of_deltas_add_up() -> None:
    slow = common_space(held(SPACE, SPACE), 5.0)
    assert slow == dataclasses.replace(
        SPACE, low=(-4.0, -4.0, -1.0), high=(4.0, 4.0, 1.0), rate_hz=5.0
    )
    with pytest.raises(DataError, match="15 Hz cannot be read from a dataset at 20 Hz"):
        common_space(held(SPACE), 15.0)


@pytest.mark.parametrize(
    ("space", "changes", "said"),
    [
        (SEEN, {"names": ("dy", "dx", "gripper")}, r"A and B differ in the names \(.*'dx'.*'dy'"),
        (SPACE, {"mode": ("absolute",) * 3}, r"differ in the mode \(.*'delta'.*'absolute'"),
        (SPACE, {"unit": ("m",) * 3}, r"differ in the unit \(.*'0.1 m'.*'m'"),
        (SPACE, {"low": (-2.0,) * 3}, r"differ in the low \(.*-1.0.*-2.0"),
        (SPACE, {"mode": ("unknown",) * 3}, "differ in the mode"),
    ],
)
def test_actions_that_mean_something_else_are_refused(
    space: ActionSpace, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        common_space(held(space, dataclasses.replace(space, **changes)))


def named(*states: tuple[str, ...]) -> list[Any]:
    return [
        SimpleNamespace(path=Path(name), state_names=names)
        for name, names in zip("ABCD", states, strict=False)
    ]


def test_states_have_the_same_names_or_are_not_there() -> None:
    assert common_state_names(named((), ("x", "y"), ("x", "y"))) == ("x", "y")
    assert common_state_names(named(())) == ()
    with pytest.raises(DataError, match=r"A and C differ in the names of their states: .*'x'.*'y'"):
        common_state_names(named(("x",), (), ("y",)))
