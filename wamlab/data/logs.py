"""What a run leaves behind, and how it is read again: episodes, probes, recordings, loss curves.

A run folder holds ``run.json``, ``loss.jsonl``, ``blind.json``, ``chosen.json`` (by which rules the
episodes were chosen, `wamlab.metrics.success.RULES`), ``episodes/<env>/<seed>.npz``,
``probes/<env>/<seed>-<step>.npz`` (``/`` in an environment's name becomes ``__``) and
``recordings/<episode>/<step>.npz``. Beside a probe lies what its rivals showed,
``<seed>-<step>.rivals.npz``; ``readers.json`` says how exact state readers are.

A log is a compressed npz: its arrays by their path in the dataclass tree and, in ``meta``, the
tree itself as JSON with a schema number. Frames are stored as differences from the frame before,
modulo 256: exact, and several times smaller, since most of a scene stands still.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from wamlab.config import nearest
from wamlab.data.manifest import replacing
from wamlab.types import (
    Branch,
    Denoised,
    Episode,
    Frames,
    Guess,
    Nats,
    Probe,
    Reading,
    Recording,
    Replan,
    Waypoints,
)

SCHEMA = 1
KINDS = {
    kind.__name__: kind
    for kind in (
        Episode, Replan, Probe, Branch, Reading, Waypoints, Recording, Guess, Denoised, Nats,
    )
}  # fmt: skip
RIVALS = ".rivals.npz"


class LogError(ValueError):
    """A log that cannot be written or read; the message names the file and what is wrong."""


def save_episode(folder: str | Path, episode: Episode) -> Path:
    """Write one episode under its environment and start seed; an older one is replaced."""
    path = Path(folder) / "episodes" / _env_folder(episode.env) / f"{episode.seed}.npz"
    return _save(path, episode)


def save_probe(folder: str | Path, probe: Probe) -> Path:
    """Write one probe under its environment, start seed and step; an older one is replaced."""
    return _save(_probe_path(folder, probe, ".npz"), probe)


def save_recording(folder: str | Path, recording: Recording) -> Path:
    """Write one recording under its episode and step; an older one is replaced."""
    return _save(_recording_path(folder, recording.episode, recording.step), recording)


def save_rivals(folder: str | Path, probe: Probe, rivals: Mapping[str, Frames]) -> Path:
    """Write what each rival showed for this probe, by rival and view (T, H, W, 3) uint8."""
    return _save(_probe_path(folder, probe, RIVALS), {k: dict(v) for k, v in rivals.items()})


def save_blind(folder: str | Path, rows: Mapping[str, Mapping[str, tuple[int, int]]]) -> Path:
    """Write ``blind.json``: successes and trials by environment and row.

    Rows are ``expert``, ``mean replay`` and ``random replay``.
    """
    plain = {env: {name: list(pair) for name, pair in row.items()} for env, row in rows.items()}
    return write_json(Path(folder) / "blind.json", plain)


def load_blind(folder: str | Path) -> dict[str, dict[str, tuple[int, int]]]:
    """The blind rows beside a run; empty when none were saved.

    Raises:
        LogError: anything but successes and trials by environment and row.
    """
    path = Path(folder) / "blind.json"
    if not path.exists():
        return {}
    try:
        return {
            env: {name: (int(k), int(n)) for name, (k, n) in rows.items()}
            for env, rows in read_json(path).items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise LogError(
            f'{path}: expected {{"<env>": {{"mean replay": [successes, n]}}}}: {error}'
        ) from error


def read_episodes(folder: str | Path, *, frames: bool = True) -> Iterator[Episode]:
    """Episodes one by one, by environment and seed; ``frames=False`` leaves the pictures out.

    Raises:
        LogError: a file of another schema, a truncated or damaged one.
    """
    for path in _sorted_logs(Path(folder) / "episodes"):
        yield _load(path, Episode, frames=frames)


def load_episode(folder: str | Path, env: str, seed: int) -> Episode:
    """One episode with its frames; LogError when there is none."""
    path = Path(folder) / "episodes" / _env_folder(env) / f"{seed}.npz"
    if not path.exists():
        raise LogError(f"{folder} holds no episode of {env!r} from start {seed}")
    return _load(path, Episode)


def load_episodes(folder: str | Path, *, frames: bool = True) -> list[Episode]:
    """All episodes of a run; see `read_episodes`."""
    return list(read_episodes(folder, frames=frames))


def read_probes(folder: str | Path) -> Iterator[Probe]:
    """Probes one by one, by environment, seed and step.

    Raises:
        LogError: a file of another schema, a truncated or damaged one.
    """
    for path in _sorted_logs(Path(folder) / "probes"):
        yield _load(path, Probe)


def load_probes(folder: str | Path) -> list[Probe]:
    """All probes of a run; see `read_probes`."""
    return list(read_probes(folder))


def load_recording(folder: str | Path, episode: int, step: int) -> Recording | None:
    """The recording of one instant; None where there is none."""
    path = _recording_path(folder, episode, step)
    return _load(path, Recording) if path.exists() else None


def load_recordings(folder: str | Path) -> list[Recording]:
    """All recordings of a run, by episode and step.

    Raises:
        LogError: a file of another schema, a truncated or damaged one.
    """
    paths = sorted(
        (Path(folder) / "recordings").glob("*/*.npz"), key=lambda p: (p.parent.name, p.name)
    )
    return [_load(path, Recording) for path in paths]


def load_log(path: str | Path) -> Episode | Probe:
    """The episode or probe of one file.

    Raises:
        FileNotFoundError: there is no such file.
        LogError: neither of the two, another schema, a truncated or damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no log at {path}")
    return _load(path, Probe if path.parent.parent.name == "probes" else Episode)


