//! Nested work: tasks that submit tasks, wait for them, or return a graph in their place.
//!
//! What an attempt submits is its *nest*. It has classes of its own, so that a worker can be leased what one waiting attempt
//! waits for and nothing else; and it ends with the attempt, however that ends: what has not ended of it is cancelled, and
//! nothing of it is kept. Runs, calls and refs of a nest belong to the session of the worker.
//!
//! **Why waiting is no deadlock.** A worker whose attempt waits gives back what it has not started. Spare workers take its
//! place ([`super::spares`]); where there are no more, it is leased tasks of the nest of the attempt that waits, and of nests
//! of those, one at a time, which it runs within the wait. So whatever stands on top of an attempt on a worker was submitted
//! by it, directly or not; an attempt waits for what it has submitted; and of what can run of that, somebody may always run
//! some. What nobody can run is told as a standstill.
//!
//! **A graph in place of a task** comes as a run that replaces it, before the report says so. The task is parked then: it is
//! ready in a class that nobody leases, so its worker is free, and no death of that worker matters. Its end is that of the one
//! task that the run keeps.

use super::ledger::Value;
use super::payload::Part;
use super::peers::Peer;
use super::timers::Name;
use super::{Broker, Frame, PeerId, worker_id};
use crate::limits::Asker;
use headrace_kernel::{Attempt, ClassId, TaskIndex, TaskState};
use headrace_wire::{CancelReason, Outcome, SUBMIT_REPLACES, Submit, Waiting};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Class of tasks that have become graphs.
pub(crate) const BECAME_CLASS: ClassId = ClassId(u32::MAX - 2);

/// What is said of tasks whose submitter is gone.
const SUBMITTER_ENDED: &str = "the task that submitted it has ended";

/// The nests of all attempts that run, and of those that have become graphs.
#[derive(Debug, Default)]
pub(super) struct Nests {
    /// Whether any task has ever submitted something; until then nobody looks here.
    pub(super) used: bool,
    by_task: FxHashMap<u32, Nest>,
    /// By the number of a nest, the one in which its own task was submitted; 0 for none.
    above: FxHashMap<u32, u32>,
    last: u32,
    /// Those that are to end.
    over: Vec<Nest>,
    /// Tasks that may have to follow the end of the graph that they have become.
    due: Vec<u32>,
}

#[derive(Debug)]
struct Nest {
    number: u32,
    worker: u32,
    attempt: u32,
    tasks: Vec<Name>,
    replacement: Option<Replacement>,
}

/// A graph that a task returns, or has returned.
#[derive(Debug)]
struct Replacement {
    /// Position of its run.
    run: u32,
    /// Index of the task whose result counts.
    result: Option<u32>,
    /// The first failure in it.
    failure: Option<(Outcome, Vec<u8>)>,
    /// The class that the task had before it was parked.
    parked: Option<ClassId>,
}

/// An attempt that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wait {
    pub(crate) task: u32,
    pub(crate) attempt: u32,
    /// What for: see [`Waiting`].
    pub(crate) run: u32,
    pub(crate) index: u32,
    pub(crate) helps: bool,
}

impl Nests {
    /// The number of the nest of a task that runs; 0 if it has none.
    pub(super) fn number_of(&self, task: u32) -> u32 {
        self.by_task.get(&task).map_or(0, |nest| nest.number)
    }

    /// Whether a nest is another one, or was submitted in it by way of others. Costs O(how deep it is).
    pub(super) fn is_within(&self, mut nest: u32, other: u32) -> bool {
        while nest != other {
            match self.above.get(&nest) {
                Some(above) => nest = *above,
                None => return false,
            }
        }
        nest != 0
    }

    /// A task, or its attempt, has ended.
    pub(super) fn end(&mut self, task: u32) {
        if let Some(nest) = self.by_task.remove(&task) {
            self.above.remove(&nest.number);
            self.over.push(nest);
        }
    }

    /// Something has failed in the run that takes this task's place.
    pub(super) fn note_failure(&mut self, task: u32, outcome: Outcome, blob: &[u8]) {
        if let Some(replacement) = self.by_task.get_mut(&task).and_then(|nest| nest.replacement.as_mut()) {
            replacement.failure.get_or_insert_with(|| (outcome, blob.to_vec()));
            self.note_progress(task);
        }
    }

    /// Something has ended in the run that takes this task's place.
    pub(super) fn note_progress(&mut self, task: u32) {
        if self.due.last() != Some(&task) {
            self.due.push(task);
        }
    }
}

