"""What a dataset is, for a person: a contact sheet, an alignment plot and a page of text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import UInt8

from wamlab.data.check import alignment_of
from wamlab.data.lerobot import ACTION_COLUMN, Dataset

BARS = " .:-=+*#"


def inspect(path: str | Path, out: str | Path, *, episodes: int = 8, instants: int = 8) -> str:
    """Write ``contact.png``, ``alignment.png`` and ``summary.txt`` into ``out``.

    Returns the summary.

    Raises:
        DataError: the dataset cannot be read.
    """
    dataset, out = Dataset(path), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    summary = describe(dataset)
    (out / "summary.txt").write_text(summary)
    _plot_contact(dataset, out / "contact.png", episodes, instants)
    _plot_alignment(dataset, out / "alignment.png")
    return summary


def describe(dataset: Dataset) -> str:
    """Episodes, lengths, tasks, success, variants, action histograms and alignment as text."""
    infos = dataset.episodes
    lengths = np.asarray([info.length for info in infos] or [0])
    lines = [
        f"{dataset.path}: LeRobot {dataset.version}, {dataset.embodiment}, {dataset.fps:g} Hz",
        f"views: {', '.join(dataset.views) or 'none'}; state: {', '.join(dataset.state_names)}",
        f"episodes: {len(infos)}, rows {lengths.sum()}, of {lengths.min()} to {lengths.max()} rows "
        f"(median {np.median(lengths):g})",
        f"success: {_success(dataset)}",
        f"alignment: {dataset.alignment}; {alignment_of(dataset)}",
        *(f"note: {note}" for note in dataset.notes),
        "",
        "tasks",
        *(f"  {n:5d}  {task}" for task, n in Counter(i.task for i in infos).most_common()),
        *_variants(dataset),
        *_histograms(dataset),
    ]
    return "\n".join(lines) + "\n"


def contact_sheet(
    dataset: Dataset, view: str, episodes: int = 8, instants: int = 8
) -> UInt8[np.ndarray, "h w 3"]:
    """Evenly spread frames of evenly spread episodes: a row each, time to the right."""
    usable = [i for i, info in enumerate(dataset.episodes) if info.length > 0]
    chosen = [usable[i] for i in _spread(len(usable), episodes)]
    rows = []
    for index in chosen:
        frames = dataset.frames(view, index)
        rows.append(frames[np.linspace(0, len(frames) - 1, instants).round().astype(int)])
    return rearrange(np.stack(rows), "e t h w c -> (e h) (t w) c")


def _spread(count: int, wanted: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist()


def _success(dataset: Dataset) -> str:
    known = [info.success for info in dataset.episodes if info.success is not None]
    return f"{sum(known)} of {len(known)}" if known else "not recorded"


def _variants(dataset: Dataset) -> list[str]:
    names = sorted({name for info in dataset.episodes for name in info.variant})
    lines = ["", "variants"] if names else []
    for name in names:
        values = [info.variant[name] for info in dataset.episodes if name in info.variant]
        if all(isinstance(value, (int, float)) for value in values):
            numbers = np.asarray(values, float)
            lines.append(f"  {name}: {numbers.min():.3g} to {numbers.max():.3g}")
        else:
            counts = Counter(map(str, values)).most_common(8)
            lines.append(f"  {name}: " + ", ".join(f"{value} {n}" for value, n in counts))
    return lines


def _histograms(dataset: Dataset, bins: int = 24) -> list[str]:
    """One line of text per action dimension, over the bounds of the action space."""
    if dataset.space is None:
        return []
    usable = [i for i, info in enumerate(dataset.episodes) if info.length > 1]
    if not usable:
        return []
    parts = [dataset.actions(dataset.column(ACTION_COLUMN, i)) for i in usable]
    actions = np.concatenate(parts).reshape(-1, dataset.space.size)
    lines = ["", "actions"]
    for i, name in enumerate(dataset.space.names):
        low, high = dataset.space.low[i], dataset.space.high[i]
        counts = np.histogram(actions[:, i], bins=bins, range=(low, max(high, low + 1e-9)))[0]
        level = np.ceil(counts / max(counts.max(), 1) * (len(BARS) - 1)).astype(int)
        drawn = "".join(BARS[k] for k in level)
        lines.append(f"  {name:>12} {low:+.3g} [{drawn}] {high:+.3g}")
    return lines


def _plot_contact(dataset: Dataset, path: Path, episodes: int, instants: int) -> None:
    from PIL import Image

    if dataset.views and any(info.length for info in dataset.episodes):
        sheets = [contact_sheet(dataset, view, episodes, instants) for view in dataset.views]
        width = max(sheet.shape[1] for sheet in sheets)
        padded = [np.pad(s, ((0, 4), (0, width - s.shape[1]), (0, 0))) for s in sheets]
        Image.fromarray(np.concatenate(padded)).save(path)


def _plot_alignment(dataset: Dataset, path: Path) -> None:
    from matplotlib.figure import Figure

    result = alignment_of(dataset)
    figure = Figure(figsize=(4, 2.5), layout="constrained")
    axes = figure.add_subplot()
    lags = list(result.weights)
    colours = ["tab:green" if lag == 0 else "tab:grey" for lag in lags]
    axes.bar(lags, list(result.weights.values()), color=colours)
    axes.set_xlabel("lag of the state's change behind the action (ticks)")
    axes.set_ylabel("weight beside the other lags")
    axes.set_title(str(result).split(" (")[0], fontsize=9)
    figure.savefig(path, dpi=120)
