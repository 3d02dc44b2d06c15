//! graphlib's TopologicalSorter on the kernel: nodes are any hashable objects, and the caller is the only worker.
use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use headrace_kernel::{Chunk, ClassId, Classes, GraphError, Kernel, Priorities, TaskIndex, WorkerId};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple};
use smallvec::SmallVec;

use crate::codec::Passed;
use crate::fastcall::FastMethod;

const CLASS: ClassId = ClassId(0);
const CALLER: WorkerId = WorkerId(0);

/// Orders nodes so that each comes after its predecessors: graphlib's interface on the Rust kernel. Base of
/// `headrace.TopologicalSorter`.
#[pyclass(frozen, subclass, generic, weakref, module = "headrace._core", name = "TopologicalSorter")]
pub(crate) struct Sorter {
    /// Node to its number.
    numbers: Py<PyDict>,
    /// Nodes by their numbers.
    nodes: Py<PyList>,
    /// Python never runs while this is locked.
    state: Mutex<State>,
}

enum State {
    /// Nodes are added: predecessor relations as (node, predecessor), as often as they were given.
    Open(Vec<(u32, u32)>),
    /// Nodes are passed out.
    Prepared(Box<Prepared>),
}

struct Prepared {
    kernel: Kernel,
    /// Task of each node; [`BLOCKED`] behind a cycle.
    task_of: Vec<u32>,
    /// Node of each task.
    node_of: Vec<u32>,
    standing: Vec<Standing>,
    /// Nodes in the order in which they were passed out.
    passed_out: Vec<u32>,
    finished: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Standing {
    NotReady,
    PassedOut,
    Done,
}

/// The task of a node that can never become ready.
const BLOCKED: u32 = u32::MAX;

#[pymethods]
impl Sorter {
    // As in graphlib, a subclass may have an `__init__` with arguments of its own.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(py: Python<'_>, _args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        let (numbers, nodes) = (PyDict::new(py).unbind(), PyList::empty(py).unbind());
        Self { numbers, nodes, state: Mutex::new(State::Open(Vec::new())) }
    }

    #[pyo3(signature = (graph = None))]
    fn __init__<'py>(&self, py: Python<'py>, graph: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let Some(graph) = graph.filter(|graph| !graph.is_none()) else { return Ok(()) };
        let (numbers, nodes) = (self.numbers.bind(py), self.nodes.bind(py));
        let mut edges = Vec::new();
        for item in graph.call_method0("items")?.try_iter()? {
            let (node, predecessors): (Bound<'py, PyAny>, Bound<'py, PyAny>) = item?.extract()?;
            let node = number(numbers, nodes, &node)?;
            if let Ok(predecessors) = predecessors.cast_exact::<PyList>() {
                for predecessor in predecessors.iter() {
                    edges.push((node, number(numbers, nodes, &predecessor)?));
                }
                continue;
            }
            for predecessor in predecessors.try_iter()? {
                edges.push((node, number(numbers, nodes, &predecessor?)?));
            }
        }
        self.enter(edges)
    }

    /// Check for cycles; from now on nodes are passed out and none can be added.
    fn prepare(&self, py: Python<'_>) -> PyResult<()> {
        let (numbers, nodes) = (self.numbers.bind(py), self.nodes.bind(py));
        let cycle = {
            let mut state = self.lock();
            let State::Open(edges) = &*state else {
                return Err(PyValueError::new_err("cannot prepare() more than once"));
            };
            // Edges name numbers that were given, so the count must not be older than they are.
            let count = nodes.len();
            let given = if numbers.len() == count {
                (0..count as u32).collect()
            } else {
                let mut given = numbers.iter().map(|(_, number)| number.extract()).collect::<PyResult<Vec<u32>>>()?;
                given.sort_unstable();
                given
            };
            let (prepared, cycle) = Prepared::new(count, &given, edges);
            *state = State::Prepared(Box::new(prepared));
            cycle
        };
        if cycle.is_empty() { Ok(()) } else { Err(self.cycle_error(py, &cycle)) }
    }

    /// Give every node that has become ready since the last call.
    fn get_ready<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let ready = self.prepared(|prepared| prepared.pass_out())?;
        let nodes = self.nodes.bind(py);
        let nodes = ready.into_iter().map(|number| nodes.get_item(number as usize)).collect::<PyResult<Vec<_>>>()?;
        PyTuple::new(py, nodes)
    }

    /// Say whether more nodes are to come, or some that were passed out are not done.
    fn is_active(&self) -> PyResult<bool> {
        self.prepared(|prepared| prepared.finished < prepared.passed_out.len() || prepared.kernel.ready_len(CLASS) > 0)
    }

    fn __bool__(&self) -> PyResult<bool> {
        self.is_active()
    }

    // A node may refer to its sorter. The collector clears the two containers themselves.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.numbers)?;
        visit.call(&self.nodes)
    }
}

