//! Endings that are not values, as the exceptions that tell of them. The texts are Python's: `headrace.failures`.
use headrace_protocol::client::{Detail, Farewell, Side};
use headrace_wire::Overrun;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::live::LiveEnding;
use super::session::Session;
use super::tables::Ending;
use crate::codec::decode_value;
pub(crate) use crate::errors::infra_error as error;

/// What a task left: its value, or the exception to raise.
pub(crate) type Outcome = Result<Py<PyAny>, Py<PyAny>>;

/// Reads an ending. `key` names the task where the worker's record does not; `root` gives key and exception of the task
/// that was the cause, as far as they are known.
///
/// An `Err` is not the task's but the caller's own: an interrupt while a value was decoded.
pub(crate) fn outcome(
    py: Python<'_>,
    session: &Session,
    ending: &Ending,
    key: impl FnOnce() -> String,
    root: impl FnOnce(u32, u32) -> PyResult<(Option<String>, Option<Py<PyAny>>)>,
) -> PyResult<Outcome> {
    let told = match ending {
        Ending::Live(LiveEnding::Value(value)) => return Ok(Ok(value.clone_ref(py))),
        Ending::Live(LiveEnding::Error(error)) => return Ok(Err(error.clone_ref(py))),
        Ending::Told(told) => told,
    };
    let failure = match told.detail() {
        Detail::Done(bytes) => {
            let value = decode_value(py, bytes, session.memory());
            session.settle_peek(bytes);
            return match value {
                Ok(value) => Ok(Ok(value)),
                Err(error) => build(py, "undecodable", (key(), error.into_value(py))).map(Err),
            };
        }
        Detail::Failed(record) => build(py, "raised", (key(), PyBytes::new(py, record))),
        Detail::Skipped { run, root: index } => {
            let (root_key, cause) = root(run, index)?;
            build(py, "skipped", (key(), root_key, cause))
        }
        Detail::Cancelled(reason) => build(py, "cancelled", (key(), reason as u8)),
        Detail::Died(death) => {
            let rows: Vec<_> = (0..death.workers.len())
                .map(|at| {
                    let code = death.exit_codes.at(at) as i32;
                    (death.workers.at(at), death.pids.at(at), death.signals.at(at), code, death.causes[at])
                })
                .collect();
            let last = (death.worker, death.pid, death.signal, death.exit_code, death.cause);
            let memory = (death.memory_limit, death.memory_peak, death.group_others);
            let stderr = PyBytes::new(py, death.stderr);
            let key = inner_or(death.key, key);
            build(py, "died", (key, death.attempts, death.limit, death.cause, stderr, memory, last, rows))
        }
        Detail::TimedOut(Overrun { queued, worker, attempt, limit_ms, failures, key: inner }) => {
            build(py, "timed_out", (inner_or(inner, key), queued, worker, attempt, limit_ms, failures))
        }
        Detail::Refused(text) => build(py, "refused", (key(), text)),
    };
    failure.map(Err)
}

/// The exception for a task whose ending never came because the session is over.
pub(crate) fn lost(py: Python<'_>, session: &Session, key: String) -> PyResult<Py<PyAny>> {
    let Some(Farewell { side, reason, text }) = session.farewell() else {
        return Err(PyRuntimeError::new_err("the session is open; this is a bug in headrace"));
    };
    let by_us = side == Side::Client;
    build(py, "lost", (key, by_us, reason.map(|reason| reason as u8), text))
}

/// The key of the task that failed: of one in a graph which has taken the other's place, if it was that.
fn inner_or(inner: &str, key: impl FnOnce() -> String) -> String {
    if inner.is_empty() { key() } else { inner.to_owned() }
}

fn build<'py>(py: Python<'py>, kind: &str, details: impl pyo3::call::PyCallArgs<'py>) -> PyResult<Py<PyAny>> {
    Ok(py.import("headrace.failures")?.getattr(kind)?.call1(details)?.unbind())
}
