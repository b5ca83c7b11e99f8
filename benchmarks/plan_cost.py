"""What one plan costs each system, beside `uwm` in the same minute: network calls and milliseconds.

    python benchmarks/plan_cost.py --models uwm reactive gr1 vpp unipi

Fresh models in their `small` size take turns, one row at a time (see `latency.py`): how long a plan
takes does not depend on what was learned. Calls are counted by hooks and beside them stands what
the model declares.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import machine
from latency import fresh, percentiles, raw_observations
from synthetic import publish
from tqdm import trange

from wamlab.policy.acting import acting_query
from wamlab.policy.policy import Policy


def measured(policies: Sequence[Policy], repeats: int, warm: int) -> list[dict[str, Any]]:
    """Calls and milliseconds of each policy, which take turns."""
    asked = [raw_observations(policy, warm + repeats) for policy in policies]
    ms: list[list[float]] = [[] for _ in policies]
    calls: list[set[int]] = [set() for _ in policies]
    for index in trange(warm + repeats, desc="plans", unit="round"):
        for place, policy in enumerate(policies):
            query = acting_query(policy.model)
            start = perf_counter()
            answer = policy.query(asked[place][index], query, seed=index)
            if index >= warm:
                ms[place].append(1000 * (perf_counter() - start))
            calls[place].add(answer.cost.calls)
    return [
        {
            "model": policy.model.name,
            "query": str(acting_query(policy.model)),
            "calls": sorted(calls[place]),
            "calls_declared": policy.model.queries[acting_query(policy.model)].calls,
            "ms": percentiles(ms[place]),
        }
        for place, policy in enumerate(policies)
    ]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["uwm", "reactive", "gr1", "vpp", "unipi"])
    parser.add_argument("--size", default="small", choices=("tiny", "small"))
    parser.add_argument("--warm", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/plan_cost.json"))
    args = parser.parse_args(words)
    before = machine.state()
    policies = [fresh(name, args.size) for name in args.models]
    found = measured(policies, args.repeats, args.warm)
    publish(
        args.out, {"size": args.size, "repeats": args.repeats, "systems": found, "machine": before}
    )


if __name__ == "__main__":
    main()
