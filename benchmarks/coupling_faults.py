"""Does coupling in nats, of learned denoisers, tell planted faults from a good imagination?

    python benchmarks/coupling_faults.py
    python benchmarks/coupling_faults.py --faults oracle blind --steps 500

The world is the pusher of the tests, where the mutual information of own action and future can be
computed: its actions are known up to a draw, and its future is read with Gaussian noise. For each
planted model and seed a small network with independent noise levels on action and future is trained
on what that model would do and imagine; then its denoising losses are taken on what really happens
from states that no training has seen, as `wam eval --dataset` takes those of a model. All are
integrated to one cleanest level, that at which the bounds of the oracle stop, for sides that end at
different levels differ by the ends. Writes ``benchmarks/results/coupling_faults.json``.

Of the pusher's models *relabelled* is not among the faults: one pair at a time it is *blind*.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import machine
import numpy as np
import torch
from cells import rounded
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from wamlab.config import nearest
from wamlab.data.logs import write_json
from wamlab.generative import diffusion, flow
from wamlab.metrics.information import SIDES, information
from wamlab.metrics.likelihood import CHAINS, denoising_bound, noise_levels, noisiest, stop
from wamlab.metrics.stats import bootstrap
from wamlab.train.provenance import provenance
from wamlab.types import Denoised

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests" / "metrics"))
import pusher  # noqa: E402

RESULTS = HERE / "results" / "coupling_faults.json"
GOOD = "oracle"
FAULTS = {
    GOOD: "what happens",
    "one mode": "what happens, of one own action from each state: no fault one pair at a time",
    "blind": "the future of another own action",
    "static": "nothing moves",
    "static zero": "nothing moves, nothing is done",
    "object-blind": "the block stays where it is",
    "optimist": "the block comes to its goal",
    "late": "everything one step late",
    "excited": "everything moves half as far again",
    "gain .7": "actions reach 0.7 as far",
    "slip .5": "the block gives way half as far",
    "mirrored": "actions to the left lead to the right",
}
READING = 0.01
"""The noise with which places are read, in board widths: it makes the information finite."""
SIZES = {"context": 0.1, "action": 0.5, "future": 0.1}
"""What brings streams to a deviation of about one."""
CLEAN, PURE = 0.01, 80.0
"""Noise of a stream that is given, a tenth of that of reading, and of one that is not."""
HELD: dict[str, tuple[float | None, float | None]] = {
    "POLICY": (None, PURE),
    "INVERSE": (None, CLEAN),
    "VIDEO": (PURE, None),
    "FORWARD": (CLEAN, None),
    "JOINT": (None, None),
}
"""The level at which each query holds action and future; None for what it samples."""
OWN = 4
"""Own actions from each state."""
TESTED, KNOWN = 100, 101
"""Seeds of states that no training has seen."""
Losses = Mapping[str, Denoised]
"""By query."""


class Pairs(NamedTuple):
    """What is seen (n, 4), what is done (n, 32) and what comes of it (n, 8), in units of one."""

    context: Float[Tensor, "n c"]
    action: Float[Tensor, "n a"]
    future: Float[Tensor, "n f"]

    def rows(self, kept: Tensor) -> Pairs:
        return Pairs(*(values[kept] for values in self))


class Denoiser(nn.Module):
    """The clean action and the clean future from both under noise of independent levels."""

    def __init__(self, context: int, action: int, future: int, width: int = 256, depth: int = 3):
        super().__init__()
        self.sizes = [action, future]
        self.frequencies = nn.Buffer(torch.arange(1, 17).float(), persistent=False)
        self.into = nn.Linear(context + action + future + 2 * 33, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.SiLU(),
                nn.Linear(2 * width, width),
            )
            for _ in range(depth)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, action + future))

    def forward(
        self,
        context: Float[Tensor, "b c"],
        noisy: tuple[Float[Tensor, "b a"], Float[Tensor, "b f"]],
        sigmas: tuple[Float[Tensor, " b"], Float[Tensor, " b"]],
    ) -> list[Tensor]:
        factors = [diffusion.precondition(sigma, 1.0) for sigma in sigmas]
        seen = [flow.like(p.input, x) * x for p, x in zip(factors, noisy, strict=True)]
        levels = [self._level(p.noise) for p in factors]
        x = self.into(torch.cat([context, *seen, *levels], dim=1))
        for block in self.blocks:
            x = x + block(x)
        found = self.out(x).split(self.sizes, dim=1)
        return [
            flow.like(p.skip, x) * x + flow.like(p.out, x) * f
            for p, x, f in zip(factors, noisy, found, strict=True)
        ]

    def _level(self, noise: Float[Tensor, " b"]) -> Float[Tensor, "b 33"]:
        angles = noise[:, None] * self.frequencies
        return torch.cat([noise[:, None], angles.sin(), angles.cos()], dim=1)


class Asked(NamedTuple):
    """How much is trained and measured; the same for every fault."""

    steps: int = 2000
    batch: int = 512
    states: int = 50_000
    tested: int = 400
    draws: int = 8
    levels: int = 16


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), metavar="FAULT")
    for name, value in Asked()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2, help="trainings side by side")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(words)
    if unknown := [name for name in args.faults if name not in FAULTS]:
        parser.error(f"no fault {unknown[0]!r}{nearest(unknown[0], FAULTS)}")
    if GOOD not in args.faults:
        parser.error(f"{GOOD!r} is what the others are held against: it must be among the faults")
    asked, before = Asked(*(getattr(args, name) for name in Asked._fields)), machine.state()
    jobs = [(fault, seed, asked) for fault in args.faults for seed in args.seeds]
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        every = [*tqdm(pool.imap(losses_of, jobs), desc="trainings", total=len(jobs))]
    by_fault = {f: [x for x, job in zip(every, jobs, strict=True) if job[0] == f] for f in FAULTS}
    ends = min(stops(one)[side] for one in by_fault[GOOD] for side in SIDES)
    record = {
        "faults": {fault: measured(by_fault[fault], ends) for fault in args.faults},
        "what": {name: FAULTS[name] for name in args.faults},
        "cleanest": float(every[0]["POLICY"].levels[ends - 1]),
        "known": known_values(),
        "settings": {
            **asked._asdict(), "seeds": args.seeds, "own_actions": OWN, "reading": READING
        },
        "machine": before,
        "provenance": provenance(),
    }  # fmt: skip
    print(write_json(args.out, rounded(record)))


def losses_of(job: tuple[str, int, Asked]) -> Losses:
    """The losses, on what happens, of denoisers that believe in a fault."""
    fault, seed, asked = job
    torch.set_num_threads(1)
    denoiser = trained(pairs(fault, asked.states, seed), asked, seed)
    return losses(denoiser, pairs(GOOD, asked.tested, TESTED), asked)


def measured(seeds: Sequence[Losses], ends: int) -> dict[str, Any]:
    """Both sides and the gaps of each training over the first ``ends`` levels, and where each side
    would have stopped by its own bounds."""
    found: dict[str, list[Float[np.ndarray, " b"]]] = {}
    for one in seeds:
        bound = {query: denoising_bound(noisiest(x, ends)) for query, x in one.items()}
        values = {side: bound[alone] - bound[given] for side, (alone, given) in SIDES.items()}
        values["gap"] = values["action"] - values["future"]
        for chain, (first, second) in CHAINS.items():
            values[chain] = (bound[first] + bound[second] - bound["JOINT"]) / one["JOINT"].dims
        for name, of_pairs in values.items():
            found.setdefault(name, []).append(of_pairs.reshape(-1, OWN).mean(1))
    own = {
        side: [float(information(one[alone], one[given]).mean()) for one in seeds]
        for side, (alone, given) in SIDES.items()
    }
    return {
        **{name: _over_states(np.array(of_states)) for name, of_states in found.items()},
        "by_its_own_bounds": own,
        "stops": {side: [stops(one)[side] for one in seeds] for side in SIDES},
    }


def stops(one: Losses) -> dict[str, int]:
    """How many levels each side is taken over by its own bounds."""
    return {side: stop(one[alone], one[given]) for side, (alone, given) in SIDES.items()}


def _over_states(values: Float[np.ndarray, "seeds states"]) -> dict[str, Any]:
    """The mean, its interval over states of the mean of these trainings, and each training's."""
    by_state = values.mean(axis=0)
    return {
        "value": float(by_state.mean()),
        "interval": [*bootstrap(by_state)],
        "n": len(by_state),
        "by_seed": values.mean(axis=1).tolist(),
    }


