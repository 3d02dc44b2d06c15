//! Large values: their bytes lie in blocks of shared memory, and the encoding cites them.
//!
//! Behind the citations (`headrace_wire::CITING`) stands one byte for the kind of value. 0: `bytes`; 1: `str`; then one piece
//! with its contents. 2: a pickle with out-of-band buffers (protocol 5): a piece with the pickle, u32 n, then n pieces with the
//! buffers. 4: an array of plain numbers (`array.rs`), its piece first. (3, [`WRAPPED`], is a short value that lies in a block
//! for want of room elsewhere: on disk, where the broker has put it, or where [`wrap`] has.) A piece is u32 k, u64 start, u64
//! length: so many bytes of the block of citation k; or, with k = 2³² - 1, the bytes themselves follow.
use std::sync::Arc;

use headrace_protocol::store::BlockId;
use headrace_wire::{
    BLOCK_ALIGN, Citation, FILE_SEGMENTS, WRAPPED, behind_citations, carried, citations, write_citations, write_wrapped,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyString};

use super::array::{PlainArray, read_array};
use super::decode::decode_value;
use super::encode::put_pickle;
use super::out_of_band::{dumps_out_of_band, loads_with_buffers};
use super::pickle::dumps_plain;
use crate::buffer::Contiguous;
use crate::memory::{Access, Block, Memory};

const KIND_BYTES: u8 = 0;
const KIND_STR: u8 = 1;
const KIND_PICKLE: u8 = 2;
const KIND_ARRAY: u8 = 4;

/// The `k` of a piece whose bytes follow.
const INLINE: u32 = u32::MAX;

/// Appends the encoding of a long atom, which is an exact `bytes` or `str`, with its contents in shared memory, with a reference
/// to each block that it cites.
pub(super) fn encode_long_atom(value: &Bound<'_, PyAny>, memory: &Arc<Memory>, out: &mut Vec<u8>) -> PyResult<()> {
    let (kind, contents) = match value.cast_exact::<PyBytes>() {
        Ok(bytes) => (KIND_BYTES, bytes.as_bytes()),
        Err(_) => (KIND_STR, value.cast_exact::<PyString>()?.to_str()?.as_bytes()),
    };
    let mut writer = Writer::default();
    let pieces = writer.place(value.py(), memory, [contents].into_iter())?;
    write_citations(&writer.cited, out);
    out.push(kind);
    pieces.into_iter().for_each(|piece| piece.write(out));
    Ok(())
}

/// Appends the encoding of a long array, with its items in shared memory, with a reference to the block that it cites.
pub(super) fn encode_array(
    py: Python<'_>,
    array: &PlainArray,
    memory: &Arc<Memory>,
    out: &mut Vec<u8>,
) -> PyResult<()> {
    let mut writer = Writer::default();
    let pieces = writer.place(py, memory, [array.bytes()].into_iter())?;
    write_citations(&writer.cited, out);
    out.push(KIND_ARRAY);
    pieces.into_iter().for_each(|piece| piece.write(out));
    array.describe(out);
    Ok(())
}

/// Appends the pickle of a value. Where that is long, its large parts lie in shared memory, and the encoding has a reference to
/// each block that it cites.
pub(super) fn encode_pickle(value: &Bound<'_, PyAny>, memory: &Arc<Memory>, out: &mut Vec<u8>) -> PyResult<()> {
    let (py, inline_bytes_max) = (value.py(), memory.inline_bytes_max);
    let (pickle, buffers) = dumps_out_of_band(value, inline_bytes_max)?;
    let views = buffers.iter().map(|buffer| Contiguous::of(&buffer)).collect::<PyResult<Vec<_>>>()?;
    let total = pickle.as_bytes().len() + views.iter().map(|view| view.bytes().len()).sum::<usize>();
    if total <= inline_bytes_max {
        // Short buffers travel in the pickle, which then gives its reader objects of its own.
        return if views.is_empty() { put_pickle(&pickle, out) } else { put_pickle(&dumps_plain(value)?, out) };
    }
    let mut writer = Writer::default();
    let long_pickle = pickle.as_bytes().len() > inline_bytes_max;
    let parts = long_pickle.then(|| pickle.as_bytes()).into_iter().chain(views.iter().map(Contiguous::bytes));
    let pieces = writer.place(py, memory, parts)?;
    let mut pieces = pieces.into_iter();
    write_citations(&writer.cited, out);
    out.push(KIND_PICKLE);
    match long_pickle.then(|| pieces.next()).flatten() {
        Some(piece) => piece.write(out),
        None => {
            Piece { k: INLINE, start: 0, bytes: pickle.as_bytes().len() as u64 }.write(out);
            out.extend_from_slice(pickle.as_bytes());
        }
    }
    out.extend_from_slice(&(views.len() as u32).to_le_bytes());
    pieces.for_each(|piece| piece.write(out));
    Ok(())
}

