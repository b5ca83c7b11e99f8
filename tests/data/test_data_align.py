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
    assert result.correlations[lag] == pytest.approx(1, abs=1e-9)


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
