"""A two-dimensional pusher with a tiny renderer, and probes of it with planted faults.

An agent (a velocity per step) pushes a disc block without inertia over the unit square; the block
is moved out of any overlap. The scripted policy goes behind the block at a random heading around
the goal direction, then pushes: from one state it has several right futures.

Probes show it in pixels, one state at a time. A `Scene` holds many states at once and no pixels;
`MODELS` are the planted models of the joint measures on states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from wamlab.metrics.coupling import Paths
from wamlab.types import Branch, Episode, Probe, Replan

SIZE = 48
STEPS = 16
OFFSETS = np.array([8, 16])
STEP_SECONDS, CONTACT, GOAL = 0.05, 0.07, np.array([0.68, 0.5])
BEHIND = 0.09
HEADINGS = (-1.2, -0.6, 0.0, 0.0, 0.0, 0.6, 1.2)
FAULTS = ("oracle", "blind", "static", "static zero", "object-blind", "optimist")


@dataclass(frozen=True)
class Path:
    """Positions of agent and block over an execution, (..., H+1, 2) each."""

    robot: np.ndarray
    block: np.ndarray


def execute(
    robot: np.ndarray, block: np.ndarray, actions: np.ndarray, gain: float = 1.0, slip: float = 1.0
) -> Path:
    """What actions (..., H, 2) do; in other worlds the agent's gain or the block's slip differ."""
    here = actions[..., 0, :].shape
    robots, blocks = [np.broadcast_to(robot, here)], [np.broadcast_to(block, here)]
    for action in np.moveaxis(actions, -2, 0):
        robot = np.clip(robots[-1] + STEP_SECONDS * gain * action, 0.05, 0.95)
        gap = blocks[-1] - robot
        apart = np.linalg.norm(gap, axis=-1, keepdims=True)
        depth = np.maximum(CONTACT - apart, 0)
        robots.append(robot)
        blocks.append(blocks[-1] + gap / np.maximum(apart, 1e-9) * (slip * depth))
    return Path(np.stack(robots, axis=-2), np.stack(blocks, axis=-2))


def policy(rng: np.random.Generator, robot: np.ndarray, block: np.ndarray) -> np.ndarray:
    toward = GOAL - block
    angle = np.arctan2(toward[1], toward[0]) + rng.choice(HEADINGS)
    heading = np.array([np.cos(angle), np.sin(angle)])
    behind, arrived, actions = block - BEHIND * heading, False, []
    for _ in range(STEPS):
        arrived = arrived or bool(np.linalg.norm(behind - robot) < 0.03)
        way = heading if arrived else behind - robot
        action = way / max(float(np.linalg.norm(way)), 0.05) + rng.normal(0, 0.1, 2)
        actions.append(action)
        robot = robot + STEP_SECONDS * action
    return np.array(actions)


def reached(block: np.ndarray) -> np.ndarray:
    return np.linalg.norm(block - GOAL, axis=-1) < 0.11


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
        "half-speed": own / 2,
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
        success=bool(reached(path.block[-1])),
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
        for label, chunk in {"unchanged": chunks[0], **imposed(chunks[0])}.items()
    ]
    elsewhere = [
        branch(
            "world",
            f"{world}: {one.label}",
            one.action,
            execute(robot, block, one.action, **physics),
        )
        for world, physics in {"gain 0.7": {"gain": 0.7}, "gain 1": {}}.items()
        for one in own + forced
    ]
    reordered = [
        branch("shuffled", one.label, chunk, execute(robot, block, chunk))
        for one in own
        for chunk in [rng.permutation(one.action)]
    ]
    unseen = [replace(one, masks={}) for one in elsewhere + reordered]
    return Probe(
        env="toy/pusher",
        instruction="push the block onto the green disc",
        seed=seed,
        step=0,
        now={"corner": render(robot, block)[None]},
        state=robot.astype(np.float32),
        branches=own + forced + unseen,
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
    success = reached(path.block[1:])
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


@dataclass(frozen=True)
class Scene:
    """N states, with K chunks of a model's own from each (N, K, H, 2)."""

    robot: np.ndarray
    block: np.ndarray
    own: np.ndarray

    @property
    def imposed(self) -> np.ndarray:
        """Five sequences by state: the first own chunk and what `imposed` makes of it."""
        first = self.own[:, 0]
        return np.stack([first, *imposed(first).values()], axis=1)

    def execute(self, actions: np.ndarray, **world: float) -> Path:
        return execute(self.robot[:, None], self.block[:, None], actions, **world)


def scene(states: int = 200, samples: int = 8, seed: int = 0, shift: float = 0.0) -> Scene:
    """Block left of the goal, agent left of the block; one state in fourteen is solved already.

    With a ``shift`` all blocks lie so much nearer to the goal, or beyond it.
    """
    rng = np.random.default_rng(seed)
    block = rng.uniform((0.37 + shift, 0.35), (0.61 + shift, 0.65), (states, 2))
    robot = block - rng.uniform((0.12, -0.08), (0.16, 0.08), (states, 2))
    return Scene(robot, block, script(rng, robot, block, samples))


