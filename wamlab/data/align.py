"""Does ``a_t`` really carry ``o_t`` to ``o_{t+1}``? A self-test by regression on several lags.

A shift by one is a small loss to a policy, but it makes every world model and every joint measure
silently wrong, because the action then describes another transition.

Smooth actions resemble their neighbours, and a controller that lags moves long after a command, so
the lag of the largest correlation says little. What cannot lie is where the effect *begins*: the
change of the state is regressed on the actions of all lags together, and no action moves anything
before it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

LAGS = (-2, -1, 0, 1, 2)
WINDOWS = ((-3, 5), (-3, 3))
"""First and last lag of the regression: the wide one where there are rows enough for it."""
ROWS_PER_LAG = 10
PAIRED = 0.3
"""A state dimension is judged by the action that it correlates with most, from this on."""
BEGUN = 0.1
"""The effect begins at the first lag that explains this share of what the best one does."""
SHARP = 1 / 3
"""The lag before that explains at most this share of it; else the beginning is blurred."""
SURE = 6.0
"""Of the F statistic of that lag, which noise has around 1."""


@dataclass(frozen=True)
class AlignmentResult:
    """How much each lag's action moves the state; the declared lag is always 0.

    ``weights`` are those of a joint regression of the change ``o_{t+k+1} - o_{t+k}`` on the action
    ``a_t`` for all lags k, in standard deviations of both. ``best`` is the lag at which the effect
    begins. ``ok`` is None where nothing can be said: actions or states are missing, constant, or
    too short, go with no change, or are so smooth that a lag cannot be told from the next.
    """

    weights: dict[int, float]
    best: int | None
    ok: bool | None
    method: str

    def __str__(self) -> str:
        shown = ", ".join(f"{lag:+d}: {value:.2f}" for lag, value in self.weights.items())
        verdict = {True: "as declared", False: f"shifted by {self.best}", None: "cannot be judged"}
        return f"{verdict[self.ok]} ({'; '.join(filter(None, (self.method, shown)))})"


def check_alignment(
    states: Sequence[Float[np.ndarray, "n1 s"]], actions: Sequence[Float[np.ndarray, "n a"]]
) -> AlignmentResult:
    """Find the lag at which actions begin to move the state.

    Each dimension of the state is held against the dimension of the action that its change
    correlates with most, over all lags, and the dimensions are judged together. Where no pair
    reaches 0.3, the sizes of action and change are compared instead.

    An effect that seems to begin with the sign against what follows is none: it is how actions
    answer what has happened.

    Args:
        states: per episode, o_0 .. o_N. actions: per episode, a_0 .. a_{N-1}.
    """
    pairs = [
        (np.diff(np.asarray(s, np.float64), axis=0), np.asarray(a, np.float64))
        for s, a in zip(states, actions, strict=True)
        if len(a) >= 8
    ]
    if not pairs or not pairs[0][0].shape[1] or not pairs[0][1].shape[1]:
        return AlignmentResult({}, None, None, "no data")
    lags, acts, change = _stack(pairs)
    together = np.max(
        [_correlation(change, acts[:, i]) for i, k in enumerate(lags) if k in LAGS], 0
    )
    paired = [(s, int(a)) for s, a in enumerate(together.argmax(1)) if together[s, a] >= PAIRED]
    if paired:
        method = ", ".join(f"state {state} with action {action}" for state, action in paired[:3])
        return _judge(lags, [(acts[..., a], change[:, s]) for s, a in paired], method)
    sizes = np.linalg.norm(acts, axis=-1), np.linalg.norm(change, axis=-1)
    return _judge(lags, [sizes], "sizes of action and change")


def _stack(
    pairs: Sequence[tuple[Any, Any]],
) -> tuple[list[int], Float[np.ndarray, "r k a"], Float[np.ndarray, "r s"]]:
    """The lags that there are rows for, the actions at each of them, and the changes."""
    for first, last in WINDOWS:
        lags = list(range(first, last + 1))
        acts, changes = [], []
        for change, action in pairs:
            time = np.arange(last, len(action) + first)
            acts.append(action[time[:, None] - lags])
            changes.append(change[time])
        if sum(map(len, changes)) >= ROWS_PER_LAG * len(lags):
            break
    return lags, np.concatenate(acts), np.concatenate(changes)


def _correlation(
    change: Float[np.ndarray, "r s"], action: Float[np.ndarray, "r a"]
) -> Float[np.ndarray, "s a"]:
    change, action = change - change.mean(axis=0), action - action.mean(axis=0)
    scale = np.linalg.norm(change, axis=0)[:, None] * np.linalg.norm(action, axis=0)[None]
    product = np.abs(change.T @ action)
    return np.divide(product, scale, out=np.zeros_like(scale), where=scale > 1e-9)


def _judge(
    lags: Sequence[int], pairs: Sequence[tuple[Float[Any, "r k"], Float[Any, " r"]]], method: str
) -> AlignmentResult:
    """Where the effect begins, of pairs of an action at all lags and the change that follows it."""
    parts = [_regress(acts, change) for acts, change in pairs]
    weight, share, sure = (np.mean(part, axis=0) for part in zip(*parts, strict=True))
    inner = range(1, len(lags) - 1)  # the outermost lags stand for all that lie beyond them
    begin = next((i for i in inner if share[i] > BEGUN * share[1:-1].max()), 0)
    shown = {lag: float(weight[lags.index(lag)]) for lag in LAGS}
    blurred = begin > 1 and share[begin - 1] > SHARP * share[begin]
    if begin == 0 or sure[begin] < SURE or weight[begin] < 0 or blurred:
        return AlignmentResult(shown, None, None, method)
    return AlignmentResult(shown, lags[begin], lags[begin] == 0, method)


def _regress(
    acts: Float[np.ndarray, "r k"], change: Float[np.ndarray, " r"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Of each lag its weight beside the others, what it alone explains, and the F of that.

    The weight of the inner lag that explains most is positive, and its share is 1.
    """
    rows, count = acts.shape
    scale = acts.std(axis=0)
    if rows <= count + 1 or change.std() < 1e-9 or scale.max() < 1e-9:
        return np.zeros(count), np.zeros(count), np.zeros(count)
    x = (acts - acts.mean(axis=0)) / np.where(scale < 1e-9, 1, scale)
    y = (change - change.mean()) / change.std()
    weight, left = _fit(x, y)
    cost = np.array([_fit(np.delete(x, i, axis=1), y)[1] for i in range(count)]) - left
    best = 1 + int(cost[1:-1].argmax())
    share = cost.clip(0) / max(cost[best], 1e-12)
    return weight * np.sign(weight[best]), share, cost * (rows - count - 1) / (left + 1e-12)


def _fit(
    x: Float[np.ndarray, "r k"], y: Float[np.ndarray, " r"]
) -> tuple[Float[np.ndarray, " k"], float]:
    """Least squares, and the variance that is left."""
    weight = np.linalg.lstsq(x, y, rcond=None)[0]
    return weight, float(np.square(y - x @ weight).mean())
