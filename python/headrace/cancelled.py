"""The one error whose base is in concurrent.futures; imported when it is first named."""

from __future__ import annotations

import concurrent.futures

from headrace.errors import HeadraceError


class CancelledError(HeadraceError, concurrent.futures.CancelledError):
    """A task was cancelled.

    Attributes:
        key: the task.
        reason: "user" (somebody asked for it), "parent-cancelled" (a task that it needs was cancelled), "deadline" (its
            run passed its deadline), "run-failed" (another task of its run failed), "submitter-ended"
            (the task that submitted it has ended), "client-closed" or "broker-shutdown".
    """

    def __init__(self, text: str = "", *, key: str | None = None, reason: str = "user") -> None:
        super().__init__(text)
        self.key = key
        self.reason = reason


# Pickles and tracebacks name it where users find it.
CancelledError.__module__ = "headrace.errors"
