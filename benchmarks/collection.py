"""Environment steps per second on one core, expert included: ``python benchmarks/collection.py``.

With both 64-pixel views, with one, and without rendering. The target with both views is 55.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from tqdm import tqdm

from wamlab.sim.env import start_seed
from wamlab.sim.metaworld import MetaWorld
from wamlab.sim.suites import suite

RESULTS = Path(__file__).parent / "results" / "collection.json"
BAR = 55.0
VIEWS = {"both": ("corner", "gripper"), "corner": ("corner",), "none": ()}


def rate(task: str, views: tuple[str, ...], steps: int) -> tuple[float, float]:
    """Steps per second with resets left out, and seconds per reset."""
    env = MetaWorld(task, views=views)
    env.reset(seed=0)  # the first one starts the renderer
    began = time.perf_counter()
    env.reset(seed=start_seed("train", 1))
    reset = time.perf_counter() - began
    expert = env.expert(variants=True, seed=1)
    began = time.perf_counter()
    for _ in range(steps):
        env.step(expert())
    seconds = time.perf_counter() - began
    env.close()
    return steps / seconds, reset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="mw-6")
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    tasks = {}
    for env in tqdm(suite(options.suite), desc="collection"):
        task = env.removeprefix("metaworld/")
        rates = {name: rate(task, views, options.steps) for name, views in VIEWS.items()}
        tasks[env] = {name: round(found[0], 1) for name, found in rates.items()}
        tasks[env]["reset_seconds"] = round(rates["both"][1], 3)
    slowest = min(found["both"] for found in tasks.values())
    record = {
        "command": "python benchmarks/collection.py",
        "steps_per_second_per_core": tasks,
        "slowest_with_both_views": slowest,
        "bar": BAR,
        "passed": slowest >= BAR,
        "load_at_start": os.getloadavg()[0],
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
