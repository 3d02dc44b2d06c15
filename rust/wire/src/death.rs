//! What a client is told of a task that ended its workers.

use crate::columns::U32s;

/// A task that killed its worker, as the blob of [`Outcome::Died`](crate::Outcome::Died) (a frame of its own type, so one codec
/// serves).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Death<'a> {
    /// Worker number.
    pub worker: u32,
    /// Process id of the last worker that it killed.
    pub pid: u32,
    /// Signal that ended the process, or 0.
    pub signal: u32,
    /// Exit code if no signal did, else 0.
    pub exit_code: i32,
    /// Executing deaths of this task so far, of the kind that is its end.
    pub attempts: u32,
    /// The limit that applied.
    pub limit: u32,
    /// Last lines that the worker wrote to standard error.
    pub stderr: &'a [u8],
    /// What kind of death is its end: a [`DeathCause`] as its number.
    pub cause: u8,
    /// Out of memory: bytes that the worker's control group may take; 0 if not known.
    pub memory_limit: u64,
    /// Out of memory: the most bytes that the worker had itself; 0 if not known.
    pub memory_peak: u64,
    /// Out of memory: other processes in that group.
    pub group_others: u32,
    /// Per executing death of the task, oldest first: the worker.
    pub workers: U32s<'a>,
    /// Per death: the process id.
    pub pids: U32s<'a>,
    /// Per death: the signal, or 0.
    pub signals: U32s<'a>,
    /// Per death: the exit code, an `i32` in two's complement.
    pub exit_codes: U32s<'a>,
    /// Per death: a [`DeathCause`] as its number.
    pub causes: &'a [u8],
    /// The key of the task that did it, where that is one of a graph which has taken the place of the task that is told of;
    /// else empty.
    pub key: &'a str,
}

/// What the death of a worker says of the task that it was executing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DeathCause {
    /// It ended by itself, or was killed by somebody.
    Crashed = 0,
    /// The kernel killed it for want of memory.
    OutOfMemory = 1,
    /// It did not answer any more, and the broker killed it.
    Silent = 2,
}
