"""What a run reports while it trains: a JSON line, TensorBoard where installed, a progress bar."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wamlab.data.logs import load_losses
from wamlab.data.manifest import naming, write_file
from wamlab.train.learner import StepReport

LOG = "loss.jsonl"


class RunLog:
    """Means over the steps since the last line, written to ``loss.jsonl``."""

    def __init__(self, out: Path, every: int, progress: bool) -> None:
        self.path, self.every, self.progress = out / LOG, every, progress
        self.board = _tensorboard(out)
        self.bar: tqdm[Any] | None = None
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, float] = {}
        self.count, self.samples, self.waited = 0, 0, 0.0
        self.start = time.perf_counter()

    def begin(self, stage: str, done: int, steps: int) -> None:
        """A stage begins (or goes on) at step ``done``."""
        self.end()
        self.bar = tqdm(
            total=steps, initial=done, desc=stage, unit="step", disable=not self.progress
        )
        self._clear()

    def end(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def close(self) -> None:
        self.end()
        if self.board is not None:
            self.board.close()

    def add(self, report: StepReport, samples: int, waited: float) -> None:
        """One step was done on ``samples`` rows, after ``waited`` seconds for its data."""
        for name, value in {**report.losses, "grad_norm": report.grad_norm}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        self.samples += samples
        self.waited += waited
        if self.bar is not None:
            self.bar.update()

    def line(self, step: int, stage: str, stage_step: int, lr: float) -> dict[str, Any]:
        """Write the means since the last line; ``step`` counts the finished steps of the run."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        means = {name: value / self.count for name, value in self.sums.items()}
        values = {
            **means,
            "lr": lr,
            "samples_per_s": self.samples / seconds,
            "data_wait_share": self.waited / seconds,
        }
        if self.bar is not None:
            loss, rate = means.get("loss", float("nan")), values["samples_per_s"]
            self.bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} samples/s")
        self.write({"step": step, "stage": stage, "stage_step": stage_step, **values})
        self._clear()
        return values

    def write(self, values: Mapping[str, Any]) -> None:
        with naming(self.path), self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")
        if self.board is not None:
            for name, value in values.items():
                if isinstance(value, float):
                    self.board.add_scalar(f"{values['stage']}/{name}", value, values["step"])

    def say(self, text: str) -> None:
        if self.progress:
            tqdm.write(text)


def rewind_log(out: Path, step: int) -> None:
    """Forget what was logged after ``step``: a resumed run will log it again."""
    kept = [line for line in load_losses(out) if line["step"] <= step]
    write_file(out / LOG, "".join(json.dumps(line) + "\n" for line in kept).encode())


def _tensorboard(out: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(out / "tensorboard"))
