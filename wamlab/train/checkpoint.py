"""Checkpoints: a folder from which acting and resuming are possible, and which cannot lie.

::

    RUN/latest                        the newest checkpoint's name
    RUN/checkpoints/step-000123/
        config.json                   schema, model, run configuration, provenance, digests
        weights.safetensors           averaged weights: what acts
        action_space.json             what the numbers of an action mean
        processor/                    raw units to normalised tensors and back
        train/weights.safetensors     the weights being trained
        train/optimizer.safetensors   AdamW's moments, by parameter name
        train/position.json           stage, step: all randomness and the data order follow from it
        manifest.json                 SHA-256 and size of every file

A checkpoint is written into a hidden folder, forced to the disk, and renamed in one instant.
Readers trust only what its manifest confirms. Nothing is pickled.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
from torch import Tensor

from wamlab.config import from_dict, nearest, to_dict
from wamlab.data.manifest import sync, verify_manifest, write_file, write_manifest
from wamlab.models.base import ModelConfig, WorldActionModel, model_class
from wamlab.train.learner import tensor_digest, weights_digest
from wamlab.types import ActionSpace

SCHEMA = 1
LATEST = "latest"
CHECKPOINTS = "checkpoints"
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
TRAINED = "train/weights.safetensors"
OPTIMIZER = "train/optimizer.safetensors"
POSITION = "train/position.json"
SPACE = "action_space.json"
PROCESSOR = "processor"
_NAME = re.compile(r"step-(\d+)(?:-(\d+))?")


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, is damaged, or is not what was asked for."""


class Savable(Protocol):
    """The part of a processor that a checkpoint needs."""

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Snapshot:
    """Everything that one checkpoint holds.

    ``weights`` act; ``trained``, ``optimizer`` and ``position`` resume. ``run`` is the resolved
    configuration of the run and ``external`` the digests of weights that are not in here.
    """

    step: int
    model: str
    model_config: dict[str, Any]
    weights: Mapping[str, Tensor]
    trained: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    position: dict[str, Any]
    processor: Savable | None = None
    action_space: ActionSpace | None = None
    run: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: what it is, and the weights that act."""

    folder: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    action_space: ActionSpace | None

    @property
    def model(self) -> str:
        return self.config["model"]["name"]

    @property
    def step(self) -> int:
        return self.config["step"]

    @property
    def processor(self) -> Path:
        """The folder of the processor."""
        return self.folder / PROCESSOR

    def position(self) -> dict[str, Any]:
        """Where training stood."""
        return json.loads((self.folder / POSITION).read_text())

    def trained(self) -> dict[str, Tensor]:
        """The weights being trained."""
        return _read_tensors(self.folder / TRAINED)

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's state as named tensors."""
        return _read_tensors(self.folder / OPTIMIZER)

    def build(self) -> WorldActionModel:
        """The model with the weights that act, in evaluation mode on the CPU.

        Raises:
            CheckpointError: this library's model of that name has other fields or tensors.
        """
        try:
            kind = model_class(self.model)
            model = kind(_model_config(kind, self.config["model"]["config"]))
            load_weights(model, self.weights)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{self.folder}: {error.args[0]}") from error
        return model.eval()


def load_weights(model: WorldActionModel, weights: Mapping[str, Tensor]) -> None:
    """Load all tensors of ``model``, or say by name which are missing, unknown or of other shape.

    Raises:
        CheckpointError: the weights belong to another model or another configuration of it.
    """
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in sorted(set(own) - set(weights))]
    wrong += [f"{name} is unknown{nearest(name, own)}" for name in sorted(set(weights) - set(own))]
    wrong += [
        f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in sorted(set(own) & set(weights))
        if own[name].shape != weights[name].shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"these are not weights of {model.name}: {'; '.join(wrong[:3])}{more}"
        )
    model.load_state_dict(dict(weights))


def save_checkpoint(
    run: str | Path, snapshot: Snapshot, *, keep: int = 2, protect: Collection[int] = ()
) -> Path:
    """Add a checkpoint to the folder of a run and point ``latest`` to it.

    Older ones go, except the newest ``keep`` (at least 2) whose manifests verify and the steps in
    ``protect``. A crash or a full disk at any instant leaves all earlier checkpoints as they were.

    Raises:
        CheckpointError: it could not be written; says why and which checkpoint is the newest.
    """
    run = Path(run)
    parent = run / CHECKPOINTS
    try:
        parent.mkdir(parents=True, exist_ok=True)
        clean(run)
        folder = _publish(parent, snapshot)
        write_file(run / LATEST, f"{CHECKPOINTS}/{folder.name}\n".encode())
    except OSError as error:
        clean(run)
        newest = newest_verified(run)
        raise CheckpointError(
            f"checkpoint of step {snapshot.step} could not be written to {parent}: "
            f"{error.strerror or error}; the newest complete one is {newest or 'none'}"
        ) from error
    retain(run, keep, protect)
    return folder


def load_checkpoint(
    folder: str | Path, *, verify: bool = True, model: str | None = None
) -> Checkpoint:
    """Read a checkpoint, or the newest one of a run's folder.

    Args:
        verify: compare every byte with the manifest first.
        model: the name of the only model that will do.

    Raises:
        CheckpointError: no checkpoint there, a wrong byte (naming file and, where it can, tensor),
            another schema, or another model.
    """
    folder = resolve(folder)
    if verify:
        _verify(folder)
    try:
        config = json.loads((folder / CONFIG).read_text())
        schema, name = config["schema"], config["model"]["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG} cannot be read: {error}") from error
    if schema != SCHEMA:
        raise CheckpointError(
            f"{folder} has schema {schema}, expected {SCHEMA}: "
            f"it was written by wamlab {config.get('wamlab', 'of another version')}"
        )
    if model is not None and name != model:
        raise CheckpointError(f"{folder} holds model {name!r}, expected {model!r}")
    space = folder / SPACE
    values = json.loads(space.read_text()) if space.exists() else None
    return Checkpoint(
        folder,
        config,
        _read_tensors(folder / WEIGHTS),
        None if values is None else from_dict(ActionSpace, values),
    )


