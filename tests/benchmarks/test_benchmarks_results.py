"""The page of results says what the JSON files say, and nothing that they do not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import codec_table
import pytest
from findings import MET, MISSING, NOT_MET, PARTIAL, Finding
from made_cells import TASKS, cell
from report_results import PAGE, page, read
from tables import Found
from targets import CHAPTERS

ROOT = Path(__file__).resolve().parents[2]


def findings(found: Found) -> list[Finding]:
    return [finding for chapter in CHAPTERS for finding in chapter(found).findings]


def verdict_of(found: Found, asked: str) -> str:
    (one,) = [finding for finding in findings(found) if asked in finding.asked]
    return one.verdict


def three(**options: Any) -> list[dict[str, Any]]:
    solved = dict.fromkeys(TASKS, 36)
    return [
        cell({**solved, **options.pop("solved", {})}, seed=seed, **options) for seed in range(3)
    ]


def test_the_page_is_what_the_committed_results_give() -> None:
    assert PAGE.read_text() == page(read(ROOT / "benchmarks" / "results"))


def test_every_command_is_one_that_anybody_can_run() -> None:
    results = [path.read_text() for path in (ROOT / "benchmarks" / "results").rglob("*.json")]
    commands = [line for text in results for line in re.findall(r'"command": (".*")', text)]
    assert len(commands) >= len(results)
    absolute = [line for line in commands if re.search(r"(^|[\s='\"])/\w", line)]
    assert not absolute


def test_what_is_missing_is_said_to_be_missing() -> None:
    nothing = Found({}, [], {})
    assert {finding.verdict for finding in findings(nothing)} == {MISSING}
    assert {finding.measured for finding in findings(nothing)} == {""}
    assert "No cell of `mw-6` has been measured" in page(nothing)


def test_a_target_is_named_by_what_it_is_about() -> None:
    nothing = page(Found({}, [], {}))
    assert not re.search(r"\bbars?\b|\bjudge('s| \d)|\bcorners\b", nothing, re.IGNORECASE)
    assert all(re.fullmatch(r"[a-z][a-z ]+|mw-6", f.topic) for f in findings(Found({}, [], {})))


def test_a_codec_is_measured_or_said_not_to_be() -> None:
    view = {"psnr": 27.45, "psnr_worst": 25.36, "psnr_moving": 19.59}
    record = {
        "codec": "kl/1", "code": [8, 8, 8], "parameters": 7, "steps": 90, "seconds": 180.0,
        "held_out": {"corner": view, "gripper": view}, "encode": {"frames": 192, "ms_best": 39.8},
    }  # fmt: skip
    own = {**cell(TASKS), "run": {"model": {"codec": "kl"}}}
    nothing = codec_table.text(Found({}, [], {}))
    text = codec_table.text(Found({"codec-kl": record}, [own], {}))
    assert nothing.count("not measured") == 3
    assert "| `kl/1` | 8 x 8 x 8 | 7 | 90 in 3.0 minutes | 27.4 (worst 25.4, moving 19.6) |" in text
    assert text.count("not measured") == 1
    assert "Cells that imagine in a learned codec: uwm." in text


def test_an_attempt_says_how_much_of_a_plan_is_executed() -> None:
    assert "of which 8 of 16 actions are executed before the next" in page(Found({}, three(), {}))


def test_the_columns_of_success_are_explained() -> None:
    text = page(Found({}, three(), {}))
    (head,) = {line for line in text.splitlines() if line.startswith("| task | success |")}
    for column in head.strip("| ").split(" | ")[1:]:
        assert f"*{column}*" in text, column


def test_three_good_seeds_meet_the_target_of_the_demo() -> None:
    found = Found({}, three(), {})
    assert verdict_of(found, "at least 85 %") == MET
    assert "| a | 108/120 90.0 % (83.3 to 94.2) |" in page(found)


def test_two_seeds_meet_nothing() -> None:
    found = Found({}, three()[:2], {})
    assert verdict_of(found, "at least 85 %") == PARTIAL
    assert "Missing: seeds 2." in page(found)


def test_too_few_episodes_meet_nothing() -> None:
    cells = [cell(dict.fromkeys(TASKS, 18), n=20, seed=seed) for seed in range(3)]
    assert verdict_of(Found({}, cells, {}), "at least 85 %") == PARTIAL


def test_one_task_at_the_blind_level_fails_the_target_of_the_demo() -> None:
    cells = [cell({**dict.fromkeys(TASKS, 40), "metaworld/a": 26}, seed=s) for s in range(3)]
    found = Found({}, cells, {})
    assert verdict_of(found, "at least 85 %") == MET
    cells = [cell({**dict.fromkeys(TASKS, 40), "metaworld/a": 18}, seed=s) for s in range(3)]
    (one,) = [f for f in findings(Found({}, cells, {})) if "at least 85 %" in f.asked]
    assert one.verdict == NOT_MET
    assert "above on 2 of 3 tasks" in one.measured


def test_the_last_attempt_is_judged_and_the_first_stays() -> None:
    bad = [cell(dict.fromkeys(TASKS, 10), seed=seed) for seed in range(3)]
    good = [cell(dict.fromkeys(TASKS, 36), seed=seed, attempt=2) for seed in range(3)]
    found = Found({}, bad + good, {})
    assert verdict_of(found, "at least 85 %") == MET
    text = page(found)
    assert "attempt 1" in text
    assert "| a | 30/120 25.0 %" in text
    assert "Hypothesis: smaller batches learn faster" in text


def test_imagination_must_beat_every_rival() -> None:
    cells = [cell(dict.fromkeys(TASKS, 36), seed=seed) for seed in range(3)]
    assert verdict_of(Found({}, cells, {}), "`mw-demo`: moving-pixel") == MET
    for one in cells:
        worse = dict.fromkeys(one["over_rivals"]["nearest clip"]["items"], -1.0)
        one["over_rivals"]["nearest clip"]["items"] = worse
    assert verdict_of(Found({}, cells, {}), "`mw-demo`: moving-pixel") == NOT_MET


def test_static_regions_below_30_db_fail() -> None:
    cells = [cell(dict.fromkeys(TASKS, 36), seed=seed, static_psnr=28.0) for seed in range(3)]
    assert verdict_of(Found({}, cells, {}), "`mw-demo`: static") == NOT_MET


def test_one_seed_below_static_fails_its_measure() -> None:
    cells = [cell(dict.fromkeys(TASKS, 36), seed=seed) for seed in range(3)]
    cells[1]["joint"]["robot"]["eic"]["details"]["over_static_interval"] = [-0.02, 0.1]
    assert verdict_of(Found({}, cells, {}), "`mw-demo`: EIC") == MET
    cells[2]["joint"]["robot"]["eic_cf"]["details"]["over_static_interval"] = [-0.02, 0.1]
    (one,) = [f for f in findings(Found({}, cells, {})) if "`mw-demo`: EIC" in f.asked]
    assert one.verdict == NOT_MET
    assert one.measured == "EIC in 2 of 3 seeds; EIC_cf in 2 of 3 seeds"


@pytest.mark.parametrize(
    ("equal", "kills", "expected"), [(10, 40, MET), (9, 40, NOT_MET), (10, 39, PARTIAL)]
)
def test_kills(equal: int, kills: int, expected: str) -> None:
    file = {
        "model": "uwm.tiny",
        "steps": 48,
        "checkpoint_every": 4,
        "kills": kills,
        "kills_inside_a_save": 5,
        "runs": 10,
        "runs_equal_to_unbroken": equal,
    }
    assert verdict_of(Found({"kill_test": file}, [], {}), "SIGKILL") == expected


@pytest.mark.parametrize(
    ("minutes", "status", "expected"), [(14.0, 0, MET), (15.5, 0, NOT_MET), (2.0, 2, NOT_MET)]
)
def test_timed_commands(minutes: float, status: int, expected: str) -> None:
    timed = {"timed": "make test", "minutes": minutes, "status": status, "machine": {"idle": True}}
    assert verdict_of(Found({"timed-test": timed}, [], {}), "`make test`") == expected
