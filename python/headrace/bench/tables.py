"""A table of a report, and how its figures are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from headrace.bench.results import Cell, percentile


class Table(NamedTuple):
    """A heading, what to know about it, columns and rows."""

    title: str
    text: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def us(value: float) -> str:
    """Three digits, of microseconds or whatever the table's unit is."""
    return "–" if math.isnan(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def sized(cell: Cell) -> str:
    """Microseconds a task, and of how many."""
    return f"{us(cell.task_us)} ({cell.tasks:,})"


def percentiles(samples_us: list[float]) -> str:
    """The middle, and what one of a hundred and of a thousand are above."""
    return " / ".join(us(percentile(samples_us, share)) for share in (0.5, 0.99, 0.999))
