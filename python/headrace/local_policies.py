"""What the options of tasks ask for, in the modes "threads" and "sync": here, retries."""

from __future__ import annotations

import _random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace._core import Kernel
    from headrace.local import Local
    from headrace.local_tasks import Attempt
    from headrace.timers import Timers


class Policies:
    """Decides what follows a failed attempt. All of it is used with the engine's lock held."""

    def __init__(self, engine: Local, kernel: Kernel, timers: Timers) -> None:
        self._engine = engine
        self._kernel = kernel
        self._timers = timers
        self._chance = _random.Random()
        # Failures of live tasks, by slot.
        self._failures: dict[int, int] = {}
        #: Tasks that wait for the end of a pause.
        self.pausing = 0
        # When the pauses of tasks end, by slot.
        self._until_s: dict[int, float] = {}

    def failures(self, slot: int) -> int:
        """Give how many attempts of a task have failed."""
        return self._failures.get(slot, 0) if self._failures else 0

    def pause_s(self, slot: int) -> float | None:
        """Give the seconds until the next attempt of a task, if it pauses."""
        until_s = self._until_s.get(slot)
        return None if until_s is None else max(until_s - time.monotonic(), 0.0)

    def forget(self, slot: int) -> None:
        """Note that the kernel does not know a task any more."""
        if self._failures:
            self._failures.pop(slot, None)

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
            place, parked = (attempt.batch, attempt.index), self._kernel.park(slot)
            # What failed together does not come back together.
            pause_s *= 0.75 + self._chance.random() / 2
            self.pausing += 1
            self._until_s[slot] = time.monotonic() + pause_s
            self._timers.after(pause_s, lambda: self._end_pause(slot, place, parked))
        self._kernel.give_back(attempt.worker, slot, attempt.attempt)
        attempt.batch.counts.retries += 1
        return True

    def _end_pause(self, slot: int, place: tuple[object, int], parked: int) -> None:
        self.pausing -= 1
        self._until_s.pop(slot, None)
        if self._engine.place(slot) == place:  # the slot of a cancelled one may be another's by now
            self._kernel.unpark(slot, parked)
            self._engine.note_ready()
