"""Benchmarks are scripts: their folder is put where they find one another; the pusher helps."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.append(str(ROOT / "tests" / "metrics"))
