"""Flip random bits of a checkpoint and of a dataset; verification and loading must find them.

    python benchmarks/bit_flips.py --checkpoint runs/demo/uwm --dataset runs/demo/data

Without ``--checkpoint`` a fresh one of ``--model`` is written, without ``--dataset`` two episodes
are collected. The folders are copied first. `wam verify` must find every flip; loading must find
every one in a checkpoint, in metadata and in parquet, and in a video when it is first read.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from synthetic import build, publish
from tqdm import trange

from wamlab.data.lerobot import Dataset
from wamlab.data.manifest import MANIFEST, DataError, file_names, verify_manifest
from wamlab.train.checkpoint import CheckpointError, load_checkpoint, resolve
from wamlab.train.trainer import TrainConfig, train


def main() -> None:
    args = _arguments()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as work:
        folders = {
            "checkpoint": _checkpoint(args, Path(work)),
            "dataset": _dataset(args, Path(work)),
        }
        for name, folder in folders.items():
            if problems := verify_manifest(folder):
                raise SystemExit(f"the {name} is damaged before any flip: {problems[0]}")
        start = time.perf_counter()
        flips = [
            _flip(name, folders[name], chance)
            for name in (list(folders)[index % 2] for index in trange(args.flips, unit="flip"))
        ]
        seconds = (time.perf_counter() - start) / args.flips
        sizes = {name: _size(folder) for name, folder in folders.items()}
    found = {
        **summary(flips),
        "seconds_per_flip": round(seconds, 4),
        "sizes": sizes,
        "fresh": [n for n in folders if getattr(args, n) is None],
    }
    publish(args.out, found)
    if missed := [flip for flip in flips if not (flip["verified"] and flip["loading"])]:
        raise SystemExit(f"a flipped bit was not found: {missed[0]}")


def summary(flips: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of flips and findings, in all and by kind of file.

    ``named`` counts the findings that name the file; a flipped manifest may accuse another.
    """
    kinds = sorted({flip["kind"] for flip in flips})
    count = lambda kind, what: sum(bool(flip[what]) for flip in flips if flip["kind"] == kind)  # noqa: E731
    return {
        "flips": len(flips),
        "found_by_verify": sum(flip["verified"] for flip in flips),
        "found_by_loading": sum(bool(flip["loading"]) for flip in flips),
        "by_kind": {
            kind: {
                "flips": sum(flip["kind"] == kind for flip in flips),
                **{what: count(kind, what) for what in ("verified", "named", "loading")},
                "when": dict(Counter(flip["loading"] for flip in flips if flip["kind"] == kind)),
            }
            for kind in kinds
        },
    }


def _flip(name: str, folder: Path, chance: random.Random) -> dict[str, Any]:
    """Flip one bit of one file, look who notices it and when, and put it right again.

    Kinds of files take equal shares, so that the few files of metadata are hit as well.
    """
    kinds: dict[str, list[str]] = {}
    for file in (*file_names(folder), MANIFEST):
        if (folder / file).stat().st_size:
            kinds.setdefault(kind_of(name, file), []).append(file)
    kind = chance.choice(sorted(kinds))
    file = chance.choice(kinds[kind])
    place, bit = chance.randrange((folder / file).stat().st_size), chance.randrange(8)
    invert(folder / file, place, bit)
    try:
        problems = verify_manifest(folder)
        load = _load_checkpoint if name == "checkpoint" else _load_dataset
        return {
            "kind": kind,
            "verified": bool(problems),
            "named": any(problem.where == file for problem in problems),
            "loading": load(folder, file),
        }
    finally:
        invert(folder / file, place, bit)


def kind_of(folder: str, file: str) -> str:
    """What sort of file it is: checkpoints are one kind, a dataset has three."""
    if folder == "checkpoint":
        return "checkpoint"
    return {"videos": "video", "data": "parquet"}.get(file.partition("/")[0], "metadata")


def invert(path: Path, place: int, bit: int) -> None:
    """Flip one bit of a file in its place."""
    with path.open("r+b") as file:
        file.seek(place)
        value = file.read(1)[0]
        file.seek(place)
        file.write(bytes([value ^ (1 << bit)]))


def _load_checkpoint(folder: Path, file: str) -> str:
    """When loading notices: at opening, or never ("")."""
    try:
        load_checkpoint(folder)
    except CheckpointError:
        return "opening"
    return ""


def _load_dataset(folder: Path, file: str) -> str:
    """When loading notices: at opening, when the video is first used, or never ("")."""
    try:
        dataset = Dataset(folder)
    except DataError:
        return "opening"
    for view in dataset.views:
        for episode in range(len(dataset)):
            if dataset.clip_file(view, episode) == file:
                try:
                    dataset.frames(view, episode)
                except DataError:
                    return "first use"
    return ""


def _size(folder: Path) -> dict[str, float]:
    names = file_names(folder)
    megabytes = sum((folder / name).stat().st_size for name in names) / 1e6
    return {"files": len(names), "megabytes": round(megabytes, 2)}


def _checkpoint(args: argparse.Namespace, work: Path) -> Path:
    if args.checkpoint is not None:
        shutil.copytree(resolve(args.checkpoint), work / "checkpoint")
        return work / "checkpoint"
    model, batches, processor = build(args.model, args.size, rows=2)
    config = TrainConfig(steps=2, batch_size=2, precision="f32")
    return train(model, batches, processor, config, work / "run", progress=False).checkpoint


def _dataset(args: argparse.Namespace, work: Path) -> Path:
    from wamlab.run.collect import collect

    if args.dataset is not None:
        shutil.copytree(args.dataset, work / "dataset")
    else:
        collect(args.env, 2, work / "dataset")
    return work / "dataset"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="a run folder or a checkpoint")
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--model", default="uwm")
    parser.add_argument("--size", default="tiny", choices=("tiny", "small"))
    parser.add_argument("--env", default="metaworld/door-unlock")
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bit_flips.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
