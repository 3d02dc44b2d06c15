//! CANCEL, and runs that end early: at their deadline, or once one of their tasks has failed for good.

use super::timers::Timer;
use super::{Broker, PeerId};
use headrace_kernel::{TaskIndex, TaskState};
use headrace_wire::{Cancel, CancelReason, SUBMIT_STOP_ON_ERROR, Submit};

impl Broker {
    pub(super) fn handle_cancel(&mut self, peer: PeerId, cancel: &Cancel<'_>, now_ns: u64) {
        self.admit_rest(now_ns);
        let Some(position) = self.find_run(peer, cancel.run) else { return };
        let mut tasks: Vec<TaskIndex> = match cancel.whole {
            true => self.live_slots(position),
            false => {
                cancel.index.iter().filter_map(|index| self.run(position).slots.get(index)).map(TaskIndex).collect()
            }
        };
        if cancel.spare_leased {
            tasks.retain(|task| self.kernel.state(*task) != TaskState::Leased);
        }
        self.cancel(tasks, CancelReason::User, now_ns);
    }

    fn cancel(&mut self, mut tasks: Vec<TaskIndex>, reason: CancelReason, now_ns: u64) {
        tasks.sort_unstable();
        self.kernel.cancel(&tasks);
        self.settle_cancelled(&tasks, reason, now_ns);
    }

    /// Notes what a run's first chunk says of its end.
    pub(super) fn limit_run(&mut self, position: u32, submit: &Submit<'_>, now_ns: u64) {
        let run = self.run_mut(position);
        run.stop_on_error = submit.flags & SUBMIT_STOP_ON_ERROR != 0;
        let (peer, number) = (run.peer, run.number);
        if submit.deadline_ms > 0 {
            let due_ns = now_ns.saturating_add(submit.deadline_ms.saturating_mul(1_000_000));
            self.set_timer(due_ns, Timer::Deadline(peer, number));
        }
    }

    pub(super) fn end_deadline(&mut self, peer: PeerId, number: u32, now_ns: u64) {
        if let Some(position) = self.find_run(peer, number) {
            self.stop_run(position, CancelReason::Deadline, now_ns);
        }
    }

    /// Stops the runs that are not to go on after a failure.
    pub(super) fn stop_failed_runs(&mut self, now_ns: u64) {
        for position in std::mem::take(&mut self.failed_runs) {
            // The run may be gone by now, and its place another's.
            if self.runs[position as usize].as_ref().is_some_and(|run| run.stop_on_error && run.counts.failed > 0) {
                self.stop_run(position, CancelReason::RunFailed, now_ns);
            }
        }
    }

    /// Cancels what has not ended of a run, and what is still to come of it.
    fn stop_run(&mut self, position: u32, reason: CancelReason, now_ns: u64) {
        self.run_mut(position).stopped.get_or_insert(reason);
        self.cancel_stopped(position, now_ns);
    }

    /// The same of a chunk of a run that was stopped before the chunk came.
    pub(super) fn cancel_stopped(&mut self, position: u32, now_ns: u64) {
        if let Some(reason) = self.run(position).stopped {
            self.cancel(self.live_slots(position), reason, now_ns);
        }
    }
}
