"""The client: one session with a broker and its workers."""

from __future__ import annotations

import atexit
import os
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from headrace._core import Node, Nodes, end_brokers, forget_parent
from headrace.engines import checked_extra, checked_workers, start_engine
from headrace.errors import UsageError
from headrace.limits import checked_lives
from headrace.runs import Run
from headrace.terms import checked_terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from headrace.dispatcher import Dispatcher
    from headrace.engines import Engine
    from headrace.futures import Future
    from headrace.graph import Graph
    from headrace.keys import PeerKeys
    from headrace.refs import Ref
    from headrace.statistics import RunStatistics
    from headrace.terms import Terms

R = TypeVar("R")

Mode = Literal["processes", "threads", "sync"]
#: What `submit` may keep: a node, a key, or any nesting of sequences of them.
Keep: TypeAlias = "Node[Any] | str | Iterable[Keep]"

#: The run of single calls.
CALLS = 0

#: Seconds that the end of a client which is cancelled waits for callbacks that run.
CALLBACKS_S = 0.5


class Client:
    """Workers, and the session to submit graphs and calls to them.

    A client without an address starts its own broker, a native thread in this process, and one worker process per
    core; both end with the client. Use it in a `with` statement: normal exit waits for everything that was submitted,
    an exception cancels it.

    Args:
        address: of a broker that `headrace broker` has started, as it says: "ipc://…", its directory, or
            "tcp://HOST:PORT". Everything else but `keys` is the broker's to know then, and is not given here.
        workers: how many; by default as many as cores are available to this process.
        extra_workers: how many worker processes more there may be at a time, in place of workers whose tasks wait for
            tasks that they have submitted; by default as many as cores. Processes only.
        mode: "processes"; "threads" runs tasks on threads of this process and shares objects instead of copying;
            "sync" runs them within `submit` and `call`, for a debugger.
        preload: names of modules that each worker imports before its first task.
        setup: a function without arguments that each worker calls once before its first task.
        env: environment variables for the workers, on top of this process's own.
        store_limit: bytes of memory that results may take together; by default half of what the process's control
            group, or the machine, has.
        spill_dir: directory for results beyond that; by default TMPDIR, /var/tmp or /tmp, whichever lies on a disk
            first. The files have no names and are gone with the client.
        spill_limit: bytes that they may take there; 0 for none. By default half of what is free there now.
        crash_limit: how many workers a task may end, by a crash say, before it fails with `PoisonTask`. It alone is
            counted that was executing; what was beside it runs again.
        oom_limit: the same for deaths by the kernel's OOM killer, which are counted apart: `WorkerOOM`.
        max_tasks_per_worker: tasks after which a worker process leaves and a fresh one takes its place, for code that
            leaks; by default they stay. Processes only.
        resources: how much there is of what tasks ask for by their option `resources`, such as
            `{"license": 2, "memory": "48GiB", "gpu": 2}`. Memory is this machine's unless it is given, and is counted,
            not measured. GPUs are divided among the worker processes, which see their own by CUDA_VISIBLE_DEVICES.
        limits: by tag, how many workers may run tasks with that tag at once.
        grace_s: seconds that a task has to end after it was interrupted, because it was cancelled or ran for too long;
            then its worker process is killed, and started again. In the other modes it has for ever.
        keys: for an address in the network: a key file of `headrace keygen`, or the directory of client.key, or
            `SessionKeys().client`. By default the directory that HEADRACE_KEYS names, or the folder headrace of this
            user's configuration.

    Raises:
        UsageError: an argument is not usable.
        InfraError: the broker could not be started, or there is none at the address (`BrokerLost`).
        AuthError: the broker at the address does not accept the key.

    A client may be used by several threads at once, but not by a forked child.
    """

    def __init__(
        self,
        address: str | os.PathLike[str] | None = None,
        *,
        workers: int | None = None,
        extra_workers: int | None = None,
        mode: Mode = "processes",
        preload: Sequence[str] = (),
        setup: Callable[[], object] | None = None,
        env: Mapping[str, str] | None = None,
        store_limit: int | None = None,
        spill_dir: str | os.PathLike[str] | None = None,
        spill_limit: int | None = None,
        crash_limit: int = 3,
        oom_limit: int = 1,
        max_tasks_per_worker: int | None = None,
        resources: Mapping[str, int | str] | None = None,
        limits: Mapping[str, int] | None = None,
        grace_s: float = 3.0,
        keys: str | os.PathLike[str] | PeerKeys | None = None,
    ) -> None:
        self._mode = mode
        self._engine: Engine
        if address is not None:
            from headrace.attached import Attached, check_options

            check_options(address, locals(), Client.__init__.__kwdefaults__)
            self._engine = Attached(address, keys)
            self._workers = self._engine.workers
        else:
            if keys is not None:
                raise UsageError("keys are for Client('tcp://…'); a client without an address listens to nobody")
            self._workers = checked_workers(workers)
            lives = checked_lives(crash_limit, oom_limit, max_tasks_per_worker, grace_s)
            spill = (spill_dir, spill_limit)
            spares = checked_extra(extra_workers, self._workers, mode)
            self._engine = start_engine(
                mode, self._workers, spares, preload, setup, env, store_limit, spill, lives, resources, limits
            )
        self._core = self._engine.core
        self._engine.owner = weakref.ref(self)
        self._closing = threading.Lock()
        self._open = True
        #: The thread that ends the client in the background.
        self._ending: threading.Thread | None = None
        self._dispatching: Dispatcher | None = None
        _clients.add(self)

    def submit(
        self,
        graph: Graph,
        keep: Keep | None = None,
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        on_error: Literal["continue", "stop"] = "continue",
    ) -> Run:
        """Start to run a graph, and return at once. Every task runs, whatever is kept.

        Args:
            graph: copied as it is now.
            keep: nodes or keys whose results are wanted; by default those of all sinks. Other results live only as
                long as a task needs them.
            priority: what is added to the priority of each task, so that it goes before those of other runs, or behind.
            deadline_s: seconds from now after which what has not ended is cancelled, with reason "deadline".
            on_error: "stop" cancels what has not ended once a task has failed, after its retries, with reason
                "run-failed". Results that are there can be read in any case.

        Raises:
            GraphError: something in `keep` is not of this graph.
            NoSuitableWorker: no worker can ever run a task of it as its options ask.
            StoreFull: the large arguments find no room in shared memory. Nothing was submitted.
            UsageError: the client is closed, or it is not the one of a future or ref among the arguments.

        Cost: one copy of the graph's arguments, of those of 1 MiB or more one for all tasks that take the same object;
        the interpreter is free meanwhile.
        """
        return self._submit(graph, keep, checked_terms(priority, deadline_s, on_error), None)

    def call(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """Start a single call, and return its future at once.

        Futures of `call` and refs of `run.ref` may stand anywhere among the arguments: the call waits for them and gets
        their values on the worker.

        Arguments, bound methods and objects with `__call__` travel as they are now. A function or class is captured
        when the client first calls it: what it closes over, or reads from the globals of `__main__`, stays what it was
        then. Pass as an argument what changes.

        An argument of 1 MiB or more is written into shared memory for each call anew, as it may have changed; a ref of
        `put` saves that.

        Raises:
            ArgumentNotPicklable: an argument, or the function, cannot travel.
            NoSuitableWorker: no worker can ever run it as its options ask.
            StoreFull: the large arguments find no room in shared memory.
            UsageError: the client is closed, or it is not the one of a future or ref among the arguments.
        """
        self._check_open()
        from headrace.futures import Future

        index, key = self._engine.call(fn, args, kwargs)
        return Future(self._core, CALLS, index, self, key)

    def put(self, value: R, /) -> Ref[R]:
        """Make a value that any number of tasks and graphs can take, and that is sent or written only once.

        Large parts of it are copied into shared memory here; a task that takes the ref sees them where they lie.

        Returns:
            A ref, to be passed as an argument. The value lives as long as the ref and the tasks that take it.

        Raises:
            ArgumentNotPicklable: the value cannot travel.
            StoreFull: the budget of shared memory is used up.
            UsageError: the client is closed.
        """
        self._check_open()
        from headrace.refs import Ref

        index, key = self._engine.put(value)
        return Ref(self._core, CALLS, index, self, key)

    @property
    def mode(self) -> Mode:
        """Where tasks run: "processes", "threads" or "sync"."""
        return self._mode

    @property
    def workers(self) -> int:
        """How many workers there are; of a broker that others use too, how many there were at the start."""
        return self._workers

    def statistics(self) -> RunStatistics:
        """Give a snapshot of the single calls, of the workers, and of the memory that results take.

        Raises:
            UsageError: the client is closed.

        Cost: a round trip to the broker.
        """
        self._check_open()
        from headrace.statistics import RunStatistics

        return self._engine.statistics(CALLS) or RunStatistics(0, 0, 0, 0, 0, 0, 0, 0.0, 0.0)

    def close(self, wait: bool = True, cancel: bool = False) -> None:
        """End the session and its workers. Kept results can still be read. A second call waits for what the first left.

        Args:
            wait: wait for everything that was submitted; without it, that is done in the background.
            cancel: cancel what has not ended.
        """
        if self._core.forked:
            return  # the lock may be held by a thread that is not here
        with self._closing:
            was_open, self._open = self._open, False
        if not was_open:
            if wait and self._ending not in (None, threading.current_thread()):
                self._ending.join()
            return
        if wait:
            self._end(cancel)
        elif cancel:
            self._engine.stop()
        else:
            self._ending = threading.Thread(target=self._end, args=(False,), name="headrace-close", daemon=True)
            self._ending.start()

    def __enter__(self) -> Client:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=kind is not None)

    def __del__(self) -> None:
        if getattr(self, "_open", False) and not self._core.forked:
            text = f"unclosed {self!r}; what has not ended is cancelled"
            self.close(wait=False, cancel=True)
            warnings.warn(text, ResourceWarning, stacklevel=1, source=self)  # there is no caller to blame

    def __repr__(self) -> str:
        return f"<Client: {self._describe()}>"

    def _repr_html_(self) -> str:
        from html import escape

        return f'<div style="font-family: monospace"><b>Client</b>: {escape(self._describe())}</div>'

    # -- for runs and futures ----------------------------------------------------------------------------------------

    def _submit(self, graph: Graph, keep: Any, terms: Terms, anew: Graph | None) -> Run:
        self._check_open()
        return self._engine.submit(self, graph, keep, terms, anew)

    @property
    def _dispatcher(self) -> Dispatcher:
        from headrace.dispatcher import Dispatcher

        self._core.check_process()
        if self._dispatching is None:
            with self._closing:
                self._dispatching = self._dispatching or Dispatcher(self._core)
        return self._dispatching

    # -- ending ------------------------------------------------------------------------------------------------------

    def _end(self, cancel: bool) -> None:
        try:
            if cancel:
                self._engine.cancel_all()
            self._core.wait_idle()
        finally:
            self._engine.stop()
            if self._dispatching is not None:
                # Callbacks may take their time, but not where somebody wants to get away.
                self._dispatching.join(CALLBACKS_S if cancel else None)

    def _check_open(self) -> None:
        self._core.check_process()
        if not self._open:
            raise UsageError("this client is closed; make a new one")

    def _describe(self) -> str:
        count = _counted(self._workers, "worker")
        where = {"processes": "", "threads": " on threads", "sync": " in the calling thread"}[self._mode]
        if not self._open:
            return f"closed, had {count}{where}"
        if self._core.forked:
            return f"{count}{where}, of the parent process"
        runs, calls = self._core.unfinished()
        return f"{count}{where}, {_counted(len(runs), 'run')} and {_counted(calls, 'call')} unfinished"