impl Sorter {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prepared<R>(&self, look: impl FnOnce(&mut Prepared) -> R) -> PyResult<R> {
        match &mut *self.lock() {
            State::Prepared(prepared) => Ok(look(prepared)),
            State::Open(_) => Err(PyValueError::new_err("prepare() must be called first")),
        }
    }

    fn add<'py>(&self, node: &Bound<'py, PyAny>, predecessors: &[Bound<'py, PyAny>]) -> PyResult<()> {
        if let State::Prepared(_) = &*self.lock() {
            return Err(late());
        }
        let (numbers, nodes) = (self.numbers.bind(node.py()), self.nodes.bind(node.py()));
        let node = number(numbers, nodes, node)?;
        let mut edges = SmallVec::<[(u32, u32); 8]>::new();
        for predecessor in predecessors {
            edges.push((node, number(numbers, nodes, predecessor)?));
        }
        self.enter(edges)
    }

    fn enter(&self, edges: impl IntoIterator<Item = (u32, u32)>) -> PyResult<()> {
        match &mut *self.lock() {
            State::Open(all) => {
                all.extend(edges);
                Ok(())
            }
            State::Prepared(_) => Err(late()),
        }
    }

    /// Marks nodes as done, up to the first that cannot be.
    fn done<'py>(&self, nodes: &[Bound<'py, PyAny>]) -> PyResult<()> {
        let Some(py) = nodes.first().map(|node| node.py()) else { return self.prepared(|_| ()) };
        let all = self.nodes.bind(py);
        // Most callers hand nodes back in the order in which they got them: no need to hash those.
        let mut expected = self.prepared(|prepared| prepared.expected(nodes.len()))?.into_iter();
        let mut numbers = SmallVec::<[u32; 8]>::with_capacity(nodes.len());
        let mut unknown = None;
        for node in nodes {
            let next = expected.next().filter(|&number| all.get_item(number as usize).is_ok_and(|next| next.is(node)));
            match next.map_or_else(|| known(self.numbers.bind(py), node), |number| Ok(Some(number)))? {
                Some(number) => numbers.push(number),
                None => {
                    unknown = Some(node);
                    break;
                }
            }
        }
        if let Some((position, problem)) = self.prepared(|prepared| prepared.finish_all(&numbers))? {
            return Err(PyValueError::new_err(format!("node {} {problem}", nodes[position].repr()?)));
        }
        match unknown {
            None => Ok(()),
            Some(node) => Err(PyValueError::new_err(format!("node {} was not added using add()", node.repr()?))),
        }
    }

    /// A `graphlib.CycleError` with the nodes of a cycle, each a predecessor of the next.
    fn cycle_error(&self, py: Python<'_>, cycle: &[u32]) -> PyErr {
        static CYCLE_ERROR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let error = || -> PyResult<PyErr> {
            let nodes = PyList::empty(py);
            for &number in cycle.iter().chain(cycle.first()) {
                nodes.append(self.nodes.bind(py).get_item(number as usize)?)?;
            }
            let class = CYCLE_ERROR.import(py, "graphlib", "CycleError")?;
            Ok(PyErr::from_value(class.call1(("nodes are in a cycle", nodes))?))
        };
        error().unwrap_or_else(|error| error)
    }
}

fn late() -> PyErr {
    PyValueError::new_err("Nodes cannot be added after a call to prepare()")
}

/// The number of a node, which is new if it was never seen.
///
/// `__hash__` and `__eq__` of nodes may come back here, or let another thread do so. So a place is taken before they run,
/// and the dict decides in one step whose number it is to be: a place that came second stays empty, and no entry of
/// `numbers` leads to it.
fn number<'py>(numbers: &Bound<'py, PyDict>, nodes: &Bound<'py, PyList>, node: &Bound<'py, PyAny>) -> PyResult<u32> {
    if let Some(number) = known(numbers, node)? {
        return Ok(number);
    }
    let py = node.py();
    let place = nodes.len();
    nodes.append(node)?;
    let given = numbers.call_method1(intern!(py, "setdefault"), (node, place)).and_then(|number| number.extract());
    if !given.as_ref().is_ok_and(|&number: &u32| number as usize == place) {
        nodes.set_item(place, py.None())?;
    }
    given
}

