"""Logs as Rerun recordings: what is logged, as a writer that keeps it all has it.

The package is large and no test needs it; where it is there, its own reader finds the same paths.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pusher
import pytest

from wamlab.cli import main
from wamlab.data.logs import LogError, save_episode, save_probe, save_recording
from wamlab.report.rrd import export
from wamlab.types import EXECUTED


class Stream:
    """Takes the calls of Rerun's ``RecordingStream`` and keeps what is logged."""

    def __init__(self, application_id: str, *, recording_id: str) -> None:
        self.name = f"{application_id}: {recording_id}"
        self.path, self.open = "", True
        self.now: dict[str, int] = {}
        self.logged: dict[str, list[tuple[dict[str, int] | None, Any]]] = {}

    def save(self, path: str) -> None:
        self.path = path

    def set_time(self, timeline: str, *, sequence: int) -> None:
        self.now = {timeline: sequence}

    def log(self, entity_path: str, entity: Any, *, static: bool = False) -> None:
        """What is static has no time, and what has a time is given one before."""
        assert static or self.now
        when = None if static else self.now
        self.logged.setdefault(entity_path, []).append((when, entity))

    def flush(self) -> None:
        assert self.open

    def disconnect(self) -> None:
        self.open = False

    def static(self, path: str) -> Any:
        """What is logged under a path once for all steps."""
        ((when, entity),) = self.logged[path]
        assert when is None
        return entity

    def over(self, path: str) -> dict[int, Any]:
        """What is logged under a path, by step."""
        rows = self.logged[path]
        assert {name for when, _ in rows for name in when or {}} == {"step"}
        found = {when["step"]: entity for when, entity in rows if when is not None}
        assert len(found) == len(rows)
        return found


def image(shot: np.ndarray) -> np.ndarray:
    assert (shot.dtype, shot.ndim, shot.shape[-1]) == (np.uint8, 3, 3)
    return shot


def placed(*, translation: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    return np.concatenate([translation, quaternion])


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Stream]:
    """What a log's export gives to Rerun, whose archetypes are here what they are made of."""

    def written(log: Path) -> Stream:
        streams: list[Stream] = []

        def opened(application_id: str, *, recording_id: str) -> Stream:
            streams.append(Stream(application_id, recording_id=recording_id))
            return streams[-1]

        rerun = SimpleNamespace(
            RecordingStream=opened,
            TextDocument=str,
            Image=image,
            Scalars=np.asarray,
            Quaternion=lambda *, xyzw: xyzw,
            Transform3D=placed,
        )
        monkeypatch.setitem(sys.modules, "rerun", rerun)
        out = export(log, tmp_path / "out" / "log.rrd")
        (stream,) = streams
        assert (stream.path, stream.open) == (str(out), False)
        return stream

    return written


def test_every_branch_that_the_model_was_asked_for_is_logged_at_its_steps(tmp_path, exported):
    probe = pusher.probe(0, samples=2)
    turned = probe.branches[0].entities["block"]
    turned[:, 3:] = [0.1, 0.2, 0.3, 0.4]
    told = dataclasses.replace(probe.branches[1], kind="instructed", instruction="pull it")
    probe.branches.append(told)
    for branch in probe.of("imposed"):
        branch.why_not = "it does not answer"
    log = exported(save_probe(tmp_path, probe))
    assert log.name == "wamlab: toy/pusher/0"
    assert log.static("instruction") == probe.instruction
    assert np.array_equal(log.over("now/corner")[0], probe.now["corner"][0])
    for branch in probe.asked():
        path = f"{branch.kind}/{branch.label.replace(' ', '-')}"
        seen = {"executed": branch.happened, "imagined": branch.imagined or {}}
        for what, views in seen.items():
            for view, shots in views.items():
                found = log.over(f"{path}/{what}/{view}")
                assert [*found] == [8, 16]
                assert np.array_equal([*found.values()], shots)
        actions = log.over(f"{path}/action")
        assert [*actions] == [*range(16)]
        assert np.allclose([*actions.values()], branch.action)
        for name, poses in branch.entities.items():
            found = log.over(f"{path}/entities/{name}")
            assert [*found] == [*range(17)]
            assert np.allclose([*found.values()], poses[:, [0, 1, 2, 4, 5, 6, 3]])
    assert log.static("imposed/zero/imagined") == "nothing was imagined: it does not answer"
    assert log.static("instructed/sample-1/instruction") == "pull it"


def test_what_is_executed_and_nothing_more_is_left_out(tmp_path, exported):
    probe = pusher.probe(0, samples=2)
    assert {one.kind for one in probe.branches} & {*EXECUTED}
    log = exported(save_probe(tmp_path, probe))
    told = {"/".join(path.split("/")[:2]) for path in log.logged}
    asked = {f"{one.kind}/{one.label.replace(' ', '-')}" for one in probe.asked()}
    assert told == {"instruction", "now/corner", *asked}


def test_an_episode_is_logged_step_by_step_and_its_plans_where_they_lead(tmp_path, exported):
    episode = pusher.episode(0)
    log = exported(save_episode(tmp_path, episode))
    steps = len(episode)
    shots = log.over("executed/corner")
    assert [*shots] == [*range(steps + 1)]
    assert np.array_equal([*shots.values()], episode.frames["corner"])
    assert [*log.over("entities/block")] == [*log.over("state")] == [*range(steps + 1)]
    assert np.allclose([*log.over("action").values()], episode.action)
    assert [bool(one) for one in log.over("success").values()] == episode.success.tolist()
    assert log.over("replan") == {0: "start", 16: "chunk executed"}
    assert [*log.over("imagined/corner")] == [8, 16]
    assert np.array_equal(log.over("imagined/corner")[8], episode.frames["corner"][8])


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
