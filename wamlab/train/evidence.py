"""A batch on disk, without pickle: what a run leaves behind when its loss is no longer finite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from wamlab.data.manifest import write_file
from wamlab.types import Batch, Stream, Text

TENSORS = "batch.safetensors"
REST = "batch.json"


def save_batch(batch: Batch, folder: str | Path, **about: Any) -> Path:
    """Write ``batch`` and whatever is known about it; cameras are left out."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"role": batch.role, "rate": batch.rate}
    for name, stream in batch.streams.items():
        for part in ("values", "offsets", "present", "dims"):
            tensors[f"streams/{name}/{part}"] = getattr(stream, part)
    for part in ("pooled", "tokens", "mask"):
        tensors[f"text/{part}"] = getattr(batch.text, part)
    own = {
        name: torch.as_tensor(value).detach().cpu().contiguous().clone()
        for name, value in tensors.items()
        if value is not None
    }
    rest = {"sentences": batch.text.sentences, "embodiment": batch.embodiment, "about": about}
    write_file(folder / TENSORS, safetensors.torch.save(own))
    write_file(folder / REST, (json.dumps(rest, indent=1) + "\n").encode())
    return folder


def load_batch(folder: str | Path) -> Batch:
    """The inverse of `save_batch`, as torch tensors."""
    folder = Path(folder)
    tensors = safetensors.torch.load_file(folder / TENSORS)
    rest = json.loads((folder / REST).read_text())
    names = [name.removeprefix("streams/").removesuffix("/values") for name in tensors]
    names = [name for name in names if f"streams/{name}/values" in tensors]
    text = Text(
        rest["sentences"], *(tensors.get(f"text/{p}") for p in ("pooled", "tokens", "mask"))
    )
    return Batch(
        {name: _stream(tensors, f"streams/{name}") for name in names},
        text,
        tensors["role"],
        tensors["rate"],
        rest["embodiment"],
    )


def _stream(tensors: Mapping[str, Tensor], path: str) -> Stream:
    return Stream(
        tensors[f"{path}/values"],
        tensors[f"{path}/offsets"],
        tensors[f"{path}/present"],
        tensors.get(f"{path}/dims"),
    )
