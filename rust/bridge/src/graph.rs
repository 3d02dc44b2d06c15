//! A graph of tasks under construction: columns, and the functions they cite.
//!
//! A task is encoded into a scratch buffer first, where Python may run, and appended to the columns under the lock, where
//! it may not. So a graph may be built by several threads, and by an argument's own `__reduce__`.
mod again;
mod batch;
mod call;
mod columns;
mod functions;
mod held;
mod keys;
mod large;
mod map;
mod mapping;
mod reduce;
mod split;
mod submission;

use std::cell::Cell;
use std::ffi::CStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyException, PyKeyError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyIterator, PyList, PyTuple};

use headrace_wire::EXTERNAL;

use crate::codec::{Encoder, External, ExternalId, Keywords, LargeId, LiveObjects, Passed, decode_args_live};
use crate::errors::{graph_error, is_usage_error, usage_error};
use crate::fastcall::FastMethod;
use crate::node::Node;
use crate::nodes::Nodes;

use batch::BatchCiting;
use columns::{Batch, Columns};
use functions::{LastEntry, identity, policy_parts};
use held::Held;

pub(crate) use call::{EncodedCall, encode_call};
pub(crate) use columns::Options;
pub(crate) use functions::{Described, Entry, Function, Functions, PolicyParts, describe, encoded_policy};
pub(crate) use submission::{FunctionColumns, GraphData};

/// Tasks of a graph whose indices fit beside the mark of external predecessors.
const TASKS_MAX: usize = EXTERNAL as usize - 1;

#[cold]
fn too_many_tasks(py: Python<'_>) -> PyErr {
    graph_error(py, "a graph holds at most 2,147,483,647 tasks")
}

/// A graph of tasks: a value that grows by `add`, `map` and `reduce` and is submitted as often as wanted.
///
/// Arguments are encoded when a task is added, so that changing them later changes nothing. With `by_reference=True`
/// they stay the objects that they are, for the modes `threads` and `sync`.
#[pyclass(frozen, subclass, weakref, mapping, module = "headrace._core", name = "Graph")]
pub(crate) struct Graph {
    data: Mutex<GraphData>,
    held: Held,
    last: LastEntry,
    is_by_reference: bool,
}

/// Largest buffer that a thread keeps between two tasks.
const ENCODER_BYTES_KEPT: usize = 1 << 20;

thread_local! {
    /// This thread's encoder while nobody uses it.
    static ENCODER: Cell<Option<Box<Encoder>>> = const { Cell::new(None) };
}

/// Lends this thread's encoder, empty, to `run`.
fn with_encoder<R>(home: usize, run: impl FnOnce(&mut Encoder) -> R) -> R {
    let mut encoder = ENCODER.take().unwrap_or_else(|| Box::new(Encoder::new(home)));
    encoder.reset(home);
    let answer = run(&mut encoder);
    if encoder.holds_objects() {
        // It came to an error, or every task of several had them.
        encoder.reset(home);
    }
    if encoder.out.capacity() <= ENCODER_BYTES_KEPT {
        ENCODER.set(Some(encoder));
    }
    answer
}

impl Graph {
    /// The tasks, for as long as the guard lives. Python must not run meanwhile.
    pub(crate) fn lock(&self) -> MutexGuard<'_, GraphData> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether arguments are live objects.
    pub(crate) fn is_by_reference(&self) -> bool {
        self.is_by_reference
    }

    /// The number of tasks.
    pub(crate) fn len(&self) -> usize {
        self.lock().columns.len()
    }

    /// The key of a task.
    pub(crate) fn key_of(&self, index: u32) -> String {
        self.lock().key_of(index)
    }

    /// The option `nout` of a task; 0 if it has none.
    pub(crate) fn nout_of(&self, index: u32) -> u32 {
        self.lock().columns.options_of(index).map_or(0, |options| options.nout)
    }

