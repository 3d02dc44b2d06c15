//! The messages of the protocol, field by field in the order in which they travel.
//!
//! A frame is one flat msgpack array `[type, field, …]`; a field is an integer, a boolean, a string or a binary; a column
//! of numbers is one binary of little-endian words, a column of strings is two: lengths and bytes. The arrays are append-only: a reader skips fields it does not know and takes the default
//! for fields that an older writer did not send.

use crate::columns::{Blobs, U32s};
pub use crate::death::*;
pub use crate::machine::*;
pub use crate::memory::*;
pub use crate::nested::*;
pub use crate::policy::*;
pub use crate::state::*;
pub use crate::why::*;

/// Version of the protocol; HELLO and WELCOME carry it, and only equal versions talk.
pub const PROTOCOL_VERSION: u32 = 1;

/// What a peer is to the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Role {
    /// Submits graphs and reads results.
    Client = 1,
    /// Runs tasks.
    Worker = 2,
    /// Asks how things stand, and changes nothing.
    Observer = 3,
    /// Has worker processes on another machine; [`Hello::worker`] is how many.
    Agent = 4,
}

/// How a task ended, in [`Results`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Outcome {
    /// It returned; the blob is its value, empty if the task is not kept.
    Done = 0,
    /// It raised; the blob is the worker's record of the exception.
    Failed = 1,
    /// It never ran because an ancestor failed; the blob is that ancestor's run and index, two little-endian `u32`.
    Skipped = 2,
    /// It was cancelled; the blob is one [`CancelReason`] byte.
    Cancelled = 3,
    /// It killed its worker too often; the blob is an encoded [`Death`].
    Died = 4,
    /// It could not be run as asked; the blob is a text in UTF-8.
    Refused = 5,
    /// It passed a time limit; the blob is an encoded [`Overrun`].
    TimedOut = 6,
}

/// Why a task was cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CancelReason {
    /// The user asked for it.
    User = 0,
    /// A task that it depends on was cancelled.
    ParentCancelled = 1,
    /// Its client went away.
    ClientClosed = 2,
    /// The broker is shutting down.
    BrokerShutdown = 3,
    /// Its run passed its deadline.
    Deadline = 4,
    /// Another task of its run failed, and the run was to stop then.
    RunFailed = 5,
    /// The task that submitted it has ended.
    SubmitterEnded = 6,
}

/// What a worker says of one lease, in [`Report`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Verdict {
    /// It returned and the value is in the blob.
    Done = 0,
    /// It returned and the value stays with the worker, as the lease asked; the blob is empty.
    DoneHeld = 1,
    /// It raised; the blob is the record of the exception.
    Failed = 2,
    /// It was given back before it started (recalled, or an input of it failed here).
    Returned = 3,
    /// It was interrupted by a cancel while it ran, or dropped by one before it started.
    Cancelled = 4,
    /// Not an ending: the value of an earlier `DoneHeld`, which the broker asked for in [`Recall::fetch`].
    Value = 5,
    /// Not an ending: what the broker asked for in [`Recall::fetch`] is not here (any more); the attempt is 0.
    Lost = 6,
    /// It raised, and no retry is worth it; the blob is the record of the exception.
    FailedForGood = 7,
    /// It ran longer than its lease allows, and was interrupted.
    TimedOut = 8,
    /// It returned a graph in its place, which was submitted before with [`SUBMIT_REPLACES`].
    Became = 9,
}

/// The first message of a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello<'a> {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub protocol: u32,
    /// What the sender is.
    pub role: Role,
    /// Version of headrace, such as `0.1.0`.
    pub version: &'a str,
    /// Version of Python, such as `3.11.7`; the first two numbers must agree, because functions travel as byte code
    /// (an observer's need not).
    pub python: &'a str,
    /// Feature bits; none is defined yet.
    pub features: u64,
    /// The worker number given at its start; how many workers an agent may have; 0 for others.
    pub worker: u32,
    /// The incarnation token given at the worker's start; 0 for others.
    pub incarnation: u64,
    /// Process id of the sender.
    pub pid: u32,
}