fn known(numbers: &Bound<'_, PyDict>, node: &Bound<'_, PyAny>) -> PyResult<Option<u32>> {
    numbers.get_item(node)?.map(|number| number.extract()).transpose()
}

impl Prepared {
    /// Readies the nodes with the numbers `given`, which ascend and are below `count`; the answer has the nodes of a cycle,
    /// each a predecessor of the next, if there is one.
    fn new(count: usize, given: &[u32], edges: &[(u32, u32)]) -> (Self, Vec<u32>) {
        let rows = Rows::new(count, edges);
        let mut prepared = Self {
            kernel: Kernel::new(),
            task_of: vec![BLOCKED; count],
            node_of: Vec::new(),
            standing: vec![Standing::NotReady; count],
            passed_out: Vec::with_capacity(count),
            finished: 0,
        };
        prepared.kernel.add_worker(CALLER);
        let cycle = match prepared.submit(&rows, given) {
            Ok(()) => return (prepared, Vec::new()),
            Err(GraphError::SelfDependency { task }) => vec![task],
            Err(GraphError::Cycle { tasks }) => tasks,
            Err(other) => unreachable!("rows are well-formed: {other}"),
        };
        let cycle = cycle.into_iter().map(|position| given[position as usize]).collect();
        let mut unblocked = rows.unblocked();
        unblocked.retain(|node| given.binary_search(node).is_ok());
        prepared.submit(&rows, &unblocked).expect("what no cycle blocks has no cycle");
        (prepared, cycle)
    }

    /// Submits these nodes, which need no others.
    fn submit(&mut self, rows: &Rows, nodes: &[u32]) -> Result<(), GraphError> {
        let mut local = Vec::new();
        let dep_counts: Vec<u32> = nodes.iter().map(|&node| rows.of(node).len() as u32).collect();
        let deps = if nodes.len() == self.task_of.len() {
            &rows.predecessors
        } else {
            let mut position = vec![BLOCKED; self.task_of.len()];
            nodes.iter().zip(0..).for_each(|(&node, number)| position[node as usize] = number);
            local.extend(nodes.iter().flat_map(|&node| rows.of(node)).map(|&node| position[node as usize]));
            &local
        };
        let chunk = Chunk {
            dep_counts: &dep_counts,
            deps,
            external: &[],
            class: Classes::One(CLASS),
            priority: Priorities::One(0),
            keep: &[],
        };
        let mut tasks = Vec::with_capacity(nodes.len());
        self.kernel.submit(&chunk, &mut tasks)?;
        // The kernel is fresh, so that the tasks are numbered from 0.
        self.node_of = vec![0; tasks.len()];
        for (&node, task) in nodes.iter().zip(tasks) {
            self.task_of[node as usize] = task.0;
            self.node_of[task.0 as usize] = node;
        }
        Ok(())
    }

    fn pass_out(&mut self) -> Vec<u32> {
        let mut leased = Vec::new();
        self.kernel.lease_ready(CALLER, CLASS, &mut leased);
        let nodes = leased.into_iter().map(|(task, _)| self.node_of[task.0 as usize]).collect::<Vec<_>>();
        nodes.iter().for_each(|&node| self.standing[node as usize] = Standing::PassedOut);
        self.passed_out.extend_from_slice(&nodes);
        nodes
    }

    /// The next nodes to come back, if they do in the order in which they were passed out.
    fn expected(&self, count: usize) -> SmallVec<[u32; 8]> {
        self.passed_out.iter().skip(self.finished).take(count).copied().collect()
    }

    /// Marks nodes as done up to the first that cannot be; the answer is its position, and why.
    fn finish_all(&mut self, nodes: &[u32]) -> Option<(usize, &'static str)> {
        let problem = nodes.iter().position(|&node| !self.finish(node as usize)).map(|position| {
            match self.standing.get(nodes[position] as usize) {
                Some(Standing::Done) => (position, "was already marked done"),
                _ => (position, "was not passed out (still not ready)"),
            }
        });
        // The kernel forgets what is done.
        self.kernel.drain_dead(|_| ());
        self.kernel.drain_freed(|_| ());
        problem
    }

