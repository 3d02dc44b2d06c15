//! Runs: which tasks a client submitted together, how far they are, and what it has still to be told.

use super::action::PeerId;
use super::ledger::NONE;
use headrace_kernel::{TaskIndex, seeded};
use headrace_wire::{BlobsBuf, CancelReason, Outcome};
use rustc_hash::FxHashMap;

/// The run of single calls: it never ends, so its tasks are kept in a table that shrinks again.
pub(crate) const CALLS: u32 = 0;

/// Slots of a run's tasks by index.
#[derive(Debug)]
pub(crate) enum Slots {
    /// Every index from 0 on.
    Dense(Vec<u32>),
    /// Some indices.
    Sparse(FxHashMap<u32, u32>),
}

impl Slots {
    /// The slot of a task, unless it was freed or never was.
    pub(crate) fn get(&self, index: u32) -> Option<u32> {
        match self {
            Slots::Dense(slots) => slots.get(index as usize).copied().filter(|slot| *slot != NONE),
            Slots::Sparse(slots) => slots.get(&index).copied(),
        }
    }

    fn remove(&mut self, index: u32) {
        match self {
            Slots::Dense(slots) => slots[index as usize] = NONE,
            Slots::Sparse(slots) => {
                slots.remove(&index);
            }
        }
    }
}

/// Ended tasks by ending.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) leased: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    pub(crate) cancelled: u64,
    /// Attempts that failed and were followed by another one.
    pub(crate) retries: u64,
    /// Attempts, and waits for a worker, that passed a time limit.
    pub(crate) timeouts: u64,
}

impl Counts {
    /// Tasks that have ended, however.
    pub(crate) fn ended(&self) -> u64 {
        self.done + self.failed + self.skipped + self.cancelled
    }

    /// The tasks of both.
    pub(crate) fn and(self, other: Counts) -> Counts {
        Counts {
            total: self.total + other.total,
            leased: self.leased + other.leased,
            done: self.done + other.done,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
            cancelled: self.cancelled + other.cancelled,
            retries: self.retries + other.retries,
            timeouts: self.timeouts + other.timeouts,
        }
    }
}

/// One run of one client.
#[derive(Debug)]
pub(crate) struct Run {
    /// Its client, or the worker whose task has submitted it.
    pub(crate) peer: PeerId,
    /// The number of that worker.
    pub(crate) seat: Option<u32>,
    /// The task whose place it takes: nobody is told of it.
    pub(crate) replaces: Option<u32>,
    /// The client's number for it.
    pub(crate) number: u32,
    /// Its tasks.
    pub(crate) slots: Slots,
    /// Tasks that are not freed yet.
    pub(crate) live: u64,
    /// Whether more tasks will come.
    pub(crate) open: bool,
    /// How far it is.
    pub(crate) counts: Counts,
    /// Results that are held until the last chunk is in, because it may read them.
    pub(crate) held: Vec<TaskIndex>,
    /// Indices that it keeps until it is released; empty for single calls, which are held one by one.
    pub(crate) keep: Vec<u32>,
    /// Keys that are not `name-index`.
    pub(crate) keys: FxHashMap<u32, Box<[u8]>>,
    /// Tasks finished per worker.
    pub(crate) finished_by: Vec<u32>,
    /// When SUBMIT arrived, when the first task was leased, when the last ended.
    pub(crate) submitted_ns: u64,
    pub(crate) first_lease_ns: Option<u64>,
    pub(crate) ended_ns: Option<u64>,
    /// Endings that the client has not been told yet.
    pub(crate) outbox: Outbox,
    /// Whether the run stands in the list of runs with news.
    pub(crate) has_news: bool,
    /// Results that the client is to be told of and cannot be yet.
    pub(crate) owed: u32,
    /// Whether the client was told that the run is finished.
    pub(crate) finish_told: bool,
    /// Whether the client has no more questions about the run.
    pub(crate) released: bool,
    /// Whether nothing more is to run once a task has failed.
    pub(crate) stop_on_error: bool,
    /// Why nothing more runs.
    pub(crate) stopped: Option<CancelReason>,
}

/// Endings on their way to the client.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) index: Vec<u32>,
    pub(crate) outcome: Vec<u8>,
    pub(crate) values: BlobsBuf,
}

impl Outbox {
    /// Adds one ending.
    pub(crate) fn push(&mut self, index: u32, outcome: Outcome, blob: &[u8]) {
        self.index.push(index);
        self.outcome.push(outcome as u8);
        self.values.push(blob);
    }
}

impl Run {
    /// A run without tasks.
    pub(crate) fn new(peer: PeerId, seat: Option<u32>, number: u32, workers: usize, now_ns: u64) -> Self {
        let slots = if number == CALLS { Slots::Sparse(FxHashMap::default()) } else { Slots::Dense(Vec::new()) };
        Run {
            peer,
            seat,
            replaces: None,
            number,
            slots,
            live: 0,
            open: true,
            counts: Counts::default(),
            held: Vec::new(),
            keep: Vec::new(),
            keys: FxHashMap::default(),
            finished_by: vec![0; workers],
            submitted_ns: now_ns,
            first_lease_ns: None,
            ended_ns: None,
            outbox: Outbox::default(),
            has_news: false,
            owed: 0,
            finish_told: false,
            released: false,
            stop_on_error: false,
            stopped: None,
        }
    }

    /// Whether every task that will ever belong to the run has ended.
    pub(crate) fn finished(&self) -> bool {
        let missed = u64::from(seeded!("run over early") && self.counts.total > 8);
        !self.open && self.counts.ended() + missed >= self.counts.total
    }

    /// Forgets a freed task.
    pub(crate) fn forget(&mut self, index: u32) {
        self.slots.remove(index);
        self.keys.remove(&index);
        self.live -= 1;
    }
}
