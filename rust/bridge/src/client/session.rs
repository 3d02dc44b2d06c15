//! One session: the tables of what has ended, and how threads wait for it. Any number of threads may wait at once, each for
//! something else; whoever looks drains the channel for all.
//!
//! `state` is locked for moments, and Python never runs meanwhile: a finalizer could want the same lock. So whatever leaves
//! the tables is dropped outside.
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use headrace_protocol::client::{CALLS, Client, Farewell, LogLines};
use headrace_protocol::store::Blocks;
use headrace_runtime::inproc::{Interest, Waited};
use headrace_runtime::segments::Segments;
use headrace_wire::cites;
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use super::failures::error;
use super::link::Link;
use super::nested::place_of;
use super::seat::ClientSeat;
use super::tables::{Ending, Tables};
use super::watches::Watches;
use crate::garbage;
use crate::graph::Graph;
use crate::inline_limit::INLINE_BYTES_MAX;
use crate::memory::Memory;
use crate::worker::Host;

/// Longest sleep before Python gets a chance to handle signals that another thread's sleep has swallowed.
pub(super) const SLICE: Duration = Duration::from_millis(100);

/// Sessions so far. Refs and futures carry the number, so that no other client takes them.
static SESSIONS: AtomicU64 = AtomicU64::new(0);

/// How often this process was forked off. A plain count that only the thread that forked ever writes, before any other
/// exists; so no ordering is needed.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Makes every client of the parent unusable here; called in a forked child.
#[pyfunction]
pub(crate) fn forget_parent() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// How often this process was forked off.
pub(super) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// A session.
pub(crate) struct Session {
    /// Number of the session in this process.
    pub(crate) number: u64,
    generation: u32,
    state: Mutex<State>,
    /// The graphs of runs that somebody holds, for the keys of their tasks.
    graphs: Mutex<FxHashMap<u32, Py<Graph>>>,
    /// Threads that are in native code without the interpreter lock, and will want it back. Relaxed: the count is only
    /// looked at by a thread that asks again and again.
    away: AtomicUsize,
    source: Source,
    /// Shared memory; none in a local session.
    pub(super) memory: OnceLock<Arc<Memory>>,
    /// Asked now and then by whoever waits without end in a local session: it raises where nothing can go on.
    stall_check: OnceLock<Py<PyAny>>,
    /// Runs a task on a thread that waits within one.
    pub(super) helper: OnceLock<Py<PyAny>>,
}

/// Where news come from.
enum Source {
    /// Frames of a broker.
    Broker(Link),
    /// Calls of `settle`, from threads of this process.
    Local(Condvar),
}

/// What the lock guards.
pub(crate) struct State {
    pub(crate) tables: Tables,
    pub(crate) watches: Watches,
    /// Maps of shared memory; none in a local session.
    segments: Option<Arc<Segments>>,
}

/// A time to stop waiting; `None` is never.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// So many seconds from now. Negative counts as zero; what is too long to be counted is for ever.
    pub(crate) fn after(timeout_s: Option<f64>) -> Self {
        let timeout = timeout_s.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    pub(super) fn left(self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()))
    }
}

impl Session {
    /// A session with a broker.
    pub(crate) fn with_broker(tables: Tables, link: Link) -> Self {
        Self::new(tables, Source::Broker(link))
    }

    /// A session with this process.
    pub(crate) fn local(tables: Tables) -> Self {
        Self::new(tables, Source::Local(Condvar::new()))
    }

    fn new(tables: Tables, source: Source) -> Self {
        Self {
            number: SESSIONS.fetch_add(1, Ordering::Relaxed) + 1,
            generation: generation(),
            state: Mutex::new(State { tables, watches: Watches::default(), segments: None }),
            graphs: Mutex::default(),
            away: AtomicUsize::new(0),
            source,
            memory: OnceLock::new(),
            stall_check: OnceLock::new(),
            helper: OnceLock::new(),
        }
    }

    /// Has waits without end ask `check(run, index)` now and then; the index is `None` where a whole run is waited for.
    pub(crate) fn set_stall_check(&self, check: Py<PyAny>) {
        let _ = self.stall_check.set(check);
    }

    /// Whether this is a forked child, where locks may be held by threads that do not exist.
    pub(crate) fn is_forked(&self) -> bool {
        self.generation != generation()
    }

