"""`concurrent.futures.Executor` on worker processes, or on threads."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import threading
import time
import weakref
from collections import deque
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, BrokenExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.client import CALLS, Client
from headrace.errors import ArgumentNotPicklable, BrokerLost, InfraError, StoreFull
from headrace.futures import Future
from headrace.gathering import countdown
from headrace.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from headrace._core import Nodes
    from headrace.client import Mode
    from headrace.runs import Run

T = TypeVar("T")


#: Seconds in which workers start, as a rule.
START_S = 1.0


class BrokenWorkers(InfraError, BrokenExecutor):  # noqa: N818
    """The workers of an executor cannot start, as their initializer fails, or its broker is gone. Make a new one."""


class Executor(concurrent.futures.Executor):
    """An executor as PEP 3148 has it, several times as fast as `ProcessPoolExecutor`.

    Functions and arguments need no `__main__` guard and may be lambdas. Futures of `submit` may stand anywhere among
    the arguments of another one: it waits for them, and their values go straight to its worker. A call that ends its
    process fails alone, with `WorkerDied`; the executor goes on.

    Args:
        max_workers: how many processes or threads; by default as many as there are cores, or the standard library's
            number of threads.
        mode: "processes" or "threads".
        initializer: called with `initargs` by each worker before its first call. If it raises, the executor is broken.
        initargs: its arguments.
        crash_limit: how many workers a call may end before it fails.
        **options: more arguments of `Client`, such as `env`, `store_limit`, `max_tasks_per_worker`.

    Raises:
        ValueError: `max_workers` is not positive.
        TypeError: `initializer` cannot be called.

    Source: PEP 3148, and the tests of CPython 3.11; `buffersize`, `terminate_workers`, `kill_workers` are of 3.14.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        mode: Mode = "processes",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        crash_limit: int = 1,
        **options: Any,
    ) -> None:
        if max_workers is None:
            max_workers = min(32, (os.cpu_count() or 1) + 4) if mode == "threads" else len(os.sched_getaffinity(0))
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._max_workers = max_workers
        self._by_reference = mode != "processes"
        self._before: OncePerThread | None = None
        if initializer is not None and self._by_reference:
            self._before = OncePerThread(initializer, initargs)
        elif initializer is not None:
            options["setup"] = partial(initialize, initializer, initargs)
        self._shut = False
        self._client = Client(workers=max_workers, mode=mode, crash_limit=crash_limit, **options)
        printer = getattr(self._client._engine, "_printer", None)
        if printer is not None:
            printer.marks = False  # as if the calls printed here
        self._let_go = weakref.finalize(self, self._client.close, wait=False)
        self._let_go.atexit = False
        _clients.add(self._client)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Start a call, and return its future at once. An argument that cannot travel is the call's failure.

        Raises:
            RuntimeError: the executor was shut down, or the interpreter ends.
            BrokenExecutor: the workers cannot start.
        """
        self._check()
        if self._before is not None:
            fn = self._before.then(fn)
        try:
            index, key = self._client._engine.call(fn, args, kwargs)
        except (ArgumentNotPicklable, StoreFull) as error:
            failed: concurrent.futures.Future[T] = concurrent.futures.Future()
            failed.set_exception(error)
            return failed
        return CallFuture(self._client._core, CALLS, index, self._client, key)

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call `fn` with the items of the iterables, and give the results in order, as they are asked for.

        Args:
            fn: is called once for each item, or for the items of several iterables that stand at one place.
            *iterables: taken in at once, up to the end of the shortest.
            timeout: seconds from now after which waiting for a result raises `TimeoutError`.
            chunksize: makes no difference: calls travel in batches anyway.
            buffersize: how many calls may be started ahead of what was asked for; then iterables may be endless.

        Raises:
            Exception: in its turn, what a call raised. Calls that have not started then are cancelled.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        left_s = countdown(timeout)
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
            return self._map_some(fn, zip(*iterables), buffersize, left_s)  # noqa: B905
        self._check()
        if self._before is not None:
            fn = self._before.then(fn)
        graph = Graph(by_reference=self._by_reference)
        columns = list(zip(*zip(*iterables)))  # noqa: B905  # all of one length
        if not columns:
            return iter(())
        nodes = graph.map(fn, *columns)
        return in_order(self._client, self._client.submit(graph, keep=nodes), nodes, left_s)

    def _map_some(
        self, fn: Callable[..., T], items: Iterator[Any], count: int, left_s: Callable[[], float | None]
    ) -> Iterator[T]:
        submit = self.submit
        futures = deque(submit(fn, *args) for _, args in zip(range(count), items))  # noqa: B905
        executor = weakref.ref(self)
        del submit, self
        return lazily(executor, fn, items, futures, left_s)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. May be called twice.

        Args:
            wait: wait until all calls have ended and the workers are gone. Without it that happens in the background,
                and the interpreter does not end before.
            cancel_futures: cancel calls that no worker has got.
        """
        self._shut = True
        self._let_go.detach()
        if cancel_futures and self._client._open:
            self._let_some_start()
            self._client._engine.cancel_all(spare_leased=True)
        self._client.close(wait)

    def _let_some_start(self) -> None:
        """Wait until workers that are just starting have taken what they can, as those of the standard library have."""
        end = time.monotonic() + START_S
        while time.monotonic() < end and not self._broken:
            counts = self._client.statistics()
            if counts.leased or counts.done or not counts.waiting + counts.ready:
                break
            time.sleep(0.001)

    def terminate_workers(self) -> None:
        """Shut down at once: what runs is interrupted, and soon killed. Calls that have not ended are cancelled."""
        self._shut = True
        self._let_go.detach()
        self._client.close(wait=False, cancel=True)

    kill_workers = terminate_workers

    @property
    def _broken(self) -> str | bool:
        """Why nothing more can be called, or False. Other libraries look at it."""
        if self._before is not None and self._before.failure:
            return self._before.failure
        return self._client._core.failure() or False

    def _check(self) -> None:
        if broken := self._broken:
            raise BrokenWorkers(f"this executor can start no calls: {broken}")
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def __repr__(self) -> str:
        return f"<Executor: {self._client._describe()}>"


