"""The tables of `docs/results.md`: protocols, imaginations and single measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pooling
from pooling import Cell, Estimate
from wording import (
    command,
    db_text,
    executed,
    machine,
    mean,
    of,
    points_text,
    rate_text,
    span,
    table,
    title,
)

from wamlab.report.build import CONTROLS
from wamlab.report.words import between, count, number, percent

SEEDS = 3
MODELS = ("uwm", "reactive")
"""The systems of the line; of the corners two seeds are asked, and one where language matters."""
RIVALS = ("last frame", "dataset mean", "nearest clip")


@dataclass(frozen=True)
class Found:
    """All committed results: single files by name, cells, and the fixed steps by protocol.

    ``conditions`` are cells played where something is other than in training, ``substitutions``
    such whose imagination or extraction was another's, ``recorded`` what they make of real clips,
    ``measured`` what their imagination is worth by every measure, ``films`` what a judge reads off
    it, ``use`` whether they act on it themselves, ``acting`` what it is worth while acting and
    ``skill`` how checkpoints imagine and act.
    """

    files: Mapping[str, Any]
    cells: Sequence[Cell]
    steps: Mapping[str, Any]
    conditions: Sequence[Cell] = ()
    substitutions: Sequence[Cell] = ()
    recorded: Sequence[Cell] = ()
    measured: Sequence[Cell] = ()
    films: Sequence[Cell] = ()
    use: Sequence[Cell] = ()
    acting: Sequence[Cell] = ()
    skill: Sequence[Cell] = ()


def protocol(found: Found, name: str) -> str:
    """Every attempt of every model on a protocol: by task, pooled, at mid-training, paired."""
    models = sorted({c["model"] for c in found.cells if c["protocol"] == name}, key=by_model)
    if not models:
        return f"No cell of `{name}` has been measured.\n"
    texts = [steps_table(found.steps[name])] if name in found.steps else []
    for model in models:
        for attempt in pooling.attempts(found.cells, name, model):
            cells = pooling.select(found.cells, name, model, attempt)
            texts += [attempt_text(cells), success_table(cells)]
    texts.append(paired_text(found, name))
    return "\n".join(texts)


def attempt_text(cells: Sequence[Cell]) -> str:
    """What an attempt was, and how its cells were made."""
    one, seeds = cells[0], [cell["seed"] for cell in cells]
    missing = sorted(set(range(seeds_asked(one["protocol"], one["model"]))) - set(seeds))
    why = f" Hypothesis: {one['hypothesis']}" if one["hypothesis"] else ""
    gap = f" **Missing: seeds {', '.join(map(str, missing))}.**" if missing else ""
    minutes = ", ".join(number(cell["training_seconds"] / 60, 1) for cell in cells)
    gflops = ", ".join(number(value, 2) for value in one["gflop_per_sample"].values())
    return (
        f"### `{one['model']}`, attempt {one['attempt']}\n\n"
        f"Seeds {', '.join(map(str, seeds))}; {one['steps']} steps ({one['samples']} samples, "
        f"{gflops} GFLOP each, {one['precision']['choice']}; steps fixed by "
        f"{one['steps_fixed_by']}), {minutes} minutes of training; "
        f"{one['plan']['calls']:g} network calls and {number(one['plan']['ms_p50'], 0)} ms a plan "
        f"(up to {one['plan']['rows_at_most']} rows share it), of which {executed(one)} are "
        f"executed before the next.{why}{gap}\n\n"
        f"`{command(one)}`, {machine(one)}\n"
    )


def seeds_asked(protocol: str, model: str) -> int:
    """How many training seeds are asked of a system."""
    if model in MODELS and protocol != "scene":
        return SEEDS
    return 2 if protocol == "mw-6" else 1


def success_table(cells: Sequence[Cell]) -> str:
    """By task: success with Wilson's interval, both blind rows, and the difference."""
    rows = [success_row(cells, env) for env in pooling.tasks(cells)]
    half = (
        rate_text(pooling.pooled(cells, middle=True)) if pooling.tasks(cells, middle=True) else ""
    )
    rate, over = pooling.pooled(cells), pooling.pooled_over_blind(cells)
    rows.append(["**pooled**", rate_text(rate), "", "", "", "", points_text(over), half])
    head = ["task", "success", "last step", "at reset", "mean replay", "random replay"]
    return table([*head, "over the better", "mid-training"], rows)