    /// An error in a forked child.
    pub(crate) fn check_process(&self, py: Python<'_>) -> PyResult<()> {
        if !self.is_forked() {
            return Ok(());
        }
        let text = "this client belongs to the parent process; make a new client after fork, or pass values instead";
        Err(error(py, "ForkedClientError", text))
    }

    /// The tables. Python must not run while the guard lives.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens shared memory, for a session with a broker on this machine.
    pub(crate) fn open_memory(self: &Arc<Self>, segments: &Arc<Segments>) {
        self.lock().segments = Some(Arc::clone(segments));
        let seat = ClientSeat { session: Arc::downgrade(self) };
        let _ = self.memory.set(Arc::new(Memory::new(seat, Arc::clone(segments), INLINE_BYTES_MAX)));
    }

    /// The shared memory of this session.
    pub(crate) fn memory(&self) -> Option<&Arc<Memory>> {
        self.memory.get()
    }

    /// The same, if values shall lie in it.
    pub(super) fn memory_for_values(&self) -> Option<&Arc<Memory>> {
        self.memory.get().and_then(Memory::for_values)
    }

    /// How a task ended, if it is there to be read. Blocks that its value cites are held until [`Session::settle_peek`].
    pub(crate) fn peek(&self, py: Python<'_>, run: u32, index: u32) -> Option<Ending> {
        let mut state = self.lock();
        let ending = state.tables.peek(py, run, index)?;
        if let Ending::Told(told) = &ending
            && cites(told.bytes())
        {
            self.with_blocks(&mut state.tables, |blocks| blocks.hold_cited(told.bytes()));
        }
        Some(ending)
    }

    /// A value that was peeked at is decoded.
    pub(crate) fn settle_peek(&self, bytes: &[u8]) {
        if cites(bytes) {
            self.command(|tables| self.with_blocks(tables, |blocks| blocks.unhold_cited(bytes)));
        }
    }

    /// The worker's process over whose connection it speaks.
    pub(super) fn host(&self) -> Option<&Host> {
        if let Source::Broker(link) = &self.source { link.host() } else { None }
    }

    /// Whether frames go through a socket.
    pub(super) fn is_far(&self) -> bool {
        matches!(&self.source, Source::Broker(link) if link.is_far())
    }

    /// Looks at the blocks of this process, which are not the session's own where it is a guest.
    fn with_blocks(&self, tables: &mut Tables, look: impl FnOnce(&mut Blocks)) {
        match (self.host(), self.memory(), tables.machine()) {
            (Some(_), Some(memory), _) => drop(memory.with_blocks(look)),
            (.., Some(machine)) => machine.with_blocks(look),
            (.., None) => {}
        }
    }

    /// Changes the tables, and sends what that gives to send.
    pub(crate) fn command<R>(&self, change: impl FnOnce(&mut Tables) -> R) -> R {
        let mut state = self.lock();
        let answer = change(&mut state.tables);
        self.flush(&mut state.tables);
        if let (true, Some(segments)) = (state.tables.is_spent(), &state.segments) {
            segments.forget();
        }
        answer
    }

    /// Sends frames that were encoded outside, behind everything that the tables have to send.
    pub(crate) fn send(&self, state: &mut State, frames: Vec<Vec<u8>>) {
        self.flush(&mut state.tables);
        if let Source::Broker(end) = &self.source {
            // A broker that is gone is noticed by whoever waits.
            let _ = end.send_all(frames);
        }
    }

    /// Changes the tables of a local session, and wakes whoever waits.
    pub(crate) fn settle<R>(&self, change: impl FnOnce(&mut Tables) -> R) -> R {
        let mut state = self.lock();
        let answer = change(&mut state.tables);
        let State { tables, watches, .. } = &mut *state;
        tables.tidy();
        watches.look(tables);
        if let Source::Local(changed) = &self.source {
            changed.notify_all();
        }
        answer
    }

    /// Looks at the tables until `look` finds something, sleeping without the interpreter lock; `None` at the deadline.
    ///
    /// `interest` is what a frame must bring to end the sleep early: the less, the fewer wake-ups. `look` must not run
    /// Python.
    pub(crate) fn wait<R: Send>(
        &self,
        py: Python<'_>,
        interest: Interest,
        deadline: Deadline,
        look: impl FnMut(&mut State) -> Option<R> + Send,
    ) -> PyResult<Option<R>> {
        self.wait_for(py, Some(interest), deadline, look)
    }

