"""What a model reads off its own imagination, on the point environment."""

from __future__ import annotations

import numpy as np
import point_env
import pytest
import torch
from point_judge import OFFSETS, VIEWS, Reading, where
from point_model import SCALE, PointConfig, PointModel, Reactive, policy_of

from wamlab.metrics.base import compute
from wamlab.run.probe import probe
from wamlab.types import FORWARD, INVERSE, JOINT, Future, Prediction, Probe

pytestmark = pytest.mark.usefixtures("few_draws")


def run(model: PointModel, states: int = 6, samples: int = 3) -> list[Probe]:
    return probe(
        policy_of(model), "point/push", states, samples, imposed=(), worlds={},
        make=point_env.make, progress=False,
    )  # fmt: skip


class Whole(Reading, name="point_whole"):
    """Draws two ways in even steps, imagines where they lead, and reads ways off frames."""

    answers = (JOINT, INVERSE)

    def sample(self, observation, query, *, generator, **given):
        if query == INVERSE:
            return super().sample(observation, query, generator=generator, **given)
        ways = torch.stack([torch.rand(2, 2, generator=draw) - 0.5 for draw in generator])
        chunk = torch.zeros(len(ways), 8, 4)
        chunk[..., :2] = ways.repeat_interleave(4, 1)
        now = observation["image/top"].at(0).values[:, 0]
        return Prediction(action=self._stream(chunk), future=self.imagine(now, chunk))

    def imagine(self, now: torch.Tensor, chunks: torch.Tensor) -> Future:
        shots: dict[str, list[torch.Tensor]] = {f"image/{view}": [] for view in VIEWS}
        for frame, chunk in zip(now, chunks, strict=True):
            world = point_env.PointEnv("point/push", views=())
            world.hand[:2], world.block[:2] = where(frame, 0).numpy(), where(frame, 2).numpy()
            seen: dict[str, list[torch.Tensor]] = {view: [] for view in VIEWS}
            for step, action in enumerate(chunk.numpy(), 1):
                world.step(action * SCALE)
                for view in VIEWS if step in OFFSETS else ():
                    picture = torch.as_tensor(world.render_view(view).copy())
                    seen[view].append(picture.permute(2, 0, 1) / 127.5 - 1)
            for view in VIEWS:
                shots[f"image/{view}"].append(torch.stack(seen[view]))
        offsets = torch.tensor([OFFSETS] * len(chunks))
        values = {name: torch.stack(one) for name, one in shots.items()}
        return Future("pixels", "pixels", values, offsets)


def test_a_model_finds_its_action_in_what_it_imagined_and_in_what_happened() -> None:
    found = run(Whole())
    errors = [
        np.abs(read - branch.action).mean()
        for one in found
        for branch in one.of("own")
        for read in (branch.extracted, branch.reextracted)
    ]
    assert np.median(errors) < 0.03
    result = compute("action_state_consistency", found)
    assert result.interval.low > 0.4
    assert result.value == pytest.approx(result.details["ceiling"], abs=0.05)


def test_an_extraction_that_looks_at_nothing_does_not_bring_back_its_own_noise() -> None:
    """Every extraction has the same noise, and none that of a joint sample."""
    for one in run(PointModel(), 2):
        own = one.of("own")
        for branch in own:
            np.testing.assert_array_equal(branch.extracted, own[0].extracted)
            np.testing.assert_array_equal(branch.reextracted, own[0].extracted)
            assert np.abs(branch.extracted - branch.action).max() > 0.01


class Forward(PointModel, name="point_forward"):
    answers = (JOINT, FORWARD)


@pytest.mark.parametrize(
    "model", [Reactive(), Forward(), PointModel(PointConfig(offsets=(4, 8, 12)))]
)
def test_who_extracts_nothing_or_imagines_further_than_it_acts_is_not_asked(model) -> None:
    own = [branch for one in run(model, 2) for branch in one.of("own")]
    assert all(branch.extracted is branch.reextracted is None for branch in own)
