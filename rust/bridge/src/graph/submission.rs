//! What a graph hands to its client: the columns of one SUBMIT, and which results to keep.
use std::collections::BTreeMap;
use std::sync::Arc;

use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use rustc_hash::{FxHashMap, FxHashSet};

use headrace_wire::{Blobs, BlobsBuf, EXTERNAL, Submit, U32s};

use super::*;

/// All that a graph is, beside the live objects of a by-reference one.
#[derive(Default)]
pub(crate) struct GraphData {
    pub(crate) columns: Columns,
    pub(crate) functions: Functions,
    /// Results of other runs that the tasks cite.
    pub(crate) externals: Vec<External>,
    /// Tasks whose results were split: the first of the item tasks, and how many there are.
    pub(super) splits: FxHashMap<u32, (u32, u32)>,
    /// What the number in a default key is above the index: above 0 in a subgraph, whose tasks keep the keys that they
    /// had. There every task has a key of its own, because nobody else knows of this.
    pub(super) key_shift: u32,
    /// Keys that look like the default key of a task to come: index, and the names that are taken.
    pub(super) reserved: BTreeMap<u32, Vec<Arc<str>>>,
}

/// The columns that name functions by the numbers of a session; the session fills them.
#[derive(Default)]
pub(crate) struct FunctionColumns {
    /// Per function of the graph (see [`GraphData::functions`]): its number in the session.
    pub(crate) map: Vec<u32>,
    /// Numbers of those that the broker has not seen yet, with their names and pickles.
    pub(crate) new_ids: Vec<u32>,
    pub(crate) new_names: BlobsBuf,
    pub(crate) new_blobs: BlobsBuf,
}

/// The columns of a SUBMIT that a graph does not hold in that form.
pub(crate) struct SubmissionColumns {
    priority: Vec<u32>,
    worker: Vec<u32>,
    external_run: Vec<u32>,
    external_index: Vec<u32>,
}

impl GraphData {
    /// Appends the task that `encoder` holds; the answer is its index.
    #[inline]
    pub(super) fn push(&mut self, py: Python<'_>, entry: Entry, encoder: &mut Encoder) -> PyResult<u32> {
        self.make_room(py, entry, 1)?;
        let index = self.enter(entry, encoder);
        self.name_from(index, entry.key);
        Ok(index)
    }

    /// Appends the task that `encoder` holds under a key that was seen to be free.
    pub(super) fn push_named(&mut self, entry: Entry, encoder: &mut Encoder, key: &str) {
        let index = self.enter(entry, encoder);
        self.name(index, key);
    }

    #[inline]
    fn enter(&mut self, entry: Entry, encoder: &mut Encoder) -> u32 {
        let deps = encoder.cited.deps();
        if encoder.cited.externals().is_empty() {
            return self.columns.push(entry.function, entry.option_row, deps, &encoder.out);
        }
        let deps = self.relocate(deps.to_vec());
        self.externals.extend(encoder.cited.take_externals());
        self.columns.push(entry.function, entry.option_row, &deps, &encoder.out)
    }

    /// Appends the tasks of a batch whose externals are the graph's own; the answer is the index of the first.
    pub(super) fn append(&mut self, py: Python<'_>, entry: Entry, batch: &Batch) -> PyResult<u32> {
        if batch.len() == 0 {
            return Ok(self.columns.len() as u32);
        }
        self.make_room(py, entry, batch.len())?;
        self.columns.try_reserve(batch).map_err(|_| PyMemoryError::new_err(()))?;
        let first = self.columns.append(entry.function, entry.option_row, batch);
        self.name_from(first, entry.key);
        Ok(first)
    }

    /// Moves the positions of external predecessors behind those that the graph has already.
    pub(super) fn relocate(&self, mut deps: Vec<u32>) -> Vec<u32> {
        let base = self.externals.len() as u32;
        deps.iter_mut().filter(|dep| **dep & EXTERNAL != 0).for_each(|dep| *dep += base);
        deps
    }

    /// Checks that `count` more tasks fit and that their keys are free.
    #[inline]
    pub(super) fn make_room(&mut self, py: Python<'_>, entry: Entry, count: usize) -> PyResult<()> {
        let first = self.columns.len();
        if first + count > TASKS_MAX {
            return Err(too_many_tasks(py));
        }
        let taken = match entry.key {
            None if self.reserved.is_empty() && self.key_shift == 0 => return Ok(()),
            None => self.default_key_taken(entry.function, count),
            Some(key) => {
                let key = Arc::clone(&self.functions.keys[key as usize]);
                (count > 1 || self.index_of(&key).is_some()).then(|| key.to_string())
            }
        };
        match taken {
            None => Ok(()),
            Some(key) => Err(graph_error(py, &format!("duplicate key '{key}': keys are unique within a graph"))),
        }
    }

    /// The columns of a SUBMIT that have to be made.
    pub(crate) fn submission_columns(&self) -> SubmissionColumns {
        let options = if self.columns.task_options.is_empty() { &[][..] } else { &self.columns.options[..] };
        SubmissionColumns {
            priority: options.iter().map(|options| options.priority as u32).collect(),
            worker: options.iter().map(|options| options.worker).collect(),
            external_run: self.externals.iter().map(|external| external.run).collect(),
            external_index: self.externals.iter().map(|external| external.index).collect(),
        }
    }

