//! The Python errors that the bridge raises by name.
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// A `headrace.GraphError` with this text.
#[cold]
pub(crate) fn graph_error(py: Python<'_>, text: &str) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    named_error(py, &CLASS, "GraphError", text)
}

/// A `headrace.UsageError` with this text.
#[cold]
pub(crate) fn usage_error(py: Python<'_>, text: &str) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    named_error(py, &CLASS, "UsageError", text)
}

/// The error of `headrace.errors` with this name, and this text.
#[cold]
pub(crate) fn infra_error(py: Python<'_>, name: &str, text: &str) -> PyErr {
    match py.import("headrace.errors").and_then(|errors| errors.getattr(name)?.call1((text,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// A `headrace.NoSuitableWorker` for the task with this key; `text` says what it asks for.
#[cold]
pub(crate) fn no_suitable_worker(py: Python<'_>, key: &str, text: &str) -> PyErr {
    let error = infra_error(py, "NoSuitableWorker", &format!("task '{key}' {text}"));
    let _ = error.value(py).setattr("key", key);
    error
}

fn named_error(py: Python<'_>, class: &PyOnceLock<Py<PyType>>, name: &str, text: &str) -> PyErr {
    match class.import(py, "headrace.errors", name) {
        Ok(class) => PyErr::from_type(class.clone(), (text.to_owned(),)),
        Err(_) => PyValueError::new_err(text.to_owned()),
    }
}

/// Whether `error` is headrace's own word on a mistake of the caller, to be passed on as it is.
pub(crate) fn is_usage_error(py: Python<'_>, error: &PyErr) -> bool {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "headrace.errors", "UsageError").is_ok_and(|class| error.is_instance(py, class))
}

/// Adds a note to an exception; without one it is as good.
#[cold]
pub(crate) fn note(py: Python<'_>, error: &PyErr, text: &str) {
    let _ = error.value(py).call_method1(pyo3::intern!(py, "add_note"), (text,));
}
