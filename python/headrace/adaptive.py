"""How much there is to do, and a rule that follows it: for engines that can give more workers, or fewer."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.statistics import RunStatistics

#: Looks in a row that have to agree before workers are given back: starting one costs more than keeping it for a while.
PATIENCE = 5


class Load(NamedTuple):
    """What a broker has to do, of all its clients, and with what."""

    waiting: int
    """Tasks that wait for others."""
    ready: int
    """Tasks that could start."""
    leased: int
    """Tasks that a worker has, or that it runs."""
    workers: int
    """Workers that are up."""
    task_s: float
    """Mean seconds of the tasks that have run; 0 while none has."""

    @property
    def backlog_s(self) -> float:
        """Estimated seconds of one worker for everything that could run now."""
        return (self.ready + self.leased) * self.task_s


def load_of(state: RunStatistics) -> Load:
    """Read it from the state of a broker."""
    finished = sum(worker.finished for worker in state.workers)
    busy_s = sum(worker.busy_s for worker in state.workers)
    up = sum(1 for worker in state.workers if worker.pid)
    return Load(state.waiting, state.ready, state.leased, up, busy_s / finished if finished else 0.0)


def by_backlog(minimum: int, maximum: int, target_s: float = 5.0) -> Callable[[Load], int]:
    """Give a rule: as many workers as have done in `target_s` seconds what could run now, but no more than tasks.

    Where no task has run yet, there is a worker for each.
    """

    def decide(load: Load) -> int:
        runnable = load.ready + load.leased
        wanted = math.ceil(load.backlog_s / target_s) if load.task_s else runnable
        return max(minimum, min(maximum, wanted, runnable))

    return decide


class Follower:
    """Has a rule decide, over and over, how many workers there are to be, and asks for that. A thread of its own.

    Args:
        look: gives the load; None if nobody answers for now.
        decide: gives how many workers there should be.
        ask: asks the engine for that many.
        every_s: seconds between two looks.

    Fewer are asked for only after `PATIENCE` looks that wanted fewer than there were asked for; then as many as the
    highest of them. What `ask` raises is told to `complain`, and it is asked again.
    """

    def __init__(
        self,
        look: Callable[[], Load | None],
        decide: Callable[[Load], int],
        ask: Callable[[int], object],
        every_s: float,
        complain: Callable[[str], object],
    ) -> None:
        self._look, self._decide, self._ask, self._complain = look, decide, ask, complain
        self._every_s = every_s
        self._asked: int | None = None
        self._fewer: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-adaptive", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask for nothing more."""
        self._over.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                load = self._look()
                if load is not None and (wanted := self.settled(self._decide(load))) != self._asked:
                    self._ask(wanted)
                    self._asked = wanted
            except Exception as error:  # of the rule, or of the engine
                self._complain(f"{type(error).__name__}: {error}")

    def settled(self, wanted: int) -> int:
        """Give what is to be asked for, if this is what the load asks for now."""
        if self._asked is None or wanted >= self._asked:
            self._fewer.clear()
            return wanted
        self._fewer.append(wanted)
        if len(self._fewer) < PATIENCE:
            return self._asked
        fewer = max(self._fewer)
        self._fewer.clear()
        return fewer
