"""The native half of headrace. Names that start with an underscore are for the package's own Python."""

from collections.abc import Callable
from os import PathLike
from typing import Any, Generic, TypeVar, final, overload

from headrace.graph import Graph as _PythonGraph

_T = TypeVar("_T")

# -- client --------------------------------------------------------------------------------------------------------------

_State = tuple[
    tuple[int, int, int, int, int, int, int],
    tuple[int, int],
    list[tuple[int, int, int, int]],
    tuple[int, int, int, int, int, int, int],
]

@final
class ClientCore:
    """A session of a client."""

    @staticmethod
    def embedded(
        *,
        workers: int,
        program: str,
        arguments: list[str],
        environment: list[tuple[str, str]],
        boot: bytes,
        libzmq: list[str],
        crash_limit: int,
        result_bytes_max: int,
        grace_s: float,
    ) -> ClientCore:
        """Start an embedded broker with its workers, and a session with it."""

    @staticmethod
    def local(workers: int) -> ClientCore:
        """Open a session whose tasks this process runs by itself."""

    @property
    def session(self) -> int:
        """Number of the session in this process."""

    @property
    def forked(self) -> bool:
        """Whether this is a forked child of the process that made the client."""

    def check_process(self) -> None:
        """Raise `ForkedClientError` in a forked child."""

    def call(self, function: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, str]:
        """Submit a single call; give its index among the calls, and its key."""

    def cancel(self, run: int, indices: list[int] | None = None) -> None:
        """Cancel tasks of a run with all that depends on them; None is the whole run."""

    def unfinished(self) -> tuple[list[int], int]:
        """Give the numbers of the runs that have not ended, and how many calls have not."""

    def wait_idle(self) -> None:
        """Wait until every run and every call has ended, or the session is over."""

    def query(self, run: int) -> _State | None:
        """Ask the broker for the state of a run; None if the session is over."""

    def watch(self, number: int, run: int, index: int | None = None, seen: int | None = None) -> bool:
        """Have `wait_watches` tell `number` once something has happened; False if it has already."""

    def wait_watches(self) -> list[int]:
        """Wait for something that is watched; give the numbers of the watches, each once."""

    def close(self) -> None:
        """End the session, and the embedded broker with its workers."""

    def wait_alone(self) -> None:
        """Wait, at the end of the interpreter and after `close`, until no other thread is in native code for this session."""

    def open_call(self, name: str, key: str | None = None) -> tuple[int, str]:
        """Open a row for a single call of a local session; give its index and its key."""

    def settle(self, run: int, index: int, value: object, error: BaseException | None = None) -> None:
        """Enter how a task of a local session ended."""

    def finish(self, run: int) -> None:
        """Note that every task of a run of a local session has ended."""

    def take_hold_changes(self) -> list[tuple[int, int | None, int]]:
        """Give the changes of what is held since the last call, as (run, index, change)."""

class RunCore:
    """A submitted graph. Base of `headrace.Run`."""

    def __new__(cls, client: object, core: ClientCore, graph: _PythonGraph, keep: object) -> RunCore: ...
    @property
    def number(self) -> int:
        """Number of the run in its session."""

    @property
    def graph(self) -> _PythonGraph:
        """The graph that was submitted."""

    @overload
    def result(self, node: Node[_T], timeout: float | None = None) -> _T: ...
    @overload
    def result(self, node: object = None, timeout: float | None = None) -> Any:
        """Give the result of a kept task; wait for it at most `timeout` seconds."""

    def results(self, timeout: float | None = None) -> list[Any]:
        """Give the results of all kept tasks in the order of `keep`; wait for them at most `timeout` seconds together."""

    def done(self) -> bool:
        """Say whether every task has ended."""

    def release(self) -> None:
        """Let go of the results: they can no longer be read here. Refs keep theirs."""

    @property
    def _tasks(self) -> int: ...
    @property
    def _kept(self) -> int: ...
    @property
    def _keep(self) -> list[int]: ...
    def _wait_end(self, timeout: float | None = None) -> bool: ...
    def _next_arrival(self, position: int, timeout: float | None = None) -> tuple[int, int] | None: ...
    def _outcome(self, index: int) -> tuple[Any, BaseException | None]: ...
    def _node(self, index: int) -> Node[Any]: ...
    def _counts(self) -> tuple[int, int, int, int, int] | None: ...
    def _hold(self, node: object) -> tuple[int, str]: ...
    def _release_one(self, index: int) -> None: ...

