//! One call outside any graph: its arguments are encoded the same way.
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::*;

/// The encoded arguments of one call.
pub(crate) struct EncodedCall {
    /// The arguments, as in a task of a graph.
    pub(crate) args: Vec<u8>,
    /// What they cite, in that order: `EXTERNAL |` position in `externals`.
    pub(crate) deps: Vec<u32>,
    /// The futures and refs that the arguments cite.
    pub(crate) externals: Vec<External>,
}

/// Encodes the arguments of a call to `callable`: `args` from position `skip` on, and `kwargs`. `verb` names the caller
/// in errors.
pub(crate) fn encode_call<'py>(
    verb: &str,
    callable: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    skip: usize,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<EncodedCall> {
    let keywords = Keywords::from(kwargs);
    let passed = Passed::positional(&args.as_slice()[skip..]).with(&keywords);
    with_encoder(Encoder::NOWHERE, |encoder| {
        encoder.arguments(passed).map_err(|error| explain(error, verb, callable, passed))?;
        Ok(EncodedCall {
            args: encoder.out.clone(),
            deps: encoder.cited.deps().to_vec(),
            externals: encoder.cited.take_externals(),
        })
    })
}
