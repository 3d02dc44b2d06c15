//! Arrays of numpy whose items are plain numbers, which need no pickle: that would take more time than everything else that
//! is done for an array that is passed on.
//!
//! Behind its bytes, or the piece that has them, stand one byte for the type of the items, as numpy's one-letter codes have it; one for the
//! order, `C` or `F`; one for the number of dimensions, and a u64 for each.
use pyo3::exceptions::PyBufferError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use crate::buffer::{Contiguous, Order};

/// The types of items: booleans, integers, floats, and complex numbers.
const CODES: &[u8] = b"?bBhHiIlLqQefdFD";

/// An exact array of such items that has no gaps.
pub(super) struct PlainArray {
    code: u8,
    order: Order,
    items: Contiguous,
}

/// What is needed of numpy.
struct Numpy {
    ndarray: Py<PyAny>,
    /// The type objects of items, in the order of [`CODES`].
    dtypes: Vec<Py<PyAny>>,
}

impl PlainArray {
    /// The array that a value is, if it is one.
    pub(super) fn of(value: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let py = value.py();
        let Some(numpy) = Numpy::if_imported(py)? else { return Ok(None) };
        if !value.get_type().is(&numpy.ndarray) {
            return Ok(None);
        }
        let Some(code) = numpy.code_of(&value.getattr(intern!(py, "dtype"))?)? else { return Ok(None) };
        match Contiguous::in_order(value) {
            Ok(Some((items, order))) => Ok(Some(Self { code, order, items })),
            Ok(None) => Ok(None),
            Err(error) if error.is_instance_of::<PyBufferError>(py) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether it may not be written to.
    pub(super) fn is_read_only(&self) -> bool {
        self.items.is_read_only()
    }

    /// Its bytes, as they lie in memory.
    pub(super) fn bytes(&self) -> &[u8] {
        self.items.bytes()
    }

    /// Appends what its bytes do not tell.
    pub(super) fn describe(&self, out: &mut Vec<u8>) {
        let shape = self.items.shape();
        out.extend_from_slice(&[self.code, self.order as u8, shape.len() as u8]);
        shape.iter().for_each(|length| out.extend_from_slice(&(*length as u64).to_le_bytes()));
    }
}

/// The array on these bytes; `None` if it is damaged.
pub(super) fn read_array<'py>(
    py: Python<'py>,
    bytes: &Bound<'py, PyAny>,
    described: &[u8],
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let [code, order, dimensions, lengths @ ..] = described else { return Ok(None) };
    let (lengths, []) = lengths.as_chunks() else { return Ok(None) };
    let Some(k) = CODES.iter().position(|known| known == code) else { return Ok(None) };
    if lengths.len() != usize::from(*dimensions) {
        return Ok(None);
    }
    let numpy = Numpy::import(py)?;
    let shape = PyTuple::new(py, lengths.iter().map(|length| u64::from_le_bytes(*length)))?;
    let (ndarray, dtype) = (numpy.ndarray.bind(py), &numpy.dtypes[k]);
    match *order {
        order if order == Order::C as u8 => ndarray.call1((shape, dtype, bytes)).map(Some),
        order if order == Order::Fortran as u8 => {
            ndarray.call1((shape, dtype, bytes, 0, py.None(), intern!(py, "F"))).map(Some)
        }
        _ => Ok(None),
    }
}

impl Numpy {
    /// Nothing is imported for a value that can be no array. What has only the name of numpy is none.
    fn if_imported(py: Python<'_>) -> PyResult<Option<&Self>> {
        static MODULES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        match NUMPY.get(py) {
            Some(numpy) => Ok(Some(numpy)),
            None if MODULES.import(py, "sys", "modules")?.contains(intern!(py, "numpy"))? => Ok(Self::import(py).ok()),
            None => Ok(None),
        }
    }

    /// The code of a type of items, if it is plain.
    fn code_of(&self, dtype: &Bound<'_, PyAny>) -> PyResult<Option<u8>> {
        let py = dtype.py();
        if let Some(k) = self.dtypes.iter().position(|known| dtype.is(known)) {
            return Ok(Some(CODES[k]));
        }
        // A pickle makes its type anew. Other packages may use the same code for a type of theirs, and one with metadata is
        // equal to the one without.
        let code: char = dtype.getattr(intern!(py, "char"))?.extract()?;
        let Some(k) = CODES.iter().position(|known| char::from(*known) == code) else { return Ok(None) };
        let is_plain = dtype.getattr(intern!(py, "metadata"))?.is_none() && dtype.eq(&self.dtypes[k])?;
        Ok(is_plain.then_some(CODES[k]))
    }

    fn import(py: Python<'_>) -> PyResult<&Self> {
        NUMPY.get_or_try_init(py, || {
            let numpy = py.import("numpy")?;
            let dtype = numpy.getattr("dtype")?;
            let dtypes = CODES.iter().map(|code| Ok(dtype.call1((char::from(*code),))?.unbind()));
            Ok(Numpy { ndarray: numpy.getattr("ndarray")?.unbind(), dtypes: dtypes.collect::<PyResult<_>>()? })
        })
    }
}

static NUMPY: PyOnceLock<Numpy> = PyOnceLock::new();
