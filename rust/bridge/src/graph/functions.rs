//! The functions of a graph: each is described and pickled once, when the graph first sees it.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pyo3::Borrowed;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use rustc_hash::FxHashMap;

use super::columns::Options;
use super::held::Held;
use headrace_wire::{ANY_WORKER, BlobsBuf, Message, Policy};

/// A function as it travels.
#[derive(Clone)]
pub(crate) struct Function {
    /// Its name, for keys and people.
    pub(crate) name: Arc<str>,
    /// Its pickle; empty in a by-reference graph.
    pub(crate) blob: Arc<[u8]>,
}

/// What `headrace.pickling.describe` says of something to call.
pub(crate) struct Described {
    pub(crate) name: Arc<str>,
    /// What to call in this process: the plain function below a task object, whose options are no part of it.
    pub(crate) callable: Py<PyAny>,
    pub(crate) options: Options,
    pub(crate) key: Option<Arc<str>>,
}

/// Describes something to call; the errors are the user's (not callable, async, unknown option).
pub(crate) fn describe(callable: &Bound<'_, PyAny>, verb: &str) -> PyResult<Described> {
    static DESCRIBE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    type Parts<'py> = (Bound<'py, PyAny>, String, Option<String>, i32, Option<u32>, Option<u32>, Option<PolicyParts>);
    let py = callable.py();
    let describe = DESCRIBE.import(py, "headrace.pickling", "describe")?;
    let (plain, name, key, priority, worker, nout, policy): Parts<'_> = describe.call1((callable, verb))?.extract()?;
    Ok(Described {
        name: name.into(),
        callable: plain.unbind(),
        options: Options {
            priority,
            worker: worker.unwrap_or(ANY_WORKER),
            nout: nout.unwrap_or(0),
            policy: policy.map_or_else(Arc::default, |policy| encoded_policy(policy).into()),
        },
        key: key.map(Arc::from),
    })
}

impl Described {
    /// The function's pickle, made now; the error names what in it cannot travel.
    pub(crate) fn capture(&self, py: Python<'_>, verb: &str) -> PyResult<Arc<[u8]>> {
        static DUMP_FUNCTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let dump = DUMP_FUNCTION.import(py, "headrace.pickling", "dump_function")?;
        Ok(dump.call1((&self.callable, verb))?.extract::<Vec<u8>>()?.into())
    }
}

/// What `headrace.options.policy_of` gives.
pub(crate) type PolicyParts = (u32, u32, u32, u32, u32, u32, Vec<(String, u64)>, Vec<String>);

/// The same of a policy.
pub(super) fn policy_parts(policy: &Policy<'_>) -> PolicyParts {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let amounts = policy.amounts.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    let demands = policy.resources.iter().map(text).zip(amounts).collect();
    let Policy { retries, flags, backoff_ms, backoff_max_ms, timeout_ms, queue_timeout_ms, tags, .. } = *policy;
    (retries, flags, backoff_ms, backoff_max_ms, timeout_ms, queue_timeout_ms, demands, tags.iter().map(text).collect())
}

/// The policy as it travels.
pub(crate) fn encoded_policy(parts: PolicyParts) -> Vec<u8> {
    let (retries, flags, backoff_ms, backoff_max_ms, timeout_ms, queue_timeout_ms, demands, names) = parts;
    let (mut resources, mut amounts, mut tags) = (BlobsBuf::default(), Vec::new(), BlobsBuf::default());
    for (name, amount) in demands {
        resources.push(name.as_bytes());
        amounts.extend_from_slice(&amount.to_le_bytes());
    }
    names.iter().for_each(|name| tags.push(name.as_bytes()));
    let policy = Policy {
        retries,
        flags,
        backoff_ms,
        backoff_max_ms,
        timeout_ms,
        queue_timeout_ms,
        resources: resources.as_blobs(),
        amounts: &amounts,
        tags: tags.as_blobs(),
    };
    let mut encoded = Vec::new();
    Message::Policy(policy).encode(&mut encoded);
    encoded
}

/// What a graph knows of something that was given to `add`.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// Position in the table of functions.
    pub(crate) function: u32,
    /// Position in the table of options.
    pub(crate) option_row: u32,
    /// Position in the table of keys, if the options give one to the task.
    pub(crate) key: Option<u32>,
}

