"""Snapshots of runs, in the modes "threads" and "sync"."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headrace.statistics import RunStatistics, Shared, WorkerStatistics

if TYPE_CHECKING:
    from headrace._core import Kernel
    from headrace.local_tasks import Batch


def statistics(batch: Batch, kernel: Kernel, workers: int, unfinished: int, tasks_held: int) -> RunStatistics:
    """Give a snapshot of a run, one of so many that have not ended, where the kernel knows so many tasks."""
    counts = batch.counts
    open_tasks = batch.total - counts.ended - counts.leased
    # With one, which is the rule, the kernel's own count serves.
    ready = kernel.open()[1] if unfinished <= 1 else kernel.count_ready(list(batch.slots()))
    ready = min(ready, open_tasks)
    return RunStatistics(
        open_tasks - ready,
        ready,
        counts.leased,
        counts.done,
        counts.failed,
        counts.skipped,
        counts.cancelled,
        max(counts.first_s - counts.start_s, 1e-9) if counts.first_s else 0.0,
        (counts.end_s or time.monotonic()) - counts.start_s,
        tuple(WorkerStatistics(n, 0, counts.finished_by[n], counts.busy_s[n]) for n in range(workers)),
        tasks_held=tasks_held,
        retries=counts.retries,
        timeouts=counts.timeouts,
        shared=tuple(Shared(*thing) for thing in kernel.shared()),
    )
