"""Errors of one line, exit codes, and a stranger's file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wamlab.cli import main
from wamlab.cli.main import import_source, report

MODEL = '''\
"""A model that nobody has seen before."""
from wamlab.models.base import ModelConfig, WorldActionModel
class Stranger(WorldActionModel, name="{name}"):
    Config = ModelConfig
    card = {{"family": "test"}}
'''


class OurOwn(RuntimeError):
    """Stands for an error class of this library."""


OurOwn.__module__ = "wamlab.somewhere"


def code_of(module: str) -> dict[str, Any]:
    """Functions as if they stood in ``module``: one raises what it is given, one fails itself."""
    names = {"__name__": module}
    exec("def throw(error): raise error\ndef look_up(): return {}['corner']", names)
    return names


OURS, THEIRS = code_of("wamlab.somewhere"), code_of("numpy.somewhere")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyError("no view 'cornr'; did you mean 'corner'?"), 2, "wam: no view 'cornr'; did"),
        (ValueError("two\nlines"), 2, "wam: two lines\n"),
        (FileNotFoundError(2, "No such file", "x"), 2, "No such file"),
        (OurOwn("a checkpoint is damaged"), 2, "wam: a checkpoint is damaged\n"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero (--trace"),
    ],
)
def test_an_error_is_one_line(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(caught(lambda: OURS["throw"](error))) == code
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    "fail",
    [
        OURS["look_up"],
        lambda: THEIRS["throw"](ValueError("shapes do not match")),
        lambda: np.zeros(3).reshape(2, 2),
    ],
)
def test_what_nobody_foresaw_is_not_put_on_the_user(
    fail: Callable[[], object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(caught(fail)) == 1
    assert "(--traceback shows where)" in capsys.readouterr().err


def caught(fail: Callable[[], object]) -> Exception:
    try:
        fail()
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


def test_an_unknown_name_ends_with_the_nearest_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["train", "mw-demoo/uwm", "--data", "d", "--out", "o"]
    assert main(line) == 2
    assert capsys.readouterr().err.startswith("wam: no recipe 'mw-demoo/uwm'")


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_a_traceback_is_shown_when_asked_for(
    how: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["train", "no/such", "--data", "d", "--out", "o"]
    if how == "flag":
        line.append("--traceback")
    else:
        monkeypatch.setenv("WAMLAB_TRACEBACK", "1")
    assert main(line) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_strangers_file_is_imported_before_names_are_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wamlab.models.base import WorldActionModel, model_class

    monkeypatch.setattr(WorldActionModel, "registry", dict(WorldActionModel.registry))
    file = tmp_path / "stranger.py"
    file.write_text(MODEL.format(name="stranger-one"))
    import_source(str(file))
    assert model_class("stranger-one").__name__ == "Stranger"
    assert sys.modules.pop("imported.stranger").__doc__ == "A model that nobody has seen before."


def test_a_model_that_declares_no_sizes_says_so_when_it_is_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from wamlab.models.base import WorldActionModel

    file = tmp_path / "sketch.py"
    text = "from wamlab.models.base import WorldActionModel\nclass Sketch(WorldActionModel): pass\n"
    file.write_text(text)
    assert main(["list", "models", "--import", str(file)]) == 2
    said = capsys.readouterr().err
    assert "Sketch has no Config; a model declares Config, card, queries, stages(), loss()" in said
    assert "sketch" not in WorldActionModel.registry


def test_a_strangers_file_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "stranger.py").write_text("")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'stranger\.py'"):
        import_source(str(tmp_path / "strangr.py"))
    (tmp_path / "stranger.py").unlink()
    with pytest.raises(FileNotFoundError, match="and no other Python file beside it"):
        import_source(str(tmp_path / "strangr.py"))
    with pytest.raises(ImportError, match="no_such_module"):
        import_source("no_such_module")
