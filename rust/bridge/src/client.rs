//! The native half of a client: one session, with a broker or with this process.
mod again;
mod answers;
mod embedded;
mod failures;
mod functions;
mod keep;
mod link;
mod live;
mod nested;
mod parts;
mod reference;
mod remote;
mod results;
mod run;
mod seat;
mod session;
mod submit;
mod tables;
mod watches;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headrace_protocol::client::{CALLS, Client, Reply, Side};
use headrace_runtime::broker::{BrokerConfig, Launch};
use headrace_runtime::inproc::Interest;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::graph::Graph;
use crate::offer::Offer;
use answers::{StateParts, WhyParts, state_parts, why_parts};
use embedded::Broker;
use failures::error;
use functions::Callees;
use link::Link;
use live::{HoldChange, LiveEnding};
use remote::NetworkParts;
use session::{Deadline, Session};
use submit::{Kept, Place, Submitting};
use tables::Tables;
use watches::Event;

/// Short values that are put lie in frames up to this part of the budget, for which nobody asks the broker; then in blocks, for
/// which somebody does.
const PUTS_A_BUDGET: u64 = 16;

/// What a task left: (value, None) or (None, exception).
type Left = (Option<Py<PyAny>>, Option<Py<PyAny>>);

pub(crate) use embedded::end_brokers;
pub(crate) use nested::Nested;
pub(crate) use reference::ExternalRef;
pub(crate) use remote::{connect_client, drain_broker, farewell_of, peer_keys, python_version, wait_over};
pub(crate) use run::RunCore;
pub(crate) use session::forget_parent;

/// A session of a client.
#[pyclass(frozen, module = "headrace._core")]
pub(crate) struct ClientCore {
    pub(crate) session: Arc<Session>,
    workers: u32,
    /// What there is for its tasks; a task that submits some does not know.
    offer: Option<Offer>,
    /// Slot and attempt of that task.
    parent: (u32, u32),
    submitting: Arc<Mutex<Submitting>>,
    callees: Callees,
    /// Short values that were put lie in frames as long as all together have no more bytes.
    put_bytes_max: usize,
    /// The embedded broker, until it was joined.
    broker: Option<Broker>,
    /// Where a broker of this process listens: its directory, and in the network.
    place: (PathBuf, Option<String>),
    is_local: bool,
}

/// Lines that tasks wrote, as (worker, stream, text).
type LineParts<'py> = Vec<(u32, u8, Bound<'py, PyBytes>)>;

