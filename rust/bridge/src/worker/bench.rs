//! One attempt: its function is found, its arguments are decoded, it is called, and what it returns is encoded.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use headrace_protocol::worker::{Ending, Start, Value};
use headrace_runtime::transport::WorkerLink;
use headrace_runtime::worker_loop::WorkerLoop;
use headrace_wire::cites;
use pyo3::exceptions::PyLookupError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustc_hash::FxHashMap;

use crate::codec::{decode_args, decode_value, encode_value, is_atom};
use crate::errors::note;
use crate::graph::Graph;
use crate::memory::Memory;

/// Memory that one long result leaves for the next.
const OUT_BYTES_KEPT: usize = 1 << 20;

/// Bytes of new shared atoms after which all are looked through for those that nobody can ask for any more.
const SWEEP_BYTES: usize = 16 << 20;

/// What a shared atom costs beside its bytes, about.
const ATOM_OVERHEAD_BYTES: usize = 256;

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

/// What every bench of a process has: the functions of its tasks, and what Python does for them.
pub(super) struct Tools {
    pub(super) load_function: Py<PyAny>,
    pub(super) record_error: Py<PyAny>,
    pub(super) record_result: Py<PyAny>,
    pub(super) record_size: Py<PyAny>,
    pub(super) submit_in_place: Py<PyAny>,
    /// The thread that runs tasks.
    pub(super) main: ThreadId,
    /// By number; the lock is held for moments, and no Python runs meanwhile.
    functions: Mutex<FxHashMap<u32, Py<PyAny>>>,
}

impl Tools {
    pub(super) fn new(
        [load_function, record_error, record_result, record_size, submit_in_place]: [Py<PyAny>; 5],
    ) -> Self {
        let (main, functions) = (thread::current().id(), Mutex::default());
        Self { load_function, record_error, record_result, record_size, submit_in_place, main, functions }
    }

    fn functions(&self) -> MutexGuard<'_, FxHashMap<u32, Py<PyAny>>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lies on the main thread's table while it works. There is another one on top of it where a task runs within the wait of
/// another.
pub(super) struct Bench {
    tasks: WorkerLoop<WorkerLink>,
    memory: Arc<Memory>,
    tools: Arc<Tools>,
    last_function: Option<(u32, Py<PyAny>)>,
    atoms: Atoms,
    /// The encoded result, or the record of the failure.
    out: Vec<u8>,
}

impl Bench {
    pub(super) fn new(tasks: WorkerLoop<WorkerLink>, memory: Arc<Memory>, tools: Arc<Tools>) -> Self {
        Self { tasks, memory, tools, last_function: None, atoms: Atoms::default(), out: Vec::new() }
    }

    /// Forgets what nobody can ask for any more.
    pub(super) fn sweep(&mut self) {
        self.atoms.sweep();
    }

    /// Runs one attempt. An error ends the process: not even the failure could be recorded.
    #[inline]
    pub(super) fn execute(&mut self, py: Python<'_>, start: &Start) -> PyResult<Ending<'_>> {
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
            Inputs { values: &start.inputs, memory: &self.memory, atoms: &mut self.atoms, decoded: Vec::new() };
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
        let failure = match failure {
            Failure::NotEncodable { result, .. } if result.is_instance_of::<Graph>() => {
                match self.tools.submit_in_place.call1(py, (result,)) {
                    Ok(_) => return Ok(Ending::Became),
                    Err(_) if self.tasks.is_cancelled() => return Ok(Ending::Interrupted),
                    Err(error) => Failure::Raised(error),
                }
            }
            failure => failure,
        };
        let running = self.tasks.running().expect("the attempt has not ended yet");
        let function = self.tools.functions().get(&start.function).map(|function| function.clone_ref(py));
        let attempt = (running.key, running.attempt, running.failures, start.result_bytes_max, function);
        let recorded = match failure {
            Failure::Raised(error) => self.tools.record_error.call1(py, (attempt, error.into_value(py))),
            Failure::NotEncodable { result, error } => {
                self.tools.record_result.call1(py, (attempt, error.into_value(py), result))
            }
            Failure::TooLarge { bytes } => self.tools.record_size.call1(py, (attempt, bytes)),
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
        let known = self.tools.functions().get(&number).map(|function| function.clone_ref(py));
        let function = match known {
            Some(function) => function.into_bound(py),
            None => {
                let function = self.load_function(py, number)?;
                let before = self.tools.functions().insert(number, function.clone().unbind());
                drop(before);
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
        let function = self.tools.load_function.bind(py).call1((PyBytes::new(py, &pickle),));
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
