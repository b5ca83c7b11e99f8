"""Episodes and probes as Rerun recordings (``.rrd``), to be looked at in its viewer.

The package ``rerun-sdk`` is an extra; nothing else of this library needs it. The timeline ``step``
counts executed actions; what was imagined stands at the step that it is of. Of a probe the branches
that the model was asked for are written, under ``<kind>/<label>``; those that are executed and
nothing more (`wamlab.types.EXECUTED`: other worlds, shuffled and reference actions) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from wamlab.data.logs import load_log
from wamlab.report.pictures import as_bytes
from wamlab.types import Branch, Episode, Frames, Probe

APPLICATION = "wamlab"
TIMELINE = "step"


def export(log: str | Path, out: str | Path) -> Path:
    """Write the log of one episode or probe as a Rerun recording; returns its path.

    Raises:
        FileNotFoundError, LogError: no log of an episode or probe.
        ImportError: ``rerun-sdk`` is not installed, with the line that installs it.
        ValueError: ``out`` does not end in ``.rrd``.
    """
    path = Path(out)
    if path.suffix != ".rrd":
        raise ValueError(f"{path.name} ends in {path.suffix!r}, expected '.rrd'")
    found = load_log(log)
    rerun = _rerun()
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = rerun.RecordingStream(APPLICATION, recording_id=f"{found.env}/{found.seed}")
    stream.save(str(path))
    writer = Writer(rerun, stream)
    if isinstance(found, Episode):
        _episode(writer, found)
    else:
        _probe(writer, found)
    stream.flush()
    stream.disconnect()
    return path


class Writer:
    """What is logged, by path and step."""

    def __init__(self, rerun: ModuleType, stream: Any) -> None:
        self.rerun, self.stream = rerun, stream

    def put(self, path: str, value: Any, step: int | None = None) -> None:
        if step is not None:
            self.stream.set_time(TIMELINE, sequence=step)
        self.stream.log(_part(path), value, static=step is None)

    def say(self, path: str, text: str, step: int | None = None) -> None:
        self.put(path, self.rerun.TextDocument(text), step)

    def frames(self, path: str, frames: Frames, steps: Int[np.ndarray, " t"]) -> None:
        for view, shots in frames.items():
            for step, shot in zip(steps, as_bytes(shots), strict=True):
                self.put(f"{path}/{view}", self.rerun.Image(shot), int(step))

    def numbers(self, path: str, rows: Float[np.ndarray, "n d"]) -> None:
        for step, row in enumerate(rows):
            self.put(path, self.rerun.Scalars(np.asarray(row, float)), step)

    def poses(self, path: str, entities: Mapping[str, Float[np.ndarray, "n 7"]]) -> None:
        """Positions in metres, and w-x-y-z quaternions, which Rerun wants as x-y-z-w."""
        for name, poses in entities.items():
            for step, pose in enumerate(np.asarray(poses, float)):
                turned = self.rerun.Quaternion(xyzw=pose[[4, 5, 6, 3]])
                self.put(
                    f"{path}/{name}",
                    self.rerun.Transform3D(translation=pose[:3], quaternion=turned),
                    step,
                )


def _episode(writer: Writer, episode: Episode) -> None:
    writer.say("instruction", episode.instruction)
    every = np.arange(len(episode) + 1)
    writer.frames("executed", episode.frames, every)
    writer.poses("entities", episode.entities)
    writer.numbers("state", episode.state)
    writer.numbers("action", episode.action)
    writer.numbers("success", episode.success[:, None].astype(float))
    for plan in episode.replans:
        writer.say("replan", plan.reason, plan.step)
        if plan.imagined is not None and plan.imagined_offsets is not None:
            writer.frames("imagined", plan.imagined, plan.step + plan.imagined_offsets)


def _probe(writer: Writer, probe: Probe) -> None:
    writer.say("instruction", probe.instruction)
    writer.frames("now", probe.now, np.zeros(1, int))
    for branch in probe.asked():
        _branch(writer, f"{branch.kind}/{branch.label}", branch)


def _branch(writer: Writer, path: str, branch: Branch) -> None:
    if branch.instruction:
        writer.say(f"{path}/instruction", branch.instruction)
    if branch.imagined is None:
        writer.say(f"{path}/imagined", f"nothing was imagined: {branch.why_not}")
    writer.frames(f"{path}/imagined", branch.imagined or {}, branch.offsets)
    writer.frames(f"{path}/executed", branch.happened, branch.offsets)
    writer.poses(f"{path}/entities", branch.entities)
    writer.numbers(f"{path}/action", branch.action)


def _part(path: str) -> str:
    """A path that Rerun takes as it is: no blanks."""
    return path.replace(" ", "-")


def _rerun() -> ModuleType:
    try:
        import rerun
    except ImportError as error:
        raise ImportError(
            f'a Rerun recording needs rerun-sdk: pip install "wamlab[rerun]" ({error})'
        ) from error
    return rerun
