"""The vocabulary: queries, streams, batches and spaces say what they are and refuse the rest."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from wamlab.types import (
    FORWARD,
    INVERSE,
    JOINT,
    POLICY,
    QUERIES,
    VIDEO,
    ActionSpace,
    Batch,
    Episode,
    Future,
    Prediction,
    Query,
    Stream,
    Text,
    Waypoints,
    Window,
)

SPACE = ActionSpace(
    names=("x", "gripper"),
    low=(-1.0, 0.0),
    high=(1.0, 2.0),
    mode=("delta", "absolute"),
    unit=("m", "1"),
    rate_hz=10.0,
)


def stream(rows: int = 3, offsets: tuple[int, ...] = (-1, 0, 1), size: int = 2) -> Stream:
    values = np.arange(rows * len(offsets) * size, dtype=np.float32)
    return Stream(
        values.reshape(rows, len(offsets), size),
        np.tile(offsets, (rows, 1)),
        np.ones((rows, len(offsets)), bool),
    )


def batch(rows: int = 3) -> Batch:
    role = np.zeros((rows, 4), bool)
    role[:, 0] = True
    role[0, 3] = True
    return Batch(
        streams={"state": stream(rows), "action": stream(rows, (-2, -1, 0, 1))},
        text=Text([f"sentence {row}" for row in range(rows)], pooled=np.eye(rows)),
        role=role,
        rate=np.full(rows, 10.0),
        embodiment=[f"robot {row}" for row in range(rows)],
    )


def test_the_five_queries_are_what_they_are_called() -> None:
    assert [str(query) for query in QUERIES.values()] == list(QUERIES)
    assert Query(sampled=["action", "future"]) == JOINT
    assert len({POLICY, VIDEO, JOINT, FORWARD, INVERSE, Query(sampled=["action"])}) == 5
    assert str(Query(["touch"], ["action"])) == "Query(given=['touch'], sampled=['action'])"


@pytest.mark.parametrize(
    ("given", "sampled", "said"),
    [([], [], "samples at least one"), (["action"], ["action"], r"not both: \['action'\]")],
)
def test_a_query_that_asks_nothing_or_twice_is_refused(
    given: list[str], sampled: list[str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Query(given, sampled)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ([[0.0, 1.0, 0.0]], r"shape \(1, 3\), expected \(\.\.\., 2\)"),
        ([[0.0, np.nan]], "NaN or infinity in gripper"),
        ([[np.inf, 1.0]], "NaN or infinity in x"),
        ([[0.0, 1.0], [1.1, 2.5]], "outside the space in x, gripper"),
    ],
)
def test_an_action_outside_the_space_names_the_dimension(action: list, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SPACE.check(np.array(action, np.float32))


def test_bounds_that_nobody_declared_refuse_nothing() -> None:
    seen = dataclasses.replace(SPACE, mode=("unknown",) * 2)
    far = np.array([[0.0, 1.0], [1.1, 1.0]], np.float32)
    assert (SPACE.declared, seen.declared) == (True, False)
    assert (seen.beyond(far), seen.beyond(far[:1])) == ("x", "")
    seen.check(far)
    with pytest.raises(ValueError, match="NaN or infinity in gripper"):
        seen.check(np.array([[0.0, np.nan]], np.float32))


def test_an_action_inside_the_space_passes_and_clip_brings_one_back() -> None:
    SPACE.check(np.array([[-1.0, 0.0], [1.0, 2.0]], np.float32))
    clipped = SPACE.clip(np.array([[-3.0, 3.0]]))
    np.testing.assert_array_equal(clipped, [[-1.0, 2.0]])
    assert clipped.dtype == np.float32


@pytest.mark.usefixtures("as_shipped")
def test_a_stream_with_other_shapes_than_its_values_is_refused() -> None:
    good = stream()
    with pytest.raises(ValueError, match=r"present has shape \(3, 2\), expected \(B, T\) = \(3, 3"):
        Stream(good.values, good.offsets, np.ones((3, 2), bool))


def test_columns_are_found_by_offset() -> None:
    found = stream().at(1, -1)
    np.testing.assert_array_equal(found.offsets[0], [1, -1])
    np.testing.assert_array_equal(found.values, stream().values[:, [2, 0]])
    with pytest.raises(KeyError, match=r"no column at offset \[7\]; the stream holds"):
        stream().at(7)


@pytest.mark.parametrize("rows", [[2, 0, 2], np.array([True, False, True])])
def test_selected_rows_keep_everything_together(rows: object) -> None:
    whole, kept = batch(), np.arange(3)[np.asarray(rows)]
    part = whole.select(rows)
    assert part.text.sentences == [f"sentence {row}" for row in kept]
    assert part.embodiment == [f"robot {row}" for row in kept]
    np.testing.assert_array_equal(part["state"].values, whole["state"].values[kept])
    np.testing.assert_array_equal(part.text.pooled, np.eye(3)[kept])
    np.testing.assert_array_equal(part.may("video"), whole.role[kept, 3])


def test_an_observation_holds_no_future() -> None:
    now = batch().observation()
    np.testing.assert_array_equal(now["state"].offsets[0], [-1, 0])
    np.testing.assert_array_equal(now["action"].offsets[0], [-2, -1])
    only_ahead = dataclasses.replace(batch(), streams={"action": stream(3, (0, 1))})
    assert "action" not in only_ahead.observation()


def test_a_missing_stream_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="no stream 'stat'; did you mean 'state'"):
        batch()["stat"]
    assert "state" in batch()
    assert "stat" not in batch()


def test_a_batch_goes_to_torch_whole() -> None:
    moved = batch().to("cpu")
    assert isinstance(moved["state"].values, torch.Tensor)
    assert isinstance(moved.text.pooled, torch.Tensor)
    assert moved.role.dtype == torch.bool
    np.testing.assert_array_equal(moved["action"].offsets.numpy(), batch()["action"].offsets)


def test_selected_predictions_keep_all_parts() -> None:
    answer = Prediction(
        action=stream(),
        waypoints=Waypoints(np.zeros((3, 2, 3)), np.ones((3, 2)), np.arange(6.0).reshape(3, 2)),
        future=Future("pixels", "none", {"image/corner": np.arange(3.0)[:, None]}, None),
        value=np.arange(3.0),
    )
    part = answer.select([1])
    assert (part.waypoints.gripper.tolist(), part.value.tolist()) == ([[2.0, 3.0]], [1.0])
    assert part.future.values["image/corner"].tolist() == [[1.0]]
    assert part.future.offsets is None
    assert Prediction().select([0]) == Prediction()


@pytest.mark.parametrize(
    ("success", "at_reset", "any_step", "last_step"),
    [
        ([False, True, False], False, True, False),
        ([False, False, True], False, True, True),
        ([False, False, False], False, False, False),
        ([True, True, True], True, False, False),
        ([], False, False, False),
    ],
)
def test_a_task_solved_at_the_start_is_not_solved_by_the_policy(
    success: list[bool], at_reset: bool, any_step: bool, last_step: bool
) -> None:
    steps = len(success)
    episode = Episode(
        env="e",
        instruction="",
        seed=0,
        frames={},
        state=np.zeros((steps + 1, 1), np.float32),
        action=np.zeros((steps, 1), np.float32),
        success=np.array(success, bool),
        success_at_reset=at_reset,
    )
    assert len(episode) == steps
    assert (episode.success_any, episode.success_last) == (any_step, last_step)


def test_windows_are_equal_by_content_and_usable_as_keys() -> None:
    one, same = Window({"state": (0,), "action": (0, 1)}), Window({"action": (0, 1), "state": (0,)})
    other = Window({"state": (0,)}, anchor="to_end")
    assert len({one: 1, same: 2, other: 3}) == 2
