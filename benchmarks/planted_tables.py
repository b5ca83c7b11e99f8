"""The planted faults beside the joint measures, as a table and against a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from findings import MISSING, Finding, verdict
from tables import Found
from wording import command, machine, span, table

from wamlab.report.words import between, listed, number, reader_error

GOOD = "oracle"
ASKED = ("action-blind", "robot-only", "optimist", "late", "static")
ENTITIES = ("robot", "object")
TITLES = {
    "state_error": "error",
    "state_eic": "EIC",
    "state_eic_ref": "EIC_ref",
    "state_eic_cf": "EIC_cf",
    "state_skill": "SKILL",
    "state_cmr": "CMR",
    "state_iea": "IEA",
}
SCORES = tuple(name for name in TITLES if name != "state_error")
PIXELS = {"eic": "EIC, pixels", "eic_cf": "EIC_cf, pixels", "skill": "SKILL, pixels"}
MARGIN = "state_dwa"
BIASES = {"state_ocb": "OCB", "state_ocb_imposed": "OCB of imposed"}
ERRORS = tuple(f"error {entity}" for entity in ENTITIES)
UNDEFINED, UNMEASURED = "undefined", "not measured"
NONE = {"value": None}
TARGET = (
    f"{listed(list(ASKED))} imaginations are each told from a good one by a measure whose "
    "interval excludes the good one's value, and no joint measure scores it surely higher"
)


def finding(found: Found) -> Finding:
    """Whether every fault that the target names is told apart, and no measure prefers one."""
    if (record := found.files.get("planted_faults")) is None:
        return Finding("planted faults", TARGET, "", MISSING)
    faults = record["faults"]
    complete = {GOOD, *ASKED} <= set(faults)
    told = [fault for fault in ASKED if fault in faults and any(telling(faults, fault))]
    above = [f"{fault} by {what}" for fault in ASKED for what in preferring(faults, fault)]
    said = f"{len(told)} of {len(ASKED)} told apart; scored above: {listed(above) or 'none'}"
    return Finding(
        "planted faults", TARGET, said, verdict(told == list(ASKED) and not above, complete)
    )


def telling(faults: Mapping[str, Any], fault: str) -> Iterator[str]:
    """Measures whose interval of the fault lies below the good one's value.

    An error in metres is none: it has no zero, and who does nothing has the smallest.
    """
    for name, one, good in _scores(faults, fault):
        if one.interval and one.interval[1] < good.value and name not in ERRORS:
            yield name


def preferring(faults: Mapping[str, Any], fault: str) -> Iterator[str]:
    """Measures that score the fault above the good one: its interval lies above that value."""
    for name, one, good in _scores(faults, fault):
        if one.interval and one.interval[0] > good.value:
            yield name


def tables(found: Found) -> str:
    """What was planted, every measure of every fault, and what tells it apart."""
    if (record := found.files.get("planted_faults")) is None:
        return "Not measured (`python benchmarks/planted_faults.py`).\n"
    parts = [_scores_table(record), _normalised_table(record)]
    parts += [_whole_table(record), _pixels_table(record)]
    return "\n".join([_intro(record), *filter(None, parts), _limits(record), _origin(record)])


def _limits(record: Mapping[str, Any]) -> str:
    """What these imaginations cannot show of the measures."""
    faults = record["faults"].values()
    names = {**{name: TITLES[name] for name in SCORES}, MARGIN: "DWA"}
    blind = [
        f"{title} {entity}"
        for name, title in names.items()
        for entity in ENTITIES
        if all(one.get(name, {}).get(entity, NONE)["value"] is None for one in faults)
    ]
    unseen = (
        f"Undefined in every row, the oracle's included, are {listed(blind)}: the reader is not "
        "exact enough, so that no fault of these is seen by them here. "
        if blind
        else ""
    )
    return (
        f"{unseen}The frames that are imagined lie eight steps apart, and *late* is late by as "
        "many: whether a lag of one step would be told is not shown.\n"
    )


class Score(NamedTuple):
    """A value of which more is better."""

    value: float
    interval: tuple[float, float] | None


def _scores(faults: Mapping[str, Any], fault: str) -> Iterator[tuple[str, Score, Score]]:
    """Each measure that has a value for both: its name, of this fault, of the good one."""
    measures, best = (_named(faults.get(which, {})) for which in (fault, GOOD))
    for name, one in measures.items():
        if name in best:
            yield name, one, best[name]


def _named(measures: Mapping[str, Any]) -> dict[str, Score]:
    """Every joint measure with a value, by a name that is read alone, so that more is better.

    DIV is none: it is of the actions alone.
    """
    found = {
        f"{title} {entity}": (one, times)
        for name, title, times in (
            *((name, TITLES[name], 1) for name in SCORES),
            *((name, title, 1) for name, title in PIXELS.items()),
            (MARGIN, "DWA", 1),
            ("state_error", TITLES["state_error"], -1),
        )
        for entity in ENTITIES
        if (one := measures.get(name, {}).get(entity))
    }
    found |= {title: (measures[name], 0) for name, title in BIASES.items() if name in measures}
    found |= {"ICC": (measures["icc"], 1)} if "icc" in measures else {}
    return {
        name: _score(one, times) for name, (one, times) in found.items() if one["value"] is not None
    }


def _score(one: Mapping[str, Any], times: int) -> Score:
    """With -1 less is better, with 0 what is nearer to 0."""
    ends = one["interval"]
    if times:
        return Score(times * one["value"], ends and tuple(sorted(times * end for end in ends)))
    if not ends:
        return Score(-abs(one["value"]), None)
    near = 0.0 if ends[0] <= 0 <= ends[1] else min(map(abs, ends))
    return Score(-abs(one["value"]), (-max(map(abs, ends)), -near))


def _intro(record: Mapping[str, Any]) -> str:
    settings = record["settings"]
    planted = "; ".join(f"*{fault}*: {what}" for fault, what in record["what"].items())
    errors = "; ".join(
        f"{env}: {reader_error(one)}" for env, one in record["reader_errors"].items()
    )
    return (
        "Imaginations with a known fault, rendered by the simulator and read by the state reader "
        f"that also reads those of models ({settings['states']} states of each of "
        f"{listed(settings['envs'])}, {settings['samples']} own samples from each). {planted}. "
        "All act as the expert does, on one variant after the other and with a push of its own. "
        f"The reader's error on starts that it never saw: {errors}.\n\n"
        "A cell is robot / object; an undefined one says so. The oracle's row is what can be "
        "attained with this reader.\n"
    )


def _scores_table(record: Mapping[str, Any]) -> str:
    faults = record["faults"]
    rows = [
        [
            fault,
            *(
                " / ".join(_cell(faults[fault][name][entity], name) for entity in ENTITIES)
                for name in TITLES
            ),
            listed(list(telling(faults, fault))) or ("" if fault == GOOD else "nothing"),
        ]
        for fault in faults
    ]
    return table(["planted", *(_head(name) for name in TITLES), "told from the oracle by"], rows)


def _normalised_table(record: Mapping[str, Any]) -> str:
    """Every score on the way from no coupling to what can be attained with this reader."""
    shares = {
        fault: [[_share(one[name][entity]) for entity in ENTITIES] for name in SCORES]
        for fault, one in record["faults"].items()
    }
    known = [share for rows in shares.values() for row in rows for share in row]
    if all(share is None for share in known):
        return ""
    rows = [
        [fault, *(" / ".join(map(number, pair)) for pair in pairs), number(_least(pairs))]
        for fault, pairs in shares.items()
    ]
    head = ["normalised", *(TITLES[name] for name in SCORES), "the least"]
    return (
        "The same between no coupling (0: a still future, for CMR other samples) and the oracle "
        f"(1).\n\n{table(head, rows)}"
    )


def _share(one: Mapping[str, Any]) -> float | None:
    return None if one["value"] is None else one["details"].get("normalised")


def _least(pairs: Sequence[Sequence[float | None]]) -> float | None:
    return min((share for pair in pairs for share in pair if share is not None), default=None)


def _pixels_table(record: Mapping[str, Any]) -> str:
    """The variants that no reader is needed for."""
    rows = [
        [
            fault,
            *(" / ".join(_cell(one[name][entity], name) for entity in ENTITIES) for name in PIXELS),
        ]
        for fault, one in record["faults"].items()
        if PIXELS.keys() <= one.keys()
    ]
    return table(["planted", *PIXELS.values()], rows) if rows else ""


def _head(name: str) -> str:
    return f"{TITLES[name]}, mm" if name == "state_error" else TITLES[name]


def _cell(one: Mapping[str, Any], name: str) -> str:
    if one["value"] is None:
        return UNDEFINED
    times, digits = (1000.0, 0) if name == "state_error" else (1.0, 2)
    return f"{number(times * one['value'], digits)} ({between(one['interval'], digits, times)})"


def _whole_table(record: Mapping[str, Any]) -> str:
    faults = record["faults"]
    rows = [
        [
            fault,
            number(one["state_iea"]["robot"]["details"].get("gain")),
            number(one["state_iea"]["object"]["details"].get("gain")),
            _cell(one["state_ocb"], "state_ocb"),
            _cell(one["state_ocb_imposed"], "state_ocb"),
            *_dwa(one[MARGIN]),
            *_icc(one.get("icc")),
        ]
        for fault, one in faults.items()
    ]
    head = ["planted", "gain robot", "gain object", *BIASES.values()]
    head += ["nearest world", "DWA margin", "gain imagined"]
    return table([*head, "ICC", "its ceiling", "its lag (of the ceiling)"], rows)


def _dwa(by_entity: Mapping[str, Any]) -> list[str]:
    """The nearest world, the margin of the true one and the fitted gain, of robot / object."""
    if any(entity not in by_entity for entity in ENTITIES):
        return [UNMEASURED] * 3
    found = [by_entity[entity] for entity in ENTITIES]
    worlds = [str(one["details"].get("world", UNDEFINED)) for one in found]
    gains = [_fitted(one["details"], "gain") for one in found]
    return [" / ".join(cells) for cells in (worlds, [_cell(one, MARGIN) for one in found], gains)]


def _fitted(details: Mapping[str, Any], parameter: str) -> str:
    name = f"fitted_{parameter}"
    if (value := details.get(name)) is None:
        return UNDEFINED
    where = f", {details[f'{name}_is']}" if f"{name}_is" in details else ""
    return f"{number(value, 2)}{span(details.get(f'{name}_interval'))}{where}"


def _icc(one: Mapping[str, Any] | None) -> list[str]:
    """What the judge found, what it finds off the executions, and by how many steps it is late."""
    if one is None:
        return ["not judged"] * 3
    found = one["details"]
    if one["value"] is None:
        return [UNDEFINED] * 3
    ceiling = f"{number(found['ceiling'], 2)} ({between(found['ceiling_interval'], 2)})"
    lags = ["–" if found[name] is None else str(found[name]) for name in ("lag", "ceiling_lag")]
    return [_cell(one, "icc"), ceiling, f"{lags[0]} ({lags[1]})"]


def _origin(record: Mapping[str, Any]) -> str:
    return f"`{command(record)}`, {machine(record)}\n"