def script(
    rng: np.random.Generator, robot: np.ndarray, block: np.ndarray, samples: int
) -> np.ndarray:
    """K chunks from each of N states: those of `policy`, planned without noise and with an end.

    The plan ends ahead of where the block was, 0.08 further than the goal is away.
    """
    shape = (len(block), samples)
    toward = GOAL - block
    angle = np.arctan2(toward[:, 1], toward[:, 0])[:, None] + rng.choice(HEADINGS, shape)
    heading = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    behind = block[:, None] - BEHIND * heading
    reach = np.linalg.norm(toward, axis=-1)[:, None, None] + 0.08
    ahead = block[:, None] + reach * heading
    here, plan = np.repeat(robot[:, None], samples, axis=1), []
    arrived = np.zeros((*shape, 1), bool)
    for _ in range(STEPS):
        arrived = arrived | (np.linalg.norm(behind - here, axis=-1, keepdims=True) < 0.01)
        way = np.where(arrived, ahead, behind) - here
        action = way / np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), STEP_SECONDS)
        plan.append(action)
        here = here + STEP_SECONDS * action
    return np.stack(plan, axis=2) + rng.normal(0, 0.1, (*shape, STEPS, 2))


def blind(scene: Scene, actions: np.ndarray) -> Path:
    """The future of the model's next own sample, whatever is imposed."""
    if actions is scene.own:
        return scene.execute(np.roll(actions, -1, axis=1))
    return scene.execute(np.broadcast_to(scene.own[:, 1:2], actions.shape))


def frozen(places: np.ndarray) -> np.ndarray:
    return np.broadcast_to(places[..., :1, :], places.shape)


def static(scene: Scene, actions: np.ndarray) -> Path:
    path = scene.execute(actions)
    return Path(frozen(path.robot), frozen(path.block))


def object_blind(scene: Scene, actions: np.ndarray) -> Path:
    path = scene.execute(actions)
    return Path(path.robot, frozen(path.block))


def optimist(scene: Scene, actions: np.ndarray) -> Path:
    path = scene.execute(actions)
    share = np.linspace(0, 1, STEPS + 1)[:, None]
    return Path(path.robot, (1 - share) * frozen(path.block) + share * GOAL)


def late(scene: Scene, actions: np.ndarray) -> Path:
    """Everything happens one step late."""
    path = scene.execute(actions)
    before = np.maximum(np.arange(STEPS + 1) - 1, 0)
    return Path(path.robot[..., before, :], path.block[..., before, :])


def excited(scene: Scene, actions: np.ndarray) -> Path:
    """Everything moves half as far again."""
    path = scene.execute(actions)
    return Path(*(1.5 * places - 0.5 * frozen(places) for places in (path.robot, path.block)))


def relabelled(scene: Scene, actions: np.ndarray) -> Path:
    """Right futures, each beside the action of another."""
    return scene.execute(np.roll(actions, -1, axis=1))


WORLDS = {
    "gain .7": {"gain": 0.7},
    "gain 1.3": {"gain": 1.3},
    "slip .5": {"slip": 0.5},
    "slip .25": {"slip": 0.25},
}
Model = Callable[[Scene, np.ndarray], Path]
"""What a model imagines under actions (N, M, H, 2) from the states of a scene."""
MODELS: dict[str, Model] = {
    "oracle": Scene.execute,
    "blind": blind,
    "static": static,
    "static zero": static,
    "object-blind": object_blind,
    "optimist": optimist,
    "late": late,
    "excited": excited,
    "gain .7": lambda scene, actions: scene.execute(actions, gain=0.7),
    "slip .5": lambda scene, actions: scene.execute(actions, slip=0.5),
    "one mode": Scene.execute,
    "mirrored": lambda scene, actions: scene.execute(actions * [1, -1]),
    "relabelled": relabelled,
}
OWN = {
    "static zero": lambda own: 0 * own,
    "one mode": lambda own: own[:, :1].repeat(own.shape[1], 1),
}
"""What models that do not act as the script does make of its chunks."""


def acting(model: str, scene: Scene) -> Scene:
    """The scene with the own chunks of this model."""
    return replace(scene, own=OWN[model](scene.own)) if model in OWN else scene


def paths(
    model: str, scene: Scene, actions: np.ndarray | None = None, noise: float = 0.003
) -> dict[str, Paths]:
    """The paths of both entities, imagined under actions (None: own chunks) and read with noise."""
    rng = np.random.default_rng(99)
    actions = scene.own if actions is None else actions
    elsewhere = worlds(scene, actions)
    dream, path = MODELS[model](scene, actions), scene.execute(actions)
    sides = {"robot": (dream.robot, path.robot), "block": (dream.block, path.block)}
    read = lambda places: places[..., 1:, :] + rng.normal(0, noise, (*actions.shape[:3], 2))  # noqa: E731
    return {
        entity: Paths(
            entity=entity,
            states=[str(i) for i in range(len(actions))],
            offsets=np.arange(1, STEPS + 1),
            start=happened[:, 0, 0],
            imagined=read(imagined),
            executed=happened[..., 1:, :],
            reread=read(happened),
            elsewhere={name: places[entity] for name, places in elsewhere.items()},
        )
        for entity, (imagined, happened) in sides.items()
    }


def worlds(scene: Scene, actions: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Where actions lead both entities in each other world."""
    found = {name: scene.execute(actions, **world) for name, world in WORLDS.items()}
    return {
        name: {"robot": path.robot[..., 1:, :], "block": path.block[..., 1:, :]}
        for name, path in found.items()
    }


def velocity(robot: np.ndarray) -> np.ndarray:
    """Inverse dynamics, exact in the true world: the actions between positions."""
    return np.diff(robot, axis=-2) / STEP_SECONDS
