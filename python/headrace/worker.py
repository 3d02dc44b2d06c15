"""The worker process: it becomes what the client is, then runs tasks in native code until the broker says goodbye.

Started by the broker as `python -c "from headrace.worker import main; main()"` with the descriptors of status page,
control socket and boot record, the broker's endpoint, the worker's number and incarnation, and the path of libzmq.

Every import here is paid by every start of every worker, so there are few; what only a failure needs is imported then.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` dresses the same with enums, for 5 ms
import gc
import os
import sys

from headrace import _core
from headrace.current import Current, set_process_source
from headrace.memory import set_worker
from headrace.streams import open_streams

TYPE_CHECKING = False  # without the import of typing; see headrace/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Any

    from headrace.client import Client
    from headrace.graph import Graph

#: Exit code of a worker that could not become what the client is.
EXIT_BOOT_FAILED = 3

#: Exit code of a worker whose session broke.
EXIT_SESSION_BROKEN = 1

#: How long an interrupt waits for an import.
IMPORT_PAUSE_S = 0.005


def main() -> None:
    """Run this process as a worker."""
    arguments = sys.argv[1:]
    sys.argv[1:] = []
    sys.exit(work(arguments))


def work(arguments: Sequence[str]) -> int:
    """Boot, run tasks, and return the exit code."""
    status_fd, control_fd, boot_fd, endpoint, number, incarnation, libzmq, stacks_fd = arguments
    prepare_process(int(stacks_fd))
    worker = None
    try:
        # From the second step on this process cannot outlive its broker, and the connection comes up meanwhile.
        record = read_boot_record(int(boot_fd))
        own = int(status_fd), int(control_fd), endpoint, int(number), int(incarnation), libzmq, python_version()
        worker = _core.Worker(*own, record.get("keys"))
        prepare_for_tasks(worker)
        boot(record)
        # Not before: the broker must not hear of this process until it can take tasks.
        set_worker(worker)
    except BaseException as error:  # also SystemExit of a preloaded module
        report_boot_failure(worker, error)
        return EXIT_BOOT_FAILED
    # What was made until now lives as long as the process: no collection needs to look at it again.
    gc.freeze()
    broken = worker.run(load_function, *recorders(worker.number), submit_in_place)
    if broken is not None:
        print(f"headrace worker {number}: {broken}", file=sys.stderr)
        return EXIT_SESSION_BROKEN
    return 0


def prepare_process(stacks_fd: int) -> None:
    """Give tasks an empty `__main__`, and a traceback when they crash the process.

    On a signal of the broker the process writes the stacks of all its threads to `stacks_fd`, whatever it hangs in.
    """
    sys.modules["__main__"] = type(sys)("__main__")
    import faulthandler

    if sys.stderr is not None:
        faulthandler.enable(sys.stderr)
    os.set_inheritable(stacks_fd, False)
    faulthandler.register(_core.STACKS_SIGNAL, stacks_fd)


def prepare_for_tasks(worker: _core.Worker) -> None:
    """Connect what Python asks with what the native side knows."""
    interrupted: tuple[int, int] | None = None

    def interrupt(_signal_number: int, frame: FrameType | None) -> None:
        # The signal is for one attempt. It may arrive when that has ended, and must then hit nobody else; or twice, for
        # its time limit and for a cancel that crosses the news of that.
        nonlocal interrupted
        if worker.is_cancelled() and ((attempt := worker.running()) is None or attempt != interrupted):
            if not imports(frame):
                interrupted = attempt
                raise KeyboardInterrupt
            interrupt_later()

    def client() -> Client:
        from headrace.nested import client_of_task

        return client_of_task(worker)

    def current_task() -> Current | None:
        running = worker.current()
        if running is None:
            return None
        key, attempt, failures = running
        return Current(key, attempt, failures, worker.number, worker.is_cancelled, client)

    open_streams(worker.output)
    _signal.signal(_signal.SIGINT, interrupt)
    set_process_source(current_task)

    def enter_child() -> None:
        set_worker(None)
        worker.note_fork()

    os.register_at_fork(before=worker.prepare_fork, after_in_child=enter_child)


def imports(frame: FrameType | None) -> bool:
    """Say whether a module is being imported. Half of a package would stay behind, and no later import mend that."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def interrupt_later() -> None:
    """Send the signal once more, in a moment. An import that does not end ends with its process, after the grace."""
    import _thread  # built in, as `time` is
    import time

    def send() -> None:
        time.sleep(IMPORT_PAUSE_S)
        _thread.interrupt_main()

    _thread.start_new_thread(send, ())


def read_boot_record(fd: int) -> dict[str, Any]:
    """Read what the client wants its workers to be."""
    import _pickle  # without the Python half of `pickle`, which the C half does not need

    # By position: all workers share the file's offset.
    record: dict[str, Any] = _pickle.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    os.close(fd)
    return record


