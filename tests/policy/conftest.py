"""The point environment and its models live beside the tests of the run room."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))