    /// The whole graph as the one SUBMIT of run `run`.
    pub(crate) fn submission<'a>(
        &'a self,
        run: u32,
        columns: &'a SubmissionColumns,
        functions: &'a FunctionColumns,
        keep: &'a [u32],
    ) -> Submit<'a> {
        let tasks = &self.columns;
        let options = if tasks.task_options.is_empty() { U32s::default() } else { U32s::from(&tasks.task_options) };
        Submit {
            run,
            first: 0,
            flags: 0,
            function_ids: U32s::from(&functions.new_ids),
            function_names: functions.new_names.as_blobs(),
            functions: functions.new_blobs.as_blobs(),
            function_map: U32s::from(&functions.map),
            task_function: U32s::from(&tasks.task_function),
            dep_counts: U32s::from(&tasks.dep_counts),
            deps: U32s::from(&tasks.deps),
            external_run: U32s::from(&columns.external_run),
            external_index: U32s::from(&columns.external_index),
            args: Blobs { lens: U32s::from(&tasks.arg_lens), bytes: &tasks.args },
            task_options: options,
            priority: U32s::from(&columns.priority),
            worker: U32s::from(&columns.worker),
            key_index: U32s::from(&tasks.key_index),
            keys: tasks.keys.as_blobs(),
            keep: U32s::from(keep),
        }
    }

    /// Some tasks and all that they need, as a graph of their own; keys stay what they were.
    pub(super) fn subgraph(&mut self, py: Python<'_>, wanted: &[u32]) -> GraphData {
        let kept = self.columns.ancestors(wanted.iter().copied());
        let mut number = vec![u32::MAX; self.columns.len()];
        for (new, &old) in kept.iter().enumerate() {
            number[old as usize] = new as u32;
        }
        let next_number = self.columns.len() as u32 + self.key_shift;
        let mut culled = GraphData { functions: self.functions.share(py), ..GraphData::default() };
        culled.key_shift = next_number - kept.len() as u32;
        culled.externals = self.externals.iter().map(|external| external.share(py)).collect();
        culled.columns.options = self.columns.options.clone();
        for &old in &kept {
            let moved = |&dep: &u32| if dep & EXTERNAL == 0 { number[dep as usize] } else { dep };
            let deps: Vec<u32> = self.columns.deps_of(old).iter().map(moved).collect();
            let row = self.columns.task_options.get(old as usize).copied().unwrap_or(0);
            let function = self.columns.task_function[old as usize];
            let new = culled.columns.push(function, row, &deps, self.columns.args_of(old));
            if culled.key_shift > 0 || self.columns.own_key(old).is_some() {
                culled.name(new, &self.key_of(old));
            }
        }
        culled
    }
}

impl Graph {
    /// Indices of the tasks that `keep` names (nodes, keys, and sequences of them), each once in their order; without
    /// `keep` those of the sinks.
    pub(crate) fn resolve_keep(slf: &Bound<'_, Self>, keep: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<u32>> {
        match keep.filter(|keep| !keep.is_none()) {
            None => Ok(slf.get().lock().columns.sinks()),
            Some(keep) => Graph::select(slf, keep, "keep"),
        }
    }

    /// Indices of the tasks that `wanted` names, each once in their order. `who` asks, in errors.
    pub(super) fn select(slf: &Bound<'_, Self>, wanted: &Bound<'_, PyAny>, who: &str) -> PyResult<Vec<u32>> {
        let mut chosen = Vec::new();
        collect(slf, wanted, &mut chosen, who, 0)?;
        let mut seen = FxHashSet::default();
        chosen.retain(|&index| seen.insert(index));
        Ok(chosen)
    }
}

/// Deepest nesting of sequences of nodes.
const SELECT_DEPTH_MAX: u32 = 8;

fn collect(
    graph: &Bound<'_, Graph>,
    wanted: &Bound<'_, PyAny>,
    chosen: &mut Vec<u32>,
    who: &str,
    depth: u32,
) -> PyResult<()> {
    let (py, home) = (graph.py(), Graph::address(graph));
    if let Ok(node) = wanted.cast_exact::<Node>() {
        chosen.push(node.get().index_in(py, home)?);
    } else if let Ok(nodes) = wanted.cast_exact::<Nodes>() {
        nodes.get().check_home(py, home)?;
        chosen.extend(nodes.get().indices());
    } else if let Ok(key) = wanted.cast::<PyString>() {
        let index = graph.get().lock().index_of(key.to_str()?);
        let unknown = || graph_error(py, &format!("{who} names the key '{key}', which no task of the graph has"));
        chosen.push(index.ok_or_else(unknown)?);
    } else if depth < SELECT_DEPTH_MAX && !wanted.is_instance_of::<PyDict>() && wanted.try_iter().is_ok() {
        for item in wanted.try_iter()? {
            collect(graph, &item?, chosen, who, depth + 1)?;
        }
    } else {
        let text = format!("{who} takes nodes, keys and sequences of them, not {}", wanted.get_type().name()?);
        return Err(graph_error(py, &text));
    }
    Ok(())
}
