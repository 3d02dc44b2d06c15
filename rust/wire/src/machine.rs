//! The messages between a broker and the agent of another machine, which starts and ends the worker processes there and
//! keeps the memory that they share.

use crate::columns::U32s;

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

/// What is to be done with a segment of the machine's memory, and which worker is to hear of it (broker to agent).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Estate<'a> {
    /// An [`EstateKind`] as its number.
    pub kind: u8,
    /// Number of the worker; 0 where none is meant.
    pub worker: u32,
    /// Number of the segment.
    pub segment: u32,
    /// Its size in bytes; or how many are to be given back first.
    pub bytes: u64,
    /// Why there is none.
    pub text: &'a str,
}

/// What that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EstateKind {
    /// Make it; it is the worker's own.
    Granted = 0,
    /// The worker may read it.
    Shared = 1,
    /// The worker gets none.
    Refused = 2,
    /// The worker needs its map no more.
    Dropped = 3,
    /// Make it, for copies; it is nobody's.
    Made = 4,
    /// Close its last descriptor.
    Closed = 5,
}

/// Copy blocks from the memory of another machine (broker to agent). Once more with the same number: go on with what is missing,
/// from there. Without blocks: give it up. Offsets and lengths are in units of [`BLOCK_ALIGN`](crate::BLOCK_ALIGN) bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Transfer<'a> {
    /// Number of the copy.
    pub job: u64,
    /// Where the other machine serves its memory; without a host, it is the broker's.
    pub endpoint: &'a str,
    /// Its public key.
    pub key: &'a str,
    /// Segment of each block there.
    pub from_segment: U32s<'a>,
    /// Its offset.
    pub from_offset: U32s<'a>,
    /// Segment here.
    pub to_segment: U32s<'a>,
    /// Offset here.
    pub to_offset: U32s<'a>,
    /// Its length.
    pub length: U32s<'a>,
}

/// Another machine, which may fetch blocks here; or may not any more (broker to agent).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Neighbour<'a> {
    /// The public key that it shows.
    pub key: &'a str,
    /// Whether it has left.
    pub left: bool,
}

/// Something that happened on the machine (agent to broker).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Event<'a> {
    /// An [`EventKind`] as its number.
    pub kind: u8,
    /// Number of the worker; 0 where none is meant.
    pub worker: u32,
    /// Incarnation of the process that has ended; or another number, by kind.
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
    /// How many bytes of results the machine has memory for, in `incarnation`; the text is the endpoint where it serves them
    /// and the public key of that, separated by a blank.
    Stores = 9,
    /// The segment `number` could not be made; the text says why.
    NoSegment = 10,
    /// The copy `incarnation` has ended; the text says why it failed, if it did.
    Copied = 11,
    /// The machine is to leave, once its workers have ended what they run.
    Leaving = 12,
    /// The machine has so much of a resource, by the text, for its workers; the amount stands in `incarnation`.
    Has = 13,
}
