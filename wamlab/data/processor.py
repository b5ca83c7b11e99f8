"""Between raw units and what a model sees: scaling, sentences, and refusing what is not a number.

Owned by the trainer and the policy, saved in the checkpoint, mirrored in and out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from wamlab.config import from_dict, nearest
from wamlab.data.manifest import DataError, write_file
from wamlab.data.normalize import Statistics
from wamlab.nn.vision import to_pixels
from wamlab.types import ACTION, IMAGE, LATENT, ROLES, STATE, ActionSpace, Batch, Stream, Text

SCHEMA = 1
FILES = ("processor.json", "processor.safetensors")

Encoder = Callable[[list[str]], tuple[Float[Any, "b d"], Float[Any, "b l d"], Bool[Any, "b l"]]]
"""Sentences to pooled embedding, token embeddings and mask of real tokens."""


@dataclass(frozen=True)
class ProcessorConfig:
    """What a processor fits: views and sizes as in the model's configuration.

    ``clip_actions`` limits normalised actions to [-1, 1]; off, nothing is lost.
    """

    views: tuple[str, ...]
    image_size: int
    state_names: tuple[str, ...]
    rate_hz: float
    embodiment: str = ""
    clip_actions: bool = False


class Processor:
    """Scales batches in and actions out, and attaches sentence embeddings.

    ``statistics`` by stream (``state``, ``action``); an action-free model has none for actions.
    ``encoder`` is called only for sentences that are not in the processor's own store.
    """

    def __init__(
        self,
        config: ProcessorConfig,
        space: ActionSpace | None,
        statistics: Mapping[str, Statistics],
        *,
        encoder: Encoder | None = None,
    ) -> None:
        self.config, self.space, self.encoder = config, space, encoder
        self.statistics = dict(statistics)
        self.sentences: dict[str, tuple[Float[Tensor, " d"], Float[Tensor, "l d"]]] = {}

    def learn_sentences(self, sentences: Sequence[str], encoder: Encoder | None = None) -> None:
        """Encode and keep the sentences that are not known yet.

        Raises:
            ValueError: a new sentence and no encoder.
        """
        new = sorted(set(sentences) - set(self.sentences))
        encoder = encoder or self.encoder
        if new and encoder is None:
            known = nearest(new[0], self.sentences)
            raise ValueError(f"sentence {new[0]!r} is new and there is no encoder{known}")
        if new and encoder is not None:
            pooled, tokens, mask = (torch.as_tensor(part).cpu() for part in encoder(new))
            for row, sentence in enumerate(new):
                real = mask[row].bool()
                self.sentences[sentence] = (pooled[row].float(), tokens[row][real].float())

    def normalize(self, batch: Batch) -> Batch:
        """A raw batch as the model sees it, on the device on which its tensors are.

        Images become float (B, T, 3, H, W) in [-1, 1]; states and actions are scaled so that
        their 1 % and 99 % quantiles become -1 and 1. Latents are the codec's business and stay as
        they are. Absent entries are not looked at.

        Raises:
            ValueError: NaN or infinity, or an action outside a declared space, with stream and row.
        """
        batch = batch if isinstance(batch.role, Tensor) else batch.to("cpu")
        streams = {name: self._normalize(name, stream) for name, stream in batch.streams.items()}
        return dataclasses.replace(batch, streams=streams, text=self._encode(batch))

    def normalize_action(self, action: Float[Tensor, "*b a"]) -> Float[Tensor, "*b a"]:
        """Raw actions as the model sees them."""
        scaled = self._scale(ACTION, action)
        return scaled.clamp(-1, 1) if self.config.clip_actions else scaled

    def denormalize_action(self, action: Float[Tensor, "*b a"]) -> Float[Tensor, "*b a"]:
        """The inverse of `normalize_action`; not yet clipped to the space."""
        low, high = self._range(ACTION, action)
        return (action + 1) / 2 * (high - low) + low

    def model_statistics(self) -> dict[str, dict[str, Float[Tensor, " d"]]]:
        """Statistics of each stream in the model's units: what `WorldActionModel.fit` is given."""
        names = ("q01", "q99", "min", "max")
        return {
            stream: {
                name: self._scale(stream, torch.as_tensor(getattr(found, name)).float())
                for name in names
            }
            for stream, found in self.statistics.items()
        }

    def to_batch(self, observations: Sequence[Mapping[str, Any]]) -> Batch:
        """Raw environment observations as one raw batch of what is known now.

        Raises:
            ValueError: a missing view (with the nearest), another image or state size, NaN.
        """
        if not observations:
            raise ValueError("there is no observation")
        streams = {
            f"{IMAGE}{view}": _now([self._image(o, view) for o in observations])
            for view in self.config.views
        }
        if self.config.state_names:
            streams[STATE] = _now([self._state(o) for o in observations])
        rows = len(observations)
        return Batch(
            streams=streams,
            text=Text([str(o.get("instruction", "")) for o in observations]),
            role=np.ones((rows, len(ROLES)), bool),
            rate=np.full(rows, self.config.rate_hz, np.float32),
            embodiment=[self.config.embodiment] * rows,
        )

    def save(self, folder: str | Path) -> None:
        """Write ``processor.json`` and ``processor.safetensors`` into a checkpoint's folder.

        Raises:
            OSError: they cannot be written, as on a full disk.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        sentences = list(self.sentences)
        content = {
            "schema": SCHEMA,
            "config": dataclasses.asdict(self.config),
            "space": None if self.space is None else dataclasses.asdict(self.space),
            "statistics": {name: found.to_json() for name, found in self.statistics.items()},
            "sentences": sentences,
        }
        tensors = {}
        for index, sentence in enumerate(sentences):
            pooled, tokens = self.sentences[sentence]
            tensors[f"{index}.pooled"], tensors[f"{index}.tokens"] = pooled, tokens
        own = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        write_file(folder / FILES[1], tensor_bytes(own))
        write_file(folder / FILES[0], json.dumps(content, indent=1).encode())

    @classmethod
    def load(cls, folder: str | Path, *, encoder: Encoder | None = None) -> Processor:
        """Read what `save` wrote.

        Raises:
            DataError: files that are missing, damaged or of another schema.
        """
        folder = Path(folder)
        try:
            content = json.loads((folder / FILES[0]).read_text())
            tensors = load_file(folder / FILES[1])
            if content["schema"] != SCHEMA:
                raise DataError(
                    f"{folder} has processor schema {content['schema']!r}, not {SCHEMA}"
                )
            space = content["space"] and from_dict(ActionSpace, content["space"])
            found = {k: Statistics.from_json(v) for k, v in content["statistics"].items()}
            made = cls(from_dict(ProcessorConfig, content["config"]), space, found, encoder=encoder)
            for index, sentence in enumerate(content["sentences"]):
                made.sentences[sentence] = tensors[f"{index}.pooled"], tensors[f"{index}.tokens"]
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"the processor in {folder} cannot be read: {error!r}") from error
        return made

    def _normalize(self, name: str, stream: Stream) -> Stream:
        if name.startswith(IMAGE):
            return dataclasses.replace(stream, values=to_pixels(stream.values))
        if name.startswith(LATENT):
            return stream
        base = name.partition(".")[0]
        if base not in self.statistics:
            known = nearest(base, self.statistics)
            raise ValueError(f"there are no statistics of stream {name!r}{known}")
        self._check(name, stream)
        scaled = self._scale(base, stream.values)
        if base == ACTION and self.config.clip_actions:
            scaled = scaled.clamp(-1, 1)
        return dataclasses.replace(stream, values=scaled)

    def _check(self, name: str, stream: Stream) -> None:
        values = stream.values
        size = len(self.statistics[name.partition(".")[0]].q01)
        if values.shape[-1] != size:
            raise ValueError(f"stream {name!r} has size {values.shape[-1]}, expected {size}")
        bad = ~torch.isfinite(values)
        what = "NaN or infinity"
        if name == ACTION and self.space is not None and self.space.declared:
            low, high = (
                torch.tensor(bound, dtype=values.dtype, device=values.device)
                for bound in (self.space.low, self.space.high)
            )
            bad = bad | ~((values >= low - 1e-4) & (values <= high + 1e-4))
            what = f"NaN, infinity or a value outside {self.space.low} to {self.space.high}"
        found = (bad.any(dim=-1) & stream.present).any(dim=1)
        if bool(found.any()):
            row = int(found.nonzero()[0])
            raise ValueError(f"stream {name!r} has {what} in row {row} of the batch")

    def _scale(self, name: str, values: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        low, high = self._range(name, values)
        flat = high - low <= 1e-8
        width = torch.where(flat, torch.ones_like(low), high - low)
        return torch.where(flat, torch.zeros_like(values), 2 * (values - low) / width - 1)

    def _range(self, name: str, like: Tensor) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        if name not in self.statistics:
            raise ValueError(f"there are no statistics of {name!r}{nearest(name, self.statistics)}")
        low, high = self.statistics[name].range()
        make = lambda x: torch.as_tensor(x, dtype=like.dtype, device=like.device)  # noqa: E731
        return make(low), make(high)

    def _encode(self, batch: Batch) -> Text:
        sentences = batch.text.sentences
        if batch.text.pooled is not None or (self.encoder is None and not self.sentences):
            return batch.text
        self.learn_sentences(sentences)
        found = [self.sentences[sentence] for sentence in sentences]
        longest = max(len(tokens) for _, tokens in found)
        width = found[0][1].shape[-1]
        padded = torch.zeros(len(found), longest, width)
        mask = torch.zeros(len(found), longest, dtype=torch.bool)
        for row, (_, tokens) in enumerate(found):
            padded[row, : len(tokens)], mask[row, : len(tokens)] = tokens, True
        pooled = torch.stack([pooled for pooled, _ in found])
        return Text(sentences, pooled, padded, mask).to(batch.role.device)

    def _image(self, observation: Mapping[str, Any], view: str) -> np.ndarray:
        name, size = f"{IMAGE}{view}", self.config.image_size
        if name not in observation:
            views = [key for key in observation if key.startswith(IMAGE)]
            raise ValueError(f"the observation has no {name!r}{nearest(name, views)}")
        image = np.asarray(observation[name])
        if image.shape != (size, size, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"{name!r} is {image.dtype} {image.shape}, expected uint8 {(size, size, 3)}"
            )
        return image

    def _state(self, observation: Mapping[str, Any]) -> np.ndarray:
        names = self.config.state_names
        if STATE not in observation:
            raise ValueError(f"the observation has no {STATE!r}{nearest(STATE, observation)}")
        state = np.asarray(observation[STATE], np.float32)
        if state.shape != (len(names),):
            raise ValueError(f"state has shape {state.shape}, expected ({len(names)},) for {names}")
        if not np.isfinite(state).all():
            raise ValueError(f"state holds NaN or infinity: {state}")
        return state


def _now(rows: Sequence[np.ndarray]) -> Stream:
    """A stream with one instant, now, in every row."""
    values = np.stack(rows)[:, None]
    return Stream(values, np.zeros(values.shape[:2], np.int64), np.ones(values.shape[:2], bool))
