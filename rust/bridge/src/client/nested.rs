//! Sessions of tasks: all tasks of a worker's process share one, and each has a client of its own in it.
use std::io;
use std::sync::{Arc, Mutex};

use headrace_protocol::client::Client;
use headrace_runtime::inproc::Interest;
use headrace_wire::WHOLE_RUN;
use pyo3::prelude::*;

use super::functions::Callees;
use super::link::Link;
use super::session::{Deadline, SLICE, Session, State, drain};
use super::submit::Submitting;
use super::tables::Tables;
use super::{ClientCore, failures};
use crate::worker::{Broken, Host, Waiting};

/// The session of all tasks of this process.
pub(crate) struct Nested {
    session: Arc<Session>,
    submitting: Arc<Mutex<Submitting>>,
}

/// Bytes of short values that tasks may put before further ones lie in shared memory.
const PUT_BYTES_MAX: usize = 64 << 20;

impl Nested {
    pub(crate) fn open(host: Host) -> io::Result<Self> {
        let machine = Client::guest(env!("CARGO_PKG_VERSION"));
        let memory = Arc::clone(host.memory());
        let end = host.open()?;
        let mut tables = Tables::of_broker(machine);
        tables.set_memory(&memory);
        let session = Session::with_broker(tables, Link::hosted(end, host));
        let _ = session.memory.set(memory);
        Ok(Self { session: Arc::new(session), submitting: Arc::default() })
    }

    /// A client for the task with this slot and attempt.
    pub(crate) fn client(&self, parent: (u32, u32)) -> ClientCore {
        ClientCore {
            session: Arc::clone(&self.session),
            workers: 0,
            offer: None,
            parent,
            submitting: Arc::clone(&self.submitting),
            callees: Callees::default(),
            put_bytes_max: PUT_BYTES_MAX,
            broker: None,
            place: Default::default(),
            is_local: false,
        }
    }
}

/// The run, or the task of it, that somebody waits for.
pub(super) fn place_of(interest: Interest) -> (Option<u32>, Option<u32>) {
    match interest {
        Interest::Any => (None, None),
        Interest::Run { run } | Interest::RunEnd { run } => (Some(run), None),
        Interest::Task { run, index } => (Some(run), Some(index)),
    }
}

impl Session {
    /// Has it known that another thread than the one that runs tasks waits within a task. That which waits for anything does
    /// so on behalf of an event loop or the like, for what is watched.
    pub(super) fn begin_wait_aside(&self, interest: Option<Interest>) -> Option<Waiting<'_>> {
        let host = self.host()?;
        let (run, index) = match interest? {
            Interest::Any => self.lock().watches.place().map(|(run, index)| (Some(run), index))?,
            interest => place_of(interest),
        };
        host.begin_wait_aside(run.unwrap_or(WHOLE_RUN), index.unwrap_or(WHOLE_RUN))
    }

    /// [`Session::wait`] on the main thread of a worker's process, within a task. What the task waits for may run here
    /// meanwhile.
    pub(super) fn wait_within<R: Send>(
        &self,
        py: Python<'_>,
        link: &Link,
        host: &Host,
        interest: Option<Interest>,
        deadline: Deadline,
        mut look: impl FnMut(&mut State) -> Option<R> + Send,
    ) -> PyResult<Option<R>> {
        let mut drain_and_look = || {
            let mut state = self.lock();
            drain(link, &mut state);
            (look(&mut state), link.received())
        };
        let (mut found, mut received) = drain_and_look();
        if found.is_some() || deadline.left().is_some_and(|left| left.is_zero()) {
            return Ok(found);
        }
        let _waiting = interest
            .map(place_of)
            .map(|(run, index)| host.begin_wait(run.unwrap_or(WHOLE_RUN), index.unwrap_or(WHOLE_RUN)));
        loop {
            let left = deadline.left();
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            self.detach(py, || host.sleep(|| link.has_come(received), slice))?;
            (found, received) = drain_and_look();
            self.drop_discarded();
            if found.is_some() || left.is_some_and(|left| left.is_zero()) {
                return Ok(found);
            }
            py.check_signals()?;
            host.collect_if_due(py)?;
            match host.broken() {
                Some(Broken::Standstill(text)) => {
                    let text = format!("nothing can go on: {text}");
                    return Err(failures::error(py, "Stalled", &text));
                }
                Some(Broken::Over) => self.command(Tables::note_disconnect),
                None => {}
            }
            if host.run_nested(py) {
                (found, received) = drain_and_look();
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
    }
}
