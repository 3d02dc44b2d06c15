"""The engine of the modes "threads" and "sync": tasks run in this process, and values are shared objects.

The kernel decides what is ready, as everywhere. A worker is a thread, or in mode "sync" whoever submits.
"""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import nullcontext
from types import NoneType
from typing import TYPE_CHECKING, Any

from headrace._core import ClientCore, Graph, Kernel, Node, Nodes, Offer
from headrace.current import Current, running
from headrace.errors import UsageError
from headrace.failures import cancelled, failed, skipped
from headrace.interrupts import Uninterrupted
from headrace.launch import check_preparation
from headrace.local_hooks import checking, helping, user_part
from headrace.local_nested import DEPTH_MAX, HELPERS_MAX, Nesting
from headrace.local_policies import Policies
from headrace.local_stalls import Stalls
from headrace.local_statistics import statistics
from headrace.local_tasks import CALLS, Attempt, Batch, Call, CallBatch, Ending, GraphBatch
from headrace.retrying import is_worth_a_retry
from headrace.runs import Run
from headrace.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headrace.client import Client
    from headrace.graph import Graph as PythonGraph
    from headrace.statistics import RunStatistics
    from headrace.terms import Terms
    from headrace.why import Why

#: Longest sleep of mode "sync": Ctrl-C that comes just before a sleep does not end that one.
SLICE_S = 0.1


