//! The messages about how a task is to be run: what its options ask for, and what comes of a limit that it passes.

use crate::columns::Blobs;

/// What the options of tasks ask for beyond priority and worker: an entry of [`crate::Submit::policies`] (a frame of its own
/// type, so one codec serves).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy<'a> {
    /// How often a failed attempt is followed by another one.
    pub retries: u32,
    /// [`POLICY_RETRY_ON`] and [`POLICY_SPECULATIVE`] bits.
    pub flags: u32,
    /// Milliseconds before the first retry; each further pause is twice as long.
    pub backoff_ms: u32,
    /// The longest pause in milliseconds.
    pub backoff_max_ms: u32,
    /// Milliseconds that an attempt may run; 0 for any.
    pub timeout_ms: u32,
    /// Milliseconds that the task may stand ready without a lease; 0 for any.
    pub queue_timeout_ms: u32,
    /// Names of the resources that it needs while it runs, ascending.
    pub resources: Blobs<'a>,
    /// How much of each, as little-endian `u64`.
    pub amounts: &'a [u8],
    /// Tags, ascending: names with a limit of how many tasks run at once.
    pub tags: Blobs<'a>,
}

/// Flag of a [`Policy`]: the worker says of each exception whether it is worth a retry.
pub const POLICY_RETRY_ON: u32 = 1;
/// Flag of a [`Policy`]: two attempts may run at once.
pub const POLICY_SPECULATIVE: u32 = 2;

/// A task that passed its time limit, as the blob of [`crate::Outcome::TimedOut`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Overrun<'a> {
    /// It was not the attempt that took too long, but the wait for a worker.
    pub queued: bool,
    /// Worker of the attempt; 0 where it waited.
    pub worker: u32,
    /// Number of the attempt; 0 before the first.
    pub attempt: u32,
    /// The limit in milliseconds.
    pub limit_ms: u32,
    /// Attempts that failed before.
    pub failures: u32,
    /// As [`Death::key`](crate::Death::key).
    pub key: &'a str,
}

/// An attempt runs longer than its lease allows (worker to broker). The worker has asked it to stop; where it does not, the
/// broker ends the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Overdue {
    /// Slot of the task.
    pub task: u32,
    /// The attempt.
    pub attempt: u32,
}
