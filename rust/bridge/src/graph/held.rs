//! The Python objects that a graph keeps alive.
//!
//! They stand apart from the columns. While a large graph is submitted, a thread without the interpreter lock holds the
//! lock of the columns for long; but the collector looks at a graph more than once in a collection, and must see the same
//! each time. So whoever locks this has the interpreter lock, and runs no Python until it is unlocked: the collector never
//! finds it locked.
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

/// The objects by what they are for.
#[derive(Default)]
pub(crate) struct Objects {
    /// What to call in this process, beside the table of functions.
    pub(super) callables: Vec<Py<PyAny>>,
    /// Everything that was ever given to `add`, kept alive so that addresses stay unique.
    pub(super) seen: Vec<Py<PyAny>>,
    /// What tasks cite from outside, beside the externals of the columns: futures and refs, which hold the results alive,
    /// and large parts of arguments.
    pub(super) externals: Vec<Py<PyAny>>,
    /// The arguments of a by-reference graph that have no tag.
    pub(super) live: Vec<Py<PyAny>>,
}

impl Objects {
    /// The same for another graph, which has these of the externals.
    pub(super) fn share(&self, py: Python<'_>, externals: &[u32]) -> Self {
        let all = |objects: &[Py<PyAny>]| objects.iter().map(|object| object.clone_ref(py)).collect();
        Self {
            callables: all(&self.callables),
            seen: all(&self.seen),
            externals: externals.iter().map(|&position| self.externals[position as usize].clone_ref(py)).collect(),
            live: all(&self.live),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Py<PyAny>> {
        self.callables.iter().chain(&self.seen).chain(&self.externals).chain(&self.live)
    }
}

/// The objects of one graph.
#[derive(Default)]
pub(crate) struct Held(Mutex<Objects>);

impl Held {
    /// The objects, for as long as the guard lives. Python must not run meanwhile: what is taken out is dropped after it.
    pub(super) fn lock(&self, _attached: Python<'_>) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.0.try_lock() {
            Ok(objects) => objects.all().try_for_each(|object| visit.call(object)),
            Err(_) => Ok(()),
        }
    }

    /// Takes everything out, for the collector.
    pub(super) fn take(&self) -> Option<Objects> {
        self.0.try_lock().ok().map(|mut objects| std::mem::take(&mut *objects))
    }
}
