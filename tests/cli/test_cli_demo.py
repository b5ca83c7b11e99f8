"""The main job, end to end, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("metaworld")


@pytest.mark.slow
def test_the_quick_demo_goes_the_whole_way_and_can_be_asked_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wamlab", "demo", "--quick", "--out", str(tmp_path)]
    environment = {**os.environ, "WAMLAB_CACHE": str(tmp_path / "cache"), "MUJOCO_GL": "egl"}
    first = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr[-2000:]
    page = Path(first.stdout.strip().splitlines()[-1].removeprefix("report: "))
    assert page.is_file()

    results = json.loads((page.parent / "results.json").read_text())
    assert "metaworld/door-unlock" in json.dumps(results)
    html = page.read_text()
    for word in ("mean replay", "random replay", "expert", "data:image/"):
        assert word in html

    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert json.loads((page.parent / "results.json").read_text()) == results
