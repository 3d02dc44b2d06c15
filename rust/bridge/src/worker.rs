//! The worker process: decodes, calls and encodes, task after task, on Python's main thread.
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headrace_protocol::store::Blocks;
use headrace_protocol::worker::{Ending, Identity, Start, Value};
use headrace_runtime::worker_loop::{Next, Waited, WorkerLoop};
use headrace_sys::exit::exit_now;
use headrace_sys::spawn::take_inherited;
use headrace_sys::status_page::StatusPage;
use headrace_sys::zmq::{Context, Dealer, Library};
use headrace_wire::{GoodbyeReason, cites};
use pyo3::exceptions::{PyLookupError, PyRuntimeError, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustc_hash::FxHashMap;

use crate::codec::{decode_args, decode_value, encode_value, is_atom, make_writable};
use crate::errors::note;
use crate::garbage;
use crate::inline_limit::inline_bytes_max_of_results;
use crate::memory::{Block, Memory, Seat};
use crate::output::Output;

/// What the process gives its last frames to leave, before it ends.
const LAST_WORDS_MS: u32 = 1_000;

/// Memory that one long result leaves for the next.
const OUT_BYTES_KEPT: usize = 1 << 20;

/// Bytes of new shared atoms after which all are looked through for those that nobody can ask for any more.
const SWEEP_BYTES: usize = 16 << 20;

/// What a shared atom costs beside its bytes, about.
const ATOM_OVERHEAD_BYTES: usize = 256;

/// A worker process's native half. One lives in a process, and `run` is called on its main thread.
#[pyclass(frozen, module = "headrace._core")]
pub(crate) struct Worker {
    tasks: WorkerLoop<Dealer>,
    memory: Arc<Memory>,
    /// The worker's number.
    #[pyo3(get)]
    number: u32,
    /// What its tasks print.
    #[pyo3(get)]
    output: Py<Output>,
    forked: AtomicBool,
}

#[pymethods]
impl Worker {
    /// Takes the inherited descriptors and connects to the broker in the background. From here on the end of the broker
    /// ends this process.
    #[new]
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
    ) -> PyResult<Self> {
        let page = Arc::new(StatusPage::attach(take_inherited(status_fd)?)?);
        let control = take_inherited(control_fd)?;
        let library = Library::open(&[libzmq]).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        let context = Context::new(&library).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        // A name of this process alone, which nobody can guess: the router gives it to whoever comes with it last.
        let name = format!("w{number}-{:016x}", RandomState::new().build_hasher().finish());
        let dealer = Dealer::connect(&context, endpoint, name.as_bytes())
            .and_then(|mut dealer| dealer.set_linger_ms(LAST_WORDS_MS).map(|()| dealer))
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let identity = Identity { version, python, worker: number, incarnation, pid: std::process::id() };
        let output = Py::new(py, Output::new(Arc::clone(&page)))?;
        let tasks = WorkerLoop::new(dealer, &identity, control, page)?;
        let seat = WorkerSeat(tasks.clone());
        let memory = Arc::new(Memory::new(seat, Arc::clone(tasks.segments()), inline_bytes_max_of_results()?));
        Ok(Worker { tasks, memory, number, output, forked: AtomicBool::new(false) })
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
    /// Returns None, or why the session did not end as it should.
    fn run(
        &self,
        py: Python<'_>,
        load_function: Py<PyAny>,
        record_error: Py<PyAny>,
        record_result: Py<PyAny>,
        record_size: Py<PyAny>,
    ) -> PyResult<Option<String>> {
        let mut bench = Bench {
            tasks: &self.tasks,
            memory: &self.memory,
            load_function,
            record_error,
            record_result,
            record_size,
            functions: FxHashMap::default(),
            last_function: None,
            atoms: Atoms::default(),
            out: Vec::new(),
        };
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
                    bench.atoms.sweep();
                    // Signals, and what they raise, are looked at when it sleeps.
                    let _ = garbage::collect_as_urgent(py, urgency);
                    self.tasks.note_collected(urgency);
                    self.tasks.next(None, &mut start)
                }
                Next::Idle => {
                    bench.atoms.sweep();
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

    /// Key and attempt of the task that runs, and how many of its attempts failed before.
    fn current(&self) -> Option<(String, u32, u32)> {
        self.tasks.running().map(|running| (running.key, running.attempt, running.failures))
    }

    /// Whether the attempt that executes now was cancelled.
    fn is_cancelled(&self) -> bool {
        self.tasks.is_cancelled()
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
struct WorkerSeat(WorkerLoop<Dealer>);

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

/// Why an attempt left no value.
enum Failure<'py> {
    Raised(PyErr),
    NotEncodable { result: Bound<'py, PyAny>, error: PyErr },
    TooLarge { bytes: usize },
}

impl From<PyErr> for Failure<'_> {
    fn from(error: PyErr) -> Self {
        Failure::Raised(error)
    }
}

/// What lies on the main thread's table while it works.
struct Bench<'w> {
    tasks: &'w WorkerLoop<Dealer>,
    memory: &'w Arc<Memory>,
    load_function: Py<PyAny>,
    record_error: Py<PyAny>,
    record_result: Py<PyAny>,
    record_size: Py<PyAny>,
    functions: FxHashMap<u32, Py<PyAny>>,
    last_function: Option<(u32, Py<PyAny>)>,
    atoms: Atoms,
    /// The encoded result, or the record of the failure.
    out: Vec<u8>,
}

impl Bench<'_> {
    /// Runs one attempt. An error ends the process: not even the failure could be recorded.
    #[inline]
    fn execute(&mut self, py: Python<'_>, start: &Start) -> PyResult<Ending<'_>> {
        self.out.clear();
        self.out.shrink_to(OUT_BYTES_KEPT);
        match self.attempt(py, start) {
            Ok(()) => Ok(Ending::Value(&self.out)),
            Err(failure) => self.fail(py, start, failure),
        }
    }

    #[inline]
    fn attempt<'py>(&mut self, py: Python<'py>, start: &Start) -> Result<(), Failure<'py>> {
        let function = self.function(py, start.function)?;
        let mut inputs =
            Inputs { values: &start.inputs, memory: self.memory, atoms: &mut self.atoms, decoded: Vec::new() };
        let args = decode_args(py, start.args(), &mut |k| inputs.get(py, k))
            .inspect_err(|error| note(py, error, "raised while headrace loaded the arguments in the worker"))?;
        drop(inputs);
        let result = args.call(&function)?;
        if let Err(error) = encode_value(&result, self.memory.for_values(), &mut self.out) {
            return Err(Failure::NotEncodable { result, error });
        }
        if self.out.len() as u64 > start.result_bytes_max && !cites(&self.out) {
            return Err(Failure::TooLarge { bytes: self.out.len() });
        }
        Ok(())
    }

    #[cold]
    fn fail(&mut self, py: Python<'_>, start: &Start, failure: Failure<'_>) -> PyResult<Ending<'_>> {
        // Our handler raises KeyboardInterrupt for this attempt only, and it may come out as anything. Whatever ends an
        // attempt that is to be cancelled, it has been cancelled.
        if self.tasks.is_cancelled() {
            return Ok(Ending::Interrupted);
        }
        let running = self.tasks.running().expect("the attempt has not ended yet");
        let function = self.functions.get(&start.function);
        let attempt = (running.key, running.attempt, running.failures, start.result_bytes_max, function);
        let recorded = match failure {
            Failure::Raised(error) => self.record_error.call1(py, (attempt, error.into_value(py))),
            Failure::NotEncodable { result, error } => {
                self.record_result.call1(py, (attempt, error.into_value(py), result))
            }
            Failure::TooLarge { bytes } => self.record_size.call1(py, (attempt, bytes)),
        };
        match recorded.and_then(|recorded| recorded.extract::<(Bound<'_, PyBytes>, bool)>(py)) {
            Ok((record, is_worth_a_retry)) => {
                self.out.clear();
                self.out.extend_from_slice(record.as_bytes());
                Ok(if is_worth_a_retry { Ending::Raised(&self.out) } else { Ending::RaisedForGood(&self.out) })
            }
            Err(_) if self.tasks.is_cancelled() => Ok(Ending::Interrupted),
            Err(error) => Err(error),
        }
    }

    #[inline]
    fn function<'py>(&mut self, py: Python<'py>, number: u32) -> PyResult<Bound<'py, PyAny>> {
        match &self.last_function {
            Some((last, function)) if *last == number => Ok(function.bind(py).clone()),
            _ => self.switch_function(py, number),
        }
    }

    fn switch_function<'py>(&mut self, py: Python<'py>, number: u32) -> PyResult<Bound<'py, PyAny>> {
        let function = match self.functions.get(&number) {
            Some(function) => function.bind(py).clone(),
            None => {
                let function = self.load_function(py, number)?;
                self.functions.insert(number, function.clone().unbind());
                function
            }
        };
        self.last_function = Some((number, function.clone().unbind()));
        Ok(function)
    }

    #[cold]
    fn load_function<'py>(&self, py: Python<'py>, number: u32) -> PyResult<Bound<'py, PyAny>> {
        let (name, pickle) = self
            .tasks
            .function(number)
            .ok_or_else(|| PyLookupError::new_err(format!("function {number} is not known to this worker")))?;
        let function = self.load_function.bind(py).call1((PyBytes::new(py, &pickle),));
        function.inspect_err(|error| {
            note(py, error, &format!("raised while headrace loaded function {name:?} in the worker"))
        })
    }
}

