"""Choosing between plans and watching for surprise, on the point environment."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import acting_on_futures
import acting_tables
import pytest
import torch
from acting_on_futures import ONE, Asked, choosing, watching
from cells import Cell, rounded
from findings import MET, MISSING
from tables import Found

from wamlab.train.checkpoint import CheckpointError
from wamlab.types import JOINT, POLICY, Cost, Future, Prediction

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))

import point_env
from point_judge import ENV, OFFSETS, VIEWS, Seer, where
from point_model import SCALE, Reactive, policy_of

pytestmark = pytest.mark.usefixtures("few_draws")


class Torn(Seer, name="point_torn"):
    """Three plans of four do what the expert would, and imagine it; the fourth stays, likewise."""

    answers = (JOINT, POLICY)
    going = 0.75

    def sample(self, observation, query, *, generator, **_):
        self.answer(query)
        now = observation["image/top"].at(0).values[:, 0]
        plans = [
            self.plan(one, float(torch.rand((), generator=draw)) < self.going)
            for one, draw in zip(now, generator, strict=True)
        ]
        values = {f"image/{view}": torch.stack([one[view] for _, one in plans]) for view in VIEWS}
        return Prediction(
            action=self._stream(torch.stack([chunk for chunk, _ in plans])),
            future=Future("pixels", "pixels", values, torch.tensor([OFFSETS] * len(now)))
            if query == JOINT
            else None,
            cost=Cost(calls=1),
        )

    def plan(self, now: torch.Tensor, go: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        hand, block = where(now, 0), where(now, 2)
        world = point_env.PointEnv(ENV, views=())
        seen = hand if bool(block.isnan().any()) else block
        world.hand[:2], world.block[:2] = hand.numpy(), seen.numpy()
        expert = world.expert(variants=False, seed=0)
        chunk, shots = torch.zeros(8, 4), {view: [] for view in VIEWS}
        for step in range(8):
            if go:
                chunk[step] = torch.as_tensor(expert()) / SCALE
                world.step(expert())
            for view in VIEWS if step + 1 in OFFSETS else ():
                picture = torch.as_tensor(world.render_view(view).copy())
                shots[view].append(picture.permute(2, 0, 1) / 127.5 - 1)
        return chunk, {view: torch.stack(seen) for view, seen in shots.items()}


class Sure(Torn, name="point_sure"):
    going = 2.0


class Jammed(point_env.PointEnv):
    """From odd starts the hand does not move."""

    def reset(self, *, seed=None, options=None):
        self.gain = 0.0 if (seed or 0) % 2 else 1.0
        return super().reset(seed=seed, options=options)


def asked(folder: Path, make: Any, episodes: int = 8, samples: int = 5) -> Asked:
    return Asked([ENV], episodes, 12, samples, folder, execute_steps=4, workers=0, make=make)


def cell_of(**found: Any) -> dict[str, Any]:
    which = {
        "protocol": "mw-6",
        "model": "uwm",
        "seed": 0,
        "attempt": 1,
        "step": None,
        "samples": 5,
    }
    return {**which, **found, "machine": {"load": 0.1}, "provenance": {"command": "benchmarks/x"}}


def test_the_plan_that_most_agree_on_is_seldom_the_odd_one(tmp_path: Path) -> None:
    """What agreement on futures gains, agreement on actions gains here as well."""
    make = partial(point_env.make, max_steps=12)
    found = choosing(policy_of(Torn()), asked(tmp_path, make, episodes=12))
    solved = {name: row[ENV]["any"] for name, row in found["success"].items()}
    assert solved["consensus"] > solved[ONE]
    assert solved["consensus"] == solved["action-consensus"]
    gain = round(100 * (solved["consensus"] - solved[ONE]) / 12)
    shown = Found({}, [], {}, acting=[cell_of(choosing=found, watching=unwatched())])
    assert f"of 12; +{gain} points (" in acting_tables.tables(shown)
    refused = "point_torn cannot value its plans, to choose from 5 samples: it answers"
    assert found["why_not"]["value"].startswith(refused)
    assert acting_tables.tables(shown).count(f"Not played, by `value`: {refused}") == 1
    assert {*found["plan"]} == {ONE, "consensus", "action-consensus"}


def test_surprise_tells_what_jams_and_expecting_nothing_tells_the_reverse(tmp_path: Path) -> None:
    policy = policy_of(Sure())
    wanted = asked(tmp_path, lambda name: Jammed(name, max_steps=16))
    choice = choosing(policy, wanted)
    assert choice["success"][ONE][ENV]["any"] == 4
    found = watching(policy, wanted)
    assert found["imagined"]["auroc"]["value"] == 1
    assert found["static"]["auroc"]["value"] == 0
    assert found["ms_an_instant"] > 0
    made = cell_of(choosing=choice, watching=found)
    kept = json.loads(json.dumps(rounded(made), allow_nan=False))
    text = acting_tables.tables(Found({}, [], {}, acting=[kept]))
    assert "| what it imagined | 1.00 (0.51 to 1.00) of 4 failures, 4 successes |" in text
    assert "| that nothing moves | 0.00 (0.00 to 0.49) of 4 failures" in text
    said = acting_tables.finding(Found({}, [], {}, acting=[kept]))
    assert said.verdict == MET
    assert "agreement on futures +" in said.measured
    assert "expects what it imagined 1.00 (0.51 to 1.00)" in said.measured
    assert acting_tables.finding(Found({}, [], {})).verdict == MISSING
    assert "Not measured" in acting_tables.tables(Found({}, [], {}))
    text = acting_tables.tables(Found({}, [], {}, acting=[{**kept, "step": 100}]))
    assert "| `uwm` on `mw-6`, seed 0, after 100 steps |" in text


def test_seeds_are_pooled_on_the_starts_that_they_share() -> None:
    """Agreement solves four starts more in one seed and none in the other; eight starts each."""
    cells = [cell_of(choosing=played(one, many), watching=unwatched()) for one, many in SEEDS]
    cells[1]["seed"] = 1
    found = Found({}, [], {}, acting=cells)
    lines = acting_tables.tables(found).splitlines()
    said = "One sample is what a choice at random is worth. Not played, by `value`: it values"
    assert sum(line.startswith(said) for line in lines) == 1
    (both,) = [line for line in lines if line.startswith("| `uwm` on `mw-6`, 2 seeds")]
    assert "| 50 % of 16; 5 ms | 75 % of 16; +25 points (0 to 69); 5 ms |" in both.replace(
        "\u00a0", " "
    )
    said = acting_tables.finding(found).measured
    assert said.startswith("`uwm` on `mw-6`, 2 seeds: agreement on futures +25 points (")
    assert "expects what it imagined no failures and no failures" in said
    apart = [cells[0], {**cells[1], "step": 100}]
    assert "2 seeds" not in acting_tables.tables(Found({}, [], {}, acting=apart))


SEEDS = (("11110000", "11111111"), ("11110000", "11110000"))


def played(one: str, many: str) -> dict[str, Any]:
    outcomes = {ONE: one, "consensus": many, "action-consensus": one}
    solved = {
        name: {ENV: {"n": 8, "any": said.count("1"), "first_start": 0, "outcomes": said}}
        for name, said in outcomes.items()
    }
    plan = {name: {"ms_p50": 5.0} for name in outcomes}
    return {"success": solved, "plan": plan, "why_not": {"value": "it values nothing"}}


def unwatched() -> dict[str, Any]:
    none = {"value": None, "why_not": "no failures"}
    return {
        "ms_an_instant": None,
        **dict.fromkeys(("imagined", "static"), dict.fromkeys(("auroc", "alarms"), none)),
    }


def test_what_imagines_nothing_is_refused_and_a_cell_that_is_not_there_named(tmp_path) -> None:
    make = partial(point_env.make, max_steps=12)
    with pytest.raises(Exception, match="cannot imagine its plans"):
        choosing(policy_of(Reactive()), asked(tmp_path, make))
    words = ["mw-6", "--work", str(tmp_path), "--results", str(tmp_path)]
    with pytest.raises(CheckpointError, match="uwm-seed0-attempt1 does not exist"):
        acting_on_futures.main(words)
    cell = Cell("mw-6", "uwm", 0)
    with pytest.raises(CheckpointError, match="step-000100 does not exist"):
        acting_on_futures.main([*words, "--step", "100"])
    assert acting_on_futures.result_path(cell, tmp_path).parent.name == "acting"
    young = acting_on_futures.result_path(cell, tmp_path, 100)
    assert young.name == "uwm-seed0-attempt1-step100.json"
