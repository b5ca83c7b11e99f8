"""Measure for every Meta-World task whether its goal can be seen: writes the package's table.

``python benchmarks/goal_visibility.py``; tasks where it cannot are not offered afterwards.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wamlab.sim import visibility
from wamlab.sim.instructions import INSTRUCTIONS
from wamlab.sim.metaworld import MetaWorld

TABLE = Path(visibility.__file__).with_name("metaworld_tasks.json")


def row(task: str) -> dict[str, Any]:
    env = MetaWorld(task)
    seen = visibility.measure(env)
    env.close()
    numbers = [
        {
            "component": one.component,
            "range_metres": round(one.span, 4),
            "least_pixels": min(one.pixels),
            "median_pixels": statistics.median(one.pixels),
        }
        for one in seen
        if one.moves
    ]
    return {"goal_visible": all(one.visible for one in seen), "numbers": numbers}


def main() -> None:
    table = {task: row(task) for task in tqdm(sorted(INSTRUCTIONS), desc="goal visibility")}
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
    for task, found in table.items():
        least = min(number["least_pixels"] for number in found["numbers"])
        print(f"{task:32s} {'visible' if found['goal_visible'] else 'HIDDEN':8s} {least:5d} pixels")


if __name__ == "__main__":
    main()
