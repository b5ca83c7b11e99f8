"""How long a command takes, as a result to keep: ``make demo``, ``make test``.

python benchmarks/timed.py demo -- make demo
python benchmarks/timed.py test -- make test
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import time
from pathlib import Path

import machine
from synthetic import publish

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="of the result")
    parser.add_argument("command", nargs="+", help="after --")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    before, start = machine.state(), time.perf_counter()
    status = subprocess.run(args.command, check=False).returncode
    found = {
        "timed": shlex.join(args.command),
        "minutes": round((time.perf_counter() - start) / 60, 2),
        "status": status,
        "machine": before,
    }
    publish(args.results / f"timed-{args.name}.json", found)


if __name__ == "__main__":
    main()
