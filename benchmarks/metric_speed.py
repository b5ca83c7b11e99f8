"""LPIPS and Frechet statistics against torchmetrics on the same work.

    python benchmarks/metric_speed.py

Both sides get the same frames, weights and features, and must give the same number. They take
turns, 7 times each, and change who begins: what else the machine does falls on both. A ratio is
torchmetrics' seconds over ours, run by run; the median counts, so 1 is as fast and more is faster.

torchmetrics builds its LPIPS on torchvision; here it gets the same layers without it, with the
weights of `wam weights lpips-alex`, or random ones where those are missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import machine
import numpy as np
import torch
from synthetic import publish
from torch import Tensor, nn
from tqdm import trange

from wamlab.metrics.features import Features, Moments, frechet
from wamlab.nn.lpips import LPIPS, pretrained
from wamlab.nn.weights import MissingWeights

RUNS = 7
Work = Callable[[], float]


def main() -> None:
    args = _arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    version = needed()
    before = machine.state()
    net, weights = lpips_net()
    found = {
        "runs": args.runs,
        "torchmetrics": version,
        "weights of LPIPS": weights,
        "lpips": [race(*lpips_work(net, pairs, side), args.runs, pairs=pairs, side=side)
                  for pairs, side in ((64, 64), (16, 128))],
        "frechet": [race(*frechet_work(n, size), args.runs, samples=n, dimensions=size)
                    for n, size in ((2000, 256), (4000, 768))],
        "machine": before,
        "load after": machine.state()["load"],
    }  # fmt: skip
    publish(args.out, found)


def needed() -> str:
    """The version of torchmetrics.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        import torchmetrics
    except ImportError as missing:
        raise SystemExit(
            f"this compares with torchmetrics (Apache-2.0): pip install torchmetrics ({missing})"
        ) from None
    return str(torchmetrics.__version__)


def race(ours: Work, theirs: Work, runs: int, **work: int) -> dict[str, Any]:
    """Both sides in turn: seconds, ratios and what they found."""
    a, b = ours(), theirs()  # warm, and held against each other
    if not np.isclose(a, b, rtol=1e-4):
        raise SystemExit(f"ours gives {a}, torchmetrics {b}: this is not the same work")
    wall: dict[str, list[float]] = {"ours": [], "torchmetrics": []}
    busy: dict[str, list[float]] = {"ours": [], "torchmetrics": []}
    for run in trange(runs, desc=str(work), unit="run"):
        turns = [("ours", ours), ("torchmetrics", theirs)]
        for name, side in turns if run % 2 == 0 else reversed(turns):
            start, cpu = perf_counter(), process_time()
            side()
            wall[name].append(perf_counter() - start)
            busy[name].append(process_time() - cpu)
    return {
        **work,
        "ratio": ratio(wall),
        "ratio of processor time": ratio(busy),
        "seconds": {name: rounded(times) for name, times in wall.items()},
        "processor seconds": {name: rounded(times) for name, times in busy.items()},
        "values": {"ours": a, "torchmetrics": b},
    }


def ratio(seconds: dict[str, list[float]]) -> float:
    """The median over runs of torchmetrics' seconds over ours."""
    pairs = zip(seconds["torchmetrics"], seconds["ours"], strict=True)
    return round(median(theirs / ours for theirs, ours in pairs), 3)


def rounded(times: list[float]) -> list[float]:
    return [round(one, 4) for one in times]


def lpips_net() -> tuple[LPIPS, str]:
    """LPIPS on AlexNet with published weights, or random ones where they are missing."""
    try:
        return pretrained("alex"), "published"
    except MissingWeights:
        torch.manual_seed(0)
        return LPIPS("alex").eval().requires_grad_(False), "random"


def lpips_work(net: LPIPS, pairs: int, side: int) -> tuple[Work, Work]:
    """The mean LPIPS of random pairs, by either library."""
    from torchmetrics.functional.image import lpips as theirs

    other = as_torchmetrics(net, theirs)
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, pairs, 3, side, side, generator=generator) * 2 - 1

    def ours() -> float:
        with torch.inference_mode():
            return float(net(first, second).mean())

    def torchmetrics() -> float:
        with torch.inference_mode():
            return float(theirs._lpips_update(first, second, other, normalize=False).mean())

    return ours, torchmetrics


def as_torchmetrics(net: LPIPS, theirs: Any) -> nn.Module:
    """torchmetrics' own module on the layers of torchvision's AlexNet, with these weights."""
    layers: list[nn.Module] = []
    convolutions = iter(net.layers)
    for block in net.blocks:
        layers += [nn.MaxPool2d(3, 2)] if block.pool else []
        layers += [next(convolutions), nn.ReLU(inplace=True)]
    features = nn.Sequential(*layers)
    kept, theirs._get_tv_model_features = theirs._get_tv_model_features, lambda *_, **__: features
    try:
        module = theirs._LPIPS(pretrained=False, net="alex", pnet_rand=True)
    finally:
        theirs._get_tv_model_features = kept
    with torch.no_grad():
        for head, line in zip(net.heads, module.lins, strict=True):
            line.model[-1].weight.copy_(head[None, :, None, None])
    return module


class Given(nn.Module):
    """An extractor of torchmetrics whose features are given."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_work(samples: int, size: int, batch: int = 100) -> tuple[Work, Work]:
    """The Frechet distance of two sets that arrive in batches, by either library."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(size, size)) / np.sqrt(size)
    real, shown = (rng.normal(shift, 1, (samples, size)) @ mixing for shift in (0.0, 0.2))
    sides = [np.split(one, samples // batch) for one in (real, shown)]

    def ours() -> float:
        moments = []
        for batches in sides:
            total = Moments.of(Features("given", batches[0]))
            for part in batches[1:]:
                total = total + Moments.of(Features("given", part))
            moments.append(total)
        return frechet(*moments)

    def torchmetrics() -> float:
        distance = FrechetInceptionDistance(feature=Given(size)).set_dtype(torch.float64)
        for batches, is_real in zip(sides, (True, False), strict=True):
            for part in batches:
                distance.update(torch.from_numpy(part), real=is_real)
        return float(distance.compute())

    return ours, torchmetrics


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/metric_speed.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
