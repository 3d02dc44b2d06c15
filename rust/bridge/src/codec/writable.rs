//! Values that a task may write to while nobody else sees it: nothing is copied but the pages that it touches.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use headrace_protocol::store::BlockId;
use headrace_sys::segment::CowMap;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use rustc_hash::FxHashMap;

use super::out_of_band::{dumps_private, loads_with_buffers};
use crate::buffer::Contiguous;
use crate::memory::{Block, Memory};

/// The value with arrays that may be written to: those in blocks lie in private maps of them, other read-only ones are
/// copied. A value without read-only arrays is given back as it is.
///
/// Such a value is pickled and loaded again, its arrays aside; so what travels within the pickle is copied.
pub(crate) fn make_writable<'py>(value: &Bound<'py, PyAny>, memory: &Arc<Memory>) -> PyResult<Bound<'py, PyAny>> {
    let private = Bound::new(value.py(), Private::new(memory))?;
    let (pickle, buffers) = dumps_private(value, private.as_any())?;
    // Relaxed: this thread has set it.
    match private.get().is_used.load(Ordering::Relaxed) {
        true => loads_with_buffers(pickle.as_any(), &buffers),
        false => Ok(value.clone()),
    }
}

/// What the reducers of `headrace.out_of_band` call for each buffer of one value.
#[pyclass(frozen)]
struct Private {
    memory: Arc<Memory>,
    /// Maps of blocks, each with its first byte that is free still. Buffers of one map never overlap: two arrays that show
    /// the same bytes of a block are two values. A map for each buffer would not do, for a process has some 65,000.
    maps: Mutex<FxHashMap<BlockId, (Arc<CowMap>, u64)>>,
    is_used: AtomicBool,
}

#[pymethods]
impl Private {
    /// The bytes of a buffer as an object that may be written to; the buffer itself, if it may.
    fn __call__<'py>(&self, buffer: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = buffer.py();
        let view = Contiguous::of(buffer)?;
        if !view.is_read_only() {
            return Ok(buffer.clone());
        }
        self.is_used.store(true, Ordering::Relaxed);
        match self.map(py, view.bytes())? {
            Some(block) => Ok(Bound::new(py, block)?.into_any()),
            None => Ok(PyByteArray::new(py, view.bytes()).into_any()),
        }
    }
}

impl Private {
    fn new(memory: &Arc<Memory>) -> Self {
        Self { memory: Arc::clone(memory), maps: Mutex::default(), is_used: AtomicBool::new(false) }
    }

    /// These bytes in a private map; `None` if they lie in no block.
    fn map(&self, py: Python<'_>, bytes: &[u8]) -> PyResult<Option<Block>> {
        let found = self.memory.find(bytes.as_ptr().addr(), bytes.len());
        let Some((id, size, start)) = found.filter(|_| !bytes.is_empty()) else { return Ok(None) };
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let map = match maps.get(&id) {
            Some((map, free)) if *free <= start => Arc::clone(map),
            _ => {
                let map = self.memory.map(py, id.segment)?.copy_on_write(id.offset, size);
                Arc::new(map.map_err(|error| {
                    PyMemoryError::new_err(format!("{size} bytes cannot be mapped to be written to: {error}"))
                })?)
            }
        };
        maps.insert(id, (Arc::clone(&map), start + bytes.len() as u64));
        Ok(Some(self.memory.export_private(id, size, map, start as usize, bytes.len())))
    }
}
