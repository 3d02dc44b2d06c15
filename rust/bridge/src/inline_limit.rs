//! How long a value may be to travel in its frame instead of shared memory.
use std::env::{self, VarError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Values up to this many bytes travel in frames. Where that begins to cost more is measured by bench/test_crossover.py.
pub(crate) const INLINE_BYTES_MAX: usize = 64 << 10;

/// No value is longer.
pub(crate) const NO_LIMIT: usize = usize::MAX;

/// Names another limit in bytes for the results of a worker's tasks, or `none`, which leaves shared memory out. A worker looks
/// when it starts. It is there for measurements.
const VARIABLE: &str = "HEADRACE_INLINE_BYTES_MAX";

/// The least limit: a citation is no shorter than a number, and the head of a pickle stays in its frame.
const LEAST: usize = 512;

/// The limit for results, as the environment has it.
pub(crate) fn inline_bytes_max_of_results() -> PyResult<usize> {
    let text = match env::var(VARIABLE) {
        Err(VarError::NotPresent) => return Ok(INLINE_BYTES_MAX),
        Ok(text) if text == "none" => return Ok(NO_LIMIT),
        Ok(text) => text,
        Err(VarError::NotUnicode(text)) => text.to_string_lossy().into_owned(),
    };
    text.parse().ok().filter(|bytes| *bytes >= LEAST).ok_or_else(|| {
        PyValueError::new_err(format!("{VARIABLE} takes `none` or a number of bytes from {LEAST} on, not {text:?}"))
    })
}
