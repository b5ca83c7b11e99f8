"""How well learned codecs keep a frame, as `docs/results.md` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tables import Found
from wording import command, machine, table

from wamlab.report.words import number

KINDS = ("kl", "vq")
MEASURE = "python benchmarks/codec.py --codec {} --data runs/demo/data"
TRAIN = "python benchmarks/success.py mw-demo --models uwm --variant kl --set model.codec=kl"


def text(found: Found) -> str:
    """A row for each codec, and whether a model was trained on one."""
    records = {kind: found.files.get(f"codec-{kind}") for kind in KINDS}
    head = [
        "codec", "a frame's code", "parameters", "steps", "corner, dB", "gripper, dB",
        "encoding, ms",
    ]  # fmt: skip
    rows = [row(kind, record) for kind, record in records.items()]
    origins = [f"`{command(one)}`, {machine(one)}" for one in records.values() if one]
    about = (
        "Trained alone for a few minutes, judged on held-out episodes: PSNR of whole frames, in "
        "brackets of the worst frame and of the pixels that move. *Encoding* is that of the frames "
        "of one batch of `uwm`."
    )
    return "\n\n".join([about, table(head, rows).rstrip(), *origins, trained(found)])


def row(kind: str, record: Mapping[str, Any] | None) -> list[str]:
    """The size of a code, what it took, and how well it keeps frames of each view."""
    if record is None:
        return [f"`{kind}`", f"not measured (`{MEASURE.format(kind)}`)", *[""] * 5]
    minutes = record["seconds"] / 60
    return [
        f"`{record['codec']}`",
        " x ".join(map(str, record["code"])),
        str(record["parameters"]),
        f"{record['steps']} in {number(minutes, 1)} minutes",
        *(kept(record["held_out"][view]) for view in ("corner", "gripper")),
        f"{number(record['encode']['ms_best'], 0)} for {record['encode']['frames']} frames",
    ]


def kept(view: Mapping[str, Any]) -> str:
    worst, moving = number(view["psnr_worst"], 1), number(view["psnr_moving"], 1)
    return f"{number(view['psnr'], 1)} (worst {worst}, moving {moving})"


def trained(found: Found) -> str:
    """Which cells are of a model that imagines in a learned codec."""
    systems = {cell["model"] for cell in found.cells if cell["run"]["model"].get("codec") in KINDS}
    if not systems:
        return f"`uwm` that imagines in `kl`: not measured (`{TRAIN}`).\n"
    return f"Cells that imagine in a learned codec: {', '.join(sorted(systems))}.\n"
