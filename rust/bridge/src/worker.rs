//! The worker process: decodes, calls and encodes, task after task, on Python's main thread.
mod bench;
mod host;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use headrace_protocol::store::Blocks;
use headrace_protocol::worker::{Identity, Start};
use headrace_runtime::transport::WorkerLink;
use headrace_runtime::worker_loop::{Next, Waited, WorkerLoop};
use headrace_sys::exit::exit_now;
use headrace_sys::spawn::take_inherited;
use headrace_sys::status_page::StatusPage;
use headrace_sys::zmq::{Context, Dealer, Library};
use headrace_wire::GoodbyeReason;
use pyo3::exceptions::{PyRuntimeError, PySystemExit};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use crate::client::{ClientCore, Nested, peer_keys};
use crate::codec::make_writable;
use crate::garbage;
use crate::inline_limit::inline_bytes_max_of_results;
use crate::memory::{Block, Memory, Seat};
use crate::output::Output;
use bench::{Bench, Tools};

pub(crate) use host::{Broken, Host, Waiting};

/// What the process gives its last frames to leave, before it ends.
const LAST_WORDS_MS: u32 = 1_000;

/// A worker process's native half. One lives in a process, and `run` is called on its main thread.
#[pyclass(frozen, module = "headrace._core")]
pub(crate) struct Worker {
    tasks: WorkerLoop<WorkerLink>,
    memory: Arc<Memory>,
    /// The worker's number.
    #[pyo3(get)]
    number: u32,
    /// What its tasks print.
    #[pyo3(get)]
    output: Py<Output>,
    forked: AtomicBool,
    /// There once tasks are run.
    tools: OnceLock<Arc<Tools>>,
    /// What all tasks of this process share that submit some; there once one does.
    nested: Mutex<Option<Nested>>,
}

#[pymethods]
impl Worker {
    /// Takes the inherited descriptors and connects to the broker in the background. From here on the end of the broker
    /// ends this process. Keys (own public, own secret, the broker's public) are for an endpoint in the network.
    #[new]
    #[pyo3(signature = (status_fd, control_fd, endpoint, number, incarnation, libzmq, python, keys = None))]
    #[expect(clippy::too_many_arguments, reason = "one call, at the start of a process, by position")]
    fn new(
        py: Python<'_>,
        status_fd: RawFd,
        control_fd: RawFd,
        endpoint: &str,
        number: u32,
        incarnation: u64,
        libzmq: PathBuf,
        python: String,
        keys: Option<(String, String, String)>,
    ) -> PyResult<Self> {
        let keys = keys.map(peer_keys).transpose()?;
        let page = Arc::new(StatusPage::attach(take_inherited(status_fd)?)?);
        let control = take_inherited(control_fd)?;
        let library = Library::open(&[libzmq]).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        let context = Context::new(&library).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        // A name of this process alone, which nobody can guess: the router gives it to whoever comes with it last.
        let name = format!("w{number}-{:016x}", RandomState::new().build_hasher().finish());
        let link = match &keys {
            None => Dealer::connect(&context, endpoint, name.as_bytes()).map(WorkerLink::near),
            Some(keys) => Dealer::connect_watched(&context, endpoint, name.as_bytes(), Some(keys))
                .map(|(dealer, monitor)| WorkerLink::far(dealer, monitor)),
        };
        let link = link
            .and_then(|mut link| link.dealer().set_linger_ms(LAST_WORDS_MS).map(|()| link))
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let identity = Identity { version, python, worker: number, incarnation, pid: std::process::id() };
        let output = Py::new(py, Output::new(Arc::clone(&page)))?;
        let tasks = WorkerLoop::new(link, &identity, control, page)?;
        let seat = WorkerSeat(tasks.clone());
        let memory = Arc::new(Memory::new(seat, Arc::clone(tasks.segments()), inline_bytes_max_of_results()?));
        let forked = AtomicBool::new(false);
        Ok(Worker { tasks, memory, number, output, forked, tools: OnceLock::new(), nested: Mutex::default() })
    }

    /// Says HELLO and runs tasks until the session ends.
    ///
    /// `load_function(bytes)` gives a task's function. The record of a failure comes from one of
    ///
    /// - `record_error(attempt, error)`: the task raised `error`;
    /// - `record_result(attempt, error, result)`: `result` cannot be encoded because of `error`;
    /// - `record_size(attempt, size)`: the result takes `size` bytes, more than it may;
    ///
    /// where `attempt` is `(key, number, failures, largest size, function or None)`. Each gives the record, and whether the
    /// failure is worth a retry.
    ///
    /// `submit_in_place(graph)` submits a graph that a task has returned, to take its place.
    ///
    /// Returns None, or why the session did not end as it should.
    fn run(
        &self,
        py: Python<'_>,
        load_function: Py<PyAny>,
        record_error: Py<PyAny>,
        record_result: Py<PyAny>,
        record_size: Py<PyAny>,
        submit_in_place: Py<PyAny>,
    ) -> PyResult<Option<String>> {
        let tools = [load_function, record_error, record_result, record_size, submit_in_place];
        let tools = self.tools.get_or_init(|| Arc::new(Tools::new(tools)));
        let mut bench = Bench::new(self.tasks.clone(), Arc::clone(&self.memory), Arc::clone(tools));
        let mut start = Start::default();
        self.tasks.open();
        let mut next = self.tasks.next(None, &mut start);
        loop {
            next = match next {
                Next::Run => {
                    let ending = bench.execute(py, &start)?;
                    self.stop_if_forked();
                    self.output.get().finish_task(py);
                    self.tasks.next(Some(ending), &mut start)
                }
                Next::Collect(urgency) => {
                    bench.sweep();
                    // Signals, and what they raise, are looked at when it sleeps.
                    let _ = garbage::collect_as_urgent(py, urgency);
                    self.tasks.note_collected(urgency);
                    self.tasks.next(None, &mut start)
                }
                Next::Idle => {
                    bench.sweep();
                    take_signals(py)?;
                    match py.detach(|| self.tasks.wait())? {
                        Waited::News => self.tasks.next(None, &mut start),
                        Waited::Interrupted => Next::Idle,
                    }
                }
                Next::Stop => break,
            };
        }
        let ending = self.ending();
        self.close(py);
        Ok(ending)
    }

