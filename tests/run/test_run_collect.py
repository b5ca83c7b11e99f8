from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import point_env
import pytest

from wamlab.data.lerobot import Dataset
from wamlab.run.collect import CollectError, collect, demonstrate
from wamlab.run.collect import _stored as stored


def run(out, episodes=3, names="point/push", **options):
    options = {"bursts": False, "progress": False, "make": point_env.make, **options}
    return collect(names, episodes, out, **options)


def contents(path):
    dataset = Dataset(path)
    return [dataset.episode(index) for index in range(len(dataset))]


class Push:
    """A burst on steps 2 and 3."""

    def __init__(self):
        self.step = -1

    def __call__(self, action):
        self.step += 1
        burst = self.step in (2, 3)
        return (np.array([0, -1, 0, 0], np.float32) if burst else action), burst


def test_the_executed_action_is_the_action_and_the_experts_a_column():
    env = point_env.make("point/push")
    episode = demonstrate(env, 4, noise=Push())
    wanted = episode.columns["action.expert"]
    assert episode.columns["burst"].tolist()[:5] == [False, False, True, True, False]
    np.testing.assert_array_equal(episode.action[2:4], [[0, -1, 0, 0]] * 2)
    clean = ~episode.columns["burst"]
    np.testing.assert_array_equal(episode.action[clean], wanted[clean])
    np.testing.assert_allclose(
        np.diff(episode.state[:, 0]), episode.action[:, 0] * point_env.STEP, atol=1e-6
    )
    assert 0.5 <= episode.variant["speed"] <= 1.0


def test_a_demonstration_ends_a_few_steps_after_success():
    episode = demonstrate(point_env.make("point/push"), 4, stop_after=2)
    assert episode.success_any
    assert episode.success.argmax() == len(episode) - 3


def test_the_dataset_does_not_depend_on_the_number_of_workers(tmp_path):
    names = ["point/flaky", "point/push"]
    counts = [run(tmp_path / str(n), 3, names, workers=n) for n in (1, 2)]
    assert [str(one) for one in counts[0]] == [str(two) for two in counts[1]]
    assert (counts[0][0].kept, counts[0][0].failed) == (3, 2)
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert [episode.seed for episode in one] == [0, 2, 4, 0, 1, 2]
    for first, second in zip(one, two, strict=True):
        assert (first.env, first.seed, first.variant) == (second.env, second.seed, second.variant)
        np.testing.assert_array_equal(first.action, second.action)
        np.testing.assert_array_equal(first.state, second.state)
        # An encoder may decide differently on a loaded machine: pictures are equal to its loss.
        error = first.frames["top"].astype(float) - second.frames["top"]
        assert np.square(error).mean() < 255**2 / 10**3.5  # 35 dB


def test_a_collection_goes_on_where_it_was(tmp_path):
    run(tmp_path / "parts", 2, "point/flaky")
    counts = run(tmp_path / "parts", 4, ["point/flaky", "point/push"])
    assert str(counts[0]) == "point/flaky: 4 kept of 7 starts (3 failed, 0 solved at the start)"
    run(tmp_path / "whole", 4, ["point/flaky", "point/push"])
    assert sorted(stored(tmp_path / "parts")) == sorted(stored(tmp_path / "whole"))
    again = run(tmp_path / "parts", 4, ["point/flaky", "point/push"])
    assert [count.kept for count in again] == [4, 4]
    assert len(Dataset(tmp_path / "parts")) == 8


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dataset_has_one_first_start(tmp_path, workers):
    run(tmp_path, 2, "point/push", start=100)
    for start in (0, 99, 101):
        with pytest.raises(ValueError, match=f"push begin at start 100, asked for was {start}: gi"):
            run(tmp_path, 3, "point/push", start=start, workers=workers)
    assert len(Dataset(tmp_path)) == 2
    (more,) = run(tmp_path, 3, "point/push", start=100)
    assert str(more) == "point/push: 3 kept of 3 starts (0 failed, 0 solved at the start)"


def test_starts_that_failed_before_the_first_that_is_there_were_tried(tmp_path):
    run(tmp_path, 1, "point/flaky", start=1)
    (more,) = run(tmp_path, 2, "point/flaky", start=1)
    assert (more.kept, more.failed) == (2, 2)
    assert sorted(stored(tmp_path)) == [("point/flaky", 2), ("point/flaky", 4)]


def test_failed_demonstrations_are_kept_when_asked_for(tmp_path):
    counts = run(tmp_path, 4, "point/flaky", only_successful=False)
    assert counts[0].kept == 4
    assert [episode.success_any for episode in contents(tmp_path)] == [True, False, True, False]


def test_a_task_that_is_solved_already_gives_an_error_with_counts(tmp_path):
    with pytest.raises(CollectError, match=r"0 kept of 14 starts \(0 failed, 14 solved"):
        run(tmp_path, 1, "point/solved")


KILLED = """
import sys
sys.path.insert(0, {here!r})
import point_env
from wamlab.run.collect import collect

if __name__ == "__main__":
    collect("point/flaky", 50, {out!r}, bursts=False, progress=False, make=point_env.make)
"""


def test_a_killed_collection_keeps_every_finished_episode(tmp_path):
    script, out = tmp_path / "collect_forever.py", tmp_path / "data"
    script.write_text(KILLED.format(here=str(Path(__file__).parent), out=str(out)))
    process = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 60
    while process.poll() is None and len(stored(out)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(stored(out))
    assert 2 <= before < 50
    counts = run(out, before + 1, "point/flaky")
    assert counts[0].kept == before + 1
    assert [episode.seed for episode in contents(out)] == list(range(0, 2 * before + 2, 2))