/// Puts the encoding of a value that cites no block into one; the new encoding has a reference to it.
pub(crate) fn wrap(py: Python<'_>, memory: &Memory, value: &mut Vec<u8>) -> PyResult<()> {
    let (block, segment) = memory.allocate(py, value.len() as u64)?;
    segment.write(block.id.offset, value);
    let cited = Citation { segment: block.id.segment, offset: block.id.offset, bytes: block.bytes };
    let len = value.len() as u64;
    value.clear();
    write_wrapped(cited, len, value);
    Ok(())
}

/// The citations of one value, as they gather.
#[derive(Default)]
struct Writer {
    cited: Vec<Citation>,
}

#[derive(Clone, Copy)]
struct Piece {
    k: u32,
    start: u64,
    bytes: u64,
}

impl Piece {
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.k.to_le_bytes());
        out.extend_from_slice(&self.start.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
    }
}

impl Writer {
    /// Finds the parts that lie in shared memory already, and copies the others into one new block.
    fn place<'a>(
        &mut self,
        py: Python<'_>,
        memory: &Arc<Memory>,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> PyResult<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut fresh: Vec<(u64, &'a [u8])> = Vec::new();
        let mut fresh_bytes = 0_u64;
        for part in parts {
            let bytes = part.len() as u64;
            match memory.find(part.as_ptr().addr(), part.len()).filter(|_| bytes > 0) {
                Some((id, size, start)) => {
                    let k = self.cite(memory, id, size);
                    pieces.push(Piece { k, start, bytes });
                }
                None => {
                    pieces.push(Piece { k: INLINE, start: fresh_bytes, bytes });
                    fresh.push((fresh_bytes, part));
                    fresh_bytes = (fresh_bytes + bytes).next_multiple_of(BLOCK_ALIGN);
                }
            }
        }
        if !fresh.is_empty() {
            let (block, segment) = match memory.allocate(py, fresh_bytes) {
                Ok(found) => found,
                Err(error) => {
                    self.undo(memory);
                    return Err(error);
                }
            };
            let at = block.id.offset;
            py.detach(|| fresh.iter().for_each(|(offset, part)| segment.write(at + offset, part)));
            let k = self.cited.len() as u32;
            self.cited.push(Citation { segment: block.id.segment, offset: at, bytes: block.bytes });
            pieces.iter_mut().filter(|piece| piece.k == INLINE).for_each(|piece| piece.k = k);
        }
        Ok(pieces)
    }

    fn cite(&mut self, memory: &Memory, id: BlockId, bytes: u64) -> u32 {
        let cited = Citation { segment: id.segment, offset: id.offset, bytes };
        if let Some(k) = self.cited.iter().position(|other| *other == cited) {
            return k as u32;
        }
        memory.with_blocks(|blocks| blocks.hold(id));
        self.cited.push(cited);
        (self.cited.len() - 1) as u32
    }

    fn undo(&mut self, memory: &Memory) {
        for cited in self.cited.drain(..) {
            memory.with_blocks(|blocks| blocks.unhold(BlockId { segment: cited.segment, offset: cited.offset }));
        }
    }
}