/// The entry of the callable that was asked for last, to be read without a lock. Only who holds the interpreter lock reads
/// or writes it, so the two words always belong together.
#[derive(Default)]
pub(crate) struct LastEntry {
    address: AtomicUsize,
    entry: AtomicU64,
}

impl LastEntry {
    /// The entry of `callable`, if it was the last and gives its tasks no key.
    #[inline]
    pub(crate) fn get(&self, callable: &Borrowed<'_, '_, PyAny>) -> Option<Entry> {
        if self.address.load(Ordering::Relaxed) != callable.as_ptr() as usize {
            return None;
        }
        let entry = self.entry.load(Ordering::Relaxed);
        Some(Entry { function: (entry >> 32) as u32, option_row: entry as u32, key: None })
    }

    /// Forgets it.
    pub(crate) fn clear(&self) {
        self.address.store(0, Ordering::Relaxed);
    }

    /// Remembers the entry of a callable that the graph keeps alive.
    pub(crate) fn set(&self, callable: &Borrowed<'_, '_, PyAny>, entry: Entry) {
        let word = (u64::from(entry.function) << 32) | u64::from(entry.option_row);
        self.entry.store(word, Ordering::Relaxed);
        self.address.store(callable.as_ptr() as usize, Ordering::Relaxed);
    }
}

/// What tells callables apart: their address. A bound method is made anew at each access, so it goes by its parts.
pub(crate) type Identity = (usize, usize);

/// What tells this callable from others.
pub(crate) fn identity(callable: &Bound<'_, PyAny>) -> Identity {
    static METHOD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = callable.py();
    let address = (callable.as_ptr() as usize, 0);
    if !METHOD.import(py, "types", "MethodType").is_ok_and(|method| callable.get_type().is(method)) {
        return address;
    }
    match (callable.getattr(intern!(py, "__self__")), callable.getattr(intern!(py, "__func__"))) {
        (Ok(owner), Ok(function)) => (owner.as_ptr() as usize, function.as_ptr() as usize),
        _ => address,
    }
}

/// The functions that a graph has seen. It holds the callables themselves elsewhere, so that their addresses stay unique.
#[derive(Clone, Default)]
pub(crate) struct Functions {
    pub(crate) table: Vec<Function>,
    entries: FxHashMap<Identity, Entry>,
    by_content: FxHashMap<(Arc<str>, Arc<[u8]>), u32>,
    by_callable: FxHashMap<usize, u32>,
    /// Keys that options give.
    pub(crate) keys: Vec<Arc<str>>,
}

impl Functions {
    /// The entry of a callable that was seen before.
    pub(crate) fn known(&self, identity: Identity) -> Option<Entry> {
        self.entries.get(&identity).copied()
    }

    /// Whether the function that something describes has its place in the table, whatever options it came with.
    pub(crate) fn has(&self, described: &Described) -> bool {
        self.by_callable.contains_key(&(described.callable.as_ptr() as usize))
    }

    /// Enters a callable, which `held` keeps alive. The pickle of its function is empty where that is in the table.
    pub(crate) fn insert(
        &mut self,
        held: &Held,
        callable: &Bound<'_, PyAny>,
        described: Described,
        blob: Arc<[u8]>,
        option_row: u32,
    ) -> Entry {
        let identity = identity(callable);
        let mut held = held.lock(callable.py());
        let address = described.callable.as_ptr() as usize;
        let content = (Arc::clone(&described.name), Arc::clone(&blob));
        let same_content = if content.1.is_empty() { None } else { self.by_content.get(&content) };
        let known = self.by_callable.get(&address).or(same_content).copied();
        let function = known.unwrap_or_else(|| {
            let function = self.table.len() as u32;
            self.by_callable.insert(address, function);
            if !content.1.is_empty() {
                self.by_content.insert(content, function);
            }
            self.table.push(Function { name: described.name, blob });
            held.callables.push(described.callable);
            function
        });
        let key = described.key.map(|key| {
            self.keys.push(key);
            self.keys.len() as u32 - 1
        });
        let entry = Entry { function, option_row, key };
        held.seen.push(callable.clone().unbind());
        self.entries.insert(identity, entry);
        entry
    }
}
