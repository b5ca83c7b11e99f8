"""The acceptance checks of GR-1 (numbered as in its dossier), and what is this file's own."""

from __future__ import annotations

import dataclasses
from itertools import count

import pytest
import torch
from torch import Tensor

from wamlab.generative.noise import generators
from wamlab.models.base import Refusal, Sampling
from wamlab.models.gr1 import ACT, CONTEXT, GR1, OBS, Eye, normalised, patches, visibility
from wamlab.nn.audit import stirred
from wamlab.nn.calls import record_calls
from wamlab.policy.cost import count_calls
from wamlab.train.conformance import check_model
from wamlab.train.synthetic import fixed_batch
from wamlab.types import (
    ACTION,
    FORWARD,
    JOINT,
    POLICY,
    ROLES,
    STATE,
    VIDEO,
    Batch,
    Prediction,
    Query,
)

CONFIG = GR1.Config.tiny()
EVERY = tuple(range(CONFIG.history))
LAST = EVERY[-1]
AFTER_ALL = dataclasses.replace(CONFIG, imagined=CONFIG.history)


def make_model(config: GR1.Config = CONFIG) -> GR1:
    """A model whose zero-initialised layers were moved, so that every path carries something."""
    torch.manual_seed(0)
    return stirred(GR1(config))


def make_batch(config: GR1.Config = CONFIG) -> Batch:
    return fixed_batch(config, GR1(config).stages()[0].window)


