"""``docs/evaluation.md``: what is measured, and the checks that hold it, computed anew.

python tools/evaluation_page.py           # write the page
python tools/evaluation_page.py --check   # exit 1 where it is not what would be written

Published values stand in the tests that hold them, and are read from there; beside each stands what
the library finds now.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "evaluation.md"
sys.path[:0] = [str(ROOT / "tests" / "metrics")]

INTRO = """\
# Evaluation

Written by `python tools/evaluation_page.py`; do not edit it. Every number below is computed when
the page is written, and a test compares the page with what would be written. How models do is in
[results.md](results.md); coupling in nats has [a page of its own](coupling-in-nats.md).

One measure is one pure function of logs (`wamlab.metrics`). It says what it needs; where that is
missing its answer is "not applicable" with the reason, never a number. Beside each value stand its
interval, how many states or episodes it is of, how many were undefined and why, and what the
controls score on the same states.
"""
MEASURES = """\
## What is measured

By axis, as `wam list metrics` names them and a report shows them, each with its value or with the
reason why there is none.
"""
SOLID = """\
How deep things go into one another is no measure of logs
(`wamlab.metrics.physics.interpenetration`). Executed episodes are as solid as the simulator makes
them, so that it would say nothing of a model, and of imagined frames a reader tells where a thing
is, but not how it is turned. It belongs to the suite of planted faults, where poses and boxes are
known ([results.md](results.md)).
"""
FRAMES = """\
## Frames

The check images are waves of 64 x 64 x 3 (`tests/metrics/test_metrics_visual.py`). SSIM is Wang's:
an 11 x 11 Gaussian window of deviation 1.5, population covariance, valid places alone.
"""
ELSEWHERE = """\
What else is called SSIM gives other numbers for the same images, and a resize to 24 x 24 alone
decides about a decibel of PSNR. Frames are compared as they were predicted; where a network needs
another size, there is one rule for all.
"""
SETS = """\
## Distances between sets of features

Seven features of three dimensions a side (`tests/metrics/test_metrics_features.py`).
"""
RATES = """\
## Rates

95 % intervals of k successes in n (`tests/metrics/test_metrics_stats.py`).
"""
TESTS = """\
Two rates, unpaired: p-values that they are one, in brackets those that tests hold and those that
have been printed. The tests of Barnard and of Boschloo hold the trials of each group fixed, as an
experiment does. Barnard's orders outcomes by the score with the pooled rate (with as many trials on
both sides the unpooled one orders alike), Boschloo's by the one-sided p of Fisher, doubled; both
are the worst case over the common rate, which a test counts out for all three pairs. The printed
figures are those of a table whose rows are the groups: there the successes are held fixed, which no
experiment does, and a test finds them so. Of the last pair these two take too long for this page:
a slow test computes them.
"""
EXACT = ("fisher", "barnard", "boschloo")
SLOW_TRIALS = 500
"""Of so many trials each, a test that tries all tables takes too long for a page."""

POWER = """\
How many trials of each of two policies tell their rates apart, with power 0.8 at the level 0.05.
"""
RANKED = """\
Pairs (`tests/metrics/test_metrics_stats.py`), strengths of policies from who won how often against
whom, and how well predicted rates rank the measured ones
(`tests/metrics/test_metrics_plausibility.py`).
"""
FAULTS = """\
## Planted faults

A two-dimensional pusher with eleven planted models, of which nine are at fault, one is the truth
and one knows a single future that is right. 200 states, eight samples from each, positions read
with an error of 3 mm in a unit square. A cell is what is found here, then the figure of the
prototype in which the measures were conceived; robot / object where there are two. The pusher was
rebuilt from its description, so that figures agree within the tolerance that the test holds.

Two models know one action from each state, so that all of its executions are one, and the nearest
is a matter of the reader's error for the oracle itself: CMR is undefined here, where the prototype
gave chance.

