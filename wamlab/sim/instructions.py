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
