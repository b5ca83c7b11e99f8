"""What the planted models of the pusher imagine and do, computed once for all tests of them."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pusher

from wamlab.metrics.paths import Paths

SCENE = pusher.scene()


@cache
def own(model: str) -> dict[str, Paths]:
    return pusher.paths(model, pusher.acting(model, SCENE))


@cache
def forced(model: str) -> dict[str, Paths]:
    scene = pusher.acting(model, SCENE)
    return pusher.paths(model, scene, scene.imposed)


def joined(paths: dict[str, Paths]) -> Paths:
    """Both entities as one vector, as no one should."""
    robot, block = paths.values()
    names = ("start", "imagined", "executed", "reread")
    both = {
        name: np.concatenate([getattr(robot, name), getattr(block, name)], axis=-1)
        for name in names
    }
    worlds = {
        world: np.concatenate([places, block.elsewhere[world]], axis=-1)
        for world, places in robot.elsewhere.items()
    }
    return dataclasses.replace(robot, elsewhere=worlds, **both)
