"""What to raise for a task that gave no value.

Called by the native part when such a result is read; the same words serve the modes that run tasks in this process.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from headrace.errors import (
    BrokerLost,
    CancelledError,
    GraphError,
    HeadraceError,
    InfraError,
    NoSuitableWorker,
    ResultReleased,
    Stalled,
    StoreFull,
    TaskError,
    TaskTimeout,
    UpstreamFailed,
    VersionMismatch,
)
from headrace.pickling import describe_error

if TYPE_CHECKING:
    from typing import Any

    from headrace.current import Current

#: Reasons of cancellation by their number on the wire.
CANCEL_REASONS = (
    "user",
    "parent-cancelled",
    "client-closed",
    "broker-shutdown",
    "deadline",
    "run-failed",
    "submitter-ended",
)

_CANCEL_TEXTS = {
    "user": "was cancelled",
    "parent-cancelled": "was cancelled because a task that it needs was",
    "client-closed": "was cancelled because the client was closed",
    "broker-shutdown": "was cancelled because the broker shut down",
    "deadline": "was cancelled because its run passed its deadline",
    "run-failed": "was cancelled because another task of its run failed",
    "submitter-ended": "was cancelled because the task that submitted it has ended",
}

#: Reasons of GOODBYE by their number on the wire.
VERSION_MISMATCH, WORKERS_FAILED = 1, 4


def raised(key: str, record: bytes) -> BaseException:
    """Give the exception that a task raised, from its worker's record."""
    from headrace.records import load_failure

    try:
        return load_failure(record)
    except Exception as error:
        failure = TaskError(f"task {key!r} raised an exception that cannot be read here: {error}", key=key)
        failure.__cause__ = error
        return failure


def failed(error: BaseException, task: Current) -> BaseException:
    """Give what to raise for an exception of a task in this process: itself, marked with the task.

    Never raises, whatever the exception's class makes of its attributes.
    """
    from headrace.notes import add_note, whose
    from headrace.records import ordinary

    try:
        error = ordinary(error, task.key, task.attempt, task.worker)
        add_note(error, whose(task.key, task.attempt, task.worker, task.failures), once=True)
        return error
    except BaseException as problem:
        failure = TaskError(f"task {task.key!r} raised an exception that cannot be told of", key=task.key)
        failure.__cause__ = problem
        return failure


def undecodable(key: str, error: BaseException) -> HeadraceError:
    """Give the error for a result whose bytes cannot be turned into an object here.

    Raises:
        KeyboardInterrupt: that was it, in the main thread: somebody wants to stop waiting, and may ask again later.
    """
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        raise error
    text = f"the result of task {key!r} cannot be unpickled here: {type(error).__name__}: {describe_error(error)}"
    failure = TaskError(text, key=key)
    failure.__cause__ = error
    return failure


def skipped(key: str, root_key: str | None, cause: BaseException | None) -> UpstreamFailed:
    """Give the error for a task that never ran because one that it needs failed."""
    name = repr(root_key) if root_key else "a task that it needs"
    text = f"{key!r} did not run because {name} failed" + (f": {_short(cause)}" if cause is not None else "")
    failure = UpstreamFailed(text, key=key, root_key=root_key)
    failure.__cause__ = cause
    return failure


def cancelled(key: str, reason: int | str) -> CancelledError:
    """Give the error for a task that was cancelled."""
    if isinstance(reason, int):
        reason = CANCEL_REASONS[reason] if reason < len(CANCEL_REASONS) else "user"
    return CancelledError(f"{key!r} {_CANCEL_TEXTS[reason]}", key=key, reason=reason)


def died(key: str, *parts: Any) -> InfraError:
    """Give the error for a task that ended its worker as often as it may; see `headrace.deaths.died`."""
    # Not with this module, which may be imported as the interpreter ends: a named tuple is made by running a text,
    # after which the interpreter has forgotten that it ends by Ctrl-C, and exits with 1.
    from headrace.deaths import died

    return died(key, *parts)


def timed_out(key: str, queued: bool, worker: int, attempt: int, limit_ms: int, failures: int) -> TaskTimeout:
    """Give the error for a task that passed a time limit."""
    from headrace.notes import after

    if queued:
        text = f"task {key!r} stood ready for longer than its queue_timeout_s={limit_ms / 1_000:g}"
        return TaskTimeout(f"{text}: no worker was free for it", key=key)
    text = f"task {key!r} (attempt {attempt}) ran for longer than its timeout_s={limit_ms / 1_000:g} in worker {worker}"
    return TaskTimeout(text + after(failures), key=key, attempt=attempt, worker=worker)


def refused(key: str, text: str) -> HeadraceError:
    """Give the error for a task that could not be run as asked."""
    word, colon, rest = text.partition(": ")
    if colon and word == "NoSuitableWorker":
        return NoSuitableWorker(f"task {key!r} cannot run: {rest}", key=key)
    if colon and word == "StoreFull":
        return StoreFull(f"task {key!r} has no result: {rest}")
    if colon and word == "Stalled":
        return Stalled(f"task {key!r} cannot run: nothing can go on: {rest}")
    if "released" in text:
        return ResultReleased(f"task {key!r} cannot run: {text}")
    return GraphError(f"task {key!r} cannot run: {text}")


def lost(key: str, by_us: bool, reason: int | None, text: str) -> HeadraceError:
    """Give the error for a result that will never come, because the session ended before."""
    if by_us and reason == 0:
        return cancelled(key, "client-closed")
    if reason == VERSION_MISMATCH:
        return VersionMismatch(text)
    if reason == WORKERS_FAILED:
        return InfraError(f"{key!r} cannot run: {text}")
    return BrokerLost(f"{key!r} has no result: {text}")


def _short(error: BaseException) -> str:
    try:
        text = repr(error)
    except BaseException:
        text = type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
