"""Do a cascade's frozen features, and the plan made of them, know where the thing is?

    python benchmarks/plan_sight.py mw-6 --models vpp --seeds 0 1

On starts of each task, of which it is known where the thing is, its place is read by ridge
regression off all that the policy of `vpp` might see of it: the pictures, each map of the frozen
video network, the tokens of the plan, and the one vector that modulates the policy. What is written
to ``benchmarks/results/plan_sight.json`` are errors on starts that the regression never saw, in
millimetres, beside the spread of the places. What the maps know and the plan does not, the Video
Former has lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
import trained
from cells import Cell, rounded
from jaxtyping import Float
from tqdm import tqdm

from wamlab.data.logs import write_json
from wamlab.generative.noise import normal
from wamlab.models.vpp import VPP
from wamlab.policy.policy import Policy, load
from wamlab.policy.seeds import generators
from wamlab.recipes import recipe
from wamlab.recipes.work import expand
from wamlab.run.seats import make_env
from wamlab.sim.env import RawObservation, start_seed
from wamlab.train.provenance import provenance

RESULTS = Path(__file__).parent / "results" / "plan_sight.json"
ROBOT, BATCH = "robot", 25
UNSEEN, TUNED = 0.25, 0.25
"""Shares of the starts for the error, and, of the others, to choose how much is penalised."""
PENALTIES = 10.0 ** np.arange(-7, 3)

Rows = Float[np.ndarray, "n d"]


def starts(env: str, count: int) -> tuple[list[RawObservation], Rows]:
    """What is seen at training starts, and where the first thing is, in metres."""
    with closing(make_env(env)) as world:
        seen, places = [], []
        for index in tqdm(range(count), desc=env, leave=False):
            seen.append(world.reset(seed=start_seed("train", index))[0])
            things = {name: pose for name, pose in world.entities().items() if name != ROBOT}
            places.append(next(iter(things.values()))[:3])
    return seen, np.array(places)


@torch.no_grad()
def looked_at(policy: Policy, seen: Sequence[RawObservation]) -> dict[str, Rows]:
    """By name all that the policy might see the place in, one flat row for each start."""
    model = policy.model
    if not isinstance(model, VPP):
        raise TypeError(f"{policy.name} makes no plan of maps: this is about vpp")
    found: dict[str, list[Rows]] = {}
    for first in range(0, len(seen), BATCH):
        some = list(seen[first : first + BATCH])
        batch = policy.processor.normalize(policy.processor.to_batch(some).to(model.device))
        now = batch.observation()
        seeds = [*range(first, first + len(some))]
        draws = generators(seeds, len(some), 1, model.device)
        noise = normal(model._clip, draws, model.device)
        maps = model.video.foresee(noise, model._shown(now), model.config.taps)
        plan = model.planner(maps, now)
        frames = [now[name].values.flatten(1) for name in model.config.image_streams]
        every = {
            "pictures": torch.cat(frames, dim=1),
            **{f"map {name}": one for name, one in maps.items()},
            "plan": plan.tokens_BLD,
            "vector": plan.vector_BC,
        }
        for name, one in every.items():
            found.setdefault(name, []).append(one.flatten(1).double().numpy())
    return {name: np.concatenate(rows) for name, rows in found.items()}


def error(features: Rows, places: Rows, seed: int = 0) -> float:
    """The root mean square distance, in millimetres, of places read off features never seen."""
    order = np.random.default_rng(seed).permutation(len(places))
    unseen, seen = np.split(order, [int(UNSEEN * len(order))])
    tuned, fitted = np.split(seen, [int(TUNED * len(seen))])
    centred = features - features[seen].mean(axis=0)
    products = centred @ centred.T / np.square(centred[seen]).sum(axis=1).mean()

    def read(rows: np.ndarray, by: np.ndarray, penalty: float) -> Rows:
        middle = places[by].mean(axis=0)
        inner = products[np.ix_(by, by)] + penalty * np.eye(len(by))
        return middle + products[np.ix_(rows, by)] @ np.linalg.solve(inner, places[by] - middle)

    def missed(rows: np.ndarray, by: np.ndarray, penalty: float) -> float:
        return float(np.square(read(rows, by, penalty) - places[rows]).sum(axis=1).mean())

    best = min(PENALTIES, key=lambda penalty: missed(tuned, fitted, penalty))
    return 1000 * missed(unseen, seen, best) ** 0.5


def spread(places: Rows) -> float:
    """How far places lie from their middle, in millimetres."""
    return 1000 * float(np.square(places - places.mean(axis=0)).sum(axis=1).mean()) ** 0.5


def judged(policies: Mapping[str, Policy], env: str, count: int) -> dict[str, Any]:
    """One task: the spread of places, and how well each cell's features tell them."""
    seen, places = starts(env, count)
    errors = {
        name: {what: error(rows, places) for what, rows in looked_at(policy, seen).items()}
        for name, policy in policies.items()
    }
    return {"spread": spread(places), "errors": errors}


def main(words: Sequence[str] | None = None) -> None:
    parser = trained.parser(__doc__, ["vpp"])
    parser.add_argument("--starts", type=int, default=300, help="of each task")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(words)
    before, places = machine.state(), trained.places(args)

    def acting(cell: Cell) -> Policy:
        return load(places.work / cell.protocol / cell.name, "cpu")

    policies = {cell.name: acting(cell) for cell in trained.cells(args)}
    envs = expand(recipe(f"{args.protocol}/{args.models[0]}").data.envs)
    record = {
        "tasks": {env: judged(policies, env, args.starts) for env in tqdm(envs, desc="tasks")},
        "settings": {"starts": args.starts},
        "machine": before,
        "provenance": provenance(),
    }
    print(write_json(args.out, rounded(record)))


if __name__ == "__main__":
    main()
