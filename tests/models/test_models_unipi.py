"""The acceptance checks of UniPi (numbered as in its dossier) on moving blocks, and its own."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path

import moving_blocks
import pytest
import torch
from moving_blocks import COLOURS, WORDS, astray, found, r2, scene, world
from torch import Tensor

from wamlab.generative.diffusion import gaussian_denoiser
from wamlab.generative.noise import generators
from wamlab.metrics.likelihood import denoising_bound, noise_levels
from wamlab.models.base import Refusal, Sampling
from wamlab.models.reactive import Reactive
from wamlab.models.unipi import InverseDynamics, UniPi, _draw
from wamlab.nn.video import Shown
from wamlab.policy.acting import acting
from wamlab.policy.cost import count_calls
from wamlab.policy.policy import Policy
from wamlab.run.rollout import rollout
from wamlab.types import (
    ACTION,
    FORWARD,
    FUTURE,
    INVERSE,
    JOINT,
    POLICY,
    VIDEO,
    Batch,
    Future,
    Prediction,
    Query,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))

import point_env
from point_model import Worded

TOY = UniPi.Config(
    views=("top",), image_size=32, state_dim=1, action_dim=2, text_dim=4, chunk=8,
    offsets=(2, 4, 6, 8), coarse=(4, 8), rate_hz=1.0, width=48, depth=2, heads=2, paint_width=32,
    level_width=16, refine_width=32, refine_depth=1, inverse_stem=8, inverse_width=32, steps=4,
)  # fmt: skip
SIZES = {"action_dim": 2 * COLOURS, "text_dim": COLOURS + WORDS}
SCENE = dataclasses.replace(TOY, offsets=(8,), coarse=(8,), **SIZES)
CLONED = Reactive.Config(
    views=("top",), image_size=32, state_dim=1, chunk=8, rate_hz=1.0, width=64, depth=2, heads=2,
    registers=4, condition=64, level_width=16, stem_width=16, **SIZES,
)  # fmt: skip
HELD_OUT = [(0, 0), (1, 3), (4, 2)]
ROWS = 400


@pytest.fixture(scope="module")
def model() -> UniPi:
    torch.manual_seed(0)
    model = UniPi(TOY)
    for stage, steps, lr in (("plan", 250, 3e-3), ("refine", 250, 6e-3), ("inverse", 180, 3e-3)):
        moving_blocks.learn(model, stage, lambda g: world(32, g), steps, lr)
    return model.eval()


@pytest.fixture(scope="module")
def held_out() -> Batch:
    return world(ROWS, torch.Generator().manual_seed(99))


@torch.no_grad()
def draw(model: UniPi, batch: Batch, query: Query, **options: object) -> Prediction:
    return model.sample(
        batch.observation(), query, generator=generators(range(len(batch))), **options
    )


def pixels(frames: Tensor) -> Future:
    return Future("pixels", "pixels", {"image/top": frames}, None)


def recorded(batch: Batch, *offsets: int) -> Tensor:
    return batch["image/top"].at(*offsets).values


def extracted(model: UniPi, batch: Batch, frames: Tensor) -> Tensor:
    return draw(model, batch, INVERSE, future=pixels(frames)).action.values


def ground(frames: Tensor) -> Tensor:
    """The colour of the upper left corner, where no block ever is."""
    return frames[..., :4, :4].mean((-2, -1))


def test_check_1_the_inverse_dynamics_reads_the_order_of_real_frames(
    model: UniPi, held_out: Batch
) -> None:
    """Reached: 0.993 in order, -1.3 out of it; 0.16 of the usual speed between equal frames."""
    frames, true = recorded(held_out, *TOY.offsets), held_out[ACTION].values
    own = extracted(model, held_out, frames)
    mixed = extracted(model, held_out, frames[:, [2, 0, 3, 1]])
    still = extracted(model, held_out, recorded(held_out, 0, 0, 0, 0))
    assert r2(own.flatten(1), true.flatten(1)) > 0.95
    assert r2(mixed.flatten(1), true.flatten(1)) < 0.2
    assert still.abs().mean() < 0.25 * true.abs().mean()


def test_check_2_the_frames_that_are_shown_decide_what_is_imagined(
    model: UniPi, held_out: Batch
) -> None:
    """What is learned: the sampler starts about the same first frame, shown or not.

    Reached: an error of 0.013 where it is shown beside the noise, of 0.040 where that is zeroed
    (the unmoved frame's) and 0.063 where it is another row's; the block 1.0 and 4.2 pixels off.
    """
    batch = held_out.select(range(64))
    noise = torch.randn(64, 1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shown, true = model._planned(batch), recorded(batch, *TOY.coarse)

    def off(frames: Tensor) -> tuple[float, float]:
        told = shown._replace(frames_BVTCHW=frames)
        with torch.no_grad():
            clip = _draw(model.plan, told, told, Sampling(TOY.steps), noise)[:, 0]
        apart = (found(clip) - batch["place"].at(*TOY.coarse).values).norm(dim=-1)
        return float((clip - true).square().mean()), float(apart.mean())

    frames = shown.frames_BVTCHW
    own, zeroed, other = off(frames), off(torch.zeros_like(frames)), off(frames.roll(1, 0))
    assert zeroed[0] > 2 * own[0]
    assert zeroed[1] > 2 * own[1]
    assert other[0] > 2 * own[0]


def test_check_2_the_first_frame_decides_the_ground_of_what_is_imagined(
    model: UniPi, held_out: Batch
) -> None:
    """By construction: a clip is drawn about its first frame, by an untrained network too.

    Reached: 0.005 from the first frame; 0.154 where it is zeroed, and where it is unknown.
    """
    batch = held_out.select(range(64))
    now = recorded(batch, 0)[:, 0]

    def imagined(frames: Tensor, present: bool = True) -> Tensor:
        seen = held_out.select(range(64)).observation()
        seen["image/top"].values[:, 0], seen["image/top"].present[:] = frames, present
        return draw(model, seen, VIDEO).future.values["image/top"]

    own, zeroed = imagined(now), imagined(torch.zeros_like(now))
    unknown = imagined(now, present=False)
    errors = [float((clip[:, 0] - now).square().mean()) for clip in (own, zeroed, unknown)]
    assert errors[1] > 5 * errors[0]
    assert errors[2] > 5 * errors[0]
    rolled = imagined(now.roll(1, 0))
    torch.testing.assert_close(ground(rolled)[:, 0], ground(now.roll(1, 0)), atol=0.1, rtol=0)
    assert not torch.allclose(ground(rolled)[:, 0], ground(now), atol=0.1, rtol=0)


def test_check_3_the_first_frame_is_tiled_beside_every_frame(model: UniPi, held_out: Batch) -> None:
    """What the network draws, without the centre, changes at the instant whose copy is zeroed.

    Reached: by 0.43 there, and by 0.05 at the other instant.
    """
    batch = held_out.select(range(16))
    noise = torch.randn(16, 1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shown = model._planned(batch)
    assert torch.equal(shown.frames_BVTCHW[:, :, 0], shown.frames_BVTCHW[:, :, 1])

    def drawn(shown: Shown) -> Tensor:
        with torch.no_grad():
            return model.plan.foresee(noise, shown, ("drawn",))["drawn"]

    cut = shown.frames_BVTCHW.clone()
    cut[:, :, -1] = 0
    change = (drawn(shown) - drawn(shown._replace(frames_BVTCHW=cut))).abs().mean((0, 1, 3, 4, 5))
    assert change[-1] > 0.05


def test_check_4_the_fine_clip_keeps_the_coarse_frames_and_beats_linear_interpolation(
    model: UniPi, held_out: Batch
) -> None:
    """Reached: an error of 0.0024 between the coarse frames, linearly 0.0044; 1e-5 at them."""
    coarse, shape = recorded(held_out, *TOY.coarse)[:, None], model._shape(TOY.offsets)
    shown = model._refined(held_out, coarse)
    noise = torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        fine = _draw(model.refine, shown, shown, Sampling(3), noise)[:, 0]
    true, linear = recorded(held_out, *TOY.offsets), shown.centre_BVTCHW[:, 0]
    odd, even = [0, 2], [1, 3]
    error, rival = ((x - true)[:, odd].square().mean() for x in (fine, linear))
    kept = (fine - true)[:, even].square().mean()
    assert torch.equal(linear[:, even], true[:, even])
    assert kept < 1e-3
    assert error < 0.95 * rival


@pytest.mark.slow
def test_check_5_pairs_of_words_that_were_heard_are_acted_on_and_unheard_ones_by_no_one() -> None:
    """The compositional half of the check is not shown at this size: no unheard pair is solved.

    On heard pairs plan and clone both come near; on unheard ones both go further astray than who
    stays (6.0). That held for a planner of 400 steps too, guided or not (6.6 to 7.1). It takes the
    block that is named from its place there, and does not draw it where it is told to go. On the
    day that it does, this test fails.

    Reached, in pixels astray: 2.8 on heard pairs (cloning 1.9), 8.7 on unheard ones (cloning 8.5);
    the error of the frames on unheard ones is 0.75 of the unmoved frame's.
    """
    every = [(colour, word) for colour in range(COLOURS) for word in range(WORDS)]
    told = [pair for pair in every if pair not in HELD_OUT]
    torch.manual_seed(0)
    model, cloned = UniPi(SCENE), Reactive(CLONED)
    moving_blocks.learn(model, "plan", lambda g: scene(32, g, told), 220, 1e-2)
    moving_blocks.learn(model, "inverse", lambda g: scene(32, g), 250, 6e-3)
    moving_blocks.learn(cloned, "policy", lambda g: scene(32, g, told), 220, 6e-3)
    seen, new = (scene(200, torch.Generator().manual_seed(5), cells) for cells in (told, HELD_OUT))
    plan_seen, plan_new, clone_seen, clone_new = (
        astray(batch, draw(one.eval(), batch, POLICY).action.values)
        for one in (model, cloned)
        for batch in (seen, new)
    )
    still = float(astray(seen, torch.zeros_like(seen[ACTION].values)).mean())
    assert still == pytest.approx(moving_blocks.SCENE_SPEED * TOY.chunk)
    assert plan_seen.mean() < still - 2
    assert clone_seen.mean() < still - 2
    for unheard in (plan_new, clone_new):
        assert unheard.mean() > still
        assert float((unheard < 2).float().mean()) < 0.3

    clip = draw(model, new, VIDEO).future.values["image/top"]
    true, unmoved = recorded(new, 8), recorded(new, 0)
    assert (clip - true).square().mean() < 0.9 * (unmoved - true).square().mean()


def test_a_joint_draw_is_one_draw_its_action_is_read_off_its_clip(
    model: UniPi, held_out: Batch
) -> None:
    batch = held_out.select(range(32))
    assert model.queries[JOINT].coupling == "one draw"
    joint, policy, video = (draw(model, batch, query) for query in (JOINT, POLICY, VIDEO))
    clip = joint.future.values["image/top"]
    torch.testing.assert_close(extracted(model, batch, clip), joint.action.values)
    torch.testing.assert_close(policy.action.values, joint.action.values)
    torch.testing.assert_close(video.future.values["image/top"], clip)


def test_it_acts_as_told_by_what_it_imagines(model: UniPi, held_out: Batch) -> None:
    """Reached: 0.96 of the places, and every chunk goes the way that was told."""
    joint = draw(model, held_out, JOINT)
    seen = found(joint.future.values["image/top"]).flatten(1)
    there = r2(seen, held_out["place"].at(*TOY.offsets).values.flatten(1))
    chunk = (joint.action.values * held_out[ACTION].values).sum(-1).mean(1)
    assert there > 0.8
    assert float((chunk > 0).float().mean()) > 0.9


def test_calls_are_counted_by_hooks_as_they_are_declared(model: UniPi, held_out: Batch) -> None:
    batch = held_out.select(range(2))
    for query in (POLICY, VIDEO, JOINT):
        with count_calls(model) as cost:
            draw(model, batch, query)
        assert cost.calls == model.queries[query].calls
    with count_calls(model) as cost:
        draw(model, batch, POLICY, sampler={FUTURE: Sampling(2, guidance=2.0)})
    assert cost.calls == 2 * (2 + TOY.refine_steps) + 1


def test_guidance_drops_text_and_first_frame_together(model: UniPi, held_out: Batch) -> None:
    batch = held_out.select(range(4))
    null = model._planned(batch, torch.zeros(4, dtype=torch.bool))
    assert not null.heard_BL.any()
    assert not null.known_BV.any()
    assert not null.frames_BVTCHW.any()
    plain = draw(model, batch, VIDEO).future.values["image/top"]
    guided = draw(model, batch, VIDEO, sampler={FUTURE: Sampling(4, guidance=1.5)}).future
    assert not torch.allclose(guided.values["image/top"], plain)


def test_a_number_of_steps_leaves_the_guidance_alone(model: UniPi, held_out: Batch) -> None:
    batch = held_out.select(range(4))
    guided = UniPi(dataclasses.replace(TOY, guidance=1.5)).eval()
    guided.load_state_dict(model.state_dict())
    own, named = (
        draw(guided, batch, JOINT, sampler=how) for how in (None, {FUTURE: Sampling(TOY.steps)})
    )
    assert torch.equal(own.action.values, named.action.values)
    assert torch.equal(own.future.values["image/top"], named.future.values["image/top"])
    assert own.cost.calls == named.cost.calls == guided.queries[JOINT].calls
    plain = draw(guided, batch, JOINT, sampler={FUTURE: Sampling(TOY.steps, guidance=1.0)})
    assert not torch.equal(plain.action.values, own.action.values)


@pytest.mark.parametrize("reach", [0, 1, 2])
@torch.no_grad()
def test_an_inverse_step_reads_the_steps_beside_it_as_far_as_it_reaches(reach: int) -> None:
    config = dataclasses.replace(TOY, inverse_reach=reach)
    inverse, clip = InverseDynamics(config), torch.randn(2, 1, 5, 3, 32, 32)
    present = torch.ones(2, 1, 5, dtype=torch.bool)
    own = inverse(clip, present)
    clip[:, :, -1] += 1
    steps = (inverse(clip, present) - own).abs().unflatten(1, (4, 2)).amax((0, 2, 3))
    assert (steps > 0).tolist() == [step >= 3 - reach for step in range(4)]


def test_the_inverse_dynamics_alone_learns_from_actions_and_hears_no_word(
    held_out: Batch,
) -> None:
    model, batch = UniPi(TOY), held_out.select(range(8))
    stages = {stage.name: stage for stage in model.stages()}
    assert [ACTION in stage.window.streams for stage in stages.values()] == [False, False, True]
    assert stages["inverse"].roles == ("inverse",)
    assert {flow.source for flow in model.flows(INVERSE)} == {"image/top", FUTURE}
    batch.role[:, :3] = False
    losses = [
        model.loss(batch, stage=name, step=0, generator=torch.Generator())["loss"]
        for name in stages
    ]
    assert losses[0] > 0 < losses[1]
    assert losses[2] == 0


@torch.no_grad()
def test_its_likelihood_is_the_planned_clip_s_and_given_it_that_of_what_lies_between() -> None:
    """Sparse frames normal about the first, the others about their middle; exact denoisers."""
    model, batch = UniPi(TOY), world(8, torch.Generator().manual_seed(0))
    generator, stream = torch.Generator().manual_seed(1), batch["image/top"]
    first, size = stream.values[:, 0], stream.values[:, 0].shape
    noise = {k: torch.randn(size, generator=generator) for k in TOY.offsets}
    frames = {0: first, 4: first + 0.1 + 0.3 * noise[4], 8: first + 0.1 + 0.3 * noise[8]}
    for k in (2, 6):
        frames[k] = (frames[k - 2] + frames[k + 2]) / 2 + 0.2 * noise[k]
    stream.values[:] = torch.stack([frames[k] for k in (0, *TOY.offsets)], 1)
    stream.values[5, -1], stream.present[5, -1] = torch.nan, False  # a sparse frame

    def best(mean: float, std: float) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
        return lambda x, sigma, *_: (gaussian_denoiser(x, float(sigma[0]), mean, std), {})

    model.plan._change, model.refine._change = best(0.1, 0.3), best(0.0, 0.2)
    levels, seeds = torch.from_numpy(noise_levels(32)), generators(range(8))
    found = model.likelihood(batch, VIDEO, levels=levels, generator=seeds)

    frame = first[0].numel()
    assert found.dims.tolist() == [4 * frame] * 5 + [2 * frame] + [4 * frame] * 2
    # A density of the noise, and the logarithm of how far it is spread.
    nats = {k: 0.5 * noise[k].square() + 0.5 * math.log(2 * math.pi) for k in TOY.offsets}
    nats = {k: one + math.log(0.3 if k in TOY.coarse else 0.2) for k, one in nats.items()}
    true = {k: one.flatten(1).sum(1) for k, one in nats.items()}
    wanted = sum(true.values())
    wanted[5] = true[2][5] + true[4][5]
    gap = (torch.from_numpy(denoising_bound(found)) - wanted) / found.dims
    assert gap.abs().max() < 0.02
    for query in (POLICY, JOINT, INVERSE):
        with pytest.raises(Refusal, match=f"no likelihood of {query}: its actions are regressed"):
            model.likelihood(batch, query, levels=levels, generator=seeds)


def test_rows_that_may_not_teach_the_video_leave_the_plan_alone(held_out: Batch) -> None:
    """A push teaches how frames lie between others and what was done, but not what to plan."""
    model = UniPi(TOY)
    with torch.no_grad():
        model.plan.network.draw.weight.normal_(std=0.05)
    roles = {stage.name: stage.roles for stage in model.stages()}
    assert roles["plan"] == ("video",)
    assert {"forward", "inverse"} <= {*roles["refine"]}

    def gradient(stage: str, pushed: float) -> Tensor:
        batch = world(8, torch.Generator().manual_seed(0))
        batch.role[:4, [0, 3]] = False
        batch["image/top"].values[:4, 1:] += pushed
        generator = torch.Generator().manual_seed(0)
        loss = model.loss(batch, stage=stage, step=0, generator=generator)["loss"]
        own = [p for name, p in model.named_parameters() if name.startswith(stage)]
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, own)])

    assert torch.equal(gradient("plan", 0.0), gradient("plan", 0.3))
    assert gradient("plan", 0.0).any()
    for stage in ("refine", "inverse"):
        assert not torch.equal(gradient(stage, 0.0), gradient(stage, 0.3))


def test_a_frame_without_a_coarse_neighbour_does_not_teach_the_refiner(held_out: Batch) -> None:
    model = UniPi(TOY)

    def loss(there: float) -> Tensor:
        batch = world(4, torch.Generator().manual_seed(0))
        stream = batch["image/top"]
        stream.values[:, 4], stream.present[:, 4] = there, False  # the end of the clip
        stream.values[:, 3] += there  # between the coarse frames, of which the second is absent
        batch = dataclasses.replace(batch, streams={**batch.streams, "image/top": stream})
        generator = torch.Generator().manual_seed(0)
        return model.loss(batch, stage="refine", step=0, generator=generator)["loss"]

    torch.testing.assert_close(loss(0.0), loss(0.3), rtol=0.02, atol=1e-4)


@pytest.mark.parametrize(("execute_steps", "replans"), [(None, [0, 8, 16]), (4, [0, 4, 8, 12, 16])])
def test_it_is_executed_open_loop_or_with_a_receding_horizon(
    execute_steps: int | None, replans: list[int]
) -> None:
    config = dataclasses.replace(
        UniPi.Config.tiny(), views=("top", "side"), image_size=16, text_dim=4, rate_hz=10.0
    )
    policy = Policy(UniPi(config), Worded(), point_env.SPACE)
    agent = acting(policy, execute_steps=execute_steps)
    agent.query = JOINT
    (episode,) = rollout(agent, "point/push", 1, max_steps=18, make=point_env.make, progress=False)
    assert [replan.step for replan in episode.replans] == replans
    assert all(replan.imagined["top"].shape == (4, 16, 16, 3) for replan in episode.replans)
    assert all(replan.calls == policy.model.queries[JOINT].calls for replan in episode.replans)


def test_bad_requests_and_instants_are_named(held_out: Batch) -> None:
    model, batch = UniPi(TOY), held_out.select(range(2))
    with pytest.raises(Refusal, match="unipi does not answer FORWARD"):
        draw(model, batch, FORWARD)
    with pytest.raises(ValueError, match="no future in pixels"):
        draw(model, batch, INVERSE)
    with pytest.raises(ValueError, match="has 2 instants, expected 4"):
        extracted(model, batch, recorded(batch, 4, 8))
    with pytest.raises(Refusal, match="unipi does not sample 'action' step by step"):
        draw(model, batch, JOINT, sampler={ACTION: Sampling(2)})
    with pytest.raises(Refusal, match="'future' of unipi cannot wait"):
        draw(model, batch, JOINT, sampler={FUTURE: Sampling(2, wait=1)})
    for offsets in ((), (2, 4, 8)):
        with pytest.raises(ValueError, match="do not divide a chunk of 8"):
            UniPi(dataclasses.replace(TOY, offsets=offsets))
    with pytest.raises(ValueError, match="do not divide a chunk of 9"):
        UniPi(dataclasses.replace(TOY, chunk=9, offsets=(4, 8), coarse=(8,)))
    with pytest.raises(ValueError, match="must be among the offsets"):
        UniPi(dataclasses.replace(TOY, coarse=(4,)))