class ExternalRef:
    """A result of a session, held while this object lives. Base of futures and refs."""

    def __new__(cls, core: ClientCore, run: int, index: int, *_rest: object) -> ExternalRef: ...
    @property
    def session(self) -> int:
        """Number of the client's session."""

    @property
    def run(self) -> int:
        """Number of the run; 0 for single calls."""

    @property
    def index(self) -> int:
        """Index of the task within the run."""

    def _arrived(self) -> bool: ...
    def _wait_arrival(self, timeout: float | None = None) -> bool: ...
    def _outcome(self, key: str) -> tuple[Any, BaseException | None]: ...

@final
class Kernel:
    """Which tasks are ready, and which results are alive, where tasks run in the client's own process."""

    def __new__(cls, workers: int, *, one_for_all: bool = False) -> Kernel: ...
    def externals(self, graph: _PythonGraph) -> list[tuple[int, int]]:
        """Give (run, index) of the results that a graph cites from outside, in its order."""

    def submit(self, graph: _PythonGraph, count: int, externals: list[int], keep: list[int]) -> list[int]:
        """Add the first `count` tasks of a graph and hold the kept ones; give the slots of its tasks."""

    def submit_one(self, externals: list[int], worker: int | None = None, priority: int = 0) -> int:
        """Add one task, held once, behind others; give its slot."""

    def lease(self, worker: int) -> tuple[int, int] | None:
        """Lease one task to a worker: (slot, attempt), or None if none is ready for it."""

    def predecessors(self, slot: int) -> list[int]:
        """Give the predecessors of a task, in the order in which its arguments cite them."""

    def complete(self, worker: int, slot: int, attempt: int) -> bool:
        """Note that the task returned; give False if the lease is no longer good (K4)."""

    def fail(self, worker: int, slot: int, attempt: int) -> bool:
        """Note that the task failed; give False if the lease is no longer good (K4)."""

    def cancel(self, slots: list[int]) -> None:
        """Cancel tasks that have not ended, and all that depends on them."""

    def hold(self, slot: int) -> None:
        """Add a hold on a result."""

    def unhold(self, slot: int) -> None:
        """Take a hold away."""

    def drain(self) -> tuple[list[tuple[int, int | None]], list[int], list[int]]:
        """Give what followed: tasks that ended without running, results that died, slots that are free."""

    def open(self) -> tuple[int, int, int]:
        """Give the numbers of (waiting, ready, leased) tasks now, of all runs."""

def forget_parent() -> None:
    """Make every client of the parent unusable in a forked child."""

# -- worker ------------------------------------------------------------------------------------------------------------

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
    ) -> Worker: ...
    @property
    def number(self) -> int:
        """The worker's number."""

    def run(
        self,
        load_function: Callable[[bytes], Callable[..., object]],
        record_error: Callable[[str, int, int, BaseException], bytes],
        record_result: Callable[[str, int, int, BaseException, object], bytes],
        record_size: Callable[[str, int, int, int], bytes],
    ) -> str | None:
        """Say HELLO and run tasks until the session ends; give None, or why it did not end as it should.

        The callables give a function from its bytes, and the record of a failure from key, attempt, largest size and
        the exception that the task raised; the exception that says why its result cannot be encoded, and the result;
        or the size of the result.
        """

    def refuse(self, text: str) -> None:
        """End the session before it began; GOODBYE carries `text`."""

    def current(self) -> tuple[str, int] | None:
        """Give key and attempt of the task that runs."""

    def is_cancelled(self) -> bool:
        """Say whether the attempt that executes now was cancelled."""

    def note_fork(self) -> None:
        """Note that this is a forked child, which must not run tasks."""
