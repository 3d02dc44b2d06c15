//! REPORT: what became of leases, and what follows from it.

use super::ledger::Value;
use super::output::Author;
use super::payload::Part;
use super::store::CITES_NOTHING;
use super::workers::{Entry, INTERRUPT_RETRY_NS, Interrupted};
use super::{Action, Broker, Frame, worker_id};
use headrace_kernel::{Attempt, HowEnded, Returned, TaskIndex, seeded};
use headrace_wire::{CancelReason, Message, Outcome, Report, Revoke, Verdict};

/// Bytes of results that a run may gather for its client before they are sent within a turn.
const OUTBOX_BYTES_MAX: usize = 64 << 20;

impl Broker {
    pub(super) fn handle_report(&mut self, number: u32, frame: &Frame, report: &Report<'_>, now_ns: u64) {
        self.statistics.report_frames += 1;
        let timed = report.timed_calls.iter().zip(report.timed_ns.iter());
        let mut ahead_ns = 0;
        for (function, (calls, ns)) in report.timed_function.iter().zip(timed) {
            self.workers[number as usize].busy_ns += u64::from(ns);
            if let Some(owner) = self.functions.owner(function) {
                self.limits.charge(owner, u64::from(ns));
            }
            ahead_ns += u64::from(ns);
            if calls > 0 {
                self.functions.learn(function, calls, std::mem::take(&mut ahead_ns));
            }
        }
        let entries =
            report.task.iter().zip(report.attempt.iter()).zip(report.verdict.iter().zip(report.values.iter()));
        let is_far = self.is_place(number);
        for ((task, attempt), (verdict, blob)) in entries {
            let Some(peer) = self.workers[number as usize].peer() else { return };
            let verdict = Verdict::try_from(*verdict).expect("the decoder admits known verdicts only");
            if matches!(verdict, Verdict::Done | Verdict::Value)
                && !self.store.arrive(peer, self.workers[number as usize].machine, blob)
            {
                return self.refuse(peer, CITES_NOTHING, now_ns);
            }
            if is_far {
                self.remember_author(number, task, attempt);
            }
            self.apply(number, Entry { task, attempt, verdict, value: Part::of(frame, blob) }, now_ns);
        }
        let worker = &mut self.workers[number as usize];
        worker.progress_ns = now_ns;
        worker.start_failures = 0;
        self.settle_cascades(now_ns);
    }

    /// Applies an entry. The citations of its value are the ledger's from then on, or nobody's.
    fn apply(&mut self, number: u32, entry: Entry<'_>, now_ns: u64) {
        let cited = (entry.carries_value() && entry.value.cites()).then_some(entry.value);
        match self.ledger.knows(entry.task) {
            true => self.apply_entry(number, entry, now_ns),
            false => self.statistics.stale_reports += 1,
        }
        if let Some(value) = cited {
            self.store.uncite(value.bytes());
        }
    }

