//! Events that somebody wants to be told of, because it cannot wait for them itself.
use rustc_hash::FxHashMap;

use headrace_protocol::client::CALLS;

use super::tables::Tables;

/// What is watched for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Event {
    /// The end of a call.
    CallEnd(u32),
    /// The end of a run.
    RunEnd(u32),
    /// More than so many endings of a run's tasks have arrived.
    Arrivals {
        /// The run.
        run: u32,
        /// The number of those that are known.
        seen: usize,
    },
}

/// The watches of one session.
#[derive(Default)]
pub(crate) struct Watches {
    /// Calls by index: looked up as they end, since there may be very many.
    calls: FxHashMap<u32, Vec<u64>>,
    /// All others: looked at one by one, since there are few.
    runs: Vec<(Event, u64)>,
    /// Numbers of watches whose event has happened.
    happened: Vec<u64>,
}

impl Watches {
    /// Watches for an event; false, and nothing is watched, if it has happened.
    pub(crate) fn add(&mut self, number: u64, event: Event, tables: &Tables) -> bool {
        if has_happened(event, tables) {
            return false;
        }
        match event {
            Event::CallEnd(index) => self.calls.entry(index).or_default().push(number),
            _ => self.runs.push((event, number)),
        }
        true
    }

    /// Notes what has happened since the last look.
    pub(crate) fn look(&mut self, tables: &mut Tables) {
        while let Some(index) = tables.poll_ended_call() {
            self.happened.extend(self.calls.remove(&index).into_iter().flatten());
            tables.note_call_end(index);
        }
        if tables.farewell().is_some() {
            self.happened.extend(self.calls.drain().flat_map(|(_, numbers)| numbers));
        }
        let happened = &mut self.happened;
        self.runs.retain(|(event, number)| {
            let happens = has_happened(*event, tables);
            if happens {
                happened.push(*number);
            }
            !happens
        });
    }

    /// The run, and the task of it if there is but one, that is watched; `None` if nothing is.
    pub(crate) fn place(&self) -> Option<(u32, Option<u32>)> {
        if let Some((Event::RunEnd(run) | Event::Arrivals { run, .. }, _)) = self.runs.first() {
            return Some((*run, None));
        }
        let index = self.calls.keys().next()?;
        Some((CALLS, (self.calls.len() == 1).then_some(*index)))
    }

    /// The numbers of watches whose event has happened, each once; nothing if there are none.
    pub(crate) fn take(&mut self) -> Option<Vec<u64>> {
        (!self.happened.is_empty()).then(|| std::mem::take(&mut self.happened))
    }
}

fn has_happened(event: Event, tables: &Tables) -> bool {
    tables.farewell().is_some()
        || match event {
            Event::CallEnd(index) => tables.has_ended(CALLS, index),
            Event::RunEnd(run) => tables.has_finished(run),
            Event::Arrivals { run, seen } => tables.has_finished(run) || !tables.arrivals(run, seen).is_empty(),
        }
}
