//! Graphs and calls on their way to the broker.
use std::hash::Hasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use headrace_protocol::broker::ARGS_BYTES_MAX;
use headrace_protocol::chunks::{encode_chunks, is_ordered};
use headrace_protocol::client::CALLS;
use headrace_wire::{
    ANY_WORKER, Blobs, BlobsBuf, POLICY_RETRY_ON, SUBMIT_REPLACES, SUBMIT_STOP_ON_ERROR, Submit, U32s,
};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use rustc_hash::{FxHashSet, FxHasher};

use super::failures::error;
use super::functions::{Callee, Callees, Numbers, ONE_OFF_BYTES_MIN};
use super::parts::{Parts, Put};
use super::session::Session;
use crate::codec::{External, ExternalId};
use crate::errors::{no_suitable_worker, note, usage_error};
use crate::graph::{EncodedCall, Function, FunctionColumns, Graph, GraphData, Options, encode_call};
use crate::offer::Offer;

/// What one submission leaves to the next. It is locked from the numbering of functions until the frame has left, so that
/// no frame overtakes the one that brings a function; Python does not run meanwhile.
#[derive(Default)]
pub(crate) struct Submitting {
    numbers: Numbers,
    /// Hashes of long pickles that were called once.
    called_once: FxHashSet<u64>,
}

/// The limit of the numbers of calls, which count up to the mark of external results.
pub(super) const TOO_MANY_CALLS: &str = "this client has made 2,147,483,648 calls; make a new one";

impl Submitting {
    /// Whether a call should bring its function along as an argument. A function that has a number is kept for good, here,
    /// by the broker and by its workers; a long pickle gets one only when it is called for the second time.
    fn is_one_off(&mut self, function: &Function) -> bool {
        if function.blob.len() < ONE_OFF_BYTES_MIN {
            return false;
        }
        if self.called_once.len() >= CALLED_ONCE_MAX {
            self.called_once.clear();
        }
        let mut hasher = FxHasher::default();
        hasher.write(&function.blob);
        self.called_once.insert(hasher.finish())
    }
}

/// Arguments of a graph that travel in one frame; more are cut into several. Those that a graph in disorder, which cannot be
/// cut, may have.
#[derive(Clone, Copy)]
struct Cut {
    chunk_bytes: usize,
    bytes_max: usize,
}

/// A column that is as long cannot be written.
const COLUMN_BYTES_MAX: usize = u32::MAX as usize;
const NEAR: Cut = Cut { chunk_bytes: 1 << 30, bytes_max: COLUMN_BYTES_MAX };
/// A socket takes frames of 1 GiB, of which the other columns need some.
const FAR: Cut = Cut { chunk_bytes: 1 << 28, bytes_max: 3 << 28 };

impl Cut {
    fn of(session: &Session) -> Self {
        if session.is_far() { FAR } else { NEAR }
    }
}

/// Hashes that are remembered; what was forgotten travels as an argument once more.
const CALLED_ONCE_MAX: usize = 65_536;

/// Where tasks go: what there is for them.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) workers: u32,
    /// Unknown where a task submits: then the broker alone says what there is not.
    pub(crate) offer: Option<&'a Offer>,
    /// Slot and attempt of the task that submits, or zeros.
    pub(crate) parent: (u32, u32),
}

/// What becomes of a graph beyond its tasks.
#[derive(Clone, Copy)]
pub(crate) struct Kept<'a> {
    /// Indices of the results that are kept.
    pub(crate) keep: &'a [u32],
    pub(crate) terms: Terms,
    /// Whether it takes the place of the task that submits it.
    pub(crate) replaces: bool,
}

/// Why a graph cannot be submitted here.
enum Refusal {
    /// An argument stands for a result of another client.
    OtherClient { run: u32, index: u32 },
    /// No worker can ever run a task: what it asks for, and the best offer.
    NoSuitableWorker { key: String, text: String },
    /// A task takes arguments, or a function closes over more, than one frame can hold.
    TooLong { what: String, bytes: usize },
    /// A graph is longer than one frame and cannot be cut.
    TooLarge { what: &'static str, remedy: &'static str },
    /// There are no numbers left for what is put.
    TooManyCalls,
}

/// How a run goes, as `headrace.terms.Terms`: priority, deadline in ms, whether it stops once a task has failed.
pub(crate) type Terms = (i32, u64, bool);

