//! Shared memory as Python sees it: [`Block`] objects, and values that lie in them.
//!
//! A `Block` keeps its map alive, and counts as a reference to the block of memory until it is collected; whatever was made
//! from it (an array, a view of an array) keeps it alive in turn. So bytes are used again only when nobody can see them (S1),
//! and a view may outlive run, client and broker. A private map shows the block wherever it was not written to, so it counts
//! as well.
mod growth;

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headrace_protocol::store::{Allocated, BlockId, Blocks};
use headrace_runtime::segments::{Missing, Segments};
use headrace_sys::segment::{CowMap, Segment};
use headrace_wire::Citation;
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::buffer::Exported;
use crate::errors::infra_error;
use crate::inline_limit::NO_LIMIT;
use growth::Growth;

/// Whoever speaks with the broker for this process.
pub(crate) trait Seat: Send + Sync {
    /// Looks at the table of blocks, and sends what that makes due; does nothing if the session is gone.
    fn with_blocks(&self, look: &mut dyn FnMut(&mut Blocks));

    /// Asks for a segment.
    fn want(&self, bytes: u64);

    /// Says that a segment of others has not come.
    fn lack(&self, segment: u32);

    /// Takes back the last wish, for so many bytes. The answer comes all the same.
    fn withdraw(&self, bytes: u64);

    /// Gives back a segment that is of no use here.
    fn return_segment(&self, segment: u32);

    /// Takes in what has arrived, where nobody else does while a thread waits for memory.
    fn listen(&self);

    /// How urgent it is, by the broker's word, to look for garbage that keeps memory.
    fn garbage_due(&self) -> u8;

    /// Garbage was looked for with this urgency.
    fn note_collected(&self, urgency: u8);
}

/// The shared memory of one session in this process.
pub(crate) struct Memory {
    seat: Box<dyn Seat>,
    segments: Arc<Segments>,
    /// Blocks with `Block` objects: their sizes and how many there are, so that a buffer in one is known by its address.
    exports: Mutex<BTreeMap<BlockId, (u64, u32)>>,
    growth: Growth,
    /// Values up to this many bytes travel in frames.
    pub(crate) inline_bytes_max: usize,
    pid: u32,
}

/// Longest wait for a segment that was announced. It was sent before what cites it.
const ARRIVAL: Duration = Duration::from_secs(10);

impl Memory {
    pub(crate) fn new(seat: impl Seat + 'static, segments: Arc<Segments>, inline_bytes_max: usize) -> Self {
        Self {
            seat: Box::new(seat),
            segments,
            exports: Mutex::default(),
            growth: Growth::default(),
            inline_bytes_max,
            pid: std::process::id(),
        }
    }

    /// This memory, if values shall lie in it.
    pub(crate) fn for_values(self: &Arc<Self>) -> Option<&Arc<Self>> {
        (self.inline_bytes_max != NO_LIMIT).then_some(self)
    }

    /// A new block as an object that may be written to.
    pub(crate) fn allocate_object(self: &Arc<Self>, py: Python<'_>, bytes: u64) -> PyResult<Block> {
        let (block, segment) = self.allocate(py, bytes)?;
        let BlockId { segment: number, offset } = block.id;
        let cited = Citation { segment: number, offset, bytes: block.bytes };
        let object = self.export(cited, segment, 0, bytes, Access::Owner);
        self.with_blocks(|blocks| blocks.unhold(block.id));
        object
    }

    fn try_allocate(&self, py: Python<'_>, bytes: u64) -> PyResult<Option<(Allocated, Arc<Segment>)>> {
        let Some(block) = self.with_blocks(|blocks| blocks.allocate(bytes)).flatten() else { return Ok(None) };
        let found = self.segments.map(block.id.segment, Duration::ZERO).map_err(|_| "its segment is gone".to_owned());
        let committed = found.and_then(|segment| {
            let commit = &block.commit;
            let done = py.detach(|| segment.commit(commit.start, commit.end - commit.start));
            done.map(|()| segment).map_err(|error| error.to_string())
        });
        match committed {
            Ok(segment) => Ok(Some((block, segment))),
            Err(text) => {
                self.with_blocks(|blocks| blocks.undo_allocate(&block));
                Err(PyMemoryError::new_err(format!("{bytes} bytes of shared memory cannot be had: {text}")))
            }
        }
    }

    /// The block that has all of these bytes, if a `Block` object of it is alive: (block, its size, where they start in it).
    pub(crate) fn find(&self, address: usize, bytes: usize) -> Option<(BlockId, u64, u64)> {
        let (segment, offset) = self.segments.find(address, bytes)?;
        let exports = self.exports();
        let (&id, &(size, _)) = exports.range(..=BlockId { segment, offset }).next_back()?;
        let inside = id.segment == segment && offset + bytes as u64 <= id.offset + size;
        inside.then(|| (id, size, offset - id.offset))
    }

    /// `None` if the session is gone; then nobody counts any more.
    pub(crate) fn with_blocks<T>(&self, look: impl FnOnce(&mut Blocks) -> T) -> Option<T> {
        let (mut look, mut answer) = (Some(look), None);
        self.seat.with_blocks(&mut |blocks| answer = look.take().map(|look| look(blocks)));
        answer
    }

    /// Whether this is a forked child, which must not touch what it shares with its parent's threads.
    fn is_forked(&self) -> bool {
        self.pid != std::process::id()
    }

    /// The process is about to fork.
    pub(crate) fn note_fork(&self) {
        if !self.is_forked() {
            self.with_blocks(Blocks::note_fork);
        }
    }

