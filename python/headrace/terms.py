"""How a run goes, beyond what its graph says."""

from __future__ import annotations

from typing import NamedTuple

from headrace.errors import UsageError
from headrace.options import check_int, check_seconds, milliseconds


class Terms(NamedTuple):
    """What `client.submit` was told of a run."""

    priority: int = 0
    """Added to the priority of each task."""
    deadline_ms: int = 0
    """Milliseconds after which it is cancelled; 0 for none."""
    stop_on_error: bool = False
    """Whether it is cancelled once a task has failed."""


def checked_terms(priority: int, deadline_s: float | None, on_error: str) -> Terms:
    """Give the terms of a run, or say what is wrong with them."""
    check_int("priority", priority, -(2**31), 2**31 - 1)
    if deadline_s is not None:
        check_seconds("deadline_s", deadline_s)
    if on_error not in ("continue", "stop"):
        raise UsageError(f"on_error takes 'continue' or 'stop', not {on_error!r}")
    return Terms(priority, 0 if deadline_s is None else milliseconds(deadline_s), on_error == "stop")
