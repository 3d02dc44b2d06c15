"""What a task may know of itself, and the client to submit with: `hr.current()`, `hr.current_client()`."""

from __future__ import annotations

import _thread

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.client import Client


class Current:
    """The task that runs: its key, its attempt, its worker, and whether it was cancelled.

    Attributes:
        key: the task's own key, or `name-index`.
        attempt: number of this try; every lease gets a new one, so it may start anywhere and skip numbers.
        failures: how many attempts of the task failed before this one.
        worker: number of the worker that runs it.
    """

    __slots__ = ("_client", "_is_cancelled", "attempt", "failures", "key", "worker")

    def __init__(
        self,
        key: str,
        attempt: int,
        failures: int,
        worker: int,
        is_cancelled: Callable[[], bool],
        client: Callable[[], Client],
    ) -> None:
        self.key = key
        self.attempt = attempt
        self.failures = failures
        self.worker = worker
        self._is_cancelled = is_cancelled
        self._client = client

    @property
    def cancelled(self) -> bool:
        """Whether this attempt was cancelled, or runs for too long. A long task may ask now and then, and end early.

        Cost: one look at shared memory in a worker process.
        """
        return self._is_cancelled()

    def __repr__(self) -> str:
        state = ", cancelled" if self.cancelled else ""
        return f"<task {self.key!r}, attempt {self.attempt}, worker {self.worker}{state}>"


def current() -> Current:
    """Tell which task calls.

    Returns:
        A record of the running task. It stays true for as long as the task runs.

    Raises:
        UsageError: no task runs here.

    Cost:
        About a microsecond.
    """
    return _running("headrace.current() tells of the task that calls it")


def current_client() -> Client:
    """Give the client with which the task that calls may submit tasks of its own, and wait for them.

    What a task submits ends with it: what has not ended then is cancelled. While it waits, other tasks may run in its
    place, and, if there are no workers left, within the wait.

    Returns:
        In a worker process a client for this attempt, which ends with it. On threads and in "sync" the client itself.

    Raises:
        UsageError: no task runs here.

    Cost:
        The first time in a process a few milliseconds; then a few microseconds.
    """
    return _running("headrace.current_client() gives a task the client to submit with")._client()


def _running(purpose: str) -> Current:
    task: Current | None = getattr(_of_thread, "task", None) or _of_process()
    if task is None:
        from headrace.errors import UsageError

        raise UsageError(f"{purpose}; no task runs here")
    return task


class running:  # noqa: N801  (reads as a word of the `with` statement)
    """`with running(task):` makes `task` what `current()` gives in this thread. For tasks that run in the client."""

    __slots__ = ("_before", "_task")

    def __init__(self, task: Current) -> None:
        self._task = task

    def __enter__(self) -> None:
        self._before = getattr(_of_thread, "task", None)
        _of_thread.task = self._task

    def __exit__(self, *_: object) -> None:
        _of_thread.task = self._before


def set_process_source(source: Callable[[], Current | None]) -> None:
    """Make `source` tell which task runs in this process, whatever thread asks. For worker processes."""
    global _of_process
    _of_process = source


#: The thread's own task, in a process that runs several at a time. (`threading.local`, without importing that.)
_of_thread = _thread._local()


def _of_process() -> Current | None:
    return None
