"""The control learns a policy beside a future without information, at the cost of `uwm`."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_models_uwm import make_batch

from wamlab.models.base import Refusal
from wamlab.models.uninformed import Uninformed
from wamlab.models.uwm import UWM
from wamlab.types import JOINT, POLICY, Batch

CONFIG = Uninformed.Config.tiny()
TARGETS = ["current", "other"]


def make_model(target: str) -> Uninformed:
    torch.manual_seed(0)
    return Uninformed(dataclasses.replace(CONFIG, target=target))


def losses(model: UWM, batch: Batch) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return model.loss(batch, stage="joint", step=0, generator=generator)


@pytest.mark.parametrize("target", TARGETS)
def test_the_target_is_what_its_name_says(target):
    batch = make_batch()
    seen = make_model(target).silenced(batch["image/corner"])
    now, ahead = batch["image/corner"].at(0), batch["image/corner"].at(*CONFIG.offsets)
    assert torch.equal(seen.at(0).values, now.values)
    shown = seen.at(*CONFIG.offsets).values
    for row in range(len(batch)):
        for t in range(len(CONFIG.offsets)):
            want = now.values[row, 0] if target == "current" else ahead.values[row - 1, t]
            assert torch.equal(shown[row, t], want)


def test_a_row_s_own_future_never_reaches_its_loss():
    """One row alone: whatever its future holds, losses and gradients keep their bits."""
    model = make_model("current")
    found = []
    for level in (0.5, -0.5):
        batch = make_batch(rows=1)
        for name in CONFIG.image_streams:
            batch[name].values[:, 1:] = level
        model.zero_grad()
        loss = losses(model, batch)["loss"]
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    assert all(map(torch.equal, *found))


def test_served_latents_say_no_more_than_frames():
    """With a learned codec the future comes as latents: they are silenced like frames."""
    torch.manual_seed(0)
    model = Uninformed(dataclasses.replace(CONFIG, codec="kl"))
    found = []
    for level in (0.5, -0.5):
        batch = make_batch(rows=1)
        for view in CONFIG.views:
            frames = batch[f"image/{view}"]
            codes = model.codec.encode(frames.values)
            codes[:, 1:] = level
            batch.streams[f"latent/{view}"] = dataclasses.replace(frames, values=codes)
            batch.streams[f"image/{view}"] = frames.at(0)
        found.append(losses(model, batch)["loss"].detach())
    assert torch.equal(*found)


@pytest.mark.parametrize("target", TARGETS)
def test_it_costs_what_uwm_costs(target):
    model, uwm = make_model(target), UWM(UWM.Config.tiny())
    sizes = [{name: p.shape for name, p in m.named_parameters()} for m in (model, uwm)]
    assert sizes[0] == sizes[1]
    assert set(losses(model, make_batch())) == set(losses(uwm, make_batch()))
    assert model.queries[POLICY] == uwm.queries[POLICY]


def test_an_absent_frame_is_no_target():
    batch = make_batch()
    batch["image/corner"].present[0, 1:] = False
    other = make_model("other").silenced(batch["image/corner"])
    assert other.present[:, 1:].all(1).tolist() == [True, False, True, True]


def test_it_imagines_nothing_and_serves_the_policy_alone():
    model = make_model("current")
    with pytest.raises(Refusal, match="does not answer"):
        model.answer(JOINT)
    assert [stage.roles for stage in model.stages()] == [("policy",)]
