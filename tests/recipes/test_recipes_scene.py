"""The scene's recipe fits the scene's robot, and says what is asked of it."""

from __future__ import annotations

import pytest

from wamlab.recipes import recipe
from wamlab.recipes.run import Run
from wamlab.sim.ogbench import SPACE, STATE_NAMES, VIEWS
from wamlab.sim.suites import suite


@pytest.mark.parametrize("model", ["uwm", "reactive"])
def test_the_recipe_fits_the_robot(model: str) -> None:
    run = recipe(f"scene/{model}")
    assert run.model.views == tuple(VIEWS)
    assert run.model.state_dim == len(STATE_NAMES)
    assert run.model.action_dim == SPACE.size
    assert run.model.rate_hz == SPACE.rate_hz
    assert len(suite(*run.data.envs)) == 10


def test_what_is_said_and_shifted_can_be_given() -> None:
    run = recipe("scene/reactive").vary(["rollout.sentence=swapped", "rollout.shift=light"])
    assert (run.rollout.sentence, run.rollout.shift) == ("swapped", "light")
    assert Run.from_dict(run.to_dict()) == run
    assert run.vary(["rollout.sentence=2"]).rollout.sentence == 2
    assert run.vary(["rollout.sentence=empty"]).rollout.sentence == "empty"
    with pytest.raises(TypeError, match=r"rollout\.sentence"):
        run.vary(["rollout.sentence=swap"])
    with pytest.raises(ValueError, match="'paraphrase' is a sentence, and 'swapped' another"):
        run.vary(["rollout.shift=paraphrase"])
