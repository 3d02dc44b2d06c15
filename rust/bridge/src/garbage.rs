//! Garbage that keeps shared memory: views in cycles, as an exception that is kept in a local variable makes one, stay until
//! Python's collector runs.
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use headrace_wire::WANTED_BADLY;
use pyo3::prelude::*;

/// The part of the time that looking for garbage may take while somebody waits: a large process takes seconds for it.
const PARTS_OF_TIME: u32 = 10;

/// When it may be looked for again.
static NEXT: Mutex<Option<Instant>> = Mutex::new(None);

/// Frees what nobody can reach. Unless that is wanted badly, it is done now and then only, and not where the user has switched
/// the collector off. Whether it was done.
pub(crate) fn collect_as_urgent(py: Python<'_>, urgency: u8) -> PyResult<bool> {
    let collector = py.import("gc")?;
    if urgency < WANTED_BADLY {
        let next = *NEXT.lock().unwrap_or_else(PoisonError::into_inner);
        let is_early = next.is_some_and(|next| Instant::now() < next);
        if is_early || !collector.call_method0("isenabled")?.extract::<bool>()? {
            return Ok(false);
        }
    }
    let start = Instant::now();
    let done = collector.call_method0("collect");
    let took = start.elapsed();
    *NEXT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + took * (PARTS_OF_TIME - 1));
    done.map(|_| true)
}
