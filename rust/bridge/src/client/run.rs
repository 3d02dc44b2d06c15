//! The native half of a run: which results it keeps, and those that were read.
use std::sync::Arc;

use headrace_runtime::inproc::Interest;
use pyo3::exceptions::PyTimeoutError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;
use smallvec::SmallVec;

use super::ClientCore;
use super::failures::{self, Outcome, error};
use super::keep::Keep;
use super::reference::root_of;
use super::results::{Results, Slot};
use super::session::{Deadline, Session};
use super::submit::Terms;
use crate::errors::{graph_error, usage_error};
use crate::graph::Graph;
use crate::node::Node;

/// A submitted graph. Base of `headrace.Run`, which adds what need not be fast.
#[pyclass(frozen, subclass, weakref, module = "headrace._core")]
pub(crate) struct RunCore {
    pub(super) session: Arc<Session>,
    pub(super) run: u32,
    /// Tasks of the run; the graph may have grown since.
    pub(super) tasks: u32,
    pub(super) graph: Py<Graph>,
    pub(super) keep: Keep,
    pub(super) results: Results,
}

/// Results read at a time.
const READ_AHEAD: usize = 64;

#[pymethods]
impl RunCore {
    /// Submits `graph` to the client with this core; or `anew` in its place, which has a task of the same meaning for each.
    #[new]
    #[pyo3(signature = (client, core, graph, keep, terms = (0, 0, false), anew = None))]
    fn new<'py>(
        client: &Bound<'py, PyAny>,
        core: &Bound<'py, ClientCore>,
        graph: &Bound<'py, PyAny>,
        keep: Option<&Bound<'py, PyAny>>,
        terms: Terms,
        anew: Option<&Bound<'py, Graph>>,
    ) -> PyResult<Self> {
        let py = client.py();
        let Ok(graph) = graph.cast::<Graph>() else {
            return Err(usage_error(py, &format!("submit takes a Graph, not {}", graph.get_type().name()?)));
        };
        let indices = Graph::resolve_keep(graph, keep)?;
        let (run, tasks) = core.get().submit(py, anew.unwrap_or(graph).get(), &indices, terms)?;
        core.get().session.note_graph(run, graph.clone().unbind());
        Ok(Self {
            session: Arc::clone(&core.get().session),
            run,
            tasks,
            graph: graph.clone().unbind(),
            results: Results::unread(indices.len()),
            keep: Keep::new(indices),
        })
    }

    /// Number of the run in its session.
    #[getter]
    fn number(&self) -> u32 {
        self.run
    }

    /// The graph that was submitted.
    #[getter]
    fn graph(&self, py: Python<'_>) -> Py<Graph> {
        self.graph.clone_ref(py)
    }

    /// The result of a kept task, given its node or key; waits for it at most `timeout` seconds.
    #[pyo3(signature = (node = None, timeout = None))]
    fn result<'py>(
        slf: &Bound<'py, Self>,
        node: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Py<PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let position = this.position(py, node)?;
        if let Some(value) = this.results.value(py, position) {
            return Ok(value);
        }
        this.wait_for(py, position, timeout)?;
        this.value(py, position)
    }

    /// The results of all kept tasks, in the order of `keep`; waits for them at most `timeout` seconds together.
    #[pyo3(signature = (timeout = None))]
    fn results<'py>(slf: &Bound<'py, Self>, timeout: Option<f64>) -> PyResult<Bound<'py, PyList>> {
        let (py, this) = (slf.py(), slf.get());
        this.wait_for_all(py, timeout)?;
        for position in (0..this.keep.len()).step_by(READ_AHEAD) {
            this.read_ahead(py, position);
        }
        if let Ok(values) = this.results.values(py) {
            return PyList::new(py, values);
        }
        let values = (0..this.keep.len()).map(|position| this.value(py, position)).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, values)
    }

    /// Whether every task has ended.
    fn done(&self, py: Python<'_>) -> PyResult<bool> {
        self._wait_end(py, Some(0.0))
    }

    /// Waits until every task has ended; false if the time is over before.
    #[pyo3(signature = (timeout = None))]
    fn _wait_end(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let run = self.run;
        let found = self.session.wait(py, Interest::RunEnd { run }, Deadline::after(timeout), |state| {
            (state.tables.has_finished(run) || state.tables.is_over()).then_some(())
        })?;
        Ok(found.is_some())
    }

    /// The next kept task to end, from a position among the arrivals on, as (next position, index); waits for it.
    #[pyo3(signature = (position, timeout = None))]
    fn _next_arrival(&self, py: Python<'_>, position: usize, timeout: Option<f64>) -> PyResult<Option<(usize, u32)>> {
        let Self { run, keep, .. } = self;
        let run = *run;
        let mut position = position;
        let found = self.session.wait(py, Interest::Run { run }, Deadline::after(timeout), |state| {
            let tables = &state.tables;
            for &index in tables.arrivals(run, position) {
                position += 1;
                if keep.position(index).is_some() {
                    return Some(Some((position, index)));
                }
            }
            (tables.has_finished(run) || tables.is_over()).then_some(None)
        })?;
        match found {
            Some(None) if self.session.farewell().is_some() => {
                Err(PyErr::from_value(failures::lost(py, &self.session, format!("run {run}"))?.into_bound(py)))
            }
            Some(None) => Err(self.released(py, &format!("run {run}"))),
            found => Ok(found.flatten()),
        }
    }

    /// What a kept task left, as (value, None) or (None, exception); it has ended.
    fn _outcome(&self, py: Python<'_>, index: u32) -> PyResult<super::Left> {
        let position = self.position_of(py, index)?;
        match self.read(py, position)? {
            Ok(value) => Ok((Some(value), None)),
            Err(error) => Ok((None, Some(error))),
        }
    }

    /// The index of a task of the run, kept or not, given its node or key.
    fn _index<'py>(slf: &Bound<'py, Self>, node: &Bound<'py, PyAny>) -> PyResult<u32> {
        let (py, this) = (slf.py(), slf.get());
        let index = match node.cast_exact::<Node>() {
            Ok(node) => node.get().index_in(py, this.graph.as_ptr() as usize)?,
            Err(_) => this.index_of(py, node)?,
        };
        if index >= this.tasks {
            return Err(this.not_kept(py, index)); // it was added later
        }
        Ok(index)
    }

    /// How a task has ended that did not end well, or is kept: as the exception that tells of it, or None for a value.
    /// An error if nothing is known.
    fn _ending(&self, py: Python<'_>, index: u32) -> PyResult<Option<Py<PyAny>>> {
        let Some(ending) = self.session.peek(py, self.run, index) else {
            return Err(error(py, "ResultReleased", &format!("'{}' was released", self.graph.get().key_of(index))));
        };
        let key = || self.graph.get().key_of(index);
        let root = |run, root| self.root(py, run, root);
        Ok(failures::outcome(py, &self.session, &ending, key, root)?.err())
    }

    /// Number of tasks.
    #[getter]
    fn _tasks(&self) -> u32 {
        self.tasks
    }

    /// Number of kept tasks.
    #[getter]
    fn _kept(&self) -> usize {
        self.keep.len()
    }

    /// Indices of the kept tasks, in the order of `keep`.
    #[getter]
    fn _keep(&self) -> Vec<u32> {
        self.keep.indices().to_vec()
    }

    /// The node of a task.
    fn _node(&self, py: Python<'_>, index: u32) -> PyResult<Py<Node>> {
        Py::new(py, Node::new(self.graph.bind(py), index))
    }

    /// Tasks by how they ended: (all, ended, failed, skipped, cancelled), as far as the broker told.
    fn _counts(&self) -> Option<(u64, u64, u64, u64, u64)> {
        self.session.lock().tables.counts(self.run)
    }

    /// Indices of the tasks that did not end well, in the order in which that was told.
    fn _ended_badly(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        self.ended_badly(py)
    }

    /// Indices of the tasks that are to run again to make good what did not end well, and of those whose results stand.
    fn _plan_again(&self, py: Python<'_>) -> PyResult<(Vec<u32>, Vec<u32>)> {
        self.plan_again(py)
    }

    /// Waits for a kept task, for at most so many seconds; what it left, as (value, None) or (None, exception).
    #[pyo3(signature = (index, timeout = None))]
    fn _wait_outcome(&self, py: Python<'_>, index: u32, timeout: Option<f64>) -> PyResult<super::Left> {
        let position = self.position_of(py, index)?;
        self.wait_for(py, position, timeout)?;
        self._outcome(py, index)
    }

    /// Adds a holder to a kept result, for a ref to take over; the answer is its index and its key.
    fn _hold<'py>(slf: &Bound<'py, Self>, node: &Bound<'py, PyAny>) -> PyResult<(u32, String)> {
        let (py, this) = (slf.py(), slf.get());
        this.session.check_process(py)?;
        let position = this.position(py, Some(node))?;
        let key = this.key(position);
        if this.results.is_released(position) {
            return Err(this.released(py, &key));
        }
        let index = this.keep.at(position);
        this.session.command(|tables| tables.hold(this.run, index));
        Ok((index, key))
    }

    /// Lets go of one kept result.
    fn _release_one(&self, py: Python<'_>, index: u32) -> PyResult<()> {
        let position = self.position_of(py, index)?;
        if self.results.release(position) {
            self.session.command(|tables| tables.release_one(self.run, index));
            self.session.drop_discarded();
        }
        Ok(())
    }

    /// Lets go of the results: they can no longer be read here. Refs keep theirs. May be called twice.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.session.check_process(py)?;
        self.results.release_all();
        self.session.command(|tables| tables.release(self.run));
        self.session.drop_discarded();
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.graph)?;
        self.results.traverse(&visit)
    }

    fn __clear__(&self) {
        self.results.clear();
    }
}

