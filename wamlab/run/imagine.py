"""One imagined future beside what really happened, as an animation to look at."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from wamlab.data.video import write_video
from wamlab.metrics.joint import UNCHANGED
from wamlab.models.base import Refusal
from wamlab.policy.raw import Answerer
from wamlab.run.probe import Bench
from wamlab.run.seats import MakeEnv, make_env
from wamlab.sim.env import Split, start_seed
from wamlab.types import Branch, Frames, Probe

LABEL_HEIGHT = 14
GAP = 4
INK, PAPER = (40, 40, 40), (250, 250, 250)
FORMATS = (".gif", ".mp4")


def imagine(
    policy: Answerer,
    env_name: str,
    out: str | Path,
    *,
    seed: int = 0,
    split: Split = "evaluation",
    stratum: str = "before",
    scale: int = 4,
    fps: float = 2.0,
    make: MakeEnv = make_env,
) -> Probe:
    """Imagine from a state on the expert's way from start ``seed``, execute, and show both.

    Of a model that does not act it is what it imagines of the expert's next actions.

    Args:
        out: a file ending in ``.gif`` or ``.mp4``.
        stratum: ``free``, ``before`` or ``contact``: where on the way.

    Raises:
        Refusal: the model imagines nothing that can be shown, with the reason.
        ValueError: another kind of file.
    """
    _check_format(Path(out))
    with closing(make(env_name)) as seeing, closing(make(env_name, views=())) as env:
        bench = Bench(policy, env, seeing, 1, seed, imposed=(UNCHANGED,), worlds={}, controls=False)
        probe = bench.probe(start_seed(split, seed), stratum)
    show(probe, probe.branches[0], out, scale=scale, fps=fps)
    return probe


def show(
    probe: Probe, branch: Branch, out: str | Path, *, scale: int = 4, fps: float = 2.0
) -> Path:
    """Write one branch of a probe: per view a column, imagined above executed, with labels.

    Raises:
        Refusal: nothing was imagined that can be shown.
        ValueError: ``out`` ends neither in ``.gif`` nor in ``.mp4``.
    """
    path = Path(out)
    _check_format(path)
    if branch.imagined is None:
        raise Refusal(f"{probe.policy} has nothing to show: {branch.why_not}")
    pictures = panels(probe, branch, scale=scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        _write_gif(pictures, path, fps)
    else:
        write_video(path, np.stack(pictures), round(max(fps, 1)))
    return path


def panels(probe: Probe, branch: Branch, *, scale: int = 4) -> list[UInt8[np.ndarray, "h w 3"]]:
    """One picture for now and one for each imagined offset."""
    views = list(branch.happened)
    imagined = branch.imagined or {}
    pictures = [_panel(views, probe.now, probe.now, 0, 0, scale)]
    for index, offset in enumerate(branch.offsets):
        pictures.append(_panel(views, imagined, branch.happened, index, int(offset), scale))
    return pictures


def _panel(
    views: Sequence[str],
    imagined: Frames,
    happened: Frames,
    index: int,
    offset: int,
    scale: int,
) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image, ImageDraw

    height, width = (side * scale for side in happened[views[0]].shape[1:3])
    row = height + LABEL_HEIGHT + GAP
    size = (len(views) * (width + GAP) - GAP, 2 * row - GAP)
    sheet = Image.new("RGB", tuple(side + side % 2 for side in size), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, view in enumerate(views):
        for line, (word, frames) in enumerate((("imagined", imagined), ("executed", happened))):
            corner = (column * (width + GAP), line * row)
            pen.text((corner[0] + 2, corner[1] + 1), f"{word}  {view}  +{offset}", fill=INK)
            if view in frames:
                frame = Image.fromarray(frames[view][index])
                large = frame.resize((width, height), Image.Resampling.NEAREST)
                sheet.paste(large, (corner[0], corner[1] + LABEL_HEIGHT))
    return np.asarray(sheet)


def _write_gif(pictures: Sequence[np.ndarray], path: Path, fps: float) -> None:
    from PIL import Image

    first, *rest = [Image.fromarray(picture) for picture in pictures]
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)


def _check_format(path: Path) -> None:
    if path.suffix not in FORMATS:
        raise ValueError(f"{path.name} ends in {path.suffix!r}, expected one of {FORMATS}")
