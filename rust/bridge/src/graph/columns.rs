//! The tasks of a graph as columns: one entry a task, no object. Nothing here knows Python.
use std::collections::TryReserveError;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use headrace_wire::{ANY_WORKER, BlobsBuf, EXTERNAL, Message, Policy};

/// What the options of a task ask for, beyond its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// Higher runs first.
    pub(crate) priority: i32,
    /// The worker to run on, or [`ANY_WORKER`].
    pub(crate) worker: u32,
    /// Number of items of the result that unpacking gives; 0 if not said.
    pub(crate) nout: u32,
    /// The rest, as an encoded [`headrace_wire::Policy`]; empty for the default one.
    pub(crate) policy: Arc<[u8]>,
}

impl Default for Options {
    fn default() -> Self {
        Self { priority: 0, worker: ANY_WORKER, nout: 0, policy: Arc::default() }
    }
}

impl Options {
    /// The policy, read.
    pub(crate) fn policy(&self) -> Policy<'_> {
        match Message::decode(&self.policy) {
            Ok(Message::Policy(policy)) => policy,
            _ => Policy::default(),
        }
    }
}

/// Tasks that all run one function, before they join a graph.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) dep_counts: Vec<u32>,
    pub(crate) deps: Vec<u32>,
    pub(crate) arg_lens: Vec<u32>,
    pub(crate) args: Vec<u8>,
}

impl Batch {
    pub(crate) fn push(&mut self, deps: &[u32], args: &[u8]) {
        self.dep_counts.push(deps.len() as u32);
        self.deps.extend_from_slice(deps);
        self.arg_lens.push(args.len() as u32);
        self.args.extend_from_slice(args);
    }

    pub(crate) fn len(&self) -> usize {
        self.dep_counts.len()
    }

    /// Makes room for `count` tasks without predecessors.
    pub(crate) fn try_reserve(&mut self, count: usize, task_bytes_max: usize) -> Result<(), TryReserveError> {
        self.args.try_reserve_exact(count * task_bytes_max)?;
        self.arg_lens.try_reserve_exact(count)?;
        self.dep_counts.try_reserve_exact(count)
    }
}

/// Every task of a graph.
#[derive(Default)]
pub(crate) struct Columns {
    pub(crate) task_function: Vec<u32>,
    pub(crate) dep_counts: Vec<u32>,
    /// Index within the graph, or [`EXTERNAL`] `|` position among the graph's externals.
    pub(crate) deps: Vec<u32>,
    pub(crate) arg_lens: Vec<u32>,
    pub(crate) args: Vec<u8>,
    /// Position in `options`; empty while every task has the first.
    pub(crate) task_options: Vec<u32>,
    pub(crate) options: Vec<Options>,
    /// Tasks with a key of their own, ascending.
    pub(crate) key_index: Vec<u32>,
    /// Their keys.
    pub(crate) keys: BlobsBuf,
    key_starts: Vec<usize>,
    /// The task of each of the first keys, as far as anybody asked.
    by_key: FxHashMap<Box<str>, u32>,
    /// Where the arguments and the predecessors of each task start, as far as anybody asked.
    starts: Vec<(usize, usize)>,
}

impl Columns {
    pub(crate) fn len(&self) -> usize {
        self.task_function.len()
    }

    /// The position of these options in the table.
    pub(crate) fn option_row(&mut self, options: Options) -> u32 {
        if self.options.is_empty() {
            self.options.push(Options::default());
        }
        let row = self.options.iter().position(|other| *other == options).unwrap_or_else(|| {
            self.options.push(options);
            self.options.len() - 1
        });
        row as u32
    }

    /// Appends one task; the answer is its index.
    #[inline]
    pub(crate) fn push(&mut self, function: u32, option_row: u32, deps: &[u32], args: &[u8]) -> u32 {
        let index = self.len() as u32;
        self.note_options(option_row, 1);
        self.task_function.push(function);
        self.dep_counts.push(deps.len() as u32);
        self.deps.extend_from_slice(deps);
        self.arg_lens.push(args.len() as u32);
        self.args.extend_from_slice(args);
        index
    }

    /// Appends all tasks of a batch; the answer is the index of the first.
    pub(crate) fn append(&mut self, function: u32, option_row: u32, batch: &Batch) -> u32 {
        let first = self.len();
        self.note_options(option_row, batch.len());
        self.task_function.resize(first + batch.len(), function);
        self.dep_counts.extend_from_slice(&batch.dep_counts);
        self.deps.extend_from_slice(&batch.deps);
        self.arg_lens.extend_from_slice(&batch.arg_lens);
        self.args.extend_from_slice(&batch.args);
        first as u32
    }

