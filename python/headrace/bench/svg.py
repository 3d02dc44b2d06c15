"""Plots as SVG, drawn here, so that a report needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from headrace.bench.analysis import Curve

_WIDTH, _HEIGHT = 860, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 16, 46
_COLOURS = (
    "#4c78a8",
    "#f58518",
    "#54a24b",
    "#b279a2",
    "#9d755d",
    "#72b7b2",
    "#eeca3b",
    "#ff9da6",
    "#79706e",
    "#2ca02c",
)
_OURS = "#d62728"
#: Lines of more points are drawn without dots.
_DOTS_MAX = 20


class Bar(NamedTuple):
    """One row of a ladder."""

    label: str
    value: float
    note: str
    """What a pointer that rests on it shows."""


def colour_of(peer: str, peers: Sequence[str]) -> str:
    """Always the same colour for a peer of this run; headrace is red."""
    if peer == "headrace":
        return _OURS
    others = [name for name in peers if name != "headrace"]
    return _COLOURS[others.index(peer) % len(_COLOURS)] if peer in others else "#888"


def ladder(bars: list[Bar], unit: str, peers: Sequence[str], lines: dict[str, float]) -> str:
    """Bars on a logarithmic axis, the shortest first; `lines` are floors, drawn across."""
    bars = sorted(bars, key=lambda bar: bar.value)
    values = [bar.value for bar in bars] + list(lines.values())
    low, high = _decades(values)
    left, row, top = 210, 24, 6 + 10 * len(lines)
    height = top + row * len(bars) + 40

    def x(value: float) -> float:
        return left + (math.log10(value) - low) / (high - low) * (_WIDTH - left - 110)

    parts = [_open(_WIDTH, height)]
    for decade in range(low, high + 1):
        place = x(10.0**decade)
        parts.append(f'<line class="grid" x1="{place:.1f}" y1="{top}" x2="{place:.1f}" y2="{height - 36}"/>')
        parts.append(f'<text x="{place:.1f}" y="{height - 20}" text-anchor="middle">{_number(10.0**decade)}</text>')
    parts.append(f'<text x="{left}" y="{height - 4}">{escape(unit)}</text>')
    for position, (name, value) in enumerate(sorted(lines.items(), key=lambda item: item[1])):
        place = x(value)
        parts.append(
            f'<line class="floor" x1="{place:.1f}" y1="{2 + 10 * position}" x2="{place:.1f}" y2="{height - 36}"/>'
        )
        parts.append(f'<text class="small" x="{place + 3:.1f}" y="{10 + 10 * position}">{escape(name)}</text>')
    for position, bar in enumerate(bars):
        y = top + row * position
        colour = colour_of(bar.label, peers)
        parts.append(f"<g><title>{escape(bar.note)}</title>")
        parts.append(f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(bar.label)}</text>')
        parts.append(
            f'<rect x="{left}" y="{y + 4}" width="{max(1.0, x(bar.value) - left):.1f}" '
            f'height="{row - 8}" fill="{colour}"/>'
        )
        parts.append(f'<text x="{x(bar.value) + 6:.1f}" y="{y + 16}">{_number(bar.value)}</text></g>')
    return "".join([*parts, "</svg>"])


class Axis(NamedTuple):
    """What a value is called, and how it is laid out."""

    label: str
    kind: str = "log"
    """`log`, `linear` from 0 on, or `percent` from 0 to 100 %."""


def curves(some: list[Curve], x_axis: Axis, y_axis: Axis, peers: Sequence[str]) -> str:
    """Lines; empty if there are none."""
    if not any(curve.points for curve in some):
        return ""
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    x, x_ticks = _scale(x_axis, [point[0] for curve in some for point in curve.points], _LEFT, right)
    y, y_ticks = _scale(y_axis, [point[1] for curve in some for point in curve.points], bottom, _TOP + 20)
    parts = [_open(_WIDTH, _HEIGHT)]
    for tick in x_ticks:
        place = x(tick)
        parts.append(f'<line class="grid" x1="{place:.1f}" y1="{_TOP}" x2="{place:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">{_tick(x_axis, tick)}</text>')
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y(tick):.1f}" x2="{right}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{_tick(y_axis, tick)}</text>')
    parts.append(
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_axis.label)}</text>'
    )
    parts.append(
        f'<text transform="translate(14 {(_TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_axis.label)}</text>"
    )
    for position, curve in enumerate(some):
        colour = colour_of(curve.peer, peers)
        parts.append(_line(curve, colour, x, y, x_axis, y_axis))
        place = _TOP + 14 + 18 * position
        parts.append(
            f'<g class="legend" data-peer="{escape(curve.peer)}"><rect x="{right + 14}" y="{place - 10}" width="12" '
            f'height="12" fill="{colour}"/><text x="{right + 32}" y="{place}">{escape(curve.peer)}</text></g>'
        )
    return "".join([*parts, "</svg>"])


Place = Callable[[float], float]


def _scale(axis: Axis, values: list[float], start: float, end: float) -> tuple[Place, list[float]]:
    """Where values lie between two places, and the ticks."""
    if axis.kind == "log":
        low, high = _decades(values)
        decades = [10.0**decade for decade in range(low, high + 1)]
        return lambda value: start + (math.log10(value) - low) / (high - low) * (end - start), decades
    if axis.kind == "percent":
        return lambda value: start + min(value, 1.1) * (end - start), [0, 0.25, 0.5, 0.75, 1]
    most = max(values) or 1.0
    step = 10.0 ** math.floor(math.log10(most))
    step *= next(part for part in (0.2, 0.5, 1, 2) if most / (step * part) <= 6)
    return lambda value: start + value / most * (end - start), [step * n for n in range(int(most / step) + 1)]


def _tick(axis: Axis, value: float) -> str:
    return f"{value:.0%}" if axis.kind == "percent" else _number(value)


def _line(curve: Curve, colour: str, x: Place, y: Place, x_axis: Axis, y_axis: Axis) -> str:
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in curve.points)
    width = 3 if curve.peer == "headrace" else 1.6
    dots = "".join(
        f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="4" fill="{colour}"><title>{escape(curve.peer)}: '
        f"{_number(a)} {escape(x_axis.label)}, {_tick(y_axis, b)}</title></circle>"
        for a, b in (curve.points if len(curve.points) <= _DOTS_MAX else ())
    )
    return (
        f'<g class="series" data-peer="{escape(curve.peer)}"><polyline points="{path}" fill="none" stroke="{colour}" '
        f'stroke-width="{width}"><title>{escape(curve.peer)}</title></polyline>{dots}</g>'
    )


def _open(width: float, height: float) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'


def _decades(values: list[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _number(value: float) -> str:
    """Three digits, and a letter for thousands."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"
