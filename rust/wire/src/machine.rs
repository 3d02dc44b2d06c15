//! The messages between a broker and the agent of another machine, which starts and ends the worker processes there.

/// Something that the agent is to do with a worker process (broker to agent).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Order {
    /// An [`OrderKind`] as its number.
    pub kind: u8,
    /// Number of the worker.
    pub worker: u32,
    /// Incarnation of the process that is to be started; 0 for others.
    pub incarnation: u64,
    /// Slot of the task that is to be interrupted.
    pub task: u32,
    /// Its attempt.
    pub attempt: u32,
}

/// What an order asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum OrderKind {
    /// Start a process.
    Start = 0,
    /// Interrupt the attempt, if the worker is in it.
    Interrupt = 1,
    /// Kill the process.
    Kill = 2,
    /// Say whether the worker has received anything since the last look.
    Look = 3,
    /// Have the process write down its Python stacks.
    Stacks = 4,
}

/// Something that happened on the machine (agent to broker).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Event<'a> {
    /// An [`EventKind`] as its number.
    pub kind: u8,
    /// Number of the worker; 0 where none is meant.
    pub worker: u32,
    /// Incarnation of the process that has ended.
    pub incarnation: u64,
    /// Exit code, as a word; signal; or stream: 1 for standard output, 2 for standard error.
    pub number: u32,
    /// Slot of the task that the process was in, or that wrote the text.
    pub task: u32,
    /// Its attempt, from 1 on; 0 if there was none.
    pub attempt: u32,
    /// The text.
    pub text: &'a [u8],
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EventKind {
    /// A process exited with a code.
    Exited = 0,
    /// A process was ended by a signal.
    Killed = 1,
    /// A process was ended by the kernel for want of memory.
    OutOfMemory = 2,
    /// A process ended, and nobody knows how.
    Ended = 3,
    /// A process could not be started; the text says why.
    NotStarted = 4,
    /// The worker has received something since the last look.
    Heard = 5,
    /// The worker wrote the text.
    Wrote = 6,
    /// The stacks of the worker, or why there are none.
    Stacks = 7,
    /// What people call the machine; the first event of an agent.
    Named = 8,
    /// The machine is to leave, once its workers have ended what they run.
    Leaving = 9,
    /// The machine has so much of a resource, by the text, for its workers; the amount stands in `incarnation`.
    Has = 10,
}
