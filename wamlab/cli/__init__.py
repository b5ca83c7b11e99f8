"""The command `wam`. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations

from wamlab.cli.main import main

__all__ = ["main"]
