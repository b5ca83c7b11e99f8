"""A model's training step against the matrix product roof of the same minute.

    python benchmarks/train_step.py --model uwm --size small --run runs/demo/uwm

FLOPs are counted (forward and backward), the roof is the best 512 x 512 x 512 product between the
steps, in f32 and in bf16. With ``--run`` the data wait is read from that run's log.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import machine
import torch
from synthetic import build, publish
from tqdm import tqdm

from wamlab.data.logs import load_losses
from wamlab.train.learner import Learner, Precision
from wamlab.train.optim import OptimConfig
from wamlab.train.plan import training_flops

SIZE = 512


def main() -> None:
    args = _arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    found: dict[str, Any] = {
        "model": f"{args.model}.{args.size}",
        "rows": args.rows,
        "machine": machine.state(),
    }
    for precision in ("f32", "bf16"):
        found[precision] = _measure(args, precision)
    if args.run is not None:
        shares = [line["data_wait_share"] for line in load_losses(args.run) if "loss" in line]
        found["data_wait_share"] = {"median": median(shares), "worst": max(shares)}
    publish(args.out, found)


def _measure(args: argparse.Namespace, precision: Precision) -> dict[str, float]:
    """Steps and products in turns, so that both see the same machine."""
    model, batches, processor = build(args.model, args.size, args.rows)
    stage = model.stages()[-1]
    learner = Learner(
        model, stage, processor, OptimConfig(), seed=0, steps=10_000, augment_shift=args.shift
    )
    learner.precision = precision
    raw = batches.batch(0, stage.name)
    product = _product(torch.float32 if precision == "f32" else torch.bfloat16)
    steps, products = [], []
    with learner:
        flops = training_flops(learner, raw)
        for index in tqdm(range(args.warm + args.repeats), desc=precision, unit="step"):
            products += [_seconds(product) for _ in range(5)]
            taken = _seconds(lambda index=index: learner.step(raw, index))
            steps += [taken] if index >= args.warm else []
    roof, rate = 2 * SIZE**3 / min(products) / 1e9, flops / median(steps) / 1e9
    return {
        "gflop_per_sample": round(flops / len(raw) / 1e9, 4),
        "step_ms_p50": round(1000 * median(steps), 2),
        "step_ms_best": round(1000 * min(steps), 2),
        "samples_per_s": round(len(raw) / median(steps), 1),
        "gflop_per_s": round(rate, 1),
        "roof_gflop_per_s": round(roof, 1),
        "roof_p50_gflop_per_s": round(2 * SIZE**3 / median(products) / 1e9, 1),
        "share_of_roof": round(rate / roof, 4),
    }


def _product(kind: torch.dtype) -> Callable[[], object]:
    a, b = torch.randn(SIZE, SIZE).to(kind), torch.randn(SIZE, SIZE).to(kind)
    out = torch.empty(SIZE, SIZE, dtype=kind)
    return lambda: torch.mm(a, b, out=out)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="uwm")
    parser.add_argument("--size", default="small", choices=("tiny", "small"))
    parser.add_argument("--rows", type=int, default=32, help="as many as the recipes train on")
    parser.add_argument("--shift", type=int, default=2, help="pixels of augmentation")
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--run", type=Path, help="a finished run, for its data wait")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/train_step.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
