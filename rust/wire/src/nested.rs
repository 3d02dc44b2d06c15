//! The messages about tasks that wait for tasks which they have submitted.

/// A task waits for what it has submitted, or goes on (worker to broker). While it waits, its worker runs nothing else but
/// leases with [`LEASE_NESTED`](crate::LEASE_NESTED).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waiting {
    /// Slot of the task.
    pub task: u32,
    /// The attempt.
    pub attempt: u32,
    /// Whether it waits from now on, or goes on.
    pub waits: bool,
    /// What it waits for: a task of this run, or all of it.
    pub run: u32,
    /// Index of that task within the run, or [`WHOLE_RUN`].
    pub index: u32,
    /// Whether it may run leases meanwhile: not where another thread than the one that runs tasks waits.
    pub helps: bool,
}

/// Value of [`Waiting::index`] where a task waits for a run, or for whatever ends first.
pub const WHOLE_RUN: u32 = u32::MAX;

/// Nothing can run that the task waits for: its wait is to fail (broker to worker).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standstill<'a> {
    /// Slot of the task.
    pub task: u32,
    /// The attempt.
    pub attempt: u32,
    /// What holds it up, for people.
    pub text: &'a str,
}
