"""The part of a report that recorded episodes make: numbers first, then rows and charts of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wamlab.config import to_dict
from wamlab.metrics.base import Result, compute
from wamlab.metrics.information import SIDES
from wamlab.metrics.likelihood import CHAINS
from wamlab.report import charts, words
from wamlab.report.charts import Axis, Mark
from wamlab.types import QUERIES, Guess, Recording

Row = dict[str, Any]
ACTING = ("POLICY", "JOINT", "INVERSE")
IMAGINING = ("FORWARD", "JOINT", "VIDEO")
SHOWN = 4
MEANING = {
    "POLICY": "its own action, against the demonstrator's",
    "JOINT": "its own action and its future in one draw",
    "INVERSE": "the action that it reads from the recorded frames",
    "FORWARD": "its future under the recorded action: the one that was executed",
    "VIDEO": "its future under whatever action it would take",
}
KINDS = {"hold": "static", "dataset mean": "random-replay", "nearest clip": "oracle"}


def judged(recordings: Sequence[Recording], seed: int = 0) -> Row | None:
    """All numbers of the recordings, as plain JSON values; None where there are no recordings."""
    if not recordings:
        return None
    queries = [name for name in QUERIES if name in recordings[0].guesses]
    rivals = list(dict.fromkeys(name for one in recordings for name in one.rivals))
    acting = _first(ACTING, recordings, lambda guess: guess.action is not None)
    imagining = _first(IMAGINING, recordings, lambda guess: guess.imagined is not None)

    def each(metric: str, names: Sequence[str], option: str, **fixed: str) -> dict[str, Result]:
        return {n: compute(metric, recordings, **{option: n}, **fixed) for n in names}

    futures = [name for name in IMAGINING if name in queries]
    error, psnr = "recorded_action_error", "recorded_moving_psnr"
    drawn = np.random.default_rng(seed).permutation(len(recordings))[:SHOWN]
    found = {
        "instants": len(recordings),
        "episodes": len({one.episode for one in recordings}),
        "tasks": len({one.env for one in recordings}),
        "origin": sorted({one.origin for one in recordings}),
        "acting": acting,
        "imagining": imagining,
        "actions": each(error, [name for name in ACTING if name in queries], "query"),
        "rival_actions": each(error, rivals, "rival"),
        "actions_over": each("recorded_action_over_rival", rivals, "rival", query=acting),
        "inverse": compute("recorded_inverse_r2", recordings),
        "futures": each(psnr, futures, "query"),
        "futures_by_task": each(psnr, futures, "query", by="task"),
        "futures_over": each(f"{psnr}_over_rival", rivals, "rival", query=imagining),
        "likelihood": each("nats_per_dim", queries, "query"),
        "chain": each("chain_gap", list(CHAINS), "chain"),
        "coupling": each("coupling_nats", list(SIDES), "side"),
        "gap": compute("factorisation_gap", recordings),
        "pictures": sorted([recordings[i].episode, recordings[i].step] for i in drawn),
    }
    return to_dict(found)


def shown(found: Row | None) -> Row | None:
    """What the page needs of these numbers, as rows with their charts."""
    if found is None:
        return None
    return {
        **found,
        "actions": _model_rows(found["actions"]),
        "action_rivals": _rival_rows(found, "actions_over", "rival_actions", "", 0.1, 2),
        "curve": _curve(found),
        "dimensions": _dimensions(found),
        "futures": _model_rows(found["futures"]),
        "future_rivals": _rival_rows(found, "futures_over", "", "dB", 2.0, 1),
        "future_parts": sorted({p for r in found["futures"].values() for p in r["parts"]}),
        "likelihood": _model_rows(found["likelihood"]),
        "tasks_table": _tasks(found),
        "episodes_table": _episodes(found),
        "measured": any(r["value"] is not None for r in found["likelihood"].values()),
    }


def _first(
    names: Sequence[str], recordings: Sequence[Recording], has: Callable[[Guess], bool]
) -> str:
    """The first query by which something was guessed, or the first of all."""
    by = {n for one in recordings for n, guess in one.guesses.items() if has(guess)}
    return next((name for name in names if name in by), names[0])


def _model_rows(results: Mapping[str, Row]) -> list[Row]:
    return [{"query": name, "meaning": MEANING[name], **r} for name, r in results.items()]


def _rival_rows(found: Row, over: str, own: str, unit: str, step: float, digits: int) -> Row:
    """Each rival with the model's advantage over it."""
    results = {name: r for name, r in found[over].items() if r["value"] is not None}
    ends = [end for r in results.values() for end in (r["interval"] or [r["value"]])]
    axis = Axis(*charts.nice_range(ends, step)) if ends else Axis(0.0, 1.0)
    rows = [
        {
            "name": name,
            "value": found[own][name]["value"] if own else result["details"]["theirs"],
            "over": result["value"],
            "interval": result["interval"],
            "chart": charts.intervals(
                [Mark(result["value"], result["interval"])],
                axis,
                f"nearer than {name} by {words.number(result['value'], digits, sign=True)}",
            ),
        }
        for name, result in results.items()
    ]
    near = (axis.high - axis.low) / 4
    ticks = sorted({0.0, *(end for end in (axis.low, axis.high) if abs(end) > near)})
    form = lambda tick: f"{words.number(tick, digits - 1 if unit else digits)} {unit}".rstrip()  # noqa: E731
    return {"rows": rows, "scale": charts.scale(axis, ticks, form)}


