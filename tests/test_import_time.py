"""`import wamlab` and `wam --help` are fast because nothing heavy is imported for them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "mujoco", "metaworld", "transformers", "pyarrow", "av", "PIL", "numpy")


def seconds(arguments: list[str], *, less: float = 0.0, tries: int = 5, limit: float) -> float:
    """The median of three runs, the best of some tries: other work on the machine is not ours."""
    best = float("inf")
    for _ in range(tries):
        runs = [timed(arguments) - less for _ in range(3)]
        best = min(best, statistics.median(runs))
        if best < limit:
            break
    return best


def timed(arguments: list[str]) -> float:
    start = time.perf_counter()
    done = python(*arguments)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - start


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )


def test_import_wamlab_takes_less_than_a_third_of_a_second() -> None:
    assert seconds(["-c", "import wamlab"], limit=0.3) < 0.3


def test_wam_help_takes_less_than_half_a_second() -> None:
    assert seconds(["-m", "wamlab", "--help"], limit=0.5) < 0.5


@pytest.mark.parametrize(
    "code",
    [
        "import wamlab; dir(wamlab)",
        "from wamlab.cli.parser import make_parser; make_parser()",
        "import wamlab.config",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    done = python("-c", f"{code}\nimport sys\nprint(*set(sys.modules) & set({HEAVY!r}))")
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_the_vocabulary_and_the_simulators_import_no_torch() -> None:
    code = (
        "import wamlab.types, wamlab.sim.env, sys\nfrom wamlab import JOINT\n"
        "print(JOINT, 'torch' in sys.modules)"
    )
    assert python("-c", code).stdout.split() == ["JOINT", "False"]


def test_a_public_name_that_is_not_there_is_an_attribute_error() -> None:
    import wamlab

    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = wamlab.lode
    assert {"load", "JOINT", "Policy"} <= set(dir(wamlab))