/// The broker's answer to HELLO.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome<'a> {
    /// [`PROTOCOL_VERSION`] of the broker.
    pub protocol: u32,
    /// Version of headrace.
    pub version: &'a str,
    /// Feature bits.
    pub features: u64,
    /// Number of this session.
    pub session: u64,
    /// Largest result in bytes that a worker may report.
    pub result_bytes_max: u64,
}

/// The last message of either side, with the reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Goodbye<'a> {
    /// A [`GoodbyeReason`] as its number, or one that a newer peer knows.
    pub reason: u8,
    /// What happened, for people.
    pub text: &'a str,
}

/// Why a session ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum GoodbyeReason {
    /// The sender is done.
    Closed = 0,
    /// Versions differ; the text names both.
    VersionMismatch = 1,
    /// A frame could not be decoded or broke the protocol.
    ProtocolError = 2,
    /// The broker shuts down.
    Shutdown = 3,
    /// The broker cannot keep its workers alive; the text says why.
    WorkersFailed = 4,
}

/// A sign of life and its echo: the broker asks, a worker answers with the same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Heartbeat {
    /// Number of the question.
    pub number: u64,
    /// In the answer: tasks that the worker has finished since its start.
    pub finished: u64,
}

/// A graph, or the next tasks of a live run (client to broker).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Submit<'a> {
    /// The client's number for the run. Run 0 is the run of single calls, which never ends and keeps no task by itself.
    pub run: u32,
    /// Index of the first task of this chunk within its run.
    pub first: u32,
    /// Bit 0: more chunks follow ([`SUBMIT_MORE`]).
    pub flags: u32,
    /// Session-wide numbers of functions that the broker has not seen yet.
    pub function_ids: U32s<'a>,
    /// Their names, for people.
    pub function_names: Blobs<'a>,
    /// Their pickles.
    pub functions: Blobs<'a>,
    /// Per task: session-wide number of its function, through `function_map`: `function_map[task_function[i]]`.
    pub function_map: U32s<'a>,
    /// Per task: position in `function_map`. As long as the chunk has tasks.
    pub task_function: U32s<'a>,
    /// Per task: how many predecessors it has.
    pub dep_counts: U32s<'a>,
    /// Predecessors task after task, in the order in which the arguments cite them, each once per task: an index within
    /// the run (of this chunk or an earlier one), or [`EXTERNAL`] `| p` for position p of the external columns.
    pub deps: U32s<'a>,
    /// Run of each external predecessor (of the same session).
    pub external_run: U32s<'a>,
    /// Index of each external predecessor within its run.
    pub external_index: U32s<'a>,
    /// Per task: its encoded arguments.
    pub args: Blobs<'a>,
    /// Per task: position in the option columns; empty if all tasks have the default options.
    pub task_options: U32s<'a>,
    /// Option column: priority, an `i32` in two's complement; higher runs first.
    pub priority: U32s<'a>,
    /// Option column: worker to which the task is pinned, or [`ANY_WORKER`].
    pub worker: U32s<'a>,
    /// Indices within the run of this chunk's tasks with a key of their own, ascending.
    pub key_index: U32s<'a>,
    /// Their keys.
    pub keys: Blobs<'a>,
    /// Indices within the run of this chunk's tasks whose results the run keeps.
    pub keep: U32s<'a>,
    /// Option column: an encoded [`Policy`], empty for the default one; the column is empty if all are.
    pub policies: Blobs<'a>,
    /// Milliseconds from now after which the run is cancelled; 0 for none. The first chunk says it.
    pub deadline_ms: u64,
    /// Added to the priority of each task.
    pub run_priority: i32,
    /// Of what a task submits: the slot of that task.
    pub parent: u32,
    /// And its attempt; 0 for what comes from a client.
    pub parent_attempt: u32,
}

