"""Reading probes: what was imagined and what happened is looked at, and what is seen is logged.

A state reader sees places; it serves every model whose codec loses nothing, and else the model
whose codec it saw. A judge reads actions off the frames, the same one for every model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from wamlab.data.logs import load_rivals, read_probes, save_probe, save_reader_errors
from wamlab.metrics.base import imagining
from wamlab.metrics.rivals import NearestClip
from wamlab.policy.raw import Through, codec_of
from wamlab.run.film import Judge, ReadState
from wamlab.run.reader import StateReader, fit, load_reader, look
from wamlab.run.seats import MakeEnv, make_env
from wamlab.sim.env import Env
from wamlab.types import EXECUTED, Branch, Frames, Probe

Train = Callable[[Env, Env, Through, str], StateReader]
"""From an environment to act in, one to see with, a codec and its name to a reader."""


def read_probes_of(
    asked: Any,
    probes: str | Path,
    readers: str | Path,
    *,
    make: MakeEnv = make_env,
    train: Train | None = None,
    progress: bool = True,
) -> list[Probe]:
    """Read the logged probes of one policy; those that this reader has read are left as they are.

    A reader is trained for each environment for which the folder ``readers`` has none (a minute or
    two each); it is kept there for the next model. Where rivals were saved beside a probe, it also
    reads the nearest training clip. How exact the readers are is logged beside the probes.

    Raises:
        LogError: damaged probes.
    """
    through, known = codec_of(asked), {}
    found = list(read_probes(probes))
    for place, one in enumerate(tqdm(found, "reading", disable=not progress)):
        views = imagined_views(one)
        if not views:
            continue
        if (one.env, views) not in known:
            known[one.env, views] = reader_of(one.env, views, asked, readers, make, train)
        reader, clip = known[one.env, views], load_rivals(probes, one).get(NearestClip.name)
        if one.reader != reader.title or (clip is not None and one.retrieved is None):
            found[place] = read(one, reader, through, clip)
            save_probe(probes, found[place])
    if known:
        save_reader_errors(probes, {reader.title: reader.error for reader in known.values()})
    return found


def judge_probes(judge: Judge, probes: str | Path, *, progress: bool = True) -> list[Probe]:
    """Let a judge read the actions off logged probes, unless it has done so already.

    Raises:
        LogError: damaged probes.
        ValueError: another judge has read them, or they show less than this one looks at.
    """
    found = list(read_probes(probes))
    for place, one in enumerate(tqdm(found, "judging", disable=not progress)):
        if one.judge not in ("", judge.title):
            raise ValueError(f"{probes} was judged by {one.judge}, not by {judge.title}")
        if not one.judge and imagining(one):
            found[place] = judged(one, judge)
            save_probe(probes, found[place])
    return found


def judged(probe: Probe, judge: Judge) -> Probe:
    """The probe with the actions that a judge reads off each own branch, imagined and executed.

    Raises:
        ValueError: the branches show other views or offsets than the judge looks at.
    """
    windows = [
        window(probe, branch, shown, judge)
        for branch in imagining(probe)
        for shown in (branch.imagined or {}, branch.happened)
    ]
    chunks, _ = judge.extract(windows, [probe.instruction] * len(windows))
    pairs = zip(chunks[::2], chunks[1::2], strict=True)
    branches = []
    for branch in probe.branches:
        if branch.kind == "own" and branch.imagined:
            decoded, redecoded = next(pairs)
            branch = replace(branch, decoded=decoded, redecoded=redecoded)
        branches.append(branch)
    return replace(probe, branches=branches, judge=judge.title)


def window(probe: Probe, branch: Branch, shown: Frames, judge: Judge) -> Frames:
    """The frames now and ahead that a judge looks at."""
    at = branch.offsets.tolist()
    if missing := [k for k in judge.offsets if k not in at]:
        seen = f"the judge looks at {judge.offsets}, the probes show {tuple(at)}"
        raise ValueError(f"{seen}: {missing} are missing")
    if absent := [view for view in judge.views if view not in shown]:
        raise ValueError(f"the judge looks at the view {absent[0]!r}, the probes show {[*shown]}")
    places = [at.index(k) for k in judge.offsets]
    return {view: np.concatenate([probe.now[view], shown[view][places]]) for view in judge.views}


def read(
    probe: Probe,
    reader: StateReader,
    through: Through = lambda frames: frames,
    retrieved: Frames | None = None,
) -> Probe:
    """The probe with what the reader sees in every branch that the model was asked for.

    ``retrieved`` are the frames of the nearest training clip, where it is to be read as well.
    """
    branches = []
    for branch in probe.branches:
        if branch.imagined is not None:
            branch = replace(branch, read=reader.read(branch.imagined))
        if branch.happened and branch.kind not in EXECUTED:
            branch = replace(branch, reread=reader.read(through(branch.happened)))
        branches.append(branch)
    clip = None if retrieved is None else reader.read(through(retrieved))
    return replace(probe, branches=branches, reader=reader.title, retrieved=clip)


def reader_of(
    env: str,
    views: Sequence[str],
    asked: Any,
    folder: str | Path,
    make: MakeEnv = make_env,
    train: Train | None = None,
) -> StateReader:
    """The reader of an environment in ``folder``, trained and put there if there is none."""
    through = codec_of(asked)
    with closing(make(env, views=tuple(views))) as seeing, closing(make(env, views=())) as acting:
        codec = _codec_name(asked, through, seeing)
        name = "-".join([env.replace("/", "__"), *views, codec.replace("/", "_")])
        path = Path(folder) / f"{name}.safetensors"
        if path.exists():
            return load_reader(path)
        reader = (train or trained)(acting, seeing, through, codec)
        reader.save(path)
        return reader


def state_reading(
    asked: Any,
    views: Sequence[str],
    folder: str | Path,
    make: MakeEnv = make_env,
    train: Train | None = None,
) -> ReadState:
    """The robot's state in what is imagined, by the readers of ``folder``; see `reader_of`."""
    known: dict[str, StateReader] = {}

    def read_state(env: str, frames: Frames) -> Float[np.ndarray, " s"]:
        if env not in known:
            known[env] = reader_of(env, views, asked, folder, make, train)
        state = known[env].read({view: frames[view][None] for view in views}).state
        assert state is not None
        return state[0].astype(np.float32)

    return read_state


def trained(acting: Env, seeing: Env, through: Through, codec: str) -> StateReader:
    """A reader with the default numbers of starts and steps."""
    return fit(acting.name, look(acting, seeing), through=through, codec=codec)


def imagined_views(probe: Probe) -> tuple[str, ...]:
    """The views that every imagining branch shows."""
    shown = [set(branch.imagined) for branch in probe.branches if branch.imagined]
    return tuple(view for view in probe.now if shown and all(view in views for views in shown))


def _codec_name(asked: Any, through: Through, seeing: Env) -> str:
    """``pixels`` for a codec that loses nothing, else the weights that it is a part of."""
    frames = {view: seeing.render_view(view)[None] for view in seeing.views}
    lossless = all(np.array_equal(after, frames[v]) for v, after in through(frames).items())
    return "pixels" if lossless else f"codec of {asked.digest[:12]}"