    /// Makes room for the tasks of a batch.
    pub(crate) fn try_reserve(&mut self, batch: &Batch) -> Result<(), TryReserveError> {
        self.args.try_reserve(batch.args.len())?;
        self.deps.try_reserve(batch.deps.len())?;
        [&mut self.task_function, &mut self.dep_counts, &mut self.arg_lens]
            .into_iter()
            .try_for_each(|column| column.try_reserve(batch.len()))
    }

    #[inline]
    fn note_options(&mut self, row: u32, count: usize) {
        if row == 0 && self.task_options.is_empty() {
            return;
        }
        let len = self.len();
        self.task_options.resize(len, 0);
        self.task_options.resize(len + count, row);
    }

    /// The options of one task, if it has any.
    pub(crate) fn options_of(&self, index: u32) -> Option<&Options> {
        let row = self.task_options.get(index as usize).copied().unwrap_or(0);
        self.options.get(row as usize)
    }

    /// Gives a task a key of its own, which must be free; tasks get theirs in ascending order.
    pub(crate) fn name(&mut self, index: u32, key: &str) {
        self.key_index.push(index);
        self.key_starts.push(self.keys.bytes.len());
        self.keys.push(key.as_bytes());
    }

    /// The key that this task was given, if it does not go by its default.
    pub(crate) fn own_key(&self, index: u32) -> Option<&str> {
        let position = self.key_index.binary_search(&index).ok()?;
        Some(self.key_at(position))
    }

    fn key_at(&self, position: usize) -> &str {
        let start = self.key_starts[position];
        let bytes = &self.keys.bytes[start..start + self.keys.lens[position] as usize];
        std::str::from_utf8(bytes).expect("keys are entered as texts")
    }

    /// The task that was given this key.
    pub(crate) fn by_own_key(&mut self, key: &str) -> Option<u32> {
        for position in self.by_key.len()..self.key_index.len() {
            let entry = (self.key_at(position).into(), self.key_index[position]);
            self.by_key.insert(entry.0, entry.1);
        }
        self.by_key.get(key).copied()
    }

    /// The predecessors of one task.
    pub(crate) fn deps_of(&mut self, index: u32) -> &[u32] {
        let (_, start) = self.start(index);
        &self.deps[start..start + self.dep_counts[index as usize] as usize]
    }

    /// The encoded arguments of one task.
    pub(crate) fn args_of(&mut self, index: u32) -> &[u8] {
        let (start, _) = self.start(index);
        &self.args[start..start + self.arg_lens[index as usize] as usize]
    }

    fn start(&mut self, index: u32) -> (usize, usize) {
        if self.starts.is_empty() {
            self.starts.push((0, 0));
        }
        while self.starts.len() <= index as usize {
            let last = self.starts.len() - 1;
            let (args, deps) = self.starts[last];
            self.starts.push((args + self.arg_lens[last] as usize, deps + self.dep_counts[last] as usize));
        }
        self.starts[index as usize]
    }

    /// The number of functions that tasks run.
    pub(crate) fn function_count(&self) -> usize {
        let mut is_run = Vec::new();
        for &function in &self.task_function {
            if is_run.len() <= function as usize {
                is_run.resize(function as usize + 1, false);
            }
            is_run[function as usize] = true;
        }
        is_run.into_iter().filter(|&is_run| is_run).count()
    }

    /// The tasks that no other task of the graph needs, ascending.
    pub(crate) fn sinks(&self) -> Vec<u32> {
        let mut needed = vec![false; self.len()];
        for &dep in &self.deps {
            if dep & EXTERNAL == 0 {
                needed[dep as usize] = true;
            }
        }
        (0..self.len() as u32).filter(|&index| !needed[index as usize]).collect()
    }

    /// `wanted` and everything that they need, ascending.
    pub(crate) fn ancestors(&mut self, wanted: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut found = vec![false; self.len()];
        let mut open: Vec<u32> = Vec::new();
        for index in wanted {
            if !std::mem::replace(&mut found[index as usize], true) {
                open.push(index);
            }
        }
        while let Some(index) = open.pop() {
            for &dep in self.deps_of(index) {
                if dep & EXTERNAL == 0 && !std::mem::replace(&mut found[dep as usize], true) {
                    open.push(dep);
                }
            }
        }
        (0..self.len() as u32).filter(|&index| found[index as usize]).collect()
    }
}
