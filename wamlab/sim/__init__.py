"""Simulators, which render without a display where the user has not said how."""

import os
import sys

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")  # read by mujoco when it is imported
