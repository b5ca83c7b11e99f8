"""Logs as Rerun recordings, where the package is there; where it is not, what to install."""

from __future__ import annotations

import subprocess
import sys

import pusher
import pytest

from wamlab.cli import main
from wamlab.data.logs import LogError, save_episode, save_probe, save_recording
from wamlab.report.rrd import export


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)
    log = save_probe(tmp_path, pusher.probe(0, samples=1))
    with pytest.raises(ImportError, match=r'pip install "wamlab\[rerun\]"'):
        export(log, tmp_path / "state.rrd")
    assert main(["export", str(log), "--out", str(tmp_path / "state.rrd")]) == 2
    assert "wamlab[rerun]" in capsys.readouterr().err
    assert not (tmp_path / "state.rrd").exists()


def test_another_ending_is_refused_before_anything_else(tmp_path):
    with pytest.raises(ValueError, match=r"ends in '\.gif', expected '\.rrd'"):
        export(tmp_path / "nothing.npz", tmp_path / "state.gif")


def test_a_log_that_is_not_there_is_missed_before_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(FileNotFoundError, match="there is no log at"):
        export(tmp_path / "episodes" / "toy" / "0.npz", tmp_path / "a.rrd")


def printed(path) -> str:
    """What Rerun's own reader finds in the file."""
    command = [sys.executable, "-m", "rerun", "rrd", "print", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_a_probe_has_every_branch_imagined_and_executed(tmp_path):
    pytest.importorskip("rerun")
    log = save_probe(tmp_path, pusher.probe(0, samples=2))
    found = printed(export(log, tmp_path / "out" / "state.rrd"))
    for path in (
        "/now/corner",
        "/own/sample-1/imagined/corner",
        "/own/sample-1/executed/corner",
        "/imposed/half-speed/executed/corner",
        "/imposed/zero/entities/block",
        "/imposed/zero/action",
    ):
        assert path in found


def test_an_episode_has_frames_poses_actions_and_plans(tmp_path):
    pytest.importorskip("rerun")
    log = save_episode(tmp_path, pusher.episode(0))
    found = printed(export(log, tmp_path / "episode.rrd"))
    for path in ("/executed/corner", "/action", "/success", "/instruction", "/replan"):
        assert path in found


def test_what_is_no_log_of_an_episode_or_probe_is_named(tmp_path):
    import recorded

    log = save_recording(tmp_path, recorded.recordings(1)[0])
    with pytest.raises(LogError, match="holds a Recording, expected a Episode"):
        export(log, tmp_path / "a.rrd")
