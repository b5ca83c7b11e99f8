from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fixture import make_dataset

from wamlab.types import Episode


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[Episode]]:
    """A small dataset and the episodes that were written into it."""
    path = tmp_path / "point"
    return path, make_dataset(path)