    fn apply_entry(&mut self, number: u32, entry: Entry<'_>, now_ns: u64) {
        let Entry { task, attempt, mut verdict, value } = entry;
        self.workers[number as usize].note_over(task, attempt);
        if self.rivals.are_any() && self.rivals.is_one(number, task, attempt) {
            return self.end_rival(task, verdict, value, now_ns);
        }
        let (worker, index, stamp) = (worker_id(number), TaskIndex(task), Attempt(attempt));
        let slot = *self.ledger.slot(task);
        let (held, wanted) = (slot.held_by_worker, slot.wanted);
        if matches!(verdict, Verdict::Done | Verdict::DoneHeld) && wanted && !held && !slot.reported {
            // Nobody wanted the value, so the worker has kept nothing. Now somebody does, and it has to be made again.
            verdict = Verdict::Returned;
        }
        if self.rivals.are_any() && self.gives_way(number, task, attempt, verdict) {
            return;
        }
        if verdict == Verdict::Done
            && let Some(text) = self.refuse_inline(value.bytes(), now_ns)
            && self.is_leased(number, task, attempt)
        {
            return self.fail_refused(number, task, attempt, &text, now_ns);
        }
        let accepted = match verdict {
            Verdict::Failed if self.retry(number, task, attempt, now_ns) => return,
            Verdict::Became => return self.become_graph(number, task, attempt, now_ns),
            Verdict::TimedOut if self.retry(number, task, attempt, now_ns) => return self.count_timeout(task),
            Verdict::Value => {
                if self.ledger.value(task).is_some_and(|held| held.payload.is_none() && held.holders.contains(&number))
                {
                    self.store.cite(value.bytes());
                    self.ledger.set_payload(task, value);
                    if self.is_safe(value.bytes()) {
                        self.kernel.secure(index);
                    }
                } else if self.ledger.value(task).is_some_and(|held| held.holders.contains(&number)) {
                    self.kernel.secure(index);
                }
                return;
            }
            Verdict::Lost => {
                let held = |value: &Value| value.payload.is_none() && value.holders.contains(&number);
                if self.ledger.value(task).is_some_and(held) {
                    self.lose_result(task);
                    self.regain_inputs(task);
                    self.settle_returned();
                }
                return;
            }
            Verdict::DoneHeld if slot.reported && self.is_leased(number, task, attempt) => {
                // Nobody else has it: whoever needs it would wait for ever.
                if let Some(peer) = self.workers[number as usize].peer() {
                    self.refuse(peer, "a value that was to be reported did not come", now_ns);
                }
                return;
            }
            Verdict::Done => {
                let is_safe = self.is_safe(value.bytes());
                self.kernel.complete(worker, index, stamp, is_safe)
            }
            Verdict::DoneHeld => self.kernel.complete(worker, index, stamp, !held),
            Verdict::Failed | Verdict::FailedForGood | Verdict::TimedOut => self.kernel.fail(worker, index, stamp),
            // Only a cancel that the kernel knows of can end a lease as cancelled; anything else goes back.
            Verdict::Returned | Verdict::Cancelled => self.kernel.give_back(worker, index, stamp),
        };
        if accepted.is_err() {
            self.statistics.stale_reports += 1;
            return self.disown(number, task);
        }
        self.unlease(number, task);
        match verdict {
            Verdict::Done | Verdict::DoneHeld | Verdict::Value | Verdict::Lost => {
                self.apply_done(number, task, verdict, value, now_ns);
                if wanted {
                    self.fetch(&[task]);
                }
            }
            Verdict::Failed | Verdict::FailedForGood => {
                self.note_failed(task, Outcome::Failed, value.bytes(), now_ns);
            }
            Verdict::TimedOut => self.note_overrun(number, task, attempt, now_ns),
            Verdict::Returned | Verdict::Cancelled | Verdict::Became => {
                self.workers[number as usize].tasks_left += u64::from(verdict == Verdict::Returned);
                self.regain_inputs(task);
                // At once: an input of those that came back with it may stand further on in the same report.
                self.settle_returned();
            }
        }
    }

    pub(super) fn is_leased(&self, number: u32, task: u32, attempt: u32) -> bool {
        let task = TaskIndex(task);
        self.kernel.worker_of(task) == Some(worker_id(number)) && self.kernel.attempt(task) == Attempt(attempt)
    }

    /// Whether an attempt counts that a worker speaks of: it has the lease, or is the rival of the one that has.
    pub(super) fn may_run(&self, number: u32, task: u32, attempt: u32) -> bool {
        self.is_leased(number, task, attempt) || self.rivals.is_one(number, task, attempt)
    }

    /// What a worker may hold of an attempt that does not count is to go, unless it holds or makes a value that does.
    fn disown(&mut self, number: u32, task: u32) {
        let makes = self.kernel.worker_of(TaskIndex(task)) == Some(worker_id(number));
        let holds = self.ledger.value(task).is_some_and(|value| value.holders.contains(&number));
        if !makes && !holds {
            self.workers[number as usize].dead.push(task);
        }
    }

    pub(super) fn apply_done(&mut self, number: u32, task: u32, verdict: Verdict, value: Part<'_>, now_ns: u64) {
        self.waits.forget(task);
        let slot = *self.ledger.slot(task);
        self.ledger.slot_mut(task).done = true;
        let is_owed = slot.kept && value.cites() && !slot.told && self.is_out_of_sight(slot.run, value.bytes());
        let Broker { runs, store, actions, .. } = self;
        let run = runs[slot.run as usize].as_mut().expect("a live task's run is in the table");
        if slot.kept && !slot.told && !is_owed && run.replaces.is_none() {
            store.hand_over(run.peer, run.seat, value.bytes(), actions);
            run.outbox.push(slot.index, Outcome::Done, value.bytes());
            if seeded!("kept result told twice") && slot.index % 8 == 7 {
                run.outbox.push(slot.index, Outcome::Done, value.bytes());
            }
        }
        run.counts.done += 1;
        run.finished_by[number as usize] += 1;
        self.workers[number as usize].finished += 1;
        let holder = slot.held_by_worker.then_some(number);
        if self.kernel.result_alive(TaskIndex(task)) {
            let value = (verdict == Verdict::Done).then_some(value);
            if let Some(value) = value {
                self.store.cite(value.bytes());
            }
            self.ledger.set_value(task, value, holder);
        } else if holder.is_some() {
            self.workers[number as usize].dead.push(task);
        }
        if is_owed && self.run(slot.run).replaces.is_none() {
            self.owe(task);
        }
        self.note_ended(slot.run, now_ns);
    }

