"""The thread that calls back: it exists only while somebody wants to be called."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace._core import ClientCore


class Dispatcher:
    """Calls functions at events of one client: the end of a task or of a run, or the next arrival of a run.

    Waiting threads drain the client's channel by themselves; whoever cannot wait that way (a callback, an event loop,
    the standard library's waiters) is served by one thread, which starts with the first watch and ends with the last.
    """

    def __init__(self, core: ClientCore) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._calls: dict[int, Callable[[], object]] = {}
        self._last = 0
        self._thread: threading.Thread | None = None

    def watch(self, fn: Callable[[], object], run: int, index: int | None = None, seen: int | None = None) -> None:
        """Call `fn` once, on the dispatcher's thread, after an event; here and now if that has happened already.

        The event is the end of call `index`; the end of `run` if there is no index; or, given `seen`, that more than so
        many endings of the run's tasks have come.
        """
        self._core.check_process()
        with self._lock:
            self._last += 1
            if self._core.watch(self._last, run, index, seen):
                self._calls[self._last] = fn
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="headrace-dispatcher", daemon=True)
                    self._thread.start()
                return
        fn()

    def join(self, timeout: float | None = None) -> None:
        """Wait until nothing is watched any more and the thread is gone."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            for number in self._core.wait_watches():
                with self._lock:
                    fn = self._calls.pop(number)
                try:
                    fn()
                except BaseException:  # this thread serves all who want to be called
                    logging.getLogger("headrace").exception("exception while telling of an event")
                del fn
            with self._lock:
                if not self._calls:
                    self._thread = None
                    return
