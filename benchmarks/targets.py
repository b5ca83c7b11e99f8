"""What each target asks, what was measured for it, and whether that meets it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import acting_tables
import codec_table
import condition_tables
import corners
import coupling_tables
import measure_tables
import metric_speed_table as metric_speed
import physics_tables
import planted_tables
import plausibility_tables
import pooling
import scene_tables
import skill_tables
import substitution_tables
import system_targets
from findings import MISSING, Finding, low_of, verdict
from pooling import Cell
from tables import (
    RIVALS,
    SEEDS,
    Found,
    decodability,
    fidelity_table,
    flips_table,
    joint_table,
    last,
    latency_table,
    offsets_table,
    over_rival,
    pooled_measure,
    protocol,
    timed_text,
)
from wording import command, db_text, machine, points_text, rate_text, table, title

from wamlab.report.words import number, percent


@dataclass(frozen=True)
class Part:
    """A chapter of the page and its lines in the summary."""

    text: str
    findings: list[Finding] = field(default_factory=list)


def demo(found: Found) -> Part:
    timed = timed_finding(found, "demo", "`make demo`, installed", 15)
    cells, findings = last(found, "mw-demo", "uwm"), [timed]
    asked = (
        "`uwm` on `mw-demo`: at least 85 % pooled, above the better blind row on each task; "
        "3 seeds, 40 episodes a task"
    )
    if cells:
        rate = pooling.pooled(cells)
        over = [pooling.over_blind(cells, env) for env in pooling.tasks(cells)]
        clear = sum(low_of(one) > 0 for one in over)
        said = f"{rate_text(rate)}; above on {clear} of {len(over)} tasks"
        good = rate.value >= 0.85 and clear == len(over)
        findings.append(Finding("demo", asked, said, verdict(good, whole(cells, 40))))
    else:
        findings.append(Finding("demo", asked, "", MISSING))
    text = ["## The demo\n", timed_text(found, "demo"), protocol(found, "mw-demo")]
    return Part("\n".join(text), findings)


def six(found: Found) -> Part:
    asked = (
        "`uwm` on `mw-6`, pooled over the better blind row: at least 40 points, interval above 25; "
        "3 seeds, 20 episodes a task"
    )
    cells = last(found, "mw-6", "uwm")
    if cells:
        over = pooling.pooled_over_blind(cells)
        good = over.value >= 0.40 and low_of(over) > 0.25
        finding = Finding("mw-6", asked, points_text(over), verdict(good, whole(cells, 20)))
    else:
        finding = Finding("mw-6", asked, "", MISSING)
    text = ["## Six tasks that need eyes\n", decodability(found), protocol(found, "mw-6")]
    return Part("\n".join(text), [finding])


def systems(found: Found) -> Part:
    text = ["## The systems side by side\n", "All on `mw-6`, the same demonstrations and starts.\n"]
    asked = system_targets.findings(found)
    text += [corners.side_by_side(found), corners.plan_cost(found), corners.real_clips(found)]
    text += [corners.action_sight(found), corners.plan_sight(found)]
    text.append(summary_table(asked))
    return Part("\n".join(text), asked)


def scene(found: Found) -> Part:
    text = [
        "## The scene, where only the instruction says what to do\n",
        scene_tables.tables(found),
    ]
    return Part("\n".join(text), [scene_tables.finding(found)])


def conditions(found: Found) -> Part:
    text = ["## Under changed conditions\n", condition_tables.tables(found)]
    return Part("\n".join(text))


def substitutions(found: Found) -> Part:
    text = ["## Imagining or extracting: which half fails\n", substitution_tables.tables(found)]
    return Part("\n".join(text))


def imagination(found: Found) -> Part:
    findings, texts = [], ["## The imagined future\n"]
    for name in ("mw-6", "mw-demo"):
        cells = [
            cell for cell in last(found, name, "uwm") if cell["imagination"]["census"]["states"]
        ]
        texts.append(f"### `{name}`, `uwm`\n")
        if not cells:
            findings.append(Finding("imagination", f"`{name}`: see below", "", MISSING))
            texts.append("Not measured.\n")
            continue
        findings += imagined(name, cells)
        texts += [fidelity_table(cells), offsets_table(cells), joint_table(cells)]
    return Part("\n".join(texts), findings)


def physics(found: Found) -> Part:
    text = ["## Physical commonsense, without a judge model\n", physics_tables.tables(found)]
    return Part("\n".join(text), [physics_tables.finding(found)])


def measured(found: Found) -> Part:
    text = ["## The whole vector of every model\n", measure_tables.tables(found)]
    return Part("\n".join(text), [measure_tables.finding(found)])


def plausibility(found: Found) -> Part:
    text = [f"## {plausibility_tables.TITLE}\n", plausibility_tables.tables(found)]
    return Part("\n".join(text))


def acting(found: Found) -> Part:
    text = [f"## {acting_tables.TITLE}\n", acting_tables.tables(found)]
    return Part("\n".join(text), [acting_tables.finding(found)])


def skill(found: Found) -> Part:
    text = ["## Does imagination predict skill?\n", skill_tables.tables(found)]
    return Part("\n".join(text), [skill_tables.finding(found)])


def planted(found: Found) -> Part:
    text = ["## Planted faults beside the joint measures\n", planted_tables.tables(found)]
    text.append(coupling_tables.tables(found))
    return Part("\n".join(text), [planted_tables.finding(found), coupling_tables.finding(found)])


def codecs(found: Found) -> Part:
    return Part("\n".join(["## Learned codecs\n", codec_table.text(found)]))


def speed(found: Found) -> Part:
    findings = [*step_findings(found), latency_finding(found), collection_finding(found)]
    rows = [
        [f"`{name}`", command(found.files[name]), machine(found.files[name])]
        for name in ("train_step", "latency", "collection")
        if name in found.files
    ]
    text = ["## Speed\n", summary_table(findings)]
    text += [table(["result", "command", "machine"], rows)] if rows else []
    if "latency" in found.files:
        text.append(latency_table(found.files["latency"]))
    return Part("\n".join(text), findings)


def measures(found: Found) -> Part:
    findings = metric_speed.findings(found)
    text = ["## Speed of measures\n", summary_table(findings)]
    return Part("\n".join([*text, metric_speed.text(found)]), findings)


def robustness(found: Found) -> Part:
    findings = [kill_finding(found), *flip_findings(found)]
    text = ["## Nothing is lost\n", summary_table(findings)]
    if kills := found.files.get("kill_test"):
        places = ", ".join(map(str, kills.get("steps_saved_at_each_kill", [])))
        text.append(
            f"{kills['model']}, {kills['steps']} steps, a checkpoint every "
            f"{kills['checkpoint_every']}; {kills['kills_inside_a_save']} of {kills['kills']} "
            f"kills fell inside a save. Newest checkpoint at each kill: {places}.\n\n"
            f"`{command(kills)}`, {machine(kills)}\n"
        )
    if flips := found.files.get("bit_flips"):
        text.append(flips_table(flips))
    return Part("\n".join(text), findings)


def house(found: Found) -> Part:
    finding = timed_finding(found, "test", "`make test` on 2 cores", 15)
    text = ["## The tests\n", timed_text(found, "test")]
    text.append("The tests train and judge the model in [CONTRIBUTING.md](../CONTRIBUTING.md).\n")
    return Part("\n".join(text), [finding])


CHAPTERS: tuple[Callable[[Found], Part], ...] = (
    demo,
    six,
    imagination,
    systems,
    scene,
    conditions,
    substitutions,
    measured,
    plausibility,
    acting,
    skill,
    planted,
    physics,
    codecs,
    speed,
    measures,
    robustness,
    house,
)


def imagined(name: str, cells: Sequence[Cell]) -> list[Finding]:
    """The three targets of what is imagined on one protocol."""
    complete = len(cells) >= SEEDS
    over = {rival: over_rival(cells, rival) for rival in RIVALS}
    beats = all(one is not None and low_of(one) > 0 for one in over.values())
    said = "; ".join(f"{rival} {db_text(one)}" for rival, one in over.items())
    static = pooled_measure(cells, "static_psnr")
    return [
        Finding(
            "imagination",
            f"`{name}`: moving-pixel PSNR above all three rivals",
            said,
            verdict(beats, complete),
        ),
        Finding(
            "imagination",
            f"`{name}`: static regions at 30 dB or better",
            db_text(static),
            verdict(static is not None and static.value >= 30, complete),
        ),
        consistency_finding(name, cells, complete),
    ]


def consistency_finding(name: str, cells: Sequence[Cell], complete: bool) -> Finding:
    """Met where one of the two measures is above static, beyond chance, in every seed."""
    above = {
        m: [above_static(cell["joint"]["robot"][m]) for cell in cells] for m in ("eic", "eic_cf")
    }
    said = "; ".join(f"{title(m)} in {sum(wins)} of {len(wins)} seeds" for m, wins in above.items())
    good = any(all(wins) for wins in above.values())
    asked = f"`{name}`: EIC or EIC_cf above static, paired, in every seed"
    return Finding("imagination", asked, said, verdict(good, complete))


def above_static(result: Mapping[str, Any]) -> bool:
    interval = result["details"].get("over_static_interval")
    return result["value"] is not None and interval is not None and interval[0] > 0


def step_findings(found: Found) -> list[Finding]:
    asked = {
        "f32": ("training step at 40 % of the GEMM roof (f32)", 0.40),
        "bf16": ("training step at 25 % of the GEMM roof (bf16)", 0.25),
    }
    wait = "data wait at most 5 % of a training step"
    step = found.files.get("train_step")
    if step is None:
        return [
            Finding("speed", text, "", MISSING) for text in (*(a for a, _ in asked.values()), wait)
        ]
    findings = [
        Finding(
            "speed",
            text,
            f"{percent(step[kind]['share_of_roof'])}, {number(step[kind]['samples_per_s'], 0)} "
            "samples/s",
            verdict(step[kind]["share_of_roof"] >= least),
        )
        for kind, (text, least) in asked.items()
    ]
    if "data_wait_share" not in step:
        return [*findings, Finding("speed", wait, "", MISSING)]
    share = step["data_wait_share"]["median"]
    said = (
        f"{number(100 * share, 1)} % (worst {number(100 * step['data_wait_share']['worst'], 1)} %)"
    )
    return [*findings, Finding("speed", wait, said, verdict(share <= 0.05))]


def latency_finding(found: Found) -> Finding:
    asked = "POLICY at batch 1, 4 steps: p50 at most 60 ms, p95 at most 90 ms"
    if (latency := found.files.get("latency")) is None:
        return Finding("speed", asked, "", MISSING)
    ms = latency["ms"]
    said = f"p50 {number(ms['p50'], 1)} ms, p95 {number(ms['p95'], 1)} ms"
    return Finding("speed", asked, said, verdict(ms["p50"] <= 60 and ms["p95"] <= 90))


def collection_finding(found: Found) -> Finding:
    asked = "collection at 55 environment steps/s per core, both views"
    if (rates := found.files.get("collection")) is None:
        return Finding("speed", asked, "", MISSING)
    slowest = rates["slowest_with_both_views"]
    return Finding(
        "speed", asked, f"{number(slowest, 0)} on the slowest task", verdict(slowest >= 55)
    )


def kill_finding(found: Found) -> Finding:
    asked = "40 SIGKILLs: every resumed run ends with the unbroken bits"
    if (kills := found.files.get("kill_test")) is None:
        return Finding("safety", asked, "", MISSING)
    said = (
        f"{kills['kills']} kills, {kills['runs_equal_to_unbroken']} of {kills['runs']} runs equal"
    )
    good = kills["runs_equal_to_unbroken"] == kills["runs"]
    return Finding("safety", asked, said, verdict(good, kills["kills"] >= 40))


def flip_findings(found: Found) -> list[Finding]:
    verify, loading = "200 bit flips: `wam verify` finds 200", "loading finds every one"
    if (flips := found.files.get("bit_flips")) is None:
        return [Finding("safety", verify, "", MISSING), Finding("safety", loading, "", MISSING)]
    n, complete = flips["flips"], flips["flips"] >= 200
    return [
        Finding(
            "safety",
            verify,
            f"{flips['found_by_verify']} of {n}",
            verdict(flips["found_by_verify"] == n, complete),
        ),
        Finding(
            "safety",
            loading,
            f"{flips['found_by_loading']} of {n}",
            verdict(flips["found_by_loading"] == n, complete),
        ),
    ]


def timed_finding(found: Found, name: str, what: str, most: float) -> Finding:
    """Whether ``make NAME`` took no longer than it may."""
    topic, asked = {"demo": "demo", "test": "tests"}[name], f"{what}: at most {most:g} minutes"
    if (timed := found.files.get(f"timed-{name}")) is None:
        return Finding(topic, asked, "", MISSING)
    said = f"{number(timed['minutes'], 1)} minutes"
    if not timed["machine"]["idle"]:
        said += " (machine busy)"
    if timed["status"]:
        said += f", ended with status {timed['status']}"
    return Finding(topic, asked, said, verdict(timed["minutes"] <= most and not timed["status"]))


def whole(cells: Sequence[Cell], episodes: int) -> bool:
    """Whether all seeds are there with as many episodes of each task as the target asks for."""
    few = any(row["n"] < episodes for cell in cells for row in cell["success"].values())
    return len(cells) >= SEEDS and not few


def summary_table(findings: Sequence[Finding]) -> str:
    return table(
        ["target", "measured", "verdict"], [[f.asked, f.measured, f.verdict] for f in findings]
    )
