//! Time limits of tasks: attempts that run for too long, and waits for a start that take too long.
//!
//! A worker enforces the limit of an attempt by itself and says so ([`Overdue`]); it gets no other work until the attempt is
//! over, and is killed if that takes too long. An attempt that was declared overdue has timed out, however it ends; it is a
//! failure then, so another one may follow.
//!
//! A wait counts from the moment in which the task becomes ready, through recalls, until its attempt starts. Only the worker
//! knows whether it has: it is asked for the lease, and what has started does not come back (W2).

use super::retry::is_parked;
use super::timers::{Name, Timer};
use super::workers::Interrupted;
use super::{Broker, worker_id};
use headrace_kernel::{Attempt, TaskIndex, TaskState};
use headrace_wire::{Message, Outcome, Overdue, Overrun};
use rustc_hash::FxHashMap;

/// Until when tasks may wait for their start, by slot: those that have become ready and of which it is not known that they
/// started.
#[derive(Debug, Default)]
pub(crate) struct Waits(FxHashMap<u32, u64>);

impl Waits {
    pub(crate) fn until_ns(&self, task: TaskIndex) -> Option<u64> {
        self.0.get(&task.0).copied()
    }

    /// The task has started, or its slot is free.
    #[inline]
    pub(crate) fn forget(&mut self, task: u32) {
        if !self.0.is_empty() {
            self.0.remove(&task);
        }
    }
}

impl Broker {
    /// An attempt runs for longer than it may. Its worker has interrupted it.
    pub(super) fn handle_overdue(&mut self, number: u32, overdue: &Overdue, now_ns: u64) {
        let Overdue { task, attempt } = *overdue;
        let is_limited = || self.policies.get(self.ledger.slot(task).policy).timeout_ms > 0;
        if self.ledger.knows(task) && self.may_run(number, task, attempt) && is_limited() {
            let kill_ns = now_ns + self.config.grace_ns;
            let author = self.author_of(task, attempt);
            let worker = &mut self.workers[number as usize];
            worker.overdue = Some((task, attempt));
            worker.interrupted.push(Interrupted { task, attempt, author, retry_ns: u64::MAX, kill_ns });
            // What it waits for may run on top of it.
            self.nests.end(task);
        }
    }

    /// An attempt passed its time limit, and has reported that.
    pub(super) fn note_overrun(&mut self, worker: u32, task: u32, attempt: u32, now_ns: u64) {
        self.count_timeout(task);
        let limit_ms = self.policies.get(self.ledger.slot(task).policy).timeout_ms;
        let failures = self.retries.failures(task);
        let key = self.inner_key(task);
        let blob = encoded(Overrun { queued: false, worker, attempt, limit_ms, failures, key: &key });
        self.note_failed(task, Outcome::TimedOut, &blob, now_ns);
    }

    /// The same of an attempt that was declared overdue and ended with its process. Whether there was one.
    pub(super) fn end_overdue(&mut self, worker: u32, overdue: Option<(u32, u32)>, now_ns: u64) -> bool {
        let counts = |(task, attempt): &(u32, u32)| {
            self.is_leased(worker, *task, *attempt) && self.rivals.second_worker(*task).is_none()
        };
        let Some((task, attempt)) = overdue.filter(counts) else { return false };
        if self.retry_after_death(task, now_ns) {
            self.count_timeout(task);
        } else if self.kernel.fail(worker_id(worker), TaskIndex(task), Attempt(attempt)).is_ok() {
            self.uncount_lease(task);
            self.note_overrun(worker, task, attempt, now_ns);
        }
        true
    }

    pub(super) fn count_timeout(&mut self, task: u32) {
        self.statistics.timeouts += 1;
        let run = self.ledger.slot(task).run;
        self.run_mut(run).counts.timeouts += 1;
    }

    /// Starts the clocks of tasks that have become ready and may not wait for ever.
    pub(super) fn begin_waits(&mut self, now_ns: u64) {
        let mut ready = Vec::new();
        self.kernel.drain_ready(|task| ready.push(task));
        for task in ready {
            self.begin_wait(task, now_ns);
        }
    }

    /// A watched task has become ready, or comes out of its pause.
    pub(super) fn begin_wait(&mut self, task: TaskIndex, now_ns: u64) {
        if self.kernel.state(task) != TaskState::Ready || is_parked(self.kernel.class_of(task)) {
            return;
        }
        let limit_ms = self.policies.get(self.ledger.slot(task.0).policy).queue_timeout_ms;
        if limit_ms == 0 {
            return;
        }
        match self.waits.until_ns(task) {
            None => {
                let until_ns = now_ns + u64::from(limit_ms) * 1_000_000;
                self.waits.0.insert(task.0, until_ns);
                self.set_timer(until_ns, Timer::Wait(Name::of(task.0, &self.kernel)));
            }
            Some(until_ns) if until_ns <= now_ns => self.expire(task, limit_ms, now_ns),
            Some(_) => {}
        }
    }

    /// A task may not wait any longer, if it still does.
    pub(super) fn end_wait(&mut self, task: Name, now_ns: u64) {
        let Some(task) = task.find(&self.kernel) else { return };
        if self.waits.until_ns(task).is_none_or(|until_ns| until_ns > now_ns) {
            return;
        }
        match self.kernel.state(task) {
            TaskState::Ready => {
                let limit_ms = self.policies.get(self.ledger.slot(task.0).policy).queue_timeout_ms;
                self.expire(task, limit_ms, now_ns);
            }
            TaskState::Leased if self.kernel.missing(task) == 0 => {
                // If it comes back it has not started, and is ready for too long.
                let worker = self.kernel.worker_of(task).expect("it is leased").0;
                if !self.ledger.slot(task.0).recalled {
                    let attempt = self.kernel.attempt(task).0;
                    self.send_recall(worker, &[(task.0, attempt)]);
                }
            }
            // An input was lost: it will become ready once more.
            _ => self.waits.forget(task.0),
        }
    }

    fn expire(&mut self, task: TaskIndex, limit_ms: u32, now_ns: u64) {
        self.waits.forget(task.0);
        self.count_timeout(task.0);
        let (attempt, failures) = (self.kernel.attempt(task).0, self.retries.failures(task.0));
        self.kernel.fail_unleased(task);
        let key = self.inner_key(task.0);
        let blob = encoded(Overrun { queued: true, worker: 0, attempt, limit_ms, failures, key: &key });
        self.note_failed(task.0, Outcome::TimedOut, &blob, now_ns);
        self.settle_cascades(now_ns);
    }
}

fn encoded(overrun: Overrun<'_>) -> Vec<u8> {
    let mut blob = Vec::new();
    Message::Overrun(overrun).encode(&mut blob);
    blob
}
