//! Graphs from mappings, by Dask's convention: `(callable, *args)` is a task, and an argument that equals a key stands for
//! that task's result, also inside nested lists.
use std::collections::VecDeque;

use headrace_kernel::{Chunk, ClassId, Classes, GraphError, Kernel, Priorities};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::*;

/// Deepest nesting of lists that is walked.
const LISTS_MAX: u32 = 64;

/// Most keys of a cycle that an error names.
const CYCLE_SHOWN_MAX: usize = 10;

/// Fills an empty graph: a task for each key, in the order of the mapping, then those of nested tuples.
pub(super) fn fill<'py>(slf: &Bound<'py, Graph>, mapping: &Bound<'py, PyDict>) -> PyResult<()> {
    let py = slf.py();
    // The hash of a key or an argument may change the mapping.
    let items: Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)> = mapping.iter().collect();
    let nodes = PyDict::new(py);
    for (index, (key, _)) in items.iter().enumerate() {
        nodes.set_item(key, Bound::new(py, Node::new(slf, index as u32))?)?;
    }
    let mut filling = Filling {
        graph: slf,
        nested: VecDeque::new(),
        next: items.len() as u32,
        keys_may_collide: items.iter().any(|(key, _)| !key.is_exact_instance_of::<PyString>()),
        nodes,
        forward: false,
    };
    let mut encoder = Encoder::new(Graph::address(slf));
    for (key, value) in &items {
        let named = filling.task(&mut encoder, value).and_then(|entry| filling.push(&mut encoder, entry, Some(key)));
        named.map_err(|error| note_key(error, key))?;
    }
    while let Some(task) = filling.nested.pop_front() {
        let entry = filling.task(&mut encoder, &task)?;
        filling.push(&mut encoder, entry, None)?;
    }
    if filling.forward { refuse_cycle(slf) } else { Ok(()) }
}

struct Filling<'a, 'py> {
    graph: &'a Bound<'py, Graph>,
    /// Every key with its node.
    nodes: Bound<'py, PyDict>,
    /// Tuples inside arguments that are tasks of their own, in the order of their indices.
    nested: VecDeque<Bound<'py, PyAny>>,
    /// Index of the next of them.
    next: u32,
    /// Whether some key is no text, so that its text may be another key.
    keys_may_collide: bool,
    /// Whether some task needs one that comes after it.
    forward: bool,
}

