from __future__ import annotations

import numpy as np
import pytest

from wamlab.data.align import check_alignment


@pytest.mark.parametrize("lag", [-2, -1, 0, 1, 2])
def test_the_lag_is_found(lag: int) -> None:
    """Row t holds the action of row t + lag, whose change lies lag rows later."""
    rng = np.random.default_rng(0)
    states, actions = [], []
    for _ in range(5):
        action = rng.uniform(-1, 1, (60, 2))
        state = np.concatenate([np.zeros((1, 2)), np.cumsum(0.1 * action, axis=0)])
        states.append(state[3:-3])
        actions.append(action[3 + lag : len(action) - 3 + lag])
    result = check_alignment(states, actions)
    assert result.best == lag
    assert result.ok is (lag == 0)
    assert result.weights[lag] == pytest.approx(1, abs=1e-9)


def lagging(noise: float, *, feedback: float = 0.0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Smooth actions, and a controller that follows them over many ticks."""
    rng = np.random.default_rng(2)
    states, actions = [], []
    for _ in range(10):
        state, speed, wish, goal = 0.0, 0.0, 0.0, 1.0
        states.append([state])
        actions.append([])
        for _ in range(200):
            wish = 0.9 * wish + 0.1 * rng.normal()
            actions[-1].append(wish if not feedback else feedback * (goal - state))
            speed = 0.8 * speed + 0.2 * actions[-1][-1] if not feedback else actions[-1][-1]
            state += 0.1 * speed + noise * rng.normal()
            states[-1].append(state)
    as_rows = lambda parts: [np.array(part)[:, None] for part in parts]  # noqa: E731
    return as_rows(states), as_rows(actions)


@pytest.mark.parametrize("noise", [0.0, 0.001])
@pytest.mark.parametrize("lag", [-1, 0, 1])
def test_smooth_actions_of_a_lagging_controller_are_told_from_shifted_ones(lag, noise) -> None:
    """The largest correlation lies two ticks late, whatever is declared."""
    states, actions = lagging(noise)
    if lag:
        states = [state[1:] if lag < 0 else state[:-1] for state in states]
        actions = [action[:-1] if lag < 0 else action[1:] for action in actions]
    result = check_alignment(states, actions)
    assert (result.best, result.ok) == (lag, lag == 0)


def test_actions_that_answer_what_happened_do_not_cause_it() -> None:
    """A push by noise is answered one tick later: the answer explains it, but moved nothing."""
    assert check_alignment(*lagging(0.05, feedback=1.0)).ok is None


def test_sizes_decide_where_directions_cannot() -> None:
    """The action turns the motion by a fresh angle at each step: only its size is seen."""
    rng = np.random.default_rng(1)
    size, angle = rng.uniform(0, 1, 400), rng.uniform(0, 2 * np.pi, (2, 400))
    action = size[:, None] * np.stack([np.cos(angle[0]), np.sin(angle[0])], axis=1)
    move = size[:, None] * np.stack([np.cos(angle[1]), np.sin(angle[1])], axis=1)
    state = np.concatenate([np.zeros((1, 2)), np.cumsum(move, axis=0)])
    assert check_alignment([state], [action]).ok is True
    late = check_alignment([state[1:]], [action[:-1]])
    assert (late.method, late.best, late.ok) == ("sizes of action and change", -1, False)


def test_what_cannot_be_judged_is_not_judged() -> None:
    still = np.zeros((50, 3))
    assert check_alignment([still], [np.ones((49, 2))]).ok is None
    assert check_alignment([], []).ok is None
    assert check_alignment([still[:4]], [np.ones((3, 2))]).ok is None