    /// The predecessors of a task within the graph.
    pub(crate) fn predecessors_of(&self, index: u32) -> Vec<u32> {
        let columns = &mut self.lock().columns;
        if index as usize >= columns.len() {
            return Vec::new();
        }
        columns.deps_of(index).iter().copied().filter(|dep| dep & EXTERNAL == 0).collect()
    }

    fn address(slf: &Bound<'_, Self>) -> usize {
        slf.as_ptr() as usize
    }

    /// What the graph knows of a callable, described and pickled now if it is new.
    fn entry(slf: &Bound<'_, Self>, callable: &Bound<'_, PyAny>, verb: &str) -> PyResult<Entry> {
        let graph = slf.get();
        if let Some(entry) = graph.last.get(&callable.as_borrowed()) {
            return Ok(entry);
        }
        let identity = identity(callable);
        let known = graph.lock().functions.known(identity);
        if let Some(entry) = known {
            if entry.key.is_none() && identity.0 == callable.as_ptr() as usize {
                graph.last.set(&callable.as_borrowed(), entry);
            }
            return Ok(entry);
        }
        let described = describe(callable, verb)?;
        let is_known = graph.is_by_reference() || graph.lock().functions.has(&described);
        let blob = if is_known { Arc::default() } else { described.capture(slf.py(), verb)? };
        let mut data = graph.lock();
        let option_row = data.columns.option_row(described.options.clone());
        Ok(data.functions.insert(&graph.held, callable, described, blob, option_row))
    }

    /// Encodes the arguments of one task; an argument that cannot be pickled is named.
    #[inline]
    fn encode(
        &self,
        encoder: &mut Encoder,
        callable: &Bound<'_, PyAny>,
        passed: Passed<'_, '_>,
        verb: &str,
    ) -> PyResult<()> {
        let encoded = if self.is_by_reference { encoder.arguments_live(passed) } else { encoder.arguments(passed) };
        encoded.map_err(|error| explain(error, verb, callable, passed))?;
        check_length(callable, encoder.out.len())
    }

    /// Adds the task that `passed` describes: the function, then its arguments.
    pub(crate) fn add<'py>(slf: &Bound<'py, Self>, passed: Passed<'_, 'py>) -> PyResult<Bound<'py, Node>> {
        let (callable, passed) = split(passed, "add")?;
        let graph = slf.get();
        let entry = Graph::entry(slf, callable, "add")?;
        let index = with_encoder(Graph::address(slf), |encoder| {
            graph.encode(encoder, callable, passed, "add")?;
            graph.lock().push(slf.py(), &graph.held, entry, encoder)
        })?;
        Bound::new(slf.py(), Node::new(slf, index))
    }
}

/// `Graph.add`, the method that runs once per task.
pub(crate) struct Add;

impl FastMethod for Add {
    type Class = Graph;
    const NAME: &CStr = c"add";
    const DOC: &CStr =
        c"add($self, fn, /, *args, **kwargs)\n--\n\nAdd the task `fn(*args, **kwargs)` and return its node.

Args:
    fn: the function, or a task object with options.
    *args: for the function. Nodes of this graph may stand anywhere in them, at any depth.
    **kwargs: for the function, likewise.

Raises:
    ArgumentNotPicklable: the function or an argument cannot travel; the text names the attribute at fault.
    GraphError: a node belongs to another graph, or the key is taken.
    UsageError: `fn` cannot be called, or is async.

Cost: 0.1 to 0.2 microseconds for small arguments; a pickle for what has no short form. Buffers of 1 MiB or
more, as of arrays, are held and not copied: they must not change until the graph was submitted.";

    #[inline]
    fn call<'py>(slf: &Bound<'py, Graph>, passed: Passed<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(Graph::add(slf, passed)?.into_any())
    }
}

