from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluation_page.py"


def test_the_page_of_evaluation_is_what_the_library_finds() -> None:
    """In a process of its own: tests take their intervals from fewer draws, and keep some."""
    found = subprocess.run([sys.executable, str(TOOL), "--check"], check=False)
    assert found.returncode == 0, "run python tools/evaluation_page.py"
