//! What happened, as somebody outside saw it: what was asked for, which bodies ran and what they made, what clients were
//! told. Taken where code of users runs and from frames on their way, never from anybody's own counters.

use crate::workload::Name;
use headrace_wire::{CancelReason, Outcome};

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Record {
    /// A client submitted a task.
    Asked { name: Name },
    /// A client wants a task cancelled.
    CancelAsked { name: Name },
    /// A client does not want to hear of a task any more.
    LetGo { name: Name },
    /// A lease left the broker for the process.
    Leased { process: usize, name: Name, slot: u32, attempt: u32 },
    /// A body began.
    Began { process: usize, name: Name, slot: u32, attempt: u32 },
    /// It read this as its input at that position.
    Took { name: Name, position: usize, value: u64 },
    /// It ended with a value.
    Made { process: usize, name: Name, value: u64 },
    /// It raised.
    Threw { process: usize, name: Name },
    /// It was interrupted.
    Interrupted { process: usize, name: Name },
    /// The worker said that a lease will not start (any more).
    GaveUp { process: usize, slot: u32, attempt: u32 },
    /// A worker's process ended, in the middle of a body perhaps, which may have been the cause.
    Died { process: usize, executing: Option<Name>, of_itself: bool },
    /// A client was told how a task ended.
    Told { name: Name, outcome: Outcome, detail: Detail },
    /// A client was told that a run is over, and how many of its tasks have ended.
    RunOver { client: u8, run: u8, ended: u64 },
    /// A client read a kept value.
    Read { name: Name, value: u64 },
    /// A client's session is over, whoever ended it.
    SessionOver { client: u8 },
}

/// What was told beside the outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Detail {
    /// Nothing, or a value, which is read later.
    Nothing,
    /// The task for which it was skipped.
    Root(Name),
    /// Why it was cancelled.
    Because(CancelReason),
    /// What took too long: the wait for a worker, or an attempt.
    Overrun { queued: bool },
    /// How many processes it is said to have killed, of how many at most, and how, as the number of a cause.
    Deaths { count: u32, limit: u32, cause: u8 },
    /// A text.
    Text(String),
}

/// All of it, with times.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// In order of time.
    pub(crate) records: Vec<(u64, Record)>,
}

impl History {
    pub(crate) fn add(&mut self, now_ns: u64, record: Record) {
        self.records.push((now_ns, record));
    }
}
