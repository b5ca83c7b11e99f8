"""Open loop: what a model guesses at recorded instants, against what was recorded, beside rivals.

Nothing is executed, so what is compared depends on the query. An action of POLICY or JOINT is held
against the demonstrator's, who may have had other right ways: its error is not 0 for a perfect
policy. INVERSE reads its action from the recorded frames. A future of FORWARD was imagined under
the recorded action: there alone the recorded frames are what the imagined action did. A future of
JOINT or VIDEO follows the model's own choice, and differs from the recorded one also where that
choice differs.

An action's error is absolute, in raw units by dimension, or in normalised units (of the training
actions' half range) averaged over the dimensions that vary. Every number is averaged over the
instants of an episode, then over episodes; intervals resample whole episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from wamlab.metrics.base import NotApplicable, Result, Row, item_means, metric, summarise
from wamlab.metrics.stats import interval_over
from wamlab.metrics.visual import MOVE_FLOOR, Compared, compared, where_moving
from wamlab.types import Guess, Recording

FLAT = 1e-8
OTHER_FRAMES = "INVERSE, other frames"
"""The guess of INVERSE that was shown the frames of another instant of the episode."""
Error = Float[np.ndarray, "h a"]


@metric("recorded_action_error", needs="recordings", unit="normalised")
def recorded_action_error(
    recordings: Sequence[Recording], *, query: str = "POLICY", rival: str = ""
) -> Result:
    """How far an action is from the recorded one: the model's by ``query``, or a rival's.

    ``parts`` are tasks. ``details``: ``steps``, the error of each step of the chunk, and
    ``dimensions``, by name the raw error, its interval and its unit.
    """
    pairs = _acting(recordings, query, rival)
    rows = [Row(episode_name(one), one.env, _normalised(one, error)) for one, error in pairs]
    shortest = min(len(error) for _, error in pairs)
    steps = [
        _over_episodes([(one, _normalised(one, error[[t]])) for one, error in pairs])
        for t in range(shortest)
    ]
    first = pairs[0][0]
    dimensions = {
        name: _dimension([(one, float(error[:, i].mean())) for one, error in pairs])
        | {"unit": first.action_unit[i]}
        for i, name in enumerate(first.action_names)
    }
    details = {"steps": steps, "dimensions": dimensions}
    return summarise("recorded_action_error", "normalised", rows, details=details)


@metric("recorded_action_over_rival", needs="recordings", unit="normalised")
def recorded_action_over_rival(
    recordings: Sequence[Recording], *, query: str = "POLICY", rival: str = "hold"
) -> Result:
    """A rival's action error less the model's, paired by instant: above 0 the model is nearer."""
    theirs = {_key(one): error for one, error in _acting(recordings, "", rival)}
    rows = [
        Row(
            episode_name(one),
            one.env,
            _normalised(one, theirs[_key(one)]) - _normalised(one, error),
        )
        for one, error in _acting(recordings, query, "")
        if _key(one) in theirs
    ]
    return summarise("recorded_action_over_rival", "normalised", rows)


@metric("recorded_inverse_r2", needs="recordings")
def recorded_inverse_r2(recordings: Sequence[Recording]) -> Result:
    """How much of the recorded actions INVERSE reads off the recorded frames: R^2.

    1 is exact, 0 no better than always saying the mean action; averaged over the dimensions that
    vary. ``details``: ``dimensions`` by name; ``other_frames``, the same from the frames of
    another instant, which share the scene: what is left there is not read off the motion; and
    ``between_frames``, that of one who knows the mean of the actions between one frame and the
    next, but not their order. Whoever has more also knows how demonstrators move.
    """
    pairs, first = _acting(recordings, "INVERSE", ""), recordings[0]
    sums = _sums(pairs)
    known = {
        name: float(value)
        for name, value in zip(first.action_names, _explained(sums), strict=True)
        if np.isfinite(value)
    }
    if not known:
        raise NotApplicable("no dimension of the recorded actions varies")
    means = [(one, _off_the_means(one)[: len(error)]) for one, error in pairs]
    details: dict[str, Any] = {"dimensions": known, "between_frames": mean_explained(_sums(means))}
    with suppress(NotApplicable):
        details["other_frames"] = mean_explained(_sums(_acting(recordings, OTHER_FRAMES, "")))
    return Result(
        "recorded_inverse_r2",
        "",
        value=mean_explained(sums),
        interval=interval_over(sums, statistic=mean_explained),
        n=len(sums),
        details=details,
    )


@metric("recorded_moving_psnr", needs="recordings", unit="dB")
def recorded_moving_psnr(
    recordings: Sequence[Recording], *, query: str = "FORWARD", by: str = "view"
) -> Result:
    """Moving-pixel PSNR of a future imagined by ``query`` against the recorded frames.

    ``parts`` are views at offsets, or tasks with ``by="task"``.
    """
    rows, undefined = _seen(recordings, query, "", by)
    return summarise("recorded_moving_psnr", "dB", rows, undefined)


@metric("recorded_moving_psnr_over_rival", needs="recordings", unit="dB")
def recorded_moving_psnr_over_rival(
    recordings: Sequence[Recording], *, query: str = "FORWARD", rival: str = "last frame"
) -> Result:
    """The model's moving-pixel PSNR less a rival's on the same pixels; ``details`` hold both.

    Only instants at which the rival shows something count.
    """
    shared = [one for one in recordings if one.rivals.get(rival, Guess()).imagined]
    if not shared:
        raise NotApplicable(f"no frames of the rival {rival!r} were saved")
    ours, undefined = _seen(shared, query, "", "view")
    theirs, _ = _seen(shared, query, rival, "view")
    rows = [Row(a.item, a.part, a.value - b.value) for a, b in zip(ours, theirs, strict=True)]
    details: dict[str, Any] = {"rival": rival}
    if rows:
        mine, other = (np.array(list(item_means(side).values())) for side in (ours, theirs))
        details |= {"model": float(mine.mean()), "theirs": float(other.mean())}
        details |= {"wins": float((mine > other).mean())}
    name = "recorded_moving_psnr_over_rival"
    return summarise(name, "dB", rows, undefined, details=details)


def episode_name(recording: Recording) -> str:
    """How a recording's episode is called in results."""
    return f"episode {recording.episode}"


