//! The arguments of one call, as Python passes them.
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Positional and keyword arguments, borrowed from wherever they stand.
#[derive(Clone, Copy)]
pub(crate) struct Passed<'a, 'py> {
    pub(crate) positional: &'a [Bound<'py, PyAny>],
    /// Names of the keyword arguments.
    pub(crate) names: &'a [Bound<'py, PyAny>],
    /// Their values, as many.
    pub(crate) named: &'a [Bound<'py, PyAny>],
}

impl<'a, 'py> Passed<'a, 'py> {
    /// Positional arguments alone.
    pub(crate) fn positional(positional: &'a [Bound<'py, PyAny>]) -> Self {
        Self { positional, names: &[], named: &[] }
    }

    /// The same with other keyword arguments.
    pub(crate) fn with(self, keywords: &'a Keywords<'py>) -> Self {
        Self { names: &keywords.names, named: &keywords.values, ..self }
    }

    /// The same without the first positional argument, and that one.
    pub(crate) fn split_first(self) -> Option<(&'a Bound<'py, PyAny>, Self)> {
        let (first, positional) = self.positional.split_first()?;
        Some((first, Self { positional, ..self }))
    }

    /// Every value.
    pub(crate) fn values(self) -> impl Iterator<Item = &'a Bound<'py, PyAny>> {
        self.positional.iter().chain(self.named)
    }

    /// The arguments as `(args, kwargs)`.
    pub(crate) fn to_python(self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let kwargs = PyDict::new(py);
        for (name, value) in self.names.iter().zip(self.named) {
            kwargs.set_item(name, value)?;
        }
        Ok((PyTuple::new(py, self.positional)?, kwargs))
    }
}

/// Keyword arguments taken out of a dict.
#[derive(Default)]
pub(crate) struct Keywords<'py> {
    names: Vec<Bound<'py, PyAny>>,
    values: Vec<Bound<'py, PyAny>>,
}

impl<'py> From<Option<&Bound<'py, PyDict>>> for Keywords<'py> {
    fn from(dict: Option<&Bound<'py, PyDict>>) -> Self {
        let (names, values) = dict.into_iter().flatten().unzip();
        Self { names, values }
    }
}
