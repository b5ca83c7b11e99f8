"""The command line on the point environment."""

from __future__ import annotations

from point_cli import cache, data, made, point_world, run, wam  # noqa: F401
