"""The causal use of imagination (IUS): does the action change with the future as it ought to?

From the probes of `wamlab.run.use`: a model's future was replaced and the action decoded anew, and
an exact extractor says which change of action the change of futures demands. Changes are in shares
of half the action's range, so that dimensions of different units count alike.

It is not a measure of quality. 1 says that the action is read off the imagined future, 0 that the
imagination is decoration, which may be declared (a policy that imagines beside acting, and not in
order to act). Whether the future itself is any good is not asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from wamlab.metrics.base import NotApplicable, Result, metric, state_name
from wamlab.metrics.compare import Difference, difference, success_values
from wamlab.metrics.stats import Interval, interval_over
from wamlab.types import ActionSpace, Episode, Probe

Chunk = Float[np.ndarray, "h a"]

GATE = 0.05
"""The smallest demanded change that counts: root mean square, in shares of half the range."""

REFERENCE = {"another sample's": "own", "mirrored executed": "own executed"}
"""Futures of which something is demanded, and those that they take the place of."""

UNBOUND = ("another task's", "noise")
"""Futures of which no action is demanded, since none leads there; they replace the own one."""


@metric("imagination_use", needs="probes", unit="share")
def imagination_use(
    probes: Sequence[Probe],
    *,
    space: ActionSpace | None = None,
    future: str = "mirrored executed",
    gate: float = GATE,
) -> Result:
    """How much of the demanded change of action the model makes, when its future is replaced.

    ``sum <change, demanded> / sum <demanded, demanded>`` over states in which ``gate`` is demanded;
    a cluster bootstrap over tasks and states. For ``mirrored executed`` both futures truly happen,
    so the demanded change is known and not searched for. ``floor`` is the change that another draw
    under the model's own future makes, in the same unit as ``details["change"]``: the root mean
    square change by replaced future, with intervals. ``details["off"]`` is what the change has
    beside the demanded direction: ``sum |change - demanded|^2 / sum |demanded|^2``.

    Raises:
        KeyError: a future of which nothing is demanded.
    """
    if future not in REFERENCE:
        raise KeyError(f"nothing is demanded of the future {future!r}; of {[*REFERENCE]} it is")
    replaced = [one for one in probes if any(b.label == "redrawn" for b in one.branches)]
    if not replaced:
        raise NotApplicable("in no probe was the imagined future replaced")
    if space is None:
        raise NotApplicable("the action space is needed, to weigh dimensions alike: pass space=")
    half = (np.array(space.high) - np.array(space.low)) / 2
    known = [_Labelled(one, half) for one in replaced]
    changes = [one.pair(future) for one in known]
    kept = [pair for pair in changes if pair is not None and _size(pair.demanded) > gate]
    undefined = {
        "nothing was searched for": sum(pair is None for pair in changes),
        f"less than {gate:g} is demanded": sum(
            pair is not None and _size(pair.demanded) <= gate for pair in changes
        ),
    }
    undefined = {why: count for why, count in undefined.items() if count}
    floor = float(np.mean([_size(one.change("redrawn", "own")) for one in known]))
    details: dict[str, Any] = {"change": _sizes(known), "off": None}
    if not kept:
        said = "; ".join(f"{why} ({count})" for why, count in undefined.items())
        return Result(
            "imagination_use", "share", why_not=said, undefined=undefined, floor=floor,
            details=details,
        )  # fmt: skip
    rows = np.array([pair.products() for pair in kept])
    tasks = [pair.env for pair in kept]
    details["off"] = float(rows[:, 2].sum() / rows[:, 1].sum())
    return Result(
        "imagination_use",
        "share",
        value=_share(rows),
        interval=interval_over(rows, [tasks], statistic=_share),
        n=len(rows),
        floor=floor,
        items={pair.state: float(row[0] / row[1]) for pair, row in zip(kept, rows, strict=True)},
        undefined=undefined,
        details=details,
    )


def success_change(
    own: Sequence[Episode], replaced: Mapping[str, Sequence[Episode]]
) -> dict[str, Difference]:
    """Success with the own futures less that with each replaced one, paired by start.

    What a policy loses when it acts on the future of nothing is what its imagination is worth to it
    (`wamlab.run.use.ReplacedAgent`).
    """
    first = success_values(own)
    return {
        name: difference("success", "rate", "own", name, first, success_values(logs), rate=True)
        for name, logs in replaced.items()
    }


@dataclass(frozen=True)
class _Pair:
    """The change of action that replacing one future by another made, and the one demanded."""

    state: str
    env: str
    made: Chunk
    demanded: Chunk

    def products(self) -> tuple[float, float, float]:
        off = float(((self.made - self.demanded) ** 2).sum())
        return float((self.made * self.demanded).sum()), float((self.demanded**2).sum()), off


class _Labelled:
    """A probe's chunks by label, in shares of half the range."""

    def __init__(self, probe: Probe, half: Float[np.ndarray, " a"]) -> None:
        self.state, self.env = state_name(probe), probe.env
        self.chunks = {branch.label: branch.action / half for branch in probe.branches}

    def change(self, label: str, reference: str) -> Chunk:
        return self.chunks[label] - self.chunks[reference]

    def pair(self, future: str) -> _Pair | None:
        """None where the exact extractor did not look for both futures."""
        reference = REFERENCE[future]
        exact, before = f"exact: {future}", f"exact: {reference}"
        if exact not in self.chunks or before not in self.chunks:
            return None
        made, demanded = self.change(future, reference), self.change(exact, before)
        return _Pair(self.state, self.env, made, demanded)


def _sizes(known: Sequence[_Labelled]) -> dict[str, tuple[float, Interval | None]]:
    """By replaced future the mean size of the change, and its interval over tasks and states."""
    found: dict[str, tuple[float, Interval | None]] = {}
    for label, reference in {**REFERENCE, **dict.fromkeys(UNBOUND, "own")}.items():
        sizes = np.array([_size(one.change(label, reference)) for one in known])
        tasks = [one.env for one in known]
        found[label] = float(sizes.mean()), interval_over(sizes, [tasks])
    return found


def _size(change: Chunk) -> float:
    return float(np.sqrt((change**2).mean()))


def _share(rows: Float[np.ndarray, "n 3"]) -> float:
    return float(rows[:, 0].sum() / rows[:, 1].sum())
