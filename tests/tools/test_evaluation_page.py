from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_of_evaluation_is_what_the_library_finds() -> None:
    path = ROOT / "tools" / "evaluation_page.py"
    spec = importlib.util.spec_from_file_location("evaluation_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), "run python tools/evaluation_page.py"