class Local:
    """Runs tasks in this process."""

    def __init__(
        self,
        workers: int,
        threads: bool,
        preload: Sequence[str],
        setup: Callable[[], object] | None,
        env: Mapping[str, str] | None,
        offer: Offer,
    ) -> None:
        if env:
            raise UsageError("env is for worker processes; tasks of this mode share this process's environment")
        check_preparation(preload, setup)
        self.core = ClientCore.local(workers, offer)
        self.thread: threading.Thread | None = None
        self.owner: Callable[[], Client | None] = lambda: None
        self._count = workers
        stand_ins, helpers = (None, HELPERS_MAX) if threads else (DEPTH_MAX, 0)
        self._kernel = Kernel(workers, offer, stand_ins=stand_ins, spares=helpers)
        # Reentrant, because a finalizer that stops the engine may run wherever memory is allocated.
        self._lock = threading.RLock()
        self.section = Uninterrupted(self._lock)
        # What a failure's own methods raise is kept from the caller. Ctrl-C, which comes to where tasks of mode "sync"
        # run, must not be.
        self._recording = nullcontext() if threads else self.section
        self._work = threading.Condition(self._lock)
        self._calls = CallBatch(workers)
        self._batches: dict[int, Batch] = {CALLS: self._calls}
        self._where: dict[int, tuple[Batch, int]] = {}
        self._values: dict[int, Any] = {}
        self._errors: dict[int, BaseException] = {}
        self._running: dict[int, Attempt] = {}
        self._timers = Timers(self._lock, threads)
        self._policies = Policies(self, self._kernel, self._timers)
        self.nesting = Nesting(self, self._kernel, workers, threads)
        self._stalls = Stalls()
        self.core.set_stall_check(checking(weakref.ref(self)))
        if threads:
            self.core.set_helper(helping(weakref.ref(self)))
        self._stopped = False
        # Worker numbers for mode "sync", one for each loop that runs tasks: a task that submits has one below it.
        self._stand_ins = list(range(DEPTH_MAX))
        self._threads = [
            threading.Thread(target=self._serve, args=(number,), name=f"headrace-worker-{number}", daemon=True)
            for number in range(workers if threads else 0)
        ]
        for name in preload:
            __import__(name)
        if setup is not None:
            setup()
        for thread in self._threads:
            thread.start()

    # -- commands ----------------------------------------------------------------------------------------------------

    def submit(self, client: Client, graph: PythonGraph, keep: Any, terms: Terms, anew: PythonGraph | None) -> Run:
        """Start a run; in mode "sync", finish it."""
        if not isinstance(keep, NoneType | Node | Nodes | str | list | tuple):
            keep = list(keep)  # what it yields is the user's code, which Ctrl-C may end
        with self.section:
            run = Run(client, self.core, graph, keep, terms, anew)
            try:
                self.enter(run, anew or graph, terms, self.nesting.depth())
            except BaseException:
                self.core.finish(run.number)  # or the client would wait for it
                raise
        self._work_here()
        return run

    def enter(self, run: Run, graph: PythonGraph, terms: Terms, depth: int) -> None:
        """Give the tasks of a run to the kernel; so deep is what a task submits."""
        self._follow_holds()
        batch = GraphBatch(run, graph, self._count, terms.stop_on_error, depth)
        inputs = [self._batches[number].slot(index) for number, index in self._kernel.externals(graph)]
        slots = self._kernel.submit(graph, batch.total, inputs, list(batch.kept), terms.priority, depth)
        batch.enter(slots)
        self._batches[batch.run] = batch
        self._where.update((slot, (batch, index)) for index, slot in enumerate(slots))
        self._policies.enter(batch)
        if terms.deadline_ms:
            self._timers.after(terms.deadline_ms / 1_000, lambda: self.stop_run(batch.run, "deadline"))
        self._settle_consequences()
        self._work.notify_all()

    def stop_run(self, run: int, reason: str) -> None:
        """Cancel what has not ended of a run."""
        batch = self._batches.get(run)
        if batch is not None and batch.counts.ended < batch.total:
            self._cancel(list(batch.slots()), reason)

    def call(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, str]:
        """Start a call; in mode "sync", finish it."""
        call = Call(self.core.session, fn, args, kwargs, self.nesting.depth())
        with self.section:
            self._follow_holds()
            inputs = [self._batches[run].slot(index) for run, index in call.inputs]
            index, call.key = self.core.open_call(call.name, call.key)
            try:
                policy = call.policy and call.policy[0]
                slot = self._kernel.submit_one(inputs, call.name, call.worker, call.priority, policy, call.depth)
            except BaseException as error:
                self.core.settle(CALLS, index, None, error)  # or the client would wait for it
                raise
            self._calls.enter(index, slot, call)
            self._where[slot] = self._calls, index
            self._policies.enter(self._calls)
            self._settle_consequences()
            self._work.notify_all()  # it may be pinned
        self._work_here()
        return index, call.key

    def put(self, value: object) -> tuple[int, str]:
        """Make a value a result."""
        return self.call(_give, (value,), {})

    def cancel(self, run: int, indices: list[int] | None, spare_leased: bool = False) -> None:
        """Cancel tasks of a run with all that depends on them; None: all of them."""
        self.core.check_process()
        with self.section:
            batch = self._batches.get(run)
            if batch is not None:
                found = batch.slots() if indices is None else map(batch.find, indices)
                spared = self._running if spare_leased else {}
                self._cancel([slot for slot in found if slot is not None and slot not in spared], "user")

    def _cancel(self, slots: list[int], reason: str) -> None:
        self._kernel.cancel(slots)
        self._settle_consequences(frozenset(slots), reason)

    def cancel_all(self, spare_leased: bool = False) -> None:
        """Cancel whatever has not ended."""
        for run in list(self._batches):
            self.cancel(run, None, spare_leased)

    def statistics(self, run: int) -> RunStatistics | None:
        """Give a snapshot of a run."""
        self.core.check_process()
        with self.section:
            batch = self._batches.get(run)
            if batch is None:
                return None
            unfinished = sum(other.counts.ended < other.total for other in self._batches.values())
            return statistics(batch, self._kernel, self._count, unfinished, len(self._where))

    def why(self, run: int, index: int, stacks: bool) -> Why | None:
        """Tell where a task is, if the kernel knows it still."""
        from headrace.local_why import explain

        self.core.check_process()
        with self.section:
            batch = self._batches.get(run)
            slot = None if batch is None else batch.find(index)
            if slot is None:
                return None
            return explain(
                self._kernel,
                slot,
                key=lambda slot: self._where[slot][0].key(self._where[slot][1]),
                running=self._running.values(),
                workers=self._count + HELPERS_MAX,
                failures=self._policies.failures(slot),
                pause_s=self._policies.pause_s(slot),
                stacks=stacks,
            )

    def stop(self) -> None:
        """End the session: nothing starts any more. A running call goes on, as threads cannot be ended."""
        if self.core.forked:
            return  # the lock may be held by a thread that is not here
        with self.section:
            self._stopped = True
            self._timers.stop()
            self._work.notify_all()
        self.core.close()

    # -- workers -----------------------------------------------------------------------------------------------------

    def _serve(self, worker: int) -> None:
        """Run tasks until the end; body of a worker thread."""
        while True:
            with self._lock:
                lease = None
                while not self._stopped and (lease := self._lease(worker)) is None:
                    self._work.wait()
            if lease is None:
                return
            try:
                self.run(lease)
            except BaseException as error:
                self.end(lease, None, error, time.monotonic())
            del lease  # or a sleeping worker would keep the inputs alive

    def _work_here(self) -> None:
        """Run everything that is ready, in mode "sync", also what is only after a pause."""
        if self._threads:
            return
        worker = None
        try:
            with self.section:
                if not self._stand_ins:
                    raise UsageError(f"tasks submit from within each other more than {DEPTH_MAX} deep")
                worker = self._stand_ins.pop()
                task, pause_s = self._next(worker)
            while task is not None or pause_s is not None:
                interrupt = None
                if task is None:
                    time.sleep(min(pause_s or 0, SLICE_S))
                    with self.section:
                        task, pause_s = self._next(worker)
                else:
                    started_s = time.monotonic()
                    value, error, interrupt = self._attempt(task)
                    with self.section:
                        self.end(task, value, error, started_s)
                        task, pause_s = self._next(worker)
                if interrupt is not None:
                    raise interrupt
        except UsageError:
            raise
        except BaseException:  # Ctrl-C, or what a handler of another signal raises
            with self.section:
                self.cancel_all()
            raise
        finally:
            if worker is not None:
                self._stand_ins.append(worker)

    def _next(self, worker: int) -> tuple[Attempt | None, float | None]:
        """Lease the next task to a stand-in; without one, say for how long to wait if there may be one later."""
        self._timers.run_due()
        task = None if self._stopped else self._lease(worker)
        return task, self._timers.left_s() if task is None and self._policies.pausing else None

    def _lease(self, worker: int) -> Attempt | None:
        self._follow_holds()
        return self._begin(self._kernel.lease(worker), worker)

    def lease_deep(self, worker: int, within: Attempt) -> Attempt | None:
        """Lease a task that may run within one that waits."""
        self._follow_holds()
        task = None if self._stopped else self._begin(self._kernel.lease_deep(worker, within.depth + 1), worker)
        if task is not None:
            task.seat, task.below = within.seat, within.below + 1
        return task

    def _begin(self, lease: tuple[int, int] | None, worker: int) -> Attempt | None:
        if lease is None:
            return None
        slot, attempt = lease
        batch, index = self._where[slot]
        inputs = [self._values[needed] for needed in self._kernel.predecessors(slot)]
        batch.counts.note_lease()
        failures = self._policies.begin(slot)
        started = self._running[slot] = Attempt(batch, index, slot, attempt, failures, worker, inputs)
        if self._threads:
            self._policies.limit(started)
        self._stalls.begin(started)
        return started

    def run(self, task: Attempt) -> None:
        """Run a task to its end."""
        started_s = time.monotonic()
        value, error, _ = self._attempt(task)
        self.end(task, value, error, started_s)

    def _attempt(self, task: Attempt) -> tuple[Any, BaseException | None, KeyboardInterrupt | None]:
        """Run a task; give its value, the exception to raise for it, and the interrupt that this was, maybe."""
        current = Current(
            task.key, task.failures + 1, task.failures, self.number(task), lambda: task.is_unwanted, self.nesting.client
        )
        before = self.nesting.enter(task)
        try:
            with running(current):
                return task.execute(task.inputs), None, None
        except BaseException as raised:
            interrupt = raised if isinstance(raised, KeyboardInterrupt) else None
            with self._recording:
                if task.policy is not None:
                    task.is_final = not (self._threads or interrupt is None) or not is_worth_a_retry(task.fn, raised)
                # Without the frames of this module, which would keep inputs and values alive.
                error = failed(BaseException.with_traceback(raised, user_part(raised)), current)
            return None, error, interrupt
        finally:
            self.nesting.leave(task, before)

    def end(self, task: Attempt, value: Any, error: BaseException | None, started_s: float) -> None:
        """Note that a task has ended, with a value or an exception."""
        with self.section:
            counts, elapsed_s = task.batch.counts, time.monotonic() - started_s
            counts.busy_s[self.number(task)] += elapsed_s
            self._kernel.release(task.worker)
            self._stalls.end(task)
            if self._running.get(task.slot) is task:  # the slot of a cancelled one may be another's by now
                del self._running[task.slot]
            self._policies.end(task)
            if task.cancelled:
                self._work.notify_all()  # what it held is free
                return
            error = self._policies.overrun(task, elapsed_s) or error
            counts.leased -= 1
            if error is not None and self._policies.retry(task):
                self._settle_consequences()
                self._work.notify_all()
                return
            if error is None and issubclass(type(value), Graph):
                error = self.nesting.become(task, value)  # users make no other
                if error is None:
                    return
            counts.finished_by[self.number(task)] += 1
            if error is None:
                self._kernel.complete(task.worker, task.slot, task.attempt)
                self.succeed(task.slot, task.batch, task.index, value)
            else:
                self._kernel.fail(task.worker, task.slot, task.attempt)
                self.fail(task.slot, error)

    def check_stall(self, run: int | None, index: int | None) -> None:
        """Raise `Stalled` if nothing can go on. The calling thread waits, without end, for a run or a task of it."""

        def awaited() -> str:
            found = None if run is None or index is None else self.why(run, index, stacks=False)
            return f"run {run} has not ended" if found is None else found.text

        with self._lock:
            if self._timers.left_s() is None:
                self._stalls.check(awaited)

    # -- for policies ------------------------------------------------------------------------------------------------

    def number(self, task: Attempt) -> int:
        """Give the number of an attempt's worker, as people know it."""
        return task.seat if self._threads else 0

    def is_replaced(self, slot: int) -> bool:
        """Say whether a task has become a graph."""
        return self.nesting.is_replaced(slot)

    def place(self, slot: int) -> tuple[Batch, int] | None:
        """Give the run of a task and its index there, if the kernel knows it still."""
        return self._where.get(slot)

    def note_ready(self) -> None:
        """Note that tasks have become ready."""
        self._work.notify_all()

    def is_running(self, attempt: Attempt) -> bool:
        """Say whether an attempt runs, and counts."""
        return self._running.get(attempt.slot) is attempt

    def fail_early(self, attempt: Attempt, error: BaseException) -> None:
        """Fail the task of an attempt that runs, and will for a while; nothing comes of it any more."""
        self._kernel.fail(attempt.worker, attempt.slot, attempt.attempt)
        del self._running[attempt.slot]
        attempt.cancelled = True
        attempt.batch.counts.leased -= 1
        self.fail(attempt.slot, error)

    def succeed(self, slot: int, batch: Batch, index: int, value: Any) -> None:
        """Note that a task has a result, as the kernel knows."""
        self._values[slot] = value
        self._settle(batch, index, "done", value)
        self._settle_consequences()
        self._work.notify_all()

    def outcome(self, run: int, index: int) -> tuple[Any, BaseException | None]:
        """Give what a task that has ended has left, which its run keeps."""
        slot = self._batches[run].slot(index)
        return self._values.get(slot), self._errors.get(slot)

    def fail(self, slot: int, error: BaseException) -> None:
        """Note that a task has failed, as the kernel knows."""
        self._errors[slot] = error
        batch, index = self._where[slot]
        self.nesting.note_failure(batch.run, error)
        self._settle(batch, index, "failed", error=error)
        self._settle_consequences()
        if batch.stops:
            self.stop_run(batch.run, "run-failed")
        self._work.notify_all()

    # -- endings -----------------------------------------------------------------------------------------------------

    def _settle(
        self, batch: Batch, index: int, ending: Ending, value: Any = None, error: BaseException | None = None
    ) -> None:
        batch.counts.note_end(ending)
        batch.finish(index)
        self._stalls.turns += 1
        if error is not None or batch.keeps(index):
            self.core.settle(batch.run, index, value, error)
        if batch.counts.ended == batch.total and batch.run != CALLS:
            batch.counts.end_s = time.monotonic()
            self.core.finish(batch.run)
            self.nesting.note_end(batch.run)

    def _settle_consequences(self, asked: frozenset[int] = frozenset(), reason: str = "") -> None:
        """Follow what the kernel decided by itself; `asked` are the slots that were to be cancelled for this reason."""
        self._policies.begin_waits()
        ended, dead, freed = self._kernel.drain()
        for slot, root in ended:
            batch, index = self._where[slot]
            key = batch.key(index)
            self._policies.drop(slot)
            self.nesting.drop(slot)
            attempt = self._running.pop(slot, None)
            if attempt is not None:
                attempt.cancelled = True
                batch.counts.leased -= 1
            if root is None:
                self._errors[slot] = cancelled(key, reason if slot in asked else "parent-cancelled")
                self._settle(batch, index, "cancelled", error=self._errors[slot])
            else:
                root_batch, root_index = self._where[root]
                self._errors[slot] = skipped(key, root_batch.key(root_index), self._errors.get(root))
                self._settle(batch, index, "skipped", error=self._errors[slot])
        for slot in dead:
            self._values.pop(slot, None)
        for slot in freed:
            batch, index = self._where.pop(slot)
            self._errors.pop(slot, None)
            self._values.pop(slot, None)
            self._policies.forget(slot)
            batch.forget(index)
            if batch.over:
                del self._batches[batch.run]
        self.nesting.settle()

    def follow_holds(self) -> None:
        """Let go of results now that were let go of; else that is done with the next task."""
        with self.section:
            self._follow_holds()

    def _follow_holds(self) -> None:
        """Tell the kernel what refs, futures and runs have let go of, or hold, since the last look."""
        changes = self.core.take_hold_changes()
        for run, index, change in changes:
            batch = self._batches.get(run)
            if batch is None:
                continue
            if index is not None and change:
                (self._kernel.hold if change > 0 else self._kernel.unhold)(batch.slot(index))
            else:
                for kept in batch.let_go(index):
                    self._kernel.unhold(batch.slot(kept))
                if batch.over:
                    del self._batches[run]
        if changes:
            self._settle_consequences()


def _give(value: object) -> object:
    return value
