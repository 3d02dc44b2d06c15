"""What several commands ask of their options."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click import Context, Parameter


def finite(_context: Context, _parameter: Parameter, value: float) -> float:
    """Refuse what is no number, or has no end: a range of click's lets both through."""
    if math.isfinite(value):
        return value
    raise click.BadParameter("it must be a finite number")
