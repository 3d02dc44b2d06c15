"""What a run and its workers have done so far, as frozen records."""

from __future__ import annotations

from typing import NamedTuple


class Progress(NamedTuple):
    """How far a run is: its tasks by state. They add up to `total`."""

    waiting: int = 0
    """Tasks that wait for predecessors."""
    ready: int = 0
    """Tasks that could start."""
    leased: int = 0
    """Tasks that a worker holds: the one that it runs, and the next few."""
    done: int = 0
    """Tasks that returned."""
    failed: int = 0
    """Tasks that raised, could not be run, or killed their worker too often."""
    skipped: int = 0
    """Tasks that never ran because one that they need failed."""
    cancelled: int = 0
    """Tasks that were cancelled."""

    @property
    def total(self) -> int:
        """All tasks of the run."""
        return sum(self)

    @property
    def ended(self) -> int:
        """Tasks that have ended, however."""
        return self.done + self.failed + self.skipped + self.cancelled


class WorkerStatistics(NamedTuple):
    """What one worker has done."""

    number: int
    """Its number, from 0."""
    pid: int
    """Its process id; 0 while no process lives, and in the modes `threads` and `sync`."""
    finished: int
    """Tasks of the run that it finished."""
    busy_s: float
    """Seconds in user code since its start."""


class LargeResult(NamedTuple):
    """A result, and the memory that it takes."""

    key: str
    """Key of its task."""
    bytes: int
    """Bytes of its blocks of shared memory, or of itself."""


class StoreStatistics(NamedTuple):
    """What results take, in bytes. All zero in the modes `threads` and `sync`, where they are objects."""

    limit: int = 0
    """What `owned` and `inline` may be together: `store_limit`."""
    owned: int = 0
    """Shared memory of all processes, what they keep warm included."""
    peak: int = 0
    """The most that it was."""
    mapped: int = 0
    """Shared memory that processes have mapped which do not own it, once for each."""
    inline: int = 0
    """Small results, in the broker's own memory."""
    spilled: int = 0
    """Results that lie on disk."""
    largest: tuple[LargeResult, ...] = ()
    """The results that take most memory."""


class Shared(NamedTuple):
    """A resource or a tag with a limit, of which tasks take some while they run."""

    name: str
    """What it is called."""
    is_tag: bool
    """Whether it is a tag: then `total` is its limit."""
    used: int
    """How much workers hold now, for what they run and for the next few tasks."""
    total: int
    """How much there is."""


class RunStatistics(NamedTuple):
    """A snapshot of a run and of the broker that runs it."""

    waiting: int
    """Tasks that wait for predecessors."""
    ready: int
    """Tasks that could start."""
    leased: int
    """Tasks that a worker holds: the one that it runs, and the next few."""
    done: int
    """Tasks that returned."""
    failed: int
    """Tasks that raised, could not be run, or killed their worker too often."""
    skipped: int
    """Tasks that never ran because one that they need failed."""
    cancelled: int
    """Tasks that were cancelled."""
    first_lease_s: float
    """Seconds from the arrival of the graph at the broker to its first task's way to a worker; 0 before that."""
    elapsed_s: float
    """Seconds from the arrival of the graph to the end of its last task, or to now."""
    workers: tuple[WorkerStatistics, ...] = ()
    """The workers, by number."""
    lease_frames: int = 0
    """Batches of tasks sent to workers since the broker's start."""
    report_frames: int = 0
    """Batches of results received from workers since then."""
    stale_reports: int = 0
    """Late or duplicate reports that were dropped since then (K4)."""
    recalls: int = 0
    """Times that a busy worker was asked for tasks since then, because another was idle."""
    worker_deaths: int = 0
    """Workers that died since then."""
    bytes_held: int = 0
    """Bytes of arguments and results that the broker holds now."""
    tasks_held: int = 0
    """Tasks that the broker knows now, of all runs."""
    store: StoreStatistics = StoreStatistics()
    """What all results take now."""
    retries: int = 0
    """Attempts that failed and were followed by another one."""
    timeouts: int = 0
    """Attempts, and waits for a worker, that passed a time limit."""
    oom_deaths: int = 0
    """Workers that the kernel killed for want of memory since the broker's start."""
    blamed_deaths: int = 0
    """Deaths of workers since then that were counted against the task that was executing."""
    workers_retired: int = 0
    """Workers that left since then because they had run their share: `max_tasks_per_worker`."""
    shared: tuple[Shared, ...] = ()
    """Resources, and tags with limits; without GPUs of worker processes, which have theirs for themselves."""

    @property
    def progress(self) -> Progress:
        """The tasks by state."""
        return Progress(*self[:7])
