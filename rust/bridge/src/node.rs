//! A node: the handle to one task of a graph.
use std::hash::{Hash, Hasher};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyIterator;
use rustc_hash::FxHasher;

use crate::codec::reduce_node;
use crate::errors::graph_error;
use crate::graph::Graph;

/// What to do instead of handing a node over a border.
pub(crate) const REMEDY: &str =
    "submit that graph and pass the result by reference: `run.ref(node)` can be an argument of any graph or call";

/// The handle to one task of a graph. It may stand anywhere in the arguments of later tasks, and in `keep`.
///
/// Two nodes are equal if they stand for the same task.
#[pyclass(frozen, generic, module = "headrace")]
pub(crate) struct Node {
    graph: Py<Graph>,
    index: u32,
}

impl Node {
    pub(crate) fn new(graph: &Bound<'_, Graph>, index: u32) -> Self {
        Self { graph: graph.clone().unbind(), index }
    }

    /// What tells this node's graph from others.
    pub(crate) fn graph_address(&self) -> usize {
        self.graph.as_ptr() as usize
    }

    /// The index of the task, if it belongs to the graph at address `home`.
    #[inline]
    pub(crate) fn index_in(&self, py: Python<'_>, home: usize) -> PyResult<u32> {
        if self.graph_address() == home { Ok(self.index) } else { Err(foreign(py, &self.describe())) }
    }

    /// The node in an error text.
    pub(crate) fn describe(&self) -> String {
        format!("node '{}'", self.graph.get().key_of(self.index))
    }
}

/// The error for a node where its graph is not.
pub(crate) fn foreign(py: Python<'_>, what: &str) -> PyErr {
    graph_error(py, &format!("{what} belongs to another graph; {REMEDY}"))
}

/// A repr, for a notebook.
pub(crate) fn as_html(text: &str) -> String {
    format!("<code>{}</code>", text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
}

#[pymethods]
impl Node {
    /// The key of the task: `name-index`, or the one given by the option `key`.
    #[getter]
    fn key(&self) -> String {
        self.graph.get().key_of(self.index)
    }

    /// Index of the task within its graph.
    #[getter]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// The graph.
    #[getter]
    pub(crate) fn graph(&self, py: Python<'_>) -> Py<Graph> {
        self.graph.clone_ref(py)
    }

    /// The tasks that this one needs, each once, as nodes of the same graph.
    #[getter]
    fn predecessors(&self, py: Python<'_>) -> PyResult<Vec<Py<Node>>> {
        let graph = self.graph.bind(py);
        self.graph
            .get()
            .predecessors_of(self.index)
            .into_iter()
            .map(|index| Py::new(py, Node::new(graph, index)))
            .collect()
    }

    /// Splits a tuple result: each item becomes a task. The count comes from the option `nout` or, in `a, b = node`,
    /// from the assignment.
    fn __iter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyIterator>> {
        static UNPACK_COUNT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        let node = slf.get();
        let count = match node.graph.get().nout_of(node.index) {
            0 => UNPACK_COUNT.import(py, "headrace.steps", "unpack_count")?.call1((slf,))?.extract()?,
            nout => nout,
        };
        Graph::split(node.graph.bind(py), slf, count)?.__iter__(py)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        reduce_node(py, self)
    }

    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast_exact::<Node>().is_ok_and(|other| {
            let other = other.get();
            self.index == other.index && self.graph.is(&other.graph)
        })
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = FxHasher::default();
        (self.graph_address(), self.index).hash(&mut hasher);
        hasher.finish()
    }

    fn _repr_html_(&self) -> String {
        as_html(&self.__repr__())
    }

    fn __repr__(&self) -> String {
        let graph = self.graph.get();
        let needs = match graph.predecessors_of(self.index).len() {
            0 => "no predecessors".to_owned(),
            1 => "1 predecessor".to_owned(),
            count => format!("{count} predecessors"),
        };
        format!("<Node '{}' of a graph of {} tasks, {needs}>", graph.key_of(self.index), graph.len())
    }
}
