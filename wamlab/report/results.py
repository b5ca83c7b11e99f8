"""``results.json``: every number of a report, from the logs of a run folder alone.

What a run folder holds is described in `wamlab.data.logs`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wamlab.config import to_dict
from wamlab.data.logs import (
    LogError,
    load_blind,
    load_chosen,
    load_episodes,
    load_losses,
    load_probes,
    load_reader_errors,
    load_recordings,
    load_rivals,
    read_json,
    write_json,
)
from wamlab.metrics.base import Result, compute, imagining, state_name
from wamlab.metrics.offsets import at_offsets, comparable, rivals_at
from wamlab.metrics.visual import RivalFrames
from wamlab.report import perceptual, words
from wamlab.report.axes import further
from wamlab.report.open_loop import judged
from wamlab.types import Episode, Probe, Recording

SCHEMA = 1
LOGS = ("episodes", "probes", "recordings", "loss.jsonl")
RATES = ("success_any", "success_last", "success_at_reset")
SUCCESS = ("steps_to_success", "tasks_done")
FIDELITY = ("moving_psnr", "static_psnr", "psnr", "ssim")
JOINT = ("eic", "eic_cf", "skill")
ENTITIES = ("robot", "object")
SHOWN = 5
POINTS = 400
NOT_LOSSES = {"step", "stage_step", "stage", "time", "seconds"}


def results(
    folder: str | Path, features: str | None = None, *, compared: bool = False
) -> dict[str, Any]:
    """All that a report says in numbers, as plain JSON values.

    Args:
        features: the extractor whose features are compared (`wamlab.report.perceptual`).
        compared: look at imagined futures only where models are compared, and not at all the
            offsets at which this one imagines (`wamlab.metrics.offsets`).

    Raises:
        LogError: a folder without logs, or a log that cannot be read.
        KeyError, MissingWeights, ValueError: no such extractor, or its file is not there or
            another one.
    """
    folder = Path(folder)
    episodes, probes = load_episodes(folder), load_probes(folder)
    recordings, losses = load_recordings(folder), load_losses(folder)
    if not (episodes or probes or recordings or losses):
        kinds = "no episodes/, no probes/, no recordings/ and no loss.jsonl"
        below = sorted({str(log.parent) for kind in LOGS for log in folder.glob(f"*/{kind}")})
        near = f"; did you mean {' or '.join(below[:3])}?" if below else ""
        raise LogError(f"{folder} holds no logs: {kinds}{near}")
    rivals = {state_name(one): load_rivals(folder, one) for one in probes if imagining(one)}
    if compared and (offsets := comparable(probes)):
        rivals, probes = rivals_at(rivals, probes, offsets), at_offsets(probes, offsets)
    blind = load_blind(folder)
    chosen = load_chosen(folder)
    success = {name: compute(name, episodes, chosen=chosen) for name in RATES}
    success |= {name: compute(name, episodes) for name in SUCCESS}
    success["success_over_blind"] = compute(
        "success_over_blind", episodes, blind=blind, chosen=chosen
    )
    fidelity = {name: compute(name, probes) for name in FIDELITY}
    logs: list[Episode | Probe | Recording] = [*episodes, *probes, *recordings]
    policies = {one.policy for one in logs}
    found = {
        "schema": SCHEMA,
        "policy": words.listed(sorted(policies - {""})),
        "run": _run(folder),
        "blind": blind,
        "success": _plain(success),
        "fidelity": _plain(fidelity),
        "perceptual": _plain(perceptual.measured(probes, features)),
        "rivals": _plain(_over_rivals(probes, rivals)),
        "joint": {entity: _plain(_joint(probes, entity, rivals)) for entity in ENTITIES},
        "axes": {axis: _plain(ones) for axis, ones in further(episodes, probes, success).items()},
        "starts": {"episodes": _range(episodes), "probes": _range(probes)},
        "chosen": chosen,
        "probes": _census(probes),
        "readers": _readers(folder, probes),
        "pictures": picked(probes, fidelity["moving_psnr"]),
        "recorded": judged(recordings),
        "loss": curves(losses),
    }
    return _finite(found)


def write_results(folder: str | Path, features: str | None = None) -> dict[str, Any]:
    """Compute the results of a run folder and write them to its ``results.json``; see `results`."""
    found = results(folder, features)
    write_json(Path(folder) / "results.json", found)
    return found


def picked(probes: Sequence[Probe], fidelity: Result, seed: int = 0) -> dict[str, Any]:
    """Which states are shown: the worst by moving-pixel PSNR, and some drawn at random."""
    states = sorted(state_name(probe) for probe in probes if imagining(probe))
    worst = sorted(fidelity.items, key=lambda state: fidelity.items[state])[:SHOWN]
    drawn = np.random.default_rng(seed).permutation(states)[:SHOWN].tolist()
    return {"worst": worst, "random": drawn, "seed": seed, "of": len(states)}


def curves(records: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """Every logged number against the step, at most `POINTS` means of neighbours each."""
    series: dict[str, list[list[float]]] = {}
    for record in records:
        for name, value in record.items():
            if name not in NOT_LOSSES and _is_number(value) and _is_number(record.get("step")):
                series.setdefault(name, []).append([float(record["step"]), float(value)])
    return {name: _thinned(points) for name, points in series.items()}


def _run(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict):
        raise LogError(f"{path} is no record of a run: it holds {type(found).__name__}")
    return found


def _over_rivals(probes: Sequence[Probe], rivals: RivalFrames) -> dict[str, Result]:
    names = dict.fromkeys(name for shown in rivals.values() for name in shown)
    return {
        name: compute("moving_psnr_over_rival", probes, rivals=rivals, rival=name) for name in names
    }


def _joint(probes: Sequence[Probe], entity: str, rivals: RivalFrames) -> dict[str, Result]:
    found = {name: compute(name, probes, entity=entity, rivals=rivals) for name in JOINT}
    return {**found, "div": compute("div", probes, entity=entity)}


def _range(logs: Sequence[Episode] | Sequence[Probe]) -> list[int]:
    """The lowest and the highest start seed."""
    seeds = [log.seed for log in logs]
    return [min(seeds), max(seeds)] if seeds else []


def _census(probes: Sequence[Probe]) -> dict[str, Any]:
    return {
        "states": len(probes),
        "envs": sorted({probe.env for probe in probes}),
        "samples": max((len(probe.of("own")) for probe in probes), default=0),
        "imposed": sorted({branch.label for p in probes for branch in p.of("imposed")}),
        "pixel_noise": max((probe.pixel_noise for probe in probes), default=0.0),
    }


def _plain(found: Mapping[str, Result]) -> dict[str, Any]:
    """Results as JSON values; items stay with the whole and are dropped from its parts."""
    plain = {}
    for name, one in found.items():
        parts = {part: replace(r, items={}, sides={}) for part, r in one.parts.items()}
        plain[name] = to_dict(replace(one, parts=parts))
    return plain


def _readers(folder: Path, probes: Sequence[Probe]) -> dict[str, dict[str, float]]:
    """How exact the state readers are that have read these probes, by title, as far as logged."""
    titles, known = {probe.reader for probe in probes}, load_reader_errors(folder)
    return {title: known[title] for title in sorted(titles & known.keys())}


def _thinned(points: list[list[float]]) -> list[list[float]]:
    groups = np.array_split(np.array(points), min(POINTS, len(points)))
    return [group.mean(axis=0).tolist() for group in groups]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
