"""SIGKILL a training run at random instants; every resumed run must end with the unbroken bits.

    python benchmarks/kill_test.py --model uwm --kills 40

Prints and writes how many kills there were, how many hit a checkpoint being written, and how many
of the resumed runs ended equal to the unbroken one.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from synthetic import build, publish
from tqdm import tqdm

from wamlab.train.checkpoint import load_checkpoint
from wamlab.train.learner import weights_digest
from wamlab.train.optim import OptimConfig
from wamlab.train.record import read_record
from wamlab.train.trainer import TrainConfig, train


def main() -> None:
    args = _arguments()
    work = Path(tempfile.mkdtemp(prefix="kill-test-"))
    chance = random.Random(args.seed)
    start = time.perf_counter()
    _wait(_fork(lambda: _run(args, work / "unbroken")))
    whole = time.perf_counter() - start
    expected = _digest(work, "unbroken")
    runs: list[dict[str, Any]] = []
    with tqdm(total=args.kills, unit="kill") as bar:
        while sum(run["kills"] for run in runs) < args.kills:
            left = args.kills - sum(run["kills"] for run in runs)
            runs.append(_broken_run(args, work / f"run-{len(runs)}", whole, left, chance, bar))
            runs[-1]["equal"] = _digest(work, f"run-{len(runs) - 1}") == expected
    shutil.rmtree(work)
    found = {
        "model": f"{args.model}.{args.size}",
        "steps": args.steps,
        "checkpoint_every": args.every,
        "seconds_unbroken": round(whole, 2),
        "kills": sum(run["kills"] for run in runs),
        "kills_inside_a_save": sum(run["inside_a_save"] for run in runs),
        "kills_after_progress": sum(run["after_progress"] for run in runs),
        "runs": len(runs),
        "runs_equal_to_unbroken": sum(run["equal"] for run in runs),
        "digest": expected,
    }
    publish(args.out, found)
    if found["runs_equal_to_unbroken"] != found["runs"]:
        raise SystemExit("a resumed run differs from the unbroken one")


def _broken_run(
    args: argparse.Namespace,
    out: Path,
    whole: float,
    kills: int,
    chance: random.Random,
    bar: tqdm[Any],
) -> dict[str, Any]:
    """One run, killed up to ``kills`` times until it finishes."""
    seen = {"kills": 0, "inside_a_save": 0, "after_progress": 0}
    while True:
        pid = _fork(lambda: _run(args, out))
        if seen["kills"] < kills:
            time.sleep(chance.uniform(0, 0.6 * whole))
            os.kill(pid, signal.SIGKILL)
        if not _wait(pid):
            return seen
        seen["kills"] += 1
        seen["inside_a_save"] += bool(list(out.glob("checkpoints/.tmp-*")))
        seen["after_progress"] += (out / "latest").exists()
        bar.update()


def _fork(work: Callable[[], None]) -> int:
    """A child that has imported everything already; the parent itself never computes."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def _wait(pid: int) -> bool:
    """Wait for a child; whether it was killed. Any other failure ends the test."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"a run failed with status {os.waitstatus_to_exitcode(status)}")
    return False


def _run(args: argparse.Namespace, out: Path) -> None:
    torch.set_num_threads(args.threads)
    model, batches, processor = build(args.model, args.size, args.rows)
    config = TrainConfig(
        steps=args.steps,
        batch_size=args.rows,
        precision=args.precision,
        checkpoint_every=args.every,
        log_every=10,
        augment_shift=2,
        optim=OptimConfig(warmup_steps=5),
    )
    train(model, batches, processor, config, out, resume=True, device="cpu", progress=False)


def _digest(work: Path, name: str) -> str:
    """The digest of a finished run, computed in a child."""
    path = work / f"{name}.digest"

    def write() -> None:
        if read_record(work / name).status != "finished":
            raise SystemExit(f"{name} has not finished")
        path.write_text(weights_digest(load_checkpoint(work / name).weights))

    _wait(_fork(write))
    shutil.rmtree(work / name)
    return path.read_text()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="uwm")
    parser.add_argument("--size", default="tiny", choices=("tiny", "small"))
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kill_test.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
