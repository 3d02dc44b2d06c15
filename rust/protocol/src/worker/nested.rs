//! Tasks that run within the wait of another one, and the frames of what tasks submit, which only pass through here.
//!
//! The attempt that waits is suspended: what runs on top of it is an ordinary attempt, which ends before it goes on. There may be
//! several, one on top of the other.

use std::sync::Arc;

use headrace_kernel::seeded;
use headrace_wire::{Message, Overdue, Waiting};

use super::lease::{Columns, Lease, Start};
use super::{Ending, Value, Verdict, Worker};

/// An attempt that waits while another one runs.
pub(super) struct Suspended {
    lease: Lease,
    columns: Arc<Columns>,
    taken: Vec<Value>,
    deadline_ns: Option<u64>,
    overdue: bool,
}

impl Worker {
    /// Slot and attempt of the task that runs.
    #[must_use]
    pub fn running_attempt(&self) -> Option<(u32, u32)> {
        self.queue.running().map(|lease| (lease.task, lease.attempt))
    }

    /// Whether this attempt runs here, or waits with another one on top of it.
    #[must_use]
    pub fn has_attempt(&self, attempt: (u32, u32)) -> bool {
        self.running_attempt() == Some(attempt)
            || self.suspended.iter().any(|below| (below.lease.task, below.lease.attempt) == attempt)
    }

    /// From here on there are frames for whoever submits tasks in this process.
    pub fn open_nested(&mut self) {
        self.is_nested_open = true;
    }

    /// Sends a frame of theirs, in the order of everything else that is sent.
    pub fn post_nested(&mut self, frame: Vec<u8>) {
        self.outbox.push_back(frame);
    }

    /// The next frame for them.
    #[must_use]
    pub fn poll_nested(&mut self) -> Option<Vec<u8>> {
        self.nested.pop_front()
    }

    /// Says that the task that runs waits for a task of a run, or for all of it, from now on, and whether it may run leases
    /// meanwhile; what has ended is told first.
    pub fn wait(&mut self, run: u32, index: u32, helps: bool, now_ns: u64) {
        self.flush(now_ns);
        self.standstill = None;
        self.tell_waiting(Waiting { waits: true, run, index, helps, ..Waiting::default() });
    }

    /// Says that it goes on.
    pub fn go_on(&mut self) {
        self.standstill = None;
        self.tell_waiting(Waiting::default());
    }

    /// Why the wait of the task that runs must fail.
    #[must_use]
    pub fn take_standstill(&mut self) -> Option<String> {
        let running = self.running_attempt();
        self.standstill.take_if(|(task, attempt, _)| running == Some((*task, *attempt))).map(|(.., text)| text)
    }

    /// Whether there is something for a task that waits: a lease to run meanwhile, or a reason to stop waiting.
    #[must_use]
    pub fn has_nested_news(&self) -> bool {
        self.closed.is_some() || self.standstill.is_some() || self.queue.has_nested()
    }

    /// Starts a task that the one that runs waits for, and suspends that; false if there is none. As [`Worker::start_next`].
    #[must_use]
    pub fn start_nested(&mut self, start: &mut Start, mut clock: impl FnMut() -> u64) -> bool {
        while self.closed.is_none() && self.queue.has_nested() {
            let Some((lease, columns)) = self.queue.suspend() else { return false };
            self.suspended.push(Suspended {
                lease,
                columns,
                taken: std::mem::take(&mut self.taken),
                deadline_ns: self.deadline_ns.take(),
                overdue: std::mem::take(&mut self.overdue),
            });
            self.queue.bring_nested();
            let lease = self.queue.pop(start).expect("there is one");
            if self.begin(&lease, start, &mut clock) {
                return true;
            }
            self.resume(&mut clock);
        }
        false
    }

    /// Records how that ended, as [`Worker::finish`]; the other one goes on.
    ///
    /// # Panics
    /// If nothing runs on top of another task.
    pub fn finish_nested(&mut self, ending: Ending<'_>, mut clock: impl FnMut() -> u64) {
        self.finish(ending);
        self.flush_due = true;
        self.resume(&mut clock);
    }

    fn resume(&mut self, clock: &mut impl FnMut() -> u64) {
        let below = self.suspended.pop().expect("a task was suspended");
        let Suspended { lease, columns, taken, deadline_ns, overdue } = below;
        self.queue.resume(lease, columns);
        self.taken = taken;
        // One that became overdue meanwhile is interrupted now that it can be.
        self.deadline_ns = if overdue { Some(0) } else { deadline_ns };
        self.overdue = overdue;
        self.reporting.begin_call(lease.function, clock);
    }

    /// Tells of suspended attempts that have become overdue. They are interrupted once they go on: the broker sees to it that
    /// what runs on top of them ends.
    pub(super) fn look_at_suspended(&mut self, now_ns: u64) {
        for below in &mut self.suspended {
            if below.deadline_ns.take_if(|deadline_ns| *deadline_ns <= now_ns).is_some() {
                below.overdue = true;
                let overdue = Overdue { task: below.lease.task, attempt: below.lease.attempt };
                self.outbox.push_back(super::encoded(&Message::Overdue(overdue)));
            }
        }
    }

    pub(super) fn next_suspended_ns(&self) -> Option<u64> {
        self.suspended.iter().filter_map(|below| below.deadline_ns).min()
    }

    /// A lease has come out of the queue. It starts if all its inputs are here (W3), else it is given up.
    #[inline]
    pub(super) fn begin(&mut self, lease: &Lease, start: &mut Start, mut clock: impl FnMut() -> u64) -> bool {
        let are_here = self.values.collect(self.queue.deps_of_running(), &mut start.inputs);
        if are_here || seeded!("started without an input") {
            self.take_inputs(&start.inputs);
            self.deadline_ns = self.queue.limit_of_running().map(|limit_ms| clock() + limit_ms * 1_000_000);
            self.reporting.begin_call(lease.function, clock);
            start.result_bytes_max = self.result_bytes_max;
            return true;
        }
        self.queue.end_running();
        self.give_up(lease.task, lease.attempt, Verdict::Returned, &[]);
        self.flush_due |= self.queue.at_frame_end();
        false
    }

    fn tell_waiting(&mut self, waiting: Waiting) {
        if let Some((task, attempt)) = self.running_attempt() {
            self.post(&Message::Waiting(Waiting { task, attempt, ..waiting }));
        }
    }
}