    /// The same; without an interest, for an answer of the broker, which comes at once.
    pub(crate) fn wait_for<R: Send>(
        &self,
        py: Python<'_>,
        interest: Option<Interest>,
        deadline: Deadline,
        mut look: impl FnMut(&mut State) -> Option<R> + Send,
    ) -> PyResult<Option<R>> {
        self.check_process(py)?;
        if let Some(found) = look(&mut self.lock()) {
            return Ok(Some(found));
        }
        if let Source::Broker(link) = &self.source
            && let Some(host) = link.host().filter(|host| host.is_here())
        {
            return self.wait_within(py, link, host, interest, deadline, look);
        }
        let _aside = self.begin_wait_aside(interest);
        let interest = interest.unwrap_or(Interest::RunEnd { run: CALLS });
        let mut helper = self.helper.get();
        loop {
            if let Some(help) = helper {
                match help.call0(py)?.extract::<Option<bool>>(py)? {
                    Some(true) => {
                        if let Some(found) = look(&mut self.lock()) {
                            return Ok(Some(found));
                        }
                        if deadline.left().is_none_or(|left| !left.is_zero()) {
                            continue;
                        }
                    }
                    Some(false) => {}
                    None => helper = None,
                }
            }
            let left = deadline.left();
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            let found = self.detach(py, || self.sleep(interest, slice, &mut look));
            self.drop_discarded();
            self.collect_if_due(py)?;
            if found.is_some() || left.is_some_and(|left| left.is_zero()) {
                return Ok(found);
            }
            py.check_signals()?;
            if let (None, Some(check)) = (left, self.stall_check.get()) {
                check.call1(py, place_of(interest))?;
            }
        }
    }

