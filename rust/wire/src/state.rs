//! The question how things stand, and its answer.

use crate::columns::{Blobs, U32s};

/// Asks for the state of a run (client to broker), or of all runs of all clients together (observer to broker).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Query {
    /// The run; an observer's is not looked at.
    pub run: u32,
    /// Number of the question, echoed in [`State`].
    pub number: u64,
}

/// The state of a run and of the workers (broker to client). Where an observer asked, it is that of all runs since the
/// broker's start, and both times are 0.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State<'a> {
    /// The run.
    pub run: u32,
    /// Number of the question.
    pub number: u64,
    /// Tasks that wait for predecessors.
    pub waiting: u64,
    /// Tasks that could start.
    pub ready: u64,
    /// Tasks that a worker holds.
    pub leased: u64,
    /// Tasks that returned.
    pub done: u64,
    /// Tasks that failed (also by killing their worker).
    pub failed: u64,
    /// Tasks that never ran because an ancestor failed.
    pub skipped: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Nanoseconds from the arrival of SUBMIT to the first lease; 0 before it.
    pub first_lease_ns: u64,
    /// Nanoseconds from the arrival of SUBMIT to the end of the last task, or to now.
    pub elapsed_ns: u64,
    /// Per worker: its number.
    pub worker: U32s<'a>,
    /// Per worker: process id, 0 while none lives.
    pub worker_pid: U32s<'a>,
    /// Per worker: tasks of this run that it finished.
    pub worker_finished: U32s<'a>,
    /// Per worker: milliseconds in user code since its start.
    pub worker_busy_ms: U32s<'a>,
    /// Lease frames sent by the broker since its start.
    pub lease_frames: u64,
    /// Report frames received since its start.
    pub report_frames: u64,
    /// Late or duplicate reports that were dropped since its start (K4).
    pub stale_reports: u64,
    /// Recalls sent since its start.
    pub recalls: u64,
    /// Workers that died since its start.
    pub worker_deaths: u64,
    /// Bytes of results and arguments that the broker holds now.
    pub bytes_held: u64,
    /// Tasks in the kernel now, all runs.
    pub tasks_held: u64,
    /// Bytes that results may take in memory together.
    pub store_limit: u64,
    /// Bytes of shared memory that processes own.
    pub store_owned: u64,
    /// The most that it was.
    pub store_peak: u64,
    /// Bytes of shared memory that processes have mapped which do not own them; once for each.
    pub store_mapped: u64,
    /// Bytes of results in the broker's own memory.
    pub store_inline: u64,
    /// Bytes of results that lie in files.
    pub store_spilled: u64,
    /// Names of the tasks with the largest results.
    pub largest: Blobs<'a>,
    /// Bytes of these results, as little-endian `u64`.
    pub largest_bytes: &'a [u8],
    /// Attempts that failed and were followed by another one.
    pub retries: u64,
    /// Attempts, and waits for a worker, that passed a time limit.
    pub timeouts: u64,
    /// Workers that the kernel killed for want of memory since the broker's start.
    pub oom_deaths: u64,
    /// Deaths since then that were counted against the task that was executing.
    pub blamed_deaths: u64,
    /// Workers that left since then because they had run their share of tasks.
    pub workers_retired: u64,
    /// Names of the resources and tags that all workers share.
    pub things: Blobs<'a>,
    /// For each of them 1 if it is a tag, else 0.
    pub thing_tags: &'a [u8],
    /// For each of them how much is used and how much there is, as little-endian `u64`.
    pub thing_amounts: &'a [u8],
}
