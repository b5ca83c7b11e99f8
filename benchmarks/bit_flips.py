"""Flip random bits of a checkpoint and of a dataset; verification must find every one.

    python benchmarks/bit_flips.py --checkpoint runs/demo/uwm --dataset runs/demo/data

Without ``--checkpoint`` a fresh one of ``--model`` is written. The folders are copied first.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

from synthetic import build, publish
from tqdm import trange

from wamlab.data.manifest import verify_manifest
from wamlab.train.checkpoint import CheckpointError, load_checkpoint, resolve
from wamlab.train.trainer import TrainConfig, train


def main() -> None:
    args = _arguments()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as work:
        folders = {"checkpoint": _checkpoint(args, Path(work))}
        if args.dataset is not None:
            folders["dataset"] = Path(work) / "dataset"
            shutil.copytree(args.dataset, folders["dataset"])
        for name, folder in folders.items():
            if problems := verify_manifest(folder):
                raise SystemExit(f"the {name} is damaged before any flip: {problems[0]}")
        start, names = time.perf_counter(), list(folders)
        counts = {name: {"flips": 0, "verified": 0, "named": 0} for name in names}
        counts["checkpoint"]["loading"] = 0
        for index in trange(args.flips, unit="flip"):
            name = names[index % len(names)]
            _flip(name, folders[name], chance, counts[name])
        seconds = (time.perf_counter() - start) / args.flips
    found = {
        "flips": args.flips,
        "found": sum(count["verified"] for count in counts.values()),
        "by_folder": counts,
        "seconds_per_flip": round(seconds, 4),
    }
    publish(args.out, found)
    missed = found["found"] != args.flips
    if missed or counts["checkpoint"]["loading"] != counts["checkpoint"]["flips"]:
        raise SystemExit("a flipped bit was not found")


def _flip(name: str, folder: Path, chance: random.Random, count: dict[str, int]) -> None:
    """Flip one bit of one file, look whether it is noticed, and put it right again.

    ``named`` counts the findings that name the file; a flipped manifest may accuse another.
    """
    visible = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    path = chance.choice([path for path in visible if not path.name.startswith(".")])
    place, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
    _invert(path, place, bit)
    problems = verify_manifest(folder)
    count["flips"] += 1
    count["verified"] += bool(problems)
    count["named"] += any(p.where == path.relative_to(folder).as_posix() for p in problems)
    if name == "checkpoint":
        try:
            load_checkpoint(folder)
        except CheckpointError:
            count["loading"] += 1
    _invert(path, place, bit)


def _invert(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        value = file.read(1)[0]
        file.seek(place)
        file.write(bytes([value ^ (1 << bit)]))


def _checkpoint(args: argparse.Namespace, work: Path) -> Path:
    if args.checkpoint is not None:
        shutil.copytree(resolve(args.checkpoint), work / "checkpoint")
        return work / "checkpoint"
    model, batches, processor = build(args.model, args.size, rows=2)
    config = TrainConfig(steps=2, batch_size=2, precision="f32")
    return train(model, batches, processor, config, work / "run", progress=False).checkpoint


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--model", default="uwm")
    parser.add_argument("--size", default="tiny", choices=("tiny", "small"))
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bit_flips.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
