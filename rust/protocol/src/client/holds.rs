//! Changes of what a client holds, gathered into one HOLD a run.
//!
//! A hold that is added late is as good as one in time: until its frame leaves, the run or the call itself keeps the
//! result, because they let go through the same frame or a later one. A hold that is removed late costs the broker
//! memory; so only small ones wait, and only a few.

use std::collections::BTreeMap;

use headrace_wire::{Hold, U32s};

/// Changes that may wait: a frame a call would double what a call in a loop costs.
const WAITING_MAX: usize = 64;
/// Bytes of results let go that may wait.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Changes that have not been sent.
#[derive(Debug, Default)]
pub(super) struct Holds {
    runs: BTreeMap<u32, Changes>,
    len: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Changes {
    add: Vec<u32>,
    remove: Vec<u32>,
    release_run: bool,
}

impl Holds {
    pub(super) fn add(&mut self, run: u32, index: u32) {
        self.runs.entry(run).or_default().add.push(index);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, run: u32, index: u32) {
        self.runs.entry(run).or_default().remove.push(index);
        self.len += 1;
    }

    pub(super) fn release(&mut self, run: u32) {
        self.runs.entry(run).or_default().release_run = true;
        self.len += 1;
    }

    /// The number of changes that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the changes should leave, now that the last one has let go of so many bytes.
    pub(super) fn is_due(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.len >= WAITING_MAX || self.bytes >= WAITING_BYTES_MAX
    }

    /// Hands out everything.
    pub(super) fn flush(&mut self, mut send: impl FnMut(Hold<'_>)) {
        for (&run, changes) in &self.runs {
            let Changes { add, remove, release_run } = changes;
            send(Hold { run, add: U32s::Words(add), remove: U32s::Words(remove), release_run: *release_run });
        }
        *self = Self::default();
    }
}
