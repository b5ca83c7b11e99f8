"""The commands of docs/own-data.md, on datasets as other software writes them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "data"))
sys.path.insert(0, str(Path(__file__).parent / "run"))

import foreign
from fixture import make_episode
from point_model import PointModel, policy_of

from wamlab.cli import main
from wamlab.data.check import check
from wamlab.data.manifest import DataError
from wamlab.recipes import recipe
from wamlab.recipes.work import open_caches, split_episodes
from wamlab.types import Episode

PAGE = Path(__file__).resolve().parents[1] / "docs" / "own-data.md"
TASKS = ("push the point", "pull the point")


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def snippets() -> list[str]:
    """The page's Python: one query, then a loop that watches itself."""
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def on_the_robot(cameras: dict[str, np.ndarray]) -> np.ndarray:
    """The chunk that the page's first snippet gets for what these cameras see."""
    block, _ = snippets()
    names = {"cameras": cameras, "state": np.zeros(3, np.float32), "instruction": TASKS[0]}
    exec(block, names)
    return names["chunk"]


def smaller(command: str) -> list[str]:
    """The command with less to do: fewer steps of a shallower model."""
    words = command.replace("--minutes 20", "--steps 3").split()[1:]
    if words[0] == "train":
        words += ["--set", "train.batch_size=4", "--set", "model.depth=1", "--device", "cpu"]
    return words


def write(path: Path, version: str) -> None:
    episodes = [make_episode(i, 30 + i, task=TASKS[i % 2]) for i in range(6)]
    if version == "v2.1":
        foreign.write_v21(path, episodes)
        return
    foreign.write_v30(path, episodes)
    write_stats(path, episodes)


def write_stats(path: Path, episodes: list[Episode]) -> None:
    actions = np.concatenate([episode.action for episode in episodes])
    ends = {"min": actions.min(axis=0).tolist(), "max": actions.max(axis=0).tolist()}
    (path / "meta/stats.json").write_text(json.dumps({"action": ends}))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_the_page_leads_from_a_foreign_folder_to_a_report(
    version: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAMLAB_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "data/own", version)
    said = {}
    assert [c.split()[1] for c in commands()] == [
        "data",
        "data",
        "train",
        "train",
        "eval",
        "report",
    ]
    for command in commands():
        assert main(smaller(command)) == 0, (command, capsys.readouterr().err)
        said[command] = capsys.readouterr().out

    assert "no action space is declared" in said["wam data check data/own"]
    assert "held these episodes out" in said["wam eval runs/own --dataset data/own"]
    found = json.loads(Path("runs/own/results.json").read_text())["recorded"]
    assert found["origin"] == ["held out"]
    assert (found["episodes"], found["tasks"], found["instants"]) == (2, 2, 8)
    assert set(found["actions"]["POLICY"]["details"]["dimensions"]) == {"x", "y", "g"}
    assert set(found["actions"]["POLICY"]["parts"]) == set(TASKS)
    assert len(found["actions"]["POLICY"]["details"]["steps"]) == 16
    for query in ("POLICY", "VIDEO", "JOINT", "FORWARD", "INVERSE"):
        assert found["likelihood"][query]["value"] is not None
    for rival in ("last frame", "dataset mean", "nearest clip"):
        assert found["futures_over"][rival]["value"] is not None
    chunk = on_the_robot({view: np.zeros((48, 80, 3), np.uint8) for view in ("corner", "gripper")})
    assert chunk.shape == (16, 3)
    page = Path("runs/own/report.html").read_text()
    assert "Against recorded episodes" in page
    assert "Nothing was executed" in page


def test_the_page_watches_a_policy_that_stops_where_other_frames_arrive() -> None:
    """Twenty attempts in a grey scene set the threshold; in the next one the cameras flicker."""
    rng, sent = np.random.default_rng(0), []

    def sense() -> list[dict[str, object]]:
        low, high = (112, 144) if len(sent) < 20 * 100 else (0, 256)
        shown = rng.integers(low, high, size=(2, 16, 16, 3), dtype=np.uint8)
        views = {"image/top": shown[0], "image/side": shown[1]}
        return [{**views, "state": np.zeros(4, np.float32), "instruction": TASKS[0]}]

    robot = {"sense": sense, "send": sent.append, "observe": lambda seen: seen}
    names = {"policy": policy_of(PointModel()), **robot}
    _, block = snippets()
    exec(block, names)
    assert {len(found) for found in names["calm"]} == {24}
    assert 0 < names["threshold"] < 0.2
    assert len(names["found"]) == 1
    assert len(sent) == 20 * 100 + names["execute"]
    assert {action.shape for action in sent} == {(4,)}


