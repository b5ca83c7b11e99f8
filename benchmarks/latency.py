"""How long a policy takes from a raw observation to a raw action, one row at a time.

    python benchmarks/latency.py --checkpoint runs/demo/uwm

Measured through `Policy.query` with the model's own number of sampling steps. Without
``--checkpoint`` a fresh model of ``--model`` is timed: how long it takes does not depend on what it
has learned. ``sampling`` is the time inside the model; ``around it`` is everything else: checks,
scaling, sentences, and the way back to raw units.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import machine
import numpy as np
import torch
from synthetic import SENTENCES, build, publish
from tqdm import trange

from wamlab.data.processor import Processor
from wamlab.policy.acting import acting_query
from wamlab.policy.policy import Policy, load
from wamlab.types import IMAGE, STATE, ActionSpace


def main() -> None:
    args = _arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    before = machine.state()
    policy = fresh(args.model, args.size) if args.checkpoint is None else load(args.checkpoint)
    query = acting_query(policy.model)
    observations = raw_observations(policy, args.repeats + args.warm)
    whole, inside, calls = [], [], []
    for index in trange(len(observations), desc=str(query), unit="query"):
        start = perf_counter()
        answer = policy.query(observations[index], query, seed=index)
        whole.append(1000 * (perf_counter() - start))
        inside.append(answer.cost.ms)
        calls.append(answer.cost.calls)
    kept = slice(args.warm, None)
    outside = [all_ - part for all_, part in zip(whole, inside, strict=True)]
    found = {
        "model": f"{policy.name}.{args.size}" if args.checkpoint is None else policy.name,
        "query": str(query),
        "rows": 1,
        "repeats": args.repeats,
        "network_calls": max(calls),
        "ms": percentiles(whole[kept]),
        "ms_sampling": percentiles(inside[kept]),
        "ms_around_it": percentiles(outside[kept]),
        "machine": before,
    }
    publish(args.out, found)


def percentiles(ms: Sequence[float]) -> dict[str, float]:
    return {name: round(float(np.percentile(ms, p)), 2) for name, p in PERCENTILES.items()}


PERCENTILES = {"min": 0, "p50": 50, "p95": 95, "p99": 99}


def raw_observations(policy: Policy, count: int) -> list[dict[str, Any]]:
    """Random frames and states of the right shape, with a sentence that the policy knows."""
    config, rng = policy.model.config, np.random.default_rng(0)
    processor: Any = policy.processor
    sentences = sorted(processor.sentences)
    frame = (config.image_size, config.image_size, 3)
    return [
        {
            **{
                f"{IMAGE}{view}": rng.integers(0, 256, frame, dtype=np.uint8)
                for view in config.views
            },
            STATE: rng.uniform(-0.5, 0.5, config.state_dim).astype(np.float32),
            "instruction": sentences[index % len(sentences)],
        }
        for index in range(count)
    ]


def fresh(name: str, size: str) -> Policy:
    """A policy that has learned nothing."""
    model, batches, fits = build(name, size, rows=1)
    count = model.config.action_dim
    ones = (1.0,) * count
    space = ActionSpace(
        tuple(f"a{index}" for index in range(count)),
        tuple(-one for one in ones),
        ones,
        ("delta",) * count,
        ("m",) * count,
        model.config.rate_hz,
    )
    processor = Processor(fits.config, space, fits.statistics)
    pooled = torch.from_numpy(batches.pooled)
    processor.sentences = {s: (pooled[i], pooled[i : i + 1]) for i, s in enumerate(SENTENCES)}
    return Policy(model, processor, space)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="a run folder or a checkpoint")
    parser.add_argument("--model", default="uwm")
    parser.add_argument("--size", default="small", choices=("tiny", "small"))
    parser.add_argument("--warm", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/latency.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
