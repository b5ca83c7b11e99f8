"""wamlab: every World Action Model on the same parts, data, closed loop and measures."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "load": "wamlab.policy.policy",
    "Policy": "wamlab.policy.policy",
    **dict.fromkeys(
        ("POLICY", "VIDEO", "JOINT", "FORWARD", "INVERSE", "Query", "Batch", "Stream"),
        "wamlab.types",
    ),
}


def __getattr__(name: str) -> Any:
    """Public names are imported when first used: `import wamlab` stays fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wamlab' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
