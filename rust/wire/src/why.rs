//! The question why a task does not run, and its answer.

/// Asks where a task is and what it waits for (client or observer to broker).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Why<'a> {
    /// Number of the question, echoed in [`Because`].
    pub number: u64,
    /// Run of the task, if it is not named by its key.
    pub run: u32,
    /// Its index within the run.
    pub index: u32,
    /// Its key, to be looked for in all runs; an observer's way to name it. Empty otherwise.
    pub key: &'a str,
    /// Whether the Python stacks of the process that runs it are wanted, too.
    pub stacks: bool,
}

/// Where a task is and what it waits for (broker to client or observer).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Because<'a> {
    /// Number of the question.
    pub number: u64,
    /// A [`TaskPlace`] as its number, or one that a newer broker knows.
    pub state: u8,
    /// The worker that has it, or [`NO_WORKER`](crate::NO_WORKER).
    pub worker: u32,
    /// Process id of that worker; 0 without one.
    pub pid: u32,
    /// Number of its attempt, or of the last one; 0 before the first.
    pub attempt: u32,
    /// Milliseconds that a running task has been running.
    pub since_ms: u64,
    /// The same and what it waits for, for people.
    pub text: &'a str,
    /// Python stacks of the process that runs it, or why there are none; empty if they were not asked for.
    pub stacks: &'a str,
}

/// Where a task is, in [`Because`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TaskPlace {
    /// Nobody knows it: it has ended and was let go of, or never was.
    Unknown = 0,
    /// It waits for tasks that it needs.
    Waiting = 1,
    /// It could start, and waits for a worker or for what it takes.
    Ready = 2,
    /// It pauses before its next attempt.
    Pausing = 3,
    /// A worker has it, and runs another one.
    Queued = 4,
    /// A worker runs it.
    Running = 5,
    /// It returned.
    Done = 6,
    /// It failed.
    Failed = 7,
    /// It never ran because an ancestor failed.
    Skipped = 8,
    /// It was cancelled.
    Cancelled = 9,
}
