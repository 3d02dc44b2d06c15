//! The kept results of one run that were read, by position in its keep set. The first reader's object is everybody's; where it
//! lies in shared memory, only for as long as somebody has it, because the memory could not be used for anything else.
//!
//! The lock is held for moments, and Python never runs meanwhile: what is thrown out is dropped outside.
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use super::failures::Outcome;

/// A kept result.
pub(crate) enum Slot {
    /// Nobody has read it.
    Unread,
    /// What the task returned.
    Value(Py<PyAny>),
    /// A weak reference to it: it is read again if it is gone.
    Weak(Py<PyWeakrefReference>),
    /// The exception to raise for it.
    Error(Py<PyAny>),
    /// It was let go of.
    Released,
}

impl Slot {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Slot::Unread => Slot::Unread,
            Slot::Value(value) => Slot::Value(value.clone_ref(py)),
            Slot::Weak(value) => Slot::Weak(value.clone_ref(py)),
            Slot::Error(error) => Slot::Error(error.clone_ref(py)),
            Slot::Released => Slot::Released,
        }
    }

    fn object(&self) -> Option<&Py<PyAny>> {
        match self {
            Slot::Value(object) | Slot::Error(object) => Some(object),
            Slot::Unread | Slot::Weak(_) | Slot::Released => None,
        }
    }
}

/// Results of one run.
pub(crate) struct Results(Mutex<Vec<Slot>>);

impl Results {
    /// So many that nobody has read.
    pub(crate) fn unread(count: usize) -> Self {
        Self(Mutex::new((0..count).map(|_| Slot::Unread).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of them; never [`Slot::Weak`].
    pub(crate) fn get(&self, py: Python<'_>, position: usize) -> Slot {
        let slot = self.lock()[position].clone_ref(py);
        match slot {
            Slot::Weak(value) => value.bind(py).upgrade().map_or(Slot::Unread, |value| Slot::Value(value.unbind())),
            slot => slot,
        }
    }

    /// The value at a position, if one was read.
    #[inline]
    pub(crate) fn value(&self, py: Python<'_>, position: usize) -> Option<Py<PyAny>> {
        match &self.lock()[position] {
            Slot::Value(value) => Some(value.clone_ref(py)),
            _ => None,
        }
    }

    /// All values, or the position of the first that is not one.
    pub(crate) fn values(&self, py: Python<'_>) -> Result<Vec<Py<PyAny>>, usize> {
        let slots = self.lock();
        let mut values = Vec::with_capacity(slots.len());
        for slot in slots.iter() {
            match slot {
                Slot::Value(value) => values.push(value.clone_ref(py)),
                _ => return Err(values.len()),
            }
        }
        Ok(values)
    }

    /// Whether it was read, or let go of.
    pub(crate) fn is_read(&self, position: usize) -> bool {
        !matches!(self.lock()[position], Slot::Unread | Slot::Weak(_))
    }

    /// Whether it was let go of.
    pub(crate) fn is_released(&self, position: usize) -> bool {
        matches!(self.lock()[position], Slot::Released)
    }

    /// Enters what was read, unless somebody was faster.
    pub(crate) fn put(&self, position: usize, outcome: Outcome) {
        let slot = match outcome {
            Ok(value) => Slot::Value(value),
            Err(error) => Slot::Error(error),
        };
        let late = enter(&mut self.lock()[position], slot);
        drop(late);
    }

    /// Remembers a value for as long as somebody has it, unless it was let go of, or its type does not allow that.
    pub(crate) fn put_weakly(&self, position: usize, value: &Bound<'_, PyAny>) {
        let Ok(weak) = PyWeakrefReference::new(value) else { return };
        let mut slots = self.lock();
        let late = match &mut slots[position] {
            place @ (Slot::Unread | Slot::Weak(_)) => std::mem::replace(place, Slot::Weak(weak.unbind())),
            _ => Slot::Weak(weak.unbind()),
        };
        drop(slots);
        drop(late);
    }

    /// Enters a row of values.
    pub(crate) fn put_row(&self, first: usize, values: impl IntoIterator<Item = Py<PyAny>>) {
        let mut slots = self.lock();
        let row = slots[first..].iter_mut().zip(values);
        let late: Vec<Slot> = row.filter_map(|(place, value)| enter(place, Slot::Value(value))).collect();
        drop(slots);
        drop(late);
    }

    /// Lets go of one; false if that was done before.
    pub(crate) fn release(&self, position: usize) -> bool {
        let before = std::mem::replace(&mut self.lock()[position], Slot::Released);
        !matches!(before, Slot::Released)
    }

    /// Lets go of all.
    pub(crate) fn release_all(&self) {
        let before: Vec<Slot> = self.lock().iter_mut().map(|slot| std::mem::replace(slot, Slot::Released)).collect();
        drop(before);
    }

    /// For the collector, which may start on any thread at any time; what it cannot look into it must not collect.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.0.try_lock() {
            Ok(slots) => slots.iter().filter_map(Slot::object).try_for_each(|object| visit.call(object)),
            Err(_) => Ok(()),
        }
    }

    /// For the collector.
    pub(crate) fn clear(&self) {
        let slots = self.0.try_lock().map(|mut slots| std::mem::take(&mut *slots)).ok();
        drop(slots);
    }
}

/// Fills an unread place; the answer is what came too late.
fn enter(place: &mut Slot, slot: Slot) -> Option<Slot> {
    match place {
        Slot::Unread => {
            *place = slot;
            None
        }
        _ => Some(slot),
    }
}