    fn finish(&mut self, node: usize) -> bool {
        // A node whose number was given while `prepare` ran is not among them.
        if self.standing.get(node) != Some(&Standing::PassedOut) {
            return false;
        }
        let task = TaskIndex(self.task_of[node]);
        let attempt = self.kernel.attempt(task);
        self.kernel.complete(CALLER, task, attempt, true).expect("what was passed out is leased");
        self.standing[node] = Standing::Done;
        self.finished += 1;
        true
    }
}

/// The predecessors of each node, each once.
struct Rows {
    starts: Vec<u32>,
    predecessors: Vec<u32>,
}

impl Rows {
    fn new(count: usize, edges: &[(u32, u32)]) -> Self {
        let mut starts = vec![0_u32; count + 1];
        edges.iter().for_each(|&(node, _)| starts[node as usize + 1] += 1);
        (0..count).for_each(|node| starts[node + 1] += starts[node]);
        let all = if edges.is_sorted_by_key(|edge| edge.0) {
            edges.iter().map(|edge| edge.1).collect()
        } else {
            let mut places = starts.clone();
            let mut all: Vec<u32> = vec![0; edges.len()];
            for &(node, predecessor) in edges {
                let place = &mut places[node as usize];
                all[*place as usize] = predecessor;
                *place += 1;
            }
            all
        };
        let mut rows = Self { starts: vec![0], predecessors: Vec::with_capacity(all.len()) };
        let mut named_by = vec![u32::MAX; count];
        for node in 0..count {
            for &predecessor in &all[starts[node] as usize..starts[node + 1] as usize] {
                if std::mem::replace(&mut named_by[predecessor as usize], node as u32) != node as u32 {
                    rows.predecessors.push(predecessor);
                }
            }
            rows.starts.push(rows.predecessors.len() as u32);
        }
        rows
    }

    fn of(&self, node: u32) -> &[u32] {
        &self.predecessors[self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize]
    }

    /// The nodes that are neither on a cycle nor behind one, ascending.
    fn unblocked(&self) -> Vec<u32> {
        let count = self.starts.len() - 1;
        let mut successors = vec![Vec::new(); count];
        let mut missing: Vec<usize> = (0..count as u32).map(|node| self.of(node).len()).collect();
        for node in 0..count as u32 {
            self.of(node).iter().for_each(|&predecessor| successors[predecessor as usize].push(node));
        }
        let mut open: Vec<u32> = (0..count as u32).filter(|&node| missing[node as usize] == 0).collect();
        let mut free = Vec::new();
        while let Some(node) = open.pop() {
            free.push(node);
            for &successor in &successors[node as usize] {
                missing[successor as usize] -= 1;
                if missing[successor as usize] == 0 {
                    open.push(successor);
                }
            }
        }
        free.sort_unstable();
        free
    }
}

/// `TopologicalSorter.add`.
pub(crate) struct SorterAdd;

impl FastMethod for SorterAdd {
    type Class = Sorter;
    const NAME: &CStr = c"add";
    const DOC: &CStr = c"add($self, node, *predecessors)\n--\n\nAdd a node and its predecessors, new ones included.

Called again with the same node, it adds to its predecessors.

Raises:
    TypeError: a node cannot be hashed.
    ValueError: `prepare` was called before.";

    fn call<'py>(slf: &Bound<'py, Sorter>, passed: Passed<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        match (passed.positional, passed.names) {
            ([node, predecessors @ ..], []) => slf.get().add(node, predecessors)?,
            ([], [name]) if name.eq("node")? => slf.get().add(&passed.named[0], &[])?,
            _ => return Err(PyTypeError::new_err("add() takes a node, and its predecessors by position")),
        }
        Ok(slf.py().None().into_bound(slf.py()))
    }
}

/// `TopologicalSorter.done`.
pub(crate) struct SorterDone;

impl FastMethod for SorterDone {
    type Class = Sorter;
    const NAME: &CStr = c"done";
    const DOC: &CStr = c"done($self, /, *nodes)\n--\n\nMark nodes that `get_ready` gave as done.

Raises:
    ValueError: a node was not added, not passed out, or is done already; or `prepare` was not called.";

    fn call<'py>(slf: &Bound<'py, Sorter>, passed: Passed<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        if !passed.names.is_empty() {
            return Err(PyTypeError::new_err("done() takes nodes by position"));
        }
        slf.get().done(passed.positional)?;
        Ok(slf.py().None().into_bound(slf.py()))
    }
}