def losses_of(model: GR1, batch: Batch, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return model.loss(batch, stage="joint", step=0, generator=generator)


def ask(model: GR1, batch: Batch, query: Query, **options: object) -> Prediction:
    seeds = generators(range(len(batch)))
    with torch.no_grad():
        return model.sample(batch.observation(), query, generator=seeds, **options)


@torch.no_grad()
def read(model: GR1, batch: Batch, act: tuple = EVERY, obs: tuple = EVERY) -> tuple[Tensor, Tensor]:
    """Action chunks (B, T, H, A) and what the [OBS] read (B, T, L, D), of the asked steps."""
    past = model.look(batch)
    act_BTD, obs_BTLD = model.network(past.tokens_BTSD, past.present_BTS, act=act, obs=obs)
    return model.read_action(act_BTD), obs_BTLD


def closest(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max())


def test_it_keeps_the_contract() -> None:
    assert check_model(GR1) == []


def test_check_1_action_and_future_never_see_each_other() -> None:
    model, batch = make_model(), make_batch()
    action, future = read(model, batch)
    assert closest(action, read(model, batch, obs=())[0]) < 1e-6
    assert closest(future, read(model, batch, act=())[1]) < 1e-6

    noisy = make_model()
    noisy.network.obs.data.normal_()
    assert closest(action, read(noisy, batch)[0]) < 1e-6
    assert closest(future, read(noisy, batch)[1]) > 1e-3
    noisy = make_model()
    noisy.network.act.data.normal_()
    assert closest(future, read(noisy, batch)[1]) < 1e-6
    assert closest(action, read(noisy, batch)[0]) > 1e-3


def test_check_1_nobody_reads_a_query_not_even_itself() -> None:
    graph = visibility(3, 8, EVERY, 4, EVERY)
    mask = graph.mask()
    for name in (ACT, OBS):
        assert not mask[:, graph.positions(name)].any()
        assert mask[graph.positions(name)].any(1).all()
    assert not graph.reaches(OBS, ACT, 12)
    assert not graph.reaches(ACT, OBS, 12)
    assert not graph.reaches(CONTEXT, ACT, 12, source_chunk=2, target_chunk=1)
    assert graph.reaches(CONTEXT, ACT, 1, source_chunk=0, target_chunk=2)


def test_check_1_a_joint_answer_is_the_policy_s_beside_the_video_s() -> None:
    model, batch = make_model(), make_batch()
    joint = ask(model, batch, JOINT)
    assert closest(joint.action.values, ask(model, batch, POLICY).action.values) < 1e-6
    for name, frames in ask(model, batch, VIDEO).future.values.items():
        assert closest(joint.future.values[name], frames) < 1e-6


@pytest.mark.parametrize("step", EVERY[1:])
@pytest.mark.parametrize("name", [*CONFIG.image_streams, STATE])
def test_check_2_a_step_changes_nothing_at_earlier_steps(step: int, name: str) -> None:
    model, batch = make_model(), make_batch()
    before = read(model, batch)
    offsets = batch[name].offsets[0].tolist()
    batch[name].values[:, offsets.index(CONFIG.steps[step])] += 0.5
    for one, other in zip(before, read(model, batch), strict=True):
        assert torch.equal(one[:, :step], other[:, :step])
        for later in EVERY[step:]:
            assert closest(one[:, later], other[:, later]) > 1e-5


def test_check_3_action_free_rows_teach_trunk_and_pictures_but_no_action() -> None:
    def gradients(poison: float) -> dict[str, Tensor]:
        model, batch = make_model(), make_batch()
        for name in (STATE, ACTION):
            batch[name].values[:] = poison
            batch[name].present[:] = False
        batch.role[:] = torch.tensor([role == "video" for role in ROLES])
        losses = losses_of(model, batch)
        assert float(losses["action"].detach()) == 0
        losses["loss"].backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    found, poisoned = gradients(0.0), gradients(float("nan"))
    assert all(torch.equal(found[name], poisoned[name]) for name in found)
    acting = [n for n in found if n == "network.act" or n.startswith("read_action.")]
    assert len(acting) == 1 + 2 * 3
    assert not any(found[name].any() for name in acting)
    assert not found["embed_state.weight"].any()
    for part in ("network.layers.0.qkv.weight", "network.obs", "decoder.draw.weight"):
        assert found[part].any()


def test_rows_of_pushes_and_failures_teach_neither_actions_nor_pictures() -> None:
    """Rows alone: a row that may teach keeps the pushes of its past steps among its targets."""
    model, batch = make_model(), make_batch()
    (stage,) = model.stages()
    assert set(stage.roles) == {"policy", "video"}
    batch.role[:] = torch.tensor([role in ("forward", "inverse") for role in ROLES])
    assert all(float(loss.detach()) == 0 for loss in losses_of(model, batch).values())


def clip_of(start: int) -> Batch:
    """The window of a film whose frame at every tick is its own, cut out ``start`` ticks later."""
    batch = make_batch()
    for name in CONFIG.image_streams:
        for column, offset in enumerate(batch[name].offsets[0].tolist()):
            film = torch.Generator().manual_seed(1000 + start + offset)
            batch[name].values[:, column] = torch.rand(4, 3, 32, 32, generator=film)
    return batch


def test_check_4_targets_are_the_frames_after_each_step() -> None:
    model, batch = make_model(AFTER_ALL), clip_of(0)
    frames, taught = model._futures(batch, model.look(batch), EVERY)
    assert taught.all()
    for t, step in enumerate(CONFIG.steps):
        for k, offset in enumerate(CONFIG.offsets):
            for v, name in enumerate(CONFIG.image_streams):
                wanted = batch[name].at(step + offset).values[:, 0]
                assert torch.equal(frames[:, t, v, k], wanted)

    rolled, _ = model._futures(clip_of(CONFIG.stride), model.look(batch), EVERY)
    assert torch.equal(rolled[:, :-1], frames[:, 1:])
    assert not torch.equal(rolled[:, -1], frames[:, -1])


def test_check_4_targets_have_mean_0_and_variance_1_in_each_patch() -> None:
    patch, statistics = normalised(patches(torch.rand(2, 3, 32, 32), 8))
    assert patch.shape == (2, 16, 192)
    torch.testing.assert_close(patch.mean(-1), torch.zeros(2, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(patch.var(-1, correction=0), torch.ones(2, 16), atol=1e-3, rtol=0)
    whole = torch.rand(2, 3, 8, 8)
    statistics = normalised(patches(whole, 8))[1][:, 0]
    torch.testing.assert_close(statistics[:, 0], whole.mean((1, 2, 3)))
    spread = whole.flatten(1).std(-1, correction=0)
    torch.testing.assert_close(statistics[:, 1], spread, atol=1e-4, rtol=0)


def test_check_4_steps_without_a_frame_ahead_have_no_target_and_no_loss() -> None:
    model, batch = make_model(AFTER_ALL), make_batch()
    for name in CONFIG.image_streams:
        batch[name].present[batch[name].offsets > 0] = False
    _, taught = model._futures(batch, model.look(batch), EVERY)
    # Steps are 4 ticks apart and look 4 and 8 ticks ahead.
    ahead = torch.tensor([[True, True], [True, False], [False, False]])
    assert torch.equal(taught, ahead[None, :, None].expand(4, -1, 2, -1))

    losses = []
    for poison in (0.0, float("nan")):
        for name in CONFIG.image_streams:
            batch[name].values[batch[name].offsets > 0] = poison
        losses.append(losses_of(model, batch))
    assert all(torch.equal(losses[0][key], losses[1][key]) for key in losses[0])


def test_check_5_the_instruction_is_repeated_at_every_step() -> None:
    model, batch = make_model(), make_batch()
    past = model.look(batch)
    assert past.present_BTS[:, :, 0].all()
    silenced = past.tokens_BTSD.clone()
    silenced[:, 1:, 0] = 0
    answers = [
        model.network(tokens, past.present_BTS, act=(LAST,), obs=(LAST,))
        for tokens in (past.tokens_BTSD, silenced)
    ]
    for one, other in zip(*answers, strict=True):
        assert closest(one, other) > 1e-3


def test_imagining_after_one_step_is_an_unbiased_estimate_of_all() -> None:
    batch, whole, part = make_batch(), make_model(AFTER_ALL), make_model()
    seeds = {}
    for seed in count():
        order = torch.randperm(3, generator=torch.Generator().manual_seed(seed))
        seeds.setdefault(int(order[0]), seed)
        if len(seeds) == 3:
            break
    every = losses_of(whole, batch)
    single = [losses_of(part, batch, seed) for seed in seeds.values()]
    for name in ("future", "statistics", "loss"):
        mean = sum(one[name] for one in single) / 3
        torch.testing.assert_close(mean, every[name])
    assert not torch.equal(single[0]["future"], single[1]["future"])
    torch.testing.assert_close(single[0]["action"], every["action"])


@pytest.mark.parametrize("there", [True, False])
def test_missing_history_is_never_read_and_teaches_nothing(there: bool) -> None:
    model, batch = make_model(), make_batch()
    for name in (*CONFIG.image_streams, STATE):
        batch[name].present[:, batch[name].offsets[0] < 0] = there
    answers = [ask(model, batch, JOINT)]
    for name in (*CONFIG.image_streams, STATE):
        batch[name].values[:, batch[name].offsets[0] < 0] = 0.9 if there else float("nan")
    answers.append(ask(model, batch, JOINT))
    actions = [answer.action.values for answer in answers]
    frames = [answer.future.values["image/gripper"] for answer in answers]
    assert torch.equal(*actions) == torch.equal(*frames) == (not there)

    past = model.look(batch)
    assert past.seen_BT.tolist() == [[there, there, True]] * 4
    _, taught_BTH = model._chunks(batch, past)
    assert batch[ACTION].present.all()
    assert torch.equal(taught_BTH, past.seen_BT[..., None].expand(-1, -1, CONFIG.chunk))


def test_a_chunk_begins_at_its_step() -> None:
    model, batch = make_model(), make_batch()
    chunks, _ = model._chunks(batch, model.look(batch))
    for step, chunk in zip(CONFIG.steps, chunks.unbind(1), strict=True):
        ticks = range(step, step + CONFIG.chunk)
        assert torch.equal(chunk, batch[ACTION].at(*ticks).values)


@pytest.mark.parametrize(("query", "asked"), [(POLICY, 1), (VIDEO, 4), (JOINT, 5)], ids=str)
def test_an_answer_is_one_call_over_the_context_and_what_was_asked(
    query: Query, asked: int
) -> None:
    model, batch = make_model(), make_batch()
    context = CONFIG.history * (2 + 2 * (CONFIG.latents + 1))
    with (
        count_calls(model) as cost,
        record_calls(model.decoder) as drawn,
        record_calls(model.network.layers[0]) as trunk,
    ):
        answer = ask(model, batch, query)
    assert cost.calls == answer.cost.calls == model.queries[query].calls == 1
    assert len(drawn) == (query != POLICY)
    assert [call["x_BLD"].shape[1] for call in trunk.calls] == [context + asked]


def test_the_pixels_of_true_patches_and_statistics_are_the_frames() -> None:
    model, frames = make_model(), torch.rand(3, 2, 2, 3, 32, 32) * 2 - 1
    future = model._pixels(*normalised(patches(frames, CONFIG.patch)))
    assert future.offsets.tolist() == [list(CONFIG.offsets)] * 3
    for view, name in enumerate(CONFIG.image_streams):
        torch.testing.assert_close(future.values[name], frames[:, view], atol=1e-5, rtol=0)


def test_a_new_model_imagines_patches_as_bright_as_now() -> None:
    torch.manual_seed(0)
    model, batch = GR1(CONFIG), make_batch()
    past = model.look(batch)
    _, obs_BTLD = model.network(past.tokens_BTSD, past.present_BTS, obs=EVERY)
    _, told = model._draw(obs_BTLD, past.frames_BTVCHW)
    now = normalised(patches(past.frames_BTVCHW, CONFIG.patch))[1]
    assert torch.equal(told, now[:, :, :, None].expand_as(told))


def test_decoded_futures_are_pixels_in_range() -> None:
    model, batch = make_model(), make_batch()
    future = ask(model, batch, VIDEO).future
    future.values = {name: 10 * value for name, value in future.values.items()}
    shown = model.decode(future)
    assert set(shown) == set(CONFIG.image_streams)
    assert all(frames.abs().max() == 1 for frames in shown.values())


@pytest.mark.parametrize("encoder", ["trained", "frozen"])
def test_both_encoders_learn_where_a_thing_is(encoder: str) -> None:
    torch.manual_seed(0)
    eye = Eye(dataclasses.replace(CONFIG, encoder=encoder, stem_width=16))
    read = torch.nn.Linear((CONFIG.latents + 1) * CONFIG.width, 2)
    before = {n: p.clone() for n, p in eye.named_parameters() if n.startswith(("near.", "far."))}
    learnable = [p for p in (*eye.parameters(), *read.parameters()) if p.requires_grad]
    optimizer = torch.optim.Adam(learnable, lr=3e-3)
    errors = []
    for _ in range(150):
        corner = torch.randint(0, 28, (32, 2))
        frames = torch.zeros(32, 3, 32, 32)
        for frame, (y, x) in zip(frames, corner, strict=True):
            frame[0, y : y + 4, x : x + 4] = 1
        target = corner / 14 - 1
        error = (read(eye(frames).flatten(1)) - target).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert sum(errors[-20:]) / 20 < 0.1 * target.var()
    now = dict(eye.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], now[name])}
    assert moved == (set(before) if encoder == "trained" else set())


def test_a_frozen_encoder_keeps_the_contract() -> None:
    assert check_model(GR1, dataclasses.replace(CONFIG, encoder="frozen")) == []


def test_committed_actions_begin_the_chunk() -> None:
    model, batch = make_model(), make_batch()
    prefix, free = batch[ACTION].at(0, 1, 2), ask(model, batch, POLICY)
    chunk = ask(model, batch, POLICY, prefix=prefix).action.values
    assert torch.equal(chunk[:, :3], prefix.values)
    assert torch.equal(chunk[:, 3:], free.action.values[:, 3:])


def test_bad_requests_are_named() -> None:
    model, batch = make_model(), make_batch()
    with pytest.raises(Refusal, match="gr1 does not answer FORWARD; it answers POLICY, VIDEO"):
        ask(model, batch, FORWARD)
    with pytest.raises(Refusal, match="gr1 does not sample 'action' step by step"):
        ask(model, batch, POLICY, sampler={ACTION: Sampling(steps=2)})
    batch.text.pooled = None
    with pytest.raises(ValueError, match="were not encoded"):
        ask(model, batch, POLICY)
    with pytest.raises(ValueError, match="must be a multiple of the patch 8"):
        GR1(dataclasses.replace(CONFIG, image_size=30))
    with pytest.raises(ValueError, match="1 <= imagined <= history, got 4, 5 and 3"):
        GR1(dataclasses.replace(CONFIG, imagined=5))
    with pytest.raises(ValueError, match="no encoder 'forzen'; did you mean 'frozen'"):
        GR1(dataclasses.replace(CONFIG, encoder="forzen"))
    with pytest.raises(ValueError, match="a multiple of 4 as width, got 30"):
        GR1(dataclasses.replace(CONFIG, draw_width=30))
    with pytest.raises(ValueError, match="width 32 is not divisible by 5 heads"):
        GR1(dataclasses.replace(CONFIG, heads=5))