def _curve(found: Row) -> Row | None:
    """The error of each step of the chunk, the model's and the rivals'."""
    own = found["actions"].get(found["acting"])
    if own is None or own["value"] is None:
        return None
    series = [("own", found["acting"], own)] + [
        (KINDS[name], name, result)
        for name, result in found["rival_actions"].items()
        if name in KINDS and result["value"] is not None
    ]
    drawn = [(kind, _points(result["details"]["steps"])) for kind, _, result in series]
    top = max(value for _, points in drawn for _, value in points)
    steps = len(own["details"]["steps"])
    label = f"normalised action error over {steps} steps, from 0 to {words.number(top)}"
    return {
        "chart": charts.curves(drawn, label),
        "key": [(kind, name) for kind, name, _ in series],
        "top": top,
        "steps": steps,
        "own": _ends(own),
    }


def _points(steps: Sequence[float]) -> list[tuple[float, float]]:
    return [(float(t), value) for t, value in enumerate(steps)]


def _ends(result: Row) -> tuple[float, float]:
    return result["details"]["steps"][0], result["details"]["steps"][-1]


def _dimensions(found: Row) -> Row:
    """Raw error of each dimension, by the model and by the rivals."""
    columns = {found["acting"]: found["actions"].get(found["acting"]), **found["rival_actions"]}
    known = {name: r for name, r in columns.items() if r and r["value"] is not None}
    if not known:
        return {"columns": [], "rows": []}
    first = next(iter(known.values()))["details"]["dimensions"]
    rows = [
        {
            "name": name,
            "unit": dimension["unit"],
            "cells": [r["details"]["dimensions"][name] for r in known.values()],
        }
        for name, dimension in first.items()
    ]
    return {"columns": list(known), "rows": rows}


def _tasks(found: Row) -> list[Row]:
    """Per task the model's action error and the PSNR of its future."""
    action = found["actions"].get(found["acting"]) or {"parts": {}}
    future = found["futures_by_task"].get(found["imagining"]) or {"parts": {}}
    names = sorted({*action["parts"], *future["parts"]})
    return [
        {"task": n, "action": action["parts"].get(n), "future": future["parts"].get(n)}
        for n in names
    ]


def _episodes(found: Row) -> list[Row]:
    """Per episode the same two numbers."""
    action = found["actions"].get(found["acting"]) or {"items": {}}
    future = found["futures"].get(found["imagining"]) or {"items": {}}
    names = sorted({*action["items"], *future["items"]}, key=lambda n: int(n.rpartition(" ")[2]))
    return [
        {"episode": n, "action": action["items"].get(n), "future": future["items"].get(n)}
        for n in names
    ]