def success_row(cells: Sequence[Cell], env: str) -> list[str]:
    own, last_step = pooling.counts(cells, env), pooling.counts(cells, env, key="last")
    at_reset, half = (
        pooling.counts(cells, env, key="at_reset"),
        pooling.counts(cells, env, middle=True),
    )
    blind = cells[0]["blind"][env]
    return [
        env.rpartition("/")[2],
        f"{own[0]}/{own[1]} {rate_text(pooling.rate(own))}",
        f"{last_step[0]}/{last_step[1]}",
        str(at_reset[0]),
        of(blind["mean replay"]),
        of(blind["random replay"]),
        points_text(pooling.over_blind(cells, env)),
        of(half) if half[1] else "",
    ]


def paired_text(found: Found, name: str) -> str:
    first, second = (last(found, name, model) for model in MODELS)
    both = pooling.paired(first, second) if first and second else None
    if both is None:
        return f"`uwm` against `reactive` on `{name}`: not measured.\n"
    return (
        f"`uwm` less `reactive`, paired by start and seed: {points_text(both.difference)}; "
        f"only `uwm` solves {both.only_first} starts, only `reactive` {both.only_second} "
        f"(McNemar p = {both.p:.2g}).\n"
    )


def steps_table(steps: Mapping[str, Any]) -> str:
    """The timings that fixed numbers of steps, where a recipe leaves that to the machine."""
    rows = [
        [key, str(one["steps"]), number(1000 * one["seconds_per_step"], 0), machine(one)]
        for key, one in steps.items()
    ]
    return table(["steps fixed beforehand", "steps", "ms a step", "machine"], rows)


def fidelity_table(cells: Sequence[Cell]) -> str:
    """The model's PSNR and its paired difference with each rival, all seeds together."""
    rows = [["`uwm`, moving pixels", db_text(pooled_measure(cells, "moving_psnr")), "", ""]]
    rows.append(["`uwm`, static regions", db_text(pooled_measure(cells, "static_psnr")), "", ""])
    for rival in RIVALS:
        results = [c["over_rivals"][rival] for c in cells if rival in c["over_rivals"]]
        known = [result["details"] for result in results if result["value"] is not None]
        theirs = mean([one["theirs"] for one in known])
        wins = mean([one["wins"] for one in known])
        row = [rival, f"{number(theirs, 1)} dB", db_text(over_rival(cells, rival)), percent(wins)]
        rows.append(row)
    return table(["shown", "PSNR", "`uwm` less this, paired by state", "states `uwm` wins"], rows)


def offsets_table(cells: Sequence[Cell]) -> str:
    """By view and offset: what the model reaches, and its difference with each rival."""
    parts = sorted(cells[0]["imagination"]["moving_psnr"]["parts"])
    rows = [
        [
            part,
            part_text([cell["imagination"]["moving_psnr"] for cell in cells], part),
            part_text([cell["imagination"]["static_psnr"] for cell in cells], part),
            *(
                part_text([cell["over_rivals"].get(rival, {}) for cell in cells], part, sign=True)
                for rival in RIVALS
            ),
        ]
        for part in parts
    ]
    return table(["at", "moving", "static", *(f"moving, less {rival}" for rival in RIVALS)], rows)


def part_text(results: Sequence[Mapping[str, Any]], part: str, *, sign: bool = False) -> str:
    """The mean over seeds of one part of a measure, and each seed's interval."""
    found = [result.get("parts", {}).get(part) for result in results]
    known = [one for one in found if one and one["value"] is not None]
    spans = "; ".join(between(one["interval"], 2) for one in known if one["interval"])
    value = number(mean([one["value"] for one in known]), 1, sign=sign)
    return f"{value} dB ({spans})" if known else "not measured"


