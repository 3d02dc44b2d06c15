//! Large parts of arguments on their way into shared memory: each is put as a result of its own before the tasks that take it
//! are submitted, and let go of afterwards, so that those tasks alone hold it (K5).
use std::hash::Hasher;
use std::sync::Arc;

use headrace_protocol::broker::ARGS_BYTES_MAX;
use headrace_protocol::client::CALLS;
use headrace_wire::cites;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustc_hash::{FxHashMap, FxHasher};

use super::session::Session;
use super::submit::TOO_MANY_CALLS;
use super::tables::Tables;
use crate::codec::{LargeId, LargeKind, encode_large, encode_value, wrap};
use crate::errors::usage_error;
use crate::memory::Memory;

/// Values below a length are not worth a block.
const WRAPPED_BYTES_MIN: usize = 512;

/// The parts of one submission.
pub(super) struct Parts<'a> {
    memory: Option<&'a Arc<Memory>>,
    /// Encoded and not yet sent; each has a reference to the blocks that it cites.
    values: Vec<Vec<u8>>,
    /// Which of the values each part is.
    places: FxHashMap<LargeId, usize>,
    /// The pickles by a hash of their bytes: equal ones lie in one block. Yet each is a result, as a task may cite several.
    pickles: FxHashMap<u64, (Py<PyBytes>, usize)>,
}

impl<'a> Parts<'a> {
    pub(super) fn new(memory: Option<&'a Arc<Memory>>) -> Self {
        Self { memory, values: Vec::new(), places: FxHashMap::default(), pickles: FxHashMap::default() }
    }

    /// Whether a part has been written.
    pub(super) fn has(&self, id: &LargeId) -> bool {
        self.places.contains_key(id)
    }

    /// Writes a part into shared memory, unless it is there.
    pub(super) fn write(&mut self, id: LargeId, object: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.has(&id) {
            return Ok(());
        }
        let pickle = match id.kind {
            LargeKind::Pickle => Some(object.cast_exact::<PyBytes>()?),
            LargeKind::Atom | LargeKind::Buffer => None,
        };
        let hash = pickle.map(|pickle| hash_of(pickle.as_bytes()));
        let place = self.values.len();
        let mut value = Vec::new();
        match (pickle, hash.and_then(|hash| self.pickles.get(&hash))) {
            (Some(pickle), Some((other, place))) if pickle.as_bytes() == other.as_bytes(object.py()) => {
                value.clone_from(&self.values[*place]);
                self.memory.and_then(|memory| memory.with_blocks(|blocks| blocks.hold_cited(&value)));
            }
            _ => {
                encode_large(id.kind, object, self.memory, &mut value)?;
                check_value(value.len())?;
                if let (Some(pickle), Some(hash)) = (pickle, hash) {
                    self.pickles.insert(hash, (pickle.clone().unbind(), place));
                }
            }
        }
        self.values.push(value);
        self.places.insert(id, place);
        Ok(())
    }

    /// Puts what was written, to be followed by what takes it. `None` if there are no numbers left.
    pub(super) fn put(&mut self, tables: &mut Tables) -> Option<Put<'_>> {
        let mut indices = Vec::with_capacity(self.values.len());
        for value in &mut self.values {
            let (index, _) = tables.open_call("put", None)?;
            tables.put(index, &std::mem::take(value));
            indices.push(index);
        }
        Some(Put { places: &self.places, indices })
    }
}

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        // What was put has none: an empty value cites nothing.
        if let Some(memory) = self.memory.filter(|_| self.values.iter().any(|value| !value.is_empty())) {
            memory.with_blocks(|blocks| self.values.iter().for_each(|value| blocks.unhold_cited(value)));
        }
    }
}

/// Parts that the broker knows, or will before anything that is sent from now on.
pub(super) struct Put<'a> {
    places: &'a FxHashMap<LargeId, usize>,
    indices: Vec<u32>,
}

impl Put<'_> {
    /// Run and index of a part.
    pub(super) fn place(&self, id: &LargeId) -> (u32, u32) {
        (CALLS, self.indices[self.places[id]])
    }

    /// Lets go of the parts, once what takes them has been sent.
    pub(super) fn release(self, tables: &mut Tables) {
        self.indices.into_iter().for_each(|index| tables.unhold(CALLS, index));
    }
}

/// Puts a value where tasks can take it; the answer is its index among the calls, and its key.
pub(super) fn put(
    py: Python<'_>,
    session: &Session,
    bytes_max: usize,
    value: &Bound<'_, PyAny>,
) -> PyResult<(u32, String)> {
    let mut encoded = Vec::new();
    let memory = session.memory_for_values();
    encode_value(value, memory, &mut encoded)?;
    if let Some(memory) = memory
        && encoded.len() >= WRAPPED_BYTES_MIN
        && !cites(&encoded)
        && session.lock().tables.put_bytes() + encoded.len() > bytes_max
    {
        wrap(py, memory, &mut encoded)?;
    }
    check_value(encoded.len())?;
    let opened = session.command(|tables| {
        let (index, key) = tables.open_call("put", None)?;
        tables.put(index, &encoded);
        Some((index, key))
    });
    opened.ok_or_else(|| usage_error(py, TOO_MANY_CALLS))
}

/// Refuses a value that no frame could hold; where there is shared memory, none is so long.
pub(super) fn check_value(bytes: usize) -> PyResult<()> {
    if bytes <= ARGS_BYTES_MAX {
        return Ok(());
    }
    let text = format!(
        "a value of {bytes} bytes; without shared memory, to a broker of another process, one frame takes {ARGS_BYTES_MAX} at \
         most: write the data to a file and pass its path, let a task make it, or cut it into several"
    );
    Err(Python::attach(|py| usage_error(py, &text)))
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}
