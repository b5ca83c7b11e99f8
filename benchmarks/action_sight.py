"""How much of the recorded actions shows in where the hand is?

    python benchmarks/action_sight.py mw-6

An inverse dynamics model sees frames. Here a network is told instead where the hand truly was, and
how far open, at the instants of those frames, more densely, for longer, or blurred by a few
millimetres. It learns from the demonstrations of the protocol and is asked about new ones, as
`real_clips.py` asks a model. What it explains of the actions, as R^2, is about what could be read
off perfect frames by a network of this kind; what every tick does not tell has not moved the hand.
Written to ``benchmarks/results/action_sight.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from cells import demonstrations, rounded
from jaxtyping import Float
from real_clips import unseen
from tqdm import trange

from wamlab.data.lerobot import ACTION_COLUMN, STATE_COLUMN, Dataset
from wamlab.data.logs import write_json
from wamlab.metrics.open_loop import mean_explained, sums_of
from wamlab.metrics.stats import interval_over
from wamlab.models.unipi import UniPi
from wamlab.nn.transformer import mlp
from wamlab.recipes import protocols, recipe
from wamlab.train.provenance import provenance

HERE = Path(__file__).parent
FRAMES = (0, *UniPi.Config.small().offsets)
CHUNK = UniPi.Config.small().chunk
LONGER = 8
"""Ticks after the last action for which the longest look goes on."""
QUARTERS = 4
WIDTH, BATCH, RATE, DECAY = 256, 256, 1e-3, 0.01
NARROW = 1e-6
"""A feature that spreads less than this is not scaled."""

Rows = Float[np.ndarray, "n d"]


@dataclass(frozen=True)
class Look:
    """The ticks at which the hand is seen, and how far off its place is, in millimetres."""

    ticks: tuple[int, ...]
    blur: float = 0.0


LOOKS: Mapping[str, Look] = {
    "the frames of unipi": Look(FRAMES),
    "its frames, 2 mm off": Look(FRAMES, 2.0),
    "its frames, 4 mm off": Look(FRAMES, 4.0),
    "every tick": Look(tuple(range(CHUNK + 1))),
    f"every tick, and {LONGER} more": Look(tuple(range(CHUNK + 1 + LONGER))),
}


@dataclass(frozen=True)
class Windows:
    """Every window of some episodes: states (N, T, 4), actions (N, H, A), episodes (N,)."""

    state: Float[np.ndarray, "n t s"]
    action: Float[np.ndarray, "n h a"]
    episode: np.ndarray


def windows(path: Path) -> Windows:
    """All windows of a dataset that have `LONGER` ticks after their last action."""
    dataset, parts = Dataset(path), []
    for episode in range(len(dataset)):
        state = dataset.column(STATE_COLUMN, episode).astype(np.float32)
        action = dataset.actions(dataset.column(ACTION_COLUMN, episode)).astype(np.float32)
        starts = np.arange(len(action) - CHUNK - LONGER + 1)[:, None]
        seen = state[starts + np.arange(CHUNK + LONGER + 1)]
        parts.append((seen, action[starts + np.arange(CHUNK)], np.full(len(starts), episode)))
    return Windows(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def features(of: Windows, look: Look, rng: np.random.Generator, rows: Any = slice(None)) -> Rows:
    """Where the hand was at first, how far it went from there, and how far it was open."""
    seen = of.state[rows][:, look.ticks]
    place = seen[..., :3] + rng.normal(0, look.blur / 1000, seen[..., :3].shape)
    went = place[:, 1:] - place[:, :1]
    flat = [place[:, 0], went.reshape(len(went), -1), seen[..., 3]]
    return np.concatenate(flat, axis=1).astype(np.float32)


def read_off(train: Windows, test: Windows, look: Look, steps: int, seed: int) -> np.ndarray:
    """The actions of ``test`` as a network says them that learned from ``train``; (N, H, A)."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    example = features(train, look, rng)
    spread = example.std(axis=0)
    middle, spread = example.mean(axis=0), np.where(spread < NARROW, 1, spread)
    scaled = lambda rows: torch.from_numpy((rows - middle) / spread)  # noqa: E731
    target = torch.from_numpy(train.action.reshape(len(train.action), -1))
    network = mlp(example.shape[1], WIDTH, WIDTH, target.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in trange(steps, leave=False, desc=f"{len(look.ticks)} ticks, {look.blur:g} mm"):
        rows = rng.integers(len(target), size=BATCH)
        said = network(scaled(features(train, look, rng, rows)))
        optimizer.zero_grad()
        (said - target[rows]).square().mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return network(scaled(features(test, look, rng))).numpy().reshape(test.action.shape)


def judged(said: np.ndarray, test: Windows) -> dict[str, Any]:
    """R^2, with an interval over episodes, and that of every quarter of the chunk."""
    error = said - test.action
    at_tick = np.stack(
        [
            [sums_of(test.action[own, t], error[own, t]) for t in range(CHUNK)]
            for own in (test.episode == e for e in np.unique(test.episode))
        ]
    )
    sums = at_tick.sum(axis=1)
    quarters = [mean_explained(one.sum(axis=1)) for one in np.split(at_tick, QUARTERS, axis=1)]
    return {
        "r2": mean_explained(sums),
        "interval": interval_over(sums, statistic=mean_explained),
        "quarters": quarters,
    }


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    before = machine.state()
    run = recipe(f"{args.protocol}/{UniPi.name}")
    folder = args.work / args.protocol
    train = windows(demonstrations(run.data, folder / "data"))
    test = windows(unseen(run.data, folder, args.episodes))
    looks = {
        name: judged(read_off(train, test, look, args.steps, args.seed), test)
        for name, look in LOOKS.items()
    }
    record = {
        "protocol": args.protocol,
        "looks": looks,
        "windows": len(test.action),
        "episodes": len(np.unique(test.episode)),
        "settings": {"steps": args.steps, "seed": args.seed},
        "machine": before,
        "provenance": provenance(),
    }
    print(write_json(args.results / "action_sight.json", rounded(record)))


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("protocol", choices=protocols())
    parser.add_argument("--episodes", type=int, default=4, help="new ones, of each task")
    parser.add_argument("--steps", type=int, default=20000, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