def joint_table(cells: Sequence[Cell]) -> str:
    controls = [
        control
        for control in CONTROLS
        if any(control in cell["joint"]["robot"]["eic_cf"]["details"] for cell in cells)
    ]
    rows = [
        joint_row(entity, measure, cell, controls)
        for entity in ("robot", "object")
        for measure in ("eic", "eic_cf")
        for cell in cells
    ]
    called = [control.replace("_", " ") for control in controls]
    head = ["entity", "measure", "seed", "value", *called, "over static", "undefined"]
    return table(head, rows)


def joint_row(entity: str, measure: str, cell: Cell, controls: Sequence[str]) -> list[str]:
    result, beside = cell["joint"][entity][measure], cell["joint"][entity][measure]["details"]
    start = [entity, title(measure), str(cell["seed"])]
    closed = "; ".join(f"{n} {why}" for why, n in result["undefined"].items())
    if result["value"] is None:
        return [*start, "undefined", *[""] * (1 + len(controls)), result["why_not"]]
    return [
        *start,
        f"{number(result['value'])}{span(result['interval'])}, {count(result['n'], 'state')}",
        *(number(beside.get(control)) for control in controls),
        number(beside["over_static"], sign=True) + span(beside["over_static_interval"]),
        closed,
    ]


def latency_table(latency: Mapping[str, Any]) -> str:
    parts = {"ms": "whole query", "ms_sampling": "sampling", "ms_around_it": "around it"}
    rows = [
        [name, *(number(latency[key][p], 1) for p in ("min", "p50", "p95", "p99"))]
        for key, name in parts.items()
    ]
    return table([f"{latency['model']}, ms", "min", "p50", "p95", "p99"], rows)


def flips_table(flips: Mapping[str, Any]) -> str:
    rows = [
        [
            kind,
            str(one["flips"]),
            str(one["verified"]),
            str(one["loading"]),
            ", ".join(f"{count} at {when}" for when, count in one["when"].items() if when),
        ]
        for kind, one in flips["by_kind"].items()
    ]
    head = ["flipped in", "flips", "found by verify", "found by loading", "when"]
    return f"{table(head, rows)}\n`{command(flips)}`, {machine(flips)}\n"


def timed_text(found: Found, name: str) -> str:
    if (timed := found.files.get(f"timed-{name}")) is None:
        return f"`make {name}` has not been timed (`python benchmarks/timed.py {name}`).\n"
    return (
        f"`{timed['timed']}`: {number(timed['minutes'], 1)} minutes, status {timed['status']}; "
        f"{machine(timed)}\n"
    )


def decodability(found: Found) -> str:
    if (decoded := found.files.get("decodability")) is None:
        return "Whether the tasks can be read from the pictures: not measured.\n"
    rows = [
        [env.rpartition("/")[2], number(one["worst"], 3), "yes" if one["decodable"] else "no"]
        for env, one in decoded["tasks"].items()
    ]
    return table(["object and goal from the two 64 px views", "worst R²", "above 0.9"], rows)


def over_rival(cells: Sequence[Cell], rival: str) -> Estimate | None:
    held = [cell for cell in cells if rival in cell["over_rivals"]]
    results = [cell["over_rivals"][rival] for cell in held]
    return pooling.over_states(results, [cell["seed"] for cell in held])


def pooled_measure(cells: Sequence[Cell], name: str) -> Estimate | None:
    results = [cell["imagination"][name] for cell in cells]
    return pooling.over_states(results, [cell["seed"] for cell in cells])


def last(found: Found, protocol: str, model: str) -> list[Cell]:
    """The cells of a model's last attempt: that is the one that is held against a target."""
    known = pooling.attempts(found.cells, protocol, model)
    return pooling.select(found.cells, protocol, model, known[-1]) if known else []


def by_model(model: str) -> tuple[int, str]:
    return (MODELS.index(model) if model in MODELS else len(MODELS), model)
