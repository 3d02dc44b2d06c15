//! The endings of a local session: live objects, entered by whoever ran the task.
use std::collections::VecDeque;

use headrace_protocol::client::{CALLS, Farewell, Side};
use headrace_wire::{EXTERNAL, GoodbyeReason};
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

/// How a task ended.
pub(crate) enum LiveEnding {
    /// It returned this.
    Value(Py<PyAny>),
    /// It gave no value; this says why.
    Error(Py<PyAny>),
}

impl LiveEnding {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            LiveEnding::Value(value) => LiveEnding::Value(value.clone_ref(py)),
            LiveEnding::Error(error) => LiveEnding::Error(error.clone_ref(py)),
        }
    }
}

/// A change of what is held, for the engine to follow: (run, index, change). +1 and -1 are holders of a result that came
/// and went; 0 is the run itself, which lets go of this result or, if there is no index, of all that it keeps.
pub(crate) type HoldChange = (u32, Option<u32>, i32);

/// The tables of a local session.
#[derive(Default)]
pub(crate) struct Live {
    runs: FxHashMap<u32, LiveRun>,
    /// Calls so far.
    calls: u32,
    /// Calls that are not forgotten; those that have ended with how.
    call_rows: FxHashMap<u32, Option<LiveEnding>>,
    ended_calls: VecDeque<u32>,
    hold_changes: Vec<HoldChange>,
    closed: bool,
}

struct LiveRun {
    endings: FxHashMap<u32, Option<LiveEnding>>,
    arrivals: Vec<u32>,
    finished: bool,
}

impl Live {
    pub(super) fn open_run(&mut self, run: u32, tasks: u32) {
        let run_table = LiveRun { endings: FxHashMap::default(), arrivals: Vec::new(), finished: tasks == 0 };
        self.runs.insert(run, run_table);
    }

    pub(super) fn open_call(&mut self) -> Option<u32> {
        let index = self.calls;
        if index & EXTERNAL != 0 {
            return None;
        }
        self.calls += 1;
        self.call_rows.insert(index, None);
        Some(index)
    }

    /// Enters how a task ended; the answer is the ending if nobody wants it.
    pub(super) fn knows(&self, run: u32) -> bool {
        self.runs.contains_key(&run)
    }

    pub(crate) fn settle(&mut self, run: u32, index: u32, ending: LiveEnding) -> Option<LiveEnding> {
        if run == CALLS {
            match self.call_rows.get_mut(&index) {
                Some(row @ None) => {
                    *row = Some(ending);
                    self.ended_calls.push_back(index);
                    return None;
                }
                _ => return Some(ending),
            }
        }
        let Some(table) = self.runs.get_mut(&run) else { return Some(ending) };
        table.arrivals.push(index);
        table.endings.insert(index, Some(ending)).flatten()
    }

    /// Notes that every task of a run has ended.
    pub(crate) fn finish(&mut self, run: u32) {
        if let Some(table) = self.runs.get_mut(&run) {
            table.finished = true;
        }
    }

    /// Changes of holds since the last call, in order.
    pub(crate) fn take_hold_changes(&mut self) -> Vec<HoldChange> {
        std::mem::take(&mut self.hold_changes)
    }

    pub(super) fn hold(&mut self, run: u32, index: u32) {
        self.hold_changes.push((run, Some(index), 1));
    }

    pub(super) fn unhold(&mut self, run: u32, index: u32) {
        self.hold_changes.push((run, Some(index), -1));
    }

    pub(super) fn release_one(&mut self, run: u32, index: u32) {
        self.hold_changes.push((run, Some(index), 0));
    }

    pub(super) fn forget_call(&mut self, index: u32) -> Option<LiveEnding> {
        let row = self.call_rows.remove(&index)?;
        self.hold_changes.push((CALLS, Some(index), -1));
        row
    }

    pub(super) fn release(&mut self, run: u32) -> impl Iterator<Item = LiveEnding> + use<> {
        let table = self.runs.remove(&run);
        if table.is_some() {
            self.hold_changes.push((run, None, 0));
        }
        table.into_iter().flat_map(|table| table.endings.into_values().flatten())
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn poll_ended_call(&mut self) -> Option<u32> {
        self.ended_calls.pop_front()
    }

    pub(super) fn has_ended(&self, run: u32, index: u32) -> bool {
        match run {
            CALLS => self.call_rows.get(&index).is_some_and(Option::is_some),
            _ => self.runs.get(&run).is_some_and(|table| table.finished || table.endings.contains_key(&index)),
        }
    }

    pub(super) fn has_finished(&self, run: u32) -> bool {
        self.runs.get(&run).is_none_or(|table| table.finished)
    }

    pub(super) fn peek(&self, py: Python<'_>, run: u32, index: u32) -> Option<LiveEnding> {
        let row = match run {
            CALLS => self.call_rows.get(&index)?,
            _ => self.runs.get(&run)?.endings.get(&index)?,
        };
        row.as_ref().map(|ending| ending.clone_ref(py))
    }

    pub(super) fn take(&mut self, run: u32, index: u32) -> Option<LiveEnding> {
        self.runs.get_mut(&run)?.endings.get_mut(&index)?.take()
    }

    pub(super) fn arrivals(&self, run: u32, from: usize) -> &[u32] {
        self.runs.get(&run).and_then(|table| table.arrivals.get(from..)).unwrap_or(&[])
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Why a local session is over.
pub(super) fn farewell() -> Farewell {
    let text = "the client was closed".to_owned();
    Farewell { side: Side::Client, reason: Some(GoodbyeReason::Closed), text }
}
