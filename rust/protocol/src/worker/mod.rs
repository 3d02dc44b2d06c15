//! The worker's session machine: what is leased, what runs, which results stay here, what must be said.
//!
//! It knows no socket, no thread and no interpreter. Frames go in through [`Worker::handle_frame`] and come out of
//! [`Worker::poll_frame`]; whoever runs tasks alternates [`Worker::start_next`] and [`Worker::finish`]. Every encoded
//! result that a consumer may still need lies in the machine, so that any thread that holds it can answer the broker
//! while the task of the moment keeps the interpreter to itself.
//!
//! - **W1** A lease ends in exactly one entry of a report: done, failed, returned or cancelled.
//! - **W2** A lease that has started is never returned: a recall takes only what is queued.
//! - **W3** A lease starts only if all its inputs are here. Leases run in the order of arrival and an input comes from
//!   the broker with the lease or from an earlier lease (K2), so an input that is missing at the start will never come:
//!   the lease is returned.
//! - **W4** Within a report, values that the broker asked for stand before what is returned, so that a broker that
//!   re-leases a returned task already has its inputs.
//! - **W5** After GOODBYE, of either side, nothing starts.
//!
//! An attempt with a time limit is *overdue* from the moment in which somebody found that the limit has passed
//! ([`Worker::handle_timeout`]); the broker is told at once, and however the attempt ends then, it has timed out.
//!
//! Values that lie in shared memory are references to [`Blocks`]: those that are held here, those that the running task
//! takes, and those that Python sees count alike. What a report cites is on its way before it says that a block was let go.

mod lease;
mod memory;
mod nested;
mod report;
#[cfg(test)]
mod tests;
mod value;

use std::collections::VecDeque;
use std::sync::Arc;

use headrace_kernel::seeded;
use headrace_wire::{
    DecodeError, Goodbye, GoodbyeReason, Heartbeat, Hello, LEASE_HOLD, LEASE_REPORT, Lease, Message, Overdue,
    PROTOCOL_VERSION, Recall, Revoke, Role, U32s, Verdict, Welcome, cites,
};
use rustc_hash::{FxHashMap, FxHashSet};

use self::lease::Queue;
pub use self::lease::Start;
use self::nested::Suspended;
use self::report::Reporting;
pub use self::value::Value;
use self::value::Values;
use crate::store::Blocks;

/// The largest result that any worker reports, whatever WELCOME allows: half of the largest frame, so that the report
/// around it always fits.
pub const RESULT_BYTES_CEILING: u64 = 1 << 29;

/// What a worker says of itself in HELLO.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Version of headrace.
    pub version: String,
    /// Version of Python.
    pub python: String,
    /// The worker number given at its start.
    pub worker: u32,
    /// The incarnation token given at its start.
    pub incarnation: u64,
    /// Its process id.
    pub pid: u32,
}

/// How a started task ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending<'a> {
    /// It returned this encoded value, with a reference of its own to each block that it cites.
    Value(&'a [u8]),
    /// It raised; this is the record of the exception.
    Raised(&'a [u8]),
    /// It raised what its task's option says is worth no retry.
    RaisedForGood(&'a [u8]),
    /// A cancel interrupted it.
    Interrupted,
    /// It returned a graph in its place, which has been submitted.
    Became,
}

/// The task that runs, as people call it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Running {
    /// Its key: its own, or `name-index`.
    pub key: String,
    /// Its attempt number.
    pub attempt: u32,
    /// Attempts of the task that failed before.
    pub failures: u32,
}

/// Why the session ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Closed {
    /// A [`GoodbyeReason`] as its number.
    pub reason: u8,
    /// What happened, for people.
    pub text: String,
}

/// What the machine holds, for diagnosis.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Leases that have not started.
    pub queued: usize,
    /// Results held for consumers.
    pub values: usize,
    /// Functions known.
    pub functions: usize,
    /// Tasks that ended here, however they ended.
    pub finished: u64,
    /// Frames of a type that is not known here.
    pub unknown_frames: u64,
}

struct Function {
    name: Box<str>,
    pickle: Arc<[u8]>,
}