    /// A task fails because there is no room for its result. Its worker takes it for done, and may run what stands behind it.
    fn fail_refused(&mut self, number: u32, task: u32, attempt: u32, text: &str, now_ns: u64) {
        let worker = worker_id(number);
        let leases: Vec<(TaskIndex, Attempt)> = self.kernel.leases_of(worker).collect();
        self.kernel.fail(worker, TaskIndex(task), Attempt(attempt)).expect("it was seen to be leased");
        self.unlease(number, task);
        self.disown(number, task);
        for (behind, attempt) in leases.into_iter().filter(|(behind, _)| behind.0 != task) {
            if !self.is_leased(number, behind.0, attempt.0) && !seeded!("refusal unheard") {
                self.stop_attempt(number, behind.0, attempt.0, now_ns);
            }
        }
        self.note_failed(task, Outcome::Refused, text.as_bytes(), now_ns);
    }

    /// A task failed: its client is told whether it is kept or not (B3), because others may be skipped for it.
    pub(super) fn note_failed(&mut self, task: u32, outcome: Outcome, blob: &[u8], now_ns: u64) {
        self.undo_done(task);
        let slot = *self.ledger.slot(task);
        let run = self.run_mut(slot.run);
        run.counts.failed += 1;
        run.outbox.push(slot.index, outcome, blob);
        let replaces = run.replaces;
        if run.stop_on_error {
            self.failed_runs.push(slot.run);
        }
        if let Some(replaced) = replaces {
            self.nests.note_failure(replaced, outcome, blob);
        }
        self.note_ended(slot.run, now_ns);
    }

    /// A lease is over, whatever came of it: its worker has room again.
    pub(super) fn unlease(&mut self, number: u32, task: u32) {
        if self.rivals.are_any() {
            self.end_race(task);
        }
        self.leave_frame(number, task, self.ledger.slot(task).frame);
        self.uncount_lease(task);
        if self.nests.used {
            self.end_attempt(number, task);
        }
    }

    /// An attempt is over, and its worker has room again.
    pub(super) fn leave_frame(&mut self, number: u32, task: u32, frame: u32) {
        let slot = *self.ledger.slot(task);
        let cost_ns = self.functions.estimate_ns(slot.function).unwrap_or(0);
        let worker = &mut self.workers[number as usize];
        worker.outstanding_ns = worker.outstanding_ns.saturating_sub(cost_ns);
        worker.settle(frame);
        self.end_grant(number, slot.policy);
    }

    /// A lease is counted no more.
    pub(super) fn uncount_lease(&mut self, task: u32) {
        let slot = self.ledger.slot_mut(task);
        self.consuming -= u64::from(std::mem::take(&mut slot.consumes));
        let run = slot.run;
        self.run_mut(run).counts.leased -= 1;
    }

    pub(super) fn note_ended(&mut self, position: u32, now_ns: u64) {
        let run = self.runs[position as usize].as_mut().expect("a live task's run is in the table");
        if let Some(replaced) = run.replaces {
            self.nests.note_progress(replaced);
        }
        if run.finished() {
            run.ended_ns = Some(now_ns);
        }
        if run.finished() || !run.outbox.index.is_empty() {
            let full = run.outbox.values.bytes.len() >= OUTBOX_BYTES_MAX;
            self.note_news(position);
            if full {
                self.tell_run(position);
            }
        }
    }

    /// Follows up what the kernel decided by itself: skipped and cancelled tasks, dead results, freed slots.
    pub(super) fn settle_cascades(&mut self, now_ns: u64) {
        self.settle_cancelled(&[], CancelReason::ParentCancelled, now_ns);
    }

    /// The same, where `asked` are the tasks that were to be cancelled for this reason, in order of their numbers; others
    /// that are cancelled need one that was.
    pub(super) fn settle_cancelled(&mut self, asked: &[TaskIndex], reason: CancelReason, now_ns: u64) {
        let mut ended = Vec::new();
        self.kernel.drain_ended(|task| ended.push(task));
        let mut skipped: Vec<(u32, u32, u32)> = Vec::new();
        for end in ended {
            let task = end.task.0;
            match end.leased_to {
                Some((worker, _)) => self.unlease(worker.0, task),
                None => self.nests.end(task),
            }
            self.undo_done(task);
            let slot = *self.ledger.slot(task);
            match end.how {
                HowEnded::Skipped { root } => {
                    let root = *self.ledger.slot(root.0);
                    let number = self.run(root.run).number;
                    let mut blob = [0; 8];
                    blob[..4].copy_from_slice(&number.to_le_bytes());
                    blob[4..].copy_from_slice(&root.index.to_le_bytes());
                    let run = self.run_mut(slot.run);
                    run.counts.skipped += 1;
                    run.outbox.push(slot.index, Outcome::Skipped, &blob);
                    skipped.extend(end.leased_to.map(|(worker, attempt)| (worker.0, task, attempt.0)));
                }
                HowEnded::Cancelled => {
                    let run = self.run_mut(slot.run);
                    run.counts.cancelled += 1;
                    let is_asked = asked.binary_search(&end.task).is_ok();
                    let reason = if is_asked { reason } else { CancelReason::ParentCancelled };
                    run.outbox.push(slot.index, Outcome::Cancelled, &[reason as u8]);
                    if let Some((worker, attempt)) = end.leased_to {
                        self.stop_attempt(worker.0, task, attempt.0, now_ns);
                    }
                }
            }
            self.note_ended(slot.run, now_ns);
        }
        self.drop_skipped(skipped);
        self.settle_returned();
        self.settle_dead_and_freed();
    }