/// Submits a graph; the answer is the number of its run and of its tasks.
///
/// Large parts of arguments are written into shared memory first. The frames are encoded without the interpreter lock, in one
/// pass over the graph's columns.
pub(crate) fn submit_graph(
    py: Python<'_>,
    session: &Session,
    submitting: &Mutex<Submitting>,
    place: Place<'_>,
    graph: &Graph,
    kept: Kept<'_>,
) -> PyResult<(u32, u32)> {
    let mut parts = Parts::new(session.memory_for_values());
    loop {
        write_parts(py, session, place, graph, &mut parts)?;
        let submitted = py.detach(|| send_graph(session, submitting, place, graph, kept, &mut parts));
        if let Some(run_and_tasks) = submitted.map_err(|refusal| explain_refusal(py, refusal))? {
            return Ok(run_and_tasks);
        }
    }
}

/// Writes the large parts of a graph that can be submitted.
fn write_parts(
    py: Python<'_>,
    session: &Session,
    place: Place<'_>,
    graph: &Graph,
    parts: &mut Parts<'_>,
) -> PyResult<()> {
    let large = graph.large(py);
    if large.is_empty() {
        return Ok(());
    }
    let checked = {
        let data = graph.lock();
        check(&data, session, place).and_then(|()| check_size(&data, Cut::of(session)))
    };
    checked.map_err(|refusal| explain_refusal(py, refusal))?;
    for (id, object) in large {
        parts.write(id, object.bind(py)).inspect_err(|error| {
            let taker = graph.lock().key_of_taker(&id);
            if let Some(key) = taker {
                note(py, error, &format!("while an argument of task '{key}' was written into shared memory"));
            }
        })?;
    }
    Ok(())
}

/// Sends a graph, the large parts of its arguments first; `None` if it has got more of them meanwhile.
fn send_graph(
    session: &Session,
    submitting: &Mutex<Submitting>,
    place: Place<'_>,
    graph: &Graph,
    Kept { keep, terms: (priority, deadline_ms, stops), replaces }: Kept<'_>,
    parts: &mut Parts<'_>,
) -> Result<Option<(u32, u32)>, Refusal> {
    let mut submitting = submitting.lock().unwrap_or_else(PoisonError::into_inner);
    let data = graph.lock();
    let cut = Cut::of(session);
    check(&data, session, place)?;
    check_size(&data, cut)?;
    if !data.large().all(|id| parts.has(id)) {
        return Ok(None);
    }
    let tasks = data.columns.len() as u32;
    let put = session.command(|tables| parts.put(tables)).ok_or(Refusal::TooManyCalls)?;
    let columns = data.submission_columns(|id| put.place(id));
    let mut functions = FunctionColumns::default();
    submitting.numbers.enter(data.functions.table.iter(), &mut functions);
    let run = match replaces {
        true => session.lock().tables.number_run(),
        false => session.lock().tables.open_run(tasks),
    };
    let submit = Submit {
        flags: (if stops { SUBMIT_STOP_ON_ERROR } else { 0 }) | (if replaces { SUBMIT_REPLACES } else { 0 }),
        parent: place.parent.0,
        parent_attempt: place.parent.1,
        deadline_ms,
        run_priority: priority,
        ..data.submission(run, &columns, &functions, keep)
    };
    let mut frames = Vec::new();
    match submit.args.bytes.len() > cut.chunk_bytes && is_ordered(0, submit.dep_counts, submit.deps) {
        true => encode_chunks(&submit, cut.chunk_bytes, &mut frames),
        false => encode_chunks(&submit, COLUMN_BYTES_MAX, &mut frames),
    }
    session.send(&mut session.lock(), frames);
    session.command(|tables| put.release(tables));
    Ok(Some((run, tasks)))
}

/// Opens a run of a local session, whose engine takes the graph from there.
pub(crate) fn open_local(py: Python<'_>, session: &Session, place: Place<'_>, graph: &Graph) -> PyResult<(u32, u32)> {
    let opened = py.detach(|| {
        let data = graph.lock();
        check(&data, session, place)?;
        let tasks = data.columns.len() as u32;
        Ok((session.settle(|tables| tables.open_run(tasks)), tasks))
    });
    opened.map_err(|refusal| explain_refusal(py, refusal))
}

