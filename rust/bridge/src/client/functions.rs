//! The functions of a session by number. Each travels once, however many graphs and calls name it.
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyFunction, PyType};
use rustc_hash::FxHashMap;

use crate::graph::{Described, Function, FunctionColumns, Options, describe};

/// Callables and contents that are remembered at most. A program that makes a new function for each call would grow
/// without an end; what was forgotten is described, or travels, once more.
const REMEMBERED_MAX: usize = 4_096;

/// What a session knows of something that was given to `call`.
#[derive(Clone)]
pub(crate) struct Callee {
    pub(crate) function: Function,
    pub(crate) options: Options,
    pub(crate) key: Option<Arc<str>>,
}

/// Functions that were given to `call`, by identity.
#[derive(Default)]
pub(crate) struct Callees {
    known: FxHashMap<usize, (Py<PyAny>, Callee)>,
}

impl Callees {
    /// What is known of a callable.
    pub(crate) fn get(&self, callable: &Bound<'_, PyAny>) -> Option<Callee> {
        self.known.get(&(callable.as_ptr() as usize)).map(|(_, callee)| callee.clone())
    }

    /// Everything that is remembered.
    pub(crate) fn callables(&self) -> impl Iterator<Item = &Py<PyAny>> {
        self.known.values().map(|(callable, _)| callable)
    }

    /// Remembers a callable, which stays alive so that its address stays its own. The answer is to be dropped outside
    /// the lock.
    #[must_use]
    pub(crate) fn remember(&mut self, callable: &Bound<'_, PyAny>, callee: Callee) -> Vec<(Py<PyAny>, Callee)> {
        let mut forgotten = Vec::new();
        if self.known.len() >= REMEMBERED_MAX {
            forgotten.extend(self.known.drain().map(|(_, known)| known));
        }
        forgotten.extend(self.known.insert(callable.as_ptr() as usize, (callable.clone().unbind(), callee)));
        forgotten
    }
}

/// Describes something that was given to `call`.
pub(crate) fn describe_callee(callable: &Bound<'_, PyAny>) -> PyResult<Callee> {
    let Described { function, options, key, .. } = describe(callable, "call", false)?;
    Ok(Callee { function, options, key })
}

/// Whether a callable means the same at each call. A bound method, or an object with `__call__`, has a state that may
/// change; it is described, and pickled, each time.
pub(crate) fn is_stateless(callable: &Bound<'_, PyAny>) -> bool {
    callable.is_exact_instance_of::<PyFunction>()
        || callable.is_exact_instance_of::<PyCFunction>()
        || callable.is_instance_of::<PyType>()
        || callable.get_type().module().is_ok_and(|module| module == "headrace.task")
}

/// Numbers of functions by content. Nothing here knows Python.
#[derive(Default)]
pub(crate) struct Numbers {
    by_content: FxHashMap<(Arc<str>, Arc<[u8]>), u32>,
    next: u32,
}

impl Numbers {
    /// Enters functions in the columns of a SUBMIT, in their order.
    pub(crate) fn enter<'a>(&mut self, functions: impl Iterator<Item = &'a Function>, columns: &mut FunctionColumns) {
        if self.by_content.len() > REMEMBERED_MAX {
            self.by_content.clear();
        }
        for Function { name, blob } in functions {
            let number = *self.by_content.entry((Arc::clone(name), Arc::clone(blob))).or_insert_with(|| {
                let number = self.next;
                self.next += 1;
                columns.new_ids.push(number);
                columns.new_names.push(name.as_bytes());
                columns.new_blobs.push(blob);
                number
            });
            columns.map.push(number);
        }
    }
}
