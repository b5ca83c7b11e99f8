"""The systems of a protocol side by side: tables of what each is worth and of what it costs.

Every system is judged by its last attempt. What a system does not imagine is said with the reason
that its own cell gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pooling
from condition_tables import trainings
from pooling import Cell
from tables import RIVALS, Found, last, over_rival, pooled_measure
from wording import (
    command,
    db_text,
    elsewhere,
    executed,
    machine,
    points_text,
    rate_text,
    span,
    table,
    title,
)

from wamlab.report.words import number

PROTOCOL = "mw-6"
SYSTEMS = (
    "uwm", "reactive", "gr1", "vpp", "unipi", "uninformed", "uninformed-other",
)  # fmt: skip
BASELINE = "reactive"
CONTROLS = ("uninformed", "uninformed-other")
"""`uwm` with a future that says nothing."""
MISSING = "not measured"


def side_by_side(found: Found, protocol: str = PROTOCOL, systems: Sequence[str] = SYSTEMS) -> str:
    """The tables: success, imagination and cost, and how much of a plan is executed."""
    every = {system: last(found, protocol, system) for system in systems}
    references = {name: last(found, protocol, name) for name in (BASELINE, *CONTROLS)}
    head = ["system", "seeds", "success", "over the better blind row"]
    head += [f"less `{name}`" for name in references]
    success = [success_row(system, cells, references) for system, cells in every.items()]
    rivals = [f"less {rival}" for rival in RIVALS]
    imagined = [imagination_row(system, cells) for system, cells in every.items()]
    costs = ["network calls a plan", "samples seen", "GFLOP a sample"]
    cost = [cost_row(system, cells) for system, cells in every.items()]
    tables = [
        executed_text(every),
        table(head, success),
        table(["system", "moving pixels", *rivals, "EIC", "EIC_cf"], imagined),
        table(["system", *costs, "minutes of training"], cost),
    ]
    return "\n".join(tables)


def executed_text(every: Mapping[str, Sequence[Cell]]) -> str:
    """How much of each plan was executed in these tables; systems are named where they differ."""
    by_amount: dict[str, list[str]] = {}
    for system, cells in every.items():
        for amount in dict.fromkeys(executed(cell) for cell in cells):
            by_amount.setdefault(amount, []).append(f"`{system}`")
    if not by_amount:
        return "Executed of each plan before the next: not measured.\n"
    said = [
        amount if len(by_amount) == 1 else f"{amount} ({', '.join(systems)})"
        for amount, systems in by_amount.items()
    ]
    return f"Executed of each plan before the next: {'; '.join(said)}.\n"


def success_row(
    system: str, cells: Sequence[Cell], others: Mapping[str, Sequence[Cell]]
) -> list[str]:
    """Success over the better blind row, and less that of others on the same starts and seeds."""
    if not cells:
        return [f"`{system}`", "", MISSING, "", *[""] * len(others)]
    pairs = [
        None if name == system else pooling.paired(cells, other) for name, other in others.items()
    ]
    return [
        f"`{system}`",
        ", ".join(str(cell["seed"]) for cell in cells),
        rate_text(pooling.pooled(cells)),
        points_text(pooling.pooled_over_blind(cells)),
        *("" if both is None else points_text(both.difference) for both in pairs),
    ]


def imagination_row(system: str, cells: Sequence[Cell]) -> list[str]:
    """Moving pixels against the rivals, and the joint measures of the arm.

    Where models are compared; of a cell that was measured at other offsets, these are said.
    """
    if not cells:
        return [f"`{system}`", MISSING, *[""] * (len(RIVALS) + 2)]
    shown = cells[0]["imagination"]
    if not shown["census"]["states"]:
        return [f"`{system}`", "imagines nothing", *[""] * (len(RIVALS) + 2)]
    if shown["moving_psnr"]["value"] is None:
        return [f"`{system}`", shown["moving_psnr"]["why_not"], *[""] * (len(RIVALS) + 2)]
    return [
        f"`{system}`{elsewhere(shown['moving_psnr'])}",
        db_text(pooled_measure(cells, "moving_psnr")),
        *(db_text(over_rival(cells, rival)) for rival in RIVALS),
        joint_text(cells, "eic"),
        joint_text(cells, "eic_cf"),
    ]


def joint_text(cells: Sequence[Cell], measure: str) -> str:
    """Each seed's value for the arm, and how far it lies above a static future."""
    results = [cell["joint"]["robot"][measure] for cell in cells]
    known = [result for result in results if result["value"] is not None]
    if not known:
        return f"{title(measure)} undefined: {results[0]['why_not']}"
    said = []
    for result in known:
        beside = result["details"]
        above = number(beside["over_static"], sign=True) + span(beside["over_static_interval"])
        said.append(f"{number(result['value'])}; over static {above}")
    return " / ".join(said)


