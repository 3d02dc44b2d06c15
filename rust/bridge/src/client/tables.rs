//! What has ended, whoever ran it: one face for the broker's frames and for the objects of a local session.
use std::collections::hash_map::Entry;
use std::sync::Arc;

use headrace_protocol::client::{CALLS, Client, Farewell, LogLines, Reply, Session as Standing, TaskLog};
use headrace_protocol::store::Blocks;
use headrace_wire::Outcome;
use pyo3::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};

use super::live::{Live, LiveEnding};
use crate::codec::decode_value;
use crate::memory::Memory;

/// How a task ended.
pub(crate) enum Ending {
    /// As a frame told.
    Told(headrace_protocol::client::Ending),
    /// As an object.
    Live(LiveEnding),
}

impl Ending {
    /// Whether it is a value whose parts lie in shared memory.
    pub(crate) fn is_large(&self) -> bool {
        match self {
            Ending::Told(told) => headrace_wire::cites(told.bytes()),
            Ending::Live(_) => false,
        }
    }
}

/// The tables of one session.
pub(crate) struct Tables {
    source: Source,
    last_run: u32,
    /// Runs that have not ended.
    unfinished: FxHashSet<u32>,
    /// Runs among them that nobody reads any more: they are released when they have ended.
    orphan_runs: FxHashSet<u32>,
    /// Calls that have not ended and whose future is gone.
    orphan_calls: FxHashSet<u32>,
    calls_unfinished: u64,
    /// Keys of calls that are not forgotten.
    call_keys: FxHashMap<u32, Box<str>>,
    /// Refs to results of runs.
    refs: FxHashMap<(u32, u32), u32>,
    /// Where blocks are counted, if not by the machine.
    memory: Option<Arc<Memory>>,
    /// Endings that left the tables: dropped by whoever holds the interpreter lock.
    discarded: Vec<Ending>,
}

enum Source {
    Broker(Box<Client>),
    Local(Live),
}

impl Tables {
    /// The tables of a session with a broker.
    pub(crate) fn of_broker(machine: Client) -> Self {
        Self::new(Source::Broker(Box::new(machine)))
    }

