"""Several results at once, with the errors raised or among them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from headrace.errors import UsageError

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Iterable


def gather(
    futures: Iterable[concurrent.futures.Future[Any]],
    *,
    errors: Literal["raise", "return"] = "raise",
    timeout: float | None = None,
) -> list[Any]:
    """Wait for calls, and give their results in order.

    Args:
        futures: what `client.call` gave; other futures of the standard library's kind as well.
        errors: "raise" raises the exception of the first of them that has one; the others go on. "return" gives
            exceptions in the places of values.
        timeout: seconds to wait at most for all of them; None waits for ever.

    Raises:
        TimeoutError: they have not all ended in time; they go on.
    """
    check_errors(errors)
    left_s = countdown(timeout)
    futures = list(futures)
    if errors == "raise":
        return [future.result(left_s()) for future in futures]
    return [_left(future, left_s()) for future in futures]


def _left(future: concurrent.futures.Future[Any], timeout: float | None) -> Any:
    from concurrent.futures import CancelledError  # the base of ours

    try:
        error = future.exception(timeout)
    except CancelledError as cancelled:
        return cancelled
    return future.result() if error is None else error


def check_errors(errors: str) -> None:
    """Refuse what is no way to treat errors."""
    if errors not in ("raise", "return"):
        raise UsageError(f"errors takes 'raise' or 'return', not {errors!r}")


def countdown(timeout: float | None) -> Callable[[], float | None]:
    """Give what says how much of a time is left."""
    if timeout is None:
        return lambda: None
    until_s = time.monotonic() + timeout
    return lambda: max(until_s - time.monotonic(), 0.0)
