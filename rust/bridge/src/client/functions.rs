//! The functions of a session by number. Each travels once, however many graphs and calls name it.
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyFunction, PyModule, PyType};
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
///
/// Whoever locks this has the interpreter lock and runs no Python until it is unlocked, so that the collector, which must
/// see the same each time it looks, never finds it locked.
#[derive(Default)]
pub(crate) struct Callees {
    known: Mutex<FxHashMap<usize, (Py<PyAny>, Callee)>>,
}

impl Callees {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<usize, (Py<PyAny>, Callee)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a callable.
    pub(crate) fn get(&self, callable: &Bound<'_, PyAny>) -> Option<Callee> {
        self.lock().get(&(callable.as_ptr() as usize)).map(|(_, callee)| callee.clone())
    }

    /// Remembers a callable, which stays alive so that its address stays its own.
    pub(crate) fn remember(&self, callable: &Bound<'_, PyAny>, callee: Callee) {
        let mut known = self.lock();
        let forgotten = if known.len() >= REMEMBERED_MAX { std::mem::take(&mut *known) } else { FxHashMap::default() };
        let before = known.insert(callable.as_ptr() as usize, (callable.clone().unbind(), callee));
        drop(known);
        drop((forgotten, before));
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.known.try_lock() {
            Ok(known) => known.values().try_for_each(|(callable, _)| visit.call(callable)),
            Err(_) => Ok(()),
        }
    }

    /// Forgets everything, for the collector.
    pub(crate) fn clear(&self) {
        let known = self.known.try_lock().map(|mut known| std::mem::take(&mut *known)).ok();
        drop(known);
    }
}

/// Describes something that was given to `call`, and says whether it means the same at each call.
pub(crate) fn describe_callee(callable: &Bound<'_, PyAny>) -> PyResult<(Callee, bool)> {
    static TASK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = callable.py();
    let Described { function, options, key, .. } = describe(callable, "call", false)?;
    let is_stateless = match callable.is_instance(TASK.import(py, "headrace.task", "Task")?)? {
        true => is_stateless(&callable.getattr(intern!(py, "__wrapped__"))?),
        false => is_stateless(callable),
    };
    Ok((Callee { function, options, key }, is_stateless))
}

/// Whether a plain callable means the same at each call. A bound method, or an object with `__call__`, has a state that may
/// change; it is described, and pickled, each time.
fn is_stateless(plain: &Bound<'_, PyAny>) -> bool {
    if plain.is_exact_instance_of::<PyCFunction>() {
        // `len` belongs to a module, `list.append` of some list to that list.
        let owner = plain.getattr(intern!(plain.py(), "__self__"));
        return owner.is_ok_and(|owner| owner.is_none() || owner.is_instance_of::<PyModule>());
    }
    plain.is_exact_instance_of::<PyFunction>() || plain.is_instance_of::<PyType>()
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
