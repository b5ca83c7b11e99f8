"""Pictures of a scene without its objects: does it take the object to know what is done?

What only the robot shows can be read off its motion alone, whatever becomes of the things. Where a
video is judged by the actions that are read off it, the same video without the things says how much
of the judgement was about them (`wamlab.run.turing`).
"""

from __future__ import annotations

from typing import Any, cast

from wamlab.sim.env import Env


def erase_objects(env: Env) -> Env:
    """The environment with its objects gone from its pictures, and the marks of goals with them.

    It holds until the environment is closed. Physics, entities, contacts and success are what they
    were; the objects' masks are empty, and what stood behind them is seen. The robot stays, and
    furniture that is no entity.

    Raises:
        ValueError: this environment cannot do it.
    """
    try:
        cast(Any, env).erase_objects()
    except AttributeError as error:
        raise ValueError(f"{env.name} cannot erase its objects: {error}") from error
    return env
