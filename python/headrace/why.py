"""Where a task is, and what it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Place, worker, pid, attempt, milliseconds since it runs, text, stacks.
    Parts = tuple[int, int | None, int, int, int, str, str]

#: States by their number on the wire.
STATES = (
    "unknown", "waiting", "ready", "pausing", "queued", "running", "done", "failed", "skipped", "cancelled",
)  # fmt: skip


class Why(NamedTuple):
    """Where a task is, and what it waits for, from `run.why(node)` or `future.why()`. As a text it says all of that."""

    key: str
    """Key of the task."""
    state: str
    """waiting (for tasks that it needs), ready (waits for a worker, or for what it takes), pausing (before its next
    attempt), queued (a worker has it and runs another one), running, done, failed, skipped, cancelled; or unknown."""
    text: str
    """The state, and what the task waits for: tasks, resources and tags with their holders, a worker, memory."""
    worker: int | None = None
    """Number of the worker that has it."""
    pid: int | None = None
    """Process id of that worker; None in the modes `threads` and `sync`."""
    attempt: int = 0
    """Number of its attempt, or of the last one; 0 before the first."""
    since_s: float = 0.0
    """Seconds that a running task has been running."""
    stacks: str = ""
    """Python stacks of the process that runs it, if they were asked for, or why there are none."""

    def __str__(self) -> str:
        return f"{self.text}\n{self.stacks}" if self.stacks else self.text


def why(key: str, parts: Parts) -> Why:
    """Make an answer of what the native side says."""
    place, worker, pid, attempt, since_ms, text, stacks = parts
    state = STATES[place] if place < len(STATES) else STATES[0]
    return Why(key, state, text, worker, pid or None, attempt, since_ms / 1_000, stacks)


def ended(key: str, ending: Callable[[], BaseException | None]) -> Why:
    """Give the answer for a task that nobody knows any more; `ending` gives what it raised, if that is known."""
    from headrace.errors import CancelledError, HeadraceError, UpstreamFailed

    try:
        error = ending()
    except HeadraceError:
        return Why(key, "unknown", f"{key!r} has ended, and was let go of")
    if error is None:
        return Why(key, "done", f"{key!r} is done")
    if isinstance(error, CancelledError):
        return Why(key, "cancelled", f"{key!r} was cancelled: {error}")
    if isinstance(error, UpstreamFailed):
        return Why(key, "skipped", str(error))
    return Why(key, "failed", f"{key!r} has failed: {type(error).__name__}: {error}")
