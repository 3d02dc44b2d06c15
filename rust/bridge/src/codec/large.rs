//! Large parts of arguments, which do not travel with each task: a task cites them as it cites results, and whoever submits it
//! puts them where workers see them.
//!
//! A part is an exact `bytes` or `str`, a buffer that the pickler of an argument came upon, or a pickle. A buffer is held and
//! not copied, so it must not change until the task was submitted; the others are snapshots.
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};

use super::encode::encode_value;
use super::{External, ExternalId};
use crate::buffer::Contiguous;
use crate::memory::Memory;

/// An argument of so many bytes, or a part of it, does not travel with its task.
pub(super) const LARGE_BYTES_MIN: usize = 1 << 20;

/// What a part is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum LargeKind {
    /// An exact `bytes` or `str`.
    Atom,
    /// A `pickle.PickleBuffer`.
    Buffer,
    /// The pickle of an argument, as `bytes`.
    Pickle,
}

/// Names a part by where it lies, for as long as it is held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LargeId {
    pub(crate) kind: LargeKind,
    address: usize,
    bytes: usize,
}

/// The part that is an exact `bytes` or `str`, if that is large.
pub(super) fn large_atom(value: &Bound<'_, PyAny>) -> Option<External> {
    let contents = match value.cast_exact::<PyBytes>() {
        Ok(bytes) => bytes.as_bytes(),
        Err(_) => value.cast_exact::<PyString>().ok()?.to_str().ok()?.as_bytes(),
    };
    (contents.len() >= LARGE_BYTES_MIN).then(|| part(LargeKind::Atom, contents, value))
}

/// The part that is a buffer, given as a `pickle.PickleBuffer`, if that is large.
pub(super) fn large_buffer(buffer: &Bound<'_, PyAny>) -> Option<External> {
    // One with gaps stays with its pickler, which refuses it.
    let view = Contiguous::of(buffer).ok()?;
    (view.bytes().len() >= LARGE_BYTES_MIN).then(|| part(LargeKind::Buffer, view.bytes(), buffer))
}

/// The part that is this pickle.
pub(super) fn large_pickle(pickle: &Bound<'_, PyBytes>) -> External {
    part(LargeKind::Pickle, pickle.as_bytes(), pickle.as_any())
}

fn part(kind: LargeKind, contents: &[u8], object: &Bound<'_, PyAny>) -> External {
    let id = LargeId { kind, address: contents.as_ptr().addr(), bytes: contents.len() };
    External { id: ExternalId::Large(id), object: object.clone().unbind() }
}

/// Appends the encoding of a part as a result: of an atom, or of an object with the buffer protocol.
pub(crate) fn encode_large(
    kind: LargeKind,
    object: &Bound<'_, PyAny>,
    memory: Option<&Arc<Memory>>,
    out: &mut Vec<u8>,
) -> PyResult<()> {
    static PICKLE_BUFFER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    match kind {
        LargeKind::Atom | LargeKind::Buffer => encode_value(object, memory, out),
        LargeKind::Pickle => {
            let buffer = PICKLE_BUFFER.import(py, "_pickle", "PickleBuffer")?.call1((object,))?;
            encode_value(&buffer, memory, out)
        }
    }
}

/// A part as a task of this process gets it, which may read it only.
pub(crate) fn large_input<'py>(kind: LargeKind, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match kind {
        LargeKind::Atom | LargeKind::Pickle => Ok(object.clone()),
        LargeKind::Buffer => object.call_method0("raw")?.call_method0("toreadonly"),
    }
}
