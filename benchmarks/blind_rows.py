"""Measure blind rows: ``python benchmarks/blind_rows.py mw-6 metaworld/reach``.

Resumable: rows that are already in the results file with the same settings are kept. The rows are
also put where `wamlab.sim.suites.blind_row` reads them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wamlab.metrics.stats import wilson
from wamlab.run.replay import measure
from wamlab.sim import suites
from wamlab.sim.registry import make

RESULTS = Path(__file__).parent / "results" / "blind_rows.json"
PACKAGED = Path(suites.__file__).with_name("blind_rows.json")


def row(env: str, starts: int, demonstrations: int, variants: bool) -> suites.BlindRow:
    build = partial(make, env, views=())
    return measure(build, starts=starts, demonstrations=demonstrations, variants=variants)


def key(row: suites.BlindRow) -> tuple[str, int, int, bool]:
    return row.env, row.starts, row.demonstrations, row.variants


def intervals(row: dict[str, Any]) -> dict[str, list[float]]:
    kinds = ("mean", "replay", "expert")
    return {kind: [round(end, 3) for end in wilson(row[kind], row["starts"])] for kind in kinds}


def known() -> dict[tuple[str, int, int, bool], suites.BlindRow]:
    if not RESULTS.exists():
        return {}
    fields = {field.name for field in dataclasses.fields(suites.BlindRow)}
    rows = [
        suites.BlindRow(**{name: value for name, value in row.items() if name in fields})
        for row in json.loads(RESULTS.read_text())["rows"]
    ]
    return {key(row): row for row in rows}


def save(rows: dict[tuple[str, int, int, bool], suites.BlindRow]) -> None:
    ordered = [dataclasses.asdict(rows[name]) for name in sorted(rows)]
    judged = [{**row, "wilson_95": intervals(row)} for row in ordered]
    versions = {name: version(name) for name in ("metaworld", "ogbench", "mujoco", "numpy")}
    record = {
        "command": "python benchmarks/blind_rows.py mw-50 --both; ... scene --starts 20",
        "python": platform.python_version(),
        "versions": versions,
        "seeds": {"demonstrations": "train 0 ..", "starts": "evaluation 0 .."},
        "rows": judged,
    }
    for path, content in ((RESULTS, record), (PACKAGED, ordered)):
        partial_path = path.with_suffix(".partial")
        partial_path.write_text(json.dumps(content, indent=1) + "\n")
        partial_path.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="suites or environments")
    parser.add_argument("--starts", type=int, default=30)
    parser.add_argument("--demonstrations", type=int, default=12)
    parser.add_argument("--both", action="store_true", help="without variants as well")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    rows = known()
    groups = [[name] if "/" in name else suites.suite(name) for name in options.names]
    wanted = [
        (env, options.starts, options.demonstrations, variants)
        for env in dict.fromkeys(env for group in groups for env in group)
        for variants in ((True, False) if options.both else (True,))
    ]
    missing = [cell for cell in wanted if cell not in rows]
    with ProcessPoolExecutor(options.processes) as pool:
        waiting = {pool.submit(row, *cell): cell for cell in missing}
        for done in tqdm(as_completed(waiting), total=len(missing), desc="blind rows"):
            if error := done.exception():
                print(f"{waiting[done][0]}: {error}")
                continue
            rows[waiting[done]] = done.result()
            save(rows)
    for cell in wanted:
        if cell in rows:
            found = rows[cell]
            name = f"{found.env}{' (variants)' if found.variants else ''}"
            print(f"{name:52s} mean {found.mean:3d} replay {found.replay:3d} ", end="")
            print(f"expert {found.expert:3d} of {found.starts}")


if __name__ == "__main__":
    main()
