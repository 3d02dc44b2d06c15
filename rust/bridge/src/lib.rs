//! The Rust side of `headrace._core`: converts, calls, converts back. It holds no rule.
use pyo3::prelude::*;

/// The native half of headrace.
#[pymodule]
mod _core {}
