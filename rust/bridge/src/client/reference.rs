//! What futures and refs are made of: a result by name, held for as long as the object lives.
use std::sync::Arc;

use headrace_runtime::inproc::Interest;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::ClientCore;
use super::failures;
use super::session::{Deadline, Session};

/// A result of a session, held while this object lives. Base of futures and refs.
#[pyclass(frozen, subclass, weakref, module = "headrace._core")]
pub(crate) struct ExternalRef {
    session: Arc<Session>,
    run: u32,
    index: u32,
}

#[pymethods]
impl ExternalRef {
    /// Takes over one holder of a result, which `call` or `Run._hold` has added.
    #[new]
    #[pyo3(signature = (core, run, index, *_rest))]
    fn new(core: &ClientCore, run: u32, index: u32, _rest: &Bound<'_, PyTuple>) -> Self {
        Self { session: Arc::clone(&core.session), run, index }
    }

    /// Number of the client's session.
    #[getter]
    fn session(&self) -> u64 {
        self.session.number
    }

    /// Number of the run; 0 for single calls.
    #[getter]
    fn run(&self) -> u32 {
        self.run
    }

    /// Index of the task within the run.
    #[getter]
    fn index(&self) -> u32 {
        self.index
    }

    /// Whether the result can be read now.
    fn _arrived(&self, py: Python<'_>) -> PyResult<bool> {
        self._wait_arrival(py, Some(0.0))
    }

    /// Waits until the result can be read; false if the time is over before.
    #[pyo3(signature = (timeout = None))]
    fn _wait_arrival(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let Self { run, index, .. } = *self;
        let found = self.session.wait(py, Interest::Task { run, index }, Deadline::after(timeout), |state| {
            (state.tables.has_ended(run, index) || state.tables.is_over()).then_some(())
        })?;
        Ok(found.is_some())
    }

    /// What the task left, as (value, None) or (None, exception); it has ended.
    fn _outcome(&self, py: Python<'_>, key: String) -> PyResult<super::Left> {
        let Self { run, index, .. } = *self;
        let ending = self.session.peek(py, run, index);
        let outcome = match &ending {
            None => Err(failures::lost(py, &self.session, key)?),
            Some(ending) => {
                failures::outcome(py, &self.session, ending, || key, |run, root| root_of(py, &self.session, run, root))?
            }
        };
        Ok(match outcome {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        })
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        crate::codec::cite(slf.as_any())
    }
}

/// Key and exception of a task of any run that was the cause of another's ending, as far as they are known.
pub(super) fn root_of(
    py: Python<'_>,
    session: &Session,
    run: u32,
    root: u32,
) -> PyResult<(Option<String>, Option<Py<PyAny>>)> {
    let key = session.key_of(run, root);
    let ending = session.peek(py, run, root);
    let Some(ending) = ending else { return Ok((key, None)) };
    let name = || key.clone().unwrap_or_else(|| format!("task {root} of run {run}"));
    let outcome = failures::outcome(py, session, &ending, name, |_, _| Ok((None, None)))?;
    Ok((key, outcome.err()))
}

impl Drop for ExternalRef {
    fn drop(&mut self) {
        if self.session.is_forked() {
            return; // the lock may be held by a thread that is not here
        }
        self.session.command(|tables| tables.unhold(self.run, self.index));
        self.session.drop_discarded();
    }
}
