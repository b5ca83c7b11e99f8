"""A two-dimensional pusher with a tiny renderer, and probes of it with planted faults.

An agent (a velocity per step) pushes a disc block without inertia over the unit square; the block
is moved out of any overlap. The scripted policy goes behind the block at a random heading around
the goal direction, then pushes: from one state it has several right futures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wamlab.types import Branch, Episode, Probe, Replan

SIZE = 48
STEPS = 16
OFFSETS = np.array([8, 16])
STEP_SECONDS, CONTACT, GOAL = 0.05, 0.07, np.array([0.68, 0.5])
HEADINGS = (-1.2, -0.6, 0.0, 0.0, 0.0, 0.6, 1.2)
FAULTS = ("oracle", "blind", "static", "static zero", "object-blind", "optimist")


@dataclass(frozen=True)
class Path:
    """Positions of agent and block over an execution, (H+1, 2) each."""

    robot: np.ndarray
    block: np.ndarray


def execute(robot: np.ndarray, block: np.ndarray, actions: np.ndarray) -> Path:
    robots, blocks = [robot], [block]
    for action in actions:
        robot = np.clip(robot + STEP_SECONDS * action, 0.05, 0.95)
        gap = block - robot
        apart = float(np.linalg.norm(gap))
        if apart < CONTACT:
            block = block + gap / max(apart, 1e-9) * (CONTACT - apart)
        robots.append(robot)
        blocks.append(block)
    return Path(np.array(robots), np.array(blocks))


def policy(rng: np.random.Generator, robot: np.ndarray, block: np.ndarray) -> np.ndarray:
    toward = GOAL - block
    angle = np.arctan2(toward[1], toward[0]) + rng.choice(HEADINGS)
    heading = np.array([np.cos(angle), np.sin(angle)])
    behind, arrived, actions = block - 0.09 * heading, False, []
    for _ in range(STEPS):
        arrived = arrived or bool(np.linalg.norm(behind - robot) < 0.03)
        way = heading if arrived else behind - robot
        action = way / max(float(np.linalg.norm(way)), 0.05) + rng.normal(0, 0.1, 2)
        actions.append(action)
        robot = robot + STEP_SECONDS * action
    return np.array(actions)


def disc(centre: np.ndarray, radius: float) -> np.ndarray:
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    edge = radius - np.hypot(x - centre[0], y - centre[1])
    return np.clip(edge * SIZE + 0.5, 0, 1)


def render(robot: np.ndarray, block: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    board = 0.82 + 0.05 * np.sin(9 * x) * np.cos(7 * y)
    frame = np.stack([board, 0.98 * board, 0.92 * board], axis=-1)
    layers = [(GOAL, 0.11, (0.6, 0.78, 0.62)), (block, 0.05, (0.87, 0.45, 0.2))]
    for centre, radius, colour in [*layers, (robot, 0.045, (0.16, 0.27, 0.45))]:
        alpha = disc(centre, radius)[..., None]
        frame = (1 - alpha) * frame + alpha * np.array(colour)
    return np.rint(255 * frame).astype(np.uint8)


def masks(robot: np.ndarray, block: np.ndarray) -> dict[str, np.ndarray]:
    front = disc(robot, 0.045) > 0.5
    return {"corner/robot": front, "corner/block": (disc(block, 0.05) > 0.5) & ~front}


def pose(positions: np.ndarray) -> np.ndarray:
    still = np.zeros((*positions.shape[:-1], 5))
    still[..., 1] = 1
    return np.concatenate([positions, still], axis=-1).astype(np.float32)


def imposed(own: np.ndarray) -> dict[str, np.ndarray]:
    early = (np.arange(STEPS) < STEPS // 2)[:, None]
    return {
        "zero": 0 * own,
        "mirrored": own * [1, -1],
        "truncated": own * early,
        "half speed": own / 2,
    }


def dream(fault: str, paths: list[Path], i: int) -> Path:
    """The path that a model with this fault imagines for its i-th sample."""
    path = paths[i]
    if fault == "blind":
        return paths[(i + 1) % len(paths)]
    robot, block = path.robot.copy(), path.block.copy()
    if fault.startswith("static"):
        robot[:] = robot[0]
    if fault.startswith("static") or fault == "object-blind":
        block[:] = block[0]
    if fault == "optimist":
        share = np.linspace(0, 1, STEPS + 1)[:, None]
        block = (1 - share) * block[0] + share * GOAL
    return Path(robot, block)


def branch(kind: str, label: str, actions: np.ndarray, path: Path) -> Branch:
    seen = [masks(path.robot[h], path.block[h]) for h in OFFSETS]
    return Branch(
        kind=kind,
        label=label,
        action=actions.astype(np.float32),
        offsets=OFFSETS.copy(),
        happened={"corner": np.stack([render(path.robot[h], path.block[h]) for h in OFFSETS])},
        entities={"robot": pose(path.robot), "block": pose(path.block)},
        masks={key: np.stack([one[key] for one in seen]) for key in seen[0]},
        success=bool(np.linalg.norm(path.block[-1] - GOAL) < 0.11),
        calls=4,
        ms=21.5,
    )


def probe(seed: int, fault: str = "oracle", samples: int = 4, noise: float = 1.0) -> Probe:
    """One state of the pusher, with own samples imagined under ``fault`` and imposed branches."""
    rng = np.random.default_rng(seed)
    block = np.array([rng.uniform(0.4, 0.55), rng.uniform(0.4, 0.6)])
    robot = block - [rng.uniform(0.1, 0.2), rng.uniform(-0.15, 0.15)]
    chunks = [policy(rng, robot, block) for _ in range(samples)]
    if fault == "static zero":
        chunks = [0 * chunk for chunk in chunks]
    paths = [execute(robot, block, chunk) for chunk in chunks]
    own = []
    for i, (chunk, path) in enumerate(zip(chunks, paths, strict=True)):
        guess = dream(fault, paths, i)
        frames = np.stack([render(guess.robot[h], guess.block[h]) for h in OFFSETS])
        blurred = np.clip(frames + rng.normal(0, noise, frames.shape), 0, 255).astype(np.uint8)
        own.append(branch("own", f"sample {i}", chunk, path))
        own[-1].imagined = {"corner": blurred}
    forced = [
        branch("imposed", label, chunk, execute(robot, block, chunk))
        for label, chunk in imposed(chunks[0]).items()
    ]
    return Probe(
        env="toy/pusher",
        instruction="push the block onto the green disc",
        seed=seed,
        step=0,
        now={"corner": render(robot, block)[None]},
        state=robot.astype(np.float32),
        branches=own + forced,
        masks={key: mask[None] for key, mask in masks(robot, block).items()},
        entities={"robot": pose(robot), "block": pose(block)},
        policy="pusher",
        simulator_state=np.concatenate([robot, block]),
    )


def probes(fault: str = "oracle", n: int = 24, samples: int = 4) -> list[Probe]:
    return [probe(seed, fault, samples) for seed in range(n)]


def episode(seed: int, env: str = "toy/pusher", solved: bool | None = None) -> Episode:
    """A rollout of two chunks; ``solved`` overrides what happened."""
    rng = np.random.default_rng(seed)
    block = np.array([rng.uniform(0.4, 0.55), rng.uniform(0.4, 0.6)])
    robot = block - [rng.uniform(0.1, 0.2), rng.uniform(-0.15, 0.15)]
    actions = np.concatenate([policy(rng, robot, block), np.zeros((STEPS, 2))])
    path = execute(robot, block, actions)
    success = np.linalg.norm(path.block[1:] - GOAL, axis=-1) < 0.11
    if solved is not None:
        success[:] = False
        success[20:] = solved
    frames = np.stack([render(r, b) for r, b in zip(path.robot, path.block, strict=True)])
    touching = np.linalg.norm(path.block - path.robot, axis=-1) < CONTACT + 1e-6
    return Episode(
        env=env,
        instruction="push the block onto the green disc",
        seed=seed,
        frames={"corner": frames},
        state=path.robot.astype(np.float32),
        action=actions.astype(np.float32),
        success=success,
        entities={"robot": pose(path.robot), "block": pose(path.block)},
        contacts=[[("robot", "block")] if touch else [] for touch in touching],
        columns={
            "action.expert": actions.astype(np.float32),
            "burst": np.zeros(len(actions), bool),
        },
        replans=[
            Replan(0, "start", actions[:STEPS], {"corner": frames[[8, 16]]}, OFFSETS, 0.5, 4, 20.0),
            Replan(STEPS, "chunk executed", calls=4, ms=19.0),
        ],
        policy="pusher",
        variant={"route": "left", "speed": 1.0},
    )