All signs are those of the prototype but one: whether the excited one, which pushes further, sees
the block on the goal more or less often is a matter of where blocks start.

The same faults planted in Meta-World, with real rendering and a trained reader, are in
[results.md](results.md).
"""
WORLDS = """\
## Which physics the planted models imagine

DWA over the whole path, without its gate on EIC: the world in which an entity is nearest to its
imagination, and the margin of the true one over the nearest other with its interval, above 1 where
it is the true one. The worlds have 0.7 and 1.3 of the robot's gain, 0.5 and 0.25 of the block's
slip; slip leaves the robot where it is. Beside the margins of each entity stands that of both as
one vector, which is how the published figures come out, and the figure; last, the gain and the slip
at which the imagination is nearest, inside the grid alone.

Both together are as published but for three. At rest no world leads anywhere else, so that there
is no margin where the prototype had 1. The margin of who is right is the way to the nearest world
over the reader's error, and in the rebuilt scene blocks are moved a little less. The optimist's
robot is right, so that of the worlds only those of another slip compete, in which blocks are left
behind: from where they start here that is further from the goal, where it always sees the block,
and the true world is just the nearest; with all blocks 0.06 nearer it is not, as in the prototype.
Its block alone is nearest to a wrong world. That is why there is one margin for each entity: a
robot that is right hides what is wrong with the object. And that is why it is over the whole path:
at the end alone, where little moves, a lag would cost little of it.
"""
OTHERS = """\
## What other measures say of the same faults

