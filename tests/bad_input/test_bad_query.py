"""`Policy.query`: observations, queries and given streams that cannot be answered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import wamlab
from wamlab.models.base import Refusal
from wamlab.types import FORWARD, FUTURE, INVERSE, POLICY, VALUE, VIDEO, Future, Query

pytestmark = pytest.mark.usefixtures("as_shipped")


@pytest.fixture(scope="module")
def policy(made):
    return wamlab.load(made / "run", "cpu")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("state", np.array([0, np.nan, 0, 0]), "observation 0: 'state' holds NaN or infinity"),
        ("state", np.array([0, np.inf, 0, 0]), "observation 0: 'state' holds NaN or infinity"),
        ("state", np.zeros(3), r"state has shape \(3,\), expected \(4,\)"),
        ("state", None, "'state' is None, expected numbers"),
        ("image/top", np.zeros((8, 8, 3), np.uint8), r"\(8, 8, 3\), expected uint8 \(16, 16, 3\)"),
        ("image/top", np.zeros((16, 16, 3)), "'image/top' is float64"),
        ("image/top", np.full((16, 16, 3), np.nan), "'image/top' holds NaN"),
        ("instruction", None, "'instruction' is None, expected a sentence"),
    ],
)
def test_an_observation_that_cannot_be_read(policy, observation, name, value, said) -> None:
    with pytest.raises(ValueError, match=said):
        policy.query({**observation, name: value}, POLICY)


@pytest.mark.parametrize("name", ["state", "image/top", "instruction"])
def test_an_observation_that_lacks_something(policy, observation, name) -> None:
    renamed = {f"{key}_" if key == name else key: value for key, value in observation.items()}
    with pytest.raises(KeyError, match=f"observation 1 has no '{name}'; did you mean '{name}_'"):
        policy.query([observation, renamed], POLICY)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda chunk: chunk + 2, "outside the space in x, y, z, grip"),
        (lambda chunk: chunk * np.nan, "holds NaN or infinity in x"),
        (lambda chunk: chunk[:, :3], r"shape \(8, 3\), expected \(..., 4\)"),
        (lambda chunk: chunk[0], r"shape \(4,\), expected \(H, 4\) or \(2, H, 4\)"),
        (lambda chunk: np.stack([chunk] * 3), r"expected \(H, 4\) or \(2, H, 4\)"),
    ],
)
def test_an_action_that_cannot_be_given(policy, observation, chunk, make, said) -> None:
    with pytest.raises(ValueError, match=said):
        policy.query([observation] * 2, FORWARD, action=make(chunk))


def spoiled(future: Future) -> Future:
    return replace(future, values={name: v * np.nan for name, v in future.values.items()})


def cropped(future: Future) -> Future:
    return replace(future, values={name: v[..., :8, :] for name, v in future.values.items()})


@pytest.mark.parametrize(
    ("decode", "change", "error", "said"),
    [
        (False, spoiled, ValueError, "the given future holds NaN"),
        (True, lambda f: replace(f, values={}), ValueError, "the given future holds nothing"),
        (True, lambda f: f.select([0]), ValueError, "has 1 rows, expected 2"),
        (True, cropped, ValueError, r"frames of shape \(16, 8, 3\), expected \(16, 16, 3\)"),
        (
            True,
            lambda f: replace(f, values={"image/tp": f.values["image/top"]}),
            KeyError,
            "did you mean 'image/top'",
        ),
    ],
    ids=["nan", "empty", "rows", "size", "view"],
)
def test_a_future_that_cannot_be_given(policy, observation, decode, change, error, said) -> None:
    future = policy.query([observation] * 2, VIDEO, decode=decode).future
    with pytest.raises(error, match=said):
        policy.query([observation] * 2, INVERSE, future=change(future))


@pytest.mark.parametrize(
    ("query", "options", "error", "said"),
    [
        (Query(sampled=[VALUE]), {}, Refusal, "pupil does not answer .*it answers POLICY, VIDEO"),
        (FORWARD, {}, ValueError, "FORWARD needs an action"),
        (INVERSE, {}, ValueError, "INVERSE needs a future"),
        (POLICY, {"action": np.zeros((8, 4))}, ValueError, "POLICY does not take an action"),
        (POLICY, {"samples": 0}, ValueError, "0 samples .* expected at least 1"),
        (POLICY, {"seed": [1, 2]}, ValueError, "2 seeds for 1 observations"),
        (POLICY, {"seed": -1}, ValueError, "not negative"),
    ],
)
def test_a_question_that_cannot_be_answered(
    policy, observation, query, options, error, said
) -> None:
    with pytest.raises(error, match=said):
        policy.query(observation, query, **options)


def test_nobody_is_asked_nothing(policy) -> None:
    with pytest.raises(ValueError, match="there is no observation"):
        policy.query([], POLICY)
    with pytest.raises(ValueError, match="samples at least one stream"):
        Query(given=[FUTURE])


def test_an_action_outside_the_space_stops_at_the_environment(observation) -> None:
    import point_env

    env = point_env.PointEnv()
    state = env.get_state()
    for action in (np.full(4, 2.0), np.full(4, np.nan), np.zeros(3)):
        with pytest.raises(ValueError, match="action"):
            env.step(action)
    np.testing.assert_array_equal(env.get_state(), state)