/// The results that one attempt's arguments cite.
struct Inputs<'a> {
    values: &'a [Value],
    memory: &'a Arc<Memory>,
    atoms: &'a mut Atoms,
    /// By number, those that are not atoms: arguments that cite one result twice share one object.
    decoded: Vec<Option<Py<PyAny>>>,
}

impl Inputs<'_> {
    #[inline]
    fn get(&mut self, py: Python<'_>, k: u32) -> PyResult<Py<PyAny>> {
        let k = k as usize;
        if let Some(Some(object)) = self.decoded.get(k) {
            return Ok(object.clone_ref(py));
        }
        let Some(value) = self.values.get(k) else {
            return Err(PyLookupError::new_err(format!("the arguments cite input {k} of {}", self.values.len())));
        };
        let object = self.atoms.decode(py, value, self.memory)?;
        if !is_atom(object.bind(py)) {
            self.decoded.resize_with(self.values.len(), || None);
            self.decoded[k] = Some(object.clone_ref(py));
        }
        Ok(object)
    }
}

/// Long immutable atoms as objects: their consumers share one, and it is decoded once. Short ones are decoded faster
/// than looked up.
#[derive(Default)]
struct Atoms {
    /// By address of the encoded bytes, which stay alive here, so that the address stays theirs.
    by_bytes: FxHashMap<usize, (Arc<[u8]>, Py<PyAny>)>,
    fresh_bytes: usize,
}

