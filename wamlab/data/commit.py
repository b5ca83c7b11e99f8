"""Several files of a folder changed in one instant, whatever happens in between.

New versions are written into ``.staging``, which mirrors the folder. Renaming ``.staging`` to
``.commit`` is the instant at which the change has happened; moving the files to their places is
repeated by `recover` when it was interrupted. What still lies in ``.staging`` never happened.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

from wamlab.data.manifest import MANIFEST, DataError, sync

STAGING, COMMIT, LOCK = ".staging", ".commit", ".lock"

T = TypeVar("T")


def acquire_lock(folder: Path) -> IO[str]:
    """Hold the folder for this process until the returned file is closed or the process ends.

    Raises:
        DataError: another process holds it, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, expected a folder")
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / LOCK, "a+")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise DataError(f"{folder} is being written by another process (pid {owner})") from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def begin(folder: Path) -> Path:
    """An empty staging folder."""
    staging = folder / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def commit(folder: Path) -> None:
    """Make everything that is staged part of the folder."""
    staging = folder / STAGING
    for path in sorted(staging.rglob("*")):
        sync(path)
        if path.is_dir():
            (folder / path.relative_to(staging)).mkdir(parents=True, exist_ok=True)
    os.rename(staging, folder / COMMIT)
    sync(folder)
    _roll_forward(folder)


def abort(folder: Path) -> None:
    """Forget what is staged."""
    shutil.rmtree(folder / STAGING, ignore_errors=True)


def recover(folder: Path, *, wait_s: float = 5.0) -> None:
    """Finish a commit that was interrupted; the caller may be a reader beside a live writer.

    Raises:
        DataError: a writer holds the folder and does not finish its commit within ``wait_s``.
    """
    deadline = time.monotonic() + wait_s
    while (folder / COMMIT).exists():
        try:
            lock = acquire_lock(folder)
        except DataError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
            continue
        with lock:
            _roll_forward(folder)


def steady(folder: Path, read: Callable[[], T], *, wait_s: float = 5.0) -> T:
    """What ``read`` finds between two commits; it is called again if one happened under it.

    Every commit changes the manifest, so the same manifest before and after means that nothing
    moved. A first read that was disturbed is always repeated.

    Raises:
        DataError: commits follow each other for ``wait_s``, or ``read`` raises in an idle folder.
    """
    deadline: float | None = None
    while True:
        recover(folder, wait_s=wait_s)
        before = _manifest(folder)
        try:
            found = read()
        except DataError:
            if _unmoved(folder, before):
                raise
        else:
            if _unmoved(folder, before):
                return found
        now = time.monotonic()
        deadline = now + wait_s if deadline is None else deadline
        if now > deadline:
            raise DataError(f"{folder} is being written all the time: it could not be read whole")


def recover_locked(folder: Path) -> None:
    """What a writer does first: finish the last commit and forget what was only staged."""
    _roll_forward(folder)
    abort(folder)


def _manifest(folder: Path) -> bytes | None:
    path = folder / MANIFEST
    return path.read_bytes() if path.is_file() else None


def _unmoved(folder: Path, before: bytes | None) -> bool:
    return not (folder / COMMIT).exists() and _manifest(folder) == before


def _roll_forward(folder: Path) -> None:
    pending = folder / COMMIT
    if not pending.exists():
        return
    touched = {folder}
    for path in sorted(path for path in pending.rglob("*") if path.is_file()):
        target = folder / path.relative_to(pending)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
        touched.add(target.parent)
    for parent in touched:
        sync(parent)
    shutil.rmtree(pending)
