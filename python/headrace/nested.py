"""Clients of tasks in worker processes: what they submit goes over the connection of their worker."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from headrace.client import Client
from headrace.current import current_client
from headrace.dispatcher import Dispatcher
from headrace.embedded import Brokered
from headrace.errors import GraphError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from headrace._core import ClientCore, Worker
    from headrace.graph import Graph


class Hosted(Brokered):
    """Speaks with the broker of the worker's process."""

    def stop(self) -> None:
        """Do nothing: the worker's session goes on."""


class TaskClient(Client):
    """The client of an attempt, from `hr.current_client()`. It ends with the attempt, and needs no `close`."""

    def __init__(self, core: ClientCore, worker: Worker, attempt: tuple[int, int]) -> None:
        self._core = core
        self._engine = Hosted(core)
        self._mode = "processes"
        self._workers = len(os.sched_getaffinity(0))  # how many there are is the broker's to know
        self._open = True
        self._worker = worker
        self._attempt = attempt

    def close(self, wait: bool = True, cancel: bool = False) -> None:
        """Do nothing: the client ends with its task."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __del__(self) -> None:
        pass

    @property
    def _dispatcher(self) -> Dispatcher:
        return _dispatcher_of(self._core)

    def _check_open(self) -> None:
        self._core.check_process()
        if not self._worker.has_attempt(self._attempt):
            raise UsageError("the task that had this client has ended; ask hr.current_client() in each task anew")

    def _describe(self) -> str:
        return "of a task" if self._worker.has_attempt(self._attempt) else "of a task that has ended"


def client_of_task(worker: Worker) -> TaskClient:
    """Give the client of the task that runs in this process."""
    attempt = worker.running()
    client = attempt and _clients.get(attempt)
    if not client:
        core = worker.nested_client()
        if core is None or attempt is None:
            raise UsageError("no task runs here")
        client = _clients[attempt] = TaskClient(core, worker, attempt)
    return client


def submit_in_place(graph: Graph) -> None:
    """Submit a graph that the running task returns: the result of its sink, or a tuple of those, will be its own.

    Raises:
        GraphError: there is no task in it.
        UsageError: it is for another mode.
    """
    client = current_client()
    client._core.replace(graph, _result_of(graph))


def _result_of(graph: Graph) -> int:
    sinks = graph.sinks
    if not sinks:
        raise GraphError("the task returned a graph without tasks; let it return a value instead")
    return (sinks[0] if len(sinks) == 1 else graph.add(together, *sinks)).index


def together(*results: Any) -> tuple[Any, ...]:
    """Give the results of several sinks as one."""
    return results


def _dispatcher_of(core: ClientCore) -> Dispatcher:
    """Give the one dispatcher of this process: all tasks share a session."""
    with _lock:
        if not _dispatchers:
            _dispatchers.append(Dispatcher(core))
        return _dispatchers[0]


#: By slot and attempt, for as long as somebody has them.
_clients: weakref.WeakValueDictionary[tuple[int, int], TaskClient] = weakref.WeakValueDictionary()

_lock = threading.Lock()
_dispatchers: list[Dispatcher] = []
