"""The acceptance checks of UWM (numbered as in its dossier), and what is this file's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from wamlab.generative import flow
from wamlab.generative.noise import generators
from wamlab.models.base import Refusal, Sampling
from wamlab.models.uwm import UWM
from wamlab.types import (
    ACTION,
    FORWARD,
    FUTURE,
    INVERSE,
    JOINT,
    POLICY,
    ROLES,
    VIDEO,
    Batch,
    Future,
    Query,
    Stream,
    Text,
)

CONFIG = UWM.Config.tiny()


def make_batch(config: UWM.Config = CONFIG, rows: int = 4, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def stream(offsets: tuple[int, ...], *shape: int) -> Stream:
        values = torch.rand(rows, len(offsets), *shape, generator=generator) * 2 - 1
        columns = torch.tensor(offsets).expand(rows, -1)
        return Stream(values, columns, torch.ones_like(columns, dtype=torch.bool))

    size = config.image_size
    streams = {name: stream((0, *config.offsets), 3, size, size) for name in config.image_streams}
    streams["state"] = stream((0,), config.state_dim)
    streams[ACTION] = stream(tuple(range(config.chunk)), config.action_dim)
    pooled = torch.nn.functional.normalize(
        torch.randn(rows, config.text_dim, generator=generator), dim=-1
    )
    role = torch.ones(rows, len(ROLES), dtype=torch.bool)
    return Batch(streams, Text(["push"] * rows, pooled), role, torch.full((rows,), 80.0))


def make_model(config: UWM.Config = CONFIG) -> UWM:
    """A model whose zero-initialised layers were moved, so that every path carries something."""
    torch.manual_seed(0)
    model = UWM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def given(batch: Batch, query: Query) -> dict[str, Stream | Future]:
    parts: dict[str, Stream | Future] = {}
    if ACTION in query.given:
        parts["action"] = batch[ACTION]
    if FUTURE in query.given:
        frames = {n: batch[n].at(*CONFIG.offsets).values for n in CONFIG.image_streams}
        parts["future"] = Future("pixels", "pixels", frames, None)
    return parts


@contextmanager
def recorded_calls(model: UWM) -> Iterator[list[dict[str, Tensor]]]:
    calls: list[dict[str, Tensor]] = []

    def record(module: object, args: tuple, kwargs: dict[str, Tensor], output: object) -> None:
        calls.append({"action": args[0].clone(), "future": args[1].clone(), **kwargs})

    handle = model.network.register_forward_hook(record, with_kwargs=True)
    yield calls
    handle.remove()


def draw(model: UWM, batch: Batch, query: Query, seed: int = 0, **options: object) -> object:
    seeds = generators(range(seed, seed + len(batch)))
    with torch.no_grad():
        return model.sample(
            batch.observation(), query, generator=seeds, **given(batch, query), **options
        )


def test_check_1_the_marginal_level_is_exact_in_training_and_in_sampling() -> None:
    a1, a2, noise = (torch.randn(2, 8, 4) for _ in range(3))
    at_one = [flow.interpolate(a, noise, torch.ones(2)) for a in (a1, a2)]
    assert torch.equal(*at_one)

    model, batch = make_model(), make_batch()
    video_only = dataclasses.replace(batch, role=torch.tensor([[False] * 3 + [True]] * 4))
    with recorded_calls(model) as calls:
        model.loss(video_only, stage="joint", step=0, generator=torch.Generator())
        draw(model, batch, VIDEO)
    labels = [call["sigma_action"] for call in calls]
    assert all(torch.equal(label, torch.ones(4)) for label in labels)


def test_check_2_each_level_is_wired_to_its_own_stream() -> None:
    model, batch = make_model(), make_batch()
    context = model.context(batch)
    action = batch[ACTION].values
    future, _ = model._coded(batch, *CONFIG.offsets)

    def out(sigma_action: float, sigma_future: float) -> Tensor:
        levels = {
            "sigma_action": torch.full((4,), sigma_action),
            "sigma_future": torch.full((4,), sigma_future),
        }
        return torch.cat([x.flatten() for x in model.network(action, future, context, **levels)])

    base = out(0.3, 0.7)
    assert not torch.allclose(base, out(0.9, 0.7), atol=1e-4)
    assert not torch.allclose(base, out(0.3, 0.1), atol=1e-4)
    assert not torch.allclose(base, out(0.7, 0.3), atol=1e-4)


@pytest.mark.parametrize(
    ("query", "action_labels", "future_labels"),
    [
        (POLICY, [1.0, 0.5], [1.0, 1.0]),
        (VIDEO, [1.0, 1.0], [1.0, 0.5]),
        (JOINT, [1.0, 0.5, 0.0], [1.0, 1.0, 1.0]),
        (FORWARD, [0.0], [1.0]),
        (INVERSE, [1.0, 0.5], [0.0, 0.0]),
    ],
    ids=str,
)
def test_check_3_what_each_sampler_steps_holds_and_labels(
    query: Query, action_labels: list[float], future_labels: list[float]
) -> None:
    model, batch = make_model(), make_batch()
    with recorded_calls(model) as calls:
        prediction = draw(model, batch, query)
    assert [float(c["sigma_action"][0]) for c in calls] == action_labels
    assert [float(c["sigma_future"][0]) for c in calls] == future_labels
    for name, levels in ((ACTION, action_labels), (FUTURE, future_labels)):
        moved = not torch.equal(calls[0][name], calls[-1][name])
        assert moved == (levels[0] != levels[-1])
    if ACTION in query.given:
        assert torch.equal(calls[-1]["action"], batch[ACTION].values)
    if FUTURE in query.given:
        assert torch.equal(calls[-1]["future"], model._coded(batch, *CONFIG.offsets)[0])
    assert (prediction.action is not None) == (ACTION in query.sampled)
    assert (prediction.future is not None) == (FUTURE in query.sampled)
    assert prediction.cost.calls == model.queries[query].calls == len(calls)


def test_check_3_on_the_diagonal_both_streams_share_their_level() -> None:
    model, batch = make_model(dataclasses.replace(CONFIG, action_first=False)), make_batch()
    with recorded_calls(model) as calls:
        draw(model, batch, JOINT)
    assert all(torch.equal(c["sigma_action"], c["sigma_future"]) for c in calls)
    assert [float(c["sigma_action"][0]) for c in calls] == [1.0, 0.5]
    assert len(calls) == model.queries[JOINT].calls


def test_a_joint_draw_is_the_policy_s_action_and_the_future_given_it() -> None:
    model, batch = make_model(), make_batch()
    joint, policy = draw(model, batch, JOINT), draw(model, batch, POLICY)
    assert torch.equal(joint.action.values, policy.action.values)
    seeds = generators(range(len(batch)))
    with torch.no_grad():
        forward = model.sample(batch.observation(), FORWARD, action=joint.action, generator=seeds)
    for name, frames in forward.future.values.items():
        torch.testing.assert_close(joint.future.values[name], frames)


def test_streams_of_a_joint_draw_may_take_their_own_steps() -> None:
    model, batch = make_model(), make_batch()
    with recorded_calls(model) as calls:
        how = {ACTION: Sampling(4, stop=0.2), FUTURE: Sampling(2, wait=1)}
        draw(model, batch, JOINT, sampler=how)
    assert [round(float(c["sigma_action"][0]), 3) for c in calls] == [1.0, 0.8, 0.6, 0.4]
    assert [float(c["sigma_future"][0]) for c in calls] == [1.0, 1.0, 0.5, 0.0]


def test_other_steps_of_the_action_leave_it_before_the_future() -> None:
    model, batch = make_model(), make_batch()
    with recorded_calls(model) as calls:
        fine = draw(model, batch, JOINT, sampler={ACTION: Sampling(8)})
    assert [float(c["sigma_action"][0]) for c in calls] == [1 - i / 8 for i in range(8)] + [0.0]
    assert [float(c["sigma_future"][0]) for c in calls] == [1.0] * 9
    alone = draw(model, batch, POLICY, sampler={ACTION: Sampling(8)})
    assert torch.equal(fine.action.values, alone.action.values)


def test_its_own_number_of_steps_given_by_hand_changes_no_bit() -> None:
    model, batch = make_model(), make_batch()
    own = {ACTION: Sampling(CONFIG.steps), FUTURE: Sampling(CONFIG.forward_steps)}
    for how in (own, {ACTION: own[ACTION]}, {FUTURE: own[FUTURE]}):
        named, default = draw(model, batch, JOINT, sampler=how), draw(model, batch, JOINT)
        assert torch.equal(named.action.values, default.action.values)
        for view, frames in default.future.values.items():
            assert torch.equal(named.future.values[view], frames)
    diagonal = draw(model, batch, JOINT, sampler={ACTION: Sampling(2), FUTURE: Sampling(2, wait=0)})
    model.config = dataclasses.replace(CONFIG, action_first=False)
    both = draw(model, batch, JOINT)
    assert torch.equal(diagonal.action.values, both.action.values)
    assert both.cost.calls == diagonal.cost.calls == CONFIG.steps == 2


def test_check_5_an_action_free_row_teaches_exactly_the_same_whatever_lies_there() -> None:
    model = make_model()

    def gradients(poison: float) -> tuple[Tensor, list[Tensor]]:
        batch = make_batch()
        batch[ACTION].values[:] = poison
        batch[ACTION].present[:] = False
        batch.role[:, :3] = False
        model.zero_grad()
        losses = model.loss(
            batch, stage="joint", step=0, generator=torch.Generator().manual_seed(0)
        )
        losses["loss"].backward()
        assert float(losses["action"].detach()) == 0
        return losses["loss"].detach(), [p.grad.clone() for p in model.parameters()]

    (loss, grads), (nan_loss, nan_grads) = gradients(0.5), gradients(float("nan"))
    assert torch.equal(loss, nan_loss)
    assert all(torch.equal(a, b) for a, b in zip(grads, nan_grads, strict=True))
    head = dict(zip(dict(model.named_parameters()), grads, strict=True))
    assert not head["network.read_action.weight"].any()
    assert head["network.paint_future.draw.weight"].any()


def test_a_row_that_may_not_teach_the_policy_teaches_only_given_one_stream() -> None:
    model, batch = make_model(), make_batch(rows=64)
    batch.role[:, 0] = False
    labelled = batch[ACTION].present
    sigma_a, sigma_o, learns_a, learns_o = model._levels(
        batch, labelled, torch.Generator().manual_seed(0)
    )
    assert (sigma_o[learns_a] == 0).all()
    assert (sigma_a[learns_o] == 0).all()
    assert learns_a.any()
    assert learns_o.any()
    assert not (learns_a & learns_o).any()


@pytest.mark.parametrize("may", [True, False])
def test_the_regression_learns_from_rows_that_may_teach_the_policy(may: bool) -> None:
    model, batch = make_model(), make_batch()
    batch.role[:, 0] = may
    losses = model.loss(batch, stage="joint", step=0, generator=torch.Generator().manual_seed(0))
    taught = torch.autograd.grad(losses["regression"], model.encoder.text.weight)[0]
    assert bool(losses["regression"] > 0) == bool(taught.abs().sum() > 0) == may


@pytest.mark.parametrize(("level", "silent"), [(1.0, True), (0.5, False)])
def test_a_marginalised_chunk_is_silent_in_the_condition(level: float, silent: bool) -> None:
    model, batch = make_model(), make_batch()
    known: list[Tensor] = []
    model.network.condition.register_forward_pre_hook(lambda _, args: known.append(args[0]))
    future, levels = torch.randn(4, 2, 2, 3, 32, 32), torch.full((4,), level)
    for action in torch.randn(2, 4, 8, 4):
        context = model.context(batch.observation())
        model.network(action, future, context, sigma_action=levels, sigma_future=levels)
    assert torch.equal(*known) == silent


@pytest.mark.parametrize("gaps", [False, True])
def test_a_labelled_row_that_may_not_teach_the_policy_needs_no_bit_for_video(gaps: bool) -> None:
    """It teaches the future of a given action or the action of a given future, or nothing."""

    def losses(video: bool) -> dict[str, Tensor]:
        model, batch = make_model(), make_batch(rows=16)
        batch.role[4:, 0] = False
        batch.role[4:12, 3] = video
        if gaps:
            batch[ACTION].present[4:8, 3:] = False
        generator = torch.Generator().manual_seed(0)
        return model.loss(batch, stage="joint", step=0, generator=generator)

    known, unknown = losses(True), losses(False)
    assert all(torch.equal(known[name], unknown[name]) for name in known)


WATCHING = dataclasses.replace(CONFIG, watch_width=8)


@pytest.mark.parametrize(("level", "silent"), [(1.0, True), (0.5, False)])
def test_a_watched_future_is_silent_where_it_is_marginalised(level: float, silent: bool) -> None:
    model, batch = make_model(WATCHING), make_batch()
    context, levels = model.context(batch.observation()), torch.full((4,), level)
    (_, one), (_, other) = (
        model.network(torch.zeros(4, 8, 4), x, context, sigma_action=levels, sigma_future=levels)
        for x in torch.randn(2, 4, 2, 2, 3, 32, 32)
    )
    assert one.shape == (4, WATCHING.known)
    assert torch.equal(one[:, : CONFIG.condition], context.vector_BC)
    assert torch.equal(one, other) == silent


def test_a_watched_future_is_taught_by_rows_that_teach_inverse_dynamics_alone() -> None:
    """Their actions are noise to the present, and are seen in the future."""
    model, batch = make_model(WATCHING), make_batch(rows=16)
    batch.role[:, 0] = False
    batch.role[:, ROLES.index("forward")] = False
    losses = model.loss(batch, stage="joint", step=0, generator=torch.Generator().manual_seed(0))
    stem = model.network.watch[0].layers[0].weight
    assert torch.autograd.grad(losses["regression"], stem)[0].any()
    batch.role[:, ROLES.index("inverse")] = False
    losses = model.loss(batch, stage="joint", step=0, generator=torch.Generator().manual_seed(0))
    assert losses["regression"] == 0


def test_the_path_of_pixels_gives_the_numbers_it_gave_before_there_were_codecs() -> None:
    before = dataclasses.replace(CONFIG, forward_steps=2, marginal_future=0.4)
    model, batch = make_model(before), make_batch()
    losses = model.loss(batch, stage="joint", step=0, generator=torch.Generator().manual_seed(0))
    golden = {
        "loss": 15.93956470489502, "action": 1.3986122608184814, "future": 0.6507146954536438,
        "regression": 0.3816646933555603,
    }  # fmt: skip
    assert {n: float(x.detach()) for n, x in losses.items()} == pytest.approx(golden, rel=1e-6)

    joint, forward = draw(model, batch, JOINT), draw(model, batch, FORWARD)
    first = [-1.0478532314300537, -0.9380419254302979, -0.13422563672065735, -0.27488040924072266]
    assert joint.action.values[0, 0].tolist() == pytest.approx(first, rel=1e-5)
    corner = joint.future.values["image/corner"][0, 0, :, 0, 0]
    gripper = forward.future.values["image/gripper"][0, 0, :, 0, 0]
    pixels = [-0.005513995885848999, -0.06882092356681824, -0.5155170559883118]
    assert corner.tolist() == pytest.approx(pixels, rel=1e-4)
    pixels = [-0.8741395473480225, -0.5920225381851196, -0.735222578048706]
    assert gripper.tolist() == pytest.approx(pixels, rel=1e-4)
    assert (joint.future.space, joint.future.codec) == ("pixels", "pixels")
    assert not [name for name in model.state_dict() if name.startswith("codec")]


KL_CONFIG = dataclasses.replace(CONFIG, codec="kl")


def test_with_the_kl_codec_every_future_is_latent_and_can_be_shown() -> None:
    model, batch = make_model(KL_CONFIG), make_batch()
    spaces = {model.queries[q].space for q in (VIDEO, JOINT, FORWARD)}
    future = draw(model, batch, JOINT).future
    assert spaces == {future.space} == {"latent"}
    assert future.codec == "kl/1"
    assert future.values["image/corner"].shape == (4, 2, 4, 4, 4)
    shown = model.decode(future)["image/corner"]
    expected = model.codec.decode(future.values["image/corner"]).clamp(-1, 1)
    assert shown.shape == (4, 2, 3, 32, 32)
    assert torch.equal(shown, expected)
    assert model.network.tokens == UWM(CONFIG).network.tokens


def test_real_frames_are_given_as_latents_and_those_of_another_codec_are_refused() -> None:
    model, batch = make_model(KL_CONFIG), make_batch()
    frames = {n: batch[n].at(*CONFIG.offsets).values for n in CONFIG.image_streams}
    future = model.encode(frames, None)
    answer = lambda given: model.sample(  # noqa: E731
        batch.observation(), INVERSE, future=given, generator=generators(range(4))
    )
    with recorded_calls(model) as calls:
        answer(future)
    expected, _ = model._coded(batch, *CONFIG.offsets)
    torch.testing.assert_close(calls[-1]["future"], expected)
    for other in (Future("pixels", "pixels", frames, None), Future("latent", "vae", {}, None)):
        with pytest.raises(ValueError, match="no future in latent of the codec 'kl/1'"):
            answer(other)


def test_the_codec_is_trained_first_and_frozen_afterwards() -> None:
    codec, joint = make_model(KL_CONFIG).stages()
    assert set(codec.window.streams) == set(CONFIG.image_streams)
    assert set(codec.window.streams.values()) == {(0,)}
    assert (codec.trains, codec.produces, joint.codec) == (("codec.",), "codec", "codec")
    assert codec.share / (codec.share + joint.share) == pytest.approx(0.15)
    model = make_model(KL_CONFIG)
    trained = [n for n, _ in model.named_parameters() if n.startswith(joint.trains)]
    frozen = [n for n, _ in model.named_parameters() if n.startswith("codec.")]
    assert sorted([*trained, *frozen]) == sorted(n for n, _ in model.named_parameters())
    before = model.codec.digest
    model.train().loss(make_batch(), stage="joint", step=0, generator=torch.Generator())
    assert model.codec.digest == before


def test_served_latents_teach_what_encoded_frames_teach() -> None:
    model, batch = make_model(KL_CONFIG), make_batch()
    batch["image/gripper"].present[1, 1:] = False
    served = dataclasses.replace(batch, streams=dict(batch.streams))
    for view in CONFIG.views:
        frames = batch[f"image/{view}"]
        latents = model.codec.encode(frames.values).detach()
        latents[~frames.present] = float("nan")
        served.streams[f"latent/{view}"] = dataclasses.replace(frames, values=latents)
        served.streams[f"image/{view}"] = frames.at(0)
    with torch.no_grad():
        one, two = (
            model.loss(b, stage="joint", step=0, generator=torch.Generator().manual_seed(0))
            for b in (batch, served)
        )
    assert {n: float(x) for n, x in two.items()} == pytest.approx(
        {n: float(x) for n, x in one.items()}, rel=1e-5
    )


def test_with_the_kl_codec_small_stays_small() -> None:
    config = dataclasses.replace(UWM.Config.small(), codec="kl")
    model = UWM(config)
    assert sum(p.numel() for p in model.parameters()) <= 8_000_000
    assert model.tokens <= 256


def test_committed_actions_begin_the_chunk() -> None:
    model, batch = make_model(), make_batch()
    prefix = batch[ACTION].at(0, 1, 2)
    prediction = draw(model, batch, POLICY, prefix=prefix)
    assert torch.equal(prediction.action.values[:, :3], prefix.values)


def test_decoded_futures_are_pixels_in_range() -> None:
    model, batch = make_model(), make_batch()
    future = draw(model, batch, JOINT).future
    frames = model.decode(future)
    assert set(frames) == set(CONFIG.image_streams)
    assert all(frame.shape == (4, 2, 3, 32, 32) for frame in frames.values())
    assert all(frame.abs().max() <= 1 for frame in frames.values())
    assert future.offsets.tolist() == [list(CONFIG.offsets)] * 4


def test_a_new_model_imagines_that_hardly_anything_moves() -> None:
    batch = make_batch()
    future = draw(UWM(CONFIG), batch, VIDEO).future
    now = batch["image/corner"].at(0).values
    still = now.expand(-1, 2, -1, -1, -1)
    torch.testing.assert_close(future.values["image/corner"], still, atol=0.03, rtol=0)


def test_bad_requests_are_named() -> None:
    model, batch = make_model(), make_batch()
    seeds = generators(range(4))
    with pytest.raises(Refusal, match="does not answer"):
        draw(model, batch, Query(sampled=["value"]))
    with pytest.raises(ValueError, match="no action was passed"):
        model.sample(batch.observation(), FORWARD, generator=seeds)
    with pytest.raises(ValueError, match="no future in pixels of the codec 'pixels'"):
        model.sample(batch.observation(), INVERSE, generator=seeds)
    short = draw(model, batch, VIDEO).future
    short.values = {name: value[:, :1] for name, value in short.values.items()}
    with pytest.raises(ValueError, match="has 1 instants, expected 2"):
        model.sample(batch.observation(), INVERSE, future=short, generator=seeds)
    with pytest.raises(ValueError, match="guidance must be 1"):
        draw(model, batch, POLICY, sampler={ACTION: Sampling(guidance=2.0)})
    with pytest.raises(ValueError, match="must be a multiple of the patch"):
        UWM(dataclasses.replace(CONFIG, image_size=30))


@torch.no_grad()
def test_a_likelihood_reads_what_its_query_gives_and_nothing_absent() -> None:
    """Marginalised streams, absent entries and neighbours change nothing; given streams do."""
    model, batch, levels = make_model(), make_batch(), torch.tensor([1.0, 0.5, 0.1])

    def errors(query: Query, batch: Batch) -> Tensor:
        draws = generators(range(len(batch)))
        return model.likelihood(batch, query, levels=levels, generator=draws).errors

    other = make_batch()
    other[ACTION].values.neg_()
    assert torch.equal(errors(VIDEO, batch), errors(VIDEO, other))
    assert not torch.equal(errors(FORWARD, batch), errors(FORWARD, other))
    torch.testing.assert_close(errors(JOINT, batch)[:1], errors(JOINT, batch.select([0])))

    batch[ACTION].present[0, 3:] = False
    batch[ACTION].values[0, 3:] = torch.nan
    found = model.likelihood(batch, POLICY, levels=levels, generator=generators(range(4)))
    assert bool(torch.isfinite(found.errors).all())
    assert found.dims.tolist() == [3 * CONFIG.action_dim, *[CONFIG.chunk * CONFIG.action_dim] * 3]
    assert found.errors.shape == (4, 3)