def test_the_recipe_takes_views_sizes_and_rate_from_the_dataset(tmp_path: Path) -> None:
    write(tmp_path / "own", "v3.0")
    run = recipe("own-data/uwm", [str(tmp_path / "own")])
    assert run.model.views == ("corner", "gripper")
    assert (run.model.state_dim, run.model.action_dim, run.model.rate_hz) == (3, 3, 20.0)
    assert (run.data.held_out, run.data.resize, run.train.validate_every) == (0.1, True, 250)


def test_each_task_gives_a_tenth_of_its_own_episodes_and_a_single_one_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAMLAB_CACHE", str(tmp_path / "cache"))
    tasks = ["often"] * 20 + ["twice"] * 2 + ["once"]
    episodes = [make_episode(i, 12, task=task) for i, task in enumerate(tasks)]
    foreign.write_v30(tmp_path / "own", episodes)
    write_stats(tmp_path / "own", episodes)
    run = recipe("own-data/uwm", [str(tmp_path / "own")])
    (cache,) = open_caches(run, [tmp_path / "own"])
    assert split_episodes(cache, run.data).held_out == {18, 19, 21}

    foreign.write_v30(tmp_path / "free", [make_episode(i, 12, task=f"{i}") for i in range(3)])
    write_stats(tmp_path / "free", episodes)
    run = recipe("own-data/uwm", [str(tmp_path / "free")])
    assert (run.data.held_out, run.train.validate_every) == (0, 0)


def test_an_alignment_that_a_run_names_overrides_the_datasets_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAMLAB_CACHE", str(tmp_path / "cache"))
    episodes = [make_episode(i, 20) for i in range(2)]
    foreign.write_v30(tmp_path / "after", episodes, shift=1)
    write_stats(tmp_path / "after", episodes)
    run = recipe("own-data/uwm", [str(tmp_path / "after")]).vary(["data.alignment=o_after"])
    (cache,) = open_caches(run, [tmp_path / "after"])
    np.testing.assert_array_equal(cache.columns["action"][:19], episodes[0].action[1:])
    np.testing.assert_array_equal(cache.columns["state"][:20], episodes[0].state[1:])
    assert cache.frames["corner"].shape == (40, 64, 64, 3)


def test_datasets_that_cannot_be_trained_on_are_named(tmp_path: Path) -> None:
    foreign.write_v30(tmp_path / "bare", [make_episode(0, 30), make_episode(1, 30)])
    with pytest.raises(DataError, match="bare has no action"):
        recipe("own-data/uwm", [str(tmp_path / "bare")])
    write(tmp_path / "own", "v2.1")
    write(tmp_path / "slow", "v3.0")
    info = json.loads((tmp_path / "slow/meta/info.json").read_text())
    (tmp_path / "slow/meta/info.json").write_text(json.dumps({**info, "fps": 10}))
    with pytest.raises(DataError, match="differ in rate"):
        recipe("own-data/uwm", [str(tmp_path / "own"), str(tmp_path / "slow")])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("eval run --env a --dataset b", "not allowed with"),
        ("eval run", "one of the arguments --env --dataset is required"),
        ("eval run --env a --states 3", "it goes with --dataset"),
        ("eval run --dataset b", "run does not exist"),
    ],
)
def test_a_question_that_cannot_be_meant_is_answered_in_a_line(
    line: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(line.split())
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert said in capsys.readouterr().err


def said_on_the_page() -> list[re.Pattern[str]]:
    """What the page's first table quotes of the check, with any number and name in its place."""
    table = PAGE.read_text().partition("## 2.")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    quoted = [re.escape(text) for cell in cells for text in re.findall(r"`(.+?)`", cell)]
    free = [re.sub(r"(\\-)?\d+(\\\.\d+)?", r"-?[\\d.]+", text) for text in quoted]
    return [re.compile(text.replace(r"\.\.\.", ".*").replace("front", r"\w+")) for text in free]


def test_every_fault_of_a_broken_dataset_has_its_row_on_the_page(tmp_path: Path) -> None:
    first, *others = [make_episode(i, 30 + i) for i in range(4)]
    first.action[12] = np.nan
    broken = [first, *others, make_episode(3, 33)]
    foreign.write_v30(tmp_path / "broken", broken, shift=1)
    write_stats(tmp_path / "broken", others[:1])
    (tmp_path / "empty").mkdir()
    problems = [*check(tmp_path / "broken", progress=False), *check(tmp_path / "empty")]
    said = said_on_the_page()
    found = {one for one in said for problem in problems if one.search(str(problem))}
    unsaid = [str(p) for p in problems if not any(one.search(str(p)) for one in said)]
    assert not unsaid
    assert len(found) >= 6