def load_rivals(folder: str | Path, probe: Probe) -> dict[str, Frames]:
    """What each rival showed for this probe; empty when no rivals were saved."""
    path = _probe_path(folder, probe, RIVALS)
    return _load(path, dict) if path.exists() else {}


def save_chosen(folder: str | Path, rules: Mapping[str, str]) -> Path:
    """Write ``chosen.json``: by which rule the starts, the checkpoint and the seed were chosen."""
    return write_json(Path(folder) / "chosen.json", dict(rules))


def load_chosen(folder: str | Path) -> dict[str, str]:
    """By which rules a folder's episodes were chosen; empty when nobody said.

    Raises:
        LogError: anything but a sentence by name.
    """
    path = Path(folder) / "chosen.json"
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise LogError(f"{path} does not hold a sentence for each rule")
    return found


def save_reader_errors(folder: str | Path, errors: Mapping[str, Mapping[str, float]]) -> Path:
    """Put into ``readers.json`` how exact the readers of these titles are (`Probe.reader`)."""
    return write_json(Path(folder) / "readers.json", {**load_reader_errors(folder), **errors})


def load_reader_errors(folder: str | Path) -> dict[str, dict[str, float]]:
    """A folder's `save_reader_errors`; empty when nobody said. LogError where they are damaged."""
    path = Path(folder) / "readers.json"
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise LogError(f"{path} does not hold the errors of each reader")
    return found


def load_losses(folder: str | Path) -> list[dict[str, Any]]:
    """The records of ``loss.jsonl``; a last line that was cut off in writing is left out.

    Raises:
        LogError: any other line that is not a JSON object.
    """
    path = Path(folder) / "loss.jsonl"
    if not path.exists():
        return []
    *lines, tail = path.read_text().split("\n")
    records = [
        _record(line, f"{path}, line {i}") for i, line in enumerate(lines, start=1) if line.strip()
    ]
    with contextlib.suppress(json.JSONDecodeError):
        records.append(json.loads(tail))
    return records


def write_json(path: str | Path, value: Any) -> Path:
    """Write readable JSON in one step: a reader sees the old file or the new one."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return write_atomic(path, lambda file: file.write(text.encode()))


def claim(folder: str | Path, kind: str, made_by: Mapping[str, Any]) -> None:
    """Say who makes the logs of one kind in a folder, or check that it is who began them.

    Where nothing has been logged yet, a claim binds nobody: what asked may have been refused.

    Raises:
        LogError: they were made with other weights or settings; names what differs.
    """
    path, asked = Path(folder) / kind / "made_by.json", json.loads(json.dumps(made_by))
    if not path.exists() or not any(path.parent.glob("*/*.npz")):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asked)
        return
    there = read_json(path)
    names = [n for n in sorted({*there, *asked}) if there.get(n) != asked.get(n)]
    if names:
        told = "; ".join(f"{n} was {there.get(n)!r}, now {asked.get(n)!r}" for n in names)
        raise LogError(f"{path.parent} holds other {kind}, give another folder: {told}")


def read_json(path: str | Path) -> Any:
    """Raises LogError naming the file when it is not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LogError(f"{path} is not JSON: {error}") from error


def write_atomic(path: str | Path, write: Callable[[Any], Any]) -> Path:
    """Let ``write`` fill what takes the place of ``path``; see `wamlab.data.manifest.replacing`."""
    with replacing(Path(path)) as file:
        write(file)
    return Path(path)


def _env_folder(env: str) -> str:
    return env.replace("/", "__")


def _probe_path(folder: str | Path, probe: Probe, suffix: str) -> Path:
    name = f"{probe.seed}-{probe.step}{suffix}"
    return Path(folder) / "probes" / _env_folder(probe.env) / name


def _recording_path(folder: str | Path, episode: int, step: int) -> Path:
    return Path(folder) / "recordings" / f"{episode:06d}" / f"{step:06d}.npz"


