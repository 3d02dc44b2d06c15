"""Every error of headrace, named by who must act.

Three groups: what became of a task (`TaskError`, `UpstreamFailed`, `TaskTimeout`, `CancelledError`), what became of the
machinery (`InfraError`), and what the caller should write otherwise (`UsageError`). A task's own exception is none of
them: it is raised as the instance that the task raised.
"""
# Errors are named by what happened; a suffix would add nothing.
# ruff: noqa: N818

from __future__ import annotations

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from headrace.cancelled import CancelledError as CancelledError
    from headrace.deaths import WorkerDeath


class HeadraceError(Exception):
    """The base of every error that headrace raises by itself."""

    def __reduce__(self) -> Any:
        # Its own, or tblib, which Dask's distributed installs for all exceptions, makes them by `__new__` alone.
        return super().__reduce__()


# -- what became of a task ---------------------------------------------------------------------------------------------


class TaskError(HeadraceError):
    """A task raised an exception that cannot travel; this is its text. A note says what is in the way.

    Make the exception picklable to get it as it was: one that takes other arguments than it passes to
    `super().__init__` needs a `__reduce__`. It must also take less than 1 MiB, and be of a class that the client can
    import or that is defined in `__main__` or a notebook.

    `SystemExit`, `KeyboardInterrupt`, `GeneratorExit` and `asyncio.CancelledError` fail the task that raises them, and
    arrive as this: raised in the client, they would end more than the task.

    Attributes:
        key: the task.
        attempt: number of the attempt that failed.
        worker: number of the worker that ran it.
        type_name: qualified name of the exception's class.
        traceback: the traceback in the worker, as text.
    """

    def __init__(
        self,
        text: str,
        *,
        key: str | None = None,
        attempt: int | None = None,
        worker: int | None = None,
        type_name: str | None = None,
        traceback: str | None = None,
    ) -> None:
        super().__init__(text)
        self.key = key
        self.attempt = attempt
        self.worker = worker
        self.type_name = type_name
        self.traceback = traceback


class UpstreamFailed(HeadraceError):
    """A task did not run because a task that it needs failed. Look at the task `root_key`; its error is the cause.

    Key and error of that task are known for as long as its run, or its future, is there. Where those were let go of
    before, this error names neither, and has no cause.

    Attributes:
        key: the task that did not run.
        root_key: the task that failed, or None.
    """

    def __init__(self, text: str, *, key: str | None = None, root_key: str | None = None) -> None:
        super().__init__(text)
        self.key = key
        self.root_key = root_key


class TaskTimeout(HeadraceError, TimeoutError):
    """A task took longer than its option `timeout_s` allows, or stood ready for longer than `queue_timeout_s`.

    Raise the limit, split the task, or give it more workers.

    Attributes:
        key: the task.
        attempt: number of the attempt, or None if it never started.
        worker: number of the worker, likewise.
    """

    def __init__(
        self, text: str, *, key: str | None = None, attempt: int | None = None, worker: int | None = None
    ) -> None:
        super().__init__(text)
        self.key = key
        self.attempt = attempt
        self.worker = worker


# -- what became of the machinery --------------------------------------------------------------------------------------


class InfraError(HeadraceError):
    """Something below the tasks failed: a worker, the broker, or memory."""


class WorkerDied(InfraError):
    """A task ended its worker process too often: it crashed, was killed, or left by `os._exit`.

    Only this task is affected. Look at `stderr`, and run it by itself with mode="sync".

    Attributes:
        key: the task.
        worker: number of the worker that died last.
        pid: its process id.
        signal: the signal that ended it, or None.
        exit_code: its exit code if no signal ended it, or None.
        attempts: how often the task was executing when its worker died in this way.
        stderr: the last lines that the worker wrote to standard error.
        deaths: each of its deaths, of this kind and others, oldest first, as
            `WorkerDeath(worker, pid, signal, exit_code, cause)`.
    """

    def __init__(
        self,
        text: str,
        *,
        key: str | None = None,
        worker: int | None = None,
        pid: int | None = None,
        signal: int | None = None,
        exit_code: int | None = None,
        attempts: int | None = None,
        stderr: str = "",
        deaths: tuple[WorkerDeath, ...] = (),
    ) -> None:
        super().__init__(text)
        self.key = key
        self.worker = worker
        self.pid = pid
        self.signal = signal
        self.exit_code = exit_code
        self.attempts = attempts
        self.stderr = stderr
        self.deaths = deaths


