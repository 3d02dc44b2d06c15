"""Sections that an interrupt of the main thread may not cut in two."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` dresses the same with enums
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Uninterrupted:
    """`with section:` takes a lock, and puts Ctrl-C off until it is given back.

    Python raises `KeyboardInterrupt` between any two steps of its main thread. Within a change of several tables that
    would leave one that knows a task and another that does not.

    Cost: two system calls in the main thread, a few microseconds at most; elsewhere that of the lock.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._put_off = False
        # Of each section that the main thread is in, the handler to come back to.
        self._handlers: list[Callable[[int, Any], object] | None] = []

    def __enter__(self) -> None:
        if threading.get_ident() == threading.main_thread().ident:
            handler = None if self._handlers else _signal.getsignal(_signal.SIGINT)
            if callable(handler):
                _signal.signal(_signal.SIGINT, self._handle)
                self._handlers.append(handler)
            else:
                self._handlers.append(None)  # within another section, or nobody is to be told
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if threading.get_ident() == threading.main_thread().ident:
            handler = self._handlers.pop()
            if handler is not None:
                _signal.signal(_signal.SIGINT, handler)
                if self._put_off:
                    self._put_off = False
                    handler(_signal.SIGINT, sys._getframe(1))

    def _handle(self, _signal_number: int, _frame: Any) -> None:
        self._put_off = True
