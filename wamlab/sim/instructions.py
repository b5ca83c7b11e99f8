"""What to say for each Meta-World task: one sentence to train with, others kept apart for testing.

In ``instructions.json`` the first sentence of a task is its instruction; the rest are paraphrases
that no training ever sees.
"""

from __future__ import annotations

import json
from pathlib import Path

_SENTENCES: dict[str, list[str]] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
INSTRUCTIONS: dict[str, str] = {task: sentences[0] for task, sentences in _SENTENCES.items()}
PARAPHRASES: dict[str, tuple[str, ...]] = {
    task: tuple(sentences[1:]) for task, sentences in _SENTENCES.items()
}


def sentence_of(task: str, number: int = 0) -> str:
    """The task's instruction (0), or one of its paraphrases (1, 2, ...).

    Raises:
        ValueError: the task has no such sentence.
    """
    sentences = _SENTENCES[task]
    if not 0 <= number < len(sentences):
        raise ValueError(f"{task} has sentences 0 to {len(sentences) - 1}, got {number}")
    return sentences[number]
