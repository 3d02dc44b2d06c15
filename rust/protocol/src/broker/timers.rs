//! What is to happen at a time. An entry whose reason has gone means nothing when its time comes; if many do, they go before.

use super::retry::{PARKED_CLASS, Parked};
use super::{Broker, PeerId};
use headrace_kernel::{Handle, Kernel, TaskIndex};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A task, not only its slot: slot and generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Name(u32, u32);

impl Name {
    pub(crate) fn of(task: u32, kernel: &Kernel) -> Self {
        Name(task, kernel.handle(TaskIndex(task)).generation)
    }

    /// The slot, if the task is in it still.
    pub(crate) fn find(self, kernel: &Kernel) -> Option<TaskIndex> {
        kernel.resolve(Handle { index: TaskIndex(self.0), generation: self.1 })
    }
}

/// What is to happen.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// The pause before a retry ends.
    Pause(Parked),
    /// A task may not wait any longer for its start.
    Wait(Name),
    /// A client's run may not go on.
    Deadline(PeerId, u32),
}

/// Timers by their time; those of the same time in the order in which they were set.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BinaryHeap<Reverse<(u64, u64, Timer)>>,
    set: u64,
    /// With more than so many it is worth a look which ones mean nothing.
    crowd: usize,
}

/// A crowd that is worth no look.
const CROWD_MIN: usize = 1_024;

impl Timers {
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }

    /// When the next one is due.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due_ns, ..))| *due_ns)
    }

    /// When the pause of a task ends, if it pauses. A look at all timers.
    pub(crate) fn pause_ends_ns(&self, task: TaskIndex, kernel: &Kernel) -> Option<u64> {
        let is_its = |timer: &Timer| matches!(timer, Timer::Pause(parked) if parked.is_of(task, kernel));
        self.due.iter().find(|Reverse((.., timer))| is_its(timer)).map(|Reverse((due_ns, ..))| *due_ns)
    }

    fn take_due(&mut self, now_ns: u64) -> Option<Timer> {
        if self.next_ns()? > now_ns {
            return None;
        }
        self.due.pop().map(|Reverse((.., timer))| timer)
    }
}

impl Broker {
    pub(super) fn set_timer(&mut self, due_ns: u64, timer: Timer) {
        let mut timers = std::mem::take(&mut self.timers);
        timers.set += 1;
        timers.due.push(Reverse((due_ns, timers.set, timer)));
        if timers.due.len() > timers.crowd {
            let kernel = &self.kernel;
            timers.due.retain(|Reverse((due_ns, _, timer))| match timer {
                Timer::Pause(parked) => {
                    parked.task.find(kernel).is_some_and(|task| kernel.class_of(task) == PARKED_CLASS)
                }
                Timer::Wait(task) => task.find(kernel).is_some_and(|task| self.waits.until_ns(task) == Some(*due_ns)),
                Timer::Deadline(peer, run) => {
                    self.find_run(*peer, *run).is_some_and(|position| !self.run(position).finished())
                }
            });
            timers.crowd = CROWD_MIN + 2 * timers.due.len();
        }
        self.timers = timers;
    }

    pub(super) fn ring_timers(&mut self, now_ns: u64) {
        while let Some(timer) = self.timers.take_due(now_ns) {
            match timer {
                Timer::Pause(parked) => self.retries.end_pause(parked),
                Timer::Wait(task) => self.end_wait(task, now_ns),
                Timer::Deadline(peer, run) => self.end_deadline(peer, run, now_ns),
            }
        }
    }
}
