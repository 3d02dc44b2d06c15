//! Graphs and calls on their way to the broker.
use std::sync::{Mutex, MutexGuard, PoisonError};

use headrace_protocol::client::CALLS;
use headrace_wire::{ANY_WORKER, Blobs, BlobsBuf, Message, Submit, U32s};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyDict, PyTuple};

use super::failures::error;
use super::functions::{Callee, Callees, Numbers, describe_callee};
use super::session::Session;
use crate::codec::ExternalId;
use crate::errors::usage_error;
use crate::graph::{EncodedCall, FunctionColumns, Graph, GraphData, Options, encode_call};

/// What one submission leaves to the next. It is locked from the numbering of functions until the frame has left, so that
/// no frame overtakes the one that brings a function; Python does not run meanwhile.
#[derive(Default)]
pub(crate) struct Submitting {
    numbers: Numbers,
}

/// The limit of the numbers of calls, which count up to the mark of external results.
pub(super) const TOO_MANY_CALLS: &str = "this client has made 2,147,483,648 calls; make a new one";

/// Why a graph cannot be submitted here.
enum Refusal {
    /// An argument stands for a result of another client.
    OtherClient { run: u32, index: u32 },
    /// A task is pinned to a worker that does not exist.
    NoSuchWorker { key: String, worker: u32 },
}

/// Submits a graph; the answer is the number of its run and of its tasks.
///
/// The frame is encoded without the interpreter lock, in one pass over the graph's columns.
pub(crate) fn submit_graph(
    py: Python<'_>,
    session: &Session,
    submitting: &Mutex<Submitting>,
    workers: u32,
    graph: &Graph,
    keep: &[u32],
) -> PyResult<(u32, u32)> {
    let submitted = py.detach(|| {
        let mut submitting = submitting.lock().unwrap_or_else(PoisonError::into_inner);
        let data = graph.lock();
        check(&data, session, workers)?;
        let tasks = data.columns.len() as u32;
        let columns = data.submission_columns();
        let mut functions = FunctionColumns::default();
        submitting.numbers.enter(data.functions.table.iter(), &mut functions);
        let run = session.lock().tables.open_run(tasks);
        let mut frame = Vec::new();
        Message::Submit(data.submission(run, &columns, &functions, keep)).encode(&mut frame);
        session.send(&mut session.lock(), frame);
        Ok((run, tasks))
    });
    submitted.map_err(|refusal| explain_refusal(py, refusal, workers))
}

/// Opens a run of a local session, whose engine takes the graph from there.
pub(crate) fn open_local(py: Python<'_>, session: &Session, workers: u32, graph: &Graph) -> PyResult<(u32, u32)> {
    let opened = py.detach(|| {
        let data = graph.lock();
        check(&data, session, workers)?;
        let tasks = data.columns.len() as u32;
        Ok((session.settle(|tables| tables.open_run(tasks)), tasks))
    });
    opened.map_err(|refusal| explain_refusal(py, refusal, workers))
}

/// Submits a single call; the answer is its index within the run of calls, and its key.
#[expect(clippy::too_many_arguments, reason = "they are the parts of one client, and of one call")]
pub(crate) fn submit_call<'py>(
    py: Python<'py>,
    session: &Session,
    submitting: &Mutex<Submitting>,
    callees: &Callees,
    workers: u32,
    callable: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<(u32, String)> {
    let callee = match callees.get(callable) {
        Some(callee) => callee,
        None => {
            let (callee, is_stateless) = describe_callee(callable)?;
            if is_stateless {
                callees.remember(callable, callee.clone());
            }
            callee
        }
    };
    let encoded = encode_call("call", callable, args, 0, kwargs)?;
    for external in &encoded.externals {
        check_external(&external.id, session).map_err(|refusal| explain_refusal(py, refusal, workers))?;
    }
    let Callee { function, options, key } = callee;
    check_worker(options, workers, || function.name.to_string())
        .map_err(|refusal| explain_refusal(py, refusal, workers))?;

    let mut submitting = lock_attached(py, submitting);
    let mut functions = FunctionColumns::default();
    submitting.numbers.enter([&function].into_iter(), &mut functions);
    session
        .command(|tables| {
            let (index, name) = tables.open_call(&function.name, key.as_deref())?;
            let call = Call { encoded: &encoded, functions: &functions, options, key: key.as_deref(), index };
            call.submit(|submit| tables.machine().expect("only a session with a broker submits").submit(submit));
            Some((index, name))
        })
        .ok_or_else(|| error(py, "UsageError", TOO_MANY_CALLS))
}

/// Locks without the interpreter lock where another thread is submitting a large graph.
fn lock_attached<'a>(py: Python<'_>, submitting: &'a Mutex<Submitting>) -> MutexGuard<'a, Submitting> {
    submitting.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
}

/// One call, ready to go.
struct Call<'a> {
    encoded: &'a EncodedCall,
    functions: &'a FunctionColumns,
    options: Options,
    key: Option<&'a str>,
    index: u32,
}

impl Call<'_> {
    fn submit(&self, send: impl FnOnce(&Submit<'_>)) {
        let EncodedCall { args, deps, externals } = self.encoded;
        let external_run: Vec<u32> = externals.iter().map(|external| external.id.run).collect();
        let external_index: Vec<u32> = externals.iter().map(|external| external.id.index).collect();
        let arg_lens = [args.len() as u32];
        let mut keys = BlobsBuf::default();
        self.key.iter().for_each(|key| keys.push(key.as_bytes()));
        let index = [self.index];
        let priority = [self.options.priority as u32];
        let worker = [self.options.worker];
        let has_options = self.options != Options::default();
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
        });
    }
}

/// A column that is left out where it says nothing.
fn column(is_wanted: bool, words: &[u32]) -> U32s<'_> {
    if is_wanted { U32s::Words(words) } else { U32s::default() }
}

fn check(data: &GraphData, session: &Session, workers: u32) -> Result<(), Refusal> {
    for external in &data.externals {
        check_external(external, session)?;
    }
    let has_bad_pin = |options: &Options| options.worker != ANY_WORKER && options.worker >= workers;
    if !data.columns.task_options.is_empty() && data.columns.options.iter().any(has_bad_pin) {
        for index in 0..data.columns.len() as u32 {
            check_worker(data.columns.options_of(index), workers, || data.key_of(index))?;
        }
    }
    Ok(())
}

fn check_external(external: &ExternalId, session: &Session) -> Result<(), Refusal> {
    if external.session == session.number {
        Ok(())
    } else {
        Err(Refusal::OtherClient { run: external.run, index: external.index })
    }
}

fn check_worker(options: Options, workers: u32, key: impl FnOnce() -> String) -> Result<(), Refusal> {
    match options.worker {
        worker if worker == ANY_WORKER || worker < workers => Ok(()),
        worker => Err(Refusal::NoSuchWorker { key: key(), worker }),
    }
}

#[cold]
fn explain_refusal(py: Python<'_>, refusal: Refusal, workers: u32) -> PyErr {
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
        Refusal::NoSuchWorker { key, worker } => {
            let text = format!(
                "task '{key}' is pinned to worker {worker}; this client has {workers}, numbered from 0 to {}",
                workers - 1
            );
            error(py, "NoSuitableWorker", &text)
        }
    }
}
