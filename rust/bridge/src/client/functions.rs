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

/// A function with a pickle as long travels as an argument when it is first called, and is not remembered.
pub(super) const ONE_OFF_BYTES_MIN: usize = 64 << 10;

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

    /// What something that was given to `call` is. It is remembered if it means the same at each call, and so is its function
    /// by itself: with other options it is not captured once more.
    pub(crate) fn callee(&self, callable: &Bound<'_, PyAny>) -> PyResult<Callee> {
        if let Some(callee) = self.get(callable) {
            return Ok(callee);
        }
        let py = callable.py();
        let described = describe(callable, "call")?;
        let plain = described.callable.bind(py);
        let may_be_known = is_stateless(callable)?;
        let function = match self.get(plain).filter(|_| may_be_known) {
            Some(known) => known.function,
            None => Function { name: Arc::clone(&described.name), blob: described.capture(py, "call")? },
        };
        let is_remembered = may_be_known && function.blob.len() < ONE_OFF_BYTES_MIN;
        if is_remembered && !plain.is(callable) {
            self.remember(plain, Callee { function: function.clone(), options: Options::default(), key: None });
        }
        let Described { options, key, .. } = described;
        let callee = Callee { function, options, key };
        if is_remembered {
            self.remember(callable, callee.clone());
        }
        Ok(callee)
    }

    fn get(&self, callable: &Bound<'_, PyAny>) -> Option<Callee> {
        self.lock().get(&(callable.as_ptr() as usize)).map(|(_, callee)| callee.clone())
    }

    /// Remembers a callable, which stays alive so that its address stays its own.
    fn remember(&self, callable: &Bound<'_, PyAny>, callee: Callee) {
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

/// Whether a callable means the same at each call. A bound method, or an object with `__call__`, has a state that may change;
/// it is described, and pickled, each time.
fn is_stateless(callable: &Bound<'_, PyAny>) -> PyResult<bool> {
    static TASK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = callable.py();
    let plain = match callable.is_instance(TASK.import(py, "headrace.task", "Task")?)? {
        true => &callable.getattr(intern!(py, "__wrapped__"))?,
        false => callable,
    };
    if plain.is_exact_instance_of::<PyCFunction>() {
        // `len` belongs to a module, `list.append` of some list to that list.
        let owner = plain.getattr(intern!(py, "__self__"));
        return Ok(owner.is_ok_and(|owner| owner.is_none() || owner.is_instance_of::<PyModule>()));
    }
    Ok(plain.is_exact_instance_of::<PyFunction>() || plain.is_instance_of::<PyType>())
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