def run(
    graph: Graph,
    *nodes: Any,
    workers: int | None = None,
    mode: Mode = "processes",
    progress: bool = False,
) -> Any:
    """Run a graph with a client of its own, and give results.

    Args:
        graph: every task of it runs.
        nodes: nodes or keys whose results are wanted; any iterable of nodes stands for the list of their results, in
            the order of iteration.
        workers: how many; by default as many as cores are available to this process.
        mode: as for `Client`.
        progress: show live progress meanwhile.

    Returns:
        The result of the one node; for several, a tuple of theirs; without any, the list of all sinks' results.

    Raises:
        GraphError: a node is not of this graph.
        Exception: the first of the wanted tasks that gave no value: the original instance of what it raised itself, or
            `UpstreamFailed` if it did not run because a task that it needs failed; that one's exception is the cause.

    Cost: starts and ends the workers. For more than one graph make a `Client`.
    """
    nodes = tuple(map(_listed, nodes))
    with Client(workers=workers, mode=mode) as client:
        run = client.submit(graph, keep=nodes or None)
        run.wait(progress=progress)
        if not nodes:
            return run.results()
        results = tuple(_result(run, node) for node in nodes)
        return results[0] if len(nodes) == 1 else results


def _listed(wanted: Any) -> Any:
    """Make lists of iterables, which may give their items only once. What is no node is found out by `submit`."""
    if isinstance(wanted, Nodes | str | dict) or not hasattr(type(wanted), "__iter__") or isinstance(wanted, Node):
        return wanted
    return [_listed(part) for part in wanted]


def _result(run: Run, node: Any) -> Any:
    if isinstance(node, Nodes | list):
        return [_result(run, part) for part in node]
    return run.result(node)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


#: Clients to be closed at exit.
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


# After the next one: an interrupt may have kept Python from knowing a client, or from closing it.
atexit.register(end_brokers)


@atexit.register
def _close_all() -> None:
    clients = [client for client in _clients if not client._core.forked]
    ours = {threading.current_thread(), *(client._engine.thread for client in clients)}
    others = clients and any(thread not in ours for thread in threading.enumerate())
    if others:
        # Threads that wait are about to raise, and must be back from native code before the interpreter ends.
        import headrace.failures  # noqa: F401
    for client in clients:
        client._open = False
        client._core.leave()
    for client in clients:
        try:
            client._engine.stop()
        except KeyboardInterrupt:  # this is as fast as it goes, and the others must be stopped as well
            continue
    for client in clients if others else ():
        client._core.wait_alone()


def _prepare_fork() -> None:
    for client in list(_clients):
        if not client._core.forked:
            client._core.note_fork()


os.register_at_fork(before=_prepare_fork, after_in_child=forget_parent)
