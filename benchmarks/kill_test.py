"""SIGKILL a training run all along its way; every resumed run must end with the unbroken bits.

    python benchmarks/kill_test.py --model uwm --kills 40

Each run is killed four times, once in each quarter of its steps, at a random instant there; every
second kill waits for the next checkpoint and hits it while it is being written. The result says
where each kill fell and how many of the resumed runs ended equal to the unbroken one.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from synthetic import build, publish
from tqdm import tqdm

from wamlab.train.checkpoint import checkpoints, load_checkpoint
from wamlab.train.learner import weights_digest
from wamlab.train.optim import OptimConfig
from wamlab.train.record import read_record
from wamlab.train.trainer import TrainConfig, train

PER_RUN = 4
LOOK = 0.0005


def main() -> None:
    args = _arguments()
    work = Path(tempfile.mkdtemp(prefix="kill-test-"))
    chance = random.Random(args.seed)
    start = time.perf_counter()
    _wait(_fork(lambda: _run(args, work / "unbroken")))
    whole = time.perf_counter() - start
    expected = _digest(work, "unbroken")
    kills: list[dict[str, Any]] = []
    equal: list[bool] = []
    with tqdm(total=args.kills, unit="kill") as bar:
        while len(kills) < args.kills:
            count, out = min(PER_RUN, args.kills - len(kills)), work / f"run-{len(equal)}"
            for kill in _broken_run(args, out, count, whole, chance):
                kills.append(kill)
                bar.update()
            equal.append(_digest(work, out.name) == expected)
    shutil.rmtree(work)
    found = {
        "model": f"{args.model}.{args.size}",
        "steps": args.steps,
        "checkpoint_every": args.every,
        "seconds_unbroken": round(whole, 2),
        "seconds": round(time.perf_counter() - start, 1),
        "kills": len(kills),
        "kills_inside_a_save": sum(kill["inside_a_save"] for kill in kills),
        "steps_saved_at_each_kill": [kill["saved"] for kill in kills],
        "runs": len(equal),
        "runs_equal_to_unbroken": sum(equal),
        "digest": expected,
    }
    publish(args.out, found)
    if not all(equal):
        raise SystemExit("a resumed run differs from the unbroken one")


def _broken_run(
    args: argparse.Namespace, out: Path, kills: int, whole: float, chance: random.Random
) -> Iterator[dict[str, Any]]:
    """One run, killed ``kills`` times, evenly spread over its steps; then it finishes."""
    for number in range(kills):
        pid = _fork(lambda: _run(args, out))
        target = (number + chance.random()) / kills * args.steps
        _await(pid, lambda target=target: _saved(out) + args.every > target)
        if number % 2:
            _await(pid, lambda: _saving(out))
            time.sleep(chance.uniform(0, args.save_seconds))
        else:
            time.sleep(chance.uniform(0, args.every / args.steps * whole))
        os.kill(pid, signal.SIGKILL)
        if _wait(pid):
            yield {"saved": _saved(out), "inside_a_save": _saving(out)}
    while _wait(_fork(lambda: _run(args, out))):
        pass


def _saved(out: Path) -> int:
    """The step of the newest finished checkpoint."""
    return max((int(path.name.split("-")[1]) for path in checkpoints(out)), default=0)


def _saving(out: Path) -> bool:
    """Whether a checkpoint is being written, or an old one removed."""
    return any(out.glob("checkpoints/.tmp-*"))


def _await(pid: int, happened: Callable[[], bool]) -> None:
    """Until something has happened, or the child has ended."""
    while not happened() and not _ended(pid):
        time.sleep(LOOK)


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


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
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--save-seconds", type=float, default=0.1, help="how long a save takes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kill_test.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