class CallFuture(Future[T]):
    """A future that knows the state "running", in which a call cannot be cancelled."""

    def running(self) -> bool:
        """Say whether a worker has got the call, and it has not ended."""
        return not self.done() and self._is_leased()

    def cancel(self) -> bool:
        """Cancel the call if no worker has got it. Say whether it is cancelled.

        Cost: a round trip to the broker.
        """
        if not self.done():
            self._client._engine.cancel(self.run, [self.index], spare_leased=True)
            # The answer comes from behind the cancel.
            if not self._is_leased():
                self._wait(None)
        return self._state == CANCELLED_AND_NOTIFIED

    def _is_leased(self) -> bool:
        found = self._client._engine.why(self.run, self.index, False)
        return found is not None and found.state in ("queued", "running")

    def _outcome(self, key: str) -> tuple[T | None, BaseException | None]:
        value, error = super()._outcome(key)
        if type(error) in (InfraError, BrokerLost):
            error = BrokenWorkers(str(error))
        return value, error


class OncePerThread:
    """Runs an initializer on each thread before its first call."""

    def __init__(self, initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:
        self._run = partial(initialize, initializer, initargs)
        self._here = threading.local()
        #: What it raised, if it did.
        self.failure = ""

    def then(self, fn: Callable[..., T]) -> Callable[..., T]:
        """Give a function that initializes its thread, if need be, and calls `fn`."""

        def initialized(*args: Any, **kwargs: Any) -> T:
            if not hasattr(self._here, "done") and not self.failure:
                try:
                    self._run()
                except BaseException as error:
                    self.failure = f"its initializer raised {error!r}"
                self._here.done = True
            if self.failure:
                raise BrokenWorkers(self.failure)
            return fn(*args, **kwargs)

        initialized.__name__ = getattr(fn, "__name__", type(fn).__name__)
        return initialized


def initialize(initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:
    """Run an initializer, and log what it raises where the standard library does."""
    try:
        initializer(*initargs)
    except BaseException:
        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        raise


def in_order(client: Client, run: Run, nodes: Nodes[Any], left_s: Callable[[], float | None]) -> Iterator[Any]:
    """Give the results of nodes in order, letting go of each."""

    def take(index: int) -> Any:
        value = run.result(nodes[index], left_s())
        run._release_one(index)
        client._engine.follow_holds()
        return value

    try:
        for index in range(len(nodes)):
            yield take(index)  # no variable of this frame keeps it
    finally:
        if not run.done():
            client._engine.cancel(run.number, None, spare_leased=True)


def lazily(
    executor: weakref.ref[Executor],
    fn: Callable[..., T],
    items: Iterator[Any],
    futures: deque[concurrent.futures.Future[T]],
    left_s: Callable[[], float | None],
) -> Iterator[T]:
    """Give the results of futures in order, and have another call started for each, while there is an executor."""
    try:
        while futures:
            first = futures.popleft()
            if (live := executor()) is not None and (args := next(items, None)) is not None:
                futures.append(live.submit(fn, *args))
            del live
            try:
                value = first.result(left_s())
            except BaseException:
                first.cancel()
                raise
            finally:
                del first
            held = [value]
            del value
            yield held.pop()
    finally:
        for future in futures:
            future.cancel()


def _at_exit() -> None:
    """Take no more calls, and wait for those that have been taken, before threads are waited for."""
    global _exiting
    _exiting = True
    for client in list(_clients):
        client.close()


#: Clients of executors, also while they end in the background.
_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_exiting = False
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
