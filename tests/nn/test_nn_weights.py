"""Published weights: what the reader of pickles refuses, and which bytes alone are taken."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from wamlab.nn import mobilenet, weights
from wamlab.nn.pickled import NotArrays, read_arrays
from wamlab.nn.weights import MissingWeights, Published

HEADS = {
    "lpips-alex": (2.3495, 16.1430, 39.2684, 27.1972, 20.3172),
    "lpips-vgg": (6.9260, 8.8583, 17.5150, 51.5213, 47.0349),
}


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.what = (function, arguments)

    def __reduce__(self) -> Any:
        return self.what


class Sets:
    """Pickles as a call and then a state."""

    def __reduce__(self) -> Any:
        return np.dtype, ("f4",), {"harm": 1}


def write(path: Path, value: Any, protocol: int = 3) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def tree() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    turned = np.asfortranarray(rng.normal(size=(3, 4)).astype("f4"))
    inner = {"kernel": turned, "bias": rng.normal(size=5), "none": np.zeros((0, 2), "i8")}
    return {"Conv_0": inner, "scale": np.array(3, "u1")}


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_tree_of_arrays_comes_back(tmp_path: Path, protocol: int) -> None:
    found = read_arrays(write(tmp_path / "a.ckpt", tree(), protocol))
    assert list(found) == ["Conv_0/kernel", "Conv_0/bias", "Conv_0/none", "scale"]
    for name, value in found.items():
        top, _, leaf = name.partition("/")
        true = tree()[top][leaf] if leaf else tree()[top]
        assert value.dtype == true.dtype
        np.testing.assert_array_equal(value, true)
        assert value.flags["C_CONTIGUOUS"]


def harm(path: Path) -> Any:
    return Calls(os.system, f"touch {path}")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_would_run_something_does_not(tmp_path: Path, protocol: int) -> None:
    path = write(tmp_path / "evil.ckpt", {"w": harm(tmp_path / "harmed")}, protocol)
    with pytest.raises(NotArrays):
        read_arrays(path)
    assert not (tmp_path / "harmed").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "harmed").exists()  # Python's own reader would have


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"w": Calls(eval, "1")}, r"it asks for builtins\.eval, and only numpy arrays are read"),
        ({"w": Calls(os.system, "true")}, r"it asks for posix\.system"),
        ({"w": Calls(np.loadtxt, "x")}, r"it asks for numpy\.loadtxt"),
        ({"w": np.dtype("O")}, r"it calls dtype of numpy with \('O8'"),
        ({"w": np.array([{}], object)}, r"it calls dtype of numpy with \('O8'"),
        ({"w": np.arange(3, dtype=">i4")}, "byte order '>'"),
        ({"w": [np.ones(2)]}, "the instruction EMPTY_LIST at byte"),
        ({"w": {1: np.ones(2)}}, "words as keys"),
        ({"w": 1.5}, "the instruction BINFLOAT at byte"),
        ({"w": "text"}, "expected a tree of arrays, found str at 'w'"),
        (np.ones(3), "expected a tree of arrays, found _Array at ''"),
        ({"w": Calls(np.ndarray, 3)}, "it calls ndarray of numpy"),
        (Sets(), "byte order|no whole pickle"),
    ],
)
def test_anything_but_arrays_is_refused_by_name(tmp_path: Path, value: Any, said: str) -> None:
    with pytest.raises(NotArrays, match=said):
        read_arrays(write(tmp_path / "odd.ckpt", value))


def test_a_tree_without_end_and_a_torn_file_are_refused(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(NotArrays, match="found dict at 'again'"):
        read_arrays(write(tmp_path / "endless.ckpt", endless))
    whole = pickle.dumps(tree(), protocol=3)
    for length in range(0, len(whole) - 1, 7):
        (tmp_path / "torn.ckpt").write_bytes(whole[:length])
        with pytest.raises(NotArrays):
            read_arrays(tmp_path / "torn.ckpt")


def test_an_array_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    content = pickle.dumps({"w": np.zeros(200, "u1")}, protocol=3)
    grown = content.replace(b"K\xc8\x85", b"K\xc9\x85", 1)
    assert grown != content
    (tmp_path / "lies.ckpt").write_bytes(grown)
    with pytest.raises(NotArrays, match=r"shape \(201,\) of uint8 in 200 bytes"):
        read_arrays(tmp_path / "lies.ckpt")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights called ``mine`` with their digests; returns the file they are read from."""
    monkeypatch.setenv("WAMLAB_WEIGHTS", str(tmp_path / "kept"))
    file = write(tmp_path / "mine.ckpt", {"Conv_0": {"kernel": np.ones((2, 3), "f4")}})

    def read(path: Path) -> weights.State:
        return {name: torch.from_numpy(value) for name, value in read_arrays(path).items()}

    one = Published(
        "Mine",
        "BSD",
        "mine-weights",
        "mine_weights/mine.ckpt",
        weights.hashlib.sha256(file.read_bytes()).hexdigest(),
        weights.digest_of(read(file)),
        read,
    )
    monkeypatch.setitem(weights.WEIGHTS, "mine", one)
    return file


