"""Physical commonsense on states: does a thing move as things do? No judge model is asked.

The arrays are one thing's places, instant by instant at one rate: true, executed, or read off
imagined frames. Every number is a violation in absolute units, 0 where nothing is wrong:

    jump                    m/s    the fastest step: a thing that is elsewhere all at once
    motion without contact  m      the path that neither touch, falling nor coasting explains
    gravity                 m/s^2  how far free flights are from falling with 9.81, by a parabola
    interpenetration        m      how deep the boxes of two things go into one another

None of them sees what all instants share, nor a world that stops or runs backwards without haste:
a quasi-static scene is as lawful backwards. That takes the truth beside it: `physics_frames`.
Places are points: a turn on the spot moves none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from wamlab.config import nearest
from wamlab.geometry.boxes import Boxes, lowest, overlap
from wamlab.metrics.base import (
    NotApplicable,
    Result,
    Row,
    metric,
    rollout_name,
    summarise,
    who_played,
)
from wamlab.metrics.joint import OBJECT, OBJECT_GATE, ROBOT
from wamlab.metrics.paths import Paths
from wamlab.sim.registry import RATES
from wamlab.types import Episode

GRAVITY = 9.81
FEWEST_FLYING = 5
GRACE = 6
"""So many instants around a touch count as touched. Contacts are looked at only at instants, and an
impact may be over by then: Meta-World's drawers run 5 instants ahead of the first that is seen."""

Way = Float[np.ndarray, "t d"]
Contacts = Sequence[Sequence[tuple[str, str]]]


def jump(place: Way, rate_hz: float) -> float:
    """The fastest step between two instants, m/s.

    Raises:
        NotApplicable: fewer than two instants.
        ValueError: NaN or infinity, or a rate that is not positive.
    """
    steps = _steps(check_way(place, rate_hz, 2))
    return float(np.linalg.norm(steps, axis=1).max() * rate_hz)


def motion_without_contact(place: Way, touched: Bool[np.ndarray, " t"]) -> float:
    """The length in metres of a path (T, 3), z up, that nothing explains.

    A step is explained while the thing is touched (`touched_by`), as far as it goes down (falling),
    and as far as it is no longer than the step before was by right (coasting, bouncing): a thing
    that sets itself in motion is not forgiven for going on.

    Raises:
        NotApplicable: fewer than two instants.
        ValueError: places that are not (T, 3), NaN, or touches of another length.
    """
    steps = _steps(check_way(place, 1.0, 2, three=True))
    _check_length("touched", touched, len(place))
    right, unexplained = 0.0, 0.0
    for step, held in zip(steps, touched[1:] | touched[:-1], strict=True):
        whole, fallen = float(np.linalg.norm(step)), min(float(step[2]), 0.0)
        needed = float(np.linalg.norm([step[0], step[1], step[2] - fallen]))
        if held or needed <= right:
            right = whole
        else:
            unexplained += needed - right
            right = float(np.hypot(right, fallen))
    return unexplained


def falls(place: Way, free: Bool[np.ndarray, " t"], rate_hz: float) -> list[float]:
    """The downward acceleration in m/s^2 of each free flight of a path (T, 3), z up.

    A flight is a run of at least `FEWEST_FLYING` instants of ``free``; to its heights a parabola is
    fitted by least squares, whose second difference it is.

    Raises:
        NotApplicable: no flight is long enough.
        ValueError: places that are not (T, 3), NaN, flags of another length.
    """
    heights = check_way(place, rate_hz, 3, three=True)[:, 2]
    _check_length("free", free, len(place))
    flights = [run for run in _runs(free) if run.stop - run.start >= FEWEST_FLYING]
    if not flights:
        raise NotApplicable(f"never in free flight for {FEWEST_FLYING} instants")
    times = np.arange(len(heights)) / rate_hz
    return [
        -2 * float(np.polyfit(times[run] - times[run.start], heights[run], 2)[0]) for run in flights
    ]


def gravity_error(place: Way, free: Bool[np.ndarray, " t"], rate_hz: float) -> float:
    """How far, in m/s^2, the worst free flight is from falling with `GRAVITY`; see `falls`."""
    return max(abs(found - GRAVITY) for found in falls(place, free, rate_hz))


def in_flight(
    lowest: Float[np.ndarray, " t"],
    touched: Bool[np.ndarray, " t"],
    *,
    ground: float = 0.0,
    above: float = OBJECT_GATE,
) -> Bool[np.ndarray, " t"]:
    """When a thing flies: nothing touches it, and its lowest point is ``above`` over the ground.

    Metres; ``lowest`` as `wamlab.geometry.boxes.lowest` gives it. ``touched`` here is by anything
    at all: `touched_by` with ``moving=None`` and little grace.
    """
    _check_length("touched", touched, len(lowest))
    return ~touched & (lowest > ground + above)


