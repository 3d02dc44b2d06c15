//! Nodes: an immutable sequence of handles to tasks of one graph.
use std::hash::{Hash, Hasher};

use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PySlice, PyTuple};
use rustc_hash::FxHasher;

use crate::codec::reduce_nodes;
use crate::graph::Graph;
use crate::node::{Node, as_html, foreign};

/// Which tasks, in order.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Indices {
    /// `len` tasks from `first` on.
    Range { first: u32, len: u32 },
    /// Any, each once.
    List(Box<[u32]>),
}

/// An immutable sequence of nodes of one graph.
///
/// It may stand wherever a list of nodes may: in arguments (the function gets the list of their results), in `map`,
/// `reduce` and `keep`.
#[pyclass(frozen, generic, sequence, module = "headrace")]
pub(crate) struct Nodes {
    graph: Py<Graph>,
    indices: Indices,
}

impl Nodes {
    pub(crate) fn range(graph: &Bound<'_, Graph>, first: u32, len: u32) -> Self {
        Self { graph: graph.clone().unbind(), indices: Indices::Range { first, len } }
    }

    pub(crate) fn list(graph: &Bound<'_, Graph>, indices: Vec<u32>) -> Self {
        Self { graph: graph.clone().unbind(), indices: Indices::List(indices.into()) }
    }

    fn at(&self, position: usize) -> u32 {
        match &self.indices {
            Indices::Range { first, .. } => first + position as u32,
            Indices::List(list) => list[position],
        }
    }

    /// The indices of the tasks.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u32> + Clone + '_ {
        (0..self.len()).map(|position| self.at(position))
    }

    /// An error unless the tasks belong to the graph at address `home`.
    pub(crate) fn check_home(&self, py: Python<'_>, home: usize) -> PyResult<()> {
        if self.graph.as_ptr() as usize == home { Ok(()) } else { Err(foreign(py, &self.__repr__())) }
    }

    /// What tells the graph of these nodes from others.
    pub(crate) fn graph_address(&self) -> usize {
        self.graph.as_ptr() as usize
    }

    pub(crate) fn len(&self) -> usize {
        match &self.indices {
            Indices::Range { len, .. } => *len as usize,
            Indices::List(list) => list.len(),
        }
    }

    fn node(&self, py: Python<'_>, position: usize) -> PyResult<Py<Node>> {
        Py::new(py, Node::new(self.graph.bind(py), self.at(position)))
    }

    fn position(&self, node: &Bound<'_, PyAny>) -> Option<usize> {
        let node = node.cast_exact::<Node>().ok()?.get();
        if node.graph_address() != self.graph_address() {
            return None;
        }
        match &self.indices {
            Indices::Range { first, len } => {
                let position = node.index().checked_sub(*first)?;
                (position < *len).then_some(position as usize)
            }
            Indices::List(list) => list.iter().position(|&index| index == node.index()),
        }
    }

    fn slice(&self, py: Python<'_>, slice: &Bound<'_, PySlice>) -> PyResult<Self> {
        let slice = slice.indices(self.len() as isize)?;
        let indices = match &self.indices {
            Indices::Range { first, .. } if slice.step == 1 => {
                Indices::Range { first: first + slice.start as u32, len: slice.slicelength as u32 }
            }
            _ => {
                let position = |step| (slice.start + step as isize * slice.step) as usize;
                Indices::List((0..slice.slicelength).map(|step| self.at(position(step))).collect())
            }
        };
        Ok(Self { graph: self.graph.clone_ref(py), indices })
    }
}

#[pymethods]
impl Nodes {
    /// The graph.
    #[getter]
    pub(crate) fn graph(&self, py: Python<'_>) -> Py<Graph> {
        self.graph.clone_ref(py)
    }

    /// The keys of the tasks, in order.
    #[getter]
    fn keys(&self) -> Vec<String> {
        self.indices().map(|index| self.graph.get().key_of(index)).collect()
    }

    fn __len__(&self) -> usize {
        self.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, place: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(slice) = place.cast::<PySlice>() {
            return Ok(Bound::new(py, self.slice(py, slice)?)?.into_any());
        }
        let position = place
            .extract::<isize>()
            .map_err(|_| PyTypeError::new_err("Nodes are indexed by integers and slices; by key: graph[key]"))?;
        let len = self.len() as isize;
        let position = if position < 0 { position + len } else { position };
        if !(0..len).contains(&position) {
            return Err(PyIndexError::new_err(format!("Nodes index out of range: there are {len}")));
        }
        Ok(self.node(py, position as usize)?.into_bound(py).into_any())
    }

    pub(crate) fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let nodes = (0..self.len()).map(|position| self.node(py, position)).collect::<PyResult<Vec<_>>>()?;
        PyTuple::new(py, nodes)?.try_iter()
    }

    fn __contains__(&self, node: &Bound<'_, PyAny>) -> bool {
        self.position(node).is_some()
    }

    /// The position of a node; `ValueError` if it is not there.
    fn index(&self, node: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.position(node).ok_or_else(|| PyValueError::new_err("the node is not in these Nodes"))
    }

    /// How often a node is there: once or not at all.
    fn count(&self, node: &Bound<'_, PyAny>) -> usize {
        usize::from(self.position(node).is_some())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast_exact::<Nodes>().is_ok_and(|other| {
            let other = other.get();
            self.graph.is(&other.graph) && self.indices().eq(other.indices())
        })
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = FxHasher::default();
        (self.graph_address(), self.len()).hash(&mut hasher);
        self.indices().take(8).for_each(|index| index.hash(&mut hasher));
        hasher.finish()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        reduce_nodes(slf)
    }

    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }

    fn _repr_html_(&self) -> String {
        as_html(&self.__repr__())
    }

    fn __repr__(&self) -> String {
        let graph = self.graph.get();
        match self.len() {
            0 => "<Nodes: none>".to_owned(),
            1 => format!("<Nodes: 1, '{}'>", graph.key_of(self.at(0))),
            len => format!("<Nodes: {len}, '{}' … '{}'>", graph.key_of(self.at(0)), graph.key_of(self.at(len - 1))),
        }
    }
}
