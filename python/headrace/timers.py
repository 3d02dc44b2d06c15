"""What is to happen at a time, for an engine in this process."""

from __future__ import annotations

import heapq
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


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


class Deadlines(Generic[T]):
    """Things that must end within a time each. All with equal times have one timer, so those that end leave none.

    Args:
        timers: where the engine has its timers.
        call: what is called for each that does not end.
    """

    def __init__(self, timers: Timers, call: Callable[[T], None]) -> None:
        self._timers = timers
        self._call = call
        self._limits: dict[T, float] = {}
        # By limit, when each thing must end; the first one first.
        self._queues: dict[float, dict[T, float]] = {}

    def begin(self, thing: T, limit_s: float) -> None:
        """Have a thing end within so many seconds."""
        self._limits[thing] = limit_s
        queue = self._queues.get(limit_s)
        if queue is None:
            queue = self._queues[limit_s] = {}
            self._timers.after(limit_s, lambda: self._look(limit_s))
        queue[thing] = time.monotonic() + limit_s

    def end(self, thing: T) -> None:
        """Note that a thing has ended, if it was one."""
        if self._limits and thing in self._limits:
            del self._queues[self._limits.pop(thing)][thing]

    def _look(self, limit_s: float) -> None:
        queue = self._queues[limit_s]
        while queue:
            thing, due_s = next(iter(queue.items()))
            left_s = due_s - time.monotonic()
            if left_s > 0:
                self._timers.after(left_s, lambda: self._look(limit_s))
                return
            self.end(thing)
            self._call(thing)
        del self._queues[limit_s]
