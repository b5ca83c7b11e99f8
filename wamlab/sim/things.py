"""The things of a scene put where they were at another time, while the robot stays.

Where a robot acts, its hand and the things move together: who has seen nothing else may take the
one for the other. A reader of frames is taught with scenes in which they do not
(`wamlab.run.reader`).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from jaxtyping import Float

from wamlab.sim.env import Env


def put_things(env: Env, state: Float[np.ndarray, " q"]) -> None:
    """Everything but the robot is as in ``state``, of the same episode; success is judged anew.

    It is a scene to be looked at and not one to act on from: a thing may hang in the air, or in the
    robot. The next restored state mends it.

    Raises:
        ValueError: this environment cannot do it, or the state is of another task.
    """
    try:
        put = cast(Any, env).put_things
    except AttributeError as error:
        raise ValueError(
            f"{env.name} cannot put its things elsewhere: {error}; who has only seen them move "
            "with the robot cannot be trusted to tell them from it"
        ) from error
    put(state)
