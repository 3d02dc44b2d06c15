"""What several commands ask of their options."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click import Context, Parameter


def pairs(option: str, words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Read words like NAME=VALUE."""
    split = [word.partition("=") for word in words]
    for word, (name, _, value) in zip(words, split, strict=True):
        if not name or not value:
            raise click.BadParameter(f"{word!r} is not of the form NAME=VALUE", param_hint=option)
    return [(name, value) for name, _, value in split]


def finite(_context: Context, _parameter: Parameter, value: float | None) -> float | None:
    """Refuse what is no number, or has no end: a range of click's lets both through."""
    if value is None or math.isfinite(value):
        return value
    raise click.BadParameter("it must be a finite number")
