"""Tasks that wait for each other for ever, in the modes "threads" and "sync", where tasks may submit tasks and wait."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from headrace.errors import Stalled

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.local_tasks import Attempt

#: A waiting thread asks again within this time; one that has not is at work.
ASKS_S = 0.5

#: How long nothing may have begun or ended before it is certain that nothing will.
STILL_S = 0.5


class Stalls:
    """Breaks a standstill: of the tasks that wait, the first to ask is told, by an exception where it waits.

    Certain is it only where every task that runs waits, without a timeout, for something of this client, no pause and
    no time limit will end, and nothing has begun or ended for a while. Nobody could go on then but by somebody else's
    `cancel`. All of it is used with the engine's lock held.
    """

    def __init__(self) -> None:
        #: Attempts whose function has not returned, cancelled ones among them.
        self.executing: set[Attempt] = set()
        #: Counts whatever begins and ends, so that whoever was woken since is known to be at work.
        self.turns = 0
        self._asked_s: dict[int, float] = {}
        self._turns_seen = -1
        self._still_s = 0.0

    def begin(self, attempt: Attempt) -> None:
        """Note that an attempt begins."""
        self.turns += 1
        self.executing.add(attempt)

    def end(self, attempt: Attempt) -> None:
        """Note that an attempt has ended, however."""
        self.turns += 1
        self.executing.discard(attempt)
        self._asked_s.pop(attempt.thread, None)

    def check(self, awaited: Callable[[], str]) -> None:
        """Note that the calling thread waits without end; `awaited` tells for what.

        Raises:
            Stalled: nothing can go on.
        """
        me, now_s = threading.get_ident(), time.monotonic()
        mine = [attempt for attempt in self.executing if attempt.thread == me]
        if not mine:
            return  # it does not run a task: others may go on without it
        self._asked_s[me] = now_s
        if any(now_s - self._asked_s.get(attempt.thread, 0.0) > ASKS_S for attempt in self.executing):
            return
        if self.turns != self._turns_seen:
            self._turns_seen, self._still_s = self.turns, now_s
        elif now_s - self._still_s >= STILL_S:
            inner = max(mine, key=lambda attempt: attempt.started_s)
            raise Stalled(
                f"nothing can go on: task {inner.key!r} waits, as does every task that runs, and {awaited()}. Do not "
                "wait within a task for one that needs what this one holds, or for more tasks than there are workers"
            )