/// Refuses arguments whose length no column can hold.
#[inline]
pub(crate) fn check_length(callable: &Bound<'_, PyAny>, bytes: usize) -> PyResult<()> {
    if u32::try_from(bytes).is_ok() {
        return Ok(());
    }
    let text =
        format!("the arguments of a task of {callable} take {bytes} bytes; write the data to a file and pass its path");
    Err(usage_error(callable.py(), &text))
}

/// Names the argument, and the part of it, that made the encoding of a task fail.
#[cold]
pub(crate) fn explain(error: PyErr, verb: &str, callable: &Bound<'_, PyAny>, passed: Passed<'_, '_>) -> PyErr {
    static ARGUMENT_ERROR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = callable.py();
    if !error.is_instance_of::<PyException>(py) || is_usage_error(py, &error) {
        return error;
    }
    let explained = || {
        let explain = ARGUMENT_ERROR.import(py, "headrace.pickling", "argument_error")?;
        let (args, kwargs) = passed.to_python(py)?;
        explain.call1((verb, callable, args, kwargs, error.value(py)))
    };
    explained().map_or_else(|error| error, PyErr::from_value)
}

/// Splits off the function that every verb takes first.
fn split<'a, 'py>(passed: Passed<'a, 'py>, verb: &str) -> PyResult<(&'a Bound<'py, PyAny>, Passed<'a, 'py>)> {
    passed
        .split_first()
        .ok_or_else(|| PyTypeError::new_err(format!("{verb}() needs the function as its first argument")))
}

#[pymethods]
impl Graph {
    #[new]
    #[pyo3(signature = (*, by_reference = false))]
    fn new(by_reference: bool) -> Self {
        Self {
            data: Mutex::default(),
            held: Held::default(),
            last: LastEntry::default(),
            is_by_reference: by_reference,
        }
    }

    /// Add one task for each step through the iterables together, and return the nodes.
    ///
    /// Args:
    ///     fn: the function, or a task object with options.
    ///     *iterables: stepped through together, and equally long; what they yield are the positional arguments.
    ///     **constants: keyword arguments that every task gets. One longer than 64 KiB becomes a task of its own, so
    ///         that it travels once; one of 1 MiB or more goes into shared memory by itself.
    ///
    /// Raises:
    ///     ArgumentNotPicklable: the function or an argument cannot travel; the text names the attribute at fault.
    ///     GraphError: the iterables are not equally long, or one is a str, bytes, dict, set or node. Then nothing was
    ///         added.
    ///
    /// Cost: as `add`, less a call a task; 0.01 microseconds for a `range`.
    #[pyo3(signature = (*args, **constants), text_signature = "($self, fn, /, *iterables, **constants)")]
    fn map<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        constants: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Nodes> {
        let keywords = Keywords::from(constants);
        let (callable, passed) = split(Passed::positional(args.as_slice()).with(&keywords), "map")?;
        map::map(slf, callable, passed)
    }