impl Broker {
    /// Who submits a chunk, and what is added to the priority of its tasks: what a task submits goes before what has that
    /// task's own.
    pub(super) fn asker(&mut self, peer: PeerId, submit: &Submit<'_>) -> Result<(Asker, i32), String> {
        let Some(&Peer::Worker(worker)) = self.peers.get(&peer) else {
            return Ok((Asker { owner: self.owner_of(peer), nest: 0 }, 0));
        };
        let (task, attempt) = (submit.parent, submit.parent_attempt);
        self.win_race(worker, task, attempt);
        let is_known =
            self.nests.by_task.get(&task).is_some_and(|nest| (nest.worker, nest.attempt) == (worker, attempt));
        let may_begin = || self.ledger.knows(task) && self.is_leased(worker, task, attempt);
        if !is_known && !may_begin() {
            return Err(SUBMITTER_ENDED.into());
        }
        let class = self.policies.get(self.ledger.slot(task).policy).class;
        let (owner, above) = self.limits.class(class).map_or((0, 0), |class| (class.owner, class.nest));
        let nests = &mut self.nests;
        if !is_known {
            nests.used = true;
            nests.last += 1;
            nests.above.insert(nests.last, above);
            let nest = Nest { number: nests.last, worker, attempt, tasks: Vec::new(), replacement: None };
            nests.by_task.insert(task, nest);
        }
        let nest = nests.number_of(task);
        Ok((Asker { owner, nest }, self.kernel.priority_of(TaskIndex(task)).saturating_add(1)))
    }

    /// Notes which tasks of a nest have entered.
    pub(super) fn note_nested(&mut self, submit: &Submit<'_>, position: u32, slots: &[TaskIndex]) {
        let Some(nest) = self.nests.by_task.get_mut(&submit.parent) else { return };
        nest.tasks.extend(slots.iter().map(|task| Name::of(task.0, &self.kernel)));
        if let Some(replacement) = nest.replacement.as_mut().filter(|replacement| replacement.run == position) {
            replacement.result = submit.keep.iter().next().or(replacement.result);
        }
    }

    /// A run has just been opened by a worker. If it is to take the place of the task that submits it, nobody is told of it.
    pub(super) fn begin_replacement(&mut self, peer: PeerId, position: u32, submit: &Submit<'_>) {
        if submit.flags & SUBMIT_REPLACES == 0 || !matches!(self.peers.get(&peer), Some(Peer::Worker(_))) {
            return;
        }
        if self.asker(peer, submit).is_err() {
            return;
        }
        let run = self.runs[position as usize].as_mut().expect("it was just opened");
        (run.replaces, run.finish_told, run.released) = (Some(submit.parent), true, true);
        if let Some(nest) = self.nests.by_task.get_mut(&submit.parent) {
            nest.replacement = Some(Replacement { run: position, result: None, failure: None, parked: None });
        }
    }

    /// A task has returned the graph that it has submitted to take its place.
    pub(super) fn become_graph(&mut self, number: u32, task: u32, attempt: u32, now_ns: u64) {
        if !self.is_leased(number, task, attempt) {
            self.statistics.stale_reports += 1;
            return;
        }
        let class = self.kernel.class_of(TaskIndex(task));
        let replacement = self.nests.by_task.get_mut(&task).and_then(|nest| nest.replacement.as_mut());
        let Some(replacement) = replacement else {
            if let Some(peer) = self.workers[number as usize].peer() {
                self.refuse(peer, "a task became a graph that was not submitted", now_ns);
            }
            return;
        };
        replacement.parked = Some(class);
        let run = self.runs[replacement.run as usize].as_ref().expect("its tasks are alive, or its end is due");
        self.workers[number as usize].session.runs.remove(&run.number);
        self.nests.note_progress(task);
        self.waits.forget(task);
        self.kernel.set_class(TaskIndex(task), BECAME_CLASS);
        let given_back = self.kernel.give_back(worker_id(number), TaskIndex(task), Attempt(attempt));
        given_back.expect("it was seen to be leased");
        self.unlease(number, task);
        self.settle_returned();
    }

    /// The key of a task if it belongs to a graph that has taken the place of another task, whose client is told of that one; else
    /// nothing.
    pub(super) fn inner_key(&self, task: u32) -> String {
        match self.run(self.ledger.slot(task).run).replaces {
            Some(_) => self.name_of(task),
            None => String::new(),
        }
    }

    /// A lease is over, and with it the nest of its attempt, unless that has become a graph.
    pub(super) fn end_attempt(&mut self, number: u32, task: u32) {
        self.workers[number as usize].waits.retain(|wait| wait.task != task);
        let replacement = self.nests.by_task.get(&task).and_then(|nest| nest.replacement.as_ref());
        if replacement.is_none_or(|replacement| replacement.parked.is_none()) {
            self.nests.end(task);
        }
    }

    pub(super) fn handle_waiting(&mut self, number: u32, waiting: &Waiting) {
        let Waiting { task, attempt, waits, run, index, helps } = *waiting;
        self.win_race(number, task, attempt);
        if !self.ledger.knows(task) || !self.is_leased(number, task, attempt) {
            return;
        }
        self.nests.used = true;
        let worker = &mut self.workers[number as usize];
        if let Some(known) = worker.waits.iter().position(|wait| wait.task == task) {
            worker.waits.truncate(known);
        }
        if waits {
            worker.waits.push(Wait { task, attempt, run, index, helps });
        }
        // What it has not started goes to others: all but what waits or goes on.
        let waits = &self.workers[number as usize].waits;
        let is_started = |other: u32| other == task || waits.iter().any(|wait| wait.task == other);
        let open = self.kernel.leases_of(worker_id(number)).map(|(task, attempt)| (task.0, attempt.0));
        let open = open.filter(|(task, _)| !is_started(*task) && !self.ledger.slot(*task).recalled);
        let open: Vec<(u32, u32)> = open.collect();
        if !open.is_empty() {
            self.send_recall(number, &open);
        }
    }