Capped separation (ADS) cannot see a mirrored or an exaggerated response, the cosine (CDA) pays for
the direction that all actions of a task share, a correlation of distances is blind to size, and an
absolute error (x 100) has no zero. IEA has one, and its gain names an over-reaction. Robot /
object, found then published.
"""


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    args = parser.parse_args(words)
    text = page()
    if args.check:
        raise SystemExit(0 if PAGE.exists() and PAGE.read_text() == text else 1)
    PAGE.write_text(text)
    print(PAGE)


def page() -> str:
    """The whole page."""
    parts = [INTRO, MEASURES, measures(), apart(), SOLID, FRAMES, frames(), ELSEWHERE, elsewhere()]
    parts += [SETS, sets(), RATES, rates(), TESTS, pvalues(), POWER, power(), RANKED, ranked()]
    return "\n".join([*parts, FAULTS, faults(), WORLDS, worlds(), OTHERS, others()])


def measures() -> str:
    from wamlab.metrics.base import AXES, axis_of, find, names
    from wamlab.report.axes import meaning

    rows = [
        [axis, f"`{name}`", str(getattr(find(name), "needs", "")), meaning(name)]
        for axis in AXES
        for name in names()
        if axis_of(name) == axis
    ]
    return table(["axis", "measure", "needs", "what it says"], rows)


def apart() -> str:
    """What a report says of measures whose logs no run folder holds."""
    from wamlab.report.axes import APART

    scripts = "; ".join(f"`{name}`: `python {script}`" for name, script in APART.items())
    return (
        "Some need more than the logs of one run folder (films that a judge has read, futures that "
        "were replaced, episodes to calibrate on). A report then names the command that plays and "
        f"measures them, and [results.md](results.md) shows what came of it. {scripts}.\n"
    )


def frames() -> str:
    import test_metrics_visual as checks

    from wamlab.metrics.visual import psnr, ssim

    rows = []
    (published,) = [
        mark.args[1]
        for mark in checks.test_psnr_and_ssim_have_their_check_values.pytestmark
        if mark.name == "parametrize"
    ]
    for what, (other, error, decibel, similarity) in zip(
        ("shifted", "dimmed"), published, strict=True
    ):
        found = ((checks.A - other) ** 2).mean(), psnr(checks.A, other), ssim(checks.A, other)
        said = "mean squared error", "PSNR, dB", "SSIM"
        values = zip(said, found, (error, decibel, similarity), strict=True)
        rows += [[what, name, f"{one:.10g}", f"{wanted:.10g}"] for name, one, wanted in values]
    return table(["image", "measure", "found", "published"], rows)


def elsewhere() -> str:
    import test_metrics_visual as checks

    rows = [
        [f"SSIM, {name}", what, f"{measure(checks.A, other):.10f}", f"{wanted:.10f}"]
        for name, (measure, published, _) in checks.CONVENTIONS.items()
        for what, other, wanted in zip(
            ("shifted", "dimmed"), (checks.B, checks.DIMMED), published, strict=True
        )
    ]
    for name, (options, wanted) in checks.RESIZES.items():
        found = checks.psnr(*(checks.resized(one, options) for one in (checks.A, checks.B)))
        rows.append([f"PSNR in dB, {name}", "shifted", f"{found:.3f}", f"{wanted:.3f}"])
    return table(["measure", "image", "found", "published"], rows)


def sets() -> str:
    import numpy as np
    from test_metrics_features import features

    from wamlab.metrics.features import Moments, frechet
    from wamlab.metrics.kernels import mmd

    i, j = np.mgrid[:7, :3]
    first = features(np.sin(1 + 1.3 * i + 0.7 * j))
    second = features(1.5 * np.cos(2 + 0.9 * i + 1.1 * j) + 0.2 * j)
    rows = [
        ["Frechet distance", f"{frechet(Moments.of(first), Moments.of(second)):.8f}", "0.97006884"],
        ["unbiased MMD, cubic kernel", f"{mmd(first, second):.8f}", "-0.29815132"],
    ]
    return table(["measure", "found", "published"], rows)


def rates() -> str:
    import test_metrics_stats as checks

    from wamlab.metrics import stats

    def row(k: int, n: int, *wanted: Sequence[float]) -> list[str]:
        found = (stats.wilson(k, n), stats.clopper_pearson(k, n), stats.jeffreys(k, n))
        cells = [
            f"{one[0]:.4f} to {one[1]:.4f} ({want[0]:.4f} to {want[1]:.4f})"
            for one, want in zip(found, wanted, strict=True)
        ]
        return [f"{k}/{n}", *cells]

    head = ["k/n", "Wilson (published)", "Clopper-Pearson (published)", "Jeffreys (published)"]
    return table(head, [row(*one) for one in checks.RATES])


def pvalues() -> str:
    import test_metrics_stats as checks

    from wamlab.metrics.stats import two_rates

    rows = []
    for first, second, *known in checks.TWO_RATES:
        cells = []
        for test, held, printed in zip(EXACT, *known, strict=True):
            quick = test == "fisher" or first[1] < SLOW_TRIALS
            found = f"{two_rates(first, second, test):.4f}" if quick else "not computed here"
            cells.append(f"{found} ({held:.4f}; {printed:.3f})")
        rows.append([f"{first[0]} and {second[0]} of {first[1]}", *cells])
    heads = [f"{test.capitalize()} (held by the test; printed)" for test in EXACT]
    return table(["successes", *heads], rows)


def power() -> str:
    import test_metrics_stats as checks

    from wamlab.metrics.stats import trials_needed

    rows = [[f"{a}, {b}", str(trials_needed(a, b)), str(n)] for a, b, n in checks.TRIALS]
    return table(["rates", "found", "published"], rows)


def ranked() -> str:
    import test_metrics_plausibility as ranks
    import test_metrics_stats as checks

    from wamlab.metrics.plausibility import mmrv, pearson
    from wamlab.metrics.stats import bradley_terry, mcnemar

    pairs, wanted = checks.DISCORDANT
    said = f"McNemar's p, {pairs[0]} against {pairs[1]} discordant pairs"
    rows = [[said, f"{mcnemar(*pairs):.4f}", f"{wanted:.4f}"]]
    strengths = bradley_terry(checks.WINS)
    for policy, (found, known) in enumerate(zip(strengths, checks.STRENGTHS, strict=True), start=1):
        name = f"Bradley-Terry log-strength of policy {policy}"
        rows.append([name, f"{found:.5f}", f"{known:.5f}"])
    for name, (predicted, measured, known) in ranks.RANKS.items():
        rows.append([f"MMRV, {name}", f"{mmrv(predicted, measured):.5f}", f"{known:.5f}"])
    together = pearson(ranks.SIM, ranks.REAL)
    rows.append(["Pearson's correlation, rates", f"{together:.5f}", f"{ranks.TOGETHER:.5f}"])
    return table(["measure", "found", "published"], rows)


def faults() -> str:
    import test_metrics_coupling as checks

    rows = []
    for model, published in checks.SIGNATURES.items():
        consistent, matched, agreed, gain, cycled, bias, correlation, tolerance = published
        both = lambda measure: [measure(name) for name in ("robot", "block")]  # noqa: E731
        effects = both(lambda name: checks.iea(checks.forced(model)[name]))  # noqa: B023
        rows.append(
            [
                model,
                pair(both(lambda n: checks.eic(checks.own(model)[n]).value), consistent),  # noqa: B023
                pair(both(lambda n: checks.cmr(checks.own(model)[n], merge=-1).value), matched),  # noqa: B023
                pair([one.value for one in effects], agreed),
                beside(effects[1].details.get("gain"), gain),
                beside(checks.cycle(model).value, cycled),
                beside(checks.outcome(model).value, bias),
                beside(checks.outcome(model).details["mcc"], correlation),
                f"{tolerance:g}",
            ]
        )
    head = ["planted", "EIC", "CMR", "IEA", "gain of object", "ICC", "OCB", "MCC of outcomes"]
    return table([*head, "tolerance"], rows)


def worlds() -> str:
    import test_metrics_worlds as checks

    def told(found: Any) -> str:
        if found.value is None:
            return "undefined"
        return f"{found.details['world']}, {number(found.value)}{span(found.interval)}"

    rows = []
    for model, (*_, published) in checks.WORLD.items():
        robot, block = (checks.attribution(model, entity) for entity in ("robot", "block"))
        both = checks.attribution_of_both(model)
        fitted = [robot.details.get("fitted_gain"), block.details.get("fitted_slip")]
        together = f"{told(both)} ({number(published)})"
        rows.append([model, told(robot), told(block), together, *map(number, fitted)])
    head = ["planted", "robot", "object", "both at once (published)", "gain of robot"]
    return table([*head, "slip of object"], rows)


def others() -> str:
    import test_metrics_coupling as checks

    formulas: tuple[Callable[[Any], Any], ...] = (
        checks.ads,
        checks.cda,
        checks.distance_correlation,
        checks.cf_mae,
        checks.iea,
    )
    rows = []
    for model, published in checks.COMPARED.items():
        cells = []
        for formula, wanted in zip(formulas, published, strict=True):
            times = 100 if formula is checks.cf_mae else 1
            values = [formula(checks.forced(model)[name]).value for name in ("robot", "block")]
            cells.append(pair([None if v is None else times * v for v in values], wanted))
        rows.append([model, *cells])
    return table(["planted", "ADS", "CDA", "distance correlation", "cf-MAE x 100", "IEA"], rows)


def pair(found: Sequence[float | None], published: Sequence[float | None]) -> str:
    said = (" / ".join(map(number, side)) for side in (found, published))
    return "{} ({})".format(*said)


def beside(found: float | None, published: float | None) -> str:
    return f"{number(found)} ({number(published)})"


def span(interval: Sequence[float] | None) -> str:
    return "" if interval is None else " [{} to {}]".format(*map(number, interval))


def number(value: float | None) -> str:
    return "undefined" if value is None else f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


if __name__ == "__main__":
    main()