    /// Folds the results of `nodes` in a tree of tasks; see `Graph.reduce` in Python.
    #[pyo3(signature = (step, nodes, arity, initial = None))]
    fn _reduce<'py>(
        slf: &Bound<'py, Self>,
        step: &Bound<'py, PyAny>,
        nodes: &Bound<'py, PyAny>,
        arity: usize,
        initial: Option<Bound<'py, PyTuple>>,
    ) -> PyResult<Py<Node>> {
        reduce::reduce(slf, step, nodes, arity, initial)
    }

    /// Fills this empty graph from a mapping by Dask's convention.
    fn _fill<'py>(slf: &Bound<'py, Self>, mapping: &Bound<'py, PyDict>) -> PyResult<()> {
        mapping::fill(slf, mapping)
    }

    /// Fills this empty graph with some tasks of another, and all that they need.
    fn _cull<'py>(slf: &Bound<'py, Self>, graph: &Bound<'py, Graph>, nodes: &Bound<'py, PyAny>) -> PyResult<()> {
        let wanted = Graph::select(graph, nodes, "subgraph()")?;
        let py = slf.py();
        let (culled, externals) = graph.get().lock().subgraph(&wanted);
        let objects = graph.get().held.lock(py).share(py, &externals);
        let _empty = std::mem::replace(&mut *slf.get().held.lock(py), objects);
        let _empty = std::mem::replace(&mut *slf.get().lock(), culled);
        Ok(())
    }

    /// Fills this empty graph with the first `count` tasks of another, for a run that makes good what went wrong in one of
    /// that: only those of `again` run as they are, and `taken` are the refs that stand for results of others.
    fn _again<'py>(
        slf: &Bound<'py, Self>,
        graph: &Bound<'py, Graph>,
        count: u32,
        again: Vec<u32>,
        taken: Vec<(u32, Bound<'py, PyAny>)>,
    ) -> PyResult<()> {
        Graph::fill_again(slf, graph, count, &again, &taken)
    }

    /// Whether arguments stay the objects that they are.
    #[getter]
    fn by_reference(&self) -> bool {
        self.is_by_reference()
    }

    fn __len__(&self) -> usize {
        self.len()
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __getitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<Py<Node>> {
        let text = key.str()?;
        let text = text.to_str()?;
        match slf.get().lock().index_of(text) {
            Some(index) => Py::new(slf.py(), Node::new(slf, index)),
            None => Err(PyKeyError::new_err(format!("no task of this graph has the key {}", key.repr()?))),
        }
    }

    fn __contains__(slf: &Bound<'_, Self>, item: &Bound<'_, PyAny>) -> PyResult<bool> {
        if let Ok(node) = item.cast_exact::<Node>() {
            return Ok(node.get().graph_address() == Graph::address(slf));
        }
        Ok(slf.get().lock().index_of(item.str()?.to_str()?).is_some())
    }

    fn __iter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyIterator>> {
        Nodes::range(slf, 0, slf.get().len() as u32).__iter__(slf.py())
    }

    /// All tasks in the order in which they were added.
    #[getter]
    fn nodes(slf: &Bound<'_, Self>) -> Nodes {
        Nodes::range(slf, 0, slf.get().len() as u32)
    }

    /// The tasks that no other task needs.
    #[getter]
    fn sinks(slf: &Bound<'_, Self>) -> Nodes {
        let sinks = slf.get().lock().columns.sinks();
        Nodes::list(slf, sinks)
    }

    /// (tasks, edges, functions, sinks) of the graph now.
    fn _counts(&self) -> (usize, usize, usize, usize) {
        let data = self.lock();
        let columns = &data.columns;
        let (_, edges) = data.edges(columns.len());
        (columns.len(), edges.len(), columns.function_count(), columns.sinks().len())
    }

    /// Indices of the tasks named by `keep` (nodes, keys, sequences of them), each once in their order; the sinks if
    /// `keep` is None.
    #[pyo3(signature = (keep = None))]
    fn _keep(slf: &Bound<'_, Self>, keep: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<u32>> {
        Graph::resolve_keep(slf, keep)
    }

    /// Indices of the predecessors of a task within the graph.
    fn _predecessors(&self, index: u32) -> PyResult<Vec<u32>> {
        self.check(index)?;
        Ok(self.predecessors_of(index))
    }

    /// Name of the function of a task.
    fn _name(&self, index: u32) -> PyResult<String> {
        self.check(index)?;
        let data = self.lock();
        Ok(data.functions.table[data.columns.task_function[index as usize] as usize].name.to_string())
    }

    /// The key of a task.
    fn _key(&self, index: u32) -> PyResult<String> {
        self.check(index)?;
        Ok(self.key_of(index))
    }

    /// The results that a task cites, in that order: an index of this graph, or the future or ref.
    fn _inputs<'py>(&self, py: Python<'py>, index: u32) -> PyResult<Bound<'py, PyList>> {
        self.check(index)?;
        let inputs = {
            let mut data = self.lock();
            let held = self.held.lock(py);
            let GraphData { columns, externals, .. } = &mut *data;
            let cited = |&dep: &u32| match dep & EXTERNAL {
                0 => Some(Ok(dep)),
                _ => match externals[(dep & !EXTERNAL) as usize] {
                    ExternalId::Result { .. } => Some(Err(held.externals[(dep & !EXTERNAL) as usize].clone_ref(py))),
                    ExternalId::Large(_) => None,
                },
            };
            columns.deps_of(index).iter().filter_map(cited).collect::<Vec<_>>()
        };
        let list = PyList::empty(py);
        for input in inputs {
            match input {
                Ok(index) => list.append(index)?,
                Err(object) => list.append(object)?,
            }
        }
        Ok(list)
    }

    /// Whether any task may have another policy than the default one.
    #[getter]
    fn _has_policies(&self) -> bool {
        self.lock().columns.options.iter().any(|options| !options.policy.is_empty())
    }

    /// Indices of the tasks that may not stand ready for ever.
    fn _hurried(&self) -> Vec<u32> {
        let data = self.lock();
        let is_hurried =
            |index: &u32| data.columns.options_of(*index).is_some_and(|options| options.policy().queue_timeout_ms > 0);
        (0..data.columns.len() as u32).filter(is_hurried).collect()
    }

    /// The policy of a task, as `headrace.options.policy_of` gave it, and what the task calls; None for the default policy.
    fn _policy(&self, py: Python<'_>, index: u32) -> PyResult<Option<(PolicyParts, Py<PyAny>)>> {
        self.check(index)?;
        let data = self.lock();
        let Some(options) = data.columns.options_of(index).filter(|options| !options.policy.is_empty()) else {
            return Ok(None);
        };
        let function = data.columns.task_function[index as usize] as usize;
        Ok(Some((policy_parts(&options.policy()), self.held.lock(py).callables[function].clone_ref(py))))
    }

    /// What a task calls, and `pack(*args, **kwargs)` of its arguments, given the results of what it cites in the order of
    /// `_inputs`. The call itself is left to Python: no native frame may stand below it on a thread that the end of the
    /// interpreter stops.
    fn _bind<'py>(
        &self,
        py: Python<'py>,
        index: u32,
        inputs: Vec<Py<PyAny>>,
        pack: &Bound<'py, PyAny>,
    ) -> PyResult<(Py<PyAny>, Bound<'py, PyAny>)> {
        self.check(index)?;
        let (args, function) = {
            let mut data = self.lock();
            let function = data.columns.task_function[index as usize] as usize;
            (data.columns.args_of(index).to_vec(), self.held.lock(py).callables[function].clone_ref(py))
        };
        let inputs = self.with_large(py, index, inputs)?;
        let mut dep = |k: u32| match inputs.get(k as usize) {
            Some(input) => Ok(input.clone_ref(py)),
            None => Err(graph_error(py, &format!("task {index} cites {} results", k + 1))),
        };
        let live = |number: u32| {
            let object = self.held.lock(py).live.get(number as usize).map(|object| object.clone_ref(py));
            object.ok_or_else(|| graph_error(py, "not a by-reference graph"))
        };
        let arguments = decode_args_live(py, &args, &mut dep, &live)?;
        drop(inputs);
        Ok((function, arguments.call(pack)?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.held.traverse(&visit)
    }

    fn __clear__(&self) {
        self.last.clear();
        // Nobody is left who could hold the lock.
        let data = self.data.try_lock().map(|mut data| std::mem::take(&mut *data)).ok();
        drop((data, self.held.take()));
    }
}

impl Graph {
    fn check(&self, index: u32) -> PyResult<()> {
        if (index as usize) < self.len() {
            Ok(())
        } else {
            Err(pyo3::exceptions::PyIndexError::new_err(format!("the graph has no task {index}")))
        }
    }
}