/// Where the blocks of a value are.
#[derive(Clone, Copy)]
enum Place<'a> {
    Memory(&'a Arc<Memory>),
    /// Here, one behind the other.
    Carried(&'a [u8]),
}

/// Decodes a value whose parts lie in shared memory.
#[cold]
pub(super) fn decode_shared(py: Python<'_>, value: &[u8], memory: &Arc<Memory>) -> PyResult<Py<PyAny>> {
    decode_placed(py, value, Place::Memory(memory))
}

/// Decodes a value that brings its blocks; all that it has are objects of its own.
#[cold]
pub(super) fn decode_carried(py: Python<'_>, value: &[u8]) -> PyResult<Py<PyAny>> {
    let (head, blocks) = carried(value).ok_or_else(damaged)?;
    decode_placed(py, head, Place::Carried(blocks))
}

fn decode_placed(py: Python<'_>, value: &[u8], place: Place<'_>) -> PyResult<Py<PyAny>> {
    let cited: Vec<Citation> = citations(value).collect();
    let mut reader = Reader { rest: behind_citations(value) };
    let kind = reader.take(1)?[0];
    if kind == WRAPPED {
        let piece = Piece { k: 0, start: 0, bytes: u64::from_le_bytes(reader.array()?) };
        let object = Read { piece, inline: None }.object(py, place, &cited)?;
        return decode_value(py, Contiguous::plain(object.bind(py))?.bytes(), None);
    }
    let first = reader.piece()?;
    match kind {
        KIND_BYTES | KIND_STR => {
            let object = first.object(py, place, &cited)?;
            let view = Contiguous::plain(object.bind(py))?;
            match kind {
                KIND_BYTES => Ok(PyBytes::new(py, view.bytes()).into_any().unbind()),
                _ => std::str::from_utf8(view.bytes())
                    .map(|text| PyString::new(py, text).into_any().unbind())
                    .map_err(|_| damaged()),
            }
        }
        KIND_PICKLE => {
            let count = u32::from_le_bytes(reader.array()?);
            let buffers = PyList::empty(py);
            for _ in 0..count {
                buffers.append(reader.piece()?.object(py, place, &cited)?)?;
            }
            let pickle = match first.inline {
                Some(bytes) => PyBytes::new(py, bytes).into_any().unbind(),
                None => first.object(py, place, &cited)?,
            };
            Ok(loads_with_buffers(pickle.bind(py), &buffers)?.unbind())
        }
        KIND_ARRAY => {
            let array = read_array(py, first.object(py, place, &cited)?.bind(py), reader.rest)?;
            array.map(Bound::unbind).ok_or_else(damaged)
        }
        _ => Err(damaged()),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

/// A piece as it is read: with its bytes, if they follow it.
struct Read<'a> {
    piece: Piece,
    inline: Option<&'a [u8]>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> PyResult<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or_else(damaged)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk().ok_or_else(damaged)?;
        self.rest = tail;
        Ok(*head)
    }

    fn piece(&mut self) -> PyResult<Read<'a>> {
        let k = u32::from_le_bytes(self.array()?);
        let (start, bytes) = (u64::from_le_bytes(self.array()?), u64::from_le_bytes(self.array()?));
        let inline = match k {
            INLINE => Some(self.take(usize::try_from(bytes).map_err(|_| damaged())?)?),
            _ => None,
        };
        Ok(Read { piece: Piece { k, start, bytes }, inline })
    }
}

impl Read<'_> {
    /// The bytes as an object with the buffer protocol.
    fn object(&self, py: Python<'_>, place: Place<'_>, cited: &[Citation]) -> PyResult<Py<PyAny>> {
        if let Some(bytes) = self.inline {
            return Ok(PyBytes::new(py, bytes).into_any().unbind());
        }
        let Piece { k, start, bytes } = self.piece;
        let citation = *cited.get(k as usize).ok_or_else(damaged)?;
        let memory = match place {
            Place::Memory(memory) => memory,
            Place::Carried(blocks) => {
                let before: u64 = cited[..k as usize].iter().map(|block| block.bytes).sum();
                let start = usize::try_from(before + start).map_err(|_| damaged())?;
                let found = start.checked_add(bytes as usize).and_then(|end| blocks.get(start..end));
                return Ok(PyByteArray::new(py, found.ok_or_else(damaged)?).into_any().unbind());
            }
        };
        let segment = memory.map(py, citation.segment)?;
        if citation.segment >= FILE_SEGMENTS {
            memory.fetch(py, &segment, citation, start, bytes)?;
        }
        let block: Block = memory.export(citation, segment, start, bytes, Access::ReadOnly)?;
        Ok(Py::new(py, block)?.into_any())
    }
}

#[cold]
fn damaged() -> PyErr {
    PyValueError::new_err("damaged value: it does not fit its blocks")
}