def test_weights_are_converted_once_and_then_held_to_their_digest(mine: Path) -> None:
    with pytest.raises(MissingWeights, match=r"--no-deps mine-weights, then: wam weights mine"):
        weights.load("mine")
    kept = weights.convert("mine", mine)
    assert kept == weights.path_of("mine")
    torch.testing.assert_close(weights.load("mine"), {"Conv_0/kernel": torch.ones(2, 3)})
    with safe_open(kept, "pt") as file:
        assert file.metadata() == {"licence": "BSD", "package": "mine-weights"}
    assert [path.name for path in kept.parent.iterdir()] == ["mine.safetensors"]
    weights.save_file({"Conv_0/kernel": 2 * torch.ones(2, 3)}, kept)
    with pytest.raises(ValueError, match="does not hold Mine: the digest of its tensors is"):
        weights.load("mine")


def test_another_file_than_the_reviewed_one_is_not_even_read(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.write_bytes(mine.read_bytes() + b"\0")
    never = dataclasses.replace(weights.find("mine"), read=lambda path: pytest.fail("was read"))
    monkeypatch.setitem(weights.WEIGHTS, "mine", never)
    with pytest.raises(ValueError, match=r"mine\.ckpt is not the file of mine-weights that was"):
        weights.convert("mine", mine)
    assert not weights.path_of("mine").exists()


def test_a_missing_package_a_missing_file_and_a_wrong_name_are_told_apart(mine: Path) -> None:
    with pytest.raises(MissingWeights, match="the package mine-weights, which is not installed"):
        weights.convert("mine")
    with pytest.raises(MissingWeights, match="there is no file"):
        weights.convert("mine", mine.with_name("other.ckpt"))
    with pytest.raises(KeyError, match="no weights 'lpips-alexx'; did you mean 'lpips-alex'"):
        weights.load("lpips-alexx")


def test_the_digest_is_of_names_shapes_types_and_values() -> None:
    one = {"a": torch.ones(2, 3), "b": torch.zeros(())}
    same = {"b": torch.zeros(()), "a": torch.ones(3, 2).T}
    assert weights.digest_of(one) == weights.digest_of(same)
    others = (
        {"a": torch.ones(3, 2), "b": torch.zeros(())},
        {"a": torch.ones(2, 3), "c": torch.zeros(())},
        {"a": torch.ones(2, 3).double(), "b": torch.zeros(())},
        {"a": torch.ones(2, 3), "b": torch.ones(())},
    )
    assert len({weights.digest_of(other) for other in (one, *others)}) == 5


@pytest.mark.parametrize("name", HEADS)
def test_the_published_heads_have_their_fingerprints(
    name: str, published: Callable[[str], None]
) -> None:
    published(name)
    state = weights.load(name)
    sums = [float(state[f"heads.{layer}"].sum()) for layer in range(5)]
    assert sums == pytest.approx(HEADS[name], abs=6e-5)
    assert all(bool((state[f"heads.{layer}"] >= 0).all()) for layer in range(5))


def test_files_of_a_users_own_are_tensors_or_refused(tmp_path: Path) -> None:
    state = {"a": torch.ones(2)}
    torch.save(state, tmp_path / "a.pth")
    weights.save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        torch.testing.assert_close(weights.read_state(tmp_path / name), state)
    torch.save({"a": harm(tmp_path / "harmed")}, tmp_path / "evil.pth")
    torch.save({"a": 3}, tmp_path / "number.pth")
    for name in ("evil.pth", "number.pth"):
        with pytest.raises(ValueError, match=f"{name} is no torch state dict"):
            weights.read_state(tmp_path / name)
    assert not (tmp_path / "harmed").exists()
    with pytest.raises(MissingWeights, match=r"no file of weights at .*b\.pth"):
        weights.read_state(tmp_path / "b.pth")


def test_a_file_of_another_network_is_no_mobilenet(tmp_path: Path) -> None:
    weights.save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors holds no MobileNetV2: 'a' is on one"):
        mobilenet.pretrained(tmp_path / "a.safetensors")


def test_weights_lie_where_they_are_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAMLAB_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert weights.folder() == Path("/cache/wamlab/weights")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights.folder() == Path.home() / ".cache" / "wamlab" / "weights"