class WorkerOOM(WorkerDied, MemoryError):
    """The kernel killed a worker for want of memory, while it executed this task.

    Give the task less data, or run fewer workers. The task is not tried again, because the next victim could be this
    very process: `Client(oom_limit=2)` allows one more try. Who catches `MemoryError` catches this, too.
    """


class PoisonTask(WorkerDied):
    """A task ended as many workers as `Client(crash_limit=…)` allows: it is not tried again. The text lists them."""


class WorkerLost(InfraError, ConnectionError):
    """A task's worker fell silent, time after time: it was stopped, or out of reach, and was killed.

    Silence says little of a task, so it is tried again until ten workers were lost. What it did may have happened.

    Attributes:
        key: the task.
        worker: number of the worker that was lost last.
        pid: its process id.
        attempts: how often the task was executing when its worker was lost.
        deaths: each of its deaths, as for `WorkerDied`.
    """

    def __init__(
        self,
        text: str,
        *,
        key: str | None = None,
        worker: int | None = None,
        pid: int | None = None,
        attempts: int | None = None,
        deaths: tuple[WorkerDeath, ...] = (),
    ) -> None:
        super().__init__(text)
        self.key = key
        self.worker = worker
        self.pid = pid
        self.attempts = attempts
        self.deaths = deaths


class BrokerLost(InfraError, ConnectionError):
    """The broker is gone, and with it every run. Make a new client and submit again."""


class ResultLost(InfraError):
    """The only copy of a result was lost and cannot be computed again. Submit the run again.

    Attributes:
        key: the task.
    """

    def __init__(self, text: str, *, key: str | None = None) -> None:
        super().__init__(text)
        self.key = key


class StoreFull(InfraError, MemoryError):
    """Results need more memory than the budget has. Release results, or raise the budget."""


class Stalled(InfraError):
    """Nothing runs and nothing can. The text says what the tasks wait for."""


class NoSuitableWorker(InfraError):
    """No worker can ever run a task as its options ask. Change the options, or start such a worker.

    Attributes:
        key: the task.
    """

    def __init__(self, text: str, *, key: str | None = None) -> None:
        super().__init__(text)
        self.key = key


# -- what the caller should write otherwise ----------------------------------------------------------------------------


class UsageError(HeadraceError):
    """The call cannot be carried out as written; the text says what to write instead."""


class GraphError(UsageError, ValueError):
    """A graph cannot be built or run as asked: a cycle, a duplicate or unknown key, a node of another graph."""


class ArgumentNotPicklable(UsageError, TypeError):
    """A function or argument cannot be sent to a worker.

    The text names the function, the argument and the attribute at fault. Open files, locks and connections cannot
    travel: pass what is needed to open them, or give the class a `__reduce__`.
    """


class ResultNotPicklable(UsageError, TypeError):
    """A task returned something that cannot leave its worker, such as a generator. Return plain data instead.

    Attributes:
        key: the task.
    """

    def __init__(self, text: str, *, key: str | None = None) -> None:
        super().__init__(text)
        self.key = key


class ResultTooLarge(UsageError, ValueError):
    """A result is longer than the limit. Write it to a file and return the path, or split the task.

    Attributes:
        key: the task.
    """

    def __init__(self, text: str, *, key: str | None = None) -> None:
        super().__init__(text)
        self.key = key


class NotKept(UsageError, LookupError):
    """The run does not keep this result. Name the node in `keep` when submitting."""


class ResultReleased(UsageError, LookupError):
    """The result was released already. Read it before `release`, or hold it by `run.ref`."""


class ForkedClientError(UsageError, RuntimeError):
    """A client was used in a forked child of the process that made it. Make a client in the child."""


class VersionMismatch(UsageError, RuntimeError):
    """Two sides run different versions of headrace or Python. The text names both; install the same."""


class AuthError(UsageError, PermissionError):
    """The other side does not accept the key. Check which key file each side reads."""


if not TYPE_CHECKING:  # type checkers shall know the names, and no others

    def __getattr__(name: str) -> Any:
        # Its base lives in concurrent.futures, which costs 17 ms to import.
        if name == "CancelledError":
            from headrace.cancelled import CancelledError

            globals()[name] = CancelledError
            return CancelledError
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
