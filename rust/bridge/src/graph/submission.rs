//! What a graph hands to its client: the columns of one SUBMIT, and which results to keep.
use std::collections::BTreeMap;
use std::sync::Arc;

use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use rustc_hash::{FxHashMap, FxHashSet};

use headrace_wire::{Blobs, BlobsBuf, EXTERNAL, Submit, U32s};

use super::*;

/// All that a graph is, beside the Python objects that it holds.
#[derive(Default)]
pub(crate) struct GraphData {
    pub(crate) columns: Columns,
    pub(crate) functions: Functions,
    /// What the tasks cite from outside: results of other runs, and large parts of arguments.
    pub(crate) externals: Vec<ExternalId>,
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
    policies: BlobsBuf,
    external_run: Vec<u32>,
    external_index: Vec<u32>,
}

impl GraphData {
    /// Appends the task that `encoder` holds; the answer is its index.
    #[inline]
    pub(super) fn push(&mut self, py: Python<'_>, held: &Held, entry: Entry, encoder: &mut Encoder) -> PyResult<u32> {
        let is_plain = entry.key.is_none() && self.reserved.is_empty() && self.key_shift == 0;
        if !is_plain || self.columns.len() >= TASKS_MAX {
            self.make_room(py, (entry, 0), (entry, 1))?;
        }
        let index = self.enter(py, held, entry, encoder);
        self.name_all(index..index + 1, entry.key);
        Ok(index)
    }

    /// Appends the task that `encoder` holds under a key that was seen to be free.
    pub(super) fn push_named(&mut self, py: Python<'_>, held: &Held, entry: Entry, encoder: &mut Encoder, key: &str) {
        let index = self.enter(py, held, entry, encoder);
        self.name(index, key);
    }

    #[inline]
    fn enter(&mut self, py: Python<'_>, held: &Held, entry: Entry, encoder: &mut Encoder) -> u32 {
        if encoder.holds_objects() {
            return self.enter_citing(py, held, entry, encoder);
        }
        self.columns.push(entry.function, entry.option_row, encoder.cited.deps(), &encoder.out)
    }

    fn enter_citing(&mut self, py: Python<'_>, held: &Held, entry: Entry, encoder: &mut Encoder) -> u32 {
        let mut deps = encoder.cited.deps().to_vec();
        let externals = encoder.cited.take_externals();
        self.adopt(py, held, &mut deps, externals, &mut encoder.out, &mut encoder.live);
        self.columns.push(entry.function, entry.option_row, &deps, &encoder.out)
    }

    /// Appends the tasks of a batch; the answer is the index of the first.
    pub(super) fn append(&mut self, py: Python<'_>, held: &Held, entry: Entry, batch: BatchCiting) -> PyResult<u32> {
        self.append_behind(py, held, (entry, BatchCiting::default()), (entry, batch))
    }

    /// Appends the tasks of one batch, which go by their default keys, and those of another behind them, or nothing if that
    /// is an error; the answer is the index of the first of those behind.
    pub(super) fn append_behind(
        &mut self,
        py: Python<'_>,
        held: &Held,
        ahead: (Entry, BatchCiting),
        behind: (Entry, BatchCiting),
    ) -> PyResult<u32> {
        if ahead.1.len() + behind.1.len() == 0 {
            return Ok(self.columns.len() as u32);
        }
        self.make_room(py, (ahead.0, ahead.1.len()), (behind.0, behind.1.len()))?;
        for batch in [&ahead.1.batch, &behind.1.batch] {
            self.columns.try_reserve(batch).map_err(|_| PyMemoryError::new_err(()))?;
        }
        self.append_batch(py, held, Entry { key: None, ..ahead.0 }, ahead.1);
        Ok(self.append_batch(py, held, behind.0, behind.1))
    }

    fn append_batch(&mut self, py: Python<'_>, held: &Held, entry: Entry, citing: BatchCiting) -> u32 {
        let BatchCiting { mut batch, externals, mut live, .. } = citing;
        if batch.len() == 0 {
            return self.columns.len() as u32;
        }
        if !externals.is_empty() || !live.is_empty() {
            self.adopt(py, held, &mut batch.deps, externals, &mut batch.args, &mut live);
        }
        let first = self.columns.append(entry.function, entry.option_row, &batch);
        self.name_all(first..first + batch.len() as u32, entry.key);
        first
    }

