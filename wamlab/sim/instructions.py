"""What to say for each Meta-World task: one sentence to train with, others kept apart for testing.

In ``instructions.json`` the first sentence of a task is its instruction; the rest are paraphrases
that no training ever sees.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from wamlab.config import nearest

Said = Literal["swapped", "empty"]
Sentence = int | Said
"""0 is what training said, 1, 2, ... are paraphrases; ``swapped`` is another task's sentence, and
``empty`` says nothing. Success is always judged for the task itself."""

THEN = ", then "
"""Between the sentences of an episode in which the instruction changed."""

_SENTENCES: dict[str, list[str]] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
INSTRUCTIONS: dict[str, str] = {task: sentences[0] for task, sentences in _SENTENCES.items()}
PARAPHRASES: dict[str, tuple[str, ...]] = {
    task: tuple(sentences[1:]) for task, sentences in _SENTENCES.items()
}


def sentence_of(task: str, sentence: Sentence = 0) -> str:
    """The task's instruction (0), one of its paraphrases (1, 2, ...), or nothing (``empty``).

    Raises:
        ValueError: the task has no such sentence; ``swapped`` is one of those, because a
            Meta-World task has its scene to itself and the scene says what to do.
    """
    if sentence == "swapped":
        raise ValueError(
            f"{task} has its scene to itself: there is no other task to swap sentences with"
        )
    return pick_sentence(task, _SENTENCES[task], sentence)


def pick_sentence(task: str, sentences: Sequence[str], sentence: Sentence) -> str:
    """The numbered one of a task's sentences, or the empty one.

    Raises:
        ValueError: the task has no such sentence.
    """
    if sentence == "empty":
        return ""
    if isinstance(sentence, str):
        raise ValueError(f"no sentence {sentence!r}{nearest(sentence, get_args(Said))}")
    if not 0 <= sentence < len(sentences):
        raise ValueError(f"{task} has sentences 0 to {len(sentences) - 1}, got {sentence}")
    return sentences[sentence]
