"""What the options of tasks ask for, in the modes "threads" and "sync": retries and time limits.

Nothing ends a call from outside here. An attempt that is overdue fails its task at once if it has no retries left, and
keeps its thread until the call returns; with retries left another one follows then, as two may never run at once.
"""

from __future__ import annotations

import _random
import time
from typing import TYPE_CHECKING

from headrace.failures import timed_out
from headrace.timers import Deadlines

if TYPE_CHECKING:
    from headrace._core import Kernel
    from headrace.errors import TaskTimeout
    from headrace.local import Local
    from headrace.local_tasks import Attempt, Batch
    from headrace.timers import Timers

    #: A run, and the index of a task there.
    Place = tuple[Batch, int]


class Policies:
    """Decides what follows a failed attempt, and which tasks take too long. Used with the engine's lock held."""

    def __init__(self, engine: Local, kernel: Kernel, timers: Timers) -> None:
        self._engine = engine
        self._kernel = kernel
        self._timers = timers
        self._chance = _random.Random()
        # Failures of live tasks, by slot.
        self._failures: dict[int, int] = {}
        # Tasks that wait for the end of a pause, and what the kernel wants to hear then.
        self._parked: dict[int, int] = {}
        # When their pauses end.
        self._until_s: dict[int, float] = {}
        # Ready tasks that may not wait for ever, by slot, and attempts that may not run for ever.
        self._waits = Deadlines(timers, self._end_wait)
        self._limits = Deadlines(timers, self._end_limit)
        self._is_watching = False

    @property
    def pausing(self) -> bool:
        """Whether a task waits for the end of a pause."""
        return bool(self._parked)

    def enter(self, batch: Batch) -> None:
        """Note new tasks of a run."""
        hurried = batch.hurried()
        if hurried:
            self._kernel.watch(hurried)
            self._is_watching = True

    def begin(self, slot: int) -> int:
        """Note that an attempt of a task begins; give how many have failed before."""
        self._waits.end(slot)
        return self._failures.get(slot, 0) if self._failures else 0

    def failures(self, slot: int) -> int:
        """Give how many attempts of a task have failed."""
        return self._failures.get(slot, 0)

    def pause_s(self, slot: int) -> float | None:
        """Give the seconds until the next attempt of a task, if it pauses."""
        until_s = self._until_s.get(slot)
        return None if until_s is None else max(until_s - time.monotonic(), 0.0)

    def drop(self, slot: int) -> None:
        """Note that a task will not run any more."""
        self._waits.end(slot)
        if self._parked:
            self._parked.pop(slot, None)
            self._until_s.pop(slot, None)

    def forget(self, slot: int) -> None:
        """Note that the kernel does not know a task any more."""
        self.drop(slot)
        if self._failures:
            self._failures.pop(slot, None)

    def end(self, attempt: Attempt) -> None:
        """Note that an attempt is over, whether it counts or not."""
        self._limits.end(attempt)

    # -- retries -----------------------------------------------------------------------------------------------------

    def retry(self, attempt: Attempt) -> bool:
        """Have the task of a failed attempt tried again, if it may be; say whether it will."""
        if attempt.policy is None or attempt.is_final:
            return False
        retries, _, backoff_ms, longest_ms, *_ = attempt.policy
        if attempt.failures >= retries:
            return False
        slot = attempt.slot
        self._failures[slot] = attempt.failures + 1
        pause_s = min(backoff_ms * 2.0 ** min(attempt.failures, 64), longest_ms) / 1_000
        if pause_s > 0:
            self._parked[slot] = self._kernel.park(slot)
            place = attempt.batch, attempt.index
            # What failed together does not come back together.
            pause_s *= 0.75 + self._chance.random() / 2
            self._until_s[slot] = time.monotonic() + pause_s
            self._timers.after(pause_s, lambda: self._end_pause(slot, place))
        self._kernel.give_back(attempt.worker, slot, attempt.attempt)
        attempt.batch.counts.retries += 1
        return True

    def _end_pause(self, slot: int, place: Place) -> None:
        if self._engine.place(slot) == place and slot in self._parked:
            self._until_s.pop(slot, None)
            self._kernel.unpark(slot, self._parked.pop(slot))
            self._begin_wait(slot)
            self._engine.note_ready()

    # -- limits of attempts ------------------------------------------------------------------------------------------

    def limit(self, attempt: Attempt) -> None:
        """Have an attempt that begins fail its task once it is overdue, in a mode that can see that."""
        if attempt.policy is not None and attempt.policy[4] > 0:
            self._limits.begin(attempt, attempt.policy[4] / 1_000)

    def overrun(self, attempt: Attempt, elapsed_s: float) -> TaskTimeout | None:
        """Give the error of an attempt that ran for so long, if that was too long."""
        limit_ms = attempt.policy[4] if attempt.policy is not None else 0
        is_over = attempt.overdue or 0 < limit_ms / 1_000 <= elapsed_s
        return self._time_out(attempt, limit_ms) if is_over else None

    def _end_limit(self, attempt: Attempt) -> None:
        if attempt.policy is not None and self._engine.is_running(attempt):
            attempt.overdue = True
            if attempt.failures >= attempt.policy[0]:
                self._engine.fail_early(attempt, self._time_out(attempt, attempt.policy[4]))

    def _time_out(self, attempt: Attempt, limit_ms: int) -> TaskTimeout:
        attempt.batch.counts.timeouts += 1
        worker = self._engine.number(attempt)
        return timed_out(attempt.key, False, worker, attempt.failures + 1, limit_ms, attempt.failures)

    # -- limits of waits ---------------------------------------------------------------------------------------------

    def begin_waits(self) -> None:
        """Start the clocks of tasks that have become ready and may not wait for ever."""
        if self._is_watching:
            for slot in self._kernel.drain_ready():
                self._begin_wait(slot)

    def _begin_wait(self, slot: int) -> None:
        place = self._engine.place(slot)
        policy = None if place is None or self._stands_still(slot) else place[0].policy(place[1])
        if policy is not None and policy[0][5] > 0:
            self._waits.end(slot)
            self._waits.begin(slot, policy[0][5] / 1_000)

    def _stands_still(self, slot: int) -> bool:
        return slot in self._parked or self._engine.is_replaced(slot)

    def _end_wait(self, slot: int) -> None:
        place = self._engine.place(slot)
        policy = None if place is None else place[0].policy(place[1])
        if place is not None and policy is not None:
            batch, index = place
            batch.counts.timeouts += 1
            self._kernel.fail_unleased(slot)
            failures = self._failures.get(slot, 0)
            self._engine.fail(slot, timed_out(batch.key(index), True, 0, 0, policy[0][5], failures))
