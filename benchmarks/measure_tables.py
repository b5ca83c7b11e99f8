"""What `every_measure.py` found of the models, side by side: a row for each measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import acting_tables
import plausibility_tables
import pooling
from findings import MISSING, Finding, verdict
from pooling import Cell
from tables import Found
from wording import chapter, command, elsewhere, machine, table

from wamlab.report.axes import (
    by_phase,
    called,
    estimate,
    figure,
    normalised_shares,
    over_offsets,
)
from wamlab.report.words import count, listed, number, title
from wamlab.types import STRATA

ASKED, LEAST = {"uwm": (50, 8, 60.0)}, (24, 6, 30.0)
"""States and samples, at the least, and minutes, at the most."""
MODELS = ("uwm", "gr1", "vpp", "unipi")
AGAINST = (
    *("static", "retrieval", "shuffled_action", "wrong_world", "oracle"),
    *("ceiling", "chance", "shuffled", "normalised", "last frame"),
    *("fitted_gain", "fitted_friction"),
)
ENTITIES = ("robot", "object")
JOINT = "joint coupling"
PHASED = ("state_eic_cf", "state_skill", "state_error")
POSES = ("div",)
"""Measures of where things go when the own actions are executed: of no pixels."""
NOTHING = "n/a"
APART = {
    title(name): heading
    for heading, names in (
        (plausibility_tables.TITLE, ("film_success", "imagination_use")),
        (acting_tables.TITLE, ("alarms", "failure_auroc")),
    )
    for name in names
}
"""Measures of logs that are made apart, and the chapter in which they stand."""


def finding(found: Found) -> Finding:
    """Whether every model was measured, on enough states and samples and in time."""
    asked = (
        "the whole vector of `uwm` on `mw-6` (50 states, 8 samples) within 60 minutes, of the "
        "other models (24 states, 6 samples) within 30: all that is measured on probes (the "
        "Turing test, the use of imagination and alarms are played apart)"
    )
    measured = [cell for cell in pooling.newest(found.measured) if cell["protocol"] == "mw-6"]
    if not measured:
        return Finding("measures", asked, "", MISSING)
    said = "; ".join(
        f"`{cell['model']}` {cell['settings']['states']} states, {cell['settings']['samples']} "
        f"samples, {sum(cell['minutes'].values()):.0f} minutes"
        for cell in measured
    )
    good = all(_enough(cell) for cell in measured)
    complete = set(MODELS) <= {cell["model"] for cell in measured}
    return Finding("measures", asked, said, verdict(good, complete=complete))


def _enough(cell: Cell) -> bool:
    states, samples, minutes = ASKED.get(cell["model"], LEAST)
    settings, took = cell["settings"], sum(cell["minutes"].values())
    return settings["states"] >= states and settings["samples"] >= samples and took <= minutes


def tables(found: Found) -> str:
    """One table for each protocol, of the last attempts."""
    if not found.measured:
        return "Not measured (`python benchmarks/every_measure.py mw-6 --models uwm ...`).\n"
    newest = pooling.newest(found.measured)
    protocols = dict.fromkeys(cell["protocol"] for cell in newest)
    return "\n".join(
        _protocol(name, [cell for cell in newest if cell["protocol"] == name]) for name in protocols
    )


def _protocol(name: str, measured: Sequence[Cell]) -> str:
    shown = [_rows(cell) for cell in measured]
    measures = dict.fromkeys(measure for rows in shown for measure in rows)
    silent = [one for one in measures if all(rows.get(one, NOTHING) == NOTHING for rows in shown)]
    heads = [
        f"`{cell['model']}`, seed {cell['seed']}{elsewhere(cell['fidelity']['moving_psnr'])}"
        for cell in measured
    ]
    body = [
        [measure, *(rows.get(measure, "–") for rows in shown)]
        for measure in measures
        if measure not in silent
    ]
    texts = [
        f"- `{cell['model']}`, seed {cell['seed']}: {cell['settings']['states']} states, "
        f"{cell['settings']['samples']} samples; "
        + ", ".join(f"{part} {minutes:.1f}" for part, minutes in cell["minutes"].items())
        + f" minutes. `{command(cell)}`, {machine(cell)}"
        for cell in measured
    ]
    return (
        f"### `{name}`\n\nA cell is the value (its 95 % interval), then what it is read against. "
        "*n/a* says why in the file. *Last frame* is what the frame now scores, were it shown in "
        "the place of the imagination. *Normalised*: 0 is what no coupling scores (a still "
        "picture; for CMR the other samples of a state), 1 the ceiling. ICC takes part for what "
        "the judge reads off the executions of the model's own actions: its shares compare, not "
        "its values, and a value above the ceiling has none (such an action was itself read off "
        "the imagination). Frechet distances grow as N falls, and compare only at one N. The "
        "minutes are of what is measured on probes; the readers of frames serve all models: where "
        "they were there already, their training is not in them.\n\n"
        + table(["measure", *heads], body)
        + _silent(silent)
        + _least(measured)
        + _offsets(measured)
        + _phases(measured)
        + "\n"
        + "\n".join(texts)
        + "\n"
    )


def _silent(names: Sequence[str]) -> str:
    """Measures that have no value here, and where those stand that are measured apart."""
    without = [name for name in names if name not in APART]
    apart: dict[str, list[str]] = {}
    for name in names:
        if name in APART:
            apart.setdefault(chapter(APART[name]), []).append(name)
    said = [f"\nWithout a value for any of them: {'; '.join(without)}.\n"] if without else []
    if apart:
        stand = "; ".join(f"{listed(ones)} in {link}" for link, ones in apart.items())
        said.append(f"\nMeasured apart, from logs of their own: {stand}.\n")
    return "".join(said)


def _least(measured: Sequence[Cell]) -> str:
    """Of each model which joint measure is least, of those that all have, between no coupling and
    its ceiling."""
    shares = [normalised_shares(cell["joint"], cell["axes"][JOINT]) for cell in measured]
    shared = [name for name in shares[0] if all(name in one for one in shares)]
    if not shared:
        return ""
    least = [min(shared, key=one.__getitem__) for one in shares]
    said = "; ".join(
        f"`{cell['model']}` {number(one[which])}, {which}"
        for cell, one, which in zip(measured, shares, least, strict=True)
    )
    of = count(len(shared), "normalised joint measure")
    return f"\nThe least of the {of} that all of these have: {said}.\n"


def _offsets(measured: Sequence[Cell]) -> str:
    """The joint measures on states at each offset."""
    shown = [
        {
            title(name): "; ".join(
                points for _, points in over_offsets({"details": one["details"]})
            )
            for name, one in cell["axes"][JOINT].items()
            if one.get("details", {}).get("curve")
        }
        for cell in measured
    ]
    measures = dict.fromkeys(name for curves in shown for name in curves if curves[name])
    if not measures:
        return ""
    heads = [f"`{cell['model']}`" for cell in measured]
    rows = [[name, *(curves.get(name) or "–" for curves in shown)] for name in measures]
    return f"\nOver offsets, in steps from now:\n\n{table(['measure', *heads], rows)}"


def _phases(measured: Sequence[Cell]) -> str:
    """The measures on states of the robot where they are not the same on the way to contact."""
    rows = [
        [f"`{cell['model']}`", title(name), *(phases.get(stratum, "–") for stratum in STRATA)]
        for name in PHASED
        for cell in measured
        if (phases := dict(by_phase(cell["axes"][JOINT].get(f"{name}, robot", {}))))
    ]
    if not rows:
        return ""
    return f"\nBy contact phase, of the robot:\n\n{table(['of', 'measure', *STRATA], rows)}"


def _rows(cell: Mapping[str, Any]) -> dict[str, str]:
    """The text of every measure by its title, axis by axis."""
    rows = {}
    for name in ("fidelity", "perceptual"):
        rows |= {title(measure): _cell(one) for measure, one in cell[name].items()}
    rows |= {
        title(f"moving_psnr over {rival}"): _cell(one) for rival, one in cell["rivals"].items()
    }
    for entity in ENTITIES:
        for measure, one in cell["joint"].get(entity, {}).items():
            of = f"{title(measure)}, {entity}"
            rows[of if measure in POSES else f"{of} (pixels)"] = _cell(one)
    for measures in cell["axes"].values():
        rows |= {title(measure): _cell(one) for measure, one in measures.items()}
    return rows


def _cell(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return NOTHING
    details = one.get("details", {})
    beside = [
        f"{called(n, details)} {figure(details[n])}" for n in AGAINST if _known(details.get(n))
    ]
    if details.get("above_ceiling"):
        beside.append("surely above its ceiling")
    if one.get("floor") is not None:
        beside.append(f"noise floor {figure(one['floor'])}")
    if "counts" in one:
        beside += sets(one)
    return "; ".join([estimate(one["value"], one["interval"]), *beside])


def sets(one: Mapping[str, Any]) -> list[str]:
    """Of a distance of two sets of frames: by which network, how many frames, and what to mind."""
    real, shown = one["counts"]
    counts = f"{real}" if real == shown else f"{real} and {shown}"
    sizes = f"N {counts} of {one['details']['states']} states, D {one['size']}"
    return [one["metric"], sizes, *([one["warning"]] if one["warning"] else [])]


def _known(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
