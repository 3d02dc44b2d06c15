"""The future of a single call. Imported at the first `client.call`: concurrent.futures costs 17 ms."""

from __future__ import annotations

import concurrent.futures
import os
import threading
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headrace._core import ExternalRef
from headrace.errors import CancelledError
from headrace.runs import safely

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from headrace._core import ClientCore
    from headrace.client import Client
    from headrace.why import Why

T = TypeVar("T")


class Future(ExternalRef, concurrent.futures.Future[T], Generic[T]):
    """The result of one call: a `concurrent.futures.Future` that can also be awaited, or passed on by reference.

    Whoever asks waits by itself, in native code. Only a callback, or a waiter of the standard library's own kind
    (`concurrent.futures.wait`, `asyncio.wrap_future`), has the client's dispatcher watch the future. Whoever sees
    the end first tells those waiters, once; callbacks run on the dispatcher's thread.

    The result is held until the future is collected.
    """

    #: Key of the task: the function's name and the number of the call.
    key: str

    def __init__(self, core: ClientCore, run: int, index: int, client: Client, key: str) -> None:
        self._client = client
        self.key = key
        self._state = PENDING
        self._result: T | None = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Callable[[Future[T]], object]] = []
        self._monitor: threading.Condition | None = None
        self._watched = False

    # -- asking ------------------------------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> T:
        """Wait for the call and give its value.

        Args:
            timeout: seconds to wait at most; None waits for ever.

        Raises:
            TimeoutError: the call has not ended in time; it goes on.
            CancelledError: the call was cancelled.
            Exception: whatever the function raised: the original instance.
        """
        self._wait(timeout)
        if self._exception is None:
            return self._result  # type: ignore[return-value]
        try:
            raise self._exception
        finally:
            self = None  # type: ignore[assignment]  # or the traceback would keep the future, and its result, alive

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the call and give what it raised, or None. Raises `TimeoutError` and `CancelledError` itself."""
        self._wait(timeout)
        if self._state == CANCELLED_AND_NOTIFIED:
            raise self._exception  # type: ignore[misc]
        return self._exception

    def done(self) -> bool:
        """Say whether the call has ended or was cancelled."""
        return self._state != PENDING or (self._arrived() and self._settle())

    def cancelled(self) -> bool:
        """Say whether the call was cancelled."""
        return self.done() and self._state == CANCELLED_AND_NOTIFIED

    def running(self) -> bool:
        """Say whether the call can no longer be cancelled, though it has not ended: never, a running call can."""
        return False

    def cancel(self) -> bool:
        """Cancel the call and all that depends on it, also if it already runs. Say whether it had not ended before.

        Cost: one message; a running call is interrupted by the broker, later.
        """
        if not self.done():
            self._client._engine.cancel(self.run, [self.index])
            self._wait(None)  # for the broker's word, which is prompt: the call may just have ended
        return self._state == CANCELLED_AND_NOTIFIED

    def why(self, *, stacks: bool = False) -> Why:
        """Tell where the call is and what it waits for, as `Run.why` does."""
        from headrace.why import ended

        found = self._client._engine.why(self.run, self.index, stacks)
        if found is not None:
            return found._replace(key=self.key)
        self.done()
        return ended(self.key, lambda: self._exception)

    def logs(self) -> str:
        """Give what the call has written so far, as `Run.logs` does. It is kept until the future is collected."""
        from headrace.logs import read_log

        return read_log(self._client._core, self.run, self.index, self.key)

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call `fn(self)` once the call has ended: on the client's dispatcher thread, or at once if it has."""
        if not self.done():
            with self._condition:
                if self._state == PENDING:
                    self._done_callbacks.append(fn)
                    return
        _call_back(fn, self)

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio  # 30 ms, and loaded already by whoever awaits

        if not self.done():
            # Not `asyncio.wrap_future`: an asyncio future refuses some exceptions, and would never end.
            loop = asyncio.get_running_loop()
            waiter = loop.create_future()

            def wake() -> None:
                if not waiter.done():
                    waiter.set_result(None)

            tell = safely(loop.call_soon_threadsafe, wake)
            self.add_done_callback(lambda _: tell())
            try:
                yield from waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self.result()

    def __repr__(self) -> str:
        if self._state == PENDING and self._client._core.forked:
            state = "of the parent process"
        elif not self.done():
            state = "pending"
        elif self._state == CANCELLED_AND_NOTIFIED:
            state = "cancelled"
        elif self._exception is not None:
            state = f"raised {type(self._exception).__name__}"
        else:
            state = f"returned {type(self._result).__name__}"
        return f"<Future of {self.key!r}: {state}>"

    # -- ending ------------------------------------------------------------------------------------------------------

    def _wait(self, timeout: float | None) -> None:
        if self._state == PENDING:
            if not self._wait_arrival(timeout):
                raise TimeoutError(f"{self.key!r} has not ended within {timeout} s")
            self._settle()

    def _settle(self) -> bool:
        """Take over the outcome that has arrived. Several threads may: they read the same one.

        The first one sets the state and tells the standard library's waiters, in one critical section. They are left
        under the same condition, so each finds the state set or is told, once.
        """
        if self._state == PENDING:
            # Of two threads that read it at once, the first one's object becomes everybody's.
            value, error = self.__dict__.setdefault("_outcome_read", self._outcome(self.key))
            self._result, self._exception = value, error
            state = CANCELLED_AND_NOTIFIED if issubclass(type(error), CancelledError) else FINISHED
            with _MAKING:
                monitor = self._monitor
                if monitor is None:
                    self._state = state
            if monitor is not None:
                self._settle_and_tell(monitor, state)
        return True

    def _settle_and_tell(self, monitor: threading.Condition, state: str) -> None:
        with monitor:
            if self._state != PENDING:
                return
            self._state = state
            # They stay in the list: whoever left one takes it out.
            for waiter in self._waiters:
                if state == CANCELLED_AND_NOTIFIED:
                    waiter.add_cancelled(self)
                elif self._exception is not None:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            monitor.notify_all()

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        """The lock under which the standard library looks at `_state` and leaves its waiters; made when it asks."""
        with _MAKING:
            if self._monitor is None:
                self._monitor = threading.Condition()
            watch = not self._watched and self._state == PENDING
            self._watched |= watch
        if watch:
            self._client._dispatcher.watch(self._announce, self.run, self.index)
        return self._monitor

    def _announce(self) -> None:
        """Call back; called once, by the dispatcher, when the call has ended.

        Callbacks are left under the condition and only while `_state` says pending, so none comes after this.
        """
        self._settle()
        for fn in self._done_callbacks:
            _call_back(fn, self)
        self._done_callbacks.clear()


#: Held while a future without a condition gets one, or its state: one lock for all, as that is short. Reentrant,
#: because a finalizer or a signal's handler may ask a future wherever it runs.
_MAKING = threading.RLock()
os.register_at_fork(after_in_child=_MAKING._at_fork_reinit)  # type: ignore[attr-defined]


def _call_back(fn: Callable[[Future[Any]], object], future: Future[Any]) -> None:
    try:
        fn(future)
    except BaseException:  # the thread that calls serves every other future too
        concurrent.futures._base.LOGGER.exception("exception calling callback for %r", future)