impl Atoms {
    #[inline]
    fn decode(&mut self, py: Python<'_>, value: &Value, memory: &Arc<Memory>) -> PyResult<Py<PyAny>> {
        match value {
            Value::Inline { .. } => decode_value(py, value.bytes(), None),
            Value::Shared(bytes) if cites(bytes) => decode_value(py, bytes, Some(memory)),
            Value::Shared(bytes) => self.decode_shared(py, bytes),
        }
    }

    fn decode_shared(&mut self, py: Python<'_>, bytes: &Arc<[u8]>) -> PyResult<Py<PyAny>> {
        let address = bytes.as_ptr().addr();
        if let Some((_, object)) = self.by_bytes.get(&address) {
            return Ok(object.clone_ref(py));
        }
        let object = decode_value(py, bytes, None)?;
        if is_atom(object.bind(py)) {
            self.by_bytes.insert(address, (Arc::clone(bytes), object.clone_ref(py)));
            self.fresh_bytes += bytes.len() + ATOM_OVERHEAD_BYTES;
            if self.fresh_bytes > SWEEP_BYTES {
                self.sweep();
            }
        }
        Ok(object)
    }

    /// Drops those whose bytes nobody else has: the machine has let go of them.
    fn sweep(&mut self) {
        self.fresh_bytes = 0;
        self.by_bytes.retain(|_, (bytes, _)| Arc::strong_count(bytes) > 1);
    }
}
