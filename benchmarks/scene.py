"""Measure the scene: ``python benchmarks/scene.py``.

Per task and chain: how often and how soon the expert succeeds, with variants and with bursts.
Besides: how fast the environment is with both views, with one and with none, and what the same
state gives again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wamlab.metrics.stats import wilson
from wamlab.run.collect import demonstrate
from wamlab.sim.env import Env, self_test, start_seed
from wamlab.sim.experts import BurstNoise
from wamlab.sim.registry import make
from wamlab.sim.suites import SCENE, suite

RESULTS = Path(__file__).parent / "results" / "scene.json"
TASK = "scene/red-cube-to-yellow-mat"
VIEWS = {"both": ("front", "wrist"), "front": ("front",), "none": ()}


def expert_row(starts: int, name: str) -> dict[str, Any]:
    env, row = make(name, views=()), {}
    seeds = [start_seed("validation", index) for index in range(starts)]
    for kind in ("variants", "bursts"):
        lengths = [length(env, seed, kind == "bursts") for seed in seeds]
        solved = [steps for steps in lengths if steps]
        row[kind] = {
            "successes": len(solved),
            "wilson_95": [round(end, 3) for end in wilson(len(solved), starts)],
            "median_steps": statistics.median(solved) if solved else None,
            "most_steps": max(solved, default=None),
        }
    env.close()
    return row


def length(env: Env, seed: int, bursts: bool) -> int:
    """Steps to the expert's success; 0 where there is none."""
    noise = BurstNoise.at(env.space.rate_hz, seed) if bursts else None
    episode = demonstrate(env, seed, noise=noise, stop_after=0)
    return len(episode) if episode.success_any else 0


def rate(views: tuple[str, ...], steps: int) -> float:
    env = make(TASK, views=views)
    env.reset(seed=0)  # the first one starts the renderer
    expert = env.expert(variants=True, seed=0)
    began = time.perf_counter()
    for _ in range(steps):
        env.step(expert())
    seconds = time.perf_counter() - began
    env.close()
    return round(steps / seconds, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    env = make(TASK)
    noise = self_test(env)
    env.close()
    rates = {name: rate(views, options.steps) for name, views in VIEWS.items()}
    names = [name for group in SCENE for name in suite(group)]
    with ProcessPoolExecutor(options.processes) as pool:
        rows = pool.map(functools.partial(expert_row, options.starts), names)
        expert = dict(zip(names, tqdm(rows, desc="expert", total=len(names)), strict=True))
    record = {
        "command": "python benchmarks/scene.py",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("ogbench", "mujoco", "numpy")},
        "load_at_start": load,
        "starts": options.starts,
        "steps_per_second": rates,
        "restored_twice": dataclasses.asdict(noise),
        "expert": expert,
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(noise, rates)
    for name, row in expert.items():
        print(f"{name:72s}", *(f"{k} {v['successes']}/{options.starts}" for k, v in row.items()))


if __name__ == "__main__":
    main()