/// Flag of [`Submit`]: more chunks of this run follow.
pub const SUBMIT_MORE: u32 = 1;
/// Flag of [`Submit`]: once a task of the run has failed, the others are cancelled.
pub const SUBMIT_STOP_ON_ERROR: u32 = 2;
/// Flag of [`Submit`]: the run takes the place of the task that submits it. It keeps one task, whose result will be that
/// task's own, and nobody is told of it.
pub const SUBMIT_REPLACES: u32 = 4;
/// Bit of [`Submit::deps`] that marks an external predecessor.
pub const EXTERNAL: u32 = 1 << 31;
/// Value of [`Submit::worker`] for tasks that any worker may take.
pub const ANY_WORKER: u32 = u32::MAX;

/// Endings of tasks of one run (broker to client): kept results, and every task that did not end well.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Results<'a> {
    /// The run.
    pub run: u32,
    /// Whether every task of the run has ended; the last message of a run.
    pub finished: bool,
    /// Index of each task within the run.
    pub index: U32s<'a>,
    /// How each ended: an [`Outcome`] as its number.
    pub outcome: &'a [u8],
    /// What each left: see [`Outcome`].
    pub values: Blobs<'a>,
    /// Tasks of the run that have ended so far, however they ended.
    pub ended: u64,
}

/// A change of what a client holds (client to broker).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hold<'a> {
    /// The run.
    pub run: u32,
    /// Results to hold beyond their run; each adds one holder.
    pub add: U32s<'a>,
    /// Results to let go; each removes one holder.
    pub remove: U32s<'a>,
    /// Whether the run's own keep set is released as well.
    pub release_run: bool,
}

/// Cancels tasks of a run and all that depend on them (client to broker).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cancel<'a> {
    /// The run.
    pub run: u32,
    /// Whether the whole run is meant; `index` is then empty.
    pub whole: bool,
    /// Indices of the tasks.
    pub index: U32s<'a>,
    /// Whether tasks that a worker has got are left alone.
    pub spare_leased: bool,
}

/// A piece of what a worker wrote (broker to client).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Log<'a> {
    /// The worker that wrote them, or [`NO_WORKER`].
    pub worker: u32,
    /// 1 for standard output, 2 for standard error.
    pub stream: u8,
    /// The bytes. headrace's own come in whole lines; others may begin and end anywhere. No bytes: the process has ended, and
    /// its last line with it.
    pub text: &'a [u8],
    /// Run of the task that wrote it, by the number of the client that gets this.
    pub run: u32,
    /// Index of the task within its run.
    pub index: u32,
    /// Its attempt, from 1 on; 0 if the piece is of no task of this client.
    pub attempt: u32,
    /// Bytes that the attempt wrote before these, to both streams.
    pub before: u64,
}

/// Value of [`Log::worker`] for lines of headrace itself.
pub const NO_WORKER: u32 = u32::MAX;

/// A batch of leases (broker to worker).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lease<'a> {
    /// Number of this frame, ascending per worker.
    pub frame: u32,
    /// Results that are dead: drop them first.
    pub dead: U32s<'a>,
    /// Functions that this worker has not seen: broker-wide numbers.
    pub function_ids: U32s<'a>,
    /// Their names.
    pub function_names: Blobs<'a>,
    /// Their pickles.
    pub functions: Blobs<'a>,
    /// Slots of results that travel with this frame because a lease needs them and the worker has not got them.
    pub value_task: U32s<'a>,
    /// Those results.
    pub values: Blobs<'a>,
    /// Per lease: slot of the task in the kernel.
    pub task: U32s<'a>,
    /// Per lease: attempt number (K4).
    pub attempt: U32s<'a>,
    /// Per lease: broker-wide number of the function.
    pub function: U32s<'a>,
    /// Per lease: [`LEASE_REPORT`], [`LEASE_HOLD`] and [`LEASE_NESTED`] bits.
    pub flags: &'a [u8],
    /// Per lease: index of the task within its run, for people.
    pub index: U32s<'a>,
    /// Per lease: number of predecessors.
    pub dep_counts: U32s<'a>,
    /// Slots of the predecessors, lease after lease, in the order in which the arguments cite them.
    pub deps: U32s<'a>,
    /// Per lease: encoded arguments.
    pub args: Blobs<'a>,
    /// Positions in this frame of leases whose task has a key of its own, ascending.
    pub key_position: U32s<'a>,
    /// Their keys; every other key is `name-index`.
    pub keys: Blobs<'a>,
    /// Per lease: milliseconds that the attempt may run, or 0; empty if none has a limit.
    pub timeout_ms: U32s<'a>,
    /// Per lease: attempts of the task that failed before; empty if none did.
    pub failures: U32s<'a>,
}