/// Submits a single call; the answer is its index within the run of calls, and its key.
#[expect(clippy::too_many_arguments, reason = "they are the parts of one client, and of one call")]
pub(crate) fn submit_call<'py>(
    py: Python<'py>,
    session: &Session,
    submitting: &Mutex<Submitting>,
    callees: &Callees,
    place: Place<'_>,
    callable: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<(u32, String)> {
    let callee = callees.callee(callable)?;
    let mut encoded = encode_call("call", callable, args, 0, kwargs)?;
    for external in &encoded.externals {
        check_external(&external.id, session).map_err(|refusal| explain_refusal(py, refusal))?;
    }
    let Callee { mut function, options, key } = callee;
    place.check(&options, || function.name.to_string()).map_err(|refusal| explain_refusal(py, refusal))?;
    check_function(&function)
        .and_then(|()| check_args(encoded.args.len(), || format!("a call of '{}'", function.name)))
        .map_err(|refusal| explain_refusal(py, refusal))?;

    // What says which failures are worth a retry is found by the function that a worker knows by number.
    let is_one_off =
        options.policy().flags & POLICY_RETRY_ON == 0 && lock_attached(py, submitting).is_one_off(&function);
    if is_one_off {
        (function, encoded) = as_argument(callees, &function, args, kwargs)?;
    }
    let mut parts = Parts::new(session.memory_for_values());
    for External { id, object } in &encoded.externals {
        if let ExternalId::Large(id) = id {
            parts.write(*id, object.bind(py))?;
        }
    }
    let mut submitting = lock_attached(py, submitting);
    let mut functions = FunctionColumns::default();
    submitting.numbers.enter([&function].into_iter(), &mut functions);
    session
        .command(|tables| {
            let (index, name) = tables.open_call(&function.name, key.as_deref())?;
            let put = parts.put(tables)?;
            let key = key.as_deref();
            let options = &options;
            let parent = place.parent;
            let call = Call { encoded: &encoded, functions: &functions, options, key, index, put: &put, parent };
            call.submit(|submit| tables.machine().expect("only a session with a broker submits").submit(submit));
            put.release(tables);
            Some((index, name))
        })
        .ok_or_else(|| error(py, "UsageError", TOO_MANY_CALLS))
}

/// A call of a function that comes as its first argument.
fn as_argument<'py>(
    callees: &Callees,
    function: &Function,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<(Function, EncodedCall)> {
    static CALL_PICKLED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = args.py();
    let call_pickled = CALL_PICKLED.import(py, "headrace.pickling", "call_pickled")?;
    let pickle = PyBytes::new(py, &function.blob).into_any();
    let args: Vec<_> = std::iter::once(pickle).chain(args.iter()).collect();
    let args = PyTuple::new(py, args)?;
    let encoded = encode_call("call", call_pickled, &args, 0, kwargs)?;
    let blob = callees.callee(call_pickled)?.function.blob;
    Ok((Function { name: function.name.clone(), blob }, encoded))
}

/// Locks without the interpreter lock where another thread is submitting a large graph.
fn lock_attached<'a>(py: Python<'_>, submitting: &'a Mutex<Submitting>) -> MutexGuard<'a, Submitting> {
    submitting.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
}

/// One call, ready to go.
struct Call<'a> {
    encoded: &'a EncodedCall,
    functions: &'a FunctionColumns,
    options: &'a Options,
    key: Option<&'a str>,
    index: u32,
    put: &'a Put<'a>,
    parent: (u32, u32),
}

impl Call<'_> {
    fn submit(&self, send: impl FnOnce(&Submit<'_>)) {
        let EncodedCall { args, deps, externals } = self.encoded;
        let place = |external: &External| external.id.place(|id| self.put.place(id));
        let (external_run, external_index): (Vec<u32>, Vec<u32>) = externals.iter().map(place).unzip();
        let arg_lens = [args.len() as u32];
        let mut keys = BlobsBuf::default();
        self.key.iter().for_each(|key| keys.push(key.as_bytes()));
        let index = [self.index];
        let priority = [self.options.priority as u32];
        let worker = [self.options.worker];
        let has_options = *self.options != Options::default();
        let policy = &self.options.policy;
        let policy_lens = [policy.len() as u32];
        send(&Submit {
            run: CALLS,
            first: self.index,
            flags: 0,
            function_ids: (&self.functions.new_ids).into(),
            function_names: self.functions.new_names.as_blobs(),
            functions: self.functions.new_blobs.as_blobs(),
            function_map: (&self.functions.map).into(),
            task_function: U32s::Words(&[0]),
            dep_counts: U32s::Words(&[deps.len() as u32]),
            deps: deps.into(),
            external_run: (&external_run).into(),
            external_index: (&external_index).into(),
            args: Blobs { lens: U32s::Words(&arg_lens), bytes: args },
            task_options: column(has_options, &[0]),
            priority: column(has_options, &priority),
            worker: column(has_options, &worker),
            key_index: column(self.key.is_some(), &index),
            keys: keys.as_blobs(),
            keep: U32s::Words(&index),
            policies: match policy.is_empty() {
                true => Blobs::default(),
                false => Blobs { lens: U32s::Words(&policy_lens), bytes: policy },
            },
            deadline_ms: 0,
            run_priority: 0,
            parent: self.parent.0,
            parent_attempt: self.parent.1,
        });
    }
}