def pairs(fault: str, states: int, seed: int) -> Pairs:
    """What a planted model does from fresh states, and imagines to come of it, read with noise."""
    scene = pusher.acting(fault, pusher.scene(states, OWN, seed))
    rng = np.random.default_rng([seed, 1])
    places = futures(scene, pusher.MODELS[fault](scene, scene.own))
    places = places + rng.normal(0, READING, places.shape)
    here = np.concatenate([scene.robot, scene.block], axis=-1) - 0.5
    seen = here[:, None].repeat(OWN, axis=1)
    flat = [
        torch.from_numpy(values.reshape(states * OWN, -1) / size).float()
        for values, size in zip((seen, scene.own, places), SIZES.values(), strict=True)
    ]
    return Pairs(*flat)


def futures(scene: pusher.Scene, path: pusher.Path) -> Float[np.ndarray, "n k f"]:
    """How far agent and block have come at each offset."""
    moved = [
        places[:, :, pusher.OFFSETS] - start[:, None, None]
        for places, start in ((path.robot, scene.robot), (path.block, scene.block))
    ]
    return np.concatenate(moved, axis=-1).reshape(*path.robot.shape[:2], -1)


def trained(known: Pairs, asked: Asked, seed: int, lr: float = 2e-3) -> Denoiser:
    """A denoiser of these pairs; every level of the integral weighs the same."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    denoiser = Denoiser(*(values.shape[1] for values in known))
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=asked.steps)
    for _ in range(asked.steps):
        rows = known.rows(torch.randint(len(known.action), (asked.batch,), generator=draw))
        clean = (rows.action, rows.future)
        sigmas = (_levels(asked.batch, draw), _levels(asked.batch, draw))
        noisy = tuple(
            diffusion.add_noise(x, torch.randn(x.shape, generator=draw), sigma)
            for x, sigma in zip(clean, sigmas, strict=True)
        )
        shown = denoiser(rows.context, noisy, sigmas)
        loss = sum(
            (flow.like(diffusion.weight(sigma, 1.0), x) * (x - seen).square()).mean()
            for seen, x, sigma in zip(shown, clean, sigmas, strict=True)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return denoiser


def _levels(rows: int, draw: torch.Generator) -> Float[Tensor, " b"]:
    """Pure noise for three rows in ten, as good as clean for three, evenly in between for four."""
    share, kind = torch.rand(2, rows, generator=draw)
    sigma = CLEAN * (PURE / CLEAN) ** share
    sigma = torch.where(kind < 0.3, torch.full_like(sigma, PURE), sigma)
    return torch.where(kind > 0.7, torch.full_like(sigma, CLEAN), sigma)


@torch.no_grad()
def losses(denoiser: Denoiser, happened: Pairs, asked: Asked) -> Losses:
    """How well each query recovers what happened."""
    levels = torch.from_numpy(noise_levels(asked.levels))
    levels, sigmas = diffusion.trained_levels(levels, CLEAN, PURE)
    draw = torch.Generator().manual_seed(1)
    return {
        query: _denoised(denoiser, happened, held, levels, sigmas, draw, asked.draws)
        for query, held in HELD.items()
    }


def _denoised(
    denoiser: Denoiser,
    happened: Pairs,
    held: tuple[float | None, float | None],
    levels: Float[Tensor, " l"],
    sigmas: Sequence[float],
    draw: torch.Generator,
    times: int,
) -> Denoised:
    """Errors of the streams that are not ``held`` at a level, meaned over ``times`` draws."""
    clean = (happened.action, happened.future)
    rows, errors = len(happened.action), torch.zeros(len(happened.action), len(sigmas))
    for place, sigma in enumerate(sigmas):
        at = [sigma if fixed is None else fixed for fixed in held]
        for _ in range(times):
            noisy = [
                x + level * torch.randn(x.shape, generator=draw)
                for x, level in zip(clean, at, strict=True)
            ]
            full = [torch.full((rows,), level) for level in at]
            shown = denoiser(happened.context, noisy, full)
            for x, seen, fixed in zip(clean, shown, held, strict=True):
                if fixed is None:
                    errors[:, place] += (x - seen).square().sum(1) / times
    sampled = [x for x, fixed in zip(clean, held, strict=True) if fixed is None]
    energy = torch.stack([x.square().sum(1) for x in sampled]).sum(0)
    dims = np.full(rows, sum(x.shape[1] for x in sampled))
    return Denoised(levels.numpy(), errors.numpy(), energy.numpy(), dims)


def known_values(states: int = 24, seed: int = KNOWN) -> dict[str, Any]:
    """The information between own action and future in the pusher, of both entities and of one."""
    scenes = pusher.scene(states, 40_000, seed)
    reached = futures(scenes, scenes.execute(scenes.own))
    agent = reached.reshape(*reached.shape[:2], len(pusher.OFFSETS), 4)[..., :2]
    found = {"both": reached, "agent": agent.reshape(*reached.shape[:2], -1)}
    return {name: _mean([shared(one, seed) for one in of]) for name, of in found.items()}


def _mean(values: Sequence[float]) -> dict[str, Any]:
    found = np.array(values)
    return {"value": float(found.mean()), "interval": [*bootstrap(found)], "n": len(found)}


def shared(
    reached: Float[np.ndarray, "m f"], seed: int = 0, drawn: int = 256, noise: float = READING
) -> float:
    """What ``reached`` and noise tell of the draw that led there, in nats.

    ``E[log p(read | draw) - log p(read)]`` with the density of what is read as the mean over all
    draws but its own: above the true value by half the variance of that mean's logarithm.
    """
    rng = np.random.default_rng([seed, 3])
    total = 0.0
    for i in range(drawn):
        error = rng.normal(0, noise, reached.shape[1])
        others = np.delete(reached, i, axis=0)
        logs = -((reached[i] + error - others) ** 2).sum(1) / (2 * noise**2)
        top = float(logs.max())
        total += -float((error**2).sum()) / (2 * noise**2) - top
        total -= math.log(np.exp(logs - top).mean())
    return total / drawn


if __name__ == "__main__":
    main()
