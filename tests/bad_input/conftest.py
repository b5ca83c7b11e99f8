"""What a user meets: the command line and the public names, on the point environment."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))

import point_env
from point_cli import cache, data, made, point_world, run, wam  # noqa: F401


@pytest.fixture
def observation() -> dict[str, object]:
    """What the point environment shows at its first start."""
    return point_env.PointEnv().reset(seed=1)[0]


@pytest.fixture
def chunk() -> np.ndarray:
    """Eight actions inside the space."""
    return np.zeros((8, 4), np.float32)