/// Flag of a lease: the value must be reported (it is kept, or a consumer is elsewhere).
pub const LEASE_REPORT: u8 = 1;
/// Flag of a lease: the worker holds the value for consumers until it is told that it is dead.
pub const LEASE_HOLD: u8 = 2;
/// Flag of a lease: the task of the worker that waits waits for this one, and may run it meanwhile.
pub const LEASE_NESTED: u8 = 4;

/// What became of leases (worker to broker).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report<'a> {
    /// Per entry: slot of the task.
    pub task: U32s<'a>,
    /// Per entry: attempt number.
    pub attempt: U32s<'a>,
    /// Per entry: a [`Verdict`] as its number.
    pub verdict: &'a [u8],
    /// Per entry: value or exception record, else empty.
    pub values: Blobs<'a>,
    /// Measured durations: broker-wide function numbers, one entry per unbroken row of calls.
    pub timed_function: U32s<'a>,
    /// Calls in each row; 0 where the row that follows goes on.
    pub timed_calls: U32s<'a>,
    /// Nanoseconds of each row together.
    pub timed_ns: U32s<'a>,
}

/// Takes back leases that have not started, and asks for values (broker to worker). The worker answers with one
/// [`Report`]: first the values, then one `Returned` for each lease that it gives back; the others it keeps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recall<'a> {
    /// Slots of the tasks wanted back.
    pub task: U32s<'a>,
    /// Their attempts.
    pub attempt: U32s<'a>,
    /// Slots of held results whose values the broker needs.
    pub fetch: U32s<'a>,
}

/// Drops leases that were cancelled (broker to worker). Unstarted ones are dropped and reported `Cancelled`; the one that
/// runs is interrupted through the status page and a signal, not by this message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Revoke<'a> {
    /// Slots of the tasks.
    pub task: U32s<'a>,
    /// Their attempts.
    pub attempt: U32s<'a>,
}

/// Results that are dead: the worker drops them (broker to worker; also rides in [`Lease::dead`]).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Forget<'a> {
    /// Slots of the results.
    pub dead: U32s<'a>,
}

/// A result that the client has made itself: a single call that has ended (client to broker).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Put<'a> {
    /// Its index in run 0.
    pub index: u32,
    /// The encoded value.
    pub value: &'a [u8],
}

/// One decoded frame.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Message<'a> {
    Hello(Hello<'a>),
    Welcome(Welcome<'a>),
    Goodbye(Goodbye<'a>),
    Heartbeat(Heartbeat),
    Submit(Submit<'a>),
    Results(Results<'a>),
    Hold(Hold<'a>),
    Cancel(Cancel<'a>),
    Query(Query),
    State(State<'a>),
    Log(Log<'a>),
    Lease(Lease<'a>),
    Report(Report<'a>),
    Recall(Recall<'a>),
    Revoke(Revoke<'a>),
    Forget(Forget<'a>),
    Put(Put<'a>),
    Want(Want),
    Withdraw(Withdraw),
    Lack(Lack),
    Release(Release<'a>),
    Released(Released<'a>),
    GiveBack(GiveBack<'a>),
    Moved(Moved<'a>),
    Death(Death<'a>),
    Policy(Policy<'a>),
    Overrun(Overrun<'a>),
    Overdue(Overdue),
    Waiting(Waiting),
    Standstill(Standstill<'a>),
    Why(Why<'a>),
    Because(Because<'a>),
    Order(Order),
    Event(Event<'a>),
    Estate(Estate<'a>),
    Transfer(Transfer<'a>),
    Neighbour(Neighbour<'a>),
}