#[pymethods]
impl ClientCore {
    /// Starts an embedded broker with its workers, and a session with it.
    #[staticmethod]
    #[pyo3(signature = (
        *, workers, spares, offer, worker_environments, program, arguments, environment, boot, libzmq, crash_limit, oom_limit,
        tasks_max, result_bytes_max, store_limit, spill_dir, spill_limit, grace_s, is_open,
        network, places
    ))]
    #[expect(clippy::too_many_arguments, reason = "they are all keywords of one call")]
    fn embedded(
        py: Python<'_>,
        workers: u32,
        spares: u32,
        offer: Offer,
        worker_environments: Vec<Vec<(OsString, OsString)>>,
        program: PathBuf,
        arguments: Vec<OsString>,
        environment: Vec<(OsString, OsString)>,
        boot: Vec<u8>,
        libzmq: Vec<PathBuf>,
        crash_limit: u8,
        oom_limit: u8,
        tasks_max: Option<u64>,
        result_bytes_max: u64,
        store_limit: u64,
        spill_dir: PathBuf,
        spill_limit: u64,
        grace_s: f64,
        is_open: bool,
        network: Option<NetworkParts>,
        places: u32,
    ) -> PyResult<Self> {
        let mut machine = remote::greet();
        let config = BrokerConfig {
            workers,
            spares,
            offer: (*offer).clone(),
            launch: Launch { program, args: arguments, env: environment, worker_env: worker_environments, boot },
            places,
            libzmq,
            run_dir_base: None,
            crash_limit,
            oom_limit,
            tasks_max: tasks_max.unwrap_or(u64::MAX),
            result_bytes_max,
            store_limit,
            spill_dir,
            spill_limit,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            python: remote::python_version(),
            grace_ns: (grace_s * 1e9) as u64,
            is_open,
            network: network.map(remote::network).transpose()?,
        };
        let started = py.detach(|| headrace_runtime::broker::start(config));
        let (handle, end) = started.map_err(|why| error(py, "InfraError", &why.to_string()))?;
        while let Some(frame) = machine.poll_frame() {
            let _ = end.send(frame);
        }
        let session = Session::with_broker(Tables::of_broker(machine), Link::embedded(end));
        let segments = Arc::clone(handle.segments());
        let place = (handle.run_dir().clone(), handle.endpoint().map(ToOwned::to_owned));
        let join = Box::new(move || handle.join());
        let core = Self::with_broker(session, workers, Some(offer), store_limit / PUTS_A_BUDGET, join);
        let core = Self { place, ..core };
        if !is_open {
            core.session.open_memory(&segments);
        }
        Ok(core)
    }

    /// A session whose tasks this process runs by itself.
    #[staticmethod]
    fn local(workers: u32, offer: Offer) -> Self {
        Self::new(Arc::new(Session::local(Tables::local())), workers, Some(offer), 0, None)
    }

    /// Number of the session in this process.
    #[getter]
    fn session(&self) -> u64 {
        self.session.number
    }

    /// Whether this is a forked child of the process that made the client.
    #[getter]
    fn forked(&self) -> bool {
        self.session.is_forked()
    }

    /// Raises `ForkedClientError` in a forked child.
    fn check_process(&self, py: Python<'_>) -> PyResult<()> {
        self.session.check_process(py)
    }

    /// Submits `fn(*args, **kwargs)` as a single call; the answer is its index among the calls, and its key.
    fn call<'py>(
        &self,
        py: Python<'py>,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
    ) -> PyResult<(u32, String)> {
        self.check_open(py)?;
        submit::submit_call(
            py,
            &self.session,
            &self.submitting,
            &self.callees,
            self.place(),
            function,
            args,
            Some(kwargs),
        )
    }

    /// Submits a graph in the place of the task that has this client; the result of one task of it will be its own.
    fn replace(&self, py: Python<'_>, graph: &Bound<'_, Graph>, result: u32) -> PyResult<()> {
        let kept = Kept { keep: &[result], terms: (0, 0, false), replaces: true };
        submit::submit_graph(py, &self.session, &self.submitting, self.place(), graph.get(), kept).map(drop)
    }

    /// Puts a value where tasks can take it; the answer is its index among the calls, and its key.
    fn put(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<(u32, String)> {
        self.check_open(py)?;
        parts::put(py, &self.session, self.put_bytes_max, value)
    }

    /// Where the broker that this process has started listens: its directory, and its endpoint in the network if it has one.
    #[getter]
    fn listens_at(&self) -> (PathBuf, Option<String>) {
        self.place.clone()
    }

    /// To be called before a fork: what Python sees of shared memory now, a child may see for ever.
    fn note_fork(&self) {
        if let Some(memory) = self.session.memory() {
            memory.note_fork();
        }
    }

    /// Cancels tasks of a run with all that depends on them; `None` is the whole run. Perhaps only those that no worker has got.
    #[pyo3(signature = (run, indices = None, spare_leased = false))]
    fn cancel(&self, py: Python<'_>, run: u32, indices: Option<Vec<u32>>, spare_leased: bool) -> PyResult<()> {
        self.session.check_process(py)?;
        self.session.command(|tables| {
            if let Some(machine) = tables.machine().filter(|machine| !machine.session().is_over()) {
                match &indices {
                    Some(indices) => machine.cancel(run, indices, spare_leased),
                    None => machine.cancel_run(run, spare_leased),
                }
            }
        });
        Ok(())
    }

    /// Why the session has ended, if the client did not end it.
    fn failure(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.session.drain(py)?;
        let farewell = self.session.farewell();
        Ok(farewell.filter(|farewell| farewell.side != Side::Client).map(|farewell| farewell.text))
    }

    /// Numbers of the runs that have not ended, and how many calls have not.
    fn unfinished(&self, py: Python<'_>) -> PyResult<(Vec<u32>, u64)> {
        self.session.drain(py)?;
        Ok(self.session.lock().tables.unfinished())
    }

    /// Waits until every run and every call has ended, or the session is over.
    fn wait_idle(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            let (runs, calls) = self.unfinished(py)?;
            let interest = match runs.first() {
                Some(&run) => Interest::RunEnd { run },
                None if calls > 0 => Interest::Run { run: CALLS },
                None => return Ok(()),
            };
            let over = self.session.wait(py, interest, Deadline::after(None), |state| {
                let (runs_left, calls_left) = state.tables.unfinished();
                let is_over = state.tables.is_over();
                (is_over || runs_left.len() < runs.len() || (runs_left.is_empty() && calls_left == 0))
                    .then_some(is_over)
            })?;
            if over == Some(true) {
                return Ok(());
            }
        }
    }

    /// Asks the broker for the state of a run; `None` if the session is over.
    fn query(&self, py: Python<'_>, run: u32) -> PyResult<Option<StateParts>> {
        self.session.check_process(py)?;
        let reply = self.ask(py, |machine| machine.query(run))?;
        Ok(reply.and_then(|reply| reply.state().map(|state| state_parts(&state))))
    }

    /// Asks the broker where a task is and what it waits for, and maybe for the stacks of its process: the place as its
    /// number on the wire, worker, pid, attempt, milliseconds since it runs, text, stacks. `None` if the session is over.
    fn why(&self, py: Python<'_>, run: u32, index: u32, stacks: bool) -> PyResult<Option<WhyParts>> {
        let reply = self.ask(py, |machine| machine.why(run, index, stacks))?;
        Ok(reply.and_then(|reply| reply.because().map(|because| why_parts(&because))))
    }

    /// Has `wait_watches` tell `number` once something has happened: the end of call `index`; the end of `run` if it is
    /// None; or, given `seen`, more than so many arrivals of `run`. False if it has happened: it will not be told then.
    #[pyo3(signature = (number, run, index = None, seen = None))]
    fn watch(&self, py: Python<'_>, number: u64, run: u32, index: Option<u32>, seen: Option<usize>) -> PyResult<bool> {
        self.session.check_process(py)?;
        let event = match (index, seen) {
            (Some(index), _) => Event::CallEnd(index),
            (None, Some(seen)) => Event::Arrivals { run, seen },
            (None, None) => Event::RunEnd(run),
        };
        let mut state = self.session.lock();
        let session::State { tables, watches, .. } = &mut *state;
        Ok(watches.add(number, event, tables))
    }

    /// Waits for something that is watched; the numbers of the watches, each told once.
    fn wait_watches(&self, py: Python<'_>) -> PyResult<Vec<u64>> {
        let numbers = self.session.wait(py, Interest::Any, Deadline::after(None), |state| state.watches.take())?;
        Ok(numbers.unwrap_or_default())
    }

    /// Tells the broker that the session ends, and waits for nothing: whoever closes several clients tells all first.
    fn leave(&self) {
        if !self.is_local && !self.session.is_forked() {
            self.session.command(|tables| tables.machine().map(Client::close));
        }
    }

    /// Ends the session, and the embedded broker with its workers. May be called twice.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.session.is_forked() {
            return Ok(());
        }
        if self.is_local {
            self.session.settle(Tables::note_disconnect);
            return Ok(());
        }
        self.session.command(|tables| tables.machine().map(Client::close));
        let is_last = self.broker.as_ref().is_some_and(|broker| broker.join(|join| self.session.detach(py, join)));
        if is_last {
            // What the broker has said of segments until its end.
            self.session.command(|_| ());
        }
        Ok(())
    }

    /// Waits for lines that tasks wrote, as (worker, stream, text); None once the session is over and all were given.
    /// Besides, the bytes that were dropped since its start because nobody took them.
    fn wait_logs<'py>(&self, py: Python<'py>) -> (Option<LineParts<'py>>, u64) {
        let (lines, dropped) = self.session.wait_logs(py);
        let lines = lines.map(|lines| {
            lines.into_iter().map(|line| (line.worker, line.stream, PyBytes::new(py, &line.text))).collect()
        });
        (lines, dropped)
    }

    /// The end of what a task has written, and how many bytes came before; None in a local session.
    fn log<'py>(&self, py: Python<'py>, run: u32, index: u32) -> PyResult<Option<(Bound<'py, PyBytes>, u64)>> {
        if self.is_local {
            return Ok(None);
        }
        self.session.drain(py)?;
        let found = self.session.lock().tables.log(run, index);
        match found {
            Some(log) => Ok(Some((PyBytes::new(py, Vec::from(log.tail).as_slice()), log.bytes_dropped))),
            None => Err(error(py, "ResultReleased", &format!("run {run} was released, and the logs of its tasks"))),
        }
    }

    /// Waits, at the end of the interpreter and after `close`, until no other thread is in native code for this session.
    fn wait_alone(&self, py: Python<'_>) {
        if !self.session.is_forked() {
            self.session.wait_alone(py, Duration::from_secs(1));
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.callees.traverse(&visit)
    }

    fn __clear__(&self) {
        self.callees.clear();
    }

    // For the engine of a local session.

    /// Has waits without end ask `check(run, index)` now and then, which raises where nothing can go on.
    fn set_stall_check(&self, check: Py<PyAny>) {
        self.session.set_stall_check(check);
    }

    /// Has waits call `helper()`, which runs a task here and now and says whether there was one, or `None` if none may run here.
    fn set_helper(&self, helper: Py<PyAny>) {
        let _ = self.session.helper.set(helper);
    }

    /// Opens a row for a single call, which goes by its own key or by `name-index`; the answer is its index and its key.
    #[pyo3(signature = (name, key = None))]
    fn open_call(&self, py: Python<'_>, name: &str, key: Option<&str>) -> PyResult<(u32, String)> {
        let opened = self.session.settle(|tables| tables.open_call(name, key));
        opened.ok_or_else(|| error(py, "UsageError", submit::TOO_MANY_CALLS))
    }

    /// Enters how a task ended: its value, or the exception to raise.
    #[pyo3(signature = (run, index, value, error = None))]
    fn settle(&self, run: u32, index: u32, value: Py<PyAny>, error: Option<Py<PyAny>>) {
        let ending = error.map_or_else(|| LiveEnding::Value(value), LiveEnding::Error);
        let unwanted = self.session.settle(|tables| match tables.live() {
            Some(live) => live.settle(run, index, ending),
            None => Some(ending),
        });
        drop(unwanted);
        self.session.drop_discarded();
    }

    /// Notes that every task of a run has ended.
    fn finish(&self, run: u32) {
        self.session.settle(|tables| tables.live().map(|live| live.finish(run)));
        self.session.drop_discarded();
    }

    /// Changes of what refs, futures and runs hold since the last call, in order: (run, index, change). +1
    /// and -1 are holders that came and went; 0 is the run, which lets go of this result or (index None) of all.
    fn take_hold_changes(&self) -> Vec<HoldChange> {
        self.session.lock().tables.live().map(live::Live::take_hold_changes).unwrap_or_default()
    }
}

