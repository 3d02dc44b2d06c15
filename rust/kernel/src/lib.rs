//! Pure readiness engine: which tasks are ready, alive, dead.
#![forbid(unsafe_code)]
