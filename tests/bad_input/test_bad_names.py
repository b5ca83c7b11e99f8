"""The command line: names and values that are not there, and the nearest that is."""

from __future__ import annotations

from pathlib import Path

import pytest

COLLECT = ("collect", "--episodes", "1", "--out", "{out}")
TRAIN = ("train", "mw-demo/pupil", "--data", "{data}", "--out", "{out}", "--steps", "2")
EVAL = ("eval", "{run}", "--env", "point/push", "--out", "{out}")
IMAGINE = ("imagine", "{run}", "--env", "point/push", "--out")


def to(recipe: str) -> tuple[str, ...]:
    return ("train", recipe, *TRAIN[2:])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*COLLECT, "--env", "point/psh"), ("'point/psh'", "did you mean 'point/push'?")),
        (("eval", "{run}", "--env", "mw-dmo", "--out", "{out}"), ("did you mean 'mw-demo'?",)),
        (to("mw-dmo/pupil"), ("no recipe 'mw-dmo/pupil'", "did you mean 'mw-demo/pupil'?")),
        (to("pupil"), ("no recipe 'pupil': expected PROTOCOL/MODEL, e.g. mw-demo/uwm",)),
        (to("mw-demo/pupl"), ("no recipe 'mw-demo/pupl'", "did you mean 'mw-demo/pupil'?")),
        ((*TRAIN, "--set", "model.chnk=4"), ("model.chnk", "did you mean 'chunk'?")),
        ((*TRAIN, "--set", "modle.chunk=4"), ("modle.chunk", "did you mean 'model'?")),
        ((*TRAIN, "--set", "model.chunk=many"), ("chunk: expected a whole number, got 'many'",)),
        ((*TRAIN, "--set", "chunk=4"), ("did you mean 'model.chunk'?",)),
        ((*TRAIN, "--set", "optim.lr=1"), ("did you mean 'train.optim.lr'?",)),
        ((*TRAIN, "--set", "train.minutes=3"), ("the run has steps=2: use --minutes 3",)),
        (
            (*TRAIN[:6], "--minutes", "1", "--set", "train.steps=3"),
            ("the run has minutes=1: use --steps 3",),
        ),
        (
            (*TRAIN[:6], "--minutes", "1", "--set", "train.minutes=abc"),
            ("expected a number or none, got 'abc'",),
        ),
        ((*TRAIN, "--set", "train.precision=f3"), ("did you mean 'f32'?",)),
        ((*TRAIN, "--set", "train.batch_size=0"), ("batch_size is 0, expected more than 0",)),
        ((*TRAIN, "--set", "model.chunk"), ("expected NAME=VALUE, got 'model.chunk'",)),
        (
            (*TRAIN, "--set", "data.episodes=1"),
            ("data.episodes says how demonstrations are collected", "data.held_out, data.action"),
        ),
        ((*TRAIN, "--set", "data.envs=point/push"), ("data.envs says how", "`wam collect`")),
        ((*TRAIN, "--set", 'data={{"envs": ["mw-demo"], "bursts": false}}'), ("data.bursts says",)),
        ((*TRAIN, "--steps", "none"), ("expected a number of at least 1, got 'none'",)),
        ((*TRAIN, "--device", "gpu"), ("no device 'gpu'", "did you mean 'cpu'?")),
        ((*TRAIN, "--setp", "a=1"), ("'--setp'", "did you mean '--set'?")),
        ((*TRAIN, "--set", "train.validate_batches=0"), ("validate_batches is 0, expected more",)),
        ((*TRAIN, "--set", "train.keep=-1"), ("keep is -1, expected more than 0",)),
        ((*TRAIN, "--set", "rollout.shift=camra"), ("no shift 'camra'; did you mean 'camera'?",)),
        ((*TRAIN, "--set", "rollout.episodes=-3"), ("episodes is -3, expected at least 0",)),
        ((*TRAIN, "--set", "rollout.sentence=-1"), ("sentence is -1, expected at least 0",)),
        ((*TRAIN, "--set", "probe.imposed=zro"), ("intervention 'zro'; did you mean 'zero'?",)),
        ((*TRAIN, "--set", "probe.strata=contct"), ("stratum 'contct'; did you mean 'contact'?",)),
        ((*TRAIN, "--set", "probe.strata=[]"), ("strata is empty, expected some of free",)),
        ((*TRAIN, "--set", "probe.samples=0"), ("samples is 0, expected at least 1",)),
        ((*TRAIN, "--set", "open_loop.states=0"), ("states is 0, expected at least 1",)),
        ((*TRAIN, "--set", "open_loop.levels=1"), ("levels is 1, expected 0, or 2 or more",)),
        ((*EVAL, "--set", "rollout.batch=0"), ("batch is 0, expected at least 1",)),
        ((*EVAL, "--set", "rollout.shift=camra"), ("no shift 'camra'; did you mean 'camera'?",)),
        ((*EVAL, "--set", "rollout.episods=1"), ("did you mean 'episodes'?",)),
        (
            (*EVAL, "--set", "model.chunk=4"),
            ("model.chunk was decided in training; `wam eval` takes rollout.*",),
        ),
        (
            ("eval", "{run}", "--dataset", "{data}", "--out", "{out}", "--set", "data.held_out=2"),
            ("data.held_out was decided", "takes open_loop.*, data.alignment, data.resize"),
        ),
        (
            ("probe", "{run}", *EVAL[2:], "--set", "rollout.samples=2"),
            ("rollout.samples was decided in training; `wam probe` takes probe.*",),
        ),
        ((*IMAGINE, "{out}.png"), ("'.png'", ".gif", ".mp4")),
        (("list", "metrcs"), ("no list 'metrcs'", "did you mean 'metrics'?")),
        (("trian",), ("'trian'", "did you mean 'train'?")),
        (("report", "{out}"), ("there is no folder", "out")),
        (("report", "{run}/checkpoints"), ("holds no logs", "episodes/")),
        (("compare", "{run}", "{out}"), ("there is no folder", "out")),
        (("data", "inspect", "{out}"), ("there is no folder", "out")),
        (("probe", "{run}", *EVAL[2:], "--data", "{out}"), ("there is no folder", "out")),
        (("eval", "{out}", *EVAL[2:]), ("does not exist", "config.json")),
        (("eval", "{out}", "--env", "point/push"), ("out does not exist",)),
        (("probe", "{data}", "--env", "point/push"), ("is no run folder", "give --out")),
        ((*TRAIN[:2], "--data", "{out}", *TRAIN[4:]), ("there is no folder",)),
        (
            ("train", "own-data/pupil", "--data", "{out}", "--out", "{out}"),
            ("there is no folder",),
        ),
        (("data", "check", "{out}"), ("out: no such folder",)),
        (("eval", "{data}", *EVAL[2:]), ("is no checkpoint and no run", "config.json")),
        (("data", "inspect", "{run}"), ("is no LeRobot dataset", "meta/info.json")),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else None,
)
def test_what_is_asked_wrongly_is_answered_in_one_line(
    wam, made: Path, tmp_path: Path, words: tuple[str, ...], said: tuple[str, ...]
) -> None:
    places = {"data": made / "data", "run": made / "run", "out": tmp_path / "out"}
    wam(*(word.format(**places) for word in words)).refused(*said)
    assert not (tmp_path / "out").exists()


def test_an_unknown_public_name_or_metric_or_device(made: Path) -> None:
    import wamlab
    from wamlab.metrics.base import compute

    with pytest.raises(AttributeError, match="no attribute 'polcy'"):
        _ = wamlab.polcy
    with pytest.raises(KeyError, match="no metric 'succes_any'; did you mean 'success_any'"):
        compute("succes_any", [])
    with pytest.raises(ValueError, match="no device 'cud'; did you mean 'cuda'"):
        wamlab.load(made / "run", "cud")


def test_a_dataset_that_is_not_there_is_missed_before_the_run_is_printed(wam, tmp_path: Path):
    told = wam(*TRAIN[:2], "--data", tmp_path / "no", "--out", tmp_path / "out")
    told.refused(f"there is no folder {tmp_path / 'no'}")
    assert told.out == ""


def test_a_folder_without_a_dataset_is_a_fault_in_one_line(wam, tmp_path: Path):
    told = wam("data", "check", tmp_path)
    assert told.out == (
        f"{tmp_path}: error: meta/info.json: is missing (expected a LeRobot dataset)\n"
    )
    assert told.code == 1