def cost_row(system: str, cells: Sequence[Cell]) -> list[str]:
    """The calls of a plan, and what a training took."""
    if not cells:
        return [f"`{system}`", MISSING, *[""] * 3]
    one = cells[0]
    gflops = "; ".join(f"{stage} {number(g)}" for stage, g in one["gflop_per_sample"].items())
    return [
        f"`{system}`",
        f"{one['plan']['calls']:g}",
        str(one["samples"]),
        gflops,
        ", ".join(number(cell["training_seconds"] / 60, 1) for cell in cells),
    ]


def plan_cost(found: Found) -> str:
    """What one plan costs, all systems taking turns on one machine."""
    if (record := found.files.get("plan_cost")) is None:
        return "What a plan costs: not measured (`python benchmarks/plan_cost.py`).\n"
    quantiles = ("min", "p50", "p95", "p99")
    rows = [
        [
            f"`{one['model']}`",
            ", ".join(map(str, one["calls"])),
            *(number(one["ms"][name], 1) for name in quantiles),
        ]
        for one in record["systems"]
    ]
    head = ["one plan at batch 1", "network calls", *(f"ms, {name}" for name in quantiles)]
    return (
        f"Fresh models of size `{record['size']}` take turns, {record['repeats']} plans each:\n\n"
        f"{table(head, rows)}\n`{command(record)}`, {machine(record)}\n"
    )


def real_clips(found: Found) -> str:
    """What each cell makes of recorded clips that training never saw; nothing is executed."""
    head = [
        "on real clips", "of", "training", "R² of INVERSE", "from other frames",
        "of the means between frames", "FORWARD, moving pixels", "coupling by the action",
        "by the future", "factorisation gap",
    ]  # fmt: skip
    if not found.recorded:
        return "Real clips: not measured (`python benchmarks/real_clips.py mw-6`).\n"
    key = lambda c: (c["protocol"], c["model"], c["attempt"], c["seed"])  # noqa: E731
    text = table(head, [real_clips_row(cell) for cell in sorted(found.recorded, key=key)])
    origins = dict.fromkeys(f"`{command(cell)}`, {machine(cell)}" for cell in found.recorded)
    return "\n\n".join([text, *origins]) + "\n"


def real_clips_row(cell: Cell) -> list[str]:
    r2 = cell["inverse_r2"]
    beside = {} if r2["value"] is None else r2["details"]
    return [
        f"`{cell['model']}`",
        cell["protocol"],
        trainings([cell]),
        said(r2, 3),
        *(number(beside[n], 2) if n in beside else "" for n in ("other_frames", "between_frames")),
        said(cell["forward_psnr"], 1, " dB"),
        *(nats_of(cell, side) for side in ("action", "future")),
        said(cell["factorisation_gap"], 1, " nats"),
    ]


def nats_of(cell: Cell, side: str) -> str:
    """The coupling by a side, and whose likelihood stands for the half that a model lacks."""
    by = cell.get("given_by", {}).get(side)
    text = said(cell["coupling_nats"][side], 1, " nats")
    return f"{text}, with `{by}`" if by and text else text


def action_sight(found: Found) -> str:
    """How much of the recorded actions shows in where the hand truly was, at any frames."""
    if (record := found.files.get("action_sight")) is None:
        return (
            "What the hand's places tell of the actions: not measured "
            "(`python benchmarks/action_sight.py mw-6`).\n"
        )
    head = ["the hand's true place at", "R² of the actions", "by quarter of the chunk"]
    rows = [
        [
            name,
            number(one["r2"], 3) + span(one["interval"], 3),
            ", ".join(number(quarter, 2) for quarter in one["quarters"]),
        ]
        for name, one in record["looks"].items()
    ]
    return (
        "Read by a network that is told the hand's place and opening instead of frames "
        f"({record['episodes']} new episodes, {record['windows']} windows; "
        f"{record['settings']['steps']} steps, seed {record['settings']['seed']}):\n\n"
        f"{table(head, rows)}\n`{command(record)}`, {machine(record)}\n"
    )


def plan_sight(found: Found) -> str:
    """How well the features of `vpp`, and the plan made of them, tell where the thing is."""
    if (record := found.files.get("plan_sight")) is None:
        return (
            "What the plan of `vpp` sees: not measured (`python benchmarks/plan_sight.py mw-6`).\n"
        )
    by_task = {env: [*one["errors"].values()] for env, one in record["tasks"].items()}
    names = list(next(iter(by_task.values()))[0])
    rows = [
        [
            env.rpartition("/")[2],
            number(record["tasks"][env]["spread"], 0),
            *(", ".join(number(one[name], 1) for one in cells) for name in names),
        ]
        for env, cells in by_task.items()
    ]
    seeds = ", ".join(next(iter(record["tasks"].values()))["errors"])
    head = ["where the thing is, mm off", "spread of places", *names]
    return (
        f"Read by ridge regression off what the policy of `vpp` might see ({seeds}; "
        f"{record['settings']['starts']} starts of each task):\n\n{table(head, rows)}\n"
        f"`{command(record)}`, {machine(record)}\n"
    )


def said(result: Mapping[str, Any], digits: int, unit: str = "") -> str:
    """A result with its interval; nothing where it does not apply."""
    if result["value"] is None:
        return ""
    return f"{number(result['value'], digits)}{unit}{span(result['interval'], digits)}"