impl<'py> Filling<'_, 'py> {
    /// Encodes the task that a value of the mapping describes.
    fn task(&mut self, encoder: &mut Encoder, value: &Bound<'py, PyAny>) -> PyResult<Entry> {
        static CONSTANT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let graph = self.graph;
        encoder.clear(Graph::address(graph));
        let (callable, args) = match as_task(value) {
            Some(task) => {
                let (callable, args) = task.as_slice().split_first().expect("a task has a function");
                let args = args.iter().map(|arg| self.resolve(arg, 0)).collect::<PyResult<Vec<_>>>()?;
                (callable.clone(), args)
            }
            None => {
                let constant = CONSTANT.import(graph.py(), "headrace.steps", "constant")?;
                (constant.clone(), vec![self.resolve(value, 0)?])
            }
        };
        let entry = Graph::entry(graph, &callable, VERB)?;
        graph.get().encode(encoder, &callable, Passed::positional(&args), VERB)?;
        // The mapping gives the keys.
        Ok(Entry { key: None, ..entry })
    }

    /// What an argument stands for: a node where it is a key or a task, and a list with nodes in it.
    fn resolve(&mut self, arg: &Bound<'py, PyAny>, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        let py = arg.py();
        if let Ok(list) = arg.cast_exact::<PyList>() {
            if depth >= LISTS_MAX {
                return Err(graph_error(py, "lists nested more than 64 deep are not walked for keys"));
            }
            let mut changed = false;
            let mut resolved = Vec::with_capacity(list.len());
            for item in list.iter() {
                let part = self.resolve(&item, depth + 1)?;
                changed |= !part.is(&item);
                resolved.push(part);
            }
            return if changed { Ok(PyList::new(py, resolved)?.into_any()) } else { Ok(arg.clone()) };
        }
        if as_task(arg).is_some() {
            let node = Node::new(self.graph, self.next);
            self.next += 1;
            self.nested.push_back(arg.clone());
            return Ok(Bound::new(py, node)?.into_any());
        }
        match self.nodes.get_item(arg) {
            Ok(Some(node)) => Ok(node),
            Ok(None) => Ok(arg.clone()),
            // What cannot be hashed is no key.
            Err(error) if error.is_instance_of::<PyTypeError>(py) => Ok(arg.clone()),
            Err(error) => Err(error),
        }
    }

    fn push(&mut self, encoder: &mut Encoder, entry: Entry, key: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.graph.py();
        let key = key.map(key_text).transpose()?;
        let held = &self.graph.get().held;
        let mut data = self.graph.get().lock();
        if let Some(key) = &key
            && self.keys_may_collide
            && data.index_of(key).is_some()
        {
            drop(data);
            return Err(graph_error(py, &format!("duplicate key '{key}': keys are texts, and two keys have this one")));
        }
        let index = data.columns.len() as u32;
        self.forward |= encoder.cited.deps().iter().any(|&dep| dep & EXTERNAL == 0 && dep >= index);
        match key {
            None => _ = data.push(py, held, entry, encoder)?,
            Some(key) => data.push_named(py, held, entry, encoder, &key),
        }
        Ok(())
    }
}

const VERB: &str = "from_dict";

/// The tuple, if the value is a task.
fn as_task<'a, 'py>(value: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, PyTuple>> {
    let tuple = value.cast_exact::<PyTuple>().ok()?;
    tuple.as_slice().first().is_some_and(|first| first.is_callable()).then_some(tuple)
}

/// The text by which a key goes.
fn key_text(key: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(key.str()?.to_str()?.to_owned())
}

/// Names the key of the mapping in whose value an error was found.
fn note_key(error: PyErr, key: &Bound<'_, PyAny>) -> PyErr {
    if let Ok(text) = key.repr() {
        // The error matters more than the note.
        let _ = error.value(key.py()).call_method1("add_note", (format!("in the value of key {text}"),));
    }
    error
}

/// An error that shows a cycle, if there is one.
fn refuse_cycle(slf: &Bound<'_, Graph>) -> PyResult<()> {
    let data = slf.get().lock();
    let chunk = Chunk {
        dep_counts: &data.columns.dep_counts,
        deps: &data.columns.deps,
        external: &[],
        class: Classes::One(ClassId(0)),
        priority: Priorities::One(0),
        keep: &[],
    };
    let text = match Kernel::new().submit(&chunk, &mut Vec::new()) {
        Ok(()) => return Ok(()),
        Err(GraphError::SelfDependency { task }) => cycle_text(&data, &[task]),
        Err(GraphError::Cycle { tasks }) => cycle_text(&data, &tasks),
        Err(other) => other.to_string(),
    };
    drop(data);
    Err(graph_error(slf.py(), &text))
}

/// A cycle by the keys of its tasks, each waiting for the one after it.
fn cycle_text(data: &GraphData, tasks: &[u32]) -> String {
    let waits_for: Vec<u32> = tasks.iter().rev().copied().collect();
    let mut shown: Vec<String> = waits_for.iter().take(CYCLE_SHOWN_MAX).map(|&task| data.key_of(task)).collect();
    shown.push(if tasks.len() > CYCLE_SHOWN_MAX { "…".to_owned() } else { shown[0].clone() });
    let noun = if tasks.len() == 1 { "task" } else { "tasks" };
    format!("cycle of {} {noun} that wait for each other: {}", tasks.len(), shown.join(" -> "))
}
