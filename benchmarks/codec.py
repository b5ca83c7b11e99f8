"""How well do the learned codecs keep a frame?

    python benchmarks/codec.py --data runs/demo/data

The KL autoencoder or the VQ tokeniser is trained on a dataset for a few minutes, as the first stage
of a model would be. PSNR (of each frame, in [0, 1]; their mean) is measured on episodes that were
held out, over whole frames and over the pixels that move. Beside it: the size of a code, how
standard its latents are, and what encoding costs in a training step of `uwm`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from einops import rearrange
from synthetic import publish
from torch import Tensor
from tqdm import tqdm

from wamlab.data.cache import Cache
from wamlab.nn.codec import KL, VQ
from wamlab.train.learner import autocast
from wamlab.train.optim import OptimConfig, learning_rate

RESULTS = Path(__file__).parent / "results"
KINDS: dict[str, type[KL] | type[VQ]] = {"kl": KL, "vq": VQ}
MOVED = 25 / 255  # from one frame to that of ten ticks before
LAG = 10


def main() -> None:
    args = _arguments()
    cache = Cache.open(args.data, views=("corner", "gripper"), image_size=args.image_size)
    episodes = range(len(cache.lengths))
    held_out = [e for e in episodes if e % args.every == 0]
    taught = np.concatenate([_rows(cache, e) for e in episodes if e not in held_out])
    torch.manual_seed(args.seed)
    codec = KINDS[args.codec](args.image_size)
    before, start = machine.state(), time.perf_counter()
    steps, losses = _train(codec, cache, taught, args)
    found = {
        "codec": codec.name,
        "settings": {k: v for k, v in vars(args).items() if k not in ("data", "out")},
        "machine": before,
        "episodes": {"taught": len(cache.lengths) - len(held_out), "held_out": len(held_out)},
        "parameters": sum(p.numel() for p in codec.parameters()),
        "code": list(codec.shape),
        "steps": steps,
        "seconds": round(time.perf_counter() - start, 1),
        "losses": losses,
        **_judge(codec, cache, held_out),
        "encode": _cost(codec),
    }
    publish(args.out or RESULTS / f"codec-{args.codec}.json", found)


def _train(
    codec: KL | VQ, cache: Cache, rows: np.ndarray, args: argparse.Namespace
) -> tuple[int, dict[str, float]]:
    """As many steps as fit into the minutes; the rate falls with the time that is gone."""
    optim, rng = OptimConfig(lr=args.lr), np.random.default_rng(args.seed)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=args.lr, betas=optim.betas, fused=True)
    generator = torch.Generator().manual_seed(args.seed)
    recorded = torch.ones(args.rows, len(cache.views), dtype=torch.bool)
    start, gone, steps, losses = time.perf_counter(), 0.0, 0, {}
    codec.train()
    with tqdm(total=100, desc=codec.name, unit="%") as bar:
        while gone < 1:
            chosen = np.sort(rng.choice(rows, args.rows))
            batch = torch.stack([_frames(cache, view, chosen) for view in cache.views], dim=1)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(optim, int(10_000 * gone), 10_000)
            with autocast(batch.device, args.precision):
                losses = codec.loss(batch, recorded, generator)
            optimizer.zero_grad()
            losses["loss"].backward()
            torch.nn.utils.clip_grad_norm_(codec.parameters(), optim.clip)
            optimizer.step()
            now = (time.perf_counter() - start) / (60 * args.minutes)
            bar.update(100 * (min(now, 1) - gone))
            gone, steps = now, steps + 1
    codec.eval()
    return steps, {name: round(float(value.detach()), 5) for name, value in losses.items()}


@torch.no_grad()
def _judge(codec: KL | VQ, cache: Cache, episodes: list[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for view in cache.views:
        whole, moving, codes = [], [], []
        for episode in episodes:
            frames = _frames(cache, view, _rows(cache, episode))
            code = codec.encode(frames)
            error = ((codec.decode(code).clamp(-1, 1) - frames) / 2).square().mean(1)
            moved = ((frames[LAG:] - frames[:-LAG]) / 2).abs().amax(1) > MOVED
            whole += _psnr(error.mean((1, 2)))
            there = moved.any(2).any(1)
            moving += _psnr((error[LAG:] * moved).sum((1, 2))[there] / moved.sum((1, 2))[there])
            codes.append(code)
        every = torch.cat(codes)
        found[view] = {
            "frames": len(whole),
            "psnr": round(float(np.mean(whole)), 2),
            "psnr_worst": round(float(np.min(whole)), 2),
            "psnr_moving": round(float(np.mean(moving)), 2),
        }
        if isinstance(codec, KL):
            found[view]["latent_mean"] = [round(float(x), 3) for x in every.mean((0, 2, 3))]
            found[view]["latent_std"] = [round(float(x), 3) for x in every.std((0, 2, 3))]
        else:
            found[view]["codes_in_use"] = len(every.unique())
    return {"held_out": found}


def _psnr(square: Tensor) -> list[float]:
    return (-10 * square.clamp(min=1e-10).log10()).tolist()


@torch.no_grad()
def _cost(codec: KL | VQ, rows: int = 32, views: int = 2, instants: int = 3) -> dict[str, float]:
    """Milliseconds to encode what a batch of `uwm` holds: now and two instants, of both views."""
    size = codec.image_size
    frames = torch.rand(rows, views, instants, 3, size, size) * 2 - 1
    taken = []
    for _ in range(8):
        start = time.perf_counter()
        codec.encode(frames)
        taken.append(1000 * (time.perf_counter() - start))
    return {"frames": rows * views * instants, "ms_best": round(min(taken[2:]), 1)}


def _rows(cache: Cache, episode: int) -> np.ndarray:
    start = int(cache.starts[episode])
    return np.arange(start, start + int(cache.lengths[episode]))


def _frames(cache: Cache, view: str, rows: np.ndarray) -> Tensor:
    pixels = torch.from_numpy(cache.frames[view][rows])
    return rearrange(pixels, "n h w c -> n c h w").float() / 127.5 - 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--codec", default="kl", choices=KINDS)
    parser.add_argument("--data", type=Path, required=True, help="a dataset with both views")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--rows", type=int, default=32, help="as many as the recipes train on")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="as in the recipe mw-6")
    parser.add_argument("--precision", default="bf16", choices=("f32", "bf16"))
    parser.add_argument("--every", type=int, default=6, help="each so many-th episode is held out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