/// A column that is left out where it says nothing.
fn column(is_wanted: bool, words: &[u32]) -> U32s<'_> {
    if is_wanted { U32s::Words(words) } else { U32s::default() }
}

fn check(data: &GraphData, session: &Session, place: Place<'_>) -> Result<(), Refusal> {
    for external in &data.externals {
        check_external(external, session)?;
    }
    let is_bad = |options: &Options| place.check(options, String::new).is_err();
    if !data.columns.task_options.is_empty() && data.columns.options.iter().any(is_bad) {
        for index in 0..data.columns.len() as u32 {
            if let Some(options) = data.columns.options_of(index) {
                place.check(options, || data.key_of(index))?;
            }
        }
    }
    Ok(())
}

/// Refuses what no frame could hold, before any function is numbered.
fn check_size(data: &GraphData, cut: Cut) -> Result<(), Refusal> {
    data.functions.table.iter().try_for_each(check_function)?;
    let columns = &data.columns;
    if !U32s::from(&columns.arg_lens).all(|len| len as usize <= ARGS_BYTES_MAX) {
        for (index, len) in (0..).zip(&columns.arg_lens) {
            check_args(*len as usize, || format!("task '{}'", data.key_of(index)))?;
        }
    }
    let remedy = "submit it as several graphs";
    let pickles: usize = data.functions.table.iter().map(|function| function.blob.len()).sum();
    if pickles > cut.bytes_max {
        return Err(Refusal::TooLarge { what: "its functions take more than one frame holds", remedy });
    }
    if columns.deps.len() > COLUMN_BYTES_MAX / 4 || columns.keys.bytes.len() > COLUMN_BYTES_MAX {
        return Err(Refusal::TooLarge { what: "its edges or its keys take 4 GiB or more", remedy });
    }
    let is_cut = || is_ordered(0, U32s::from(&columns.dep_counts), U32s::from(&columns.deps));
    if columns.args.len() > cut.bytes_max && !is_cut() {
        let what = "its arguments take more than one frame holds, and a task stands before one that it needs";
        return Err(Refusal::TooLarge { what, remedy: "add tasks after their predecessors, or pass paths of files" });
    }
    Ok(())
}

fn check_args(bytes: usize, what: impl FnOnce() -> String) -> Result<(), Refusal> {
    if bytes <= ARGS_BYTES_MAX {
        Ok(())
    } else {
        Err(Refusal::TooLong { what: format!("{} has arguments", what()), bytes })
    }
}

fn check_function(function: &Function) -> Result<(), Refusal> {
    match function.blob.len() {
        bytes if bytes <= ARGS_BYTES_MAX => Ok(()),
        bytes => Err(Refusal::TooLong { what: format!("function '{}' has a pickle", function.name), bytes }),
    }
}

fn check_external(external: &ExternalId, session: &Session) -> Result<(), Refusal> {
    match *external {
        ExternalId::Result { session: other, run, index } if other != session.number => {
            Err(Refusal::OtherClient { run, index })
        }
        _ => Ok(()),
    }
}

impl Place<'_> {
    /// Refuses a task that no worker can ever run.
    fn check(self, options: &Options, key: impl FnOnce() -> String) -> Result<(), Refusal> {
        if options.worker == ANY_WORKER && options.policy.is_empty() {
            return Ok(());
        }
        let Some(offer) = self.offer else { return Ok(()) };
        match offer.demand_of(self.workers, options.worker, &options.policy) {
            Ok(_) => Ok(()),
            Err(text) => Err(Refusal::NoSuitableWorker { key: key(), text }),
        }
    }
}

#[cold]
fn explain_refusal(py: Python<'_>, refusal: Refusal) -> PyErr {
    match refusal {
        Refusal::OtherClient { run, index } => {
            let what = if run == CALLS { format!("call {index}") } else { format!("task {index} of run {run}") };
            usage_error(
                py,
                &format!(
                    "an argument stands for the result of {what} of another client; futures and refs belong to the client that \
                 made them: pass the value itself"
                ),
            )
        }
        Refusal::TooLong { what, bytes } => usage_error(
            py,
            &format!(
                "{what} of {bytes} bytes; one task takes at most {ARGS_BYTES_MAX}: write the data to a file and pass its \
                 path, let a task make it, or cut it into several arguments of several tasks"
            ),
        ),
        Refusal::TooLarge { what, remedy } => {
            usage_error(py, &format!("the graph cannot be submitted at once: {what}; {remedy}"))
        }
        Refusal::TooManyCalls => usage_error(py, TOO_MANY_CALLS),
        Refusal::NoSuitableWorker { key, text } => no_suitable_worker(py, &key, &text),
    }
}