    /// Ends the session before it began: GOODBYE carries `text`.
    fn refuse(&self, py: Python<'_>, text: &str) {
        self.tasks.leave(GoodbyeReason::WorkersFailed, text);
        self.close(py);
    }

    /// A client for the task that runs, to submit tasks with; `None` if none runs.
    fn nested_client(&self, py: Python<'_>) -> PyResult<Option<ClientCore>> {
        let (Some(parent), Some(tools)) = (self.tasks.running_attempt(), self.tools.get()) else { return Ok(None) };
        let mut nested = self.nested.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        if nested.is_none() {
            let host =
                Host::new(self.tasks.clone(), Arc::clone(&self.memory), Arc::clone(tools), self.output.clone_ref(py));
            *nested = Some(Nested::open(host)?);
        }
        Ok(nested.as_ref().map(|nested| nested.client(parent)))
    }

    /// The slot and the attempt of the task that runs.
    fn running(&self) -> Option<(u32, u32)> {
        self.tasks.running_attempt()
    }

    /// Whether an attempt, by its slot and number, has not ended.
    fn has_attempt(&self, attempt: (u32, u32)) -> bool {
        self.tasks.has_attempt(attempt)
    }

    /// Key and attempt of the task that runs, and how many of its attempts failed before.
    fn current(&self) -> Option<(String, u32, u32)> {
        self.tasks.running().map(|running| (running.key, running.attempt, running.failures))
    }

    /// Whether the attempt that executes now was cancelled.
    fn is_cancelled(&self) -> bool {
        self.tasks.is_cancelled()
    }

    /// Whether large results lie in shared memory.
    #[getter]
    fn shares_memory(&self) -> bool {
        self.memory.for_values().is_some()
    }

    /// A writable object with so many bytes of shared memory.
    fn allocate(&self, py: Python<'_>, size: u64) -> PyResult<Block> {
        self.memory.allocate_object(py, size)
    }

    /// The value with buffers that may be written to, which nobody else sees.
    fn make_writable<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        make_writable(value, &self.memory)
    }

    /// To be called before a fork: what Python sees of shared memory now, a child may see for ever.
    fn prepare_fork(&self) {
        self.memory.note_fork();
        self.output.get().prepare_fork();
    }

    /// To be called in a forked child: it may finish what it was forked for, but never run a task.
    fn note_fork(&self) {
        // Relaxed: the child has this thread alone, which reads it later.
        self.forked.store(true, Ordering::Relaxed);
        self.output.get().note_fork();
    }
}

/// A worker's way to the broker, for shared memory.
struct WorkerSeat(WorkerLoop<WorkerLink>);

impl Seat for WorkerSeat {
    fn with_blocks(&self, look: &mut dyn FnMut(&mut Blocks)) {
        self.0.with_blocks(|blocks| look(blocks));
    }

    fn want(&self, bytes: u64) {
        self.0.want(bytes);
    }

    fn lack(&self, segment: u32) {
        self.0.lack(segment);
    }

    fn withdraw(&self, bytes: u64) {
        self.0.withdraw(bytes);
    }

    fn return_segment(&self, segment: u32) {
        self.0.return_segment(segment);
    }

    fn listen(&self) {} // the warden does

    fn garbage_due(&self) -> u8 {
        0 // the warden answers, and the main thread looks for garbage after its task
    }

    fn note_collected(&self, urgency: u8) {
        self.0.note_collected(urgency);
    }
}

impl Worker {
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.tasks.close(Duration::from_millis(LAST_WORDS_MS.into())));
    }

    fn ending(&self) -> Option<String> {
        match self.tasks.end() {
            Ok(closed) => closed
                .filter(|closed| ![GoodbyeReason::Closed as u8, GoodbyeReason::Shutdown as u8].contains(&closed.reason))
                .map(|closed| closed.text),
            Err(error) => Some(error.to_string()),
        }
    }

    #[inline]
    fn stop_if_forked(&self) {
        if self.forked.load(Ordering::Relaxed) {
            eprintln!("headrace: a child that a task forked returned from the task; it ends here");
            exit_now(1);
        }
    }
}

/// Runs the handlers of signals that came while nothing ran. An interrupt that came too late for its task is ignored by
/// our handler; what a handler of the user's raises here has no task to fail, unless it wants the process to end.
fn take_signals(py: Python<'_>) -> PyResult<()> {
    match py.check_signals() {
        Err(error) if error.is_instance_of::<PySystemExit>(py) => Err(error),
        Err(error) => {
            error.write_unraisable(py, None);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