    /// Follows up leases that came back with another one. Making an input again may bring further ones back.
    pub(super) fn settle_returned(&mut self) {
        loop {
            let mut returned: Vec<Returned> = Vec::new();
            self.kernel.drain_returned(|lease| returned.push(lease));
            if returned.is_empty() {
                return;
            }
            for lease in returned {
                self.unlease(lease.worker.0, lease.task.0);
                self.workers[lease.worker.0 as usize].tasks_left += 1;
                self.drop_lease(lease.worker.0, lease.task.0, lease.attempt.0);
                self.regain_inputs(lease.task.0);
            }
        }
    }

    /// Forgets dead results, and notes who is to forget them.
    pub(super) fn settle_dead(&mut self) {
        let Broker { kernel, ledger, workers, .. } = self;
        kernel.drain_dead(|task| {
            for holder in ledger.drop_value(task.0) {
                workers[holder as usize].dead.push(task.0);
            }
        });
    }

    fn settle_dead_and_freed(&mut self) {
        self.settle_dead();
        let Broker { kernel, ledger, policies, limits, retries, waits, deaths, runs, .. } = self;
        let mut shrunk = Vec::new();
        self.freeing = kernel.drain_freed(|task| {
            let slot = *ledger.slot(task.0);
            ledger.close(task.0);
            policies.remove_task(limits, slot.policy);
            retries.forget(task.0);
            waits.forget(task.0);
            deaths.forget(task.0);
            let run = runs[slot.run as usize].as_mut().expect("a live task's run is in the table");
            run.forget(slot.index);
            if run.live == 0 {
                shrunk.push(slot.run);
            }
        });
        for position in shrunk {
            self.drop_run_if_over(position);
        }
    }

    /// A task that was done runs again, or never will: it is not done.
    pub(super) fn undo_done(&mut self, task: u32) {
        if std::mem::take(&mut self.ledger.slot_mut(task).done) {
            let run = self.ledger.slot(task).run;
            self.run_mut(run).counts.done -= 1;
        }
    }

    /// Tells workers not to start leases whose inputs will never come: what other tasks in their slots make must not be taken
    /// for them (W3).
    fn drop_skipped(&mut self, mut skipped: Vec<(u32, u32, u32)>) {
        skipped.sort_by_key(|lease| lease.0);
        for leases in skipped.chunk_by(|a, b| a.0 == b.0) {
            if let Some(peer) = self.workers[leases[0].0 as usize].peer() {
                let (task, attempt): (Vec<u32>, Vec<u32>) = leases.iter().map(|lease| (lease.1, lease.2)).unzip();
                self.send(peer, &Message::Revoke(Revoke { task: (&task).into(), attempt: (&attempt).into() }));
            }
        }
    }

    /// Tells a worker not to start a lease that is no longer its own.
    fn drop_lease(&mut self, number: u32, task: u32, attempt: u32) {
        if let Some(peer) = self.workers[number as usize].peer() {
            let (task, attempt) = ([task], [attempt]);
            self.send(peer, &Message::Revoke(Revoke { task: task[..].into(), attempt: attempt[..].into() }));
        }
    }

    /// A cancelled attempt is dropped if it has not started, and interrupted if it has. Its worker gets no new work until
    /// it says that the attempt is over.
    fn stop_attempt(&mut self, number: u32, task: u32, attempt: u32, now_ns: u64) {
        self.stop_author(number, self.author_of(task, attempt), now_ns);
    }

    pub(super) fn stop_author(&mut self, number: u32, author: Author, now_ns: u64) {
        let (retry_ns, kill_ns) = (now_ns + INTERRUPT_RETRY_NS, now_ns + self.config.grace_ns);
        let Author { task, attempt, .. } = author;
        let worker = &mut self.workers[number as usize];
        // One that is overdue has been interrupted: once more would hit its clean-up.
        if worker.peer().is_none() || worker.overdue == Some((task, attempt)) || seeded!("cancel unheard") {
            return;
        }
        worker.interrupted.push(Interrupted { task, attempt, author, retry_ns, kill_ns });
        self.drop_lease(number, task, attempt);
        self.actions.push_back(Action::Interrupt { worker: number, task, attempt });
    }
}
