"""A run folder of synthetic logs, as training, rolling out and probing would leave it.

Run as a script to look at a report: ``python tests/report/run_folder.py FOLDER``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "metrics"))
import pusher

from wamlab.data.logs import (
    save_blind,
    save_chosen,
    save_episode,
    save_probe,
    save_rivals,
    write_json,
)
from wamlab.metrics.rivals import Clips, dataset_rivals, show

TASKS = {"toy/push-left": 0.95, "toy/push-right": 0.7, "toy/push-slowly": 0.35}


def two_views(frames: np.ndarray) -> dict[str, np.ndarray]:
    return {"corner": frames, "gripper": np.ascontiguousarray(frames[:, ::-1, ::-1])}


def write(folder: Path, *, episodes: int = 20, states: int = 12, fault: str = "oracle") -> Path:
    rng = np.random.default_rng(0)
    for env, rate in TASKS.items():
        for seed in range(episodes):
            one = pusher.episode(seed, env, solved=seed < rate * episodes)
            save_episode(folder, dataclasses.replace(one, frames=two_views(one.frames["corner"])))
    windows = [pusher.probe(seed, samples=1) for seed in range(100, 120)]
    clips = Clips(
        [window.env for window in windows],
        (8, 16),
        {"corner": np.stack([window.now["corner"][0] for window in windows])},
        {"corner": np.stack([w.branches[0].happened["corner"] for w in windows])},
    )
    for seed in range(states):
        probe = pusher.probe(seed, fault, samples=3, noise=6.0 + seed)
        save_probe(folder, probe)
        save_rivals(folder, probe, show(probe, dataset_rivals(clips)))
    with (folder / "loss.jsonl").open("w") as file:
        for step in range(0, 2000, 10):
            loss = 1.5 * np.exp(-step / 300) + 0.05 + 0.01 * rng.normal()
            line = {"step": step, "stage": "joint", "loss": loss, "loss_action": loss / 3}
            file.write(json.dumps({**line, "lr": 3e-4, "grad_norm": 1 + loss}) + "\n")
    save_blind(folder, blind())
    save_chosen(folder, {"starts": "the first 20", "checkpoint": "the newest", "seeds": "0"})
    write_json(folder / "run.json", about())
    return folder


def blind() -> dict[str, dict[str, tuple[int, int]]]:
    return {
        env: {"expert": (30, 30), "mean replay": (6 + i, 30), "random replay": (3 * i, 30)}
        for i, env in enumerate(TASKS)
    }


def about() -> dict[str, object]:
    return {
        "schema": 1,
        "model": {"depth": 4, "width": 192, "heads": 6, "offsets": [8, 16], "chunk": 16}
        | {f"field_{i}": i for i in range(8)},
        "status": "finished",
        "step": 2000,
        "stages": [{"name": "joint", "steps": 2000, "seconds_per_step": 0.29}],
        "provenance": {
            "command": "wam demo --out runs/demo",
            "commit": "0123456789abcdef",
            "versions": {"wamlab": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
            "seed": 0,
            "machine": {"platform": "Linux", "cores": 2},
        },
    }


if __name__ == "__main__":
    from wamlab.report.build import build

    print(build(write(Path(sys.argv[1]))))
