"""Can the goal be read from the pictures? ``python benchmarks/decodability.py``.

A small convolutional network regresses where the object and the goal are, in metres, from the two
64-pixel views of start frames. The R^2 of each coordinate that varies is measured on validation
starts. A task below 0.9 is too hard to see for a policy of this size to be blamed.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from wamlab.sim.env import Split, start_seed
from wamlab.sim.metaworld import MetaWorld
from wamlab.sim.suites import suite

RESULTS = Path(__file__).parent / "results" / "decodability.json"
WORTH = 1e-3  # metres: a coordinate with a smaller standard deviation is constant
ENOUGH = 0.9


def starts(task: str, split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Both views of the starts (N, 6, H, W), and where object and goal are (N, 6)."""
    env = MetaWorld(task)
    frames, places = [], []
    for index in range(count):
        observation, _ = env.reset(seed=start_seed(split, index))
        frames.append(np.concatenate([observation[f"image/{view}"] for view in env.views], axis=-1))
        thing = list(env.entities().values())[-1]
        places.append(np.concatenate([thing[:3], env.goal]))
    env.close()
    return np.stack(frames).transpose(0, 3, 1, 2), np.stack(places)


def network(outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inner, outer in ((6, 32), (32, 64), (64, 96), (96, 128)):
        layers += [nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(128 * 16, 256), nn.ReLU(), nn.Linear(256, outputs)
    )


def fit(frames: torch.Tensor, targets: torch.Tensor, steps: int) -> nn.Module:
    torch.manual_seed(0)
    model = network(targets.shape[1])
    optim = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optim, 2e-3, total_steps=steps)
    for _ in tqdm(range(steps), desc="regression", leave=False):
        rows = torch.randint(len(frames), (64,))
        loss = (model(frames[rows]) - targets[rows]).square().mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        schedule.step()
    return model


def r_squared(model: nn.Module, frames: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        error = (model(frames) - targets).square().mean(0)
    return (1 - error / targets.var(0, correction=0)).numpy()


def judge(task: str, data: dict[str, tuple[np.ndarray, np.ndarray]], steps: int) -> dict[str, Any]:
    names = [f"{what} {axis}" for what in ("object", "goal") for axis in "xyz"]
    spread = data["train"][1].std(axis=0)
    varies = spread > WORTH
    middle = data["train"][1].mean(axis=0)[varies]
    tensors = {
        split: (
            torch.from_numpy(frames).float() / 127.5 - 1,
            torch.from_numpy((places[:, varies] - middle) / spread[varies]).float(),
        )
        for split, (frames, places) in data.items()
    }
    model = fit(*tensors["train"], steps)
    found = r_squared(model, *tensors["validation"])
    kept = [name for name, keep in zip(names, varies, strict=True) if keep]
    per_name = {name: round(float(value), 4) for name, value in zip(kept, found, strict=True)}
    worst = round(float(found.min()), 4)
    return {"r_squared": per_name, "worst": worst, "decodable": worst > ENOUGH}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="mw-6")
    parser.add_argument("--train", type=int, default=1200)
    parser.add_argument("--validation", type=int, default=300)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    tasks = [env.removeprefix("metaworld/") for env in suite(options.suite)]
    began = time.perf_counter()
    results: dict[str, Any] = {}
    with ProcessPoolExecutor(options.processes) as pool:
        sets = {
            split: list(pool.map(partial(starts, split=split, count=count), tasks))
            for split, count in (("train", options.train), ("validation", options.validation))
        }
    torch.set_num_threads(options.processes)
    for index, task in enumerate(tasks):
        data = {split: found[index] for split, found in sets.items()}
        results[f"metaworld/{task}"] = judge(task, data, options.steps)
        print(task, results[f"metaworld/{task}"])
    record = {
        "command": "python benchmarks/decodability.py",
        "settings": vars(options),
        "seconds": round(time.perf_counter() - began),
        "tasks": results,
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
