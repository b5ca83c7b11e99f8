"""A full disk, while collecting, training, logging and reporting; and logs that are not whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

import wamlab
from wamlab.data.lerobot import Dataset, verify
from wamlab.data.logs import load_episodes
from wamlab.train import trainer

Fill = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Fill:
    """Within ``full("part")`` the disk takes no file with this part in its path."""

    @contextmanager
    def fill(part: str) -> Iterator[None]:
        fsync = os.fsync

        def refuse(handle: int) -> None:
            if part in os.readlink(f"/proc/self/fd/{handle}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            yield

    return fill


def train(made: Path, out: Path, *more: str) -> tuple[object, ...]:
    words = ("train", "mw-demo/pupil", "--data", made / "data", "--out", out, "--steps", "4")
    return (*words, "--device", "cpu", "--set", "train.augment_shift=0", *more)


def act(run: Path, out: Path, episodes: int) -> tuple[object, ...]:
    return ("eval", run, "--env", "point/push", "--episodes", episodes, "--out", out)


def test_collecting_onto_a_full_disk_keeps_every_finished_episode(wam, data, full) -> None:
    words = ("collect", "--env", "point/push", "--episodes", "4", "--out", data)
    with full(".mp4"):
        wam(*words).refused("episode 3", str(data), "the disk is full", "3 finished episodes")
    assert len(Dataset(data)) == 3
    assert verify(data) == []
    assert wam(*words).code == 0
    assert len(Dataset(data)) == 4


def test_training_onto_a_full_disk_keeps_the_last_checkpoint(wam, made, tmp_path, full) -> None:
    out, often = tmp_path / "run", ("--set", "train.checkpoint_every=2")
    with full(".tmp-4"):
        said = wam(*train(made, out, *often))
        said.refused("step 4", "No space left on device", "step-000002")
    assert wamlab.load(out, "cpu").name == "pupil"
    assert wam(*train(made, out, *often, "--resume")).code == 0
    assert wamlab.load(out, "cpu").name == "pupil"


def test_a_full_disk_in_the_loss_log_names_it(wam, made, tmp_path, monkeypatch) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        link = lambda folder, step: (folder / "loss.jsonl").symlink_to("/dev/full")  # noqa: E731
        patch.setattr(trainer, "rewind_log", link)
        wam(*train(made, out)).refused("No space left on device", "loss.jsonl")
    (out / "loss.jsonl").unlink()
    assert wam(*train(made, out, "--resume")).code == 0


def test_decoding_onto_a_full_disk_leaves_no_half_cache(wam, made, tmp_path, monkeypatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("WAMLAB_CACHE", str(cache))
    write = Path.open

    def open_full(path: Path, mode: str = "r", *rest: object, **options: object):
        place = "/dev/full" if path.suffix == ".npy" and "w" in mode else path
        return write(Path(place), mode, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        wam(*train(made, tmp_path / "run")).refused(str(cache), "No space left on device")
    assert list(cache.iterdir()) == []
    assert wam(*train(made, tmp_path / "run")).code == 0


def test_logging_onto_a_full_disk_keeps_the_episodes_so_far(wam, made, tmp_path, full) -> None:
    logs = tmp_path / "logs"
    assert wam(*act(made / "run", logs, 1)).code == 0
    with full("2000001.npz"):
        wam(*act(made / "run", logs, 2)).refused("No space left on device", "2000001.npz")
    assert [one.seed for one in load_episodes(logs)] == [2_000_000]
    assert wam(*act(made / "run", logs, 2)).code == 0
    assert len(load_episodes(logs)) == 2


def test_reporting_onto_a_full_disk_keeps_the_old_page(wam, made, tmp_path, full) -> None:
    logs = tmp_path / "logs"
    wam(*act(made / "run", logs, 1))
    assert wam("report", logs).code == 0
    page = (logs / "report.html").read_bytes()
    with full("report.html"):
        wam("report", logs).refused("No space left on device", "report.html")
    assert (logs / "report.html").read_bytes() == page
    assert [path.name for path in logs.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("loss.jsonl", "{}\nx\n{}\n", ("loss.jsonl, line 2 is not JSON",)),
        ("blind.json", "3", ("blind.json", "mean replay")),
        ("run.json", "3", ("run.json is no record of a run",)),
        ("run.json", "{", ("run.json is not JSON",)),
        ("episodes/point__push/7.npz", "", ("7.npz is truncated, damaged or no log",)),
        ("probes/point__push/7-0.npz", "PK", ("7-0.npz is truncated, damaged or no log",)),
    ],
)
def test_a_log_that_is_not_whole_is_named(wam, tmp_path, name, content, said) -> None:
    (tmp_path / "loss.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    wam("report", tmp_path).refused(*said)
    assert path.read_text() == content
