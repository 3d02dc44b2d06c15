"""What others call of a local engine without keeping it alive, and what they see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.local_tasks import Call
from headrace.retrying import Retried

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable
    from types import TracebackType

    from headrace.local import Local


def checking(engine: weakref.ref[Local]) -> Callable[[int | None, int | None], None]:
    """Give what waiting threads ask, without keeping the engine alive."""

    def check(run: int | None, index: int | None) -> None:
        local = engine()
        if local is not None:
            local.check_stall(run, index)

    return check


def helping(engine: weakref.ref[Local]) -> Callable[[], bool | None]:
    """Give what they call to run tasks meanwhile."""

    def help_out() -> bool | None:
        local = engine()
        return None if local is None else local.nesting.help()

    return help_out


def user_part(error: BaseException) -> TracebackType | None:
    """Give the traceback of an exception without the frames of the engine."""
    trace: TracebackType | None = vars(BaseException)["__traceback__"].__get__(error)  # whatever its class makes of it
    while trace is not None and trace.tb_frame.f_globals.get("__name__") in (
        "headrace.local",
        Call.__module__,
        Retried.__module__,
    ):
        trace = trace.tb_next
    return trace
