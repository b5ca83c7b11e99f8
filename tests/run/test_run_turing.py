"""The IDM Turing test on the point environment, with a judge and models made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import point_env
import pytest
from point_judge import (
    ENV,
    OFFSETS,
    Attached,
    Hidden,
    Reading,
    Seer,
    Still,
    Unclocked,
    clips,
    judge_of,
)
from point_model import PointConfig, PointModel, Reactive, policy_of

from wamlab.data.logs import LogError, load_episodes
from wamlab.metrics.base import compute
from wamlab.models.base import Flow, Refusal
from wamlab.run.film import ClipImaginer, Judge, ModelImaginer, Unrolling, shoot
from wamlab.run.turing import CONTROLS, Turing
from wamlab.sim.env import start_seed
from wamlab.types import STATE, Episode

pytestmark = pytest.mark.usefixtures("few_draws")

STARTS = 8


def turing(judge: Judge | None = None, **options) -> Turing:
    how = {"make": point_env.make, "progress": False, **options}
    return Turing(judge or judge_of(), [ENV], how.pop("starts", STARTS), **how)


def solved(episodes: list[Episode]) -> int:
    return sum(one.success_any for one in episodes)


@pytest.fixture(scope="module")
def controls() -> dict[str, list[Episode]]:
    return {name: turing().control(name, clips=clips()) for name in CONTROLS}


def test_a_true_film_is_solved_and_a_shuffled_one_is_not(
    controls: dict[str, list[Episode]],
) -> None:
    counts = {name: solved(logs) for name, logs in controls.items()}
    assert counts["demonstration"] == counts["ceiling"] == STARTS
    assert counts["shuffled"] <= 1
    assert counts["shuffled"] < counts["another start"] < counts["retrieval"] < STARTS


def test_a_model_that_foresees_what_is_done_passes_and_one_that_sees_nothing_fails(
    controls: dict[str, list[Episode]],
) -> None:
    seer, still = (turing().imagined(policy_of(model)) for model in (Seer(), Still()))
    assert (solved(seer), solved(still)) == (STARTS, 0)
    assert not any(one.action.any() for one in still)
    found = compute("film_success", seer, controls=controls)
    assert found.value == 1
    assert found.details["between"]["value"] == 1
    assert compute("film_success", still, controls=controls).details["between"]["value"] <= 0


def test_whether_success_needs_the_object_is_the_judges_doing(
    controls: dict[str, list[Episode]],
) -> None:
    """A judge that sees the hand alone reads as much off a film without the block."""
    assert solved(controls["object erased"]) == STARTS
    attached = turing(judge_of(Attached()))
    assert solved(attached.control("ceiling")) == STARTS
    assert solved(attached.control("object erased")) == 0


def test_a_film_is_read_as_one_and_executed_from_its_own_start() -> None:
    """The hand goes where the film shows it, to half a pixel, through all windows."""
    played = turing(keep_frames=1).control("ceiling")
    assert [one.seed for one in played] == [start_seed("evaluation", i) for i in range(STARTS)]
    first, later = played[0], played[1]
    assert [plan.step for plan in first.replans] == [*range(0, len(first), 8)]
    world = point_env.make(ENV, views=())
    world.reset(seed=first.seed)
    shot = shoot(world, ("top",), np.arange(0, 41, 4), world.expert(variants=False, seed=0))
    for window, plan in enumerate(first.replans):
        np.testing.assert_array_equal(plan.imagined_offsets, OFFSETS)
        shown = shot.film.frames["top"][2 * window + 1 : 2 * window + 3]
        np.testing.assert_array_equal(plan.imagined["top"], shown)
    moved = np.cumsum(shot.actions[: len(first), :2], 0) * point_env.STEP
    at = np.arange(3, len(first), 4)
    np.testing.assert_allclose((first.state[1:, :2] - first.state[0, :2])[at], moved[at], atol=0.04)
    assert later.replans[0].imagined is None


def test_only_successful_demonstrations_are_a_ceiling() -> None:
    flaky = Turing(judge_of(), ["point/flaky"], 4, make=point_env.make, progress=False)
    for name in ("ceiling", "object erased", "demonstration"):
        assert [one.seed % 2 for one in flaky.control(name)] == [0, 0]
    assert len(flaky.control("shuffled")) == 4


def test_of_an_imagined_frame_nothing_but_pixels_is_known() -> None:
    model, read = Seer(), []

    def reader(env, frames):
        assert env == ENV
        read.append(frames)
        return np.full(4, 0.25, np.float32)

    policy, judge = policy_of(model), judge_of()
    env = point_env.make(ENV)
    first, _ = env.reset(seed=3)
    for read_state in (None, reader):
        imaginer = ModelImaginer(policy, judge)
        (film,) = Unrolling(imaginer, judge, read_state=read_state).films(ENV, [first], [3], 3)
    assert film.ticks.tolist() == [0, 4, 8, 12, 16, 20, 24]
    known = [bool(seen[STATE].present.all()) for seen in model.seen]
    assert known == [True, False, False, True, True, True]
    np.testing.assert_allclose(model.seen[0][STATE].values[0, 0], first["state"])
    assert (model.seen[4][STATE].values == 0.25).all()
    assert len(read) == 3
    for place, frames in zip((2, 4, 6), read, strict=True):
        np.testing.assert_array_equal(frames["side"], film.frames["side"][place])
    shown = (model.seen[4]["image/top"].values[0, 0] * 127.5 + 127.5).permute(1, 2, 0)
    np.testing.assert_allclose(shown, film.frames["top"][2], atol=0.01)
    assert {seen.text.sentences[0] for seen in model.seen} == {env.instruction}


def test_what_was_judged_is_not_judged_again(tmp_path: Path) -> None:
    asked, model = turing(starts=3), Seer()
    before = asked.imagined(policy_of(model), tmp_path)
    calls = len(model.seen)
    (tmp_path / "episodes" / "point__push" / f"{before[1].seed}.npz").unlink()
    again = asked.imagined(policy_of(model), tmp_path)
    assert len(model.seen) == calls + 5
    for one, other in zip(before, again, strict=True):
        np.testing.assert_array_equal(one.action, other.action)
    assert [one.policy for one in load_episodes(tmp_path)] == ["point_seer"] * 3
    with pytest.raises(LogError, match="condition was 'imagined', now 'ceiling'"):
        asked.control("ceiling", tmp_path)


class Stateful(Reading, name="point_stateful"):
    def flows(self, query):
        return [*super().flows(query), Flow("state", "action", "channel")]


def test_bad_judges_are_refused() -> None:
    with pytest.raises(Refusal, match="does not answer INVERSE"):
        judge_of(Reactive())
    with pytest.raises(
        ValueError, match=r"reads frames alone, point_stateful also reads \['state'"
    ):
        judge_of(Stateful())
    with pytest.raises(ValueError, match=r"looks at \(2, 4\), but its chunk ends at 8"):
        judge_of(Reading(PointConfig(offsets=(2, 4))))


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        (Reactive(), Refusal, "does not answer VIDEO"),
        (Hidden(), Refusal, "nothing that a judge can read: it imagines in features"),
        (Unclocked(), Refusal, "unclocked"),
        (Still(PointConfig(offsets=(2, 8))), ValueError, r"imagines \(2, 8\): \[4\] are missing"),
        (Still(PointConfig(views=("side",))), ValueError, "reads the view 'top'"),
        (Still(PointConfig(image_size=8)), ValueError, "frames of 16 pixels"),
    ],
)
def test_models_that_cannot_be_judged_are_refused(
    model: PointModel, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        turing().imagined(policy_of(model))


def test_bad_requests_are_named() -> None:
    with pytest.raises(KeyError, match=r"no control 'ceilng'.*ceiling"):
        turing().control("ceilng")
    with pytest.raises(ValueError, match="training clips, but none were given"):
        turing().control("retrieval")
    with pytest.raises(ValueError, match="1 starts"):
        turing(starts=1)
    one_view = clips(1)
    one_view.first.pop("side")
    with pytest.raises(ValueError, match=r"the clips show \['top'\]"):
        ClipImaginer(one_view, judge_of())