    /// The map of a segment that a value cites. One that this process had no descriptor for when it came is asked for once more:
    /// there may be one by now.
    pub(crate) fn map(&self, py: Python<'_>, segment: u32) -> PyResult<Arc<Segment>> {
        let mut missing = match py.detach(|| self.segments.map(segment, ARRIVAL)) {
            Ok(map) => return Ok(map),
            Err(missing) => missing,
        };
        if let Missing::Unusable(_) = missing {
            let again = py.detach(|| {
                self.segments.expect(segment);
                self.seat.lack(segment);
                self.segments.map(segment, ARRIVAL)
            });
            match again {
                Ok(map) => return Ok(map),
                Err(again) => missing = again,
            }
        }
        let text = match missing {
            Missing::Unusable(text) => text,
            Missing::NotHere => format!("segment {segment} of shared memory is not here"),
        };
        Err(infra_error(py, "ResultLost", &text))
    }

    /// Has bytes of a block read that lies in a file.
    pub(crate) fn fetch(
        &self,
        py: Python<'_>,
        segment: &Segment,
        cited: Citation,
        start: u64,
        bytes: u64,
    ) -> PyResult<()> {
        check_within(segment, cited, start, bytes)?;
        let read = py.detach(|| segment.fetch(cited.offset + start, bytes));
        read.map_err(|why| infra_error(py, "ResultLost", &format!("a result that lies on disk cannot be read: {why}")))
    }

    /// An object for bytes of a block; it takes a reference of its own.
    pub(crate) fn export(
        self: &Arc<Self>,
        cited: Citation,
        segment: Arc<Segment>,
        start: u64,
        bytes: u64,
        access: Access,
    ) -> PyResult<Block> {
        check_within(&segment, cited, start, bytes)?;
        let id = BlockId { segment: cited.segment, offset: cited.offset };
        let at = (cited.offset + start) as usize;
        Ok(self.object(id, cited.bytes, Map::Shared(segment, access), at, bytes as usize))
    }

    /// An object for bytes of a private map of a block of `size` bytes. It takes a reference as any other does: pages that
    /// nobody has written to show the block.
    pub(crate) fn export_private(
        self: &Arc<Self>,
        id: BlockId,
        size: u64,
        map: Arc<CowMap>,
        at: usize,
        bytes: usize,
    ) -> Block {
        self.object(id, size, Map::Private(map), at, bytes)
    }

    fn object(self: &Arc<Self>, id: BlockId, size: u64, map: Map, at: usize, bytes: usize) -> Block {
        self.with_blocks(|blocks| blocks.hold(id));
        self.exports().entry(id).or_insert((size, 0)).1 += 1;
        Block { memory: Arc::clone(self), id, map, at, bytes }
    }

    fn unexport(&self, id: BlockId) {
        let mut exports = self.exports();
        if let Some((_, count)) = exports.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                exports.remove(&id);
            }
        }
        drop(exports);
        self.with_blocks(|blocks| blocks.unhold(id));
    }

    fn exports(&self) -> MutexGuard<'_, BTreeMap<BlockId, (u64, u32)>> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_within(segment: &Segment, cited: Citation, start: u64, bytes: u64) -> PyResult<()> {
    let within = start.checked_add(bytes).is_some_and(|end| end <= cited.bytes)
        && cited.offset.checked_add(cited.bytes).is_some_and(|end| end <= segment.len());
    if within { Ok(()) } else { Err(PyValueError::new_err("damaged value: bytes outside its block")) }
}

/// What an object may do with the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read them.
    ReadOnly,
    /// Write them for everybody: a block that no one else has been told of.
    Owner,
}

/// Where an object sees a block.
enum Map {
    /// In the map of its segment.
    Shared(Arc<Segment>, Access),
    /// In a map of its own, whose bytes it may write: nobody else sees that.
    Private(Arc<CowMap>),
}

/// Bytes of a block of shared memory; it has the buffer protocol and nothing else.
#[pyclass(frozen, module = "headrace._core")]
pub(crate) struct Block {
    memory: Arc<Memory>,
    id: BlockId,
    map: Map,
    /// Where they start in the map.
    at: usize,
    bytes: usize,
}

#[pymethods]
impl Block {
    fn __len__(&self) -> usize {
        self.bytes
    }

    /// The same bytes in a map of their own that may be written to: nobody else sees it, and what is not written to is not
    /// copied.
    fn _private(&self) -> PyResult<Block> {
        let map = match &self.map {
            Map::Private(map) => {
                return Ok(self.memory.object(self.id, 0, Map::Private(map.clone()), self.at, self.bytes));
            }
            Map::Shared(segment, _) => segment.copy_on_write(self.at as u64, self.bytes as u64),
        };
        let map = map.map_err(|error| {
            PyMemoryError::new_err(format!("{} bytes cannot be mapped to be written to: {error}", self.bytes))
        })?;
        // This object has entered the size of the block.
        Ok(self.memory.object(self.id, 0, Map::Private(Arc::new(map)), 0, self.bytes))
    }

    /// # Safety
    /// As the buffer protocol has it: `view` is the caller's.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let (start, writable) = match &this.map {
            Map::Shared(segment, access) => (segment.at(this.at as u64), *access == Access::Owner),
            Map::Private(map) => (map.at(this.at), true),
        };
        let exported = Exported { start, bytes: this.bytes, writable };
        // SAFETY: `view` is good. The bytes lie in a map that `slf` keeps alive, in a part of it that has pages, because it
        // belongs to a block.
        unsafe { exported.fill(&slf, view, flags) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // In a forked child the locks may be held by threads that are not here, and the parent counts for it.
        if !self.memory.is_forked() {
            self.memory.unexport(self.id);
        }
    }
}
