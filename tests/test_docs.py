"""What the documents say of the library is what the library is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from wamlab.cli.listing import models
from wamlab.cli.parser import make_parser, parse
from wamlab.metrics.base import AXES
from wamlab.models.base import WorldActionModel, available, model_class

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WORDS = {
    *("observation", "state", "action", "chunk", "horizon", "view", "frame", "video", "latent"),
    *("instruction", "embodiment", "episode", "window", "rollout"),
}
MEASURES = {
    *("EIC", "EIC_cf", "EIC_ref", "IEA", "SKILL", "CMR", "OCB", "DWA", "ICC", "DIV", "AUROC"),
}


def systems() -> dict[str, list[str]]:
    table = (ROOT / "README.md").read_text().split("<!-- systems")[1].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {name.strip("`"): cells for name, *cells in rows}


def test_the_table_of_systems_is_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        WorldActionModel, "registry", {name: model_class(name) for name in available()}
    )
    said, true = systems(), models()
    assert sorted(said) == sorted(true)
    for name, (what, queries, space) in said.items():
        answers = true[name]["queries"]
        assert queries == ", ".join(answers)
        spaces = {answer["space"] for answer in answers.values()} - {None}
        assert space == (", ".join(sorted(spaces)) or "nothing")
        assert true[name]["card"]["family"] in what


def test_every_command_in_the_documents_is_one() -> None:
    parser = make_parser()
    text = "\n".join(page.read_text() for page in PAGES)
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced if language in ("", "sh")]
    lines = [part for block in blocks for part in re.split(r"\n|  +", block)]
    commands = [line for line in lines if line.startswith("wam ") and "[" not in line]
    assert len(commands) > 10
    for command in commands:
        parse(parser, command.split()[1:])


def test_the_readmes_example_needs_nothing_that_it_does_not_import() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    tree, known = ast.parse(block), {}
    imports = [one for one in tree.body if isinstance(one, (ast.Import, ast.ImportFrom))]
    exec(compile(ast.Module(imports, []), "README.md", "exec"), known)
    names = {one for one in ast.walk(tree) if isinstance(one, ast.Name)}
    made = {one.id for one in names if isinstance(one.ctx, ast.Store)}
    assert {one.id for one in names} <= {*known, *made}


def test_every_link_leads_to_a_file() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_file_that_the_architecture_names_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = [name for name in re.findall(r"`([\w/]+\.py)`", text) if "/" in name]
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "wamlab" / name).exists(), name


def test_the_glossary_has_every_word_of_the_house_in_order() -> None:
    lines = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    words = [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:]
    assert words == sorted(words)
    assert set(words) >= WORDS | MEASURES
    (axis,) = [line for line in lines if line.startswith("| axis |")]
    assert axis.rstrip(" |").partition(": ")[2] == ", ".join(AXES)


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    for page in ("benchmarks/README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))):
        assert f"]({page})" in text, page
