"""Training and collecting on datasets that do not fit or are not whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wamlab.data.commit import acquire_lock
from wamlab.data.lerobot import Dataset, verify

TABLE = "data/chunk-000/file-001.parquet"
VIDEO = "videos/observation.images.top/chunk-000/file-001.mp4"


def train(data: Path, out: Path, *more: str) -> tuple[object, ...]:
    words = ("train", "mw-demo/pupil", "--data", data, "--out", out, "--steps", "2")
    return (*words, "--device", "cpu", "--set", "train.augment_shift=0", *more)


def collect(out: Path) -> tuple[object, ...]:
    return ("collect", "--env", "point/push", "--episodes", "4", "--out", out)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def loosen(data: Path, **changes: object) -> None:
    """The dataset as another program might have written it: no manifest, no declarations."""
    (data / "manifest.json").unlink()
    info = json.loads((data / "meta/info.json").read_text())
    del info["wamlab"]
    (data / "meta/info.json").write_text(json.dumps(info | changes))


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("model.views=topp,side", ("no view 'topp'", "did you mean 'top'?")),
        ("model.image_size=32", ("frames of 16 x 16", "expected 32 x 32")),
        ("model.action_dim=7", ("action size 4", "expects 7", "set model.action_dim=4")),
        ("model.state_dim=7", ("state size 4", "expects 7", "set model.state_dim=4")),
    ],
)
@pytest.mark.parametrize("how", [(), ("--dry-run",)], ids=["train", "dry-run"])
def test_data_that_do_not_fit_the_model(wam, made, tmp_path, field, said, how) -> None:
    out = tmp_path / "out"
    wam(*train(made / "data", out, "--set", field, *how)).refused(*said)
    assert not out.exists()


def test_a_lower_rate_is_trained_at_and_acts_at_no_other(wam, data, tmp_path) -> None:
    out = tmp_path / "out"
    said = wam(*train(data, out, "--set", "model.rate_hz=5"))
    assert said.code == 0, said.err
    act = wam("eval", out, "--env", "point/push", "--episodes", "1", "--out", tmp_path / "eval")
    act.refused("was trained on the action space", "rate_hz=5.0", "rate_hz=10.0")


@pytest.mark.parametrize(
    "name", ["meta/info.json", "meta/tasks.parquet", "meta/stats.json", "manifest.json", TABLE]
)
def test_a_file_that_was_cut_off_is_named(wam, data, tmp_path, name) -> None:
    cut(data / name)
    wam(*train(data, tmp_path / "out")).refused(str(data), name, "damaged")
    wam(*collect(data)).refused(str(data), name, "damaged")
    assert wam("data", "check", data).code == 1
    assert wam("verify", data).out.count(name) >= 1
    assert not (tmp_path / "out").exists()


def test_a_video_that_was_cut_off_is_named_when_it_is_read(
    wam, data, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("WAMLAB_CACHE", str(tmp_path / "cache"))
    cut(data / VIDEO)
    wam(*train(data, tmp_path / "out")).refused(str(data), VIDEO, "damaged")
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["meta/info.json", "meta/tasks.parquet", "meta/stats.json"])
def test_cut_off_metadata_of_a_foreign_dataset_are_named(wam, data, tmp_path, name) -> None:
    loosen(data)
    cut(data / name)
    wam(*train(data, tmp_path / "out")).refused(f"{data}/{name} is damaged")


@pytest.mark.parametrize("name", [TABLE, VIDEO])
def test_a_cut_off_file_of_a_foreign_dataset_is_named(wam, data, tmp_path, name) -> None:
    loosen(data)
    cut(data / name)
    wam(*train(data, tmp_path / "out")).refused(Path(name).name, "cannot be")


@pytest.mark.parametrize("fps", [0, None])
def test_a_dataset_without_a_rate(wam, data, tmp_path, fps) -> None:
    loosen(data, fps=fps)
    wam(*train(data, tmp_path / "out")).refused(str(data))


@pytest.mark.parametrize(("column", "word"), [("observation.state", "state"), ("action", "action")])
def test_nan_in_a_dataset_is_named_by_episode_and_row(wam, data, tmp_path, column, word) -> None:
    table = pq.ParquetFile(data / TABLE).read()
    values = np.stack(table.column(column).to_pylist()).astype(np.float32)
    values[2, 0] = np.nan
    place = table.column_names.index(column)
    cells = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    loosen(data)
    pq.write_table(table.set_column(place, column, cells), data / TABLE)
    said = wam(*train(data, tmp_path / "out"))
    said.refused("episode 1 has NaN or infinity", word, "row 2")
    assert "episode 1" in wam("data", "check", data).out


def test_two_collections_into_one_dataset(wam, data) -> None:
    with acquire_lock(data):
        wam(*collect(data)).refused(str(data), "is being written by another process")
    assert wam(*collect(data)).code == 0
    assert len(Dataset(data)) == 4
    assert verify(data) == []


def test_a_folder_of_another_kind_is_left_as_it_was(wam, data, run, tmp_path) -> None:
    said = "is a dataset or checkpoint, expected a folder of another kind"
    wam(*train(data, data)).refused(str(data), said)
    wam("eval", run, "--env", "point/push", "--out", data).refused(str(data), said)
    wam("probe", run, "--env", "point/push", "--out", data).refused(str(data), said)
    assert verify(data) == []
    wam(*collect(run)).refused(str(run), "is no dataset but not empty")
    file = data / "manifest.json"
    wam(*train(data, file)).refused("is a file, expected a folder")
    wam(*collect(file)).refused("is a file, expected a folder")