def _sorted_logs(folder: Path) -> list[Path]:
    paths = (path for path in folder.glob("*/*.npz") if not path.name.endswith(RIVALS))
    numbers = lambda path: [int(part) for part in path.stem.split("-") if part.isdigit()]  # noqa: E731
    return sorted(paths, key=lambda path: (path.parent.name, numbers(path), path.name))


def _save(path: Path, value: Any) -> Path:
    arrays: dict[str, np.ndarray] = {}
    tree = _pack(value, "", arrays)
    meta = {"schema": SCHEMA, "kind": type(value).__name__, "tree": tree}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    return write_atomic(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def _load(path: Path, kind: type, *, frames: bool = True) -> Any:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return _unpack(_checked_tree(stored, kind), stored, frames)
    except LogError as error:
        raise LogError(f"{path} {error}") from error
    # What a flipped bit makes numpy and zipfile raise is not bounded: NotImplementedError for an
    # unknown compression, RuntimeError for an "encrypted" member, and whatever comes next.
    except Exception as error:
        raise LogError(f"{path} is truncated, damaged or no log: {error!r}") from error


def _checked_tree(stored: Any, kind: type) -> Any:
    if "meta" not in stored.files:
        raise LogError("is no log of this library: it holds no 'meta'")
    meta = json.loads(stored["meta"].tobytes())
    if not isinstance(meta, dict) or "tree" not in meta:
        raise LogError("is no log of this library: its 'meta' describes none")
    if meta.get("schema") != SCHEMA:
        raise LogError(f"has log schema {meta.get('schema')!r}; this library reads {SCHEMA}")
    if meta.get("kind") != kind.__name__:
        raise LogError(f"holds a {meta.get('kind')}, expected a {kind.__name__}")
    return meta["tree"]


def _pack(value: Any, where: str, arrays: dict[str, np.ndarray]) -> Any:
    """The JSON tree of a value, its arrays moved to ``arrays`` under their path."""
    if isinstance(value, np.ndarray):
        return _pack_array(value, where.lstrip("/"), arrays)
    if isinstance(value, np.generic):
        return _pack(value.item(), where, arrays)
    if dataclasses.is_dataclass(value) and type(value).__name__ in KINDS:
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"$is": type(value).__name__, "fields": _pack(fields, where, arrays)}
    if isinstance(value, Mapping):
        if bad := [key for key in value if not isinstance(key, str) or key.startswith("$")]:
            raise LogError(f"{where or 'log'}: a name is a string without a leading $, got {bad}")
        return {key: _pack(item, f"{where}/{key}", arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_pack(item, f"{where}/{i}", arrays) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise LogError(f"{where}: a {type(value).__name__} cannot be logged")


def _pack_array(value: Shaped[np.ndarray, "..."], key: str, arrays: dict[str, np.ndarray]) -> Any:
    if value.dtype.hasobject:
        raise LogError(f"{key}: an array of Python objects cannot be logged")
    if key in arrays or key == "meta":
        raise LogError(f"{key}: two arrays of a log have this path")
    if value.dtype != np.uint8 or value.ndim != 4:
        arrays[key] = value
        return {"$array": key}
    differences = value.copy()
    differences[1:] -= value[:-1]
    arrays[key] = differences
    return {"$frames": key}


def _unpack(tree: Any, stored: Any, frames: bool) -> Any:
    if isinstance(tree, list):
        return [_unpack(item, stored, frames) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "$array" in tree:
        return stored[tree["$array"]]
    if "$frames" in tree:
        return np.cumsum(stored[tree["$frames"]], axis=0, dtype=np.uint8)
    if "$tuple" in tree:
        return tuple(_unpack(tree["$tuple"], stored, frames))
    if "$is" in tree:
        return _build(tree["$is"], _unpack(tree["fields"], stored, frames))
    wanted = {k: v for k, v in tree.items() if frames or not _is_frames(v)}
    return {key: _unpack(item, stored, frames) for key, item in wanted.items()}


def _is_frames(tree: Any) -> bool:
    return isinstance(tree, dict) and "$frames" in tree


def _build(name: str, fields: dict[str, Any]) -> Any:
    if name not in KINDS:
        raise LogError(f"holds an unknown {name!r}{nearest(name, KINDS)}")
    known = {f.name: f for f in dataclasses.fields(KINDS[name])}
    if unknown := sorted(set(fields) - set(known)):
        raise LogError(f"holds {unknown[0]!r} for {name}{nearest(unknown[0], known)}")
    needed = [key for key, f in known.items() if f.default is f.default_factory is MISSING]
    if missing := [key for key in needed if key not in fields]:
        raise LogError(f"holds no {missing[0]!r} for {name}")
    return KINDS[name](**fields)


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise LogError(f"{where} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise LogError(f"{where} is not a JSON object")
    return record