def boot(record: dict[str, Any]) -> None:
    """Become what the client is: its path, then the modules and the setup that it asked for."""
    sys.path[:] = record["sys_path"]
    if record.get("authkey"):
        from multiprocessing.process import current_process

        current_process().authkey = record["authkey"]
    for name in record["preload"]:
        __import__(name)
    if record["setup"] is not None:
        import _pickle

        _pickle.loads(record["setup"])()


def report_boot_failure(worker: _core.Worker | None, error: BaseException) -> None:
    """Say on both channels why there will be no worker."""
    import traceback

    text = "".join(traceback.format_exception(error))
    print(text, file=sys.stderr, end="")
    if worker is not None:
        worker.refuse(text)


def python_version() -> str:
    """Give the version as HELLO wants it, such as `3.11.7`."""
    return ".".join(map(str, sys.version_info[:3]))


def load_function(blob: bytes) -> Callable[..., object]:
    """Give the function of a task."""
    from headrace import pickling

    return pickling.load_function(blob)


def submit_in_place(graph: Graph) -> None:
    """Submit a graph that a task has returned, to take its place."""
    from headrace.nested import submit_in_place

    submit_in_place(graph)


if TYPE_CHECKING:
    #: Key, attempt, attempts that failed before, largest size of a result, and what is called if that could be loaded.
    Attempt = tuple[str, int, int, int, Callable[..., object] | None]
    #: The record of a failure, and whether it is worth a retry.
    Failure = tuple[bytes, bool]


def recorders(worker: int) -> tuple[Callable[..., Failure], Callable[..., Failure], Callable[..., Failure]]:
    """Give what records the failures of this worker's tasks: an exception, a bad result, a result that is too large."""

    def record_error(attempt: Attempt, error: BaseException) -> Failure:
        from headrace.records import dump_failure
        from headrace.retrying import is_worth_a_retry

        key, number, failures, limit, fn = attempt
        advise(error)
        is_worth = is_worth_a_retry(fn, error)
        return dump_failure(error, key, number, worker, limit, failures), is_worth

    def record_result(attempt: Attempt, error: BaseException, result: object) -> Failure:
        return record_error(attempt, result_error(attempt[0], error, result))

    def record_size(attempt: Attempt, size: int) -> Failure:
        from headrace.errors import ResultTooLarge

        key, _, _, limit, _ = attempt
        text = (
            f"task {key!r} returned a value of {size:,} bytes; the limit is {limit:,}. "
            "Write it to a file and return the path, or split the task"
        )
        return record_error(attempt, ResultTooLarge(text, key=key))

    return record_error, record_result, record_size


#: How numpy and `memoryview` refuse a write.
WRITE_REFUSED = (
    r"\b(array|destination|base)\b.* is read-only$|^cannot set WRITEABLE flag to True|^cannot modify read-only memory$"
)

#: What to do about it, where the memory is that of an argument.
READ_ONLY = (
    "headrace: large arguments are read-only views of results in shared memory. A task with the option "
    '.options(writable=("x",)) may write to its argument x; headrace.copy(x) makes a copy that can be changed'
)


def advise(error: BaseException) -> None:
    """Add to the failure of a write what to do instead. Never raises: the class of the error may be the user's own."""
    if not isinstance(error, ValueError | TypeError):
        return
    try:
        import re

        is_refusal = re.search(WRITE_REFUSED, str(error)) is not None
    except BaseException:  # the record of the failure will say so
        return
    if is_refusal:
        from headrace.notes import add_note

        add_note(error, READ_ONLY, once=True)


def result_error(key: str, error: BaseException, result: object) -> BaseException:
    """Name what is wrong with a result that cannot be encoded."""
    from types import AsyncGeneratorType, CoroutineType, GeneratorType

    from headrace.errors import InfraError, ResultNotPicklable

    if isinstance(error, InfraError | MemoryError):
        return error  # there is nothing wrong with the result but its size

    kind = type(result)  # not isinstance, which asks the object itself: it may raise, as a dead weakref.proxy does
    if kind is GeneratorType:
        text = "is a generator: it cannot leave its process. Return list(...) of it instead"
    elif kind is CoroutineType:
        result.close()  # type: ignore[attr-defined]  # nobody will await it, and it need not say so
        text = "is a coroutine: tasks are plain functions. Call asyncio.run(...) in the task"
    elif kind is AsyncGeneratorType:
        text = "is an async generator: tasks are plain functions. Collect its items with asyncio.run(...) in the task"
    else:
        from headrace.pickling import describe_error, explain

        try:
            path, reason = explain(result) or ("", describe_error(error))
        except Exception:
            path, reason = "", describe_error(error)
        text = f"cannot be pickled: {f'result{path}: ' if path else ''}{reason}"
    named = ResultNotPicklable(f"the result of task {key!r} {text}", key=key)
    named.__cause__ = error
    return named
