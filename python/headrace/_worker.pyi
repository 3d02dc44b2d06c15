"""The part of `headrace._core` that runs tasks in a worker process; it is no module of its own at run time."""

from collections.abc import Callable
from os import PathLike
from typing import Any, TypeVar, final

from headrace._core import Block, ClientCore
from headrace._output import Output

_T = TypeVar("_T")

#: Key, number, attempts that failed before, largest size of a result, and what is called, if that could be loaded.
_Attempt = tuple[str, int, int, int, Callable[..., object] | None]

@final
class Worker:
    """The native half of a worker process. A process has one, and calls `run` on its main thread."""

    def __new__(
        cls,
        status_fd: int,
        control_fd: int,
        endpoint: str,
        number: int,
        incarnation: int,
        libzmq: str | PathLike[str],
        python: str,
        keys: tuple[str, str, str] | None = None,
    ) -> Worker: ...
    @property
    def number(self) -> int:
        """The worker's number."""

    @property
    def output(self) -> Output:
        """What its tasks print."""

    def run(
        self,
        load_function: Callable[[bytes], Callable[..., object]],
        record_error: Callable[[_Attempt, BaseException], tuple[bytes, bool]],
        record_result: Callable[[_Attempt, BaseException, object], tuple[bytes, bool]],
        record_size: Callable[[_Attempt, int], tuple[bytes, bool]],
        submit_in_place: Callable[[Any], None],
    ) -> str | None:
        """Say HELLO and run tasks until the session ends; give None, or why it did not end as it should.

        The callables give a function from its bytes, and the record of a failure and whether it is worth a retry. They
        take the attempt and the exception that the task raised; the exception that says why its result cannot be
        encoded, and the result; or the size of the result. The last one submits a graph that a task has returned.
        """

    def refuse(self, text: str) -> None:
        """End the session before it began; GOODBYE carries `text`."""

    def nested_client(self) -> ClientCore | None:
        """Give the running task a client; None if there is no task."""

    def running(self) -> tuple[int, int] | None:
        """Give slot and attempt of the task that runs."""

    def has_attempt(self, attempt: tuple[int, int]) -> bool:
        """Say whether an attempt, by its slot and number, has not ended."""

    def current(self) -> tuple[str, int, int] | None:
        """Give key and attempt of the task that runs, and how many attempts failed before."""

    def is_cancelled(self) -> bool:
        """Say whether the attempt that executes now was cancelled."""

    @property
    def shares_memory(self) -> bool:
        """Whether large results lie in shared memory."""

    def allocate(self, size: int) -> Block:
        """Give a writable object with so many bytes of shared memory."""

    def make_writable(self, value: _T) -> _T:
        """Give the value with buffers that may be written to, which nobody else sees."""

    def prepare_fork(self) -> None:
        """To be called before a fork."""

    def note_fork(self) -> None:
        """Note that this is a forked child, which must not run tasks."""