def _acting(
    recordings: Sequence[Recording], query: str, rival: str
) -> list[tuple[Recording, Error]]:
    """The absolute error of each action that was guessed, over the steps both sides have."""
    found, reasons = [], set()
    for one in recordings:
        guess = one.rivals.get(rival) if rival else one.guesses.get(query)
        if guess is not None and guess.action is not None:
            steps = min(len(guess.action), len(one.action))
            found.append((one, np.abs(guess.action[:steps] - one.action[:steps]).astype(float)))
        elif guess is not None and guess.why_not:
            reasons.add(guess.why_not)
    if not found:
        who = f"the rival {rival!r}" if rival else query
        raise NotApplicable("; ".join([f"no action of {who} was logged", *sorted(reasons)]))
    return found


def _seen(
    recordings: Sequence[Recording], query: str, rival: str, by: str
) -> tuple[list[Row], list[str]]:
    """Scores of every imagined frame, or of a rival's on the same pixels."""
    showing = [one for one in recordings if one.guesses.get(query, Guess()).imagined]
    if not showing:
        whys = {one.guesses[query].why_not for one in recordings if query in one.guesses} - {""}
        raise NotApplicable("; ".join([f"no future of {query} was logged", *sorted(whys)]))
    rows, undefined = [], []
    for one in showing:
        for part, pair in _pairs(one, query, rival):
            value = where_moving(pair)
            if value is None:
                undefined.append("too few moving pixels in a frame")
            else:
                rows.append(Row(episode_name(one), one.env if by == "task" else part, value))
    return rows, undefined


def _pairs(one: Recording, query: str, rival: str) -> Iterator[tuple[str, Compared]]:
    guess = one.guesses[query]
    shown = one.rivals[rival].imagined if rival else guess.imagined
    assert guess.imagined is not None
    assert guess.offsets is not None
    assert shown is not None
    columns = [one.offsets.tolist().index(offset) for offset in guess.offsets]
    for view, imagined in guess.imagined.items():
        seen = shown[view][columns] if rival else imagined
        real = one.ahead[view][columns]
        yield from compared(
            view, guess.offsets, one.now[view][0], imagined, real, seen, MOVE_FLOOR,
            item=episode_name(one),
        )  # fmt: skip


def _normalised(one: Recording, error: Error) -> float:
    """The mean error in normalised units over steps and the dimensions that vary."""
    varies: Bool[np.ndarray, " a"] = one.action_scale > FLAT
    if not varies.any():
        raise NotApplicable("no dimension of the training actions varies")
    return float((error[:, varies] / one.action_scale[varies]).mean())


def _over_episodes(values: Sequence[tuple[Recording, float]]) -> float:
    rows = [Row(episode_name(one), "", value) for one, value in values]
    return float(np.mean(list(item_means(rows).values())))


def _dimension(values: Sequence[tuple[Recording, float]]) -> dict[str, Any]:
    rows = [Row(episode_name(one), "", value) for one, value in values]
    episodes = np.array(list(item_means(rows).values()))
    return {"value": float(episodes.mean()), "interval": interval_over(episodes)}


def _off_the_means(one: Recording) -> Error:
    """How far each action is from the mean of all that lie between the same two frames."""
    between = np.split(one.action.astype(float), [k for k in one.offsets if k < len(one.action)])
    return np.concatenate([np.abs(actions - actions.mean(0)) for actions in between])


def _sums(pairs: Sequence[tuple[Recording, Error]]) -> Float[np.ndarray, "e 4 a"]:
    """By episode and dimension: count, sum and sum of squares of actions, squared errors."""
    episodes: dict[str, np.ndarray] = {}
    for one, error in pairs:
        name = episode_name(one)
        episodes[name] = episodes.get(name, 0) + sums_of(one.action[: len(error)], error)
    return np.stack([*episodes.values()])


def sums_of(
    action_NA: Shaped[np.ndarray, "n a"], error_NA: Float[np.ndarray, "n a"]
) -> Float[np.ndarray, "4 a"]:
    """By dimension the sums that R^2 is made of: see `mean_explained`; those of parts add up."""
    action = action_NA.astype(float)
    return np.stack(
        [np.full(action.shape[1], len(action)), action.sum(0), (action**2).sum(0),
         (error_NA.astype(float) ** 2).sum(0)]
    )  # fmt: skip


def _explained(sums: Float[np.ndarray, "e 4 a"]) -> Float[np.ndarray, " a"]:
    """R^2 of every dimension; NaN where the actions do not vary."""
    count, total, squares, errors = sums.sum(0)
    spread = squares - total**2 / count
    flat = spread <= FLAT * count
    return np.where(flat, np.nan, 1 - errors / np.where(flat, 1.0, spread))


def mean_explained(sums: Float[np.ndarray, "e 4 a"]) -> float:
    """The mean R^2 of the dimensions that vary, from the `sums_of` parts; NaN where none does."""
    known = _explained(sums)
    known = known[np.isfinite(known)]
    return float(known.mean()) if known.size else float("nan")


def _key(one: Recording) -> tuple[int, int]:
    return one.episode, one.step