def resolve(folder: str | Path) -> Path:
    """The checkpoint that a path means: itself, or what ``latest`` of a run names."""
    folder = Path(folder)
    if (folder / CONFIG).is_file():
        return folder
    if not (folder / LATEST).is_file():
        what = "is no checkpoint and no run" if folder.exists() else "does not exist"
        raise CheckpointError(f"{folder} {what}: expected {CONFIG} or {LATEST} in it")
    name = (folder / LATEST).read_text(errors="replace").strip()
    found = folder / CHECKPOINTS / Path(name).name
    if name != f"{CHECKPOINTS}/{found.name}" or not _NAME.fullmatch(found.name):
        raise CheckpointError(f"{folder / LATEST} names {name!r}, expected {CHECKPOINTS}/step-...")
    if not found.is_dir():
        known = nearest(found.name, [path.name for path in checkpoints(folder)])
        raise CheckpointError(f"{folder / LATEST} names {name!r}, which does not exist{known}")
    return found


def checkpoints(run: str | Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    parent = Path(run) / CHECKPOINTS
    found = [path for path in parent.glob("step-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=_order)


def newest_verified(run: str | Path) -> Path | None:
    """The newest checkpoint whose every byte is right, or None."""
    whole = (path for path in reversed(checkpoints(run)) if not verify_manifest(path))
    return next(whole, None)


def clean(run: str | Path) -> None:
    """Remove what killed or failed writers have left behind."""
    run = Path(run)
    for path in (run / CHECKPOINTS).glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in run.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def retain(run: str | Path, keep: int, protect: Collection[int] = ()) -> None:
    """Delete old checkpoints, but never the newest two (or ``keep``) that verify."""
    safe = 0
    for path in reversed(checkpoints(run)):
        if safe < max(2, keep):
            safe += not verify_manifest(path)
        elif _order(path)[0] not in protect:
            doomed = path.with_name(f".tmp-{path.name}")
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def _order(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    assert match
    return int(match[1]), int(match[2] or 0)


def _publish(parent: Path, snapshot: Snapshot) -> Path:
    with _temporary(parent, snapshot.step) as temporary:
        _write(temporary, snapshot)
        for path in sorted(temporary.rglob("*")):
            sync(path)
        write_manifest(temporary)
        sync(temporary)
        target = _target(parent, snapshot)
        if not target.exists():
            temporary.rename(target)
    sync(parent)
    return target


@contextmanager
def _temporary(parent: Path, step: int) -> Iterator[Path]:
    folder = parent / f".tmp-{step}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _target(parent: Path, snapshot: Snapshot) -> Path:
    """The name to publish under: an equal checkpoint that is there already, or a free name."""
    digest = weights_digest(snapshot.trained)
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        target = parent / f"step-{snapshot.step:06d}{suffix}"
        if not target.exists():
            return target
        if not verify_manifest(target):
            there = json.loads((target / CONFIG).read_text())
            if there.get("digests", {}).get(TRAINED) == digest:
                return target
    raise CheckpointError(f"{parent} holds too many different checkpoints of step {snapshot.step}")


def _write(folder: Path, snapshot: Snapshot) -> None:
    import wamlab

    (folder / "train").mkdir()
    config = {
        "schema": SCHEMA,
        "wamlab": wamlab.__version__,
        "step": snapshot.step,
        "model": {"name": snapshot.model, "config": snapshot.model_config},
        "run": snapshot.run,
        "digests": {
            WEIGHTS: weights_digest(snapshot.weights),
            TRAINED: weights_digest(snapshot.trained),
        },
        "external": snapshot.external,
        "provenance": snapshot.provenance,
    }
    write_file(folder / CONFIG, _json(config))
    write_file(folder / POSITION, _json(snapshot.position))
    if snapshot.action_space is not None:
        write_file(folder / SPACE, _json(to_dict(snapshot.action_space)))
    tensors = {WEIGHTS: snapshot.weights, TRAINED: snapshot.trained, OPTIMIZER: snapshot.optimizer}
    for name, values in tensors.items():
        write_file(folder / name, _tensor_bytes(values))
    if snapshot.processor is not None:
        (folder / PROCESSOR).mkdir()
        snapshot.processor.save(folder / PROCESSOR)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file whose header also holds the digest of each tensor."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    digests = {name: tensor_digest(tensor) for name, tensor in sorted(own.items())}
    return safetensors.torch.save(own, metadata={"sha256": json.dumps(digests)})


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _verify(folder: Path) -> None:
    if problems := verify_manifest(folder):
        told = "; ".join(f"{p.where} {p.what}{_damaged(folder / p.where)}" for p in problems[:3])
        raise CheckpointError(f"{folder} is damaged: {told}")


def _damaged(path: Path) -> str:
    """Which tensors of a damaged file are not as they were written, where its header tells."""
    if path.suffix != ".safetensors" or not path.is_file():
        return ""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            digests = json.loads((file.metadata() or {}).get("sha256", "{}"))
            wrong = [n for n in file.keys() if tensor_digest(file.get_tensor(n)) != digests.get(n)]  # noqa: SIM118
    except (OSError, ValueError, safetensors.SafetensorError):
        return ", its header is unreadable"
    return f", tensor {', '.join(wrong[:3])}" if wrong else ""


def _model_config(kind: type[WorldActionModel], values: dict[str, Any]) -> ModelConfig:
    return from_dict(kind.Config, values)