    /// Takes over what tasks cite, and changes the numbers in their predecessors and arguments to those that it has here.
    fn adopt(
        &mut self,
        py: Python<'_>,
        held: &Held,
        deps: &mut [u32],
        externals: Vec<External>,
        args: &mut [u8],
        live: &mut LiveObjects,
    ) {
        let mut held = held.lock(py);
        let base = self.externals.len() as u32;
        deps.iter_mut().filter(|dep| **dep & EXTERNAL != 0).for_each(|dep| *dep += base);
        for External { id, object } in externals {
            self.externals.push(id);
            held.externals.push(object);
        }
        live.settle(args, &mut held.live);
    }

    /// Checks that tasks of one entry, which go by their default keys, and of another behind them fit, and that all their
    /// keys are free.
    fn make_room(&mut self, py: Python<'_>, ahead: (Entry, usize), behind: (Entry, usize)) -> PyResult<()> {
        let ((inner, ahead), (entry, count)) = (ahead, behind);
        if count > TASKS_MAX || self.columns.len() + ahead + count > TASKS_MAX {
            return Err(too_many_tasks(py));
        }
        let first = self.columns.len() as u32;
        let taken = self.default_key_taken(inner.function, first, ahead).or_else(|| match entry.key {
            None => self.default_key_taken(entry.function, first + ahead as u32, count),
            Some(key) => {
                let key = Arc::clone(&self.functions.keys[key as usize]);
                let is_taken = count > 1
                    || self.index_of(&key).is_some()
                    || self.is_default_key(&key, inner.function, first, ahead);
                is_taken.then(|| key.to_string())
            }
        });
        match taken {
            None => Ok(()),
            Some(key) => Err(graph_error(py, &format!("duplicate key '{key}': keys are unique within a graph"))),
        }
    }

    /// The columns of a SUBMIT that have to be made. `place` says where each large part was put, as (run, index).
    pub(crate) fn submission_columns(&self, place: impl Fn(&LargeId) -> (u32, u32)) -> SubmissionColumns {
        let (external_run, external_index) = self.externals.iter().map(|external| external.place(&place)).unzip();
        let options = if self.columns.task_options.is_empty() { &[][..] } else { &self.columns.options[..] };
        let mut policies = BlobsBuf::default();
        if options.iter().any(|options| !options.policy.is_empty()) {
            options.iter().for_each(|options| policies.push(&options.policy));
        }
        SubmissionColumns {
            policies,
            priority: options.iter().map(|options| options.priority as u32).collect(),
            worker: options.iter().map(|options| options.worker).collect(),
            external_run,
            external_index,
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
            policies: columns.policies.as_blobs(),
            deadline_ms: 0,
            run_priority: 0,
            parent: 0,
            parent_attempt: 0,
        }
    }

    /// Some tasks and all that they need, as a graph of their own; keys stay what they were. Besides, which of the externals
    /// it has.
    pub(super) fn subgraph(&mut self, wanted: &[u32]) -> (GraphData, Vec<u32>) {
        let kept = self.columns.ancestors(wanted.iter().copied());
        let mut number = vec![u32::MAX; self.columns.len()];
        for (new, &old) in kept.iter().enumerate() {
            number[old as usize] = new as u32;
        }
        let next_number = self.columns.len() as u32 + self.key_shift;
        let mut culled = GraphData { functions: self.functions.clone(), ..GraphData::default() };
        culled.key_shift = next_number - kept.len() as u32;
        let mut externals = Vec::new();
        let mut external_number = vec![u32::MAX; self.externals.len()];
        culled.columns.options = self.columns.options.clone();
        for &old in &kept {
            let mut moved = |&dep: &u32| {
                if dep & EXTERNAL == 0 {
                    return number[dep as usize];
                }
                let number = &mut external_number[(dep & !EXTERNAL) as usize];
                if *number == u32::MAX {
                    *number = externals.len() as u32;
                    externals.push(dep & !EXTERNAL);
                }
                EXTERNAL | *number
            };
            let deps: Vec<u32> = self.columns.deps_of(old).iter().map(&mut moved).collect();
            let row = self.columns.task_options.get(old as usize).copied().unwrap_or(0);
            let function = self.columns.task_function[old as usize];
            let new = culled.columns.push(function, row, &deps, self.columns.args_of(old));
            if culled.key_shift > 0 || self.columns.own_key(old).is_some() {
                culled.name(new, &self.key_of(old));
            }
        }
        culled.externals = externals.iter().map(|&position| self.externals[position as usize]).collect();
        (culled, externals)
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