def touched_by(
    contacts: Contacts,
    entity: str,
    *,
    moving: Mapping[str, Bool[np.ndarray, " t"]] | None = None,
    grace: int = GRACE,
) -> Bool[np.ndarray, " t"]:
    """At which instants something that can move ``entity`` touches it, ``grace`` more on each side.

    ``moving``: when each other thing moves; the robot always counts, others only while they move.
    None: whatever touches it counts.
    """
    here = np.zeros(len(contacts), bool)
    for t, pairs in enumerate(contacts):
        others = {name for pair in pairs if entity in pair for name in pair} - {entity}
        here[t] = any(moving is None or o == ROBOT or bool(moving[o][t]) for o in others)
    return _widened(here, grace)


def near_hand(hand: Way, place: Way, reach: float, *, grace: int = GRACE) -> Bool[np.ndarray, " t"]:
    """Touch guessed from distance, where contacts are unknown: the hand within ``reach`` metres."""
    _check_length("the hand's places", hand, len(place))
    return _widened(np.linalg.norm(hand - place, axis=1) <= reach, grace)


def interpenetration(
    poses: Mapping[str, Float[np.ndarray, "t 7"]], boxes: Mapping[str, Boxes]
) -> float:
    """How much deeper two things go into one another than at the first instant, in metres.

    What is given at the first instant is no fault of the video: boxes are larger than what they
    hold, and drawers stand in their chests. What is round fills its box badly: where a ball of
    radius r rolls, the corners of its box seem to sink by up to 0.73 r. Things without boxes (the
    robot, whose fingers no single pose places) are left out.

    Raises:
        NotApplicable: fewer than two things have poses and boxes.
        ValueError: NaN or infinity in poses.
    """
    known = [name for name in poses if name in boxes and len(boxes[name])]
    if len(known) < 2:
        raise NotApplicable(
            f"the boxes of two things are needed; known: {', '.join(known) or 'none'}"
        )
    for name in known:
        check_way(poses[name], 1.0, 2)
    pairs = [overlap(boxes[a], poses[a], boxes[b], poses[b]) for a, b in combinations(known, 2)]
    return float(max((depth - depth[0]).max() for depth in pairs))


def over_paths(paths: Paths, measure: Callable[[Way], float]) -> dict[str, float]:
    """The worst of the imagined ways of each state; the way begins where the thing stands now.

    States for which the measure is not applicable are left out.

    Raises:
        NotApplicable: offsets that are not evenly spaced from now, or no state has a value.
    """
    gaps = np.diff(paths.offsets, prepend=0)
    if len(set(gaps.tolist())) > 1:
        raise NotApplicable(
            f"the offsets {paths.offsets.tolist()} are not evenly spaced from now: no rate"
        )
    found, reasons = {}, set()
    for state, start, imagined in zip(paths.states, paths.start, paths.imagined, strict=True):
        try:
            found[state] = max(measure(np.concatenate([start[None], way])) for way in imagined)
        except NotApplicable as reason:
            reasons.add(str(reason))
    if not found:
        raise NotApplicable("; ".join(sorted(reasons)))
    return found


@metric("jump", needs="episodes", unit="m/s")
def episode_jump(
    episodes: Sequence[Episode], *, rate_hz: float | None = None, entity: str = OBJECT
) -> Result:
    """The fastest step of things in episodes, the mean over episodes.

    ``rate_hz`` is the environment's; None where `wamlab.sim.registry` knows it by its name.
    """

    def fastest(episode: Episode, _: str, way: Way) -> float:
        return jump(way, _rate(episode, rate_hz, "jump"))

    return _over_things("jump", "m/s", episodes, entity, fastest)


@metric("motion_without_contact", needs="episodes", unit="m")
def episode_motion_without_contact(episodes: Sequence[Episode], *, entity: str = OBJECT) -> Result:
    """The path of things in episodes that nothing explains, the mean over episodes."""

    def unexplained(episode: Episode, name: str, way: Way) -> float:
        return motion_without_contact(
            way, touched_by(episode.contacts, name, moving=moving(episode.entities))
        )

    _need_contacts(episodes)
    return _over_things("motion_without_contact", "m", episodes, entity, unexplained)