impl RunCore {
    /// The position in `keep` of what `result` was asked for.
    #[inline]
    fn position(&self, py: Python<'_>, node: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        match node {
            Some(node) => {
                let index = match node.cast_exact::<Node>() {
                    Ok(node) => node.get().index_in(py, self.graph.as_ptr() as usize)?,
                    Err(_) => self.index_of(py, node)?,
                };
                self.position_of(py, index)
            }
            None if self.keep.len() == 1 => Ok(0),
            None => {
                let text = format!("this run keeps {} results; say which one: run.result(node)", self.keep.len());
                Err(usage_error(py, &text))
            }
        }
    }

    #[inline]
    fn position_of(&self, py: Python<'_>, index: u32) -> PyResult<usize> {
        match self.keep.position(index) {
            Some(position) => Ok(position),
            None => Err(self.not_kept(py, index)),
        }
    }

    fn index_of(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<u32> {
        if key.is_instance_of::<crate::nodes::Nodes>() {
            return Err(usage_error(py, "result() takes one node; for many: [run.result(node) for node in nodes]"));
        }
        let text = key.str()?;
        let index = self.graph.get().lock().index_of(text.to_str()?);
        index.ok_or_else(|| graph_error(py, &format!("no task of this run has the key '{text}'")))
    }

    #[cold]
    fn not_kept(&self, py: Python<'_>, index: u32) -> PyErr {
        let key = self.graph.get().key_of(index);
        if index >= self.tasks {
            return graph_error(
                py,
                &format!("task '{key}' was added after this run was submitted; submit the graph again"),
            );
        }
        error(
            py,
            "NotKept",
            &format!("this run does not keep the result of '{key}'; name it in submit(graph, keep=[...])"),
        )
    }

    #[cold]
    fn released(&self, py: Python<'_>, what: &str) -> PyErr {
        error(py, "ResultReleased", &format!("'{what}' was released; its result can no longer be read"))
    }

    fn key(&self, position: usize) -> String {
        self.graph.get().key_of(self.keep.at(position))
    }

    fn wait_for(&self, py: Python<'_>, position: usize, timeout: Option<f64>) -> PyResult<()> {
        if self.results.is_read(position) {
            return Ok(());
        }
        let (run, index) = (self.run, self.keep.at(position));
        let found = self.session.wait(py, Interest::Task { run, index }, Deadline::after(timeout), |state| {
            (state.tables.has_ended(run, index) || state.tables.is_over()).then_some(())
        })?;
        match found {
            Some(()) => Ok(()),
            None => {
                let text = format!("'{}' has not ended within {} s", self.key(position), timeout.unwrap_or_default());
                Err(PyTimeoutError::new_err(text))
            }
        }
    }

    /// Waits for the last in the list that is missing, until none is: so the broker wakes this thread as rarely as can be.
    fn wait_for_all(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let deadline = Deadline::after(timeout);
        let run = self.run;
        let mut missing = self.keep.len();
        loop {
            let state = self.session.lock();
            let is_over = state.tables.is_over();
            let is_there = |position| is_over || state.tables.has_ended(run, self.keep.at(position));
            while missing > 0 && (is_there(missing - 1) || self.results.is_read(missing - 1)) {
                missing -= 1;
            }
            drop(state);
            let Some(last) = missing.checked_sub(1) else { return Ok(()) };
            let index = self.keep.at(last);
            let found = self.session.wait(py, Interest::Task { run, index }, deadline, |state| {
                (state.tables.has_ended(run, index) || state.tables.is_over()).then_some(())
            })?;
            if found.is_none() {
                let text = format!(
                    "{missing} of {} results have not come within {} s",
                    self.keep.len(),
                    timeout.unwrap_or_default()
                );
                return Err(PyTimeoutError::new_err(text));
            }
        }
    }

    /// What a kept task left, which has ended; an error if it was let go of.
    fn read(&self, py: Python<'_>, position: usize) -> PyResult<Outcome> {
        if let Some(outcome) = self.read_before(py, position)? {
            return Ok(outcome);
        }
        self.read_ahead(py, position);
        if let Some(outcome) = self.read_before(py, position)? {
            return Ok(outcome);
        }
        let index = self.keep.at(position);
        let ending = self.session.peek(py, self.run, index);
        let outcome = match &ending {
            Some(ending) => failures::outcome(
                py,
                &self.session,
                ending,
                || self.key(position),
                |run, root| self.root(py, run, root),
            )?,
            // Another thread has read it just now, or it will never come.
            None => match self.read_before(py, position)? {
                Some(outcome) => return Ok(outcome),
                None => Err(failures::lost(py, &self.session, self.key(position))?),
            },
        };
        match (&outcome, &ending) {
            (Ok(value), Some(ending)) if ending.is_large() => self.results.put_weakly(position, value.bind(py)),
            // Why a task failed stays in the table: it may be the cause of failures in other runs.
            (Err(error), _) => self.results.put(position, Err(error.clone_ref(py))),
            (Ok(value), _) => {
                self.session.lock().tables.forget_value(self.run, index);
                self.results.put(position, Ok(value.clone_ref(py)));
                self.session.drop_discarded();
                // The first reader's object is everybody's.
                return Ok(self.read_before(py, position)?.unwrap_or(outcome));
            }
        }
        Ok(outcome)
    }

    /// The same, if it was read before.
    fn read_before(&self, py: Python<'_>, position: usize) -> PyResult<Option<Outcome>> {
        match self.results.get(py, position) {
            Slot::Value(value) => Ok(Some(Ok(value))),
            Slot::Error(error) => Ok(Some(Err(error))),
            Slot::Unread | Slot::Weak(_) => Ok(None),
            Slot::Released => Err(self.released(py, &self.key(position))),
        }
    }

    /// Reads the row of small atoms from a position on, under one lock instead of several for each: whoever asks for one
    /// result often asks for the next. Decoding an atom has no side effect.
    fn read_ahead(&self, py: Python<'_>, position: usize) {
        if self.results.is_read(position) {
            return;
        }
        let end = self.keep.len().min(position + READ_AHEAD);
        let mut values = SmallVec::<[Py<PyAny>; READ_AHEAD]>::new();
        let state = self.session.lock();
        for ahead in position..end {
            let Some(value) = state.tables.peek_atom(py, self.run, self.keep.at(ahead)) else { break };
            values.push(value);
        }
        drop(state);
        self.results.put_row(position, values);
    }

    /// The value at a position, or its error.
    fn value(&self, py: Python<'_>, position: usize) -> PyResult<Py<PyAny>> {
        self.read(py, position)?.map_err(|error| PyErr::from_value(error.into_bound(py)))
    }

    /// Key and exception of a task that was the cause of another's ending, as far as they are known.
    fn root(&self, py: Python<'_>, run: u32, root: u32) -> PyResult<(Option<String>, Option<Py<PyAny>>)> {
        if run != self.run {
            return root_of(py, &self.session, run, root);
        }
        if let Some(position) = self.keep.position(root)
            && let Err(error) = self.read(py, position)?
        {
            return Ok((Some(self.graph.get().key_of(root)), Some(error)));
        }
        root_of(py, &self.session, run, root)
    }
}

impl Drop for RunCore {
    fn drop(&mut self) {
        if self.session.is_forked() {
            return; // the lock may be held by a thread that is not here
        }
        self.session.command(|tables| tables.release(self.run));
        drop(self.session.forget_graph(self.run));
        self.session.drop_discarded();
    }
}
