"""What is to happen at a time, for an engine in this process."""

from __future__ import annotations

import heapq
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Timers:
    """Calls in the order of their times, each once. All of it is used with the engine's lock held.

    Args:
        lock: the engine's lock.
        threaded: have a thread make the calls, with the lock held, from the first one on; otherwise `run_due` does.
    """

    def __init__(self, lock: threading.RLock, threaded: bool) -> None:
        self._changed = threading.Condition(lock)
        self._threaded = threaded
        self._thread: threading.Thread | None = None
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._stopped = False

    def after(self, pause_s: float, call: Callable[[], None]) -> None:
        """Have something called so many seconds from now."""
        self._count += 1  # equal times go by their order
        heapq.heappush(self._calls, (time.monotonic() + pause_s, self._count, call))
        if self._threaded:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="headrace-timers", daemon=True)
                self._thread.start()
            self._changed.notify()

    def run_due(self) -> None:
        """Make the calls whose time has come."""
        while self._calls and self._calls[0][0] <= time.monotonic():
            heapq.heappop(self._calls)[2]()

    def left_s(self) -> float | None:
        """Give the seconds until the next call; None without one."""
        return max(self._calls[0][0] - time.monotonic(), 0.0) if self._calls else None

    def stop(self) -> None:
        """Make no further calls."""
        self._stopped = True
        self._calls.clear()
        self._changed.notify()

    def _serve(self) -> None:
        with self._changed:
            while not self._stopped:
                self.run_due()
                self._changed.wait(self.left_s())