impl ClientCore {
    fn with_broker(
        session: Session,
        workers: u32,
        offer: Option<Offer>,
        put_bytes_max: u64,
        join: Box<dyn FnOnce() + Send>,
    ) -> Self {
        let session = Arc::new(session);
        let broker = Broker::new(join, &session);
        Self::new(session, workers, offer, put_bytes_max, Some(broker))
    }

    fn new(
        session: Arc<Session>,
        workers: u32,
        offer: Option<Offer>,
        put_bytes_max: u64,
        broker: Option<Broker>,
    ) -> Self {
        Self {
            session,
            workers,
            offer,
            parent: (0, 0),
            submitting: Arc::default(),
            callees: Callees::default(),
            put_bytes_max: usize::try_from(put_bytes_max).unwrap_or(usize::MAX),
            is_local: broker.is_none(),
            broker,
            place: Default::default(),
        }
    }

    /// An error if nothing can be submitted any more.
    fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        self.session.check_process(py)?;
        if !self.session.lock().tables.is_over() {
            return Ok(());
        }
        let why = failures::lost(py, &self.session, "what is submitted now".to_owned())?;
        Err(PyErr::from_value(why.into_bound(py)))
    }

    /// Asks the broker something and waits for the answer; `None` if the session is over.
    fn ask(&self, py: Python<'_>, question: impl FnOnce(&mut Client) -> u64) -> PyResult<Option<Reply>> {
        self.session.check_process(py)?;
        let Some(number) = self.session.command(|tables| tables.machine().map(question)) else { return Ok(None) };
        let answer = self.session.wait_for(py, None, Deadline::after(None), |state| state.tables.poll_reply(number));
        if answer.is_err() {
            self.session.command(|tables| tables.machine().map(|machine| machine.forget_question(number)));
        }
        Ok(answer?.flatten())
    }

    fn place(&self) -> Place<'_> {
        Place { workers: self.workers, offer: self.offer.as_ref(), parent: self.parent }
    }

    /// Submits a graph; the answer is the number of its run and of its tasks.
    fn submit(&self, py: Python<'_>, graph: &Graph, keep: &[u32], terms: submit::Terms) -> PyResult<(u32, u32)> {
        self.check_open(py)?;
        if self.is_local {
            return submit::open_local(py, &self.session, self.place(), graph);
        }
        if graph.is_by_reference() {
            let text = "a by-reference graph cannot leave its process; it is for Client(mode='threads') or 'sync'";
            return Err(error(py, "UsageError", text));
        }
        let kept = Kept { keep, terms, replaces: false };
        submit::submit_graph(py, &self.session, &self.submitting, self.place(), graph, kept)
    }
}
