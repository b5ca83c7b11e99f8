"""Small charts as inline SVG: intervals on a common axis, and lines over steps.

Colours and strokes come from the page's style sheet, so that a chart follows light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

PAD = 8


@dataclass(frozen=True)
class Mark:
    """A value on an axis, with its interval if it has one; ``kind`` is its CSS class."""

    value: float
    interval: Sequence[float] | None = None
    kind: str = "own"


@dataclass(frozen=True)
class Axis:
    """A horizontal scale from ``low`` to ``high`` over ``width`` pixels."""

    low: float
    high: float
    width: int = 260

    def x(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(PAD + share * (self.width - 2 * PAD), 1)


def intervals(marks: Sequence[Mark], axis: Axis, label: str, height: int = 26) -> str:
    """Marks on one line: a dot with whiskers, or a tick where there is no interval."""
    middle = height / 2
    zero = axis.x(0.0) if axis.low < 0 < axis.high else axis.x(axis.low)
    parts = [
        f'<line class="rule" x1="{PAD}" x2="{axis.width - PAD}" y1="{middle}" y2="{middle}"/>',
        f'<line class="zero" x1="{zero}" x2="{zero}" y1="3" y2="{height - 3}"/>',
    ]
    for mark in marks:
        parts.append(_mark(mark, axis, middle))
    return _svg(axis.width, height, label, parts, "intervals")


def scale(
    axis: Axis, ticks: Sequence[float], form: Callable[[float], str], height: int = 18
) -> str:
    """The numbers under a column of `intervals`."""
    parts = [
        f'<text x="{axis.x(tick)}" y="12" text-anchor="{_anchor(tick, ticks)}">'
        f"{escape(form(tick))}</text>"
        for tick in ticks
    ]
    return _svg(axis.width, height, "", parts, "scale")


def lines(
    points: Sequence[Sequence[float]], label: str, width: int = 300, height: int = 120
) -> str:
    """One curve over steps, logarithmic upwards where all values are positive and far apart."""
    values = [value for _, value in points]
    logarithmic = min(values) > 0 and max(values) / min(values) > 20
    lift = math.log10 if logarithmic else float
    low, high = lift(min(values)), lift(max(values))
    left, right = points[0][0], points[-1][0]
    place = lambda step, value: (  # noqa: E731
        PAD + (step - left) / ((right - left) or 1) * (width - 2 * PAD),
        height - PAD - (lift(value) - low) / ((high - low) or 1) * (height - 2 * PAD),
    )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    parts = [
        f'<line class="rule" x1="{PAD}" x2="{width - PAD}" y1="{y}" y2="{y}"/>'
        for y in (PAD, height / 2, height - PAD)
    ]
    parts.append(f'<polyline class="curve" points="{path}"/>')
    return _svg(width, height, label, parts, "lines")


def curves(
    series: Sequence[tuple[str, Sequence[Sequence[float]]]],
    label: str,
    width: int = 300,
    height: int = 120,
) -> str:
    """Several curves on one scale that begins at 0; each is the CSS class that draws it."""
    every = [point for _, points in series for point in points]
    right = max((step for step, _ in every), default=0.0) or 1.0
    top = max((value for _, value in every), default=0.0) or 1.0
    place = lambda step, value: (  # noqa: E731
        PAD + step / right * (width - 2 * PAD),
        height - PAD - value / top * (height - 2 * PAD),
    )
    parts = [
        f'<line class="rule" x1="{PAD}" x2="{width - PAD}" y1="{y}" y2="{y}"/>'
        for y in (PAD, height / 2, height - PAD)
    ]
    for kind, points in reversed(series):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline class="{kind}" points="{path}"/>')
    return _svg(width, height, label, parts, "lines")


def nice_range(values: Sequence[float], step: float) -> tuple[float, float]:
    """The nearest multiples of ``step`` around these values and zero."""
    low, high = min([0.0, *values]), max([0.0, *values])
    return step * math.floor(low / step), max(step * math.ceil(high / step), step)


def _mark(mark: Mark, axis: Axis, middle: float) -> str:
    x = axis.x(mark.value)
    if mark.interval is None:
        return f'<line class="{mark.kind}" x1="{x}" x2="{x}" y1="{middle - 6}" y2="{middle + 6}"/>'
    low, high = (axis.x(end) for end in mark.interval)
    return (
        f'<line class="{mark.kind}" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>'
        f'<circle class="{mark.kind}" cx="{x}" cy="{middle}" r="4.5"/>'
    )


def _anchor(tick: float, ticks: Sequence[float]) -> str:
    return "start" if tick == ticks[0] else "end" if tick == ticks[-1] else "middle"


def _svg(width: int, height: int, label: str, parts: Sequence[str], kind: str) -> str:
    named = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f"{named}>{''.join(parts)}</svg>"
    )
