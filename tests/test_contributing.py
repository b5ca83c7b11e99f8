"""The worked example of CONTRIBUTING.md is a model: it trains and is judged as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from wamlab.cli import main
from wamlab.models.base import WorldActionModel, available

ROOT = Path(__file__).resolve().parents[1]
TASK = "metaworld/door-unlock"


def example() -> str:
    """The Python block of the page."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    return block


@pytest.mark.slow
def test_a_strangers_model_is_trained_and_judged_without_touching_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAMLAB_CACHE", str(tmp_path / "cache"))
    own = {name: kind for name, kind in WorldActionModel.registry.items() if name in available()}
    monkeypatch.setattr(WorldActionModel, "registry", own)
    Path("sketch.py").write_text(example())
    own = ["--import", "sketch.py", "--device", "cpu"]

    def wam(*words: str) -> str:
        assert main(words) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    wam("collect", "--env", TASK, "--episodes", "2", "--out", "data")
    budget = [
        "--steps",
        "30",
        "--set",
        "train.batch_size=16",
        "--set",
        "train.optim.warmup_steps=1",
    ]
    wam("train", "mw-demo/sketch", *own, "--data", "data", "--out", "run", *budget)
    limit = ["--episodes", "1", "--out", "run"]
    assert "over 1 episodes" in wam("eval", "run", *own, "--env", TASK, *limit)
    limit = ["--states", "1", "--samples", "1", "--data", "data", "--out", "run"]
    limit += ["--set", "probe.imposed=zero,mirrored"]  # one task: there is no other instruction
    wam("probe", "run", *own, "--env", TASK, *limit)
    wam("report", "run")
    assert "nothing is wrong" in wam("verify", "run")

    found = json.loads(Path("run/results.json").read_text())
    losses = [value for _, value in found["loss"]["loss"]]
    assert losses[-1] < losses[0]
    assert found["success"]["success_any"]["value"] is not None
    assert found["success"]["success_over_blind"]["value"] is not None
    assert set(found["rivals"]) == {"last frame", "dataset mean", "nearest clip"}
    assert found["fidelity"]["psnr"]["value"] > 10
    assert "<html" in Path("run/report.html").read_text()
    assert "sketch" in wam("list", "models", "--import", "sketch.py")
