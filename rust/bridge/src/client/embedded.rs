//! What runs in this process for its clients: brokers, and connections to others.
//!
//! An interrupt may come between any two steps of Python, also between the start of a broker and the first line that knows it,
//! or within the end of its client. Nobody would wait for such a broker, and its directory would stay. So all are known here,
//! and the end of the interpreter ends those that are left.
use std::sync::{Arc, Mutex, PoisonError, Weak};

use headrace_protocol::client::Client;
use pyo3::prelude::*;

use super::session::{Session, generation};

static RUNNING: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

struct Entry {
    /// How often this process was forked when the broker was started: a child has not got its thread.
    generation: u32,
    session: Weak<Session>,
    broker: Broker,
}

/// Waits for the end of a thread.
type Join = Box<dyn FnOnce() + Send>;

/// A broker, or a connection to one, until somebody waits for its end.
#[derive(Clone)]
pub(super) struct Broker(Arc<Mutex<Option<Join>>>);

impl Broker {
    pub(super) fn new(join: Join, session: &Arc<Session>) -> Self {
        let broker = Self(Arc::new(Mutex::new(Some(join))));
        let entry = Entry { generation: generation(), session: Arc::downgrade(session), broker: broker.clone() };
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        broker
    }

    /// Has the end of the broker waited for, whose client has left; false if somebody has done so.
    pub(super) fn join(&self, wait: impl FnOnce(Join)) -> bool {
        let join = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(join) = join else { return false };
        wait(join);
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|entry| !Arc::ptr_eq(&entry.broker.0, &self.0));
        true
    }
}

/// Ends every broker that still runs; called at the interpreter's end.
#[pyfunction]
pub(crate) fn end_brokers(py: Python<'_>) {
    let left = std::mem::take(&mut *RUNNING.lock().unwrap_or_else(PoisonError::into_inner));
    let ours: Vec<Entry> = left.into_iter().filter(|entry| entry.generation == generation()).collect();
    for session in ours.iter().filter_map(|entry| entry.session.upgrade()) {
        session.command(|tables| tables.machine().map(Client::close));
    }
    for entry in ours {
        entry.broker.join(|join| py.detach(join));
    }
}