@metric("gravity", needs="episodes", unit="m/s^2")
def episode_gravity(
    episodes: Sequence[Episode],
    *,
    rate_hz: float | None = None,
    boxes: Mapping[str, Mapping[str, Boxes]] | None = None,
    ground: float = 0.0,
    entity: str = OBJECT,
) -> Result:
    """How far free flights of things in episodes are from falling, the mean over episodes.

    ``boxes`` are those of things by environment, as a simulator gives them; no log holds them.
    ``ground`` is the height of the table in metres, ``rate_hz`` as in `episode_jump`.
    """
    if boxes is None:
        raise NotApplicable(
            "whether things lie or fly is told by their boxes, which no log holds: from Python, "
            "compute('gravity', episodes, boxes=...) takes what an environment's boxes() gives"
        )

    def error(episode: Episode, name: str, way: Way) -> float:
        if name not in boxes.get(episode.env, {}):
            raise NotApplicable(f"no boxes were given of {name!r} in {episode.env}")
        low = lowest(boxes[episode.env][name], episode.entities[name].astype(float))
        touched = touched_by(episode.contacts, name, grace=1)
        rate = _rate(episode, rate_hz, "gravity")
        return gravity_error(way, in_flight(low, touched, ground=ground), rate)

    _need_contacts(episodes)
    return _over_things("gravity", "m/s^2", episodes, entity, error)


def moving(
    entities: Mapping[str, Float[np.ndarray, "t 7"]], *, gate: float = OBJECT_GATE / 10
) -> dict[str, Bool[np.ndarray, " t"]]:
    """When each entity moves: its step to or from an instant is longer than ``gate`` metres."""
    found = {}
    for name, poses in entities.items():
        far = np.linalg.norm(_steps(poses[:, :3].astype(float)), axis=1) > gate
        found[name] = np.append(far, False) | np.append(False, far)
    return found


def check_way(place: Way, rate_hz: float, fewest: int, *, three: bool = False) -> Way:
    """The places as float64; see the measures for what is raised."""
    if place.ndim != 2 or (three and place.shape[1] != 3):
        raise ValueError(f"expected places ({'T, 3' if three else 'T, D'}), got {place.shape}")
    if not np.isfinite(place).all():
        raise ValueError("the places hold NaN or infinity: a thing that is not found has no place")
    if not rate_hz > 0:
        raise ValueError(f"expected a rate above 0 Hz, got {rate_hz}")
    if len(place) < fewest:
        raise NotApplicable(f"at least {fewest} instants are needed, got {len(place)}")
    return place.astype(np.float64)


def _over_things(
    name: str,
    unit: str,
    episodes: Sequence[Episode],
    entity: str,
    measure: Callable[[Episode, str, Way], float],
) -> Result:
    if not any(episode.entities for episode in episodes):
        raise NotApplicable("the episodes hold no entity poses")
    rows, undefined = [], []
    for episode in episodes:
        for thing in _things(episode, entity):
            try:
                value = measure(episode, thing, episode.entities[thing][:, :3])
            except NotApplicable as reason:
                undefined.append(str(reason))
            else:
                rows.append(Row(rollout_name(episode), thing, value))
    return summarise(name, unit, rows, undefined, played=who_played(episodes))


def _things(episode: Episode, entity: str) -> Iterable[str]:
    if entity == OBJECT:
        return [name for name in episode.entities if name != ROBOT]
    if entity not in episode.entities:
        raise KeyError(f"{episode.env} has no entity {entity!r}{nearest(entity, episode.entities)}")
    return [entity]


def _need_contacts(episodes: Sequence[Episode]) -> None:
    if any(len(episode.contacts) != len(episode) + 1 for episode in episodes):
        raise NotApplicable("the episodes do not hold the contacts of every instant")


def _rate(episode: Episode, rate_hz: float | None, measure: str) -> float:
    """The rate that was given, or that of the simulator the environment is called after."""
    rate = RATES.get(episode.env.partition("/")[0]) if rate_hz is None else rate_hz
    if rate is None:
        raise NotApplicable(
            f"how often {episode.env} acts is not known, no log holds it: from Python, "
            f"compute({measure!r}, episodes, rate_hz=...) takes it"
        )
    return rate


def _check_length(what: str, array: np.ndarray, length: int) -> None:
    if len(array) != length:
        raise ValueError(f"{what}: expected {length} instants, got {len(array)}")


def _steps(place: Way) -> Float[np.ndarray, "s d"]:
    return np.diff(place, axis=0)


def _widened(flags: Bool[np.ndarray, " t"], by: int) -> Bool[np.ndarray, " t"]:
    return np.convolve(flags, np.ones(2 * by + 1), mode="full")[by : by + len(flags)] > 0


def _runs(flags: Bool[np.ndarray, " t"]) -> Iterator[slice]:
    """Where the flags stay True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    for start, stop in edges.reshape(-1, 2):
        yield slice(int(start), int(stop))
