"""The pusher of `tests/metrics` makes the logs that are reported here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "metrics"))


@pytest.fixture(autouse=True, scope="module")
def _few_draws(few_draws: None) -> None:
    """A report takes dozens of intervals."""