    /// Runs without the interpreter lock.
    pub(crate) fn detach<R: Send>(&self, py: Python<'_>, run: impl FnOnce() -> R + Send) -> R {
        struct Away<'a>(&'a AtomicUsize);
        impl Drop for Away<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.away.fetch_add(1, Ordering::Relaxed);
        let _away = Away(&self.away);
        py.detach(run)
    }

    /// Waits until no other thread sleeps on behalf of this session, which must be over, and lets those that did return
    /// to their callers; at most `timeout`. The interpreter's end stops threads that ask for its lock, and a native frame
    /// does not survive that.
    pub(crate) fn wait_alone(&self, py: Python<'_>, timeout: Duration) {
        /// Time for a thread to raise an error.
        const RETURN: Duration = Duration::from_millis(50);
        let is_alone = || self.away.load(Ordering::Relaxed) == 0;
        let until = Instant::now() + timeout;
        py.detach(|| {
            while !is_alone() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(RETURN);
        });
    }

    /// Drains, looks, sleeps for at most `slice`, and does so again: one step of [`Session::wait`].
    fn sleep<R>(
        &self,
        interest: Interest,
        slice: Duration,
        look: &mut impl FnMut(&mut State) -> Option<R>,
    ) -> Option<R> {
        let mut state = self.lock();
        match &self.source {
            Source::Broker(end) => {
                drain(end, &mut state);
                if let Some(found) = look(&mut state) {
                    return Some(found);
                }
                if slice.is_zero() {
                    return None;
                }
                let received = end.received();
                drop(state);
                let waited = end.wait(interest, received, Some(slice));
                state = self.lock();
                drain(end, &mut state);
                if waited == Waited::Closed {
                    state.tables.note_disconnect();
                    let State { tables, watches, .. } = &mut *state;
                    watches.look(tables);
                }
                look(&mut state)
            }
            Source::Local(changed) => {
                if let Some(found) = look(&mut state) {
                    return Some(found);
                }
                state = changed.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner).0;
                look(&mut state)
            }
        }
    }

    /// Takes in what has arrived, without waiting.
    pub(crate) fn drain(&self, py: Python<'_>) -> PyResult<()> {
        self.check_process(py)?;
        if let Source::Broker(end) = &self.source {
            self.detach(py, || drain(end, &mut self.lock()));
        }
        Ok(())
    }

    /// Sleeps until tasks have written lines; `None` once the broker is gone and everything was taken. Besides, the bytes
    /// that were dropped since the start because nobody took them.
    pub(crate) fn wait_logs(&self, py: Python<'_>) -> (Option<Vec<LogLines>>, u64) {
        // No ending of a single call wakes who waits for the end of their run, which never comes: only lines, and what is
        // rare, do.
        let interest = Interest::RunEnd { run: CALLS };
        let Source::Broker(end) = &self.source else { return (None, 0) };
        // Garbage is better looked for by a thread of the user's, so only if none is here.
        let is_alone =
            || self.away.load(Ordering::Relaxed) == 1 && !self.memory.get().is_some_and(|memory| memory.is_growing());
        loop {
            let logs = self.detach(py, || {
                loop {
                    let (lines, dropped, received) = {
                        let mut state = self.lock();
                        drain(end, &mut state);
                        if state.tables.garbage_due() > 0 && is_alone() {
                            return None;
                        }
                        let lines: Vec<LogLines> = std::iter::from_fn(|| state.tables.poll_log()).collect();
                        (lines, state.tables.log_bytes_dropped(), end.received())
                    };
                    if !lines.is_empty() {
                        return Some((Some(lines), dropped));
                    }
                    if end.wait(interest, received, None) == Waited::Closed {
                        let mut state = self.lock();
                        state.tables.finish_log();
                        let lines: Vec<LogLines> = std::iter::from_fn(|| state.tables.poll_log()).collect();
                        return Some(((!lines.is_empty()).then_some(lines), dropped));
                    }
                }
            });
            self.drop_discarded();
            match logs {
                Some(logs) => return logs,
                None => self.collect_if_due(py).unwrap_or_else(|error| error.write_unraisable(py, None)),
            }
        }
    }

    /// Remembers the graph of a run.
    pub(crate) fn note_graph(&self, run: u32, graph: Py<Graph>) {
        self.graphs.lock().unwrap_or_else(PoisonError::into_inner).insert(run, graph);
    }

    /// Forgets the graph of a run; the answer is to be dropped outside any lock.
    #[must_use]
    pub(crate) fn forget_graph(&self, run: u32) -> Option<Py<Graph>> {
        self.graphs.lock().unwrap_or_else(PoisonError::into_inner).remove(&run)
    }

    /// The key of a task of any run, if somebody holds the run or the call.
    pub(crate) fn key_of(&self, run: u32, index: u32) -> Option<String> {
        if run == CALLS {
            return self.lock().tables.call_key(index);
        }
        let graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        graphs.get(&run).map(|graph| graph.get().key_of(index))
    }

    /// Drops what left the tables, now that no lock is held: it may be a Python object with a finalizer.
    pub(crate) fn drop_discarded(&self) {
        let discarded = self.lock().tables.take_discarded();
        drop(discarded);
    }

    /// Looks for garbage that keeps memory, if somebody waits for some.
    pub(crate) fn collect_if_due(&self, py: Python<'_>) -> PyResult<()> {
        let urgency = self.lock().tables.garbage_due();
        if urgency == 0 {
            return Ok(());
        }
        let done = garbage::collect_as_urgent(py, urgency);
        self.command(|tables| tables.machine().map(|machine| machine.note_collected(urgency)));
        done.map(drop)
    }

    /// Why nothing more will come, if so.
    pub(crate) fn farewell(&self) -> Option<Farewell> {
        self.lock().tables.farewell()
    }

    /// Takes in what has arrived; the interpreter lock may be held or not.
    pub(super) fn listen(&self) {
        if let Source::Broker(link) = &self.source {
            drain(link, &mut self.lock());
        }
    }

    fn flush(&self, tables: &mut Tables) {
        if let Source::Broker(end) = &self.source {
            while let Some(frame) = tables.poll_frame() {
                let _ = end.send(frame);
            }
        }
    }
}

/// Applies every frame that has arrived.
pub(super) fn drain(end: &Link, state: &mut State) {
    let mut came = false;
    while let Some(frame) = end.try_recv() {
        state.tables.handle_frame(frame);
        came = true;
    }
    if came {
        let State { tables, watches, segments } = &mut *state;
        tables.tidy();
        watches.look(tables);
        while let Some((segment, range)) = tables.machine().and_then(Client::poll_punch) {
            if let Some(segments) = segments {
                segments.punch(segment, range);
            }
        }
        while let Some(frame) = tables.poll_frame() {
            let _ = end.send(frame);
        }
    }
}