/// The machine. See the module.
pub struct Worker {
    functions: FxHashMap<u32, Function>,
    values: Values,
    blocks: Blocks,
    /// What the running task takes, with references to the blocks that it cites.
    taken: Vec<Value>,
    queue: Queue,
    reporting: Reporting,
    outbox: VecDeque<Vec<u8>>,
    result_bytes_max: u64,
    /// When the running attempt becomes overdue.
    deadline_ns: Option<u64>,
    /// Whether it is.
    overdue: bool,
    finished: u64,
    unknown_frames: u64,
    flush_due: bool,
    closed: Option<Closed>,
    /// Attempts that wait, with the running one on top of the last.
    suspended: Vec<Suspended>,
    /// Frames for whoever submits tasks here, if anybody does.
    nested: VecDeque<Vec<u8>>,
    is_nested_open: bool,
    /// Slot and attempt of a task that waits in vain, and why.
    standstill: Option<(u32, u32, String)>,
}

impl Worker {
    /// A machine whose first frame is HELLO.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        let hello = Message::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            role: Role::Worker,
            version: &identity.version,
            python: &identity.python,
            features: 0,
            worker: identity.worker,
            incarnation: identity.incarnation,
            pid: identity.pid,
        });
        let mut worker = Worker {
            functions: FxHashMap::default(),
            values: Values::default(),
            blocks: Blocks::default(),
            taken: Vec::new(),
            queue: Queue::default(),
            reporting: Reporting::default(),
            outbox: VecDeque::new(),
            result_bytes_max: RESULT_BYTES_CEILING,
            deadline_ns: None,
            overdue: false,
            finished: 0,
            unknown_frames: 0,
            flush_due: false,
            closed: None,
            suspended: Vec::new(),
            nested: VecDeque::new(),
            is_nested_open: false,
            standstill: None,
        };
        worker.post(&hello);
        worker
    }

    /// Takes one frame from the broker.
    ///
    /// A frame that is no message ends the session with GOODBYE; one of an unknown type is counted and skipped.
    pub fn handle_frame(&mut self, frame: &[u8]) {
        if self.closed.is_some() {
            return;
        }
        match Message::decode(frame) {
            Ok(Message::Welcome(welcome)) => self.handle_welcome(&welcome),
            Ok(Message::Lease(lease)) => self.handle_lease(&lease),
            Ok(Message::Recall(recall)) => self.handle_recall(&recall),
            Ok(Message::Revoke(revoke)) => self.handle_revoke(&revoke),
            Ok(Message::Forget(forget)) => self.handle_dead(forget.dead),
            Ok(Message::Release(release)) => {
                self.blocks.handle_release_frame(&release);
                self.flush_due |= self.blocks.has_released();
            }
            Ok(Message::GiveBack(wish)) => {
                let outbox = &mut self.outbox;
                let soon = self.queue.running().is_none();
                self.blocks.handle_give_back(&wish, soon, |message| outbox.push_back(encoded(message)));
            }
            Ok(Message::Heartbeat(heartbeat)) => {
                self.post(&Message::Heartbeat(Heartbeat { number: heartbeat.number, finished: self.finished }));
            }
            Ok(Message::Goodbye(goodbye)) => {
                self.closed = Some(Closed { reason: goodbye.reason, text: goodbye.text.to_owned() });
            }
            Ok(Message::Standstill(standstill)) => {
                self.standstill = Some((standstill.task, standstill.attempt, standstill.text.to_owned()));
            }
            Ok(Message::Results(_) | Message::State(_) | Message::Because(_) | Message::Moved(_) | Message::Log(_))
                if self.is_nested_open =>
            {
                self.nested.push_back(frame.to_vec())
            }
            // The last words of what the process before this one has submitted.
            Ok(Message::Log(_)) => {}
            Ok(other) => self.leave(
                GoodbyeReason::ProtocolError,
                &format!("a worker does not take messages of type {}", other.type_number()),
            ),
            Err(DecodeError::UnknownType(_)) => self.unknown_frames += 1,
            Err(error) => {
                self.leave(GoodbyeReason::ProtocolError, &format!("a frame of the broker is broken: {error}"));
            }
        }
    }

    /// Starts the next lease whose inputs are all here and describes it in `start`; false if there is none.
    ///
    /// Ask only when nothing runs. `clock` gives nanoseconds and is read at the ends of a row of calls of one function,
    /// not for each call, but for each attempt with a time limit.
    #[must_use]
    pub fn start_next(&mut self, start: &mut Start, mut clock: impl FnMut() -> u64) -> bool {
        debug_assert!(self.queue.running().is_none(), "one task at a time");
        if self.closed.is_some() {
            return false;
        }
        while let Some(lease) = self.queue.pop(start) {
            if self.begin(&lease, start, &mut clock) {
                return true;
            }
        }
        false
    }

    /// Records how the running task ended. Whether that must leave now is [`Worker::flush_due`]'s answer.
    ///
    /// # Panics
    /// If nothing runs.
    pub fn finish(&mut self, ending: Ending<'_>) {
        let lease = self.queue.end_running().expect("a task that ends has started");
        self.finished += 1;
        self.reporting.end_call();
        self.deadline_ns = None;
        match ending {
            _ if std::mem::take(&mut self.overdue) => {
                if let Ending::Value(value) = ending {
                    self.blocks.unhold_cited(value);
                }
                self.give_up(lease.task, lease.attempt, Verdict::TimedOut, &[]);
            }
            Ending::Value(value) => {
                let held = lease.flags & LEASE_HOLD != 0;
                if held && !(seeded!("held value dropped") && lease.task % 8 == 7) {
                    self.values.insert(lease.task, lease.attempt, value, &mut self.blocks);
                } else {
                    // What an earlier attempt may have left, of which the broker knows nothing.
                    self.values.remove(lease.task, &mut self.blocks);
                }
                if lease.flags & LEASE_REPORT != 0 {
                    self.blocks.publish_cited(value);
                }
                self.blocks.unhold_cited(value);
                let (verdict, blob) = match lease.flags & LEASE_REPORT != 0 {
                    true => (Verdict::Done, value),
                    false if held => (Verdict::DoneHeld, &[][..]),
                    // Nobody wants the value: it is done, and there is nothing that could be lost.
                    false => (Verdict::Done, &[][..]),
                };
                self.reporting.push(lease.task, lease.attempt, verdict, blob);
            }
            Ending::Raised(record) => self.give_up(lease.task, lease.attempt, Verdict::Failed, record),
            Ending::RaisedForGood(record) => {
                self.give_up(lease.task, lease.attempt, Verdict::FailedForGood, record);
            }
            Ending::Interrupted => self.give_up(lease.task, lease.attempt, Verdict::Cancelled, &[]),
            Ending::Became => self.give_up(lease.task, lease.attempt, Verdict::Became, &[]),
        }
        for value in self.taken.drain(..) {
            self.blocks.unhold_cited(value.bytes());
        }
        self.flush_due |= self.queue.at_frame_end() || self.reporting.is_full() || self.blocks.has_released();
    }

    /// When [`Worker::handle_timeout`] wants to be called.
    #[must_use]
    pub fn next_timeout_ns(&self) -> Option<u64> {
        match self.suspended.is_empty() {
            true => self.deadline_ns,
            false => self.deadline_ns.into_iter().chain(self.next_suspended_ns()).min(),
        }
    }

    /// Lets time pass: the (task, attempt) that is to be interrupted because its time is over, once. It must be the one that
    /// executes, or the interrupt would hit nothing; so ask again if it is not yet.
    pub fn handle_timeout(&mut self, executing: Option<(u32, u32)>, now_ns: u64) -> Option<(u32, u32)> {
        self.look_at_suspended(now_ns);
        let lease = self.queue.running()?;
        let running = (lease.task, lease.attempt);
        self.deadline_ns.take_if(|deadline_ns| *deadline_ns <= now_ns && executing == Some(running))?;
        self.overdue = true;
        let (task, attempt) = running;
        self.post(&Message::Overdue(Overdue { task, attempt }));
        Some(running)
    }

    /// Whether a report should leave without waiting for more: the leases of a frame are done, an answer is due, or
    /// the values are many bytes.
    #[must_use]
    pub fn flush_due(&self) -> bool {
        self.flush_due
    }

    /// Closes the report under construction; it comes out of [`Worker::poll_frame`] next.
    pub fn flush(&mut self, now_ns: u64) {
        let answer_due = std::mem::take(&mut self.flush_due);
        self.reporting.end_row(now_ns);
        self.queue.release_columns();
        if answer_due || !self.reporting.is_empty() {
            self.outbox.push_back(self.reporting.take_frame());
        }
        let outbox = &mut self.outbox;
        self.blocks.tell_released(|message| outbox.push_back(encoded(message)));
    }

    /// The next frame for the broker.
    #[must_use]
    pub fn poll_frame(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
    }

    /// Ends the session from this side: GOODBYE is the last frame, and nothing starts any more.
    pub fn leave(&mut self, reason: GoodbyeReason, text: &str) {
        self.post(&Message::Goodbye(Goodbye { reason: reason as u8, text }));
        self.closed = Some(Closed { reason: reason as u8, text: text.to_owned() });
    }

    /// Why the session ended, once it has.
    #[must_use]
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// Whether a lease waits for its start.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty() && self.closed.is_none()
    }

    /// Name and pickle of a function.
    #[must_use]
    pub fn function(&self, number: u32) -> Option<(&str, &Arc<[u8]>)> {
        self.functions.get(&number).map(|function| (&*function.name, &function.pickle))
    }

    /// The task that runs.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        let lease = self.queue.running()?;
        let key = self.queue.key_of_running().map(str::to_owned).unwrap_or_else(|| {
            let name = self.functions.get(&lease.function).map_or("task", |function| &*function.name);
            format!("{name}-{}", lease.index)
        });
        Some(Running { key, attempt: lease.attempt, failures: self.queue.failures_of_running() })
    }

    /// What the machine holds.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            queued: self.queue.len(),
            values: self.values.len(),
            functions: self.functions.len(),
            finished: self.finished,
            unknown_frames: self.unknown_frames,
        }
    }

    fn handle_welcome(&mut self, welcome: &Welcome<'_>) {
        if welcome.protocol == PROTOCOL_VERSION {
            self.result_bytes_max = welcome.result_bytes_max.min(RESULT_BYTES_CEILING);
        } else {
            let text = format!("the broker speaks protocol {}, this worker {PROTOCOL_VERSION}", welcome.protocol);
            self.leave(GoodbyeReason::VersionMismatch, &text);
        }
    }

    fn handle_lease(&mut self, lease: &Lease<'_>) {
        self.handle_dead(lease.dead);
        for ((number, name), pickle) in
            lease.function_ids.iter().zip(lease.function_names.iter()).zip(lease.functions.iter())
        {
            let name = String::from_utf8_lossy(name).into();
            self.functions.insert(number, Function { name, pickle: pickle.into() });
        }
        if let Some(unknown) = lease.function.iter().find(|number| !self.functions.contains_key(number)) {
            self.leave(GoodbyeReason::ProtocolError, &format!("function {unknown} was leased but never sent"));
            return;
        }
        for (task, value) in lease.value_task.iter().zip(lease.values.iter()) {
            self.values.insert(task, 0, value, &mut self.blocks);
        }
        self.queue.push(lease);
    }

    fn handle_recall(&mut self, recall: &Recall<'_>) {
        for task in recall.fetch.iter() {
            match self.values.get(task) {
                Some((attempt, value)) => {
                    self.blocks.publish_cited(value.bytes());
                    self.reporting.push(task, attempt, Verdict::Value, value.bytes());
                }
                None => self.reporting.push(task, 0, Verdict::Lost, &[]),
            }
            if self.reporting.is_full() {
                self.outbox.push_back(self.reporting.take_frame());
            }
        }
        for (task, attempt) in self.queue.take_back(&pairs(recall.task, recall.attempt)) {
            self.give_up(task, attempt, Verdict::Returned, &[]);
        }
        self.flush_due = true;
    }

    fn handle_revoke(&mut self, revoke: &Revoke<'_>) {
        for (task, attempt) in self.queue.drop_leases(&pairs(revoke.task, revoke.attempt)) {
            self.give_up(task, attempt, Verdict::Cancelled, &[]);
            self.flush_due = true;
        }
    }

    /// Reports a lease that leaves no result. What an earlier attempt may have left must not feed its consumers.
    fn give_up(&mut self, task: u32, attempt: u32, verdict: Verdict, record: &[u8]) {
        self.values.remove(task, &mut self.blocks);
        self.reporting.push(task, attempt, verdict, record);
    }

    fn handle_dead(&mut self, dead: U32s<'_>) {
        for task in dead.iter() {
            self.values.remove(task, &mut self.blocks);
        }
        self.flush_due |= self.blocks.has_released();
    }

    /// A cancelled task's inputs may die while it is about to read them.
    fn take_inputs(&mut self, inputs: &[Value]) {
        for value in inputs.iter().filter(|value| cites(value.bytes())) {
            self.blocks.hold_cited(value.bytes());
            self.taken.push(value.clone());
        }
    }

    fn post(&mut self, message: &Message<'_>) {
        self.outbox.push_back(encoded(message));
    }
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    message.encode(&mut frame);
    frame
}

fn pairs(tasks: U32s<'_>, attempts: U32s<'_>) -> FxHashSet<(u32, u32)> {
    tasks.iter().zip(attempts.iter()).collect()
}