    /// Ends nests that are over, and follows up the ends of graphs in the place of tasks.
    pub(super) fn settle_nests(&mut self, now_ns: u64) {
        if !self.nests.used {
            return;
        }
        loop {
            while let Some(nest) = self.nests.over.pop() {
                self.end_nest(nest, now_ns);
            }
            let mut due = std::mem::take(&mut self.nests.due);
            due.sort_unstable();
            due.dedup();
            let open = due.len();
            due.retain(|task| !self.settle_replaced(*task, now_ns));
            let settled = due.len() < open;
            self.nests.due.append(&mut due);
            if !settled && self.nests.over.is_empty() {
                return;
            }
        }
    }

    fn end_nest(&mut self, nest: Nest, now_ns: u64) {
        let mut tasks: Vec<TaskIndex> = nest.tasks.iter().filter_map(|name| name.find(&self.kernel)).collect();
        tasks.sort_unstable();
        self.kernel.cancel(&tasks);
        self.settle_cancelled(&tasks, CancelReason::SubmitterEnded, now_ns);
        for name in nest.tasks {
            let Some(task) = name.find(&self.kernel) else { continue };
            let slot = self.ledger.slot_mut(task.0);
            let holds = std::mem::take(&mut slot.refs) + u32::from(std::mem::take(&mut slot.kept));
            (0..holds).for_each(|_| self.kernel.unhold(task));
        }
        self.settle_cascades(now_ns);
    }

    /// Ends a task as the graph that it has become has ended. False if that must be looked at again in the next turn.
    fn settle_replaced(&mut self, task: u32, now_ns: u64) -> bool {
        let Some(replacement) = self.nests.by_task.get_mut(&task).and_then(|nest| nest.replacement.as_mut()) else {
            return true;
        };
        let Some(class) = replacement.parked else { return true }; // its report will come
        let run = self.runs[replacement.run as usize].as_ref();
        let result = run.zip(replacement.result).and_then(|(run, index)| run.slots.get(index));
        let state = result.map_or(TaskState::Failed, |slot| self.kernel.state(TaskIndex(slot)));
        match state {
            // Nobody else can have cancelled it than the end of something that it needed of the worker.
            TaskState::Cancelled => {
                self.nests.end(task);
                self.kernel.set_class(TaskIndex(task), class);
            }
            TaskState::Failed | TaskState::Skipped => {
                let failure = replacement.failure.take();
                let (outcome, blob) = failure.unwrap_or_else(|| (Outcome::Refused, SUBMITTER_ENDED.into()));
                self.nests.end(task);
                self.kernel.fail_unleased(TaskIndex(task));
                self.note_failed(task, outcome, &blob, now_ns);
                self.settle_cascades(now_ns);
            }
            // An input of the task was lost. It will be made again, and then this can go on.
            TaskState::Done if self.kernel.state(TaskIndex(task)) != TaskState::Ready => return false,
            TaskState::Done => {
                let value =
                    self.ledger.value(result.expect("it is done")).and_then(|value: &Value| value.payload.clone());
                let value = value.map_or_else(Vec::new, |value| value.bytes().to_vec());
                self.end_at_once(TaskIndex(task), self.is_safe(&value));
                self.take_result(task, Arc::new(value), now_ns);
                self.nests.end(task);
                self.settle_cascades(now_ns);
            }
            _ => {}
        }
        true
    }

    /// A task is done that no worker has, with this result.
    fn take_result(&mut self, task: u32, value: Arc<Vec<u8>>, now_ns: u64) {
        let slot = *self.ledger.slot(task);
        let is_told = slot.kept && !slot.told && self.run(slot.run).replaces.is_none();
        let is_owed = is_told && self.is_out_of_sight(slot.run, &value);
        let task_slot = self.ledger.slot_mut(task);
        (task_slot.done, task_slot.held_by_worker) = (true, false);
        let run = self.runs[slot.run as usize].as_mut().expect("a live task's run is in the table");
        run.counts.done += 1;
        if is_told && !is_owed {
            self.store.hand_over(run.peer, run.seat, &value, &mut self.actions);
            run.outbox.push(slot.index, Outcome::Done, &value);
        }
        if self.kernel.result_alive(TaskIndex(task)) {
            self.store.cite(&value);
            let frame: Frame = value;
            self.ledger.set_value(task, Some(Part::of(&frame, (*frame).as_ref())), None);
        }
        if is_owed {
            self.owe(task);
        }
        self.note_ended(slot.run, now_ns);
    }
}
