"""Every byte of a folder against a list of digests, and writing files that a crash cannot tear.

A manifest is ``manifest.json``: ``{"schema": 1, "files": {name: {"sha256": ..., "bytes": ...}}}``.
Hidden names (a leading dot) are working files and belong to no manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

MANIFEST = "manifest.json"
SCHEMA = 1

Files = dict[str, dict[str, Any]]


class DataError(ValueError):
    """Stored data that is missing, damaged, or not what was asked for."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and what was expected instead."""

    severity: Literal["error", "warning"]
    where: str
    what: str
    expected: str = ""

    def __str__(self) -> str:
        tail = f" (expected {self.expected})" if self.expected else ""
        return f"{self.severity}: {self.where}: {self.what}{tail}"


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Failures to write (a full disk does not say which file it met) name ``path``."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to fill, which takes the place of ``path`` in one instant when the block ends.

    Raises:
        OSError: it cannot be written; names ``path``, which stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


def write_file(path: Path, content: bytes) -> None:
    """Replace a file's whole content; see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def check_open(folder: Path) -> None:
    """Raise DataError for a folder that cannot take a run or logs: a file, or a sealed folder.

    A dataset or checkpoint is sealed by its manifest: whatever is added would be damage.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, expected a folder")
    if (folder / MANIFEST).exists():
        raise DataError(f"{folder} is a dataset or checkpoint, expected a folder of another kind")


def sync(path: Path) -> None:
    """Force a file or a folder's list of names to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_names(folder: Path) -> list[str]:
    """Relative names of all files that a manifest of ``folder`` covers, sorted."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = (name for name in found if not any(part.startswith(".") for part in name.parts))
    return sorted(name.as_posix() for name in names if name.as_posix() != MANIFEST)


def entries(folder: Path, names: Iterable[str] | None = None) -> Files:
    """Digest and size of the named files of ``folder`` (default: all of them)."""
    names = file_names(folder) if names is None else names
    return {
        name: {"sha256": file_digest(folder / name), "bytes": (folder / name).stat().st_size}
        for name in names
    }


def encode(files: Mapping[str, Any]) -> bytes:
    """A manifest's own bytes."""
    content = {"schema": SCHEMA, "files": dict(sorted(files.items()))}
    return (json.dumps(content, indent=1) + "\n").encode()


def digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One digest for a whole folder: of its files' names and digests, in order of the names."""
    lines = (f"{name}\0{entry['sha256']}\n" for name, entry in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_manifest(folder: str | Path) -> str:
    """Write ``manifest.json`` over all files now in ``folder``; returns the folder's digest."""
    folder = Path(folder)
    files = entries(folder)
    write_file(folder / MANIFEST, encode(files))
    return digest(files)


def read_manifest(folder: str | Path) -> Files | None:
    """The files of a folder's manifest, or None where there is no manifest.

    Raises:
        DataError: the manifest itself is damaged or of a newer schema.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        schema, files = content["schema"], content["files"]
        damaged = not all(
            isinstance(entry["sha256"], str) and isinstance(entry["bytes"], int)
            for entry in files.values()
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if schema != SCHEMA:
        raise DataError(f"{path} has schema {schema!r}, expected {SCHEMA}")
    if damaged or encode(files) != path.read_bytes():
        raise DataError(f"{path} is damaged: it is not as it was written")
    return files


def verify_manifest(folder: str | Path, names: Iterable[str] | None = None) -> list[Problem]:
    """Every file with a wrong byte, missing or extra; ``names`` limits the check to these files."""
    folder = Path(folder)
    if not folder.is_dir():
        return [Problem("error", str(folder), "there is no such folder")]
    try:
        files = read_manifest(folder)
    except DataError as error:
        return [Problem("error", MANIFEST, str(error))]
    if files is None:
        return [Problem("error", MANIFEST, "is missing", "a manifest beside the files")]
    wanted = sorted(files) if names is None else list(names)
    problems = [found for name in wanted if (found := _verify_file(folder, name, files))]
    if names is None:
        extra = sorted(set(file_names(folder)) - set(files))
        problems += [Problem("error", name, "is not in the manifest") for name in extra]
    return problems


def _verify_file(folder: Path, name: str, files: Files) -> Problem | None:
    path = folder / name
    if name not in files:
        return Problem("error", name, "is not in the manifest")
    if not path.is_file():
        return Problem("error", name, "is missing")
    if (size := path.stat().st_size) != files[name]["bytes"]:
        return Problem("error", name, f"has {size} bytes", f"{files[name]['bytes']}")
    if (found := file_digest(path)) != files[name]["sha256"]:
        return Problem("error", name, f"has digest {found[:12]}", files[name]["sha256"][:12])
    return None
