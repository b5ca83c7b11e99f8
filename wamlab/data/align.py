"""Does ``a_t`` really carry ``o_t`` to ``o_{t+1}``? A self-test by correlation at several lags.

A shift by one is a small loss to a policy, but it makes every world model and every joint measure
silently wrong, because the action then describes another transition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

LAGS = (-2, -1, 0, 1, 2)
MARGIN = 0.02


@dataclass(frozen=True)
class AlignmentResult:
    """Correlation of actions with state changes at each lag; the declared lag is always 0.

    At lag k the action ``a_t`` is compared with the change ``o_{t+k+1} - o_{t+k}``. ``ok`` is None
    where nothing can be said: actions or states are missing, constant, or too short.
    """

    correlations: dict[int, float]
    best: int | None
    ok: bool | None
    method: str

    def __str__(self) -> str:
        shown = ", ".join(f"{lag:+d}: {value:.2f}" for lag, value in self.correlations.items())
        verdict = {True: "as declared", False: f"shifted by {self.best}", None: "cannot be judged"}
        return f"{verdict[self.ok]} ({self.method}; {shown})"


def check_alignment(
    states: Sequence[Float[np.ndarray, "n1 s"]], actions: Sequence[Float[np.ndarray, "n a"]]
) -> AlignmentResult:
    """Find the lag at which actions explain the change of the state best.

    Signed: the state and action dimensions that go together best, over all lags, are found by the
    largest absolute correlation. Where no pair reaches 0.3 at any lag, the sizes of action and
    change are compared instead. A lag beats the declared one only by more than 0.02.

    Args:
        states: per episode, o_0 .. o_N. actions: per episode, a_0 .. a_{N-1}.
    """
    pairs = [(s, a) for s, a in zip(states, actions, strict=True) if len(a) >= 8]
    if not pairs or not pairs[0][0].shape[1] or not pairs[0][1].shape[1]:
        return AlignmentResult({}, None, None, "no data")
    signed = {lag: _pair_correlation(*_stack(pairs, lag)) for lag in LAGS}
    matrix = np.stack([signed[lag] for lag in LAGS])
    if matrix.max() >= 0.3:
        _, state, action = np.unravel_index(matrix.argmax(), matrix.shape)
        found = {lag: float(signed[lag][state, action]) for lag in LAGS}
        return _judge(found, f"state {state} with action {action}")
    sizes = {lag: _size_correlation(*_stack(pairs, lag)) for lag in LAGS}
    return _judge(sizes, "sizes of action and change")


def _stack(pairs: Sequence[tuple[Any, Any]], lag: int) -> tuple[np.ndarray, np.ndarray]:
    changes, acts = [], []
    for state, action in pairs:
        change = np.diff(np.asarray(state, np.float64), axis=0)
        steps = len(action)
        time = np.arange(max(0, -lag), min(steps, steps - lag))
        changes.append(change[time + lag])
        acts.append(np.asarray(action, np.float64)[time])
    return np.concatenate(changes), np.concatenate(acts)


def _pair_correlation(change: np.ndarray, action: np.ndarray) -> Float[np.ndarray, "s a"]:
    change, action = change - change.mean(axis=0), action - action.mean(axis=0)
    scale = np.linalg.norm(change, axis=0)[:, None] * np.linalg.norm(action, axis=0)[None]
    product = np.abs(change.T @ action)
    return np.divide(product, scale, out=np.zeros_like(scale), where=scale > 1e-9)


def _size_correlation(change: np.ndarray, action: np.ndarray) -> float:
    sizes = [np.linalg.norm(x, axis=1, keepdims=True) for x in (change, action)]
    return float(_pair_correlation(*sizes)[0, 0])


def _judge(found: dict[int, float], method: str) -> AlignmentResult:
    best = max(found, key=lambda lag: found[lag])
    if found[best] < 0.1:
        return AlignmentResult(found, None, None, method)
    if found[best] - found[0] <= MARGIN:
        best = 0
    return AlignmentResult(found, best, best == 0, method)
