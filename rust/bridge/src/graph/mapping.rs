//! Graphs from mappings, by Dask's convention: `(callable, *args)` is a task, and an argument equal to a key stands for
//! its result.
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::*;

pub(super) fn fill<'py>(_slf: &Bound<'py, Graph>, _mapping: &Bound<'py, PyDict>) -> PyResult<()> {
    todo!()
}
