"""Tasks that submit tasks, wait for them, or return a graph in their place, in the modes "threads" and "sync".

A thread that waits within a task runs others meanwhile: those that were submitted by tasks at least as deep as the
one that waits. What they wait for is deeper still, so that no wait stands in the way of another one.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.current import Current, current_client
from headrace.errors import GraphError, UsageError
from headrace.failures import failed
from headrace.runs import Run
from headrace.terms import Terms

if TYPE_CHECKING:
    from headrace._core import Kernel
    from headrace.client import Client
    from headrace.graph import Graph
    from headrace.local import Local
    from headrace.local_tasks import Attempt, Batch

#: How deep tasks may run within each other, on one thread.
DEPTH_MAX = 64

#: Threads, and tasks within tasks, that may run at a time beside the workers.
HELPERS_MAX = 1_024


class Replaced(NamedTuple):
    """A task that has become a graph."""

    slot: int
    batch: Batch
    position: int
    run: Run


class Nesting:
    """Knows which task runs on which thread, and which tasks have become graphs. Used with the engine's lock held."""

    def __init__(self, engine: Local, kernel: Kernel, workers: int, threads: bool) -> None:
        self._threads = threads
        self._engine = engine
        self._kernel = kernel
        self._helpers = list(range(workers, workers + HELPERS_MAX))
        # The task on top of each thread.
        self._inner: dict[int, Attempt] = {}
        # By the run that has taken a task's place, and by the slot of the task.
        self._replaced: dict[int, Replaced] = {}
        self._runs: dict[int, int] = {}
        self._failures: dict[int, BaseException] = {}
        # Runs that have ended, and those whose task has.
        self._ended: list[int] = []
        self._unwanted: list[Run] = []
        self._is_settling = False

    # -- tasks within others -----------------------------------------------------------------------------------------

    def enter(self, attempt: Attempt) -> Attempt | None:
        """Note what runs on this thread from now on; give what did before."""
        before, self._inner[attempt.thread] = self._inner.get(attempt.thread), attempt
        return before

    def leave(self, attempt: Attempt, before: Attempt | None) -> None:
        """Note that it does not any more."""
        if before is None:
            del self._inner[attempt.thread]
        else:
            self._inner[attempt.thread] = before

    def client(self) -> Client:
        """Give the client with which the tasks of this engine submit others."""
        client = self._engine.owner()
        if client is None:
            raise UsageError("the client of this task is gone")
        return client

    def depth(self) -> int:
        """Say how deep a task is that this thread submits: 0 if it runs none, or whoever submits runs it."""
        inner = self._inner.get(threading.get_ident()) if self._threads else None
        return 0 if inner is None else inner.depth + 1

    def help(self) -> bool | None:
        """Run a task that may run within the one that waits on this thread; say whether there was one.

        None says that this thread runs no task. Called without the engine's lock.
        """
        mine = self._inner.get(threading.get_ident())
        if mine is None:
            return None
        with self._engine.section:
            if not self._helpers or mine.below >= DEPTH_MAX:
                return False
            number = self._helpers.pop()
            task = self._engine.lease_deep(number, mine)
            if task is None:
                self._helpers.append(number)
                return False
        try:
            self._engine.run(task)
        except BaseException as error:
            self._engine.end(task, None, error, time.monotonic())
        finally:
            self._helpers.append(number)
        return True

    # -- graphs in the place of tasks --------------------------------------------------------------------------------

    def become(self, task: Attempt, graph: Graph) -> BaseException | None:
        """Have a graph take the place of a task that has returned it; or say why that cannot be."""
        try:
            if not graph.sinks:
                raise GraphError("the task returned a graph without tasks; let it return a value instead")
            terms = Terms(stop_on_error=True)
            run = Run(self.client(), self._engine.core, graph, graph.sinks, terms)
            self._replaced[run.number] = Replaced(task.slot, task.batch, task.index, run)
            self._runs[task.slot] = run.number
            self._kernel.park(task.slot)
            self._kernel.give_back(task.worker, task.slot, task.attempt)
            self._engine.enter(run, graph, terms, task.depth + 1)
        except BaseException as error:
            self._runs.pop(task.slot, None)
            number = self._engine.number(task)
            return failed(error, Current(task.key, task.failures + 1, task.failures, number, bool, current_client))
        return None

    def is_replaced(self, slot: int) -> bool:
        """Say whether a task has become a graph."""
        return slot in self._runs

    def note_failure(self, run: int, error: BaseException) -> None:
        """Note that a task of a run has failed."""
        if run in self._replaced:
            self._failures.setdefault(run, error)

    def note_end(self, run: int) -> None:
        """Note that all tasks of a run have ended."""
        if run in self._replaced:
            self._ended.append(run)

    def drop(self, slot: int) -> None:
        """Note that a task was cancelled."""
        run = self._runs.pop(slot, None)
        if run is not None:
            self._unwanted.append(self._replaced.pop(run).run)
            self._failures.pop(run, None)

    def settle(self) -> None:
        """End the tasks whose graphs have ended, and the graphs whose tasks have."""
        if self._is_settling:
            return
        self._is_settling = True
        try:
            while self._ended or self._unwanted:
                if self._unwanted:
                    run = self._unwanted.pop()
                    self._engine.stop_run(run.number, "submitter-ended")
                    run.release()
                else:
                    self._fulfil(self._ended.pop())
        finally:
            self._is_settling = False

    def _fulfil(self, number: int) -> None:
        replaced = self._replaced.pop(number, None)
        if replaced is None:
            return
        slot, batch, index, run = replaced
        del self._runs[slot]
        error = self._failures.pop(number, None)
        values: list[Any] = []
        for kept in run._keep:
            value, problem = self._engine.outcome(number, kept)
            error = error or problem
            values.append(value)
        if error is None:
            self._kernel.end_parked(slot)
            self._engine.succeed(slot, batch, index, values[0] if len(values) == 1 else tuple(values))
        else:
            self._kernel.fail_unleased(slot)
            self._engine.fail(slot, error)
        run.release()
