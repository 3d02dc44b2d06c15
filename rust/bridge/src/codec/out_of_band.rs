//! Pickles of results with their buffers out of band.
use std::cell::RefCell;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList};
use rustc_hash::FxHashSet;

use super::pickle::{OUT_OF_BAND, PLAIN, dumps_result, loads_with};

/// Types that are remembered at most.
const LONG_TYPES_MAX: usize = 1_024;

thread_local! {
    /// Addresses of types of which a value left a long pickle although its buffers went out of band.
    static LONG_TYPES: RefCell<FxHashSet<usize>> = RefCell::default();
}

/// A pickle, and its out-of-band buffers as a list of `pickle.PickleBuffer`.
type Split<'py> = (Bound<'py, PyBytes>, Bound<'py, PyList>);

/// Pickles a result with its buffers out of band.
///
/// Some arrays need more for that than the C pickler, which costs two microseconds. So a value is pickled plainly
/// first, and once more if that left more than `inline_bytes_max` in the pickle and there are such types; but of each type only
/// once.
pub(super) fn dumps_out_of_band<'py>(value: &Bound<'py, PyAny>, inline_bytes_max: usize) -> PyResult<Split<'py>> {
    let py = value.py();
    let kind = value.get_type().as_ptr() as usize;
    if !LONG_TYPES.with_borrow(|types| types.contains(&kind)) {
        let plain = split(value, PLAIN, PyDict::new(py))?;
        if plain.0.as_bytes().len() <= inline_bytes_max || !has_arrays(py)? {
            return Ok(plain);
        }
        LONG_TYPES.with_borrow_mut(|types| {
            if types.len() == LONG_TYPES_MAX {
                types.clear();
            }
            types.insert(kind)
        });
    }
    split(value, OUT_OF_BAND, PyDict::new(py))
}

/// Whether there can be objects that `headrace.out_of_band` knows to reduce.
pub(super) fn has_arrays(py: Python<'_>) -> PyResult<bool> {
    static MODULES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let modules = MODULES.import(py, "sys", "modules")?;
    Ok(modules.contains(intern!(py, "numpy"))?
        || modules.contains(intern!(py, "polars"))?
        || modules.contains(intern!(py, "torch"))?)
}

/// The same with what `private` gives in the places of the buffers of arrays.
pub(super) fn dumps_private<'py>(value: &Bound<'py, PyAny>, private: &Bound<'py, PyAny>) -> PyResult<Split<'py>> {
    let keywords = PyDict::new(value.py());
    keywords.set_item(intern!(value.py(), "private"), private)?;
    split(value, OUT_OF_BAND, keywords)
}

fn split<'py>(value: &Bound<'py, PyAny>, first: &'static str, keywords: Bound<'py, PyDict>) -> PyResult<Split<'py>> {
    let py = value.py();
    let buffers = PyList::empty(py);
    // `list.append` gives None, which says: out of band.
    keywords.set_item(intern!(py, "buffer_callback"), buffers.getattr(intern!(py, "append"))?)?;
    let restart = || drop(buffers.call_method0(intern!(py, "clear")));
    let pickle = dumps_result(value, first, Some(&keywords), restart)?;
    Ok((pickle, buffers))
}

/// Loads a pickle with out-of-band buffers.
pub(super) fn loads_with_buffers<'py>(
    pickle: &Bound<'py, PyAny>,
    buffers: &Bound<'py, PyList>,
) -> PyResult<Bound<'py, PyAny>> {
    loads_with(pickle, Some(buffers), Vec::new())
}
