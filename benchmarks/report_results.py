"""``docs/results.md`` from the JSON files of ``benchmarks/results/``, and from nothing else.

python benchmarks/report_results.py           # write the page
python benchmarks/report_results.py --check   # exit 1 where it is not what would be written
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from findings import Finding
from tables import Found
from targets import CHAPTERS
from wording import table

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results.md"
INTRO = """\
# Results

Written by `python benchmarks/report_results.py` from the JSON files in `benchmarks/results/`; do
not edit it. What has not been measured is said to be missing. Intervals are 95 %.

Each row is a target that was set before measuring; *met*, *not met* and *incomplete* compare the
measurement with it.
"""
LEGEND = """\
In the tables of success, *success* is solved at some step; *last step*: solved at the last step,
which a task that springs back, such as lever-pull, is not; *at reset*: solved before anybody
acted; *mean replay* and *random replay*: the two blind rows; *over the better*: success less the
better blind row, in points; *mid-training*: success of the checkpoint half-way. Measures such as
EIC are explained in the [glossary](glossary.md), each with its check values in
[evaluation.md](evaluation.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="only compare")
    args = parser.parse_args()
    text = page(read(args.results))
    if args.check:
        raise SystemExit(0 if args.out.exists() and args.out.read_text() == text else 1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)
    print(args.out)


def read(folder: Path) -> Found:
    """All results of a folder, sorted by what they are of."""
    load = lambda path: json.loads(path.read_text(encoding="utf-8"))  # noqa: E731
    files = {path.stem: load(path) for path in sorted(folder.glob("*.json"))}
    every = lambda pattern: [load(path) for path in sorted(folder.glob(pattern))]  # noqa: E731
    return Found(
        files,
        cells=every("*/*-seed*-attempt*.json"),
        steps={path.parent.name: load(path) for path in sorted(folder.glob("*/steps.json"))},
        conditions=every("*/conditions/*.json"),
        substitutions=every("*/substitutions/*.json"),
        recorded=every("*/real_clips/*.json"),
        measured=every("*/measured/*.json"),
        films=every("*/turing/*.json"),
        use=every("*/use/*.json"),
        acting=every("*/acting/*.json"),
        skill=every("*/skill/*.json"),
    )


def page(found: Found) -> str:
    """The whole page."""
    parts = [chapter(found) for chapter in CHAPTERS]
    findings = [finding for part in parts for finding in part.findings]
    return "\n".join([INTRO, summary(findings), LEGEND, *(part.text for part in parts)])


def summary(findings: Sequence[Finding]) -> str:
    rows = [[f.topic, f.asked, f.measured, f.verdict] for f in findings]
    return table(["about", "target", "measured", "verdict"], rows)


if __name__ == "__main__":
    main()