    /// The tables of a session with this process.
    pub(crate) fn local() -> Self {
        Self::new(Source::Local(Live::default()))
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            last_run: CALLS,
            unfinished: FxHashSet::default(),
            orphan_runs: FxHashSet::default(),
            orphan_calls: FxHashSet::default(),
            calls_unfinished: 0,
            call_keys: FxHashMap::default(),
            refs: FxHashMap::default(),
            memory: None,
            discarded: Vec::new(),
        }
    }

    // Commands

    /// The broker's machine, if there is one.
    pub(crate) fn machine(&mut self) -> Option<&mut Client> {
        match &mut self.source {
            Source::Broker(machine) => Some(machine),
            Source::Local(_) => None,
        }
    }

    /// The table of a local session, if it is one.
    pub(crate) fn live(&mut self) -> Option<&mut Live> {
        match &mut self.source {
            Source::Broker(_) => None,
            Source::Local(live) => Some(live),
        }
    }

    /// Has blocks counted by the memory of the process.
    pub(crate) fn set_memory(&mut self, memory: &Arc<Memory>) {
        self.memory = Some(Arc::clone(memory));
    }

    /// The number of a run of which nothing will be told.
    pub(crate) fn number_run(&mut self) -> u32 {
        self.last_run += 1;
        self.last_run
    }

    /// Opens the table of a new run and returns its number.
    pub(crate) fn open_run(&mut self, tasks: u32) -> u32 {
        let run = self.number_run();
        match &mut self.source {
            Source::Broker(machine) => machine.open_run(run, tasks),
            Source::Local(live) => live.open_run(run, tasks),
        }
        self.unfinished.insert(run);
        run
    }

    /// Opens a row for a single call, which goes by its own key or by `name-index`; returns index and key.
    pub(crate) fn open_call(&mut self, name: &str, key: Option<&str>) -> Option<(u32, String)> {
        let index = match &mut self.source {
            Source::Broker(machine) => machine.open_call(),
            Source::Local(live) => live.open_call(),
        }?;
        self.calls_unfinished += 1;
        let key = key.map_or_else(|| format!("{name}-{index}"), str::to_owned);
        self.call_keys.insert(index, key.clone().into_boxed_str());
        Some((index, key))
    }

    /// Enters a value as the result of a call that was opened for it.
    pub(crate) fn put(&mut self, index: u32, value: &[u8]) {
        if let Source::Broker(machine) = &mut self.source {
            let count = |count: fn(&mut Blocks, &[u8])| {
                self.memory.as_ref().map(|memory| memory.with_blocks(|blocks| count(blocks, value)));
            };
            // They are counted before the value leaves.
            count(Blocks::publish_cited);
            machine.put(index, value);
            count(Blocks::unhold_cited);
            self.calls_unfinished -= 1;
        }
    }

    /// Bytes of such values that are held and lie in frames.
    pub(crate) fn put_bytes(&self) -> usize {
        match &self.source {
            Source::Broker(machine) => machine.put_bytes(),
            Source::Local(_) => 0,
        }
    }

    /// Adds a holder to a result.
    pub(crate) fn hold(&mut self, run: u32, index: u32) {
        *self.refs.entry((run, index)).or_default() += 1;
        match &mut self.source {
            Source::Broker(machine) => machine.hold(run, index),
            Source::Local(live) => live.hold(run, index),
        }
    }

    /// Removes a holder that [`Tables::hold`] added, or the one that a call has from its start.
    pub(crate) fn unhold(&mut self, run: u32, index: u32) {
        if run == CALLS && !self.has_ended(CALLS, index) && !self.is_over() {
            // The session's end waits for it still, and only what is in the table is heard of.
            self.orphan_calls.insert(index);
            return;
        }
        if run == CALLS {
            self.call_keys.remove(&index);
        }
        if let Entry::Occupied(mut refs) = self.refs.entry((run, index)) {
            *refs.get_mut() -= 1;
            if *refs.get() == 0 {
                refs.remove();
            }
        }
        match &mut self.source {
            Source::Broker(machine) if run == CALLS => machine.forget_call(index),
            Source::Broker(machine) => machine.unhold(run, index),
            Source::Local(live) if run == CALLS => self.discarded.extend(live.forget_call(index).map(Ending::Live)),
            Source::Local(live) => live.unhold(run, index),
        }
    }

    /// Lets go of one result that a run keeps. While refs hold it, it is let go of with the run.
    pub(crate) fn release_one(&mut self, run: u32, index: u32) {
        if !self.refs.contains_key(&(run, index)) {
            match &mut self.source {
                Source::Broker(machine) => machine.unhold(run, index),
                Source::Local(live) => live.release_one(run, index),
            }
        }
        self.forget_value(run, index);
    }

    /// Lets go of all that a run keeps: at once, or when it has ended.
    pub(crate) fn release(&mut self, run: u32) {
        if self.unfinished.contains(&run) && !self.is_over() {
            self.orphan_runs.insert(run);
            return;
        }
        match &mut self.source {
            Source::Broker(machine) => machine.release(run),
            Source::Local(live) => self.discarded.extend(live.release(run).map(Ending::Live)),
        }
    }

    /// Whether the session with a broker is over and no result is left to be read.
    pub(crate) fn is_spent(&self) -> bool {
        match &self.source {
            Source::Broker(machine) if self.is_over() => {
                let statistics = machine.statistics();
                statistics.runs_open + statistics.calls_open == 0
            }
            _ => false,
        }
    }

    // Events

    /// Applies a frame. One that breaks the protocol ends the session, which is seen by [`Tables::farewell`].
    pub(crate) fn handle_frame(&mut self, frame: Vec<u8>) {
        if let Source::Broker(machine) = &mut self.source {
            let _ = machine.handle_frame(frame);
        }
    }

    /// Notes that nothing more will come.
    pub(crate) fn note_disconnect(&mut self) {
        match &mut self.source {
            Source::Broker(machine) => machine.handle_disconnect(),
            Source::Local(live) => live.close(),
        }
    }

    /// Notes the end of a call, once.
    pub(crate) fn note_call_end(&mut self, index: u32) {
        self.calls_unfinished -= 1;
        if self.orphan_calls.remove(&index) {
            self.unhold(CALLS, index);
        }
    }

    /// Follows up what frames or tasks have changed.
    pub(crate) fn tidy(&mut self) {
        let Self { source, unfinished, .. } = self;
        unfinished.retain(|&run| !source.has_finished(run));
        let ended: Vec<u32> = self.orphan_runs.iter().copied().filter(|run| !self.unfinished.contains(run)).collect();
        for run in ended {
            self.orphan_runs.remove(&run);
            self.release(run);
        }
    }

    /// How urgent it is to look for garbage that keeps shared memory.
    pub(crate) fn garbage_due(&self) -> u8 {
        match &self.source {
            Source::Broker(machine) => machine.garbage_due(),
            Source::Local(_) => 0,
        }
    }

    /// The next call that has ended, each once.
    pub(crate) fn poll_ended_call(&mut self) -> Option<u32> {
        match &mut self.source {
            Source::Broker(machine) => machine.poll_ended_call(),
            Source::Local(live) => live.poll_ended_call(),
        }
    }

    /// The next frame to send.
    pub(crate) fn poll_frame(&mut self) -> Option<Vec<u8>> {
        self.machine()?.poll_frame()
    }

    /// The next lines that a task wrote.
    pub(crate) fn poll_log(&mut self) -> Option<LogLines> {
        self.machine()?.poll_log()
    }

    /// Nothing more will come: the lines that have no end get one.
    pub(crate) fn finish_log(&mut self) {
        if let Some(machine) = self.machine() {
            machine.finish_log();
        }
    }

    /// What a task has written; `None` if its run was released.
    pub(crate) fn log(&mut self, run: u32, index: u32) -> Option<TaskLog> {
        self.knows(run).then(|| self.machine()?.task_log(run, index).cloned()).map(Option::unwrap_or_default)
    }

    /// Bytes of such lines that were dropped because nobody took them.
    pub(crate) fn log_bytes_dropped(&mut self) -> u64 {
        self.machine().map_or(0, |machine| machine.statistics().log_bytes_dropped)
    }

    /// The answer to a question to the broker, or that there will be none.
    pub(crate) fn poll_reply(&mut self, number: u64) -> Option<Option<Reply>> {
        let over = self.is_over();
        let reply = self.machine()?.take_reply(number);
        (reply.is_some() || over).then_some(reply)
    }

    /// What left the tables since the last call; to be dropped outside the lock.
    pub(crate) fn take_discarded(&mut self) -> Vec<Ending> {
        std::mem::take(&mut self.discarded)
    }

    // Looks

    /// The key of a call.
    pub(crate) fn call_key(&self, index: u32) -> Option<String> {
        self.call_keys.get(&index).map(|key| key.to_string())
    }

    /// Whether a task is known to have ended.
    pub(crate) fn has_ended(&self, run: u32, index: u32) -> bool {
        match &self.source {
            Source::Broker(machine) => machine.has_ended(run, index),
            Source::Local(live) => live.has_ended(run, index),
        }
    }

    /// Whether every task of a run has ended.
    pub(crate) fn has_finished(&self, run: u32) -> bool {
        self.source.has_finished(run)
    }

    /// How a task ended, and whether it is there to be read.
    pub(crate) fn peek(&self, py: Python<'_>, run: u32, index: u32) -> Option<Ending> {
        match &self.source {
            Source::Broker(machine) => machine.peek(run, index).map(Ending::Told),
            Source::Local(live) => live.peek(py, run, index).map(Ending::Live),
        }
    }

    /// The value of a task that returned a small atom. It stays in the table: its frame goes with the run.
    pub(crate) fn peek_atom(&self, py: Python<'_>, run: u32, index: u32) -> Option<Py<PyAny>> {
        match &self.source {
            Source::Broker(machine) => {
                let ending = machine.peek(run, index)?;
                (ending.outcome() == Outcome::Done).then(|| decode_small_atom(py, ending.bytes())).flatten()
            }
            Source::Local(_) => None,
        }
    }

    /// Lets the table of a run drop what was read; the task counts as ended still.
    pub(crate) fn forget_value(&mut self, run: u32, index: u32) {
        let ending = match &mut self.source {
            Source::Broker(machine) => machine.take_value(run, index).map(Ending::Told),
            Source::Local(live) => live.take(run, index).map(Ending::Live),
        };
        self.discarded.extend(ending);
    }

    /// Indices of a run's tasks in the order in which their endings came, from a position on.
    pub(crate) fn arrivals(&self, run: u32, from: usize) -> &[u32] {
        match &self.source {
            Source::Broker(machine) => machine.arrivals(run, from),
            Source::Local(live) => live.arrivals(run, from),
        }
    }

    /// Whether anything is known of a run: it was not released.
    pub(crate) fn knows(&self, run: u32) -> bool {
        match &self.source {
            Source::Broker(machine) => machine.progress(run).is_some(),
            Source::Local(live) => live.knows(run),
        }
    }

    /// Tasks of a run by how they ended: (all, ended, failed, skipped, cancelled), as far as told.
    pub(crate) fn counts(&self, run: u32) -> Option<(u64, u64, u64, u64, u64)> {
        match &self.source {
            Source::Broker(machine) => {
                let progress = machine.progress(run)?;
                Some((progress.tasks, progress.ended, progress.failed, progress.skipped, progress.cancelled))
            }
            Source::Local(_) => None,
        }
    }

    /// Runs and calls that have not ended.
    pub(crate) fn unfinished(&self) -> (Vec<u32>, u64) {
        (self.unfinished.iter().copied().collect(), self.calls_unfinished)
    }

    /// Whether the session is over.
    pub(crate) fn is_over(&self) -> bool {
        match &self.source {
            Source::Broker(machine) => machine.session().is_over(),
            Source::Local(live) => live.is_closed(),
        }
    }

    /// Why the session is over, if it is.
    pub(crate) fn farewell(&self) -> Option<Farewell> {
        match &self.source {
            Source::Broker(machine) => match machine.session() {
                Standing::Over(farewell) => Some(farewell.clone()),
                _ => None,
            },
            Source::Local(live) => live.is_closed().then(super::live::farewell),
        }
    }
}

impl Source {
    fn has_finished(&self, run: u32) -> bool {
        match self {
            Source::Broker(machine) => machine.progress(run).is_none_or(|progress| progress.finished),
            Source::Local(live) => live.has_finished(run),
        }
    }
}

/// The longest encoding that is read under the lock.
const SMALL_BYTES: usize = 64;

/// The last tag of an atom in the table of [`crate::codec`].
const LAST_ATOM: u8 = 8;

/// Decodes an exact immutable atom. That runs no Python code, not even the collector's, so it may be done under a lock.
fn decode_small_atom(py: Python<'_>, bytes: &[u8]) -> Option<Py<PyAny>> {
    let is_atom = bytes.len() <= SMALL_BYTES && bytes.first().is_some_and(|&tag| tag <= LAST_ATOM);
    if is_atom { decode_value(py, bytes, None).ok() } else { None }
}
